// What a host has beside its networks of containers, as far as rules depend on it: its addresses, and
// behind which interface somebody is.
//
// Kernel: rtnetlink. Left out: policy routing; of several routes that lead to one destination the
// first of the longest prefix is meant.
#pragma once

#include <algorithm>
#include <map>
#include <string>
#include <vector>

#include <kumiki/core/ip.hpp>
#include <kumiki/netlink/address.hpp>
#include <kumiki/netlink/link.hpp>
#include <kumiki/netlink/link_info.hpp>
#include <kumiki/netlink/route.hpp>
#include <kumiki/netlink/socket.hpp>

namespace kumiki::inline v0 {

/// A route of the host's.
struct host_route {
    cidr destination{};
    std::string link{};
};

/// What the host has beside its networks.
struct host_view {
    std::vector<ip_address> addresses{};  ///< all of its own; loopback need not be among them

    std::vector<host_route> routes{};  ///< for rules that name an interface

    bool has(const ip_address& address) const {
        return address.is_loopback() ||
               std::find(addresses.begin(), addresses.end(), address) != addresses.end();
    }
    /// The interface behind which `address` is; empty when no route says.
    std::string link_to(const ip_address& address) const {
        const host_route* best = nullptr;
        for (const host_route& each : routes)
            if (each.destination.contains(address) &&
                (best == nullptr || each.destination.prefix > best->destination.prefix))
                best = &each;
        return best != nullptr ? best->link : std::string();
    }
};

namespace detail {

/// Without its routes, which take longer. Errors: kumiki::error.
inline host_view read_host_addresses(netlink_socket& route) {
    host_view seen;
    for (const address_info& each : list_addresses(route))
        seen.addresses.push_back(each.address.address);
    return seen;
}
/// Errors: kumiki::error.
inline host_view read_host_view(netlink_socket& route) {
    host_view seen = read_host_addresses(route);
    std::map<int, std::string> names;
    for (const link_info& each : list_links(route)) names[each.index] = each.name;
    for (const route_info& each : list_routes(route))
        seen.routes.push_back({each.destination, names[each.link]});
    return seen;
}

}  // namespace detail
}  // namespace kumiki::inline v0
