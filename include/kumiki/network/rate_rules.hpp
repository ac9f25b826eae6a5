// The shared rules by which packets find the rates of their containers' policies.
//
// Packets of flows that have an answer do not come to the policies. So that nobody pays for rates but
// where somebody has some, these are no part of the base rules: they come with the first container that
// has any, and stay. Pure. Kernel: 5.2.
#pragma once

#include <linux/netfilter/nf_tables.h>

#include <algorithm>
#include <string>
#include <tuple>

#include <kumiki/core/ip.hpp>
#include <kumiki/netlink/nft_action.hpp>
#include <kumiki/netlink/nft_expression.hpp>
#include <kumiki/netlink/nft_match.hpp>
#include <kumiki/netlink/nft_set.hpp>
#include <kumiki/netlink/nft_value.hpp>
#include <kumiki/netlink/nftables.hpp>
#include <kumiki/network/policy.hpp>
#include <kumiki/network/ruleset.hpp>

namespace kumiki::inline v0::detail {

/// Its chain's name.
inline constexpr const char* rates_chain = "rates";

/// True when one of the policy's rules has a rate of packets.
inline bool has_rates(const policy& rules) {
    return std::any_of(rules.rules().begin(), rules.rules().end(),
                       [](const policy_rule& each) { return each.options.packets; });
}

/// The chain and its maps, which lead from a container's address to its rates.
inline void put_shared_rates(nft::batch& change, const ruleset& tables, const std::string& bridge) {
    using namespace nft;
    change.add_chain(tables.inet, rates_chain, hook{"filter", hook_point::forward, -1});
    change.flush_chain(tables.inet, rates_chain);
    const auto begun_by_sender =
        std::tuple(load_ct{.key = NFT_CT_DIRECTION}, compare{NFT_CMP_EQ, value::byte(0)});
    for (const ip_family family : both_families) {
        const nft::set from = ruleset::rates_out(family);
        const nft::set into = ruleset::rates_in(family);
        change.add_set(tables.inet, from);
        change.add_set(tables.inet, into);
        change.add_rule(tables.inet, rates_chain, "", input_is(bridge), begun_by_sender,
                        family_is(family), load_address(family, side::source),
                        decide_by(from.name));
        change.add_rule(tables.inet, rates_chain, "", output_is(bridge), begun_by_sender,
                        family_is(family), load_address(family, side::destination),
                        decide_by(into.name));
    }
}

}  // namespace kumiki::inline v0::detail
