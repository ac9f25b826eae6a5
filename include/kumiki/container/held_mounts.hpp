// The mounts that the supervisor makes before there is a child: detached copies of what the host
// lends to a container (a root directory, bind sources, device nodes for a user namespace).
//
// They are made here because only the supervisor's mount namespace may copy the host's mounts, and
// because a path of the host is best resolved once, before anything of the container runs. A
// detached mount is nowhere to be seen and goes with its descriptor. open_tree(2): 5.2.
#pragma once

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <kumiki/core/unique_fd.hpp>
#include <kumiki/ns/id_map.hpp>
#include <kumiki/ns/user_namespace.hpp>
#include <kumiki/rootfs/mount.hpp>
#include <kumiki/sys/file.hpp>
#include <kumiki/sys/mount_api.hpp>

namespace kumiki::inline v0::detail {

/// The maps of the container's user namespace; null: it has none, and its ids are the host's.
struct owner_maps {
    const id_map* uids = nullptr;
    const id_map* gids = nullptr;

    bool own() const noexcept { return uids != nullptr; }
};

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
    return S_ISDIR(sys::status_at(source).st_mode);
}

/// How a copy of a host mount differs from its original.
struct copy_options {
    access_mode access = access_mode::read_write;
    bind_depth depth = bind_depth::recursive;
    std::uint64_t attributes = nosuid_and_nodev;  ///< those that it has ...
    std::uint64_t cleared = 0;                    ///< ... and has not
    bind_depth reach = bind_depth::recursive;     ///< of the attributes
    mount_propagation propagation = mount_propagation::private_;
    unsigned lookup = 0;  ///< AT_SYMLINK_NOFOLLOW: the source must not be a symbolic link itself
    int idmap = -1;  ///< a user namespace through which owners are shown; -1: as they are

    static constexpr std::uint64_t nosuid_and_nodev =
        sys::mount_attr_nosuid | sys::mount_attr_nodev;
};

/// The type of the filesystem at `path`, as /proc/self/mountinfo names it; empty when unknown.
inline std::string filesystem_type(const std::string& path) {
    const int fd = ::open(path.c_str(), O_PATH | O_CLOEXEC);
    const unique_fd place(fd);
    if (!place) return {};
    const auto info =
        sys::try_read_file_at(AT_FDCWD, "/proc/self/fdinfo/" + std::to_string(place.get()));
    const auto at = info ? info->find("mnt_id:") : std::string::npos;
    if (at == std::string::npos) return {};
    const auto digits = info->find_first_of("0123456789", at);
    const std::string id = info->substr(digits, info->find('\n', digits) - digits) + " ";
    const std::string mounts = sys::read_file_at(AT_FDCWD, "/proc/self/mountinfo");
    for (const std::string_view line : split(mounts, '\n')) {
        const auto dash = line.find(" - ");
        if (line.starts_with(id) && dash != std::string_view::npos)
            return std::string(line.substr(dash + 3, line.find(' ', dash + 3) - dash - 3));
    }
    return {};
}

/// What to do about attributes that the kernel refuses.
inline std::string attribute_remedy(int code, const std::string& source,
                                    const copy_options& options) {
    if (code == EINVAL && options.idmap >= 0) {
        const std::string type = filesystem_type(source);
        return "Its filesystem" + (type.empty() ? "" : " (" + type + ")") +
               ", or one mounted below it, does not support id-mapped mounts: ext4, xfs, btrfs and "
               "others do (by kernel; tmpfs from Linux 6.3), overlays and procfs do not.";
    }
    if (code == EINVAL && (options.attributes & sys::mount_attr_nosymfollow) != 0)
        return "nosymfollow needs Linux 5.14.";
    if (code == EPERM)
        return "The mount has been handed to this user namespace with attributes that it may not "
               "take back.";
    return {};
}

