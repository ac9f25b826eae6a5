// What one container adds to its network's rules: elements of the shared sets and maps, and chains
// where a policy has rules of its own.
//
// Pure. All of it is derived from firewall_rules, so that what was added can be deleted exactly, by
// another process, too. A published range is one element for each port: a hash finds it at once, where
// a range would have to be searched, and its offset computed.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include <kumiki/core/error.hpp>
#include <kumiki/core/ip.hpp>
#include <kumiki/netlink/nft_action.hpp>
#include <kumiki/netlink/nft_match.hpp>
#include <kumiki/netlink/nftables.hpp>
#include <kumiki/network/policy.hpp>
#include <kumiki/network/policy_chain.hpp>
#include <kumiki/network/policy_peers.hpp>
#include <kumiki/network/publish.hpp>
#include <kumiki/network/ruleset.hpp>

namespace kumiki::inline v0 {

/// What a firewall enforces for one container.
struct firewall_rules {
    std::string container{};  ///< its name in the network; as for firewall_options::network
    std::string port{};  ///< the bridge's port to it; need not exist yet
    std::vector<ip_address> addresses{};  ///< its own: one of a family at most
    std::vector<published_port> publish{};  ///< with picked ports filled in (port_reservation)
    policy ingress = allow_all();  ///< who may use the published ports
    policy egress = allow_all();  ///< what it may open; denied is also a ping to the host
    policy direct = deny_all();  ///< who of the network may reach it by its own address
    std::vector<std::string> labels{};  ///< that rules of others may name
};

/// Errors: invalid_input that names what cannot be.
inline void require_valid(const firewall_rules& rules, const firewall_options& options) {
    detail::require_rule_name("container name", rules.container);
    for (const std::string& each : rules.labels) detail::require_rule_name("label", each);
    (void)nft::value::name(rules.port);
    if (rules.addresses.empty())
        throw invalid_input("container", rules.container, "It has no address.");
    for (std::size_t i = 0; i < rules.addresses.size(); ++i) {
        const ip_address& address = rules.addresses[i];
        bool inside = false;
        for (const cidr& subnet : options.subnets) inside = inside || subnet.contains(address);
        if (!inside)
            throw invalid_input("container's address", to_string(address),
                                "It is in none of the subnets of network " + options.network + ".");
        for (std::size_t j = 0; j < i; ++j)
            if (rules.addresses[j].family() == address.family())
                throw invalid_input("container's address", to_string(address),
                                    "It has another one of the same family.");
    }
    for (const published_port& port : rules.publish) {
        require_valid(port);
        bool covered = false;
        for (const ip_address& address : rules.addresses)
            covered = covered || port.covers(address.family());
        if (port.picks_port() || !covered)
            throw invalid_input("published port", to_string(port),
                                port.picks_port() ? "Its host port is not reserved yet."
                                                  : "The container has no address of its family.");
    }
}

namespace detail {

/// What memberships calls a container: by its name, and by each of its labels.
inline std::vector<std::string> member_keys(const firewall_rules& rules) {
    std::vector<std::string> keys{memberships::key(container_name{rules.container})};
    for (const std::string& each : rules.labels) {
        std::string key = memberships::key(label{each});
        if (std::find(keys.begin(), keys.end(), key) == keys.end()) keys.push_back(std::move(key));
    }
    return keys;
}

inline void add_members(memberships& into, const firewall_rules& rules) {
    for (const ip_address& address : rules.addresses) {
        into.add(container_name{rules.container}, address);
        for (const std::string& each : rules.labels) into.add(label{each}, address);
    }
}
/// Of all containers in a map by name.
template <class Containers>
memberships members_of(const Containers& containers) {
    memberships all;
    for (const auto& [name, rules] : containers) add_members(all, rules);
    return all;
}

/// One container's part of the rules. `options` and `rules` must outlive it.
class container_rules {
  public:
    container_rules(const firewall_options& options, const firewall_rules& rules)
        : tables_(options.network), bridge_(options.bridge), rules_(rules) {
        for (const ip_address& address : rules.addresses) {
            const ip_family family = address.family();
            const nft::value port = nft::value::name(rules.port);
            add(tables_.bridge, ruleset::sources(family), {.key = nft::concat(port, address)});
            add(tables_.inet, ruleset::egress(family),
                {.key = address, .data = verdict_of(rules.egress, egress_chain())});
            add(tables_.inet, ruleset::ingress(family),
                {.key = address, .data = verdict_of(rules.ingress, ingress_chain())});
            if (has_rates(rules.egress))
                add(tables_.inet, ruleset::rates_out(family),
                    {.key = address, .data = nft::jump(egress_rates())});
            if (has_rates(rules.ingress) || has_rates(rules.direct))
                add(tables_.inet, ruleset::rates_in(family),
                    {.key = address, .data = nft::jump(ingress_rates())});
            if (rules.direct != deny_all())
                add(tables_.inet, ruleset::direct(family),
                    {.key = address, .data = verdict_of(rules.direct, direct_chain())});
            for (const published_port& each : rules.publish)
                if (each.covers(family)) publish(each, address);
            for (const std::string& key : member_keys(rules))
                add(tables_.inet, ruleset::members(family),
                    {.key = nft::concat(ruleset::member(key), address)});
        }
        add(tables_.bridge, ruleset::ports(), {.key = nft::value::name(rules.port)});
    }

