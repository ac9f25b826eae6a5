// What a container has as its "/": one directory of the host, an overlay of several with the
// container's own changes in a tmpfs or a directory on top, or an empty tmpfs into which the mounts
// put what is wanted.
//
// A description only: nothing is mounted here. How it becomes mounts is the plan's
// (container/encode_root.hpp). overlayfs in a user namespace needs Linux 5.11, directory roots in
// one need id-mapped mounts (5.12; tmpfs 6.3), layers of an overlay in one 5.19.
#pragma once

#include <fcntl.h>
#include <sys/stat.h>

#include <cerrno>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <kumiki/core/error.hpp>
#include <kumiki/core/text.hpp>
#include <kumiki/core/unique_fd.hpp>
#include <kumiki/core/units.hpp>
#include <kumiki/rootfs/mount_attributes.hpp>
#include <kumiki/sys/file.hpp>

namespace kumiki::inline v0 {

/// Where an overlay keeps what the container changes.
struct overlay_upper {
    std::string upper{};  ///< a directory that keeps the changes; empty: a tmpfs that goes
    std::string work{};  ///< an empty directory on the same filesystem; with `upper` only
    bytes size = {256ULL << 20};  ///< the most that the tmpfs takes; without `upper` only
};

/// A root that is empty at first.
struct assembled_root {
    bytes size = {64ULL << 20};  ///< the most that the tmpfs takes
    unsigned mode = 0755;  ///< permission bits of "/"
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
    // Not by default arguments: see policy.hpp.
    static rootfs overlay(std::string lower) { return overlay(std::move(lower), overlay_upper()); }
    static rootfs overlay(std::vector<std::string> lowers) {
        return overlay(std::move(lowers), overlay_upper());
    }
    /// An overlay on `lower`, which is not changed.
    static rootfs overlay(std::string lower, overlay_upper upper) {
        return overlay(std::vector<std::string>{std::move(lower)}, std::move(upper));
    }
    /// An overlay on several directories, the topmost first.
    static rootfs overlay(std::vector<std::string> lowers, overlay_upper upper) {
        rootfs root;
        root.layers_ = std::move(lowers);
        root.upper_ = std::move(upper);
        root.overlay_ = true;
        return root;
    }
    /// An empty tmpfs, to be filled by the mounts of the spec: directories of the host, links,
    /// files. See host_system().
    static rootfs assembled(assembled_root wanted = {}) {
        rootfs root;
        root.assembled_ = wanted;
        return root;
    }
    /// The same, read-only for the container.
    rootfs read_only() && {
        access_ = access_mode::read_only;
        return std::move(*this);
    }

    bool is_overlay() const noexcept { return overlay_; }
    /// What the empty root is like; nothing for the other kinds.
    const std::optional<assembled_root>& assembled_as() const noexcept { return assembled_; }
    bool is_read_only() const noexcept { return access_ == access_mode::read_only; }
    /// The overlay's lower directories, topmost first, or the one directory.
    const std::vector<std::string>& layers() const noexcept { return layers_; }
    const overlay_upper& upper() const noexcept { return upper_; }

    /// Refuses what cannot be a root: a missing path, something that is no directory, no layer. A
    /// path whose last component is a symbolic link is followed only when it ends with '/'.
    /// Errors: invalid_input, or kumiki::error from the kernel.
    void validate() const {
        if (assembled_) {
            if ((assembled_->mode & ~01777U) != 0)
                throw invalid_input("rootfs mode", "/", "It may have permission bits only.");
            return;
        }
        if (layers_.empty()) throw invalid_input("rootfs", "", "It must name a directory.");
        for (const std::string& layer : layers_) require_directory("rootfs", layer);
        if (upper_.upper.empty() != upper_.work.empty())
            throw invalid_input("overlay", upper_.upper + upper_.work,
                                "An upper directory and a work directory go together.");
        if (overlay_ && upper_.upper.empty() && upper_.size.count == 0)
            throw invalid_input("size of an overlay's tmpfs", "0",  // the kernel: no limit
                                "It must hold something.");
        if (layers_.size() > most_layers)
            throw invalid_input("overlay", std::to_string(layers_.size()) + " layers",
                                "The kernel stacks at most 500.");
        if (!upper_.upper.empty()) validate_upper();
    }

    static constexpr std::size_t most_layers = 500;  ///< OVL_MAX_STACK

  private:
    void validate_upper() const {
        const struct stat upper = require_directory("upper directory", upper_.upper);
        const struct stat work = require_directory("work directory", upper_.work);
        if (upper.st_dev != work.st_dev)
            throw invalid_input(
                "work directory", upper_.work,
                "It must be on the filesystem of the upper directory " + upper_.upper + ".");
        if (upper.st_ino == work.st_ino || is_path_within(upper_.upper, upper_.work) ||
            is_path_within(upper_.work, upper_.upper))
            throw invalid_input("work directory", upper_.work,
                                "It and the upper directory " + upper_.upper +
                                    " must be two, neither of them within the other.");
    }
    static struct stat require_directory(const char* what, const std::string& path) {
        require_c_string(what, path);
        if (path.empty() || path.front() != '/')
            throw invalid_input(what, path, "It must be an absolute path.");
        const int fd = ::open(path.c_str(), O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (fd >= 0) return sys::status_of(unique_fd(fd).get());
        const int code = errno;
        struct stat info{};
        const bool link = ::lstat(path.c_str(), &info) == 0 && S_ISLNK(info.st_mode);
        throw error(code, {.operation = std::string("open the ") + what,
                           .object = path,
                           .step = "root",
                           .container = {},
                           .remedy = link ? "It is a symbolic link, which whoever made the image "
                                            "may have put there. Name the directory itself, or "
                                            "end the path with '/' to follow the link."
                                     : code == ENOTDIR ? "It must be a directory."
                                     : code == ENOENT  ? "It does not exist."
                                                       : ""});
    }

    std::vector<std::string> layers_;
    overlay_upper upper_;
    std::optional<assembled_root> assembled_;
    access_mode access_ = access_mode::read_write;
    bool overlay_ = false;
};

}  // namespace kumiki::inline v0
