// What one container adds to its network's rules: elements of the shared sets and maps, and chains
// where a policy has rules of its own.
//
// Pure. All of it is derived from firewall_rules, so that what was added can be deleted exactly, by
// another process, too. A published range is one element for each port: a hash finds it at once, where
// a range would have to be searched, and its offset computed.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <kumiki/core/ip.hpp>
#include <kumiki/netlink/mac.hpp>
#include <kumiki/netlink/nft_action.hpp>
#include <kumiki/netlink/nftables.hpp>
#include <kumiki/network/denial_rules.hpp>
#include <kumiki/network/firewall_rules.hpp>
#include <kumiki/network/policy.hpp>
#include <kumiki/network/policy_chain.hpp>
#include <kumiki/network/publish.hpp>
#include <kumiki/network/rate_rules.hpp>
#include <kumiki/network/ruleset.hpp>

namespace kumiki::inline v0::detail {

/// One container's part of the rules. `options` and `rules` must outlive it.
class container_rules {
  public:
    container_rules(const firewall_options& options, const firewall_rules& rules)
        : tables_(options.network), bridge_(options.bridge), rules_(rules) {
        for (const ip_address& address : rules.addresses) {
            const ip_family family = address.family();
            may_send_from(address);
            if (family == ip_family::v6) may_send_from(mac_of(rules).link_local().address);
            add(tables_.inet, ruleset::egress(family),
                {.key = address, .data = verdict_of(rules.egress, egress_chain(), denied_egress)});
            add(tables_.inet, ruleset::ingress(family),
                {.key = address,
                 .data = verdict_of(rules.ingress, ingress_chain(), denied_ingress)});
            if (has_rates(rules.egress))
                add(tables_.inet, ruleset::rates_out(family),
                    {.key = address, .data = nft::jump(egress_rates())});
            if (limits_in())
                add(tables_.inet, ruleset::rates_in(family),
                    {.key = address, .data = nft::jump(ingress_rates())});
            if (rules.direct != deny_all())
                add(tables_.inet, ruleset::direct(family),
                    {.key = address,
                     .data = verdict_of(rules.direct, direct_chain(), denied_ingress)});
            for (const published_port& each : rules.publish)
                if (each.covers(family)) publish(each, address);
            for (const std::string& key : member_keys(rules))
                add(tables_.inet, ruleset::members(family),
                    {.key = nft::concat(ruleset::member(key), address)});
        }
        add(tables_.bridge, ruleset::ports(), {.key = nft::value::name(rules.port)});
        if (options.names == name_service::on && !rules.ending) put_names(options);
    }

    /// Errors at commit: EEXIST for an element that is there with other data; with `only_new` also for
    /// the same, and for a chain.
    void add_to(nft::batch& change, nft::only_new which = nft::only_new::no) const {
        const auto chain = [&](std::string name) {
            return policy_chain(tables_.inet, std::move(name), which);
        };
        if (!rules_.egress.rules().empty()) chain(egress_chain()).put_egress(change, rules_.egress);
        if (!rules_.ingress.rules().empty())
            chain(ingress_chain()).put_ingress(change, rules_.ingress);
        if (!rules_.direct.rules().empty())
            chain(direct_chain()).put_ingress(change, rules_.direct);
        if (has_rates(rules_.egress) || limits_in()) put_shared_rates(change, tables_, bridge_);
        if (has_rates(rules_.egress)) chain(egress_rates()).put_egress_rates(change, rules_.egress);
        if (limits_in())
            chain(ingress_rates()).put_ingress_rates(change, rules_.ingress, rules_.direct);
        for (const part& each : parts_)
            change.add_elements(each.table, each.set, each.elements, which);
    }
    /// First the elements, which lead into the chains.
    void delete_from(nft::batch& change) const {
        for (const part& each : parts_) change.delete_elements(each.table, each.set, each.elements);
        for (const std::string& chain : chains())
            policy_chain(tables_.inet, chain).delete_from(change);
    }
    /// The same in batches of one deletion each.
    std::vector<nft::batch> single_deletions() const {
        std::vector<nft::batch> all;
        for (const part& each : parts_)
            for (const nft::element& element : each.elements)
                all.emplace_back().delete_elements(each.table, each.set, std::span(&element, 1));
        // Those of older rules, too: nothing leads to them any more.
        for (const std::string& chain :
             {egress_chain(), ingress_chain(), direct_chain(), egress_rates(), ingress_rates()})
            policy_chain(tables_.inet, chain).delete_from(all.emplace_back());
        return all;
    }

