// The firewall of one network: containers are connected and disconnected, each in one transaction, so
// that there is never a published port without its policy, or half of a policy.
//
// nf_tables and ctnetlink; the rules stand in base_rules.hpp and container_rules.hpp. Between containers, from the outside to a
// container, and from a container to the host's own services, nothing passes but what is published and
// allowed, what siblings may open directly, and answers. The host itself can reach its containers always: it is their owner.
// Left out: the links (bridge_network.hpp), a watch over foreign changes (rule_keeper.hpp).
#pragma once

#include <linux/netlink.h>

#include <algorithm>
#include <concepts>
#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include <kumiki/core/error.hpp>
#include <kumiki/core/ip.hpp>
#include <kumiki/core/observer.hpp>
#include <kumiki/core/scope_exit.hpp>
#include <kumiki/netlink/conntrack.hpp>
#include <kumiki/netlink/kernel_parts.hpp>
#include <kumiki/netlink/nft_value.hpp>
#include <kumiki/netlink/socket.hpp>
#include <kumiki/network/end_flows.hpp>
#include <kumiki/network/firewall_rules.hpp>
#include <kumiki/network/flow_rules.hpp>
#include <kumiki/network/forbidden_flows.hpp>
#include <kumiki/network/policy.hpp>
#include <kumiki/network/publish.hpp>
#include <kumiki/network/rules_in_force.hpp>
#include <kumiki/network/ruleset.hpp>
#include <kumiki/sys/netns.hpp>

namespace kumiki::inline v0 {

/// The rules of one network in one network namespace. Move-only.
///
/// Lifetime: the rules stay when this object goes, and for other processes that opened the same network:
/// disconnect() and remove() take them away.
class firewall {
  public:
    /// Makes the network's tables, or takes over those that are there with all containers' rules,
    /// in the calling thread's network namespace.
    ///
    /// Errors: invalid_input for names and networks that cannot be; unsupported, with the
    /// modules' names, when the kernel lacks what it takes; kumiki::error EPERM without CAP_NET_ADMIN.
    static firewall open(firewall_options options) {
        detail::require_rule_name("network name", options.network);
        (void)nft::value::name(options.bridge);
        firewall opened(std::move(options), detail::open_netfilter(),
                        netlink_socket::open(NETLINK_ROUTE));
        opened.rules_.put_all();
        opened.require_flows();
        return opened;
    }
    /// As open(), in the network namespace behind `netns_fd`.
    static firewall open_in(int netns_fd, firewall_options options) {
        return sys::in_network_namespace(netns_fd, [&] { return open(std::move(options)); });
    }

    const firewall_options& options() const noexcept { return rules_.options(); }

    /// Puts all of a container's rules into force, in one transaction, and ends the flows to its
    /// published ports that were decided before.
    ///
    /// Where a foreign hand had flushed the ruleset, the rules of all that are connected come back.
    /// Its addresses and host ports must be its own (leases, port_reservation): what stands in their
    /// way is what a process left that was killed, and is replaced; but not what leads to an address
    /// of which `is_alive(address)` is true.
    /// Errors: invalid_input for rules that cannot be; EADDRINUSE with the container that has a
    /// port; kumiki::error, with nothing changed.
    template <std::predicate<const ip_address&> IsAlive>
    void connect(const firewall_rules& rules, IsAlive&& is_alive) {
        require_valid(rules, options());
        const auto were = rules_.add(rules, is_alive);
        try {
            end_forbidden_flows(were);
            end_stale_flows(rules);
        } catch (...) {
            detail::release_quietly([&] { disconnect(rules); });
            throw;
        }
    }

    /// The same where no other container of the network has its ports for sure.
    void connect(const firewall_rules& rules) { connect(rules, detail::nobody_lives); }

    /// Takes a container's rules out of force, in one transaction, and ends its flows. What is gone
    /// already is no error. Errors: kumiki::error.
    void disconnect(const firewall_rules& rules) {
        const scope_exit flows([&]() noexcept {
            detail::release_quietly(
                [&] { detail::end_all_flows(rules_.netfilter(), rules.addresses); });
        });
        take_back(rules);
    }
    /// As disconnect(), but for the flows: their end is the caller's to see to (end_flows.hpp).
    void take_back(const firewall_rules& rules) {
        require_valid(rules, options());
        end_forbidden_flows(rules_.take_back(rules));
    }

