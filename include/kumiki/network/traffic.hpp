// What kind of packets a policy's rule is about: all, a protocol, ports of it, or ICMP.
//
// Pure. Left out: types of ICMP, source ports, TCP flags.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include <kumiki/core/ip.hpp>
#include <kumiki/network/publish.hpp>

namespace kumiki::inline v0 {

/// Kinds of packets. What it leaves open matches everything.
struct traffic {
    /// The IANA number; 1, ICMP, stands for ICMPv6 in packets of IPv6.
    std::optional<std::uint8_t> transport{};
    /// Those of the destination; only of TCP, UDP and SCTP.
    std::optional<port_range> ports{};

    constexpr traffic() = default;
    constexpr traffic(port_match only)
        : transport(static_cast<std::uint8_t>(only.transport)), ports(only.ports) {}
    constexpr explicit traffic(std::uint8_t number) : transport(number) {}

    constexpr bool operator==(const traffic&) const = default;
    constexpr bool is_icmp() const noexcept { return transport == 1; }
    /// The IANA number in packets of `family`; nothing when it does not matter.
    constexpr std::optional<std::uint8_t> number_in(ip_family family) const noexcept {
        if (is_icmp() && family == ip_family::v6) return std::uint8_t{58};
        return transport;
    }
    /// `port` means nothing for protocols without ports.
    constexpr bool matches(ip_family family, std::uint8_t number,
                           std::uint16_t port) const noexcept {
        return (!transport || number_in(family) == number) &&
               (!ports || covers_all_ports() || ports->contains(port));
    }
    /// True when all that `other` is about is of this kind.
    constexpr bool covers(const traffic& other) const noexcept {
        return (!transport || transport == other.transport) &&
               (!ports || covers_all_ports() ||
                (other.ports && ports->first <= other.ports->first &&
                 other.ports->last <= ports->last));
    }
    /// A range of all ports has 0, too, which nobody can write.
    constexpr bool covers_all_ports() const noexcept {
        return ports && ports->first <= 1 && ports->last == 65535;
    }
};

/// All packets.
constexpr traffic all_traffic() { return {}; }
/// ICMP in IPv4 and ICMPv6 in IPv6.
constexpr traffic icmp() { return traffic(std::uint8_t{1}); }
/// All packets of a protocol with ports.
constexpr traffic any_port(protocol transport) {
    return traffic(static_cast<std::uint8_t>(transport));
}
/// All packets of the protocol with an IANA number: 47 is GRE, 50 ESP.
constexpr traffic ip_protocol(std::uint8_t number) { return traffic(number); }

/// "all traffic", "tcp 80", "udp", "icmp", "protocol 47".
inline std::string to_string(const traffic& kind) {
    if (!kind.transport) return "all traffic";
    const std::uint8_t number = *kind.transport;
    std::string text = number == 6 || number == 17 || number == 132
                           ? std::string(to_string(protocol{number}))
                       : kind.is_icmp() ? std::string("icmp")
                                        : "protocol " + std::to_string(number);
    if (kind.ports) text += " " + to_string(*kind.ports);
    return text;
}

}  // namespace kumiki::inline v0
