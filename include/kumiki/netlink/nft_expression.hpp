// The expressions with which nftables rules look at a packet, as typed values that can append
// themselves to a rule: load something into a register, mask it, compare it, look it up.
//
// Kernel: 4.17 at most. What rules do to a packet is in nft_action.hpp; what people write in one piece
// ("iifname eth0", "ip saddr 10.0.0.0/8") is in nft_match.hpp.
#pragma once

#include <linux/netfilter/nf_conntrack_common.h>
#include <linux/netfilter/nf_tables.h>

#include <cstdint>
#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include <kumiki/core/ip.hpp>
#include <kumiki/netlink/message.hpp>
#include <kumiki/netlink/nft_value.hpp>

namespace kumiki::inline v0::detail {

/// One expression of a rule: its name, and what `body` appends.
template <std::invocable Body>
void put_nft_expression(netlink_batch& rule, const char* name, Body&& body) {
    const auto element = rule.nested(NFTA_LIST_ELEM);
    rule.text(NFTA_EXPR_NAME, name);
    const auto data = rule.nested(NFTA_EXPR_DATA);
    body();
}

}  // namespace kumiki::inline v0::detail

namespace kumiki::inline v0::nft {

enum class payload_base : std::uint32_t {
    link = NFT_PAYLOAD_LL_HEADER,
    network = NFT_PAYLOAD_NETWORK_HEADER,
    transport = NFT_PAYLOAD_TRANSPORT_HEADER,
};

/// Bytes of the packet into a register.
struct load_payload {
    payload_base base = payload_base::network;
    std::uint32_t offset = 0;  ///< bytes from the beginning of that header
    std::uint32_t length = 0;  ///< bytes
    reg into = r(0);

    void append(netlink_batch& rule) const {
        detail::put_nft_expression(rule, "payload", [&] {
            rule.be32(NFTA_PAYLOAD_DREG, static_cast<std::uint32_t>(into));
            rule.be32(NFTA_PAYLOAD_BASE, static_cast<std::uint32_t>(base));
            rule.be32(NFTA_PAYLOAD_OFFSET, offset);
            rule.be32(NFTA_PAYLOAD_LEN, length);
        });
    }
};

/// What the kernel knows of the packet (NFT_META_IIFNAME ...) into a register.
struct load_meta {
    nft_meta_keys key = NFT_META_LEN;
    reg into = r(0);

    void append(netlink_batch& rule) const {
        detail::put_nft_expression(rule, "meta", [&] {
            rule.be32(NFTA_META_DREG, static_cast<std::uint32_t>(into));
            rule.be32(NFTA_META_KEY, key);
        });
    }
};

/// Which packets of a flow: those of who began it, or the answers.
enum class flow_direction : std::uint8_t { original, reply };

/// What connection tracking knows of the packet's flow (NFT_CT_STATE ...) into a register.
struct load_ct {
    nft_ct_keys key = NFT_CT_STATE;
    std::optional<flow_direction> direction{};  ///< for the keys that are of one direction
    reg into = r(0);

    void append(netlink_batch& rule) const {
        detail::put_nft_expression(rule, "ct", [&] {
            rule.be32(NFTA_CT_DREG, static_cast<std::uint32_t>(into));
            rule.be32(NFTA_CT_KEY, key);
            if (direction) rule.u8(NFTA_CT_DIRECTION, static_cast<std::uint8_t>(*direction));
        });
    }
};

/// What the routing table says of the packet's address (NFT_FIB_RESULT_ADDRTYPE: its RTN_* type).
struct load_fib {
    nft_fib_result result = NFT_FIB_RESULT_ADDRTYPE;
    std::uint32_t flags = NFTA_FIB_F_DADDR;  ///< NFTA_FIB_F_*: which address, seen from where
    reg into = r(0);

    void append(netlink_batch& rule) const {
        detail::put_nft_expression(rule, "fib", [&] {
            rule.be32(NFTA_FIB_DREG, static_cast<std::uint32_t>(into));
            rule.be32(NFTA_FIB_RESULT, result);
            rule.be32(NFTA_FIB_FLAGS, flags);
        });
    }
};

/// A constant into a register.
struct load_value {
    value constant{};
    reg into = r(0);

