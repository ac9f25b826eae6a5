// Network namespaces without a process in them, and calls made inside one: each on a thread that
// lives for that one purpose, so that no thread of the caller's ever changes where it is.
//
// unshare(2) and setns(2) of CLONE_NEWNET work per thread. The thread must be a fresh one: where an
// io_uring ring has been used, its worker threads silently stay in the old namespace.
// Left out: anything inside, also bringing up "lo"; that is netlink's.
#pragma once

#include <chrono>
#include <concepts>
#include <type_traits>
#include <utility>

#include <kumiki/core/error.hpp>
#include <kumiki/ns/make_namespace.hpp>
#include <kumiki/ns/namespace_fd.hpp>
#include <kumiki/sys/netns.hpp>

namespace kumiki::inline v0 {

/// A new network namespace, owned by the calling thread's user namespace, with nothing in it but
/// a "lo" that is down.
///
/// Waits: not usually; for at most `patience` when the limit user.max_net_namespaces is reached,
/// because the kernel cleans up ended ones in the background.
/// Errors: EPERM, ENOSPC.
inline namespace_fd make_network_namespace(
    std::chrono::milliseconds patience = std::chrono::milliseconds(2000)) {
    return make_namespace(namespace_kind::net, patience);
}

/// Calls `function` inside the network namespace and returns what it returns, or throws what it
/// throws. A socket that it opens belongs to that namespace for good.
///
/// The caller waits. `function` runs on another thread: thread_local values are not the caller's.
/// Errors: EPERM when the namespace cannot be entered; invalid_input when it is no network
/// namespace.
template <std::invocable Function>
std::invoke_result_t<Function> in_network_namespace(const namespace_fd& where,
                                                    Function&& function) {
    if (const auto kind = where.kind(); kind != namespace_kind::net)
        throw invalid_input("network namespace", to_string(kind),
                            "It is a namespace of another kind.");
    return sys::in_network_namespace(where.get(), std::forward<Function>(function));
}

}  // namespace kumiki::inline v0
