// What the rules of a network have counted, by the names that explain() and the log of denials use.
//
// One dump of each table's rules (NFT_MSG_GETRULE, Linux 3.13). A container's counts begin anew with
// each change of its rules. Left out: policies without rules, which have no rule to count by.
#pragma once

#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <kumiki/netlink/message.hpp>
#include <kumiki/netlink/nft_comment.hpp>
#include <kumiki/netlink/nft_view.hpp>
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
        if (part.type() == NFTA_RULE_USERDATA) comment = parse_nft_comment(part);
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
            if (const auto code = parse_nft_verdict(*data).code) found.denies = *code == 0;
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
        detail::get_nft_rules(request, table);
        for (rule_count& each : socket.dump(request, detail::parse_rule_count))
            all.push_back(std::move(each));
    }
    return all;
}

}  // namespace kumiki::inline v0
