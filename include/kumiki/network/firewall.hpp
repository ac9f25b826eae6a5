// The firewall of one network: containers are connected and disconnected, each in one transaction, so
// that there is never a published port without its policy, or half of a policy.
//
// nf_tables and ctnetlink; the rules stand in base_rules.hpp and container_rules.hpp. Between containers, from the outside to a
// container, and from a container to the host's own services, nothing passes but what is published and
// allowed, and answers. The host itself can reach its containers always: it is their owner.
// Left out: the links (bridge_network.hpp), logging, a watch over foreign changes.
#pragma once

#include <linux/netlink.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <kumiki/core/error.hpp>
#include <kumiki/core/ip.hpp>
#include <kumiki/core/observer.hpp>
#include <kumiki/netlink/address.hpp>
#include <kumiki/netlink/conntrack.hpp>
#include <kumiki/netlink/nftables.hpp>
#include <kumiki/netlink/socket.hpp>
#include <kumiki/network/base_rules.hpp>
#include <kumiki/network/container_rules.hpp>
#include <kumiki/network/end_flows.hpp>
#include <kumiki/network/flow_rules.hpp>
#include <kumiki/network/policy.hpp>
#include <kumiki/network/publish.hpp>
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
    /// Errors: invalid_input for names and networks that cannot be; unsupported when the kernel
    /// lacks nf_tables; kumiki::error EPERM without CAP_NET_ADMIN.
    static firewall open(firewall_options options) {
        detail::require_rule_name("network name", options.network);
        (void)nft::value::name(options.bridge);
        firewall opened(std::move(options), netlink_socket::open(NETLINK_NETFILTER),
                        netlink_socket::open(NETLINK_ROUTE));
        nft::batch change;
        detail::put_base_rules(change, opened.options_);
        change.commit(opened.netfilter_);
        return opened;
    }
    /// As open(), in the network namespace behind `netns_fd`.
    static firewall open_in(int netns_fd, firewall_options options) {
        return sys::in_network_namespace(netns_fd, [&] { return open(std::move(options)); });
    }

    const firewall_options& options() const noexcept { return options_; }

    /// Puts all of a container's rules into force, in one transaction, and ends the flows to its
    /// published ports that were decided before.
    ///
    /// Its addresses and host ports must be its own (leases, port_reservation): what stands in their
    /// way is what a process left that was killed, and is replaced.
    /// Errors: invalid_input for rules that cannot be; kumiki::error, with nothing changed.
    void connect(const firewall_rules& rules) {
        require_valid(rules, options_);
        const auto attempt = [&](bool with_base) {
            nft::batch change;
            if (with_base) detail::put_base_rules(change, options_);
            detail::container_rules(options_, rules).add_to(change);
            change.commit(netfilter_);
        };
        try {
            attempt(false);
        } catch (const error& failure) {
            // ENOENT: somebody flushed the whole ruleset. EEXIST: left by a killed process.
            if (failure.errno_value() != ENOENT && failure.errno_value() != EEXIST) throw;
            if (failure.errno_value() == EEXIST) delete_one_by_one(rules);
            attempt(true);
        }
        try {
            end_stale_flows(rules);
        } catch (...) {
            detail::release_quietly([&] { delete_rules(rules); });
            throw;
        }
        connected_.insert_or_assign(rules.container, rules);
    }

    /// Takes a container's rules out of force, in one transaction, and ends its flows. What is gone
    /// already is no error. Errors: kumiki::error.
    void disconnect(const firewall_rules& rules) {
        take_back(rules);
        detail::end_all_flows(netfilter_, rules.addresses);
    }
    /// As disconnect(), but for the flows: their end is the caller's to see to (end_flows.hpp).
    void take_back(const firewall_rules& rules) {
        require_valid(rules, options_);
        connected_.erase(rules.container);
        delete_rules(rules);
    }

    /// Changes what one container publishes and its policies, in one transaction: a packet meets the
    /// old rules or the new. Flows that the new rules would not let begin are ended; others stay.
    ///
    /// Errors: invalid_input, also when they are not of the same container, port and addresses;
    /// kumiki::error, with the old rules still in force.
    void replace(const firewall_rules& before, const firewall_rules& after) {
        require_valid(before, options_);
        require_valid(after, options_);
        if (before.container != after.container || before.port != after.port ||
            before.addresses != after.addresses)
            throw invalid_input("replacement of rules", after.container,
                                "The container, its port and its addresses must stay the same.");
        nft::batch change;
        detail::container_rules(options_, before).delete_from(change);
        detail::container_rules(options_, after).add_to(change);
        change.commit(netfilter_);
        connected_.insert_or_assign(after.container, after);
        if (count_flows(netfilter_) != 0) {
            const auto members = detail::members_of(connected_);
            for (const ip_address& address : before.addresses)
                detail::end_flows(netfilter_, address, [&](const flow& each) {
                    return !detail::permits(after, each, members) ||
                           (before.direct != after.direct && is_siblings(each) &&
                            !detail::permits_direct(after, each, members));
                });
        }
        end_stale_flows(after);
    }

    /// What was connected through this object and not disconnected, by the container's name.
    const std::map<std::string, firewall_rules>& connected() const noexcept { return connected_; }

    /// Deletes the network's tables with everything in them; for the last user of the network.
    /// That there are none is no error. Errors: kumiki::error.
    void remove() {
        const detail::ruleset tables(options_.network);
        nft::batch change;
        for (const nft::table& table : {tables.inet, tables.bridge}) {
            change.add_table(table);  // so that its deletion cannot fail
            change.delete_table(table);
        }
        change.commit(netfilter_);
    }

  private:
    firewall(firewall_options options, netlink_socket netfilter, netlink_socket routes) noexcept
        : options_(std::move(options)), netfilter_(std::move(netfilter)),
          routes_(std::move(routes)) {}

    void delete_rules(const firewall_rules& rules) {
        nft::batch change;
        detail::container_rules(options_, rules).delete_from(change);
        try {
            change.commit(netfilter_);
        } catch (const error& failure) {
            if (failure.errno_value() != ENOENT) throw;
            delete_one_by_one(rules);
        }
    }
    // After a foreign hand some of it may be gone, and one missing element takes a batch down. A chain
    // that another stale element leads to (EBUSY) stays; connect() gives it new rules.
    void delete_one_by_one(const firewall_rules& rules) {
        for (nft::batch& change : detail::container_rules(options_, rules).single_deletions()) {
            try {
                change.commit(netfilter_);
            } catch (const error& failure) {
                if (failure.errno_value() != ENOENT && failure.errno_value() != EBUSY) throw;
            }
        }
    }

    // From a container, and not from the host: that has the first address of each subnet.
    bool is_siblings(const flow& each) const {
        return std::any_of(options_.subnets.begin(), options_.subnets.end(),
                           [&](const cidr& subnet) {
                               return subnet.contains(each.original.source) &&
                                      each.original.source != subnet.network().plus(1);
                           });
    }

    // Translation is decided by a flow's first packet: a client that sent before the port was
    // published, or to the container that had it before, would be led astray as long as it sends.
    // Only this host's own addresses are meant: what it sends to that port elsewhere goes on. A TCP
    // client begins anew, and the kernel with it: so the walk over the table is left out for TCP.
    void end_stale_flows(const firewall_rules& rules) {
        std::optional<std::uint8_t> transport;
        bool several = false;
        for (const published_port& port : rules.publish) {
            if (port.transport == protocol::tcp) continue;
            const auto number = static_cast<std::uint8_t>(port.transport);
            several = several || (transport && *transport != number);
            transport = number;
        }
        if (!transport || count_flows(netfilter_) == 0) return;
        if (several) transport.reset();
        const auto locals = list_addresses(routes_);
        const auto is_local = [&](const ip_address& address) {
            return address.is_loopback() ||
                   std::any_of(locals.begin(), locals.end(),
                               [&](const address_info& l) { return l.address.address == address; });
        };
        const auto is_ours = [&](const ip_address& address) {
            return std::any_of(options_.subnets.begin(), options_.subnets.end(),
                               [&](const cidr& subnet) { return subnet.contains(address); });
        };
        std::vector<flow> stale;
        for (const ip_address& address : rules.addresses)
            for (flow& each :
                 list_flows(netfilter_, {.family = address.family(), .transport = transport}))
                if (each.reply.source != address && detail::published_as(rules, each) &&
                    (each.is_redirected() ? is_ours(each.reply.source)
                                          : is_local(each.original.destination)))
                    stale.push_back(std::move(each));
        delete_flows(netfilter_, stale);
    }

    firewall_options options_;
    netlink_socket netfilter_;
    netlink_socket routes_;
    std::map<std::string, firewall_rules> connected_;
};

}  // namespace kumiki::inline v0
