// What a container has as its "/": one directory of the host, or an overlay of several with the
// container's own changes in a tmpfs or a directory on top.
//
// A description only: nothing is opened or mounted here. How it becomes mounts is the plan's
// (container/encode_rootfs.hpp). overlayfs in a user namespace needs Linux 5.11, directory roots in
// one need id-mapped mounts (5.12; tmpfs 6.3).
#pragma once

#include <fcntl.h>
#include <sys/stat.h>

#include <initializer_list>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <kumiki/core/error.hpp>
#include <kumiki/core/text.hpp>
#include <kumiki/core/unique_fd.hpp>
#include <kumiki/core/units.hpp>
#include <kumiki/sys/file.hpp>

namespace kumiki::inline v0 {

/// Whether what is mounted can be written to.
enum class access_mode : std::uint8_t { read_write, read_only };

/// Where an overlay keeps what the container changes.
struct overlay_upper {
    std::string upper{};  ///< a directory that keeps the changes; empty: a tmpfs that goes
    std::string work{};  ///< an empty directory on the same filesystem; with `upper` only
    bytes size = {256ULL << 20};  ///< the most that the tmpfs takes; without `upper` only
};

/// The root filesystem of a container.
class rootfs {
  public:
    /// The directory `path` itself: changes go to it, unless it is read-only.
    static rootfs directory(std::string path, access_mode access = access_mode::read_write) {
        rootfs root;
        root.layers_ = {std::move(path)};
        root.access_ = access;
        return root;
    }
    /// An overlay on `lower`, which is not changed.
    static rootfs overlay(std::string lower, overlay_upper upper = {}) {
        return overlay(std::vector<std::string>{std::move(lower)}, std::move(upper));
    }
    /// An overlay on several directories, the topmost first.
    static rootfs overlay(std::vector<std::string> lowers, overlay_upper upper = {}) {
        rootfs root;
        root.layers_ = std::move(lowers);
        root.upper_ = std::move(upper);
        root.overlay_ = true;
        return root;
    }
    /// The same, read-only for the container.
    rootfs read_only() && {
        access_ = access_mode::read_only;
        return std::move(*this);
    }

    bool is_overlay() const noexcept { return overlay_; }
    bool is_read_only() const noexcept { return access_ == access_mode::read_only; }
    /// The overlay's lower directories, topmost first, or the one directory.
    const std::vector<std::string>& layers() const noexcept { return layers_; }
    const overlay_upper& upper() const noexcept { return upper_; }

    /// Refuses what cannot be a root: a missing path, something that is no directory, no layer.
    /// Errors: invalid_input, or kumiki::error from the kernel.
    void validate() const {
        if (layers_.empty()) throw invalid_input("rootfs", "", "It must name a directory.");
        for (const std::string& layer : layers_) require_directory("rootfs", layer);
        if (upper_.upper.empty() != upper_.work.empty())
            throw invalid_input("overlay", upper_.upper + upper_.work,
                                "An upper directory and a work directory go together.");
        if (!upper_.upper.empty()) {
            require_directory("upper directory", upper_.upper);
            require_directory("work directory", upper_.work);
        }
    }

  private:
    static void require_directory(const char* what, const std::string& path) {
        require_c_string(what, path);
        if (path.empty() || path.front() != '/')
            throw invalid_input(what, path, "It must be an absolute path.");
        const int fd = ::open(path.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC);
        if (fd >= 0) {
            unique_fd closing(fd);
            return;
        }
        const int code = errno;
        throw error(code, {.operation = std::string("open the ") + what,
                           .object = path,
                           .step = "root",
                           .container = {},
                           .remedy = code == ENOTDIR  ? "It must be a directory."
                                     : code == ENOENT ? "It does not exist."
                                                      : ""});
    }

    std::vector<std::string> layers_;
    overlay_upper upper_;
    access_mode access_ = access_mode::read_write;
    bool overlay_ = false;
};

}  // namespace kumiki::inline v0
