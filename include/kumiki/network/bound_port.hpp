// A socket that holds one port of the host for as long as it is open.
//
// ip(7), ipv6(7): bind(2) without SO_REUSEADDR, and IPv6 by itself (IPV6_V6ONLY), so that each family's
// port is held, and free, alone. What port_reservation.hpp is made of.
// Left out: listening; SCTP where the kernel has no sockets of it (port_lock.hpp).
#pragma once

#include <netinet/in.h>
#include <sys/socket.h>

#include <cerrno>
#include <string>
#include <utility>

#include <kumiki/core/error.hpp>
#include <kumiki/core/ip.hpp>
#include <kumiki/core/unique_fd.hpp>
#include <kumiki/network/port_holder.hpp>
#include <kumiki/network/port_place.hpp>
#include <kumiki/network/publisher.hpp>
#include <kumiki/network/socket_address.hpp>
#include <kumiki/sys/check.hpp>

namespace kumiki::inline v0::detail {

[[noreturn]] inline void refuse_port(int code, const port_place& where, std::string remedy) {
    throw error(code, {.operation = "reserve host port",
                       .object = to_string(where),
                       .step = {},
                       .container = {},
                       .remedy = std::move(remedy)});
}

/// What to do about a port that could not be bound; empty where nothing is known.
inline std::string port_remedy(int code, const port_place& where) {
    if (code == EACCES) return "Ports below 1024 need CAP_NET_BIND_SERVICE.";
    if (code == EADDRNOTAVAIL) return "It must be an address of this host.";
    if (code != EADDRINUSE) return {};
    const auto publisher = find_publisher(where.transport, where.address, where.number);
    const auto holder = port_holder(where.transport, where.address, where.number);
    if (publisher)
        return "It is published for " + *publisher + (holder ? ", by " + *holder : "") + ".";
    return holder ? "It is in use by " + *holder + "."
                  : "It is in use, perhaps for a container that is about to start.";
}

/// A socket bound to `to`, in the calling thread's network namespace; none when there are none of the
/// family or the protocol, so that no other program can take the port either. `wanted` is what an error
/// speaks of. With `shared` it may be bound beside others that have SO_REUSEADDR, and has it no more then.
/// Errors: kumiki::error of bind(2).
inline unique_fd bind_port(const port_place& to, const port_place& wanted, bool shared = false) {
    const bool v4 = to.address.is_v4();
    const int type = to.transport == protocol::udp ? SOCK_DGRAM : SOCK_STREAM;
    const int made =
        ::socket(v4 ? AF_INET : AF_INET6, type | SOCK_CLOEXEC, static_cast<int>(to.transport));
    if (made < 0 && (errno == EAFNOSUPPORT || errno == EPROTONOSUPPORT || errno == ESOCKTNOSUPPORT))
        return {};
    unique_fd socket(sys::check(made, "open a socket to hold", to_string(wanted)));
    const auto set = [&](int level, int option, int value) {
        sys::check(::setsockopt(socket.get(), level, option, &value, sizeof value), "setsockopt",
                   to_string(wanted));
    };
    if (!v4) set(IPPROTO_IPV6, IPV6_V6ONLY, 1);
    if (shared) set(SOL_SOCKET, SO_REUSEADDR, 1);
    const socket_address address(to.address, to.number);
    if (::bind(socket.get(), address.get(), address.size()) != 0) {
        const int code = errno;
        refuse_port(code, wanted, port_remedy(code, wanted));
    }
    if (shared) set(SOL_SOCKET, SO_REUSEADDR, 0);
    return socket;
}

}  // namespace kumiki::inline v0::detail
