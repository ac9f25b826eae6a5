// Containers of an ordinary user: whether this process is one, and which switch of the host stands
// against the user namespaces that it needs.
//
// Three switches are in use: the kernel's own limit (user.max_user_namespaces, 4.9), Debian's
// kernel.unprivileged_userns_clone, and AppArmor's restriction (Ubuntu 23.10 and later), under which
// the namespace is made and has no capabilities. Source: user_namespaces(7), namespaces(7),
// Documentation/admin-guide/sysctl/user.rst. Left out: seccomp profiles around this process, which
// nothing shows.
#pragma once

#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <string>

#include <kumiki/core/text.hpp>
#include <kumiki/ns/kind.hpp>
#include <kumiki/sys/check.hpp>
#include <kumiki/sys/file.hpp>

namespace kumiki::inline v0 {

/// Whether this process is in the host's own user namespace, and so its root the host's.
inline bool is_in_initial_user_namespace() {
    constexpr ino_t initial = 0xeffffffd;  // PROC_USER_INIT_INO of linux/proc_ns.h
    struct stat info{};
    sys::check(::stat("/proc/self/ns/user", &info), "look at", "/proc/self/ns/user");
    return info.st_ino == initial;
}

/// Whether this process lacks the host's root: then a container needs a user namespace of its own.
inline bool is_unprivileged() { return ::geteuid() != 0 || !is_in_initial_user_namespace(); }

/// The switch that keeps an ordinary user from making user namespaces, and how to set it; empty
/// when none of them stands against it. `root`: where /proc/sys is.
inline std::string user_namespace_obstacle(const std::string& root = "/proc/sys") {
    const auto value = [&](const char* key) -> std::string {
        const auto text = sys::try_read_file_at(AT_FDCWD, root + key);
        return text ? std::string(trim(*text)) : std::string();
    };
    if (value("/user/max_user_namespaces") == "0")
        return "The sysctl user.max_user_namespaces is 0 here: sysctl -w "
               "user.max_user_namespaces=15000 allows user namespaces.";
    if (value("/kernel/unprivileged_userns_clone") == "0")
        return "The sysctl kernel.unprivileged_userns_clone is 0 here: sysctl -w "
               "kernel.unprivileged_userns_clone=1 allows user namespaces for ordinary users.";
    if (value("/kernel/apparmor_restrict_unprivileged_userns") == "1")
        return "AppArmor gives user namespaces of ordinary users no capabilities here: sysctl -w "
               "kernel.apparmor_restrict_unprivileged_userns=0, or an AppArmor profile of this "
               "program with the rule userns, allows them.";
    return {};
}

/// What to do about an errno value with which the kernel refused to make namespaces of `kinds`;
/// empty when there is nothing special to say. Source: clone(2), namespaces(7).
inline std::string namespace_remedy(int code, namespace_kind kinds) {
    const bool with_user = has(kinds, namespace_kind::user);
    if (with_user && (code == EPERM || code == ENOSPC || code == EUSERS))
        if (auto obstacle = user_namespace_obstacle(); !obstacle.empty()) return obstacle;
    if (code == EPERM && with_user)
        return "Making user namespaces is not allowed here, though no sysctl forbids it: the "
               "seccomp profile of a container that this runs in may, and chroot(2) does.";
    if (code == EPERM)
        return "Making namespaces needs CAP_SYS_ADMIN (root), or a user namespace of one's own "
               "together with them.";
    if (code == ENOSPC || code == EUSERS)
        return "A limit on namespaces is reached (sysctls user.max_*_namespaces), or user or pid "
               "namespaces are nested 32 deep. Ended ones are counted until the kernel has "
               "cleaned them up: try again.";
    if (code == EINVAL) return "The kernel is built without one of: " + to_string(kinds) + ".";
    return {};
}

}  // namespace kumiki::inline v0