    void append(netlink_batch& rule) const {
        detail::put_nft_expression(rule, "immediate", [&] {
            rule.be32(NFTA_IMMEDIATE_DREG, static_cast<std::uint32_t>(into));
            detail::put_nft_value(rule, NFTA_IMMEDIATE_DATA, constant);
        });
    }
};

/// Ends the rule's evaluation unless the register compares so with a constant.
struct compare {
    nft_cmp_ops how = NFT_CMP_EQ;
    value with{};
    reg from = r(0);

    void append(netlink_batch& rule) const {
        detail::put_nft_expression(rule, "cmp", [&] {
            rule.be32(NFTA_CMP_SREG, static_cast<std::uint32_t>(from));
            rule.be32(NFTA_CMP_OP, how);
            detail::put_nft_value(rule, NFTA_CMP_DATA, with);
        });
    }
};

/// Ends the rule's evaluation unless the register is from `first` to `last` (in network order).
struct within {
    value first{};
    value last{};
    reg from = r(0);

    void append(netlink_batch& rule) const {
        detail::put_nft_expression(rule, "range", [&] {
            rule.be32(NFTA_RANGE_SREG, static_cast<std::uint32_t>(from));
            rule.be32(NFTA_RANGE_OP, NFT_RANGE_EQ);
            detail::put_nft_value(rule, NFTA_RANGE_FROM_DATA, first);
            detail::put_nft_value(rule, NFTA_RANGE_TO_DATA, last);
        });
    }
};

/// register = (register & mask) ^ toggled.
struct bitwise {
    value mask{};
    value toggled = value::zero(mask.size());
    reg at = r(0);

    void append(netlink_batch& rule) const {
        detail::put_nft_expression(rule, "bitwise", [&] {
            rule.be32(NFTA_BITWISE_SREG, static_cast<std::uint32_t>(at));
            rule.be32(NFTA_BITWISE_DREG, static_cast<std::uint32_t>(at));
            rule.be32(NFTA_BITWISE_LEN, static_cast<std::uint32_t>(mask.size()));
            detail::put_nft_value(rule, NFTA_BITWISE_MASK, mask);
            detail::put_nft_value(rule, NFTA_BITWISE_XOR, toggled);
        });
    }
};

/// Looks the key in `from` up in a set or map; ends the rule's evaluation when it is not there.
/// `into` takes the map's data; the verdict register, NFT_REG_VERDICT, makes it the rule's verdict.
struct lookup {
    std::string set{};
    reg from = r(0);
    std::optional<reg> into{};
    std::uint32_t flags = 0;  ///< NFT_LOOKUP_F_INV: go on when it is *not* there
    std::uint32_t set_id = 0;  ///< of a set that this batch adds, in place of its name

    void append(netlink_batch& rule) const {
        detail::put_nft_expression(rule, "lookup", [&] {
            rule.text(NFTA_LOOKUP_SET, set);
            rule.be32(NFTA_LOOKUP_SREG, static_cast<std::uint32_t>(from));
            if (into) rule.be32(NFTA_LOOKUP_DREG, static_cast<std::uint32_t>(*into));
            if (flags != 0) rule.be32(NFTA_LOOKUP_FLAGS, flags);
            if (set_id != 0) rule.be32(NFTA_LOOKUP_SET_ID, set_id);
        });
    }
};

/// Decides by a verdict map.
inline lookup decide_by(std::string map, reg key = r(0)) {
    return {.set = std::move(map), .from = key, .into = reg{NFT_REG_VERDICT}};
}

}  // namespace kumiki::inline v0::nft

namespace kumiki::inline v0::detail {

template <class Statement>
concept nft_expression = requires(const Statement& s, netlink_batch& rule) { s.append(rule); };

/// Appends a statement to the open list of a rule: an expression, or several in a tuple or vector;
/// an empty optional stands for none. (The overloads, members, see each other in any order.)
struct nft_statements {
    netlink_batch& rule;

    template <nft_expression Statement>
    void put(const Statement& statement) const {
        statement.append(rule);
    }
    template <class... Statements>
    void put(const std::tuple<Statements...>& all) const {
        std::apply([this](const auto&... each) { (this->put(each), ...); }, all);
    }
    template <class Statement>
    void put(const std::optional<Statement>& maybe) const {
        if (maybe) put(*maybe);
    }
    template <class Statement>
    void put(const std::vector<Statement>& all) const {
        for (const Statement& each : all) put(each);
    }
};

}  // namespace kumiki::inline v0::detail
