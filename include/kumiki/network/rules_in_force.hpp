// The rules of one network in nftables, and which containers' are among them: added, changed and taken
// back in one transaction each, so that there is never a half of them. Not for users: firewall.hpp is.
//
// What a foreign hand took away meanwhile comes back with the next change; and what a killed process
// left is replaced. Kernel: as base_rules.hpp. Left out: the flows that the kernel knows already.
#pragma once

#include <algorithm>
#include <cerrno>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include <kumiki/core/error.hpp>
#include <kumiki/core/ip.hpp>
#include <kumiki/core/observer.hpp>
#include <kumiki/netlink/kernel_parts.hpp>
#include <kumiki/netlink/nftables.hpp>
#include <kumiki/netlink/socket.hpp>
#include <kumiki/network/base_rules.hpp>
#include <kumiki/network/container_rules.hpp>
#include <kumiki/network/firewall_rules.hpp>
#include <kumiki/network/leftovers.hpp>
#include <kumiki/network/network_remains.hpp>
#include <kumiki/network/ruleset.hpp>

namespace kumiki::inline v0::detail {

/// For is_alive(address): when no other container of the network can have its ports.
inline bool nobody_lives(const ip_address&) noexcept { return false; }

/// Whether others' rules had been taken away by a foreign hand, and were put back: then flows may have
/// begun without them.
enum class rules_were : bool { in_order, taken_away };

/// One network's rules. `is_alive(address)`: true of a container's that lives, of whatever process.
class rules_in_force {
  public:
    rules_in_force(firewall_options options, netlink_socket netfilter) noexcept
        : options_(std::move(options)), netfilter_(std::move(netfilter)) {}

    const firewall_options& options() const noexcept { return options_; }
    netlink_socket& netfilter() noexcept { return netfilter_; }
    const netlink_socket& netfilter() const noexcept { return netfilter_; }
    /// What was added and not taken back, by the container's port.
    const std::map<std::string, firewall_rules>& containers() const noexcept { return containers_; }

    /// The shared rules, and those of all containers. What is in order stays as it is.
    /// Errors: unsupported with the kernel's parts that are missing; kumiki::error, with nothing changed.
    void put_all() { put_all(nullptr, nobody_lives); }

    /// Errors: EADDRINUSE with the container that has a port; kumiki::error, with nothing changed.
    template <class IsAlive>
    rules_were add(const firewall_rules& rules, IsAlive&& is_alive) {
        auto before = rules_were::in_order;
        try {
            nft::batch change;
            container_rules(options_, rules).add_to(change, nft::only_new::yes);
            change.commit(netfilter_);
        } catch (const error& failure) {
            if (failure.errno_value() == EEXIST) {
                put_anew({&rules}, is_alive);
            } else if (failure.errno_value() == ENOENT) {
                put_all(&rules, is_alive);
                before = rules_were::taken_away;
            } else {
                throw;
            }
        }
        containers_.insert_or_assign(rules.port, rules);
        return before;
    }

    /// Errors: as of add(), with the old rules in force.
    template <class IsAlive>
    rules_were change(const firewall_rules& before, const firewall_rules& after,
                      IsAlive&& is_alive) {
        const firewall_rules now = in_force(before);
        auto were = rules_were::in_order;
        try {
            nft::batch change;
            container_rules(options_, now).delete_from(change);
            container_rules(options_, after).add_to(change);
            change.commit(netfilter_);
        } catch (const error& failure) {
            // As of add(). What has no rules meanwhile is denied.
            if (failure.errno_value() != ENOENT && failure.errno_value() != EEXIST) throw;
            nft::batch refused;
            leftovers(options_, {&after}).delete_from(refused, netfilter_, is_alive);
            delete_one_by_one(now);
            try {
                put_all(&after, is_alive);
            } catch (...) {
                release_quietly([&] { put_all(); });
                throw;
            }
            were = rules_were::taken_away;
        }
        containers_.insert_or_assign(after.port, after);
        return were;
    }

    /// What is gone already is no error. Errors: kumiki::error.
    rules_were take_back(const firewall_rules& rules) {
        const firewall_rules now = in_force(rules);
        auto were = rules_were::in_order;
        try {
            nft::batch change;
            container_rules(options_, now).delete_from(change);
            change.commit(netfilter_);
        } catch (const error& failure) {
            if (failure.errno_value() != ENOENT) throw;
            delete_one_by_one(now);
            were = rules_were::taken_away;
        }
        containers_.erase(rules.port);
        if (were == rules_were::in_order || containers_.empty()) return rules_were::in_order;
        put_all();  // the others may have lost theirs
        return were;
    }

    /// Deletes the tables with all in them. That there are none is no error. Errors: kumiki::error.
    void remove() { delete_network_tables(netfilter_, options_.network); }

  private:
    // Those of the container that are known to be, when it is known; a rollback may have failed.
    const firewall_rules& in_force(const firewall_rules& rules) const {
        const auto found = containers_.find(rules.port);
        return found != containers_.end() ? found->second : rules;
    }
    // With `one`, that is new, or as it is to be.
    template <class IsAlive>
    void put_all(const firewall_rules* one, IsAlive&& is_alive) {
        std::vector<const firewall_rules*> all;
        for (const auto& [port, rules] : containers_)
            if (one == nullptr || port != one->port) all.push_back(&rules);
        if (one != nullptr) all.push_back(one);
        try {
            nft::batch change;
            put_base_rules(change, options_);
            for (const firewall_rules* each : all) container_rules(options_, *each).add_to(change);
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
            put_base_rules(change, options_);
            leftovers(options_, all).delete_from(change, netfilter_, is_alive);
            for (const firewall_rules* each : all) container_rules(options_, *each).add_to(change);
            if (change.commit(netfilter_) == nft::commit_result::done) return;
        }
        throw error(EBUSY,
                    {.operation = "put rules into force",
                     .object = all.size() == 1 ? all.front()->container : options_.network,
                     .step = {},
                     .container = {},
                     .remedy = "Somebody else changed the rules during each of 100 attempts."});
    }
    // After a foreign hand some of it may be gone, and one missing element takes a batch down. A chain
    // that another stale element leads to (EBUSY) stays; add() gives it new rules.
    void delete_one_by_one(const firewall_rules& rules) {
        for (nft::batch& change : container_rules(options_, rules).single_deletions()) {
            try {
                change.commit(netfilter_);
            } catch (const error& failure) {
                if (failure.errno_value() != ENOENT && failure.errno_value() != EBUSY) throw;
            }
        }
    }

    firewall_options options_;
    netlink_socket netfilter_;
    std::map<std::string, firewall_rules> containers_;
};

}  // namespace kumiki::inline v0::detail
