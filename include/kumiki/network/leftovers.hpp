// What is left in a network's tables of a process that was killed and stands in the way of containers:
// under their keys, or under their addresses and ports, which they have leased.
//
// A container that comes to a dead one's address must get nothing of what was that one's: no published
// port, no label, no direct way in. Kernel: as nft_view.hpp.
#pragma once

#include <cerrno>
#include <functional>
#include <map>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include <kumiki/core/error.hpp>
#include <kumiki/core/ip.hpp>
#include <kumiki/netlink/nft_set.hpp>
#include <kumiki/netlink/nft_value.hpp>
#include <kumiki/netlink/nft_view.hpp>
#include <kumiki/netlink/nftables.hpp>
#include <kumiki/netlink/socket.hpp>
#include <kumiki/network/container_rules.hpp>
#include <kumiki/network/firewall_rules.hpp>
#include <kumiki/network/owned_elements.hpp>
#include <kumiki/network/policy_chain.hpp>
#include <kumiki/network/ruleset.hpp>

namespace kumiki::inline v0::detail {

/// Deletes leftovers from `change` on; then the rules of the containers `all` can be added. What
/// `is_alive(address)` says to be of a container that lives, and is none of them, is not touched.
class leftovers {
  public:
    leftovers(const firewall_options& options, const std::vector<const firewall_rules*>& all)
        : tables_(options.network) {
        for (const firewall_rules* each : all) {
            owners_.addresses.insert(each->addresses.begin(), each->addresses.end());
            owners_.ports.emplace(nft::value::name(each->port).view());
            const container_rules own(options, *each);
            for (const auto& part : own.parts())
                for (const nft::element& element : part.elements)
                    wanted_[part.set.name].emplace(element.key.view(), each);
            for (const std::string& chain : own.chains()) chains_.emplace(chain, each);
        }
    }

    /// Errors: EADDRINUSE and EEXIST with the living container that has a port or the name;
    /// kumiki::error.
    template <class IsAlive>
    void delete_from(nft::batch& change, netlink_socket& netfilter, IsAlive&& is_alive) const {
        std::map<std::string, ip_address> alive;  // by name: others that live
        for (const owned_set& in : owned_sets(tables_)) {
            std::vector<nft::element> doomed;
            for (const nft::element_view& each : elements_of(netfilter, in)) {
                const auto address = address_in(in, each);
                const bool is_own = owners_.own(in, each);
                if (!is_own && in.set.name == ruleset::egress(in.family).name && is_alive(*address))
                    alive.emplace(each.comment, *address);
                const firewall_rules* const stands_before = find(in.set.name, each.key);
                if (!is_own && stands_before != nullptr && in.place == owner_place::data &&
                    is_alive(*address))
                    throw error(EADDRINUSE, {.operation = "publish ports of container",
                                             .object = stands_before->container,
                                             .step = {},
                                             .container = {},
                                             .remedy = "Container " + each.comment + " at " +
                                                       to_string(*address) + " has one of them."});
                if (is_own || stands_before != nullptr)
                    doomed.push_back({.key = nft::value::of_bytes(each.key)});
            }
            change.delete_elements(in.table, in.set, doomed);
        }
        for (const nft::chain_view& chain : nft::list_chains(netfilter)) {
            const auto own = chains_.find(chain.name);
            if (chain.table != tables_.inet.name || own == chains_.end()) continue;
            const auto other = alive.find(own->second->container);
            if (other != alive.end())
                throw error(EEXIST, {.operation = "put rules into force of container",
                                     .object = own->second->container,
                                     .step = {},
                                     .container = {},
                                     .remedy = "A container of this name is in the network "
                                               "already, at " +
                                               to_string(other->second) + "."});
        }
    }

  private:
    using by_text = std::map<std::string, const firewall_rules*, std::less<>>;

    // Of them the one that will have this key.
    const firewall_rules* find(const std::string& set, std::string_view key) const {
        const auto keys = wanted_.find(set);
        if (keys == wanted_.end()) return nullptr;
        const auto found = keys->second.find(key);
        return found != keys->second.end() ? found->second : nullptr;
    }

    ruleset tables_;
    element_owners owners_;
    std::map<std::string, by_text> wanted_;  // by the set's name: the keys
    by_text chains_;
};

}  // namespace kumiki::inline v0::detail