    /// The sets and what is added to them.
    struct part {
        nft::table table{};
        nft::set set{};
        std::vector<nft::element> elements{};
    };
    const std::vector<part>& parts() const noexcept { return parts_; }
    /// The names of the chains.
    std::vector<std::string> chains() const {
        std::vector<std::string> all;
        if (!rules_.egress.rules().empty()) all.push_back(egress_chain());
        if (!rules_.ingress.rules().empty()) all.push_back(ingress_chain());
        if (!rules_.direct.rules().empty()) all.push_back(direct_chain());
        if (has_rates(rules_.egress)) all.push_back(egress_rates());
        if (limits_in()) all.push_back(ingress_rates());
        return all;
    }

    /// True when the element of the network's `set` with these bytes as its key is the container's.
    bool owns(std::string_view set, std::string_view key) const {
        for (const part& each : parts_)
            if (each.set.name == set)
                for (const nft::element& element : each.elements)
                    if (key == element.key.view()) return true;
        return false;
    }

  private:
    bool limits_in() const { return has_rates(rules_.ingress) || has_rates(rules_.direct); }
    std::string egress_chain() const { return "out-" + rules_.container; }
    std::string ingress_chain() const { return "in-" + rules_.container; }
    std::string direct_chain() const { return "direct-" + rules_.container; }
    std::string egress_rates() const { return "rateout-" + rules_.container; }
    std::string ingress_rates() const { return "ratein-" + rules_.container; }
    // A policy without rules is a verdict in the map, or leads to a chain that all share. (Each chain
    // more is looked at by the kernel at each change that adds one: it searches for loops.) With a
    // jump, not a goto: a packet on its way through the old rules may find the new element already,
    // and the new chain, in which it sees no rules yet; so it must come back, to the denial behind the
    // look-up. See test_no_window.cpp.
    static nft::verdict verdict_of(const policy& rules, std::string chain,
                                   std::string_view denied) {
        if (!rules.rules().empty()) return nft::jump(std::move(chain));
        return rules.otherwise() == access::allow ? nft::accept() : nft::jump(std::string(denied));
    }
    void add(const nft::table& table, const nft::set& set, nft::element element) {
        if (element.comment.empty()) element.comment = rules_.container;
        if (parts_.empty() || parts_.back().set.name != set.name)
            parts_.push_back({.table = table, .set = set});
        parts_.back().elements.push_back(std::move(element));
    }
    void may_send_from(const ip_address& address) {
        add(tables_.bridge, ruleset::sources(address.family()),
            {.key = nft::concat(nft::value::name(rules_.port), mac_of(rules_), address)});
    }
    // Whoever may send to a resolver may have one asked; so a container that reaches nothing outside
    // gets nothing out in the names that it asks for (CVE-2024-29018).
    std::uint32_t birth(const firewall_options& options) const {
        bool asks = false;
        for (const cidr& subnet : options.subnets)
            asks = asks || rules_.egress.verdict(gateway_of(subnet), udp(53)) == access::allow;
        return (rules_.birth | names_go_out) ^ (asks ? 0 : names_go_out);
    }
    void put_names(const firewall_options& options) {
        const nft::value data = nft::value::number(birth(options));
        for (const ip_address& address : rules_.addresses) {
            std::uint32_t number = 0;
            const auto put = [&](const std::string& name) {
                add(tables_.inet, ruleset::names(address.family()),
                    {.key = nft::concat(address, nft::value::number(number++)),
                     .data = data,
                     .comment = name});
            };
            put(rules_.container);
            for (const std::string& alias : rules_.aliases) put(alias);
        }
    }
    void publish(const published_port& port, const ip_address& address) {
        for (std::uint32_t i = 0; i < port.host.count(); ++i) {
            const auto outside = nft::value::wire(static_cast<std::uint16_t>(port.host.first + i));
            const auto inside =
                nft::value::wire(static_cast<std::uint16_t>(port.container.first + i));
            const nft::value data = nft::concat(address, inside);
            if (port.on_all_addresses())
                add(tables_.inet, ruleset::publish_any(address.family()),
                    {.key = nft::concat(port.transport, outside), .data = data});
            else
                add(tables_.inet, ruleset::publish(address.family()),
                    {.key = nft::concat(port.transport, *port.address, outside), .data = data});
        }
    }

    ruleset tables_;
    std::string bridge_;
    const firewall_rules& rules_;
    std::vector<part> parts_;
};

}  // namespace kumiki::inline v0::detail
