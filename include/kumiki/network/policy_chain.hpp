// A policy as a chain of one table: its rules in order, then what holds for the rest.
//
// Only the first packets of flows come here: answers pass before. Pure. Kernel: 5.2.
#pragma once

#include <linux/netfilter/nf_tables.h>

#include <cstddef>
#include <optional>
#include <string>
#include <tuple>
#include <utility>

#include <kumiki/core/ip.hpp>
#include <kumiki/netlink/nft_action.hpp>
#include <kumiki/netlink/nft_match.hpp>
#include <kumiki/netlink/nftables.hpp>
#include <kumiki/network/denial_rules.hpp>
#include <kumiki/network/policy.hpp>

namespace kumiki::inline v0::detail {

/// One chain of a container's.
class policy_chain {
  public:
    policy_chain(const nft::table& in, std::string name) : table_(in), name_(std::move(name)) {}

    /// What the container may open: as it wrote it, before a published port was translated.
    void put_egress(nft::batch& change, const policy& rules) const {
        begin(change);
        for (const policy_rule& rule : rules.rules())
            put_egress(change, rule, &rule - rules.rules().data());
        end(change, rules);
    }
    /// Who may use its published ports: the client as it is, and the container's own port.
    void put_ingress(nft::batch& change, const policy& rules) const {
        begin(change);
        for (const policy_rule& rule : rules.rules())
            put_ingress(change, rule, &rule - rules.rules().data());
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
        change.add_rule(table_, name_, "", nft::counter{}, log(rules.otherwise(), "rest"),
                        decide(rules.otherwise()));
    }
    // "out-web" and "3": "web:out:3".
    std::optional<nft::log_to> log(access verdict, const std::string& number) const {
        if (verdict == access::allow) return std::nullopt;
        const std::size_t dash = name_.find('-');
        return log_denial(table_,
                          name_.substr(dash + 1) + ":" + name_.substr(0, dash) + ":" + number);
    }
    static nft::decide decide(access verdict) {
        return {verdict == access::allow ? nft::accept() : nft::drop()};
    }
    void put_egress(nft::batch& change, const policy_rule& rule, std::ptrdiff_t number) const {
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
        change.add_rule(table_, name_, "", peer, ports, nft::counter{},
                        log(rule.verdict, std::to_string(number)), decide(rule.verdict));
    }
    void put_ingress(nft::batch& change, const policy_rule& rule, std::ptrdiff_t number) const {
        std::optional<decltype(nft::from(cidr{}))> peer;
        if (rule.peers) peer = nft::from(*rule.peers);
        std::optional<decltype(std::tuple(nft::protocol_is(protocol::tcp),
                                          nft::load_destination_port(), nft::is_port_in({})))>
            ports;
        if (rule.ports)
            ports.emplace(nft::protocol_is(rule.ports->transport), nft::load_destination_port(),
                          nft::is_port_in(rule.ports->ports));
        change.add_rule(table_, name_, "", peer, ports, nft::counter{},
                        log(rule.verdict, std::to_string(number)), decide(rule.verdict));
    }

    nft::table table_;
    std::string name_;
};

}  // namespace kumiki::inline v0::detail
