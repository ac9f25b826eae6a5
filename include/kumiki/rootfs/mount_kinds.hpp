// The kinds of things that a description puts into a container's root: what of the host is shown
// there, filesystems and files that exist in memory alone, devices, and plain directories and links.
//
// Aggregates for designated initialisers, and no side effects. `target` is always an absolute path
// in the container; what is missing of it is made (directories of root's, mode 0755).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include <kumiki/core/units.hpp>
#include <kumiki/rootfs/mount_attributes.hpp>
#include <kumiki/rootfs/rootfs.hpp>

namespace kumiki::inline v0 {

/// A file, directory or socket of the host made visible in the container.
struct bind_mount {
    std::string source{};  ///< absolute, on the host
    std::string target{};  ///< absolute, in the container
    access_mode access = access_mode::read_write;  ///< read_only holds for all below as well
    bind_depth depth = bind_depth::recursive;
    /// Flags that it has, whether its source has them or not ...
    mount_flag set = mount_flag::nosuid | mount_flag::nodev;
    /// ... and that it has not. All others are as in the source.
    mount_flag clear = mount_flag::none;
    access_times times = access_times::as_source;
    /// Whether access, flags and times are those of the mounts below, too.
    bind_depth attributes = bind_depth::recursive;
    mount_propagation propagation = mount_propagation::private_;
    std::optional<id_mapping> ids{};  ///< unset: owners are shown as they are
};

/// What a new tmpfs begins with.
enum class tmpfs_content : std::uint8_t {
    empty,
    /// What the image has at that place. Files are copied when they are first changed: it is an
    /// overlay, and the tmpfs holds the changes. At a start only.
    copy_up,
};

/// A new tmpfs, gone with the container.
struct tmpfs_mount {
    std::string target{};  ///< absolute, in the container
    bytes size = {64ULL << 20};  ///< the most that it holds
    unsigned mode = 01777;  ///< permission bits of its root
    std::uint64_t inodes = 0;  ///< the most files in it; 0: as many as fit
    access_mode access = access_mode::read_write;
    mount_flag flags = mount_flag::nosuid | mount_flag::nodev;
    tmpfs_content content = tmpfs_content::empty;
};

/// A file that exists in the container alone, in memory.
struct file_mount {
    std::string target{};  ///< absolute, in the container
    std::string content{};
    unsigned mode = 0644;
    std::uint32_t user = 0;  ///< in the container's ids
    std::uint32_t group = 0;  ///< likewise
    access_mode access = access_mode::read_only;
};

/// An overlay of directories of the host at a place that is not the root. At a start only.
struct overlay_mount {
    std::string target{};  ///< absolute, in the container
    std::vector<std::string> lowers{};  ///< absolute, on the host, the topmost first
    overlay_upper upper{};
    access_mode access = access_mode::read_write;
    mount_flag flags = mount_flag::nosuid | mount_flag::nodev;
};

enum class device_type : std::uint8_t { character, block };

/// A device node below /dev. Whether it may be opened is for resource_limits::devices to say.
struct device_mount {
    std::string target{};  ///< below /dev
    device_type type = device_type::character;
    unsigned major = 0;
    unsigned minor = 0;
    unsigned mode = 0666;
    std::uint32_t user = 0;  ///< in the container's ids
    std::uint32_t group = 0;  ///< likewise
    /// Where the host has this device; empty: at the same path. Looked for only where the container
    /// has users of its own: no node can be made there, so the host's is shown, with its owner and
    /// mode.
    std::string source{};
};

/// A symbolic link. There must be nothing at its place.
struct symlink_entry {
    std::string target{};  ///< where it is: absolute, in the container
    std::string leads_to{};  ///< its text: any path, as seen from inside
};

/// An empty directory. One that is there already stays as it is.
struct directory_entry {
    std::string target{};  ///< absolute, in the container
    unsigned mode = 0755;
    std::uint32_t user = 0;  ///< in the container's ids
    std::uint32_t group = 0;  ///< likewise
};

}  // namespace kumiki::inline v0
