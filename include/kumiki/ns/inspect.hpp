// The namespaces of a process as a list, and what the kernel tells about one: kind, identity, owner
// and parent. What lsns(8) shows, without a walk over all of /proc.
//
// ioctl_ns(2): 4.9 and 4.11. Left out: who else is in a namespace, which only that walk tells.
#pragma once

#include <unistd.h>

#include <optional>
#include <string>
#include <vector>

#include <kumiki/core/error.hpp>
#include <kumiki/ns/kind.hpp>
#include <kumiki/ns/namespace_fd.hpp>

namespace kumiki::inline v0 {

/// What is known of one namespace from outside.
struct namespace_description {
    namespace_kind kind = namespace_kind::none;
    namespace_identity identity{};
    /// The user namespace that rules over it (of a user namespace: the one it was made in); nothing
    /// when that is out of the caller's sight.
    std::optional<namespace_identity> owner{};
    /// The one it was made in, for pid and user namespaces; nothing when that is out of sight.
    std::optional<namespace_identity> parent{};
    /// Whose it is: the user that made it, or made the user namespace that owns it.
    std::optional<uid_t> owner_uid{};
};

/// Errors: what the kernel refuses; EINVAL for a descriptor of a kind that it does not tell about.
inline namespace_description describe(const namespace_fd& which) {
    namespace_description found{.kind = which.kind(), .identity = which.identity()};
    const auto owner = which.owner();
    if (owner) found.owner = owner->identity();
    if (found.kind == namespace_kind::user)
        found.owner_uid = which.owner_uid();
    else if (owner)
        found.owner_uid = owner->owner_uid();
    if (has(namespace_kind::user | namespace_kind::pid, found.kind))
        if (const auto parent = which.parent()) found.parent = parent->identity();
    return found;
}

/// The kinds of namespaces that the kernel has: all but those that it was built without.
inline namespace_kind available_namespaces() {
    namespace_kind found = namespace_kind::none;
    for (const auto& info : namespace_kinds) {
        const std::string link = "/proc/thread-self/ns/" + std::string(info.proc_name);
        if (::access(link.c_str(), F_OK) == 0) found |= info.kind;
    }
    return found;
}

/// A handle to each namespace of the process behind `pidfd`, in the order of namespace_kinds.
/// Errors: ESRCH when it has ended; EACCES without ptrace access to it.
inline std::vector<namespace_fd> namespaces_of_pidfd(
    int pidfd, namespace_kind kinds = available_namespaces()) {
    std::vector<namespace_fd> found;
    for (const auto& info : namespace_kinds)
        if (has(kinds, info.kind)) found.push_back(namespace_fd::of_pidfd(pidfd, info.kind));
    return found;
}

/// The same by the number of a process, which stays the same process while they are opened.
inline std::vector<namespace_fd> namespaces_of_process(
    pid_t pid, namespace_kind kinds = available_namespaces()) {
    return namespaces_of_pidfd(sys::open_pidfd(pid).get(), kinds);
}

}  // namespace kumiki::inline v0
