// What a container's rules say to a flow that the kernel knows already: whether it could begin under
// them, and where its destination leads. For ending the flows that changed rules would not have let in.
//
// Pure: the same answers as the kernel's to the flow's first packet, from the same firewall_rules.
#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>

#include <kumiki/core/ip.hpp>
#include <kumiki/netlink/conntrack.hpp>
#include <kumiki/network/container_rules.hpp>
#include <kumiki/network/policy.hpp>
#include <kumiki/network/publish.hpp>

namespace kumiki::inline v0::detail {

/// The container's port that the flow's destination leads to; nothing when it leads elsewhere.
/// A port published on the very address comes before one on all of them, as in the kernel's maps.
inline std::optional<std::uint16_t> published_as(const firewall_rules& rules, const flow& f) {
    std::optional<std::uint16_t> found;
    for (const published_port& port : rules.publish) {
        if (static_cast<std::uint8_t>(port.transport) != f.transport ||
            !port.host.contains(f.original.destination_port) ||
            !port.covers(f.original.destination.family()))
            continue;
        const bool exact = !port.on_all_addresses();
        if (exact && *port.address != f.original.destination) continue;
        const auto offset = f.original.destination_port - port.host.first;
        if (exact || !found) found = static_cast<std::uint16_t>(port.container.first + offset);
        if (exact) break;
    }
    return found;
}

/// True when the flow, one of the container's, could begin under `rules`. By what interface is not
/// known of a flow: see policy_question.
inline bool permits(const firewall_rules& rules, const flow& f, const memberships& members = {}) {
    const auto says = [&](const policy& list, const ip_address& peer, std::uint16_t port) {
        return list
            .decide({.peer = peer, .transport = f.transport, .port = port, .members = &members})
            .verdict;
    };
    const auto is_own = [&](const ip_address& address) {
        return std::find(rules.addresses.begin(), rules.addresses.end(), address) !=
               rules.addresses.end();
    };
    if (is_own(f.original.source) &&
        says(rules.egress, f.original.destination, f.original.destination_port) == access::deny)
        return false;
    if (!is_own(f.reply.source) || !f.is_redirected()) return true;
    return says(rules.ingress, f.original.source, f.reply.source_port) == access::allow &&
           published_as(rules, f) == f.reply.source_port;
}

/// False for a flow from another container by the container's own address that could not begin under
/// `rules`. (The host's, which are none of its network's containers', are never asked.)
inline bool permits_direct(const firewall_rules& rules, const flow& f, const memberships& members) {
    if (f.is_redirected() || std::find(rules.addresses.begin(), rules.addresses.end(),
                                       f.reply.source) == rules.addresses.end())
        return true;
    return rules.direct
               .decide({.peer = f.original.source,
                        .transport = f.transport,
                        .port = f.original.destination_port,
                        .members = &members})
               .verdict == access::allow;
}

}  // namespace kumiki::inline v0::detail
