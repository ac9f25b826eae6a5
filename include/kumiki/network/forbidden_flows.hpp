// Ending the flows that rules which have come into force would not have let begin, or would have led
// elsewhere: the kernel asks no rule about a flow that it knows.
//
// ctnetlink; what to end is flow_rules.hpp's to say.
#pragma once

#include <algorithm>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <kumiki/core/ip.hpp>
#include <kumiki/netlink/address.hpp>
#include <kumiki/netlink/conntrack.hpp>
#include <kumiki/netlink/nft_view.hpp>
#include <kumiki/netlink/socket.hpp>
#include <kumiki/network/firewall_rules.hpp>
#include <kumiki/network/flow_rules.hpp>
#include <kumiki/network/host_view.hpp>
#include <kumiki/network/owned_elements.hpp>
#include <kumiki/network/policy.hpp>
#include <kumiki/network/publish.hpp>
#include <kumiki/network/ruleset.hpp>

namespace kumiki::inline v0::detail {

/// What the rules of `all` ask for beside the flows. Names that a foreign hand took away are nobody's
/// until their process puts them back. Errors: kumiki::error.
inline flow_context read_flow_context(netlink_socket& netfilter, netlink_socket& routes,
                                      const firewall_options& options,
                                      const std::vector<const firewall_rules*>& all) {
    flow_context context;
    const auto any = [&](auto&& is_meant) {
        return std::any_of(all.begin(), all.end(),
                           [&](const firewall_rules* each) { return any_rule(*each, is_meant); });
    };
    const bool by_interface =
        any([](const policy_rule& rule) { return !rule.options.interface.empty(); });
    context.host = by_interface ? read_host_view(routes) : read_host_addresses(routes);
    if (!any([](const policy_rule& rule) { return rule.peers.member_key().has_value(); }))
        return context;
    const ruleset tables(options.network);
    for (const ip_family family : both_families)
        for (const nft::element_view& each : elements_of(
                 netfilter, {tables.inet, ruleset::members(family), family, owner_place::member}))
            if (const auto member = ruleset::member_of(each.key))
                context.members.add(member->first, member->second);
    return context;
}

/// Ends the flows that began while there were no rules, and could not under those of `connected`: they
/// would go on as answers do. Errors: kumiki::error.
inline void end_forbidden_flows(netlink_socket& netfilter, netlink_socket& routes,
                                const firewall_options& options,
                                const std::map<std::string, firewall_rules>& connected) {
    if (connected.empty() || count_flows(netfilter) == 0) return;
    std::vector<std::pair<ip_address, const firewall_rules*>> owners;
    std::vector<const firewall_rules*> all;
    for (const auto& [port, rules] : connected) {
        all.push_back(&rules);
        for (const ip_address& address : rules.addresses) owners.emplace_back(address, &rules);
    }
    std::sort(owners.begin(), owners.end());
    const auto context = read_flow_context(netfilter, routes, options, all);
    const auto forbids = [&](const ip_address& address, const flow& each) {
        const auto owner = std::lower_bound(
            owners.begin(), owners.end(), address,
            [](const auto& entry, const ip_address& wanted) { return entry.first < wanted; });
        return owner != owners.end() && owner->first == address &&
               !permits(options, *owner->second, each, context);
    };
    std::vector<flow> found;
    for (const ip_family family : both_families)
        for (flow& each : list_flows(netfilter, {.family = family}))
            if (forbids(each.original.source, each) || forbids(each.reply.source, each))
                found.push_back(std::move(each));
    delete_flows(netfilter, found);
}

/// Ends the flows to the published ports of `rules` that lead elsewhere.
///
/// Translation is decided by a flow's first packet: a client that sent before the port was
/// published, or to the container that had it before, would be led astray as long as it sends.
/// Only this host's own addresses are meant: what it sends to that port elsewhere goes on. A TCP
/// client begins anew, and the kernel with it: so the walk over the table is left out for TCP.
/// Errors: kumiki::error.
inline void end_stale_flows(netlink_socket& netfilter, netlink_socket& routes,
                            const firewall_options& options, const firewall_rules& rules) {
    std::optional<std::uint8_t> transport;
    bool several = false;
    for (const published_port& port : rules.publish) {
        if (port.transport == protocol::tcp) continue;
        const auto number = static_cast<std::uint8_t>(port.transport);
        several = several || (transport && *transport != number);
        transport = number;
    }
    if (!transport || count_flows(netfilter) == 0) return;
    if (several) transport.reset();
    const auto locals = list_addresses(routes);
    const auto is_local = [&](const ip_address& address) {
        return address.is_loopback() ||
               std::any_of(locals.begin(), locals.end(),
                           [&](const address_info& l) { return l.address.address == address; });
    };
    const auto is_ours = [&](const ip_address& address) {
        return std::any_of(options.subnets.begin(), options.subnets.end(),
                           [&](const cidr& subnet) { return subnet.contains(address); });
    };
    std::vector<flow> stale;
    for (const ip_address& address : rules.addresses)
        for (flow& each :
             list_flows(netfilter, {.family = address.family(), .transport = transport}))
            if (each.reply.source != address && published_as(rules, each) &&
                (each.is_redirected() ? is_ours(each.reply.source)
                                      : is_local(each.original.destination)))
                stale.push_back(std::move(each));
    delete_flows(netfilter, stale);
}

}  // namespace kumiki::inline v0::detail
