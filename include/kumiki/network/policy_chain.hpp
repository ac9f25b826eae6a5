// A policy as a chain of one table: its rules in order, then what holds for the rest.
//
// Only the first packets of flows come here: answers pass before. Pure. Kernel: 5.2.
#pragma once

#include <linux/netfilter/nf_tables.h>

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>
#include <vector>

#include <kumiki/core/ip.hpp>
#include <kumiki/netlink/nft_action.hpp>
#include <kumiki/netlink/nft_expression.hpp>
#include <kumiki/netlink/nft_limit.hpp>
#include <kumiki/netlink/nft_match.hpp>
#include <kumiki/netlink/nft_set.hpp>
#include <kumiki/netlink/nft_value.hpp>
#include <kumiki/netlink/nftables.hpp>
#include <kumiki/network/denial_rules.hpp>
#include <kumiki/network/policy.hpp>
#include <kumiki/network/rate.hpp>
#include <kumiki/network/ruleset.hpp>

namespace kumiki::inline v0::detail {

/// How the names of containers' chains begin: with a policy's, or its rates'; the container's follows.
inline constexpr std::string_view chain_kinds[] = {"out-", "in-", "direct-", "rateout-", "ratein-"};

/// The container whose chain is called so; nothing for a chain that is no container's.
constexpr std::optional<std::string_view> container_of_chain(std::string_view chain) noexcept {
    for (const std::string_view kind : chain_kinds)
        if (chain.starts_with(kind)) return chain.substr(kind.size());
    return std::nullopt;
}

/// One chain of a container's.
class policy_chain {
  public:
    policy_chain(const nft::table& in, std::string name, nft::only_new which = nft::only_new::no)
        : table_(in), name_(std::move(name)), which_(which) {}

    /// What the container may open: as it wrote it, before a published port was translated.
    void put_egress(nft::batch& change, const policy& rules) const {
        put(change, rules, nft::side::destination);
    }
    /// Who may use its published ports, or reach it by its own address: the client as it is, and the
    /// container's own port.
    void put_ingress(nft::batch& change, const policy& rules) const {
        put(change, rules, nft::side::source);
    }
    /// Drops what is beyond the packet rates of `rules`: for packets from who began a flow.
    void put_egress_rates(nft::batch& change, const policy& rules) const {
        begin(change);
        put_rates(change, rules, nft::side::destination, std::tuple());
    }
    void put_ingress_rates(nft::batch& change, const policy& ingress, const policy& direct) const {
        begin(change);
        put_rates(change, ingress, nft::side::source, nft::destination_was_translated());
        put_rates(change, direct, nft::side::source, nft::destination_was_translated(NFT_CMP_EQ));
    }
    void delete_from(nft::batch& change) const {
        change.flush_chain(table_, name_);
        change.delete_chain(table_, name_);
    }

