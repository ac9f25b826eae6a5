// Doing something in another network namespace without moving a thread that is used for anything
// else: a thread is started, joins the namespace with setns(2), runs the function and ends.
//
// The owner of an io_uring ring may never change its namespace (workers of the ring would stay in
// the old one), so this is the only way in which the library enters one. No capability is gained:
// setns asks for CAP_SYS_ADMIN in the namespace's owner. Sockets made inside stay inside.
#pragma once

#include <linux/sockios.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <concepts>
#include <cstdint>
#include <type_traits>
#include <utility>

#include <kumiki/core/unique_fd.hpp>
#include <kumiki/sys/check.hpp>
#include <kumiki/sys/own_thread.hpp>

namespace kumiki::inline v0::sys {

/// Runs `function` on a new thread in the network namespace behind `netns_fd` and returns its
/// result, or throws what it threw. Signals are blocked on that thread.
///
/// Errors: kumiki::error when the thread cannot start or may not join.
template <std::invocable Function>
std::invoke_result_t<Function> in_network_namespace(int netns_fd, Function&& function) {
    return on_own_thread([&]() -> std::invoke_result_t<Function> {
        check(::setns(netns_fd, CLONE_NEWNET), "enter network namespace");
        return std::forward<Function>(function)();
    });
}

/// The number of the network namespace that a socket is in, unique until the next boot.
/// Kernel: 5.14 (SO_NETNS_COOKIE).
inline std::uint64_t netns_cookie(int socket_fd) {
    std::uint64_t cookie = 0;
    socklen_t size = sizeof cookie;
    check(::getsockopt(socket_fd, SOL_SOCKET, SO_NETNS_COOKIE, &cookie, &size),
          "read network namespace cookie");
    return cookie;
}

/// A descriptor of the network namespace that a socket is in. Kernel: 4.9 (SIOCGSKNS).
inline unique_fd network_namespace_of(int socket_fd) {
    return unique_fd(check(::ioctl(socket_fd, SIOCGSKNS), "get the network namespace of a socket"));
}

}  // namespace kumiki::inline v0::sys
