// The rules that all containers of a network share, as the kernel has them at one time: kept, to be
// held against what is there later.
//
// Two dumps and one for each table (nft_view.hpp). Chains that are a container's are left out: they come
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
        for (const nft::chain_view& chain : nft::list_chains(netfilter))
            if (chain.table == tables.inet.name && !container_of_chain(chain.name))
                now.chains_[name_of(chain.family, chain.name)] =
                    chain.type + " " + std::to_string(chain.hook) + " " +
                    std::to_string(chain.priority) + " " +
                    std::to_string(static_cast<std::uint32_t>(chain.policy)) + "\n";
        for (const nft::table& table : {tables.inet, tables.bridge})
            for (const nft::rule_view& rule : nft::list_rules(netfilter, table))
                if (!container_of_chain(rule.chain))
                    now.chains_[name_of(table.family, rule.chain)] += rule.expressions + "\n";
        return now;
    }

    /// The first chain of this one that is gone in `now`, or another; a chain more is nobody's to take
    /// away, and no difference.
    std::optional<std::string> first_difference(const rule_snapshot& now) const {
        for (const auto& [name, text] : chains_) {
            const auto found = now.chains_.find(name);
            if (found == now.chains_.end() || found->second != text) return name;
        }
        return std::nullopt;
    }

  private:
    static std::string name_of(nft::family family, const std::string& chain) {
        return (family == nft::family::bridge ? "bridge " : "") + chain;
    }

    std::map<std::string, std::string> chains_;
};

}  // namespace kumiki::inline v0::detail
