// The rules of one network in its bridge: what a container's port may send, and nothing from port to
// port.
//
// Pure. Kernel: 5.2.
#pragma once

#include <linux/netfilter/nf_tables.h>

#include <cstdint>
#include <tuple>

#include <kumiki/core/ip.hpp>
#include <kumiki/netlink/nft_action.hpp>
#include <kumiki/netlink/nft_match.hpp>
#include <kumiki/netlink/nftables.hpp>
#include <kumiki/network/denial_rules.hpp>
#include <kumiki/network/ruleset.hpp>

namespace kumiki::inline v0::detail {

/// On a packet that the forward chains below let through from port to port of one bridge. Where
/// br_netfilter is on, a packet to a published port of a sibling is translated in the bridge and
/// never leaves it; the mark tells the bridge's table that it was seen. The mark of what comes from
/// a container is cleared by the kernel when it leaves the container's namespace.
inline constexpr std::uint32_t seen_mark = 0x6b756d69;

inline constexpr std::uint16_t ethertype_ipv4 = 0x0800;
inline constexpr std::uint16_t ethertype_arp = 0x0806;
inline constexpr std::uint16_t ethertype_ipv6 = 0x86dd;
inline constexpr std::uint8_t icmp_number = 1;
inline constexpr std::uint8_t icmpv6_number = 58;

/// The bridge's table: containers send from their own addresses, and to the host alone.
inline void put_bridge_rules(nft::batch& change, const nft::table& table) {
    using namespace nft;
    const auto is_type = [](std::uint16_t type) {
        return std::tuple(load_payload{payload_base::link, 12, 2},
                          compare{NFT_CMP_EQ, value::wire(type)});
    };
    const auto own = [](ip_family family, const load_payload& source) {
        return std::tuple(load_meta{NFT_META_IIFNAME, r(0)}, source,
                          lookup{.set = ruleset::sources(family).name, .from = r(0)});
    };
    const lookup is_port{.set = ruleset::ports().name, .from = r(0)};
    change.add_rule(table, "prerouting", "", load_meta{NFT_META_IIFNAME, r(0)}, is_port,
                    decide{go_to("sender")});

    change.add_rule(table, "sender", "", is_type(ethertype_ipv4),
                    own(ip_family::v4, load_address(ip_family::v4, side::source, r(4))),
                    decide{accept()});
    constexpr load_payload arp_sender{payload_base::network, 14, 4, r(4)};
    change.add_rule(table, "sender", "", is_type(ethertype_arp), own(ip_family::v4, arp_sender),
                    decide{accept()});
    // Router advertisements and redirects are not a container's to send (CVE-2020-10749).
    constexpr std::uint8_t router_advertisement = 134;
    constexpr std::uint8_t redirect = 137;
    for (const std::uint8_t type : {router_advertisement, redirect})
        put_denial(change, table, "sender", "", is_type(ethertype_ipv6),
                   icmp_type_is(icmpv6_number, type));
    change.add_rule(table, "sender", "", is_type(ethertype_ipv6),
                    own(ip_family::v6, load_address(ip_family::v6, side::source, r(4))),
                    decide{accept()});
    for (const char* const before_it_has_one : {"fe80::/10", "::"})
        change.add_rule(
            table, "sender", "", is_type(ethertype_ipv6), load_address(ip_family::v6, side::source),
            is_in(cidr::parse(before_it_has_one)), protocol_is(icmpv6_number), decide{accept()});
    put_denial(change, table, "sender", "not its own address");

    for (const nft_meta_keys end : {NFT_META_IIFNAME, NFT_META_OIFNAME})
        put_denial(change, table, "forward", "", load_meta{end, r(0)}, is_port,
                   load_meta{.key = NFT_META_MARK}, compare{NFT_CMP_NEQ, value::number(seen_mark)});
}

}  // namespace kumiki::inline v0::detail
