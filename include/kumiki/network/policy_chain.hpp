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

#include <kumiki/core/ip.hpp>
#include <kumiki/netlink/nft_action.hpp>
#include <kumiki/netlink/nft_match.hpp>
#include <kumiki/netlink/nftables.hpp>
#include <kumiki/network/policy.hpp>

namespace kumiki::inline v0::detail {

/// One chain of a container's.
class policy_chain {
  public:
    policy_chain(const nft::table& in, std::string name) : table_(in), name_(std::move(name)) {}

    /// What the container may open: as it wrote it, before a published port was translated.
    void put_egress(nft::batch& change, const policy& rules) const {
        begin(change);
        for (std::size_t i = 0; i < rules.rules().size(); ++i)
            put_egress(change, rules.rules()[i], name_of(i));
        end(change, rules);
    }
    /// Who may use its published ports: the client as it is, and the container's own port.
    void put_ingress(nft::batch& change, const policy& rules) const {
        begin(change);
        for (std::size_t i = 0; i < rules.rules().size(); ++i)
            put_ingress(change, rules.rules()[i], name_of(i));
        end(change, rules);
    }
    void delete_from(nft::batch& change) const {
        change.flush_chain(table_, name_);
        change.delete_chain(table_, name_);
    }

  private:
    void begin(nft::batch& change) const {
        change.add_chain(table_, name_);
        change.flush_chain(table_, name_);
    }
    void end(nft::batch& change, const policy& rules) const {
        change.add_rule(table_, name_, name_of({}), nft::counter{}, decide(rules.otherwise()));
    }
    // Of the chain "out-web": "web:out:0".
    std::string name_of(std::optional<std::size_t> rule) const {
        const std::string_view name = name_;
        const auto dash = name.find('-');
        return rule_name(name.substr(dash + 1), name.substr(0, dash), rule);
    }
    static nft::decide decide(access verdict) {
        return {verdict == access::allow ? nft::accept() : nft::drop()};
    }
    void put_egress(nft::batch& change, const policy_rule& rule, const std::string& called) const {
        std::optional<decltype(std::tuple(nft::family_is({}), nft::load_ct{}, nft::is_in({})))>
            peer;
        if (rule.peers) {
            const ip_family family = rule.peers->address.family();
            peer.emplace(nft::family_is(family), nft::load_original_destination(family),
                         nft::is_in(*rule.peers));
        }
        std::optional<decltype(std::tuple(nft::protocol_is(protocol::tcp), nft::load_ct{},
                                          nft::is_port_in({})))>
            ports;
        if (rule.ports)
            ports.emplace(nft::protocol_is(rule.ports->transport),
                          nft::load_ct{NFT_CT_PROTO_DST, nft::flow_direction::original},
                          nft::is_port_in(rule.ports->ports));
        change.add_rule(table_, name_, called, peer, ports, nft::counter{}, decide(rule.verdict));
    }
    void put_ingress(nft::batch& change, const policy_rule& rule, const std::string& called) const {
        std::optional<decltype(nft::from(cidr{}))> peer;
        if (rule.peers) peer = nft::from(*rule.peers);
        std::optional<decltype(std::tuple(nft::protocol_is(protocol::tcp),
                                          nft::load_destination_port(), nft::is_port_in({})))>
            ports;
        if (rule.ports)
            ports.emplace(nft::protocol_is(rule.ports->transport), nft::load_destination_port(),
                          nft::is_port_in(rule.ports->ports));
        change.add_rule(table_, name_, called, peer, ports, nft::counter{}, decide(rule.verdict));
    }

    nft::table table_;
    std::string name_;
};

}  // namespace kumiki::inline v0::detail