    /// Closes a container whose end has come, in one transaction: nothing leads into it any more, and
    /// it may begin nothing, though its interface is there yet. Returns the rules that are in force
    /// then, for disconnect(). What is gone already is no error. Errors: kumiki::error.
    firewall_rules close(const firewall_rules& rules) {
        firewall_rules closed = rules;
        closed.publish.clear();
        closed.ingress = closed.egress = closed.direct = deny_all();
        closed.ending = true;
        end_forbidden_flows(rules_.change(rules, closed, detail::nobody_lives));
        return closed;
    }

    /// Changes what one container publishes and its policies, in one transaction: a packet meets the
    /// old rules or the new. Flows that the new rules would not let begin are ended; others stay.
    ///
    /// Errors: invalid_input, also when they are not of the same container, port and addresses;
    /// EADDRINUSE as for connect(); kumiki::error, with the old rules still in force.
    template <std::predicate<const ip_address&> IsAlive>
    void replace(const firewall_rules& before, const firewall_rules& after, IsAlive&& is_alive) {
        require_valid(before, options());
        require_valid(after, options());
        if (before.container != after.container || before.port != after.port ||
            before.addresses != after.addresses)
            throw invalid_input("replacement of rules", after.container,
                                "The container, its port and its addresses must stay the same.");
        netlink_socket& netfilter = rules_.netfilter();
        // Those that end are known before, so that none of their packets passes once the new rules are
        // in force; and looked for again, as others may have begun meanwhile.
        const bool denies_more = detail::denies_more(before, after);
        const auto context =
            denies_more ? detail::read_flow_context(netfilter, routes_, options(), {&after})
                        : detail::flow_context{};
        const auto find_denied = [&] {
            return detail::find_flows(netfilter, before.addresses, [&](const flow& each) {
                return !detail::permits(options(), after, each, context);
            });
        };
        const auto denied = denies_more ? find_denied() : std::vector<flow>{};
        const scope_fail unmark([&]() noexcept {
            detail::release_quietly([&] { mark_flows(netfilter, denied, {}); });
        });
        mark_flows(netfilter, denied, detail::ending_mark);
        const auto were = rules_.change(before, after, is_alive);
        try {
            end_forbidden_flows(were);
            if (denies_more) delete_flows(netfilter, find_denied());
            firewall_rules added = after;
            std::erase_if(added.publish, [&](const published_port& port) {
                return std::find(before.publish.begin(), before.publish.end(), port) !=
                       before.publish.end();
            });
            end_stale_flows(added);
        } catch (...) {
            detail::release_quietly([&] { rules_.change(after, before, is_alive); });
            throw;
        }
    }
    /// The same where no other container of the network has its ports for sure.
    void replace(const firewall_rules& before, const firewall_rules& after) {
        replace(before, after, detail::nobody_lives);
    }

    /// Puts the shared rules and those of all that are connected through this object into force
    /// again, in one transaction, and ends the flows that began without them and could not under
    /// them. What is in order stays as it is. Errors: kumiki::error, with nothing changed.
    void reassert() {
        rules_.put_all();
        end_forbidden_flows(detail::rules_were::taken_away);
    }
    /// What was connected through this object and not disconnected, by the container's port.
    const std::map<std::string, firewall_rules>& connected() const noexcept {
        return rules_.containers();
    }
    /// What the kernel calls the sender of this object's changes, in what it tells of them.
    std::uint32_t sender() const { return rules_.netfilter().port_id(); }

    /// Deletes the network's tables with everything in them; for the last user of the network.
    /// That there are none is no error. Errors: kumiki::error.
    void remove() { rules_.remove(); }

  private:
    firewall(firewall_options options, netlink_socket netfilter, netlink_socket routes) noexcept
        : rules_(std::move(options), std::move(netfilter)), routes_(std::move(routes)) {}

    // Now, and not with the first container: ctnetlink may be missing.
    void require_flows() {
        try {
            (void)count_flows(rules_.netfilter());
        } catch (const error& failure) {
            if (const auto named = name_missing_parts(rules_.netfilter(), failure)) throw *named;
            throw;
        }
    }
    void end_forbidden_flows(detail::rules_were before) {
        if (before == detail::rules_were::taken_away)
            detail::end_forbidden_flows(rules_.netfilter(), routes_, options(), connected());
    }
    void end_stale_flows(const firewall_rules& rules) {
        detail::end_stale_flows(rules_.netfilter(), routes_, options(), rules);
    }

    detail::rules_in_force rules_;
    netlink_socket routes_;
};

}  // namespace kumiki::inline v0
