// A packet as explain() is asked about it: the first of a flow, as its sender wrote it.
//
// Pure. Left out: fragments, options, Ethernet addresses, states of a flow.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include <kumiki/core/ip.hpp>

namespace kumiki::inline v0 {

/// An address and a port of it.
struct address_port {
    ip_address address{};
    std::uint16_t port = 0;

    bool operator==(const address_port&) const = default;
};

/// The first packet of a flow.
struct packet {
    ip_address source{};
    /// As the sender writes it: the host's address for a port that is published there.
    ip_address destination{};
    /// The IANA number: 6 TCP, 17 UDP, 132 SCTP, 1 ICMP, 58 ICMPv6.
    std::uint8_t transport = static_cast<std::uint8_t>(protocol::tcp);
    std::uint16_t source_port = 0;
    std::uint16_t destination_port = 0;
    /// Of ICMP and ICMPv6; none: an echo request.
    std::optional<std::uint8_t> icmp_type{};
    /// The host's interface that it comes in by: a container's port, or another. Empty: that of who
    /// has the source (a container, the host itself, or else whoever the host's routes name).
    std::string input{};

    bool is_icmp() const noexcept { return transport == (source.is_v4() ? 1 : 58); }
    bool is_echo_request() const noexcept {
        return is_icmp() &&
               icmp_type.value_or(source.is_v4() ? 8 : 128) == (source.is_v4() ? 8 : 128);
    }
};

/// "192.0.2.1:80" or "[2001:db8::1]:80".
inline std::string to_string(const address_port& at) {
    const std::string text = to_string(at.address);
    return (at.address.is_v4() ? text : "[" + text + "]") + ":" + std::to_string(at.port);
}

/// "tcp 192.0.2.2:40000 to 192.0.2.1:80".
inline std::string to_string(const packet& p) {
    const bool has_ports = p.transport == 6 || p.transport == 17 || p.transport == 132;
    const auto end = [&](const ip_address& address, std::uint16_t port) {
        return has_ports ? to_string(address_port{address, port}) : to_string(address);
    };
    return (has_ports     ? std::string(to_string(protocol{p.transport}))
            : p.is_icmp() ? std::string("icmp")
                          : "protocol " + std::to_string(p.transport)) +
           " " + end(p.source, p.source_port) + " to " + end(p.destination, p.destination_port);
}

}  // namespace kumiki::inline v0
