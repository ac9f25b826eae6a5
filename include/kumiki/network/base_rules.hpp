// The rules of one network that all its containers share: what is translated, what may pass between a
// container and the rest of the world, what a container's port may send, and nothing from port to port.
//
// A verdict to let pass is that of one chain only: a packet from container to container by a published
// port meets the sender's policy in "egress" and the receiver's in "ingress"; one from another network meets
// that one's, too. Other people's tables are never changed: where they drop, it stays dropped, and
// host_firewall.hpp tells.
// Pure: firewall.hpp commits it. Kernel: 5.2, for IPv4 and IPv6 alike.
#pragma once

#include <linux/netfilter/nf_tables.h>

#include <cstdint>
#include <optional>
#include <string>
#include <tuple>
#include <utility>

#include <kumiki/core/ip.hpp>
#include <kumiki/netlink/nft_action.hpp>
#include <kumiki/netlink/nft_match.hpp>
#include <kumiki/netlink/nftables.hpp>
#include <kumiki/network/bridge_options.hpp>
#include <kumiki/network/bridge_rules.hpp>
#include <kumiki/network/denial_rules.hpp>
#include <kumiki/network/end_flows.hpp>
#include <kumiki/network/ruleset.hpp>

namespace kumiki::inline v0::detail {

/// Translates the destination of what is for a published port.
inline void put_published_rules(nft::batch& change, const nft::table& table) {
    const auto map_rule = [&](ip_family family, const nft::set& map, const auto&... key) {
        change.add_rule(table, "published", "", nft::family_is(family),
                        nft::load_meta{NFT_META_L4PROTO, nft::r(0)}, key...,
                        nft::lookup{.set = map.name, .from = nft::r(0), .into = nft::r(8)},
                        nft::translate{NFT_NAT_DNAT, family, nft::r(8),
                                       nft::r(family == ip_family::v4 ? 9 : 12)});
    };
    for (const ip_family family : both_families) {
        map_rule(family, ruleset::publish(family),
                 nft::load_address(family, nft::side::destination, nft::r(1)),
                 nft::load_destination_port(nft::r(family == ip_family::v4 ? 2 : 5)));
        map_rule(family, ruleset::publish_any(family), nft::load_destination_port(nft::r(1)));
    }
}

/// What stands between a published port and its container, and between a container and the rest.
inline void put_filter_rules(nft::batch& change, const nft::table& table,
                             const firewall_options& options) {
    using namespace nft;
    const std::string& bridge = options.bridge;
    const auto answers = state_is_any(ct_state::established | ct_state::related);
    const auto verdicts = [&](const char* chain, side which, const auto& map, const auto&... when) {
        for (const ip_family family : both_families)
            change.add_rule(table, chain, "", family_is(family), when...,
                            load_address(family, which), decide_by(map(family).name));
    };

    const auto leave_others = [&](const char* chain, side which) {
        if (options.use == bridge_use::own) return;
        for (const ip_family family : both_families) {
            std::optional<std::tuple<load_payload, bitwise, compare>> outside;
            for (const cidr& subnet : options.subnets)
                if (subnet.address.family() == family)
                    outside = {
                        load_address(family, which),
                        bitwise{.mask = value::prefix_mask(subnet.address.size(), subnet.prefix)},
                        compare{NFT_CMP_NEQ, value(subnet.network())}};
            change.add_rule(table, chain, "of the bridge's others", family_is(family), outside,
                            decide{leave()});
        }
    };

    const auto put_ending = [&](const char* chain) {
        put_denial(change, table, chain, "its flow ends", load_ct{.key = NFT_CT_MARK},
                   compare{NFT_CMP_EQ, value::number(ending_mark)});
    };
    change.add_rule(table, "egress", "", input_is(bridge, NFT_CMP_NEQ), decide{leave()});
    put_ending("egress");
    if (options.use == bridge_use::shared)  // of a neighbour on it, and its answers
        for (const cidr& subnet : options.subnets)
            change.add_rule(table, "egress", "may stay in the bridge", output_is(bridge),
                            to(subnet), load_value{value::number(seen_mark)}, store_meta{});
    leave_others("egress", side::source);
    change.add_rule(table, "egress", "may stay in the bridge", output_is(bridge),
                    load_value{value::number(seen_mark)}, store_meta{});
    change.add_rule(table, "egress", "", answers, decide{accept()});
    put_denial(change, table, "egress", "", state_is_any(ct_state::invalid | ct_state::untracked));
    verdicts("egress", side::source, ruleset::egress);
    put_denial(change, table, "egress", "not a container's address");

    change.add_rule(table, "ingress", "", output_is(bridge, NFT_CMP_NEQ), decide{leave()});
    put_ending("ingress");
    leave_others("ingress", side::destination);
    change.add_rule(table, "ingress", "", answers, decide{accept()});
    verdicts("ingress", side::destination, ruleset::direct, input_is(bridge),
             destination_was_translated(NFT_CMP_EQ));
    put_denial(change, table, "ingress", "not published", destination_was_translated(NFT_CMP_EQ));
    verdicts("ingress", side::destination, ruleset::ingress);
    put_denial(change, table, "ingress", "not a container's address");

    change.add_rule(table, "host", "", input_is(bridge, NFT_CMP_NEQ), decide{leave()});
    put_ending("host");
    leave_others("host", side::source);
    change.add_rule(table, "host", "", answers, decide{accept()});
    constexpr std::uint8_t neighbour_solicitation = 135;
    constexpr std::uint8_t neighbour_advertisement = 136;
    for (const std::uint8_t type : {neighbour_solicitation, neighbour_advertisement})
        change.add_rule(table, "host", "", icmp_type_is(icmpv6_number, type), decide{accept()});
    constexpr std::uint8_t echo = 8;
    constexpr std::uint8_t echo_v6 = 128;
    change.add_rule(table, "host", "", family_is(ip_family::v4), icmp_type_is(icmp_number, echo),
                    load_address(ip_family::v4, side::source),
                    decide_by(ruleset::egress(ip_family::v4).name));
    change.add_rule(table, "host", "", family_is(ip_family::v6),
                    icmp_type_is(icmpv6_number, echo_v6), load_address(ip_family::v6, side::source),
                    decide_by(ruleset::egress(ip_family::v6).name));
    if (options.names == name_service::on)
        for (const cidr& subnet : options.subnets) {
            const ip_address gateway = gateway_of(subnet);
            for (const protocol transport : {protocol::udp, protocol::tcp})
                change.add_rule(table, "host", "names",
                                to({gateway, static_cast<std::uint8_t>(gateway.bits())}),
                                protocol_is(transport), load_destination_port(),
                                is_port_in({53, 53}), decide{accept()});
        }
    put_denial(change, table, "host", "the host is not a peer");
}

/// Sources on the way out.
inline void put_masquerade_rules(nft::batch& change, const nft::table& table,
                                 const firewall_options& options) {
    using namespace nft;
    // A container of another network is no outside: it sees its clients' own addresses, too.
    const auto leaves_kumiki = std::tuple(load_meta{.key = NFT_META_OIFNAME},
                                          bitwise{.mask = value::prefix_mask(16, 8 * 3)},
                                          compare{NFT_CMP_NEQ, value::name(bridge_prefix)});
    for (const cidr& subnet : options.subnets) {
        // Not on lo: the host speaks to itself from the bridge's address, too.
        change.add_rule(table, "postrouting", "to the outside", from(subnet),
                        output_is(options.bridge, NFT_CMP_NEQ), output_is("lo", NFT_CMP_NEQ),
                        leaves_kumiki, masquerade{});
        if (options.use == bridge_use::shared)  // its others may know no way back
            change.add_rule(table, "postrouting", "to the bridge's others", from(subnet),
                            output_is(options.bridge), masquerade{});
        change.add_rule(table, "postrouting", "to a sibling or itself by a published port",
                        from(subnet), output_is(options.bridge), destination_was_translated(),
                        masquerade{});
    }
    for (const char* const loopback : {"127.0.0.0/8", "::1"})
        change.add_rule(table, "postrouting", "the host by its loopback",
                        from(cidr::parse(loopback)), output_is(options.bridge), masquerade{});
}

/// On what a container's port received from it, where the bridge has others: so none of those passes for
/// a container. It is set in the bridge and looked at by "guard", the first to see the packet after it.
inline constexpr std::uint32_t sent_mark = seen_mark ^ 1;

/// What tells containers from the others on their bridge. Before the rules of the bridge's table.
inline void put_neighbour_rules(nft::batch& change, const ruleset& tables,
                                const firewall_options& options) {
    using namespace nft;
    change.add_rule(tables.bridge, "prerouting", "sent by a container",
                    load_meta{NFT_META_IIFNAME, r(0)},
                    lookup{.set = ruleset::ports().name, .from = r(0)},
                    load_value{value::number(sent_mark)}, store_meta{});
    for (const cidr& subnet : options.subnets)
        put_denial(change, tables.inet, "guard", "not sent by a container",
                   input_is(options.bridge), from(subnet), load_meta{.key = NFT_META_MARK},
                   compare{NFT_CMP_NEQ, value::number(sent_mark)});
}

/// All that is not one container's. In a kernel that has it already, elements and the containers'
/// chains stay, and the rules are replaced by the same: so it also mends what others did to them.
inline void put_base_rules(nft::batch& change, const firewall_options& options) {
    using namespace nft;
    const ruleset tables(options.network);
    for (const table& each : {tables.inet, tables.bridge})
        change.add_table(each, "kumiki network " + options.network, owner_of(options));
    for (const ip_family family : both_families) {
        for (const nft::set& each :
             {ruleset::publish(family), ruleset::publish_any(family), ruleset::egress(family),
              ruleset::ingress(family), ruleset::members(family), ruleset::direct(family)})
            change.add_set(tables.inet, each);
        change.add_set(tables.bridge, ruleset::sources(family));
        if (options.names == name_service::on) change.add_set(tables.inet, ruleset::names(family));
    }
    change.add_set(tables.bridge, ruleset::ports());

    // Own base chains, so that nobody's rules come before or behind ours in one (CVE-2019-9946).
    const auto base = [&](const table& in, const char* name, std::optional<hook> where) {
        if (where) change.add_chain(in, name, *where);
        if (!where) change.add_chain(in, name);
        change.flush_chain(in, name);
    };
    base(tables.inet, "guard", hook{"filter", hook_point::prerouting, -300});
    base(tables.inet, "published", {});
    base(tables.inet, "prerouting", hook{"nat", hook_point::prerouting, -100});
    base(tables.inet, "output", hook{"nat", hook_point::output, -100});
    base(tables.inet, "postrouting", hook{"nat", hook_point::postrouting, 100});
    base(tables.inet, "egress", hook{"filter", hook_point::forward, 0});
    base(tables.inet, "ingress", hook{"filter", hook_point::forward, 1});
    base(tables.inet, "host", hook{"filter", hook_point::input, 0});
    base(tables.inet, "redirects", hook{"filter", hook_point::output, 0});
    // Whose it was is told by the packet's address.
    for (const auto& [chain, rule] :
         {std::pair(denied_egress, ":out:rest"), std::pair(denied_ingress, ":in:rest")}) {
        base(tables.inet, chain, {});
        change.add_rule(tables.inet, chain, "", counter{}, log_denial(tables.inet, rule),
                        decide{drop()});
    }
    base(tables.bridge, "prerouting", hook{"filter", hook_point::prerouting, -300});
    base(tables.bridge, "sender", {});
    base(tables.bridge, "neighbour", {});
    base(tables.bridge, "forward", hook{"filter", hook_point::forward, 10});

    // route_localnet on the bridge must not open 127.0.0.0/8 to anybody (CVE-2020-8558), and nobody
    // outside passes for a container.
    for (const char* const loopback : {"127.0.0.0/8", "::1"})
        put_denial(change, tables.inet, "guard", "", input_is("lo", NFT_CMP_NEQ),
                   to(cidr::parse(loopback)));
    for (const cidr& subnet : options.subnets)
        put_denial(change, tables.inet, "guard", "not from the network",
                   input_is(options.bridge, NFT_CMP_NEQ), input_is("lo", NFT_CMP_NEQ),
                   from(subnet));
    put_published_rules(change, tables.inet);
    // What is for others passes through: a published port is one of this host's (CVE-2025-67499).
    for (const char* const chain : {"prerouting", "output"})
        change.add_rule(tables.inet, chain, "", destination_is_local(), decide{go_to("published")});
    put_masquerade_rules(change, tables.inet, options);
    put_filter_rules(change, tables.inet, options);
    if (options.use == bridge_use::shared) put_neighbour_rules(change, tables, options);
    // The host must not tell containers that the shorter way to a sibling is the direct one: there the
    // bridge's rules stop them. (Of IPv4 it is a setting; of IPv6 there is none.)
    constexpr std::uint8_t redirect = 137;
    change.add_rule(tables.inet, "redirects", "", output_is(options.bridge),
                    icmp_type_is(icmpv6_number, redirect), decide{drop()});
    put_bridge_rules(change, tables.bridge, options.ports);
}

}  // namespace kumiki::inline v0::detail
