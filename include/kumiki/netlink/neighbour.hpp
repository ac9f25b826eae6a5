// Neighbours over rtnetlink: which Ethernet address an IP address on a link has, given by hand, and
// what the kernel has found out.
//
// rtnetlink(7), ip-neighbour(8): RTM_NEWNEIGH, RTM_DELNEIGH, RTM_GETNEIGH; Linux 5.10 has all of it.
// Left out: reading the forwarding tables of bridges, those of vxlans, external learning.
#pragma once

#include <linux/neighbour.h>
#include <linux/rtnetlink.h>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <kumiki/core/ip.hpp>
#include <kumiki/netlink/address.hpp>
#include <kumiki/netlink/link.hpp>
#include <kumiki/netlink/mac.hpp>
#include <kumiki/netlink/message.hpp>
#include <kumiki/netlink/socket.hpp>
#include <kumiki/netlink/view.hpp>

namespace kumiki::inline v0 {

/// A neighbour, as the kernel shows it.
struct neighbour_info {
    int link = 0;  ///< index of the interface that it is behind
    ip_address address = {};
    std::optional<mac_address> mac = {};  ///< none: not found out (yet)
    std::uint16_t state = 0;  ///< NUD_* of <linux/neighbour.h>

    bool is_permanent() const noexcept { return (state & NUD_PERMANENT) != 0; }
    bool has_failed() const noexcept { return (state & NUD_FAILED) != 0; }
};

namespace detail {

inline void put_neighbour(netlink_batch& batch, std::uint16_t type, unsigned flags, int link,
                          const ip_address& address, const char* operation, ndmsg header = {}) {
    header.ndm_family = to_kernel(address.family());
    header.ndm_ifindex = link;
    batch.add(type, flags, header,
              {operation, to_string(address) + " of interface " + std::to_string(link)});
    batch.address(NDA_DST, address);
}

/// In the place of what is there.
inline void put_neighbour_at(netlink_batch& batch, std::uint16_t state, int link,
                             const ip_address& address, const mac_address& mac,
                             const char* operation) {
    ndmsg header{};
    header.ndm_state = state;
    put_neighbour(batch, RTM_NEWNEIGH, NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE, link, address,
                  operation, header);
    batch.data(NDA_LLADDR, std::as_bytes(std::span(mac.octets)));
}

}  // namespace detail

/// Requests that `address` be at `mac` behind the interface with index `link`, for good: whatever
/// others say, and in the place of what was found out. Errors: ENODEV; EINVAL on loopback.
inline void set_neighbour(netlink_batch& batch, int link, const ip_address& address,
                          const mac_address& mac) {
    detail::put_neighbour_at(batch, NUD_PERMANENT, link, address, mac, "set neighbour");
}

/// What a failure of introduce_neighbour() is told as.
inline constexpr std::string_view introducing = "introduce neighbour";

/// Requests that `address` be taken to be at `mac` from now on, in the place of what was found out before:
/// nobody is asked before the first packet, but soon after. Errors: ENODEV; ENOBUFS for a full table, which
/// is one for all of the host's namespaces (net.ipv4.neigh.default.gc_thresh3, net.ipv6 likewise).
inline void introduce_neighbour(netlink_batch& batch, int link, const ip_address& address,
                                const mac_address& mac) {
    detail::put_neighbour_at(batch, NUD_STALE, link, address, mac, introducing.data());
}

/// Requests that the bridge whose port is the interface with index `port` send what is for `mac` there
/// alone, as if it had been seen there: until it is seen elsewhere, or the port goes.
inline void introduce_to_bridge(netlink_batch& batch, int port, const mac_address& mac) {
    ndmsg header{};
    header.ndm_family = AF_BRIDGE;
    header.ndm_ifindex = port;
    header.ndm_state = NUD_REACHABLE;
    header.ndm_flags = NTF_MASTER;
    batch.add(RTM_NEWNEIGH, NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE, header,
              {"introduce to bridge", "interface " + std::to_string(port)});
    batch.data(NDA_LLADDR, std::as_bytes(std::span(mac.octets)));
}

/// Requests that this host answer for `address` on the interface with index `link`: for IPv6, and
/// for IPv4, whatever the interface's proxy_ndp and proxy_arp say of other addresses (for IPv6 the
/// first has to be on). The host must have a route to it by another interface.
inline void answer_for_neighbour(netlink_batch& batch, int link, const ip_address& address) {
    ndmsg header{};
    header.ndm_flags = NTF_PROXY;
    detail::put_neighbour(batch, RTM_NEWNEIGH, NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE, link,
                          address, "answer for neighbour", header);
}

/// Requests that a neighbour be forgotten. Errors: ENOENT.
inline void delete_neighbour(netlink_batch& batch, int link, const ip_address& address) {
    detail::put_neighbour(batch, RTM_DELNEIGH, NLM_F_ACK, link, address, "delete neighbour");
}

/// An RTM_NEWNEIGH message as a value; nothing for families other than IPv4 and IPv6, and for
/// group addresses. Errors: EBADMSG.
inline std::optional<neighbour_info> parse_neighbour(const netlink_message& message) {
    const auto header = message.family_header<ndmsg>();
    if (header.ndm_family != AF_INET && header.ndm_family != AF_INET6) return std::nullopt;
    neighbour_info found{.link = header.ndm_ifindex, .state = header.ndm_state};
    bool addressed = false;
    for (const netlink_attribute& part : message.attributes<ndmsg>()) {
        if (part.type() == NDA_DST) {
            found.address = part.address();
            addressed = true;
        }
        if (part.type() == NDA_LLADDR && part.payload().size() == 6)
            found.mac = part.structure<mac_address>();
    }
    if (!addressed || header.ndm_type == RTN_MULTICAST) return std::nullopt;
    return found;
}

/// The neighbours behind the interface with index `link`, or behind all (0). Errors: ENODEV.
inline std::vector<neighbour_info> list_neighbours(netlink_socket& socket, int link = 0) {
    netlink_batch batch;
    batch.add(RTM_GETNEIGH, NLM_F_DUMP, ndmsg{}, {"list neighbours"});
    if (link != 0) batch.u32(NDA_IFINDEX, static_cast<std::uint32_t>(link));
    return socket.dump(batch, parse_neighbour);
}

}  // namespace kumiki::inline v0