/// A detached copy of `source` with the options' attributes, on every mount of it or on the top.
inline held_mount hold_mount(const std::string& source, std::string target,
                             const copy_options& options, const char* what = "mount source") {
    if (source.empty() || source.front() != '/')
        throw invalid_input(what, source, "It must be an absolute path.");
    require_c_string(what, source);
    const unsigned recursive = options.depth == bind_depth::recursive ? sys::at_recursive : 0;
    held_mount held{.mount = {}, .target = std::move(target)};
    try {
        held.mount = sys::clone_mount(AT_FDCWD, source, recursive | options.lookup);
    } catch (error& failure) {
        failure.add_context({.operation = {},
                             .object = {},
                             .step = "mounts",
                             .container = {},
                             .remedy = failure.errno_value() == ENOENT
                                           ? std::string("The ") + what + " does not exist."
                                           : std::string()});
        throw;
    }
    held.directory = S_ISDIR(sys::status_of(held.mount.get()).st_mode);
    sys::mount_attributes wanted{.set = options.attributes, .clear = options.cleared};
    if (options.access == access_mode::read_only) wanted.set |= sys::mount_attr_rdonly;
    const bool apart = recursive != 0 && options.reach == bind_depth::single;
    const sys::mount_attributes spread{.propagation = propagation_bit(options.propagation)};
    if (!apart) wanted.propagation = spread.propagation;
    try {
        sys::set_mount_attributes(held.mount.get(), wanted, apart ? 0 : recursive);
        if (apart) sys::set_mount_attributes(held.mount.get(), spread, recursive);
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
                     .remedy = attribute_remedy(failure.errno_value(), source, options)});
    }
    return held;
}

/// Makes the mounts below the topmost one of `held` read-only; that one stays as it is.
inline void make_inner_mounts_read_only(const held_mount& held) {
    struct statvfs info{};
    sys::check(::fstatvfs(held.mount.get(), &info), "fstatvfs", "the root directory");
    const int fd = held.mount.get();
    sys::set_mount_attributes(fd, {.set = sys::mount_attr_rdonly}, sys::at_recursive);
    if ((info.f_flag & ST_RDONLY) == 0)
        sys::set_mount_attributes(fd, {.clear = sys::mount_attr_rdonly});
}

/// The ids of the host behind the container's; without `ids` they are the same.
inline std::uint32_t outside_id(const id_map* ids, std::uint32_t inside, const char* what) {
    const auto outside = ids == nullptr ? std::optional(inside) : ids->to_outside(inside);
    if (!outside)
        throw invalid_input(what, std::to_string(inside),
                            "The container's user namespace does not have it.");
    return *outside;
}

/// The kernel's form of a mapping of owners, whose shown side is in the container's ids.
inline id_map mount_map(const std::vector<shown_owners>& wanted, const id_map* ids) {
    std::vector<id_range> ranges;
    for (const shown_owners& each : wanted) {
        const std::uint32_t first = outside_id(ids, each.shown, "shown owner");
        if (each.count > 1) {
            const std::uint32_t end = outside_id(ids, each.shown + (each.count - 1), "shown owner");
            if (end - first != each.count - 1)
                throw invalid_input("shown owners", std::to_string(each.shown),
                                    "They are in several ranges of the container's user "
                                    "namespace: give a range for each.");
        }
        ranges.push_back({.inside = each.stored, .outside = first, .count = each.count});
    }
    return id_map(std::move(ranges));
}

/// Refuses owners that the container's user namespace does not have. Errors: invalid_input.
inline void require_owners(const mount_description& wanted, owner_maps owners) {
    std::visit(
        [&](const auto& each) {
            if constexpr (requires {
                              each.user;
                              each.group;
                          }) {
                outside_id(owners.uids, each.user, "owner");
                outside_id(owners.gids, each.group, "owning group");
            }
        },
        wanted);
    if (const auto* bind = std::get_if<bind_mount>(&wanted); bind != nullptr && bind->ids) {
        mount_map(bind->ids->users, owners.uids);
        mount_map(bind->ids->groups, owners.gids);
    }
}

/// How the copy of a bind mount's source differs from it, but for its owners.
inline copy_options options_of(const bind_mount& bind) {
    copy_options options{.access = bind.access,
                         .depth = bind.depth,
                         .attributes = attribute_bits(bind.set),
                         .cleared = attribute_bits(bind.clear),
                         .reach = bind.attributes,
                         .propagation = bind.propagation};
    if (bind.times != access_times::as_source) options.cleared |= sys::mount_attr_atime;
    if (bind.times == access_times::noatime) options.attributes |= sys::mount_attr_noatime;
    if (bind.times == access_times::strictatime) options.attributes |= sys::mount_attr_strictatime;
    return options;
}

/// Holds what a bind mount shows.
inline held_mount hold_mount(const bind_mount& bind, owner_maps owners = {}) {
    copy_options options = options_of(bind);
    std::optional<namespace_fd> mapping;
    if (bind.ids) {
        mapping = make_user_namespace(mount_map(bind.ids->users, owners.uids),
                                      mount_map(bind.ids->groups, owners.gids));
        options.idmap = mapping->get();
    }
    return hold_mount(bind.source, bind.target, options);
}

}  // namespace kumiki::inline v0::detail
