// TCP sockets that are bound to a port and neither listen nor are connected: no table below /proc/net has
// them, and they hold their ports all the same.
//
// sock_diag(7), NETLINK_SOCK_DIAG with the module inet_diag and tcp_diag. Kernel: 6.8 (state
// TCP_BOUND_INACTIVE, commit 91051f003948); before that there are none to be seen.
// Left out: every other state, which proc(5) tells, and other protocols.
#pragma once

#include <linux/inet_diag.h>
#include <linux/sock_diag.h>
#include <netinet/in.h>

#include <array>
#include <cstdint>
#include <cstring>
#include <optional>
#include <vector>

#include <kumiki/core/ip.hpp>
#include <kumiki/netlink/message.hpp>
#include <kumiki/netlink/socket.hpp>

namespace kumiki::inline v0 {

/// A socket that is bound.
struct bound_socket {
    ip_address address{};
    std::uint16_t port = 0;
    std::uint32_t inode = 0;  ///< as in /proc/PID/fd: "socket:[4711]"
};

namespace detail {

/// One of a dump. Errors: EBADMSG.
inline bound_socket parse_bound_socket(const netlink_message& message) {
    const auto& raw = message.family_header<inet_diag_msg>();
    bound_socket found{.inode = raw.idiag_inode};
    found.port =
        static_cast<std::uint16_t>((raw.id.idiag_sport >> 8) | ((raw.id.idiag_sport & 0xff) << 8));
    const auto bytes = [&]<std::size_t Size>(std::array<std::uint8_t, Size> address) {
        std::memcpy(address.data(), raw.id.idiag_src, Size);
        return ip_address(address);
    };
    found.address = raw.idiag_family == AF_INET ? bytes(std::array<std::uint8_t, 4>{})
                                                : bytes(std::array<std::uint8_t, 16>{});
    return found;
}

}  // namespace detail

/// Those of a family in the namespace of `socket` (NETLINK_SOCK_DIAG). Errors: kumiki::error; ENOENT
/// without the kernel's modules.
inline std::vector<bound_socket> list_bound_tcp(netlink_socket& socket, ip_family family) {
    constexpr unsigned tcp_bound_inactive = 13;
    inet_diag_req_v2 wanted{};
    wanted.sdiag_family = family == ip_family::v4 ? AF_INET : AF_INET6;
    wanted.sdiag_protocol = IPPROTO_TCP;
    wanted.idiag_states = 1U << tcp_bound_inactive;
    netlink_batch request;
    request.add(SOCK_DIAG_BY_FAMILY, NLM_F_DUMP, wanted, {"list bound sockets"});
    return socket.dump(request, [](const netlink_message& m) {
        return std::optional(detail::parse_bound_socket(m));
    });
}

}  // namespace kumiki::inline v0
