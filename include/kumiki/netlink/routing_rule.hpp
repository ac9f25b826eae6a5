// Routing rules over rtnetlink: which table of routes a packet is looked up in.
//
// rtnetlink(7), ip-rule(8): RTM_NEWRULE, RTM_DELRULE, RTM_GETRULE; Linux 5.10 has all of it. The
// rules of a family are looked at by priority, the lowest number first; the kernel begins with
// those of the tables local (0), main (32766) and, for IPv4, default (32767).
// Left out: rules by user, port or tunnel; goto; suppressors.
#pragma once

#include <linux/fib_rules.h>
#include <linux/rtnetlink.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include <kumiki/core/error.hpp>
#include <kumiki/core/ip.hpp>
#include <kumiki/netlink/address.hpp>
#include <kumiki/netlink/link.hpp>
#include <kumiki/netlink/mac.hpp>
#include <kumiki/netlink/message.hpp>
#include <kumiki/netlink/route.hpp>
#include <kumiki/netlink/socket.hpp>
#include <kumiki/netlink/view.hpp>

namespace kumiki::inline v0 {

/// What becomes of a packet that a rule is for.
enum class rule_action : std::uint8_t {
    look_up = FR_ACT_TO_TBL,
    drop = FR_ACT_BLACKHOLE,
    unreachable = FR_ACT_UNREACHABLE,
    prohibit = FR_ACT_PROHIBIT,
};

/// A routing rule: wanted, or as the kernel shows it. It is for the packets that all of it fits.
struct routing_rule {
    ip_family family = ip_family::v4;
    std::uint32_t priority = 0;  ///< required: two rules of one priority would be guesswork
    std::optional<cidr> from = {};  ///< none: from anywhere
    std::optional<cidr> to = {};
    std::string input = {};  ///< name of the interface that it came in by
    std::string output = {};  ///< of the one that its socket is bound to
    std::optional<std::uint32_t> mark = {};
    std::uint32_t mark_mask = 0xffffffff;
    std::uint32_t table = RT_TABLE_MAIN;  ///< which routes it is looked up in
    rule_action action = rule_action::look_up;

    bool operator==(const routing_rule&) const = default;
};

/// "rule 100 from 10.88.0.0/24 table 42".
inline std::string to_string(const routing_rule& rule) {
    std::string text = "rule " + std::to_string(rule.priority);
    if (rule.from) text += " from " + to_string(*rule.from);
    if (rule.to) text += " to " + to_string(*rule.to);
    if (!rule.input.empty()) text += " iif " + rule.input;
    if (!rule.output.empty()) text += " oif " + rule.output;
    if (rule.mark) text += " mark " + std::to_string(*rule.mark);
    return text + " table " + std::to_string(rule.table);
}

namespace detail {

inline void put_rule(netlink_batch& batch, std::uint16_t type, unsigned flags,
                     const routing_rule& rule, const char* operation) {
    if (rule.priority == 0)
        throw invalid_input("routing rule", to_string(rule), "It needs a priority.");
    fib_rule_hdr header{};
    header.family = to_kernel(rule.family);
    header.action = static_cast<std::uint8_t>(rule.action);
    const bool looks_up = rule.action == rule_action::look_up;
    header.table =
        looks_up && rule.table < 256 ? static_cast<std::uint8_t>(rule.table) : std::uint8_t{0};
    for (const auto& [network, length] :
         {std::pair(&rule.from, &header.src_len), std::pair(&rule.to, &header.dst_len)}) {
        if (!*network) continue;
        if ((*network)->address.family() != rule.family)
            throw invalid_input("routing rule", to_string(rule),
                                "It has a network of the other family.");
        *length = (*network)->prefix;
    }
    for (const std::string* name : {&rule.input, &rule.output})
        if (!name->empty()) require_link_name(*name);
    batch.add(type, flags, header, {operation, to_string(rule)});
    if (rule.from && rule.from->prefix != 0) batch.address(FRA_SRC, rule.from->network());
    if (rule.to && rule.to->prefix != 0) batch.address(FRA_DST, rule.to->network());
    if (!rule.input.empty()) batch.text(FRA_IIFNAME, rule.input);
    if (!rule.output.empty()) batch.text(FRA_OIFNAME, rule.output);
    if (rule.mark) {
        batch.u32(FRA_FWMARK, *rule.mark);
        batch.u32(FRA_FWMASK, rule.mark_mask);
    }
    batch.u32(FRA_PRIORITY, rule.priority);
    if (looks_up) batch.u32(FRA_TABLE, rule.table);
}

}  // namespace detail

/// Requests a rule. Errors: invalid_input without a priority, or with two families; EEXIST when
/// there is the same.
inline void add_rule(netlink_batch& batch, const routing_rule& rule) {
    detail::put_rule(batch, RTM_NEWRULE, detail::create_flags, rule, "add routing rule");
}

/// Requests the removal of a rule. Errors: ENOENT.
inline void delete_rule(netlink_batch& batch, const routing_rule& rule) {
    detail::put_rule(batch, RTM_DELRULE, NLM_F_ACK, rule, "delete routing rule");
}

/// An RTM_NEWRULE message as a value; nothing for rules of another kind. Errors: EBADMSG.
inline std::optional<routing_rule> parse_rule(const netlink_message& message) {
    const auto header = message.family_header<fib_rule_hdr>();
    const bool v4 = header.family == AF_INET;
    const bool known = header.action == FR_ACT_TO_TBL || header.action == FR_ACT_BLACKHOLE ||
                       header.action == FR_ACT_UNREACHABLE || header.action == FR_ACT_PROHIBIT;
    if ((!v4 && header.family != AF_INET6) || !known) return std::nullopt;
    routing_rule rule{.family = v4 ? ip_family::v4 : ip_family::v6,
                      .table = header.table,
                      .action = static_cast<rule_action>(header.action)};
    for (const netlink_attribute& part : message.attributes<fib_rule_hdr>()) {
        const auto type = part.type();
        if (type == FRA_SRC) rule.from = cidr{.address = part.address(), .prefix = header.src_len};
        if (type == FRA_DST) rule.to = cidr{.address = part.address(), .prefix = header.dst_len};
        if (type == FRA_IIFNAME) rule.input = part.text();
        if (type == FRA_OIFNAME) rule.output = part.text();
        if (type == FRA_FWMARK) rule.mark = part.u32();
        if (type == FRA_FWMASK) rule.mark_mask = part.u32();
        if (type == FRA_PRIORITY) rule.priority = part.u32();
        if (type == FRA_TABLE) rule.table = part.u32();
    }
    if (!rule.mark) rule.mark_mask = 0xffffffff;
    return rule;
}

/// The rules of one family, by priority.
inline std::vector<routing_rule> list_rules(netlink_socket& socket, ip_family family) {
    netlink_batch batch;
    fib_rule_hdr header{};
    header.family = detail::to_kernel(family);
    batch.add(RTM_GETRULE, NLM_F_DUMP, header, {"list routing rules"});
    return socket.dump(batch, parse_rule);
}

}  // namespace kumiki::inline v0
