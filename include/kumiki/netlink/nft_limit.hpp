// nftables statements that count how often: a rate of packets, and how many flows there are at once.
//
// Kernel: limit 4.3, connlimit 4.19. Left out: rates of bytes, one count for each key (dynamic sets).
#pragma once

#include <linux/netfilter/nf_tables.h>

#include <chrono>
#include <cstdint>

#include <kumiki/netlink/message.hpp>
#include <kumiki/netlink/nft_expression.hpp>

namespace kumiki::inline v0::nft {

/// Which side of a limit the rule goes on for.
enum class beyond_limit : bool { no, yes };

/// Ends the rule's evaluation unless the packets that come here are within `count` in each `every`,
/// and `burst` at once; or, with beyond_limit::yes, unless they are not.
struct limit {
    std::uint64_t count = 1;
    std::chrono::seconds every{1};
    std::uint32_t burst = 1;
    beyond_limit beyond = beyond_limit::no;

    void append(netlink_batch& rule) const {
        detail::put_nft_expression(rule, "limit", [&] {
            rule.be64(NFTA_LIMIT_RATE, count);
            rule.be64(NFTA_LIMIT_UNIT, static_cast<std::uint64_t>(every.count()));
            rule.be32(NFTA_LIMIT_BURST, burst);
            rule.be32(NFTA_LIMIT_TYPE, NFT_LIMIT_PKTS);
            rule.be32(NFTA_LIMIT_FLAGS,
                      beyond == beyond_limit::yes ? std::uint32_t{NFT_LIMIT_F_INV} : 0);
        });
    }
};

/// Ends the rule's evaluation when more than `count` of the flows whose packets came here live.
struct flow_limit {
    std::uint32_t count = 1;

    void append(netlink_batch& rule) const {
        detail::put_nft_expression(rule, "connlimit", [&] {
            rule.be32(NFTA_CONNLIMIT_COUNT, count);
            rule.be32(NFTA_CONNLIMIT_FLAGS, 0);
        });
    }
};

}  // namespace kumiki::inline v0::nft
