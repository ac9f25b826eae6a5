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

/// True when `address` is a container's: in a subnet of the network, and not the host's in it.
inline bool is_container(const firewall_options& options, const ip_address& address) {
    return std::any_of(options.subnets.begin(), options.subnets.end(), [&](const cidr& subnet) {
        return subnet.contains(address) && address != gateway_of(subnet);
    });
}

/// True when the flow, one of the container's, could begin under `rules`.
inline bool permits(const firewall_rules& rules, const flow& f) {
    const auto is_own = [&](const ip_address& address) {
        return std::find(rules.addresses.begin(), rules.addresses.end(), address) !=
               rules.addresses.end();
    };
    if (is_own(f.original.source) &&
        rules.egress.verdict(f.original.destination, f.transport, f.original.destination_port) ==
            access::deny)
        return false;
    if (!is_own(f.reply.source) || !f.is_redirected()) return true;
    return rules.ingress.verdict(f.original.source, f.transport, f.reply.source_port) ==
               access::allow &&
           published_as(rules, f) == f.reply.source_port;
}

/// False when `after` lets everything begin that `before` did, as far as can be said without flows.
inline bool denies_more(const firewall_rules& before, const firewall_rules& after) {
    const auto leads_elsewhere = [&](const published_port& port) {
        return std::find(after.publish.begin(), after.publish.end(), port) == after.publish.end();
    };
    // A port on one address comes before the same on all: what is added may lead elsewhere, too.
    const auto is_exact_and_new = [&](const published_port& port) {
        return !port.on_all_addresses() && std::find(before.publish.begin(), before.publish.end(),
                                                     port) == before.publish.end();
    };
    return before.ingress != after.ingress || before.egress != after.egress ||
           before.siblings != after.siblings ||
           std::any_of(before.publish.begin(), before.publish.end(), leads_elsewhere) ||
           std::any_of(after.publish.begin(), after.publish.end(), is_exact_and_new);
}

/// True unless the flow is one that a sibling opened directly and could not under `rules`.
inline bool permits_sibling(const firewall_options& options, const firewall_rules& rules,
                            const flow& f) {
    const auto is_own = [&](const ip_address& address) {
        return std::find(rules.addresses.begin(), rules.addresses.end(), address) !=
               rules.addresses.end();
    };
    return f.is_redirected() || !is_own(f.reply.source) || is_own(f.original.source) ||
           !is_container(options, f.original.source) ||
           rules.siblings.verdict(f.original.source, f.transport, f.original.destination_port) ==
               access::allow;
}

}  // namespace kumiki::inline v0::detail