  private:
    // `peer`: where in a packet the peer's address is.
    void put(nft::batch& change, const policy& rules, nft::side peer) const {
        begin(change);
        for (std::size_t i = 0; i < rules.rules().size(); ++i) {
            const policy_rule& rule = rules.rules()[i];
            const rule_options& options = rule.options;
            std::optional<nft::flow_limit> at_once;
            if (options.at_once) at_once = nft::flow_limit{*options.at_once};
            for (const auto& family : families_of(rule))
                put_rule(change, rule, name_of(i), peer, family, at_once,
                         limit_of(options.connections, nft::beyond_limit::no), nft::counter{},
                         log_of(rule.verdict, name_of(i)), verdict_of(rule.verdict));
        }
        change.add_rule(table_, name_, name_of({}), nft::counter{},
                        log_of(rules.otherwise(), name_of({})), verdict_of(rules.otherwise()));
    }
    void begin(nft::batch& change) const {
        change.add_chain(table_, name_, which_);
        change.flush_chain(table_, name_);
    }
    // Each packet is one rule's, as when its flow began: the first that matches.
    template <class When>
    void put_rates(nft::batch& change, const policy& rules, nft::side peer,
                   const When& when) const {
        for (std::size_t i = 0; i < rules.rules().size(); ++i) {
            const policy_rule& rule = rules.rules()[i];
            for (const auto& family : families_of(rule)) {
                if (rule.options.packets)
                    put_rule(change, rule, name_of(i), peer, family, when,
                             limit_of(rule.options.packets, nft::beyond_limit::yes), nft::counter{},
                             log_of(access::deny, name_of(i)), nft::decide{nft::drop()});
                put_rule(change, rule, "", peer, family, when, nft::decide{nft::leave()});
            }
        }
    }
    static std::optional<nft::limit> limit_of(const std::optional<rate>& r,
                                              nft::beyond_limit beyond) {
        if (!r) return std::nullopt;
        return nft::limit{r->count, r->every, r->burst, beyond};
    }
    // Of the chain "out-web": "web:out:0".
    std::string name_of(std::optional<std::size_t> rule) const {
        const std::string_view name = name_;
        const auto dash = name.find('-');
        return rule_name(name.substr(dash + 1), name.substr(0, dash), rule);
    }
    std::optional<nft::log_to> log_of(access verdict, std::string rule) const {
        if (verdict == access::allow) return std::nullopt;
        return log_denial(table_, std::move(rule));
    }
    static nft::decide verdict_of(access verdict) {
        return {verdict == access::allow ? nft::accept() : nft::drop()};
    }
    // One rule of the kernel's for each; for none, one that is of both.
    static std::vector<std::optional<ip_family>> families_of(const policy_rule& rule) {
        if (rule.peers.network() != nullptr) return {rule.peers.network()->address.family()};
        if (rule.peers.is_everybody() && !rule.about.is_icmp()) return {std::nullopt};
        std::vector<std::optional<ip_family>> all;
        for (const ip_family family : both_families)
            if (rule.peers.set() == nullptr || rule.peers.set()->has(family)) all.push_back(family);
        return all;
    }
    template <class... Statements>
    void put_rule(nft::batch& change, const policy_rule& rule, const std::string& called,
                  nft::side peer, std::optional<ip_family> family,
                  const Statements&... then) const {
        using namespace nft;
        std::optional<decltype(family_is({}))> of_family;
        if (family) of_family = family_is(*family);
        std::optional<decltype(input_is(""))> by_interface;
        const std::string& interface = rule.options.interface;
        if (!interface.empty())
            by_interface = peer == side::source ? input_is(interface) : output_is(interface);

        // The key is the address, behind the member's number where there is one.
        std::optional<load_value> member;
        if (const auto key = rule.peers.member_key()) member = load_value{ruleset::member(*key)};
        const reg at = r(member ? 2 : 0);
        std::optional<load_ct> as_written;
        std::optional<load_payload> as_it_is;
        if (!rule.peers.is_everybody() && peer == side::destination)
            as_written = load_original_destination(*family, at);
        if (!rule.peers.is_everybody() && peer == side::source)
            as_it_is = load_address(*family, side::source, at);
        std::optional<decltype(is_in({}))> in_network;
        if (rule.peers.network() != nullptr) in_network = is_in(*rule.peers.network());
        std::optional<lookup> in_set;
        if (rule.peers.set() != nullptr)
            in_set = change.add_anonymous_set(table_,
                                              {.key = {fields::address(*family)}, .ranges = true},
                                              ranges_of(*rule.peers.set(), *family));
        if (member) in_set = lookup{.set = ruleset::members(*family).name};

        std::optional<decltype(protocol_is(protocol::tcp))> transport;
        const auto number = rule.about.number_in(family.value_or(ip_family::v4));
        if (number) transport = protocol_is(*number);
        std::optional<load_ct> port_as_written;
        std::optional<load_payload> port;
        std::optional<decltype(is_port_in({}))> of_ports;
        if (rule.about.ports) {
            if (peer == side::destination)
                port_as_written = load_ct{NFT_CT_PROTO_DST, flow_direction::original};
            else
                port = load_destination_port();
            of_ports = is_port_in(*rule.about.ports);
        }
        change.add_rule(table_, name_, called, by_interface, of_family, member, as_written,
                        as_it_is, in_network, in_set, transport, port_as_written, port, of_ports,
                        then...);
    }
    static std::vector<nft::element> ranges_of(const address_set& set, ip_family family) {
        std::vector<nft::element> elements;
        for (const address_range& each : set.ranges())
            if (each.first.family() == family)
                elements.push_back({.key = each.first, .last = nft::value(each.last)});
        return elements;
    }

    nft::table table_;
    std::string name_;
    nft::only_new which_;
};

}  // namespace kumiki::inline v0::detail
