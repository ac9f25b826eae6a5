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
#include <cerrno>
#include <concepts>
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
#include <kumiki/core/scope_exit.hpp>
#include <kumiki/netlink/address.hpp>
#include <kumiki/netlink/conntrack.hpp>
#include <kumiki/netlink/kernel_parts.hpp>
#include <kumiki/netlink/nft_view.hpp>
#include <kumiki/netlink/nftables.hpp>
#include <kumiki/netlink/socket.hpp>
#include <kumiki/network/base_rules.hpp>
#include <kumiki/network/container_rules.hpp>
#include <kumiki/network/end_flows.hpp>
#include <kumiki/network/flow_rules.hpp>
#include <kumiki/network/host_view.hpp>
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
    /// Errors: invalid_input for names and networks that cannot be; unsupported, with the
    /// modules' names, when the kernel lacks what it takes; kumiki::error EPERM without CAP_NET_ADMIN.
    static firewall open(firewall_options options) {
        detail::require_rule_name("network name", options.network);
        (void)nft::value::name(options.bridge);
        firewall opened(std::move(options), detail::open_netfilter(),
                        netlink_socket::open(NETLINK_ROUTE));
        opened.put_all(nullptr, nobody_lives);
        opened.require_flows();
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
    /// Where a foreign hand had flushed the ruleset, the rules of all that are connected come back.
    /// Its addresses and host ports must be its own (leases, port_reservation): what stands in their
    /// way is what a process left that was killed, and is replaced; but not what leads to an address
    /// of which `is_alive(address)` is true.
    /// Errors: invalid_input for rules that cannot be; EADDRINUSE with the container that has a
    /// port; kumiki::error, with nothing changed.
    template <std::predicate<const ip_address&> IsAlive>
    void connect(const firewall_rules& rules, IsAlive&& is_alive) {
        require_valid(rules, options_);
        try {
            nft::batch change;
            detail::container_rules(options_, rules).add_to(change);
            change.commit(netfilter_);
        } catch (const error& failure) {
            // ENOENT: somebody flushed the whole ruleset. EEXIST: left by a killed process.
            if (failure.errno_value() != ENOENT && failure.errno_value() != EEXIST) throw;
            if (failure.errno_value() == EEXIST) put_anew({&rules}, is_alive);
            if (failure.errno_value() == ENOENT) {
                put_all(&rules, is_alive);
                end_forbidden_flows();
            }
        }
        connected_.insert_or_assign(rules.port, rules);
        try {
            end_stale_flows(rules);
        } catch (...) {
            detail::release_quietly([&] { take_back(rules); });
            throw;
        }
    }

    /// The same where no other container of the network has its ports for sure.
    void connect(const firewall_rules& rules) { connect(rules, nobody_lives); }

    /// Takes a container's rules out of force, in one transaction, and ends its flows. What is gone
    /// already is no error. Errors: kumiki::error.
    void disconnect(const firewall_rules& rules) {
        take_back(rules);
        detail::end_all_flows(netfilter_, rules.addresses);
    }
    /// As disconnect(), but for the flows: their end is the caller's to see to (end_flows.hpp).
    void take_back(const firewall_rules& rules) {
        require_valid(rules, options_);
        connected_.erase(rules.port);
        delete_rules(rules);
    }

    /// Closes a container whose end has come, in one transaction: nothing leads into it any more, and
    /// it may begin nothing, though its interface is there yet. Returns the rules that are in force
    /// then, for disconnect(). What is gone already is no error. Errors: kumiki::error.
    firewall_rules close(const firewall_rules& rules) {
        firewall_rules closed = rules;
        closed.publish.clear();
        closed.ingress = closed.egress = closed.direct = deny_all();
        closed.ending = true;
        change_rules(rules, closed, nobody_lives);
        return closed;
    }

    /// Changes what one container publishes and its policies, in one transaction: a packet meets the
    /// old rules or the new. Flows that the new rules would not let begin are ended; others stay.
    ///
    /// Errors: invalid_input, also when they are not of the same container, port and addresses;
    /// EADDRINUSE as for connect(); kumiki::error, with the old rules still in force.
    template <std::predicate<const ip_address&> IsAlive>
    void replace(const firewall_rules& before, const firewall_rules& after, IsAlive&& is_alive) {
        require_valid(before, options_);
        require_valid(after, options_);
        if (before.container != after.container || before.port != after.port ||
            before.addresses != after.addresses)
            throw invalid_input("replacement of rules", after.container,
                                "The container, its port and its addresses must stay the same.");
        // Those that end are known before, so that none of their packets passes once the new rules are
        // in force; and looked for again, as others may have begun meanwhile.
        const bool denies_more = detail::denies_more(before, after);
        const auto context = denies_more ? context_of({&after}) : detail::flow_context{};
        const auto find_denied = [&] {
            return detail::find_flows(netfilter_, before.addresses, [&](const flow& each) {
                return !detail::permits(options_, after, each, context);
            });
        };
        const auto denied = denies_more ? find_denied() : std::vector<flow>{};
        const scope_fail unmark([&]() noexcept {
            detail::release_quietly([&] { mark_flows(netfilter_, denied, {}); });
        });
        mark_flows(netfilter_, denied, detail::ending_mark);
        change_rules(before, after, is_alive);
        try {
            if (denies_more) delete_flows(netfilter_, find_denied());
            firewall_rules added = after;
            std::erase_if(added.publish, [&](const published_port& port) {
                return std::find(before.publish.begin(), before.publish.end(), port) !=
                       before.publish.end();
            });
            end_stale_flows(added);
        } catch (...) {
            detail::release_quietly([&] { change_rules(after, before, is_alive); });
            throw;
        }
    }
    /// The same where no other container of the network has its ports for sure.
    void replace(const firewall_rules& before, const firewall_rules& after) {
        replace(before, after, nobody_lives);
    }

    /// Puts the shared rules and those of all that are connected through this object into force
    /// again, in one transaction, and ends the flows that began without them and could not under
    /// them. What is in order stays as it is. Errors: kumiki::error, with nothing changed.
    void reassert() {
        put_all(nullptr, nobody_lives);
        end_forbidden_flows();
    }
    /// What was connected through this object and not disconnected, by the container's port.
    const std::map<std::string, firewall_rules>& connected() const noexcept { return connected_; }
    /// What the kernel calls the sender of this object's changes, in what it tells of them.
    std::uint32_t sender() const { return netfilter_.port_id(); }

    /// Deletes the network's tables with everything in them; for the last user of the network.
    /// That there are none is no error. Errors: kumiki::error.
    void remove() {
        const detail::ruleset tables(options_.network);
        nft::batch change;
        for (const nft::table& table : {tables.inet, tables.bridge}) {
            change.add_table(table, {}, detail::owner_of(options_));  // so that it can be deleted
            change.delete_table(table);
        }
        change.commit(netfilter_);
    }

  private:
    firewall(firewall_options options, netlink_socket netfilter, netlink_socket routes) noexcept
        : options_(std::move(options)), netfilter_(std::move(netfilter)),
          routes_(std::move(routes)) {}

    // What the rules of `all` ask for beside the flows. Names that a foreign hand took away are
    // nobody's until their process puts them back.
    detail::flow_context context_of(const std::vector<const firewall_rules*>& all) {
        detail::flow_context context;
        const auto any = [&](auto&& is_meant) {
            return std::any_of(all.begin(), all.end(), [&](const firewall_rules* each) {
                return detail::any_rule(*each, is_meant);
            });
        };
        if (any([](const policy_rule& rule) { return !rule.options.interface.empty(); }))
            context.host = detail::read_host_view(routes_);
        if (any([](const policy_rule& rule) { return rule.peers.member_key().has_value(); }))
            read_members(context.members);
        return context;
    }
    void read_members(detail::memberships& into) {
        const nft::table table = detail::ruleset(options_.network).inet;
        for (const ip_family family : detail::both_families)
            for (const nft::element_view& each :
                 nft::list_elements(netfilter_, table, detail::ruleset::members(family).name))
                if (const auto member = detail::ruleset::member_of(each.key))
                    into.add(member->first, member->second);
    }
    static bool nobody_lives(const ip_address&) { return false; }

    // Now, and not with the first container: ctnetlink may be missing.
    void require_flows() {
        try {
            (void)count_flows(netfilter_);
        } catch (const error& failure) {
            if (const auto named = name_missing_parts(netfilter_, failure)) throw *named;
            throw;
        }
    }
    // The shared rules and those of all that are connected; with `one` as it is to be.
    template <class IsAlive>
    void put_all(const firewall_rules* one, IsAlive&& is_alive) {
        std::vector<const firewall_rules*> all;
        for (const auto& [port, rules] : connected_)
            if (one == nullptr || port != one->port) all.push_back(&rules);
        if (one != nullptr) all.push_back(one);
        try {
            nft::batch change;
            detail::put_base_rules(change, options_);
            for (const firewall_rules* each : all)
                detail::container_rules(options_, *each).add_to(change);
            change.commit(netfilter_);
        } catch (const error& failure) {
            // The batch makes all that it speaks of: what is not there is a part of the kernel.
            if (failure.errno_value() == ENOENT || failure.errno_value() == EOPNOTSUPP)
                if (const auto named = name_missing_parts(netfilter_, failure)) throw *named;
            if (failure.errno_value() != EEXIST) throw;
            put_anew(all, is_alive);
        }
    }
    // In place of what is there, which is looked at first: nobody may change anything in between.
    template <class IsAlive>
    void put_anew(const std::vector<const firewall_rules*>& all, IsAlive&& is_alive) {
        for (int attempt = 0; attempt < 100; ++attempt) {
            nft::batch change;
            change.require_generation(nft::generation(netfilter_));
            detail::put_base_rules(change, options_);
            for (const firewall_rules* each : all) {
                const detail::container_rules own(options_, *each);
                own.delete_stale(change, netfilter_, is_alive);
                own.add_to(change);
            }
            if (change.commit(netfilter_) == nft::commit_result::done) return;
        }
        throw error(EBUSY,
                    {.operation = "put rules into force",
                     .object = all.size() == 1 ? all.front()->container : options_.network,
                     .step = {},
                     .container = {},
                     .remedy = "Somebody else changed the rules during each of 100 attempts."});
    }

    template <class IsAlive>
    void change_rules(const firewall_rules& before, const firewall_rules& after,
                      IsAlive&& is_alive) {
        const detail::container_rules next(options_, after);
        try {
            nft::batch change;
            detail::container_rules(options_, before).delete_from(change);
            next.add_to(change);
            change.commit(netfilter_);
        } catch (const error& failure) {
            // As for connect(). What has no rules meanwhile is denied.
            if (failure.errno_value() != ENOENT && failure.errno_value() != EEXIST) throw;
            nft::batch refused;
            next.delete_stale(refused, netfilter_, is_alive);
            delete_one_by_one(before);
            put_all(&after, is_alive);
            connected_.insert_or_assign(after.port, after);
            end_forbidden_flows();
        }
        connected_.insert_or_assign(after.port, after);
    }
    // A flow that began while there were no rules would go on as an answer does.
    void end_forbidden_flows() {
        if (connected_.empty() || count_flows(netfilter_) == 0) return;
        std::vector<std::pair<ip_address, const firewall_rules*>> owners;
        std::vector<const firewall_rules*> all;
        for (const auto& [port, rules] : connected_) {
            all.push_back(&rules);
            for (const ip_address& address : rules.addresses) owners.emplace_back(address, &rules);
        }
        std::sort(owners.begin(), owners.end());
        const auto context = context_of(all);
        const auto forbids = [&](const ip_address& address, const flow& each) {
            const auto owner = std::lower_bound(
                owners.begin(), owners.end(), address,
                [](const auto& entry, const ip_address& wanted) { return entry.first < wanted; });
            return owner != owners.end() && owner->first == address &&
                   !detail::permits(options_, *owner->second, each, context);
        };
        std::vector<flow> found;
        for (const ip_family family : detail::both_families)
            for (flow& each : list_flows(netfilter_, {.family = family}))
                if (forbids(each.original.source, each) || forbids(each.reply.source, each))
                    found.push_back(std::move(each));
        delete_flows(netfilter_, found);
    }

    void delete_rules(const firewall_rules& rules) {
        nft::batch change;
        detail::container_rules(options_, rules).delete_from(change);
        try {
            change.commit(netfilter_);
        } catch (const error& failure) {
            if (failure.errno_value() != ENOENT) throw;
            delete_one_by_one(rules);
            if (!connected_.empty()) reassert();  // the others may have lost theirs
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
