// The rules that all containers of a network share, as the kernel has them at one time, and whether they
// are in force: kept, to be held against what is there later.
//
// Three dumps and one for each table (nft_view.hpp). Chains that are a container's are left out: they come
// and go. What a rule has counted makes no difference. Kernel: as nft_view.hpp.
// Left out: sets and their elements, which events tell of one by one.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>

#include <kumiki/netlink/nft_value.hpp>
#include <kumiki/netlink/nft_view.hpp>
#include <kumiki/netlink/nftables.hpp>
#include <kumiki/netlink/socket.hpp>
#include <kumiki/network/policy_chain.hpp>
#include <kumiki/network/ruleset.hpp>

namespace kumiki::inline v0::detail {

/// The chains of a network's tables, with their rules, each as one text.
class rule_snapshot {
  public:
    /// What is there now. Errors: kumiki::error.
    static rule_snapshot read(netlink_socket& netfilter, const ruleset& tables) {
        rule_snapshot now;
        for (const nft::table_view& table : nft::list_tables(netfilter))
            if (table.name == tables.inet.name)
                now.parts_["table " + name_of(table.family, table.name)] =
                    std::to_string(table.flags);
        for (const nft::chain_view& chain : nft::list_chains(netfilter))
            if (chain.table == tables.inet.name && !container_of_chain(chain.name))
                now.parts_[chain_name(chain.family, chain.name)] =
                    chain.type + " " + std::to_string(chain.hook) + " " +
                    std::to_string(chain.priority) + " " +
                    std::to_string(static_cast<std::uint32_t>(chain.policy)) + "\n";
        for (const nft::table& table : {tables.inet, tables.bridge})
            for (const nft::rule_view& rule : nft::list_rules(netfilter, table))
                if (!container_of_chain(rule.chain))
                    now.parts_[chain_name(table.family, rule.chain)] += rule.expressions + "\n";
        return now;
    }

    bool has_chain(const std::string& name) const {
        return parts_.contains(chain_name(nft::family::inet, name));
    }
    /// Takes one chain over as it is in `now`.
    void learn_chain(const std::string& name, const rule_snapshot& now) {
        const auto found = now.parts_.find(chain_name(nft::family::inet, name));
        if (found != now.parts_.end()) parts_.insert_or_assign(found->first, found->second);
    }

    /// The first part of this one that is gone in `now`, or another: "chain egress"; a chain more is
    /// nobody's to take away, and no difference.
    std::optional<std::string> first_difference(const rule_snapshot& now) const {
        for (const auto& [name, text] : parts_) {
            const auto found = now.parts_.find(name);
            if (found == now.parts_.end() || found->second != text) return name;
        }
        return std::nullopt;
    }

  private:
    static std::string chain_name(nft::family family, const std::string& chain) {
        return "chain " + name_of(family, chain);
    }
    static std::string name_of(nft::family family, const std::string& chain) {
        return (family == nft::family::bridge ? "bridge " : "") + chain;
    }

    std::map<std::string, std::string> parts_;
};

}  // namespace kumiki::inline v0::detail
