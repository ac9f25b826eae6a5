// Namespaces without a process in them: made on a thread that lives for that one purpose, and kept
// by a descriptor. Of every kind but two: a pid namespace lives with its first process, and a user
// namespace cannot be made in a program with several threads (user_namespace.hpp has another way).
//
// unshare(2) works per thread. A time namespace (5.6) is made with the offsets of its clocks, which
// nobody can change any more once a process is in it. Sources: unshare(2), time_namespaces(7).
#pragma once

#include <sched.h>
#include <time.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <string>

#include <kumiki/core/error.hpp>
#include <kumiki/ns/kind.hpp>
#include <kumiki/ns/namespace_fd.hpp>
#include <kumiki/ns/user_namespace.hpp>
#include <kumiki/sys/file.hpp>
#include <kumiki/sys/own_thread.hpp>

namespace kumiki::inline v0 {

/// What is added to the host's clocks in a time namespace.
struct clock_offsets {
    std::chrono::seconds monotonic{0};
    std::chrono::seconds boottime{0};
};

/// The text for /proc/PID/timens_offsets.
inline std::string to_text(const clock_offsets& offsets) {
    return "monotonic " + std::to_string(offsets.monotonic.count()) + " 0\nboottime " +
           std::to_string(offsets.boottime.count()) + " 0\n";
}

namespace detail {

/// unshare(2) of one kind. Ended namespaces count against the limit until the kernel has cleaned
/// them up in the background: ENOSPC is tried again for as long as `patience`.
inline void unshare_patiently(namespace_kind kind, std::chrono::milliseconds patience) {
    const auto until = std::chrono::steady_clock::now() + patience;
    timespec pause{.tv_sec = 0, .tv_nsec = 1'000'000};
    while (::unshare(static_cast<int>(clone_flags(kind))) != 0) {
        const int code = errno;
        if (code != ENOSPC || std::chrono::steady_clock::now() >= until)
            throw error(code, {.operation = "make a namespace",
                               .object = to_string(kind),
                               .remedy = namespace_remedy(code, kind)});
        ::nanosleep(&pause, nullptr);
        if (pause.tv_nsec < 64'000'000) pause.tv_nsec *= 2;
    }
}

}  // namespace detail

/// A new namespace of one kind, owned by the calling thread's user namespace: a network namespace
/// has a "lo" that is down, a mount namespace a copy of the caller's mounts, a cgroup namespace the
/// caller's group as its root, a time namespace the caller's clocks.
///
/// Waits: not usually; for at most `patience` when the limit user.max_*_namespaces is reached.
/// Errors: invalid_input for user, pid and sets of kinds; EPERM, ENOSPC; EINVAL for a kind that the
/// kernel lacks.
inline namespace_fd make_namespace(
    namespace_kind kind, std::chrono::milliseconds patience = std::chrono::milliseconds(2000)) {
    if (!describe(kind))
        throw invalid_input("namespace kind", to_string(kind), "It must be exactly one kind.");
    if (kind == namespace_kind::pid)
        throw invalid_input("namespace kind", "pid",
                            "A pid namespace lives with its first process: clone one into it.");
    if (kind == namespace_kind::user)
        throw invalid_input("namespace kind", "user", "make_user_namespace() makes these.");
    return sys::on_own_thread([&] {
        detail::unshare_patiently(kind, patience);
        // The thread itself stays where it is in time; only a child of its would be inside.
        return kind == namespace_kind::time
                   ? namespace_fd::open("/proc/thread-self/ns/time_for_children")
                   : namespace_fd::current(kind);
    });
}

/// A new time namespace whose clocks are ahead of the caller's by `offsets`. Kernel: 5.6.
///
/// Errors: EPERM, ENOSPC; ERANGE when a clock would be below zero or beyond half of what it counts.
inline namespace_fd make_time_namespace(const clock_offsets& offsets) {
    return sys::on_own_thread([&] {
        detail::unshare_patiently(namespace_kind::time, std::chrono::milliseconds(2000));
        // Not below /proc/thread-self, which has no such file: a thread's number is good, too.
        const std::string own = "/proc/" + std::to_string(::gettid());
        try {
            sys::write_file_at(AT_FDCWD, own + "/timens_offsets", to_text(offsets));
        } catch (error& failure) {
            if (failure.errno_value() == ERANGE)
                failure.add_context({.remedy = "A clock with its offset must not be below zero, "
                                               "nor beyond 146 years."});
            throw;
        }
        return namespace_fd::open(own + "/ns/time_for_children");
    });
}

}  // namespace kumiki::inline v0
