// The rules that end a packet's way: in one place, so that all of them count and log alike.
//
// Each logs to the network's group of NFLOG (denials.hpp reads it): without a reader that costs one
// look-up in a hash of groups. Pure. Kernel: 5.2.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

#include <kumiki/netlink/nft_action.hpp>
#include <kumiki/netlink/nftables.hpp>

namespace kumiki::inline v0::detail {

/// The group of NFLOG of the network whose tables are called so: the same in every process, far from
/// the small numbers that people give.
constexpr std::uint16_t denial_group(std::string_view table) noexcept {
    std::uint32_t hash = 2166136261U;  // FNV-1a
    for (const char c : table) hash = (hash ^ static_cast<std::uint8_t>(c)) * 16777619U;
    return static_cast<std::uint16_t>(0x4000 + hash % 0xbfff);
}

/// The chains of what a policy without rules denies, whoever's it is.
inline constexpr const char* denied_egress = "denied-out";
inline constexpr const char* denied_ingress = "denied-in";

/// Logs under the name of a rule: "web:out:0", "web:in:rest", "base:guard:not from the network".
inline nft::log_to log_denial(const nft::table& table, std::string rule) {
    return {.group = denial_group(table.name), .prefix = std::move(rule)};
}

/// Counts, logs and drops what matches; `why` is the rule's comment, empty for none.
template <class... Matches>
void put_denial(nft::batch& change, const nft::table& table, const char* chain,
                std::string_view why, const Matches&... matches) {
    std::string rule = std::string("base:") + chain;
    if (!why.empty()) rule.append(":").append(why);
    change.add_rule(table, chain, why, matches..., nft::counter{},
                    log_denial(table, std::move(rule)), nft::decide{nft::drop()});
}

}  // namespace kumiki::inline v0::detail
