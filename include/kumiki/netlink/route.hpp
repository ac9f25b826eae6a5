// Routes over rtnetlink: requests for a batch, and the list.
//
// rtnetlink(7): RTM_NEWROUTE, RTM_DELROUTE, RTM_GETROUTE. Routes that lead somewhere and those that
// refuse, of any table; which table is asked for whom, the rules say (routing_rule.hpp).
// Left out: several next hops, the kernel's own types (broadcast, multicast).
#pragma once

#include <linux/rtnetlink.h>

#include <array>
#include <cerrno>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <kumiki/core/error.hpp>
#include <kumiki/core/ip.hpp>
#include <kumiki/netlink/address.hpp>
#include <kumiki/netlink/link.hpp>
#include <kumiki/netlink/message.hpp>
#include <kumiki/netlink/socket.hpp>
#include <kumiki/netlink/view.hpp>

namespace kumiki::inline v0 {

/// What becomes of the packets of a route.
enum class route_type : std::uint8_t {
    unicast = RTN_UNICAST,
    local = RTN_LOCAL,  ///< they are this host's
    drop = RTN_BLACKHOLE,  ///< nothing is said of it
    unreachable = RTN_UNREACHABLE,  ///< the sender is told that the host cannot be reached
    prohibit = RTN_PROHIBIT,  ///< the sender is told that it may not be reached
};

/// Stands for all tables where routes are listed.
inline constexpr std::uint32_t all_route_tables = RT_TABLE_UNSPEC;

/// A route: wanted, or as the kernel shows it.
struct route_info {
    cidr destination = {};  ///< prefix 0: the default route of its family
    std::optional<ip_address> gateway = {};  ///< none: the destination is on the link itself
    int link = 0;  ///< index of the interface; 0: the kernel finds it
    std::optional<ip_address> source = {};  ///< preferred source address
    std::uint32_t metric = 0;  ///< 0: the kernel's default
    std::uint32_t table = RT_TABLE_MAIN;
    route_type type = route_type::unicast;

    bool is_default() const noexcept { return destination.prefix == 0; }
    bool operator==(const route_info&) const = default;
};

/// "10.88.0.0/24 via 192.0.2.1", "default via fe80::1".
inline std::string to_string(const route_info& route) {
    std::string text = route.is_default() ? "default" : to_string(route.destination);
    if (route.gateway) text += " via " + to_string(*route.gateway);
    return text;
}

/// The default route of `gateway`'s family through it.
inline route_info default_route(const ip_address& gateway, int link = 0) {
    return {.destination = {.address = gateway.masked(0), .prefix = 0},
            .gateway = gateway,
            .link = link};
}

namespace detail {

inline void put_route(netlink_batch& batch, std::uint16_t type, unsigned flags,
                      const route_info& route, const char* operation) {
    if (route.gateway && route.gateway->family() != route.destination.address.family())
        throw invalid_input("route", to_string(route), "Its gateway is of the other family.");
    rtmsg header{};
    header.rtm_family = to_kernel(route.destination.address.family());
    header.rtm_dst_len = route.destination.prefix;
    header.rtm_table =
        route.table < 256 ? static_cast<std::uint8_t>(route.table) : std::uint8_t{RT_TABLE_UNSPEC};
    header.rtm_protocol = RTPROT_STATIC;
    header.rtm_type = static_cast<std::uint8_t>(route.type);
    const bool on_link = route.type == route_type::unicast && !route.gateway;
    header.rtm_scope = on_link                           ? RT_SCOPE_LINK
                       : route.type == route_type::local ? RT_SCOPE_HOST
                                                         : RT_SCOPE_UNIVERSE;
    batch.add(type, flags, header, {operation, to_string(route)});
    if (!route.is_default()) batch.address(RTA_DST, route.destination.network());
    if (route.gateway) batch.address(RTA_GATEWAY, *route.gateway);
    if (route.source) batch.address(RTA_PREFSRC, *route.source);
    if (route.link != 0) batch.u32(RTA_OIF, static_cast<std::uint32_t>(route.link));
    if (route.metric != 0) batch.u32(RTA_PRIORITY, route.metric);
    if (route.table >= 256) batch.u32(RTA_TABLE, route.table);
}

}  // namespace detail

/// Requests a route. Errors: EEXIST; ENETUNREACH when its gateway cannot be reached; ENETDOWN.
inline void add_route(netlink_batch& batch, const route_info& route) {
    detail::put_route(batch, RTM_NEWROUTE, detail::create_flags, route, "add route");
}

/// Requests the removal of a route. Errors: ESRCH.
inline void delete_route(netlink_batch& batch, const route_info& route) {
    detail::put_route(batch, RTM_DELROUTE, NLM_F_ACK, route, "delete route");
}

/// An RTM_NEWROUTE message as a value; nothing for types that are not a route_type, and for cached
/// routes. Errors: EBADMSG.
inline std::optional<route_info> parse_route(const netlink_message& message) {
    const auto header = message.family_header<rtmsg>();
    const bool v4 = header.rtm_family == AF_INET;
    const auto type = header.rtm_type;
    const bool known = type == RTN_UNICAST || type == RTN_LOCAL || type == RTN_BLACKHOLE ||
                       type == RTN_UNREACHABLE || type == RTN_PROHIBIT;
    if ((!v4 && header.rtm_family != AF_INET6) || !known || (header.rtm_flags & RTM_F_CLONED) != 0)
        return std::nullopt;
    route_info route;
    route.table = header.rtm_table;
    route.type = static_cast<route_type>(type);
    const ip_address unspecified = v4 ? ip_address() : ip_address(std::array<std::uint8_t, 16>{});
    route.destination = {.address = unspecified, .prefix = header.rtm_dst_len};
    for (const netlink_attribute& part : message.attributes<rtmsg>()) {
        switch (part.type()) {
        case RTA_TABLE:
            route.table = part.u32();
            break;
        case RTA_DST:
            route.destination.address = part.address();
            break;
        case RTA_GATEWAY:
            route.gateway = part.address();
            break;
        case RTA_PREFSRC:
            route.source = part.address();
            break;
        case RTA_OIF:
            route.link = static_cast<int>(part.u32());
            break;
        case RTA_PRIORITY:
            route.metric = part.u32();
            break;
        default:
            break;
        }
    }
    return route;
}

/// The routes of a table, of both families.
inline std::vector<route_info> list_routes(netlink_socket& socket,
                                           std::uint32_t table = RT_TABLE_MAIN) {
    std::vector<route_info> routes;
    for (const ip_family family : {ip_family::v4, ip_family::v6}) {
        netlink_batch batch;
        rtmsg header{};
        header.rtm_family = detail::to_kernel(family);
        header.rtm_table =
            table < 256 ? static_cast<std::uint8_t>(table) : std::uint8_t{RT_TABLE_UNSPEC};
        batch.add(RTM_GETROUTE, NLM_F_DUMP, header, {"list routes"});
        if (table >= 256) batch.u32(RTA_TABLE, table);
        try {
            for (auto& route : socket.dump(batch, parse_route))
                if (table == all_route_tables || route.table == table)
                    routes.push_back(std::move(route));
        } catch (const error& refused) {
            if (refused.errno_value() != ENOENT) throw;  // a table without routes is not there
        }
    }
    return routes;
}

}  // namespace kumiki::inline v0
