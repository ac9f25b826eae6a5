// The mounts that the supervisor makes before there is a child: detached copies of what the host
// lends to a container (a root directory, bind sources, device nodes for a user namespace).
//
// They are made here because only the supervisor's mount namespace may copy the host's mounts, and
// because a path of the host is best resolved once, before anything of the container runs. A
// detached mount is nowhere to be seen and goes with its descriptor. open_tree(2): 5.2.
#pragma once

#include <fcntl.h>
#include <sys/stat.h>

#include <string>
#include <utility>
#include <vector>

#include <kumiki/core/unique_fd.hpp>
#include <kumiki/rootfs/mount.hpp>
#include <kumiki/sys/file.hpp>
#include <kumiki/sys/mount_api.hpp>

namespace kumiki::inline v0::detail {

/// One detached mount and where it is to go.
struct held_mount {
    unique_fd mount;
    std::string target;      ///< absolute, in the container
    bool directory = true;
};

/// Whether `source` is a directory that the child can copy later, or something else.
/// Errors: invalid_input for a path that is not absolute, or of the host's /proc, which the child
/// does not see any more by then; what stat(2) says of a missing one.
inline bool is_host_directory(const std::string& source, const char* what = "mount source") {
    require_c_string(what, source);
    if (!source.starts_with('/')) throw invalid_input(what, source, "It must be an absolute path.");
    if (is_path_within(source, "/proc"))
        throw invalid_input(what, source, "It cannot be below /proc for an ordinary user.");
    struct stat info{};
    sys::check(::stat(source.c_str(), &info), "look at", source);
    return S_ISDIR(info.st_mode);
}

/// How a copy of a host mount differs from its original.
struct copy_options {
    access_mode access = access_mode::read_write;
    bind_depth depth = bind_depth::recursive;
    std::uint64_t attributes = sys::mount_attr_nosuid | sys::mount_attr_nodev;
    int idmap = -1;  ///< a user namespace through which owners are shown; -1: as they are
};

/// A detached copy of `source`, private, with the options' attributes on every mount of it.
inline held_mount hold_mount(const std::string& source, std::string target,
                             const copy_options& options, const char* what = "mount source") {
    if (source.empty() || source.front() != '/')
        throw invalid_input(what, source, "It must be an absolute path.");
    require_c_string(what, source);
    const unsigned recursive = options.depth == bind_depth::recursive ? sys::at_recursive : 0;
    held_mount held{sys::clone_mount(AT_FDCWD, source, recursive), std::move(target)};
    held.directory = S_ISDIR(sys::status_of(held.mount.get()).st_mode);
    sys::mount_attributes attributes{.set = options.attributes, .propagation = sys::ms_private};
    if (options.access == access_mode::read_only) attributes.set |= sys::mount_attr_rdonly;
    try {
        sys::set_mount_attributes(held.mount.get(), attributes, recursive);
        if (options.idmap >= 0) {
            const sys::mount_attributes mapped{
                .set = sys::mount_attr_idmap,
                .userns_fd = static_cast<std::uint64_t>(options.idmap)};
            sys::set_mount_attributes(held.mount.get(), mapped, recursive);
        }
    } catch (error& failure) {
        throw error(failure.errno_value(),
                    {.operation = "set the attributes of the mount of",
                     .object = source,
                     .step = "mounts",
                     .container = {},
                     .remedy = failure.errno_value() == EINVAL && options.idmap >= 0
                                   ? "Its filesystem does not support id-mapped mounts."
                                   : ""});
    }
    return held;
}

/// Holds what a bind mount shows.
inline held_mount hold_mount(const bind_mount& bind) {
    return hold_mount(bind.source, bind.target, {.access = bind.access, .depth = bind.depth});
}

}  // namespace kumiki::inline v0::detail
