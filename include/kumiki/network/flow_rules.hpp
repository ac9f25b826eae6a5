// What a container's rules say to a flow that the kernel knows already: whether it could begin under
// them, and where its destination leads. For ending the flows that changed rules would not have let in.
//
// The same answers as the kernel's to the flow's first packet, from the same firewall_rules. Pure.
#pragma once

#include <netinet/in.h>

#include <algorithm>
#include <cstdint>
#include <optional>
#include <string>

#include <kumiki/core/ip.hpp>
#include <kumiki/netlink/conntrack.hpp>
#include <kumiki/network/firewall_rules.hpp>
#include <kumiki/network/host_view.hpp>
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

/// The IANA number of the protocol of echo requests to an address.
constexpr std::uint8_t echo_protocol(const ip_address& to) noexcept {
    constexpr std::uint8_t icmp = IPPROTO_ICMP;
    constexpr std::uint8_t icmpv6 = IPPROTO_ICMPV6;
    return to.is_v4() ? icmp : icmpv6;
}

/// What rules ask for that no flow tells: who has which name, and behind which interface somebody is.
struct flow_context {
    memberships members{};
    host_view host{};
};

/// True when one of the rules of a container's policies is of the kind that `is_meant(rule)` tells.
template <class Predicate>
bool any_rule(const firewall_rules& rules, Predicate&& is_meant) {
    for (const policy* list : {&rules.ingress, &rules.egress, &rules.direct})
        if (std::any_of(list->rules().begin(), list->rules().end(), is_meant)) return true;
    return false;
}

/// True when the flow, one of the container's, could begin under `rules`.
inline bool permits(const firewall_options& options, const firewall_rules& rules, const flow& f,
                    const flow_context& context) {
    const auto allows = [&](const policy& list, const ip_address& peer, std::uint16_t port,
                            const ip_address& behind) {
        const bool is_host = context.host.has(behind);  // behind none
        const std::string interface = is_host ? std::string() : context.host.link_to(behind);
        policy_question asked{
            .peer = peer, .transport = f.transport, .port = port, .members = &context.members};
        if (is_host || !interface.empty()) asked.interface = interface;
        return list.decide(asked).verdict == access::allow;
    };
    const auto is_own = [&](const ip_address& address) {
        return std::find(rules.addresses.begin(), rules.addresses.end(), address) !=
               rules.addresses.end();
    };
    const ip_address& client = f.original.source;
    const ip_address& to = f.original.destination;
    if (is_own(client)) {
        if (!f.is_redirected() && context.host.has(to)) {  // "host": nothing but names and echoes
            if (asks_for_names(options, to, f.transport, f.original.destination_port)) return true;
            if (f.transport != echo_protocol(to)) return false;
        }
        if (!allows(rules.egress, to, f.original.destination_port, f.reply.source)) return false;
    }
    if (!is_own(f.reply.source)) return true;
    const bool is_owners = context.host.has(client);  // the host is not asked
    if (f.is_redirected())
        return published_as(rules, f) == f.reply.source_port &&
               (is_owners || allows(rules.ingress, client, f.reply.source_port, client));
    return is_own(client) || is_owners ||
           ((is_container(options, client) || options.use == bridge_use::shared) &&
            allows(rules.direct, client, f.original.destination_port, client));
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
           before.direct != after.direct ||
           std::any_of(before.publish.begin(), before.publish.end(), leads_elsewhere) ||
           std::any_of(after.publish.begin(), after.publish.end(), is_exact_and_new);
}

}  // namespace kumiki::inline v0::detail
