// Where the ports of a container that are published are held on the host: protocol, number, address.
//
// Pure. A port without an address is held on all of each family that the container has an address of:
// 0.0.0.0 and ::, each by itself. Left out: the sockets (bound_port.hpp) and locks (port_lock.hpp).
#pragma once

#include <array>
#include <compare>
#include <cstdint>
#include <span>
#include <string>

#include <kumiki/core/error.hpp>
#include <kumiki/core/ip.hpp>
#include <kumiki/network/packet.hpp>
#include <kumiki/network/publish.hpp>

namespace kumiki::inline v0::detail {

/// What a socket is bound to; all addresses of the family come first.
struct port_place {
    protocol transport;
    std::uint16_t number;
    ip_address address;
    auto operator<=>(const port_place&) const = default;
};

/// "192.0.2.1:80/tcp", "[::]:53/udp".
inline std::string to_string(const port_place& where) {
    return to_string(address_port{where.address, where.number}) + "/" +
           std::string(to_string(where.transport));
}

/// Of which families a port is published.
struct port_families {
    bool v4 = false;
    bool v6 = false;
};

/// Those of `addresses`, which are the container's, that the port covers. Errors: invalid_input when
/// there are none.
inline port_families families_of(const published_port& port,
                                 std::span<const ip_address> addresses) {
    port_families wanted;
    for (const ip_address& each : addresses)
        if (port.covers(each.family())) (each.is_v4() ? wanted.v4 : wanted.v6) = true;
    if (!wanted.v4 && !wanted.v6)
        throw invalid_input("published port", to_string(port),
                            "The container has no address of its family.");
    return wanted;
}

/// 0.0.0.0 or ::.
inline ip_address any_address(ip_family family) {
    return family == ip_family::v4 ? ip_address(std::array<std::uint8_t, 4>{})
                                   : ip_address(std::array<std::uint8_t, 16>{});
}

/// Where the host's port `number` is held for one family.
inline port_place place_of(const published_port& port, std::uint16_t number, ip_family family) {
    const bool has_own = port.address && port.address->family() == family;
    return {port.transport, number, has_own ? *port.address : any_address(family)};
}

}  // namespace kumiki::inline v0::detail
