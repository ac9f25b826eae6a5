// What nftables rules do to a packet, as typed values that can append themselves to a rule:
// translate, decide, count, log, reject, mark.
//
// Kernel: 5.2 (nat in tables of the inet family). Left out: what kumiki has no use for (queue, tproxy,
// synproxy, dup, objects, dynamic sets).
#pragma once

#include <linux/netfilter/nf_tables.h>

#include <cstdint>
#include <optional>
#include <string>

#include <kumiki/core/ip.hpp>
#include <kumiki/netlink/message.hpp>
#include <kumiki/netlink/nft_expression.hpp>
#include <kumiki/netlink/nft_value.hpp>

namespace kumiki::inline v0::detail {

// linux/netfilter/nf_nat.h, which cannot be included before <netinet/in.h>
inline constexpr std::uint32_t nat_range_proto_specified = 2;

}  // namespace kumiki::inline v0::detail

namespace kumiki::inline v0::nft {

/// A register into what the kernel keeps with the packet (NFT_META_MARK).
struct store_meta {
    nft_meta_keys key = NFT_META_MARK;
    reg from = r(0);

    void append(netlink_batch& rule) const {
        detail::put_nft_expression(rule, "meta", [&] {
            rule.be32(NFTA_META_KEY, key);
            rule.be32(NFTA_META_SREG, static_cast<std::uint32_t>(from));
        });
    }
};

/// Translates the flow's source (NFT_NAT_SNAT) or destination (NFT_NAT_DNAT).
struct translate {
    nft_nat_types what = NFT_NAT_DNAT;
    ip_family family = ip_family::v4;
    reg address = r(0);
    std::optional<reg> port{};

    void append(netlink_batch& rule) const {
        detail::put_nft_expression(rule, "nat", [&] {
            rule.be32(NFTA_NAT_TYPE, what);
            rule.be32(NFTA_NAT_FAMILY, number_of(family));
            rule.be32(NFTA_NAT_REG_ADDR_MIN, static_cast<std::uint32_t>(address));
            if (!port) return;
            rule.be32(NFTA_NAT_REG_PROTO_MIN, static_cast<std::uint32_t>(*port));
            rule.be32(NFTA_NAT_FLAGS, detail::nat_range_proto_specified);
        });
    }
};

/// Translates the source to the address of the interface that the packet leaves by.
struct masquerade {
    void append(netlink_batch& rule) const {
        detail::put_nft_expression(rule, "masq", [] {});
    }
};

/// Ends the rule with a verdict.
struct decide {
    verdict is{};

    void append(netlink_batch& rule) const {
        detail::put_nft_expression(rule, "immediate", [&] {
            rule.be32(NFTA_IMMEDIATE_DREG, NFT_REG_VERDICT);
            detail::put_nft_verdict(rule, NFTA_IMMEDIATE_DATA, is);
        });
    }
};

/// Counts packets and bytes.
struct counter {
    void append(netlink_batch& rule) const {
        detail::put_nft_expression(rule, "counter", [] {});
    }
};

/// Sends a copy of the packet's head to a group of NFLOG.
struct log_to {
    std::uint16_t group = 0;
    std::string prefix{};

    void append(netlink_batch& rule) const {
        detail::put_nft_expression(rule, "log", [&] {
            rule.be16(NFTA_LOG_GROUP, group);
            if (!prefix.empty()) rule.text(NFTA_LOG_PREFIX, prefix);
        });
    }
};

/// Answers with "administratively prohibited", in the packet's family, and drops.
struct reject {
    void append(netlink_batch& rule) const {
        detail::put_nft_expression(rule, "reject", [&] {
            rule.be32(NFTA_REJECT_TYPE, NFT_REJECT_ICMPX_UNREACH);
            rule.u8(NFTA_REJECT_ICMP_CODE, NFT_REJECT_ICMPX_ADMIN_PROHIBITED);
        });
    }
};

}  // namespace kumiki::inline v0::nft
