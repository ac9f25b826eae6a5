// A packet that a network's rules dropped: whose it was, which way it went, and by which rule.
//
// Pure: made from what NFLOG tells (nflog.hpp) and the containers' names. The rule's name is the prefix
// that it logs under (denial_rules.hpp, policy_chain.hpp). The stream of them is in denials.hpp.
// Left out: what a packet carries.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>

#include <kumiki/core/ip.hpp>
#include <kumiki/netlink/flow.hpp>
#include <kumiki/netlink/nflog.hpp>
#include <kumiki/network/container_names.hpp>
#include <kumiki/network/packet.hpp>

namespace kumiki::inline v0 {

/// Which way a packet went, seen from the container.
enum class flow_side : std::uint8_t { out, in };

/// A packet that was dropped.
struct denial {
    std::string container{};  ///< whose it was; empty for an address that is no container's
    flow_side direction = flow_side::out;
    /// The rule: "web:out:3" is number 3 of web's egress policy, "web:in:rest" what its ingress policy
    /// has no rule for, "base:ingress:not published" one that all containers share.
    std::string rule{};
    flow_tuple packet{};  ///< a published port's destination is translated already: the container's
    std::uint8_t transport = 0;  ///< IANA number; 0: ARP
    std::string in{};  ///< the interface, or the bridge's port, that it came in by
    std::string out{};  ///< the interface that it was to leave by; empty: none was chosen yet
    std::uint64_t lost = 0;  ///< so many before it were not told: this reader was too slow
};

/// "web out 10.88.0.2:40000 to 192.0.2.1:443 protocol 6 by web:out:3".
inline std::string to_string(const denial& d) {
    const auto end = [](const ip_address& address, std::uint16_t port) {
        return port == 0 ? to_string(address) : to_string(address_port{address, port});
    };
    return (d.container.empty() ? "?" : d.container) +
           (d.direction == flow_side::out ? " out " : " in ") +
           end(d.packet.source, d.packet.source_port) + " to " +
           end(d.packet.destination, d.packet.destination_port) + " protocol " +
           std::to_string(d.transport) + " by " + d.rule;
}

namespace detail {

/// True for what says nothing of anybody's intent: each broadcast and ARP request is offered to all
/// ports and dropped before the siblings', and a container's kernel greets its link (RFC 3810, 4861)
/// of its own accord.
inline bool is_chatter(const logged_packet& packet) {
    if (!packet.head) return packet.prefix == "base:forward";
    const ip_address& to = packet.head->between.destination;
    const bool is_to_many = to.is_v4() ? to[0] >= 224 : to[0] == 0xff;
    constexpr std::uint8_t igmp = 2;
    constexpr std::uint8_t icmpv6 = 58;
    const std::uint8_t transport = packet.head->transport;
    if (packet.prefix == "base:forward") return is_to_many || transport == 0;
    return packet.prefix.starts_with("base:") && is_to_many &&
           (transport == igmp || transport == icmpv6);
}

/// The denial that a logged packet is.
inline denial make_denial(logged_packet packet, const container_names& names) {
    denial made{.rule = std::move(packet.prefix)};
    if (packet.head) {
        made.packet = packet.head->between;
        made.transport = packet.head->transport;
    }
    const std::string& rule = made.rule;
    const std::string sender = names.find(made.packet.source);
    const std::string receiver = names.find(made.packet.destination);
    // "web:out:3", ":in:rest", "base:ingress:not published"; no container is called "base:".
    const std::size_t colon = rule.find(':');
    const bool is_base = rule.starts_with("base:");
    if (is_base)
        made.direction = rule.starts_with("base:ingress") || rule.starts_with("base:guard")
                             ? flow_side::in
                             : flow_side::out;
    else if (colon != std::string::npos)
        made.direction =
            rule.compare(colon, 4, ":out") == 0 || rule.compare(colon, 8, ":rateout") == 0
                ? flow_side::out
                : flow_side::in;
    made.container = !is_base && colon != std::string::npos && colon != 0
                         ? rule.substr(0, colon)
                         : (made.direction == flow_side::in ? receiver : sender);
    if (colon == 0) made.rule.insert(0, made.container);
    return made;
}

}  // namespace detail

}  // namespace kumiki::inline v0
