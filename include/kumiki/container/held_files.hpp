// What the supervisor holds for a container besides directories and files of the host's: the host's
// /sys, its device nodes, and files that it makes in memory.
//
// As detached mounts (held_mounts.hpp). A file is made in a tmpfs that is mounted for a moment in a
// mount namespace that nobody else sees. open_tree(2): 5.2.
#pragma once

#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#undef BLOCK_SIZE  // comes with it
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include <string>
#include <string_view>

#include <kumiki/container/held_mounts.hpp>
#include <kumiki/core/unique_fd.hpp>
#include <kumiki/rootfs/mount.hpp>
#include <kumiki/sys/file.hpp>
#include <kumiki/sys/mount_api.hpp>
#include <kumiki/sys/own_thread.hpp>

namespace kumiki::inline v0::detail {

/// Holds the host's /sys without what is mounted in it, read-only.
inline held_mount hold_sysfs() {
    return hold_mount(
        "/sys", "/sys",
        {.access = access_mode::read_only,
         .depth = bind_depth::single,
         .attributes = sys::mount_attr_nosuid | sys::mount_attr_nodev | sys::mount_attr_noexec});
}

/// How a copy of a device node differs from the host's.
inline copy_options device_options() {
    return {.depth = bind_depth::single,
            .attributes = sys::mount_attr_nosuid | sys::mount_attr_noexec,
            .cleared = sys::mount_attr_nodev};
}

/// Refuses a node that is another device's. Errors: invalid_input.
inline void require_device(const device_mount& wanted, const struct stat& info,
                           const std::string& source) {
    const unsigned type = wanted.type == device_type::block ? S_IFBLK : S_IFCHR;
    if ((info.st_mode & S_IFMT) != type || info.st_rdev != ::makedev(wanted.major, wanted.minor))
        throw invalid_input("device", source,
                            "It is not the host's node of device " + std::to_string(wanted.major) +
                                ":" + std::to_string(wanted.minor) + ": name that as its source.");
}

/// Holds the host's node of a device, once it has been seen to be that device.
inline held_mount hold_device(const device_mount& wanted) {
    const std::string& source = wanted.source.empty() ? wanted.target : wanted.source;
    held_mount held = hold_mount(source, wanted.target, device_options(), "device source");
    require_device(wanted, sys::status_of(held.mount.get()), source);
    return held;
}

/// Makes a file in memory and holds it: in a tmpfs of its own, mounted for a moment in a mount
/// namespace that nobody else sees, because only what is mounted can be copied (up to 6.14).
inline held_mount hold_file(const file_mount& wanted, owner_maps owners) {
    const std::uint32_t user = outside_id(owners.uids, wanted.user, "owner");
    const std::uint32_t group = outside_id(owners.gids, wanted.group, "owning group");
    return sys::on_own_thread([&] {
        sys::check(::unshare(CLONE_FS | CLONE_NEWNS), "unshare", "the mounts");
        sys::check(::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr), "make private",
                   "/");
        sys::filesystem_context tmpfs("tmpfs");
        tmpfs.set("size", std::to_string(wanted.content.size() + (64 << 10)));
        const unique_fd place = tmpfs.mount(copy_options::nosuid_and_nodev);
        const unique_fd root = sys::open_at(AT_FDCWD, "/", O_PATH | O_DIRECTORY);
        sys::attach_mount(place.get(), root.get(), "/");
        const unique_fd file = sys::open_at(place.get(), "file", O_CREAT | O_EXCL | O_WRONLY, 0600);
        std::string_view rest = wanted.content;
        while (!rest.empty())
            rest.remove_prefix(static_cast<std::size_t>(sys::check(
                sys::retry([&] { return ::write(file.get(), rest.data(), rest.size()); }), "write",
                wanted.target)));
        sys::check(::fchown(file.get(), user, group), "change the owner of", wanted.target);
        sys::check(::fchmod(file.get(), wanted.mode), "change the mode of", wanted.target);
        held_mount held{sys::clone_mount(place.get(), "file"), wanted.target, false};
        sys::mount_attributes attributes{.propagation = sys::ms_private};
        if (wanted.access == access_mode::read_only) attributes.set = sys::mount_attr_rdonly;
        sys::set_mount_attributes(held.mount.get(), attributes);
        return held;
    });
}

}  // namespace kumiki::inline v0::detail
