// Entering several namespaces at once, in an order in which that is possible.
//
// By one pidfd: setns(2) takes a set of kinds (5.8), all of them or none. By descriptors: one after
// the other, a user namespace between those that the caller may enter by itself and those that it
// may enter only with the capabilities from there.
// Left out: restoring. Who has to come back uses a thread (sys/own_thread.hpp) or a child.
#pragma once

#include <sched.h>

#include <cerrno>
#include <span>
#include <vector>

#include <kumiki/core/error.hpp>
#include <kumiki/ns/kind.hpp>
#include <kumiki/ns/namespace_fd.hpp>

namespace kumiki::inline v0 {

/// Moves the calling thread into all of `namespaces`, which are of different kinds, in any order.
/// One that the thread is in already is left out: entering one's own user namespace is an error.
///
/// As for namespace_fd::enter(): never on a thread with an io_uring ring, and user, mount and time
/// only in a process with a single thread. After a failure the thread is in some of them: let it end.
/// Errors: invalid_input when a kind is there twice (before anything is entered); EPERM, EINVAL.
inline void enter_namespaces(std::span<const namespace_fd* const> namespaces) {
    const auto of_kind = [&](namespace_kind kind) {
        const namespace_fd* found = nullptr;
        for (const namespace_fd* each : namespaces) {
            if (each->kind() != kind) continue;
            if (found != nullptr)
                throw invalid_input("set of namespaces", to_string(kind),
                                    "A thread is in one namespace of a kind.");
            found = each;
        }
        return found;
    };
    const namespace_fd* user = nullptr;
    std::vector<const namespace_fd*> others;
    for (const auto& info : namespace_kinds) {
        const namespace_fd* const found = of_kind(info.kind);
        if (found == nullptr) continue;
        // What counts of a pid namespace is where children go, which may be another than one's own.
        if (info.kind != namespace_kind::pid && namespace_fd::current(info.kind) == *found)
            continue;
        if (info.kind == namespace_kind::user)
            user = found;
        else
            others.push_back(found);
    }
    std::vector<const namespace_fd*> later;
    for (const namespace_fd* each : others) {
        try {
            each->enter();
        } catch (const error& failure) {
            if (failure.errno_value() != EPERM || user == nullptr) throw;
            later.push_back(each);
        }
    }
    if (user != nullptr) user->enter();
    for (const namespace_fd* each : later) each->enter();
}

/// The same for a vector of handles.
inline void enter_namespaces(const std::vector<namespace_fd>& namespaces) {
    std::vector<const namespace_fd*> pointers;
    for (const namespace_fd& each : namespaces) pointers.push_back(&each);
    enter_namespaces(pointers);
}

/// Moves the calling thread into the namespaces of `kinds` of the process behind `pidfd`: all or
/// none. Kinds that both share already are left out. Kernel: 5.8.
///
/// Errors: ESRCH when the process has ended; EPERM, EINVAL as for namespace_fd::enter().
inline void enter_namespaces_of(int pidfd, namespace_kind kinds) {
    namespace_kind wanted = namespace_kind::none;
    for (const auto& info : namespace_kinds) {
        if (!has(kinds, info.kind)) continue;
        if (info.kind == namespace_kind::pid ||
            namespace_fd::current(info.kind) != namespace_fd::of_pidfd(pidfd, info.kind))
            wanted |= info.kind;
    }
    if (wanted == namespace_kind::none) return;
    sys::check(::setns(pidfd, static_cast<int>(clone_flags(wanted))), [&] {
        return error_context{.operation = "enter the namespaces",
                             .object = to_string(wanted),
                             .remedy = namespace_fd::refusal(errno, wanted)};
    });
}

}  // namespace kumiki::inline v0
