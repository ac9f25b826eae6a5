// Networks for containers, chosen so that they overlap nothing that the host has a route to.
//
// The routes of all tables are looked at, with the host's own addresses (table local), but for
// default routes. Two processes that choose at once would choose the same: who calls holds a lock
// (bridge_network::open() does).
// Left out: networks that the host would reach by its default route only; give a pool without them.
#pragma once

#include <sys/random.h>

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include <kumiki/core/error.hpp>
#include <kumiki/core/ip.hpp>
#include <kumiki/netlink/route.hpp>
#include <kumiki/netlink/socket.hpp>
#include <kumiki/sys/check.hpp>

namespace kumiki::inline v0 {

/// Where IPv4 networks are chosen from when nobody says where: parts of the private networks of
/// RFC 1918 that the defaults of routers and of other container tools do not begin with.
inline std::vector<cidr> default_subnet_pools() {
    return {cidr::parse("10.216.0.0/13"), cidr::parse("172.28.0.0/14"),
            cidr::parse("192.168.192.0/18")};
}

/// The first network of `prefix` bits in `pools` that overlaps none of `taken`; pure.
/// Errors: EADDRNOTAVAIL when there is none; invalid_input for a pool with no room for one.
inline cidr choose_subnet(std::span<const route_info> taken, std::span<const cidr> pools,
                          unsigned prefix) {
    std::string looked_at;
    for (const cidr& pool : pools) {
        if (prefix < pool.prefix || prefix > pool.address.bits())
            throw invalid_input("subnet pool", to_string(pool),
                                "It has no networks of /" + std::to_string(prefix) + ".");
        looked_at += (looked_at.empty() ? "" : ", ") + to_string(pool);
        const auto length = static_cast<std::uint8_t>(prefix);
        for (cidr candidate{.address = pool.network(), .prefix = length};;) {
            const route_info* blocking = nullptr;
            for (const route_info& route : taken)
                if (!route.is_default() && route.destination.overlaps(candidate)) blocking = &route;
            if (blocking == nullptr) return candidate;
            // Behind the larger of the two; the last one of the family is followed by the first.
            const ip_address last = blocking->destination.prefix < length
                                        ? blocking->destination.last()
                                        : candidate.last();
            const ip_address next = last.plus(1);
            if (next < candidate.address || !pool.contains(next)) break;
            candidate.address = next;
        }
    }
    throw error(EADDRNOTAVAIL, {.operation = "choose subnet",
                                .object = "/" + std::to_string(prefix) + " in " + looked_at,
                                .remedy = "All of it overlaps routes of the host: give the subnet, "
                                          "or other pools."});
}

/// As above, with the routes of the socket's namespace.
inline cidr choose_subnet(netlink_socket& routes, std::span<const cidr> pools, unsigned prefix) {
    return choose_subnet(list_routes(routes, all_route_tables), pools, prefix);
}

/// A /64 of a unique local prefix with 40 random bits (RFC 4193), that overlaps no route.
inline cidr choose_subnet6(netlink_socket& routes) {
    std::array<std::uint8_t, 16> raw{0xfd};
    sys::check(::getrandom(raw.data() + 1, 5, 0), "get random bytes");
    const cidr site{.address = ip_address(raw), .prefix = 48};
    return choose_subnet(routes, std::span(&site, 1), 64);
}

}  // namespace kumiki::inline v0
