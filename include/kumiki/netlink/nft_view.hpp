// What the kernel says of nftables: events of NFNLGRP_NFTABLES, and chains, rules and elements that
// are read back.
//
// Pure but for list_*(), which are one dump each. Rules are told apart by the bytes of their
// expressions as the kernel gives them, without what counts: two that were made by the same request
// are equal. Kernel: 4.14 (the name of the process in an event).
// Left out: what an expression means, sets' types, objects, flow tables.
#pragma once

#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <kumiki/netlink/message.hpp>
#include <kumiki/netlink/nft_comment.hpp>
#include <kumiki/netlink/nft_value.hpp>
#include <kumiki/netlink/nftables.hpp>
#include <kumiki/netlink/socket.hpp>
#include <kumiki/netlink/view.hpp>

namespace kumiki::inline v0::nft {

/// Something that was changed in the ruleset, or (NFT_MSG_NEWGEN) the end of a transaction.
struct event {
    int type = 0;  ///< NFT_MSG_NEWRULE, NFT_MSG_DELTABLE ...
    nft::family family = nft::family::inet;
    std::string table{};
    std::string object{};  ///< the chain or set that it is about
    std::vector<std::string> keys{};  ///< of elements: their bytes
    std::uint32_t sender = 0;  ///< netlink_socket::port_id() of who asked for it
    std::string process{};  ///< at the end of a transaction, who made it: "nft (pid 4711)"
};

/// A table.
struct table_view {
    nft::family family = nft::family::inet;
    std::string name{};
    std::uint32_t flags = 0;  ///< NFT_TABLE_F_DORMANT: switched off
};

/// A chain; with a type when the kernel calls it.
struct chain_view {
    nft::family family = nft::family::inet;
    std::string table{};
    std::string name{};
    std::string type{};  ///< "filter", "nat", "route"; empty: others jump to it
    std::uint32_t hook = 0;
    std::int32_t priority = 0;
    nft::policy policy = nft::policy::accept;
};

/// A rule.
struct rule_view {
    std::string chain{};
    std::string expressions{};  ///< names and bytes
    std::optional<std::int32_t> verdict{};  ///< of its last expression, when that is a verdict
    std::string target{};  ///< the chain that the verdict leads to
    bool is_conditional = false;  ///< something is compared or looked up before
    std::string comment{};
};

/// An element of a set.
struct element_view {
    std::string key{};  ///< bytes
    std::string data{};  ///< bytes, of a map's element that is no verdict
    std::string comment{};
};

}  // namespace kumiki::inline v0::nft

namespace kumiki::inline v0::detail {

inline constexpr std::uint16_t nft_subsystem = NFNL_SUBSYS_NFTABLES << 8;

inline std::string nft_bytes(const netlink_attribute& from) {
    return {reinterpret_cast<const char*>(from.payload().data()), from.payload().size()};
}

inline nft::element_view parse_nft_element(const netlink_attribute& entry) {
    nft::element_view element;
    for (const netlink_attribute& part : entry.nested()) {
        if (part.type() == NFTA_SET_ELEM_KEY)
            if (const auto value = part.nested().find(NFTA_DATA_VALUE))
                element.key = nft_bytes(*value);
        if (part.type() == NFTA_SET_ELEM_DATA)
            if (const auto value = part.nested().find(NFTA_DATA_VALUE))
                element.data = nft_bytes(*value);
        if (part.type() == NFTA_SET_ELEM_USERDATA) element.comment = parse_nft_comment(part);
    }
    return element;
}

/// The elements of a message, one by one to `take`.
template <class Take>
void parse_nft_elements(const netlink_message& message, Take&& take) {
    const auto list = message.attributes<nfgenmsg>().find(NFTA_SET_ELEM_LIST_ELEMENTS);
    if (!list) return;
    for (const netlink_attribute& entry : list->nested()) take(parse_nft_element(entry));
}

/// What an "immediate" expression decides.
struct nft_verdict {
    std::optional<std::int32_t> code{};  ///< nothing: it is a value and no verdict
    std::string chain{};  ///< where a jump leads
};

/// Of the expression's data.
inline nft_verdict parse_nft_verdict(const netlink_attribute& data) {
    nft_verdict parsed;
    const auto decided = data.nested().find(NFTA_IMMEDIATE_DATA);
    const auto verdict = decided ? decided->nested().find(NFTA_DATA_VERDICT) : std::nullopt;
    if (!verdict) return parsed;
    if (const auto code = verdict->nested().find(NFTA_VERDICT_CODE))
        parsed.code = static_cast<std::int32_t>(code->be32());
    if (const auto chain = verdict->nested().find(NFTA_VERDICT_CHAIN)) parsed.chain = chain->text();
    return parsed;
}

/// All objects of a kind, of all families, each as `parse(message)` has it.
template <class Parse>
auto list_nft(netlink_socket& socket, int kind, const char* operation, Parse& parse) {
    netlink_batch request;
    request.add(static_cast<std::uint16_t>(nft_subsystem | kind), NLM_F_DUMP,
                nfgenmsg{AF_UNSPEC, NFNETLINK_V0, 0}, {operation});
    return socket.dump(request, [&](const netlink_message& m) { return std::optional(parse(m)); });
}

/// Requests all rules of a table; none when there is no such table.
inline void get_nft_rules(netlink_batch& request, const nft::table& t) {
    request.add(nft_subsystem | NFT_MSG_GETRULE, NLM_F_DUMP,
                nfgenmsg{static_cast<std::uint8_t>(t.family), NFNETLINK_V0, 0},
                {"list nftables rules", t.name});
    request.text(NFTA_RULE_TABLE, t.name);
}

}  // namespace kumiki::inline v0::detail

