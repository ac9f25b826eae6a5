// What the rules of a network have counted, by the names that explain() and the log of denials use.
//
// One dump of each table's rules (NFT_MSG_GETRULE, Linux 3.13). A container's counts begin anew with
// each change of its rules. Left out: policies without rules, which have no rule to count by.
#pragma once

#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <kumiki/netlink/message.hpp>
#include <kumiki/netlink/nftables.hpp>
#include <kumiki/netlink/socket.hpp>
#include <kumiki/netlink/view.hpp>
#include <kumiki/network/ruleset.hpp>

namespace kumiki::inline v0 {

/// What one rule has counted.
struct rule_count {
    std::string rule{};  ///< "web:in:0", "base:ingress:not published"
    bool denies = false;
    std::uint64_t packets = 0;
    std::uint64_t bytes = 0;
};

namespace detail {

/// Nothing for a rule that does not count. Errors: EBADMSG.
inline std::optional<rule_count> parse_rule_count(const netlink_message& message) {
    rule_count found;
    std::string chain;
    std::string comment;
    bool counts = false;
    for (const netlink_attribute& part : message.attributes<nfgenmsg>()) {
        if (part.type() == NFTA_RULE_CHAIN) chain = part.text();
        const auto bytes = part.payload();
        // As put_nft_comment() writes it: a type, a length, and the text.
        if (part.type() == NFTA_RULE_USERDATA && bytes.size() > 2 && bytes[0] == std::byte{0}) {
            const std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
            comment = text.substr(2, text.find('\0', 2) - 2);
        }
        if (part.type() != NFTA_RULE_EXPRESSIONS) continue;
        for (const netlink_attribute& expression : part.nested()) {
            const auto name = expression.nested().find(NFTA_EXPR_NAME);
            const auto data = expression.nested().find(NFTA_EXPR_DATA);
            if (!name || !data) continue;
            if (name->text() == "counter") {
                counts = true;
                if (const auto n = data->nested().find(NFTA_COUNTER_PACKETS))
                    found.packets = n->be64();
                if (const auto n = data->nested().find(NFTA_COUNTER_BYTES)) found.bytes = n->be64();
            }
            if (name->text() != "immediate") continue;
            if (const auto decided = data->nested().find(NFTA_IMMEDIATE_DATA))
                if (const auto verdict = decided->nested().find(NFTA_DATA_VERDICT))
                    if (const auto code = verdict->nested().find(NFTA_VERDICT_CODE))
                        found.denies = code->be32() == 0;
        }
    }
    if (!counts) return std::nullopt;
    found.rule = comment.find(':') != std::string::npos
                     ? comment
                     : "base:" + chain + (comment.empty() ? "" : ":" + comment);
    return found;
}

}  // namespace detail

/// The counts of the network called so, in the socket's network namespace (NETLINK_NETFILTER), one
/// for each rule of the kernel's that counts. Errors: kumiki::error.
inline std::vector<rule_count> list_rule_counts(netlink_socket& socket,
                                                const std::string& network) {
    const detail::ruleset tables(network);
    std::vector<rule_count> all;
    for (const nft::table& table : {tables.inet, tables.bridge}) {
        netlink_batch request;
        request.add(NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_GETRULE, NLM_F_DUMP,
                    nfgenmsg{static_cast<std::uint8_t>(table.family), NFNETLINK_V0, 0},
                    {"list nftables rules", table.name});
        request.text(NFTA_RULE_TABLE, table.name);
        for (rule_count& each : socket.dump(request, detail::parse_rule_count))
            all.push_back(std::move(each));
    }
    return all;
}

}  // namespace kumiki::inline v0
