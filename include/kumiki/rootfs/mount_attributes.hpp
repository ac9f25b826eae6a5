// What holds for a mount and all that is reached through it: read-only or not, what it refuses, how
// it records access, whether mounts made elsewhere appear in it, and whose its files appear to be.
//
// Descriptions only, in the kernel's terms (mount_setattr(2), 5.12; nosymfollow 5.14). The kernel's
// own bits are made of them by attribute_bits() and propagation_bit().
#pragma once

#include <cstdint>
#include <vector>

#include <kumiki/core/flags.hpp>
#include <kumiki/sys/abi.hpp>

namespace kumiki::inline v0 {

/// Whether what is mounted can be written to.
enum class access_mode : std::uint8_t { read_write, read_only };

/// What a mount refuses or leaves out.
enum class mount_flag : std::uint8_t {
    none = 0,
    nosuid = 1,  ///< set-user-ID bits and file capabilities give nothing
    nodev = 2,  ///< device nodes cannot be opened
    noexec = 4,  ///< nothing in it can be executed
    nodiratime = 8,  ///< reading a directory does not change its access time
    nosymfollow = 16,  ///< symbolic links are not followed. Kernel: 5.14
};
template <>
inline constexpr bool is_flags<mount_flag> = true;

/// When reading changes a file's access time.
enum class access_times : std::uint8_t { as_source, relatime, noatime, strictatime };

/// Whether mounts that are made in a mount's copies appear in it, and the other way about.
/// Source: mount_namespaces(7).
enum class mount_propagation : std::uint8_t {
    private_,  ///< neither
    slave,  ///< those of its source appear in it
    shared,  ///< both: mounts that the container makes appear on the host
    unbindable,  ///< neither, and it cannot be copied
};

/// How deep a copy of a mount goes, or what is set for it.
enum class bind_depth : std::uint8_t {
    recursive,  ///< with what is mounted below
    single,  ///< without
};

/// `count` owners from `stored` on are shown as those from `shown` on.
struct shown_owners {
    std::uint32_t stored = 0;  ///< in the filesystem
    std::uint32_t shown = 0;  ///< to the container, in its own ids
    std::uint32_t count = 1;
};

/// Whose the files of a mount appear to be, and whose those become that are made in it; owners
/// that are not mapped appear as nobody. Kernel: 5.12, by filesystem.
struct id_mapping {
    std::vector<shown_owners> users{};
    std::vector<shown_owners> groups{};

    /// Each owner as the container's own of that number: its root for root's files, and so on.
    static id_mapping same(std::uint32_t count = 65536) {
        return {.users = {{0, 0, count}}, .groups = {{0, 0, count}}};
    }
};

namespace detail {

/// MOUNT_ATTR_* of a set of flags.
constexpr std::uint64_t attribute_bits(mount_flag flags) noexcept {
    std::uint64_t bits = 0;
    if (has(flags, mount_flag::nosuid)) bits |= sys::mount_attr_nosuid;
    if (has(flags, mount_flag::nodev)) bits |= sys::mount_attr_nodev;
    if (has(flags, mount_flag::noexec)) bits |= sys::mount_attr_noexec;
    if (has(flags, mount_flag::nodiratime)) bits |= sys::mount_attr_nodiratime;
    if (has(flags, mount_flag::nosymfollow)) bits |= sys::mount_attr_nosymfollow;
    return bits;
}

/// MS_* of a propagation.
constexpr std::uint64_t propagation_bit(mount_propagation wanted) noexcept {
    switch (wanted) {
    case mount_propagation::private_:
        return sys::ms_private;
    case mount_propagation::slave:
        return sys::ms_slave;
    case mount_propagation::shared:
        return sys::ms_shared;
    case mount_propagation::unbindable:
        return sys::ms_unbindable;
    }
    return sys::ms_private;
}

}  // namespace detail
}  // namespace kumiki::inline v0