namespace kumiki::inline v0::nft {

/// An event from a message of NFNLGRP_NFTABLES; nothing for what is no nftables message.
/// Errors: EBADMSG.
inline std::optional<event> parse_event(const netlink_message& message) {
    if ((message.type() & 0xff00) != detail::nft_subsystem) return std::nullopt;
    event seen{.type = message.type() & 0xff,
               .family = static_cast<nft::family>(message.family_header<nfgenmsg>().nfgen_family),
               .sender = message.header.nlmsg_pid};
    // In all but NFT_MSG_NEWGEN attribute 1 is the table; 2 or 3 the chain or set.
    if (seen.type == NFT_MSG_NEWGEN) {
        std::string pid;
        for (const netlink_attribute& part : message.attributes<nfgenmsg>()) {
            if (part.type() == NFTA_GEN_PROC_PID) pid = std::to_string(part.be32());
            if (part.type() == NFTA_GEN_PROC_NAME) seen.process = part.text();
        }
        if (!pid.empty()) seen.process += " (pid " + pid + ")";
        return seen;
    }
    static_assert(int{NFTA_TABLE_NAME} == 1 && int{NFTA_CHAIN_TABLE} == 1 &&
                  int{NFTA_RULE_TABLE} == 1 && int{NFTA_SET_TABLE} == 1 &&
                  int{NFTA_SET_ELEM_LIST_TABLE} == 1);
    const bool of_chain = seen.type == NFT_MSG_NEWCHAIN || seen.type == NFT_MSG_DELCHAIN;
    const bool of_table = seen.type == NFT_MSG_NEWTABLE || seen.type == NFT_MSG_DELTABLE;
    const int named = of_chain ? int{NFTA_CHAIN_NAME} : int{NFTA_RULE_CHAIN};
    for (const netlink_attribute& part : message.attributes<nfgenmsg>()) {
        if (part.type() == NFTA_TABLE_NAME) seen.table = part.text();
        if (part.type() == named && !of_table) seen.object = part.text();
    }
    if (seen.type == NFT_MSG_NEWSETELEM || seen.type == NFT_MSG_DELSETELEM)
        detail::parse_nft_elements(
            message, [&](element_view element) { seen.keys.push_back(std::move(element.key)); });
    return seen;
}

/// Errors: EBADMSG.
inline table_view parse_table(const netlink_message& message) {
    table_view table{.family =
                         static_cast<nft::family>(message.family_header<nfgenmsg>().nfgen_family)};
    for (const netlink_attribute& part : message.attributes<nfgenmsg>()) {
        if (part.type() == NFTA_TABLE_NAME) table.name = part.text();
        if (part.type() == NFTA_TABLE_FLAGS) table.flags = part.be32();
    }
    return table;
}

/// Errors: EBADMSG.
inline chain_view parse_chain(const netlink_message& message) {
    chain_view chain{.family =
                         static_cast<nft::family>(message.family_header<nfgenmsg>().nfgen_family)};
    for (const netlink_attribute& part : message.attributes<nfgenmsg>()) {
        if (part.type() == NFTA_CHAIN_TABLE) chain.table = part.text();
        if (part.type() == NFTA_CHAIN_NAME) chain.name = part.text();
        if (part.type() == NFTA_CHAIN_TYPE) chain.type = part.text();
        if (part.type() == NFTA_CHAIN_POLICY) chain.policy = nft::policy{part.be32()};
        if (part.type() != NFTA_CHAIN_HOOK) continue;
        for (const netlink_attribute& where : part.nested()) {
            if (where.type() == NFTA_HOOK_HOOKNUM) chain.hook = where.be32();
            if (where.type() == NFTA_HOOK_PRIORITY)
                chain.priority = static_cast<std::int32_t>(where.be32());
        }
    }
    return chain;
}

/// Errors: EBADMSG.
inline rule_view parse_rule(const netlink_message& message) {
    rule_view rule;
    for (const netlink_attribute& part : message.attributes<nfgenmsg>()) {
        if (part.type() == NFTA_RULE_CHAIN) rule.chain = part.text();
        if (part.type() == NFTA_RULE_USERDATA) rule.comment = detail::parse_nft_comment(part);
        if (part.type() != NFTA_RULE_EXPRESSIONS) continue;
        for (const netlink_attribute& expression : part.nested()) {
            const auto name = expression.nested().find(NFTA_EXPR_NAME);
            const auto data = expression.nested().find(NFTA_EXPR_DATA);
            if (!name) continue;
            const std::string_view kind = name->text();
            rule.expressions.append(kind).push_back('\0');
            rule.verdict.reset();
            rule.target.clear();
            rule.is_conditional = rule.is_conditional || kind == "cmp" || kind == "lookup" ||
                                  kind == "range" || kind == "limit" || kind == "match" ||
                                  kind == "connlimit" || kind == "quota";
            if (kind == "reject") rule.verdict = static_cast<std::int32_t>(nft::policy::drop);
            if (!data || kind == "counter" || kind == "last" || kind == "quota") continue;
            rule.expressions += detail::nft_bytes(*data);
            if (kind != "immediate") continue;
            const auto decided = detail::parse_nft_verdict(*data);
            rule.verdict = decided.code;
            rule.target = decided.chain;
        }
    }
    return rule;
}

/// All tables of the socket's network namespace, of all families. Errors: kumiki::error.
inline std::vector<table_view> list_tables(netlink_socket& socket) {
    return detail::list_nft(socket, NFT_MSG_GETTABLE, "list nftables tables", parse_table);
}

/// All chains of the socket's network namespace, of all families. Errors: kumiki::error.
inline std::vector<chain_view> list_chains(netlink_socket& socket) {
    return detail::list_nft(socket, NFT_MSG_GETCHAIN, "list nftables chains", parse_chain);
}

/// The rules of a table, in their order in each chain; none when there is no such table.
/// Errors: kumiki::error.
inline std::vector<rule_view> list_rules(netlink_socket& socket, const table& t) {
    netlink_batch request;
    detail::get_nft_rules(request, t);
    return socket.dump(request,
                       [](const netlink_message& m) { return std::optional(parse_rule(m)); });
}

/// The elements of a set. Errors: kumiki::error, ENOENT when the set or its table is not there.
inline std::vector<element_view> list_elements(netlink_socket& socket, const table& t,
                                               const std::string& set) {
    netlink_batch request;
    request.add(detail::nft_subsystem | NFT_MSG_GETSETELEM, NLM_F_DUMP,
                nfgenmsg{static_cast<std::uint8_t>(t.family), NFNETLINK_V0, 0},
                {"list elements of nftables set", set});
    request.text(NFTA_SET_ELEM_LIST_TABLE, t.name);
    request.text(NFTA_SET_ELEM_LIST_SET, set);
    std::vector<element_view> all;
    (void)socket.dump(request, [&](const netlink_message& message) {
        detail::parse_nft_elements(
            message, [&](element_view element) { all.push_back(std::move(element)); });
        return std::optional<int>();
    });
    return all;
}

}  // namespace kumiki::inline v0::nft