    void add_to(nft::batch& change) const {
        const policy_chain out(tables_.inet, egress_chain());
        if (!rules_.egress.rules().empty()) out.put_egress(change, rules_.egress);
        const policy_chain in(tables_.inet, ingress_chain());
        if (!rules_.ingress.rules().empty()) in.put_ingress(change, rules_.ingress);
        const policy_chain direct(tables_.inet, direct_chain());
        if (!rules_.direct.rules().empty()) direct.put_ingress(change, rules_.direct);
        put_rates(change);
        for (const part& each : parts_) change.add_elements(each.table, each.set, each.elements);
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

  private:
    struct part {
        nft::table table{};
        nft::set set{};
        std::vector<nft::element> elements{};
    };

    std::string egress_chain() const { return "out-" + rules_.container; }
    std::string ingress_chain() const { return "in-" + rules_.container; }
    std::string direct_chain() const { return "direct-" + rules_.container; }
    std::string egress_rates() const { return "rateout-" + rules_.container; }
    std::string ingress_rates() const { return "ratein-" + rules_.container; }
    static bool has_rates(const policy& rules) {
        return std::any_of(rules.rules().begin(), rules.rules().end(),
                           [](const policy_rule& each) { return each.options.packets; });
    }
    // Packets of flows that have an answer do not come to the policies. So that nobody pays for rates
    // but where somebody has some, their chain is no part of the base rules.
    void put_rates(nft::batch& change) const {
        const bool out = has_rates(rules_.egress);
        const bool in = has_rates(rules_.ingress) || has_rates(rules_.direct);
        if (!out && !in) return;
        using namespace nft;
        change.add_chain(tables_.inet, "rates", hook{"filter", hook_point::forward, -1});
        change.flush_chain(tables_.inet, "rates");
        const auto begun_by_sender =
            std::tuple(load_ct{.key = NFT_CT_DIRECTION}, compare{NFT_CMP_EQ, value::byte(0)});
        for (const ip_family family : both_families) {
            const nft::set from = ruleset::rates_out(family);
            const nft::set into = ruleset::rates_in(family);
            change.add_set(tables_.inet, from);
            change.add_set(tables_.inet, into);
            change.add_rule(tables_.inet, "rates", "", input_is(bridge_), begun_by_sender,
                            family_is(family), load_address(family, side::source),
                            decide_by(from.name));
            change.add_rule(tables_.inet, "rates", "", output_is(bridge_), begun_by_sender,
                            family_is(family), load_address(family, side::destination),
                            decide_by(into.name));
        }
        if (out) policy_chain(tables_.inet, egress_rates()).put_egress_rates(change, rules_.egress);
        if (in)
            policy_chain(tables_.inet, ingress_rates())
                .put_ingress_rates(change, rules_.ingress, rules_.direct);
    }
    std::vector<std::string> chains() const {
        std::vector<std::string> all;
        if (!rules_.egress.rules().empty()) all.push_back(egress_chain());
        if (!rules_.ingress.rules().empty()) all.push_back(ingress_chain());
        if (!rules_.direct.rules().empty()) all.push_back(direct_chain());
        if (has_rates(rules_.egress)) all.push_back(egress_rates());
        if (has_rates(rules_.ingress) || has_rates(rules_.direct)) all.push_back(ingress_rates());
        return all;
    }
    // A policy without rules is a verdict in the map. (Each chain more is looked at by the kernel at
    // each change that adds one: it searches for loops.)
    static nft::verdict verdict_of(const policy& rules, std::string chain) {
        if (!rules.rules().empty()) return nft::go_to(std::move(chain));
        return rules.otherwise() == access::allow ? nft::accept() : nft::drop();
    }
    void add(const nft::table& table, const nft::set& set, nft::element element) {
        element.comment = rules_.container;
        if (parts_.empty() || parts_.back().set.name != set.name)
            parts_.push_back({.table = table, .set = set});
        parts_.back().elements.push_back(std::move(element));
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

}  // namespace detail
}  // namespace kumiki::inline v0
