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

/// A frame of an EtherType.
inline auto ethertype_is(std::uint16_t type) {
    return std::tuple(nft::load_payload{nft::payload_base::link, 12, 2},
                      nft::compare{NFT_CMP_EQ, nft::value::wire(type)});
}
// Registers of the look-up: 0 to 3 the port, 4 and 5 the Ethernet address, from 6 on the IP address.
inline nft::lookup look_up_sender(ip_family family) {
    return {.set = ruleset::sources(family).name, .from = nft::r(0)};
}
/// The port, the Ethernet source and `address`, loaded into register 6, are those of one container.
inline auto own(ip_family family, const nft::load_payload& address) {
    return std::tuple(nft::load_meta{NFT_META_IIFNAME, nft::r(0)},
                      nft::load_payload{nft::payload_base::link, 6, 6, nft::r(4)}, address,
                      look_up_sender(family));
}
/// What stands behind the fixed header of an IPv6 packet.
inline auto has_size(unsigned size) {
    return std::tuple(
        nft::load_payload{nft::payload_base::network, 4, 2, nft::r(12)},
        nft::compare{NFT_CMP_EQ, nft::value::wire(static_cast<std::uint16_t>(size)), nft::r(12)});
}
/// The option at `offset` is the Ethernet address of which own() looked up the IP address before.
inline auto tells_mac(std::uint8_t option, unsigned offset) {
    return std::tuple(
        nft::load_payload{nft::payload_base::transport, offset, 2, nft::r(12)},
        nft::compare{NFT_CMP_EQ, nft::value::wire(static_cast<std::uint16_t>(option << 8 | 1)),
                     nft::r(12)},
        nft::load_payload{nft::payload_base::transport, offset + 2, 6, nft::r(4)},
        look_up_sender(ip_family::v6));
}
/// The rules for what comes in from a container's port: who says that it is its sender, and who it tells
/// to be where, must be that container.
class sender_rules {
  public:
    sender_rules(nft::batch& change, const nft::table& table) : change_(change), table_(table) {}

    /// An IPv4 packet, or an ARP message, that says who and where its sender is.
    void put_ipv4() {
        const auto source = nft::load_address(ip_family::v4, nft::side::source, nft::r(6));
        allow("sender", ethertype_is(ethertype_ipv4), own(ip_family::v4, source));
        constexpr nft::load_payload sender_mac{nft::payload_base::network, 8, 6, nft::r(4)};
        constexpr nft::load_payload sender{nft::payload_base::network, 14, 4, nft::r(6)};
        allow("sender", ethertype_is(ethertype_arp), own(ip_family::v4, sender), sender_mac,
              look_up_sender(ip_family::v4));
    }
    void put_ipv6() {
        const auto is_own =
            own(ip_family::v6, nft::load_address(ip_family::v6, nft::side::source, nft::r(6)));
        const nft::compare is_not_icmpv6{NFT_CMP_NEQ, nft::value::byte(icmpv6_number)};
        // Router advertisements and redirects are not a container's to send (CVE-2020-10749).
        for (const std::uint8_t type : {router_advertisement, redirect})
            deny("sender", "", ethertype_is(ethertype_ipv6),
                 nft::icmp_type_is(icmpv6_number, type));
        for (const std::uint8_t type : {router_solicitation, solicitation, advertisement})
            change_.add_rule(table_, "sender", "", ethertype_is(ethertype_ipv6),
                             nft::icmp_type_is(icmpv6_number, type),
                             nft::decide{nft::go_to("neighbour")});
        // Of its link-local address and of none, where an interface begins, no more than that and
        // the membership of multicast groups.
        const auto is_from = [](const char* network) {
            return std::tuple(ethertype_is(ethertype_ipv6),
                              nft::load_address(ip_family::v6, nft::side::source),
                              nft::is_in(cidr::parse(network)));
        };
        deny("sender", "", is_from("fe80::/10"), nft::load_meta{.key = NFT_META_L4PROTO},
             is_not_icmpv6);
        allow("sender", ethertype_is(ethertype_ipv6), is_own);
        for (const std::uint8_t type : {report, done, report_v2})
            allow("sender", is_from("::"), nft::icmp_type_is(icmpv6_number, type));
        put_neighbour(is_own, is_not_icmpv6);
    }

  private:
    // RFC 2710, 3810, 4861
    static constexpr std::uint8_t report = 131;
    static constexpr std::uint8_t done = 132;
    static constexpr std::uint8_t router_solicitation = 133;
    static constexpr std::uint8_t router_advertisement = 134;
    static constexpr std::uint8_t solicitation = 135;
    static constexpr std::uint8_t advertisement = 136;
    static constexpr std::uint8_t redirect = 137;
    static constexpr std::uint8_t report_v2 = 143;

    // Neighbour discovery: whose Ethernet address it tells, and which, must both be its own. One
    // option has a place in it, right behind the message, and no header before it.
    template <class Own>
    void put_neighbour(const Own& is_own, const nft::compare& is_not_icmpv6) {
        constexpr nft::load_payload target{nft::payload_base::transport, 8, 16, nft::r(6)};
        const auto is_type = [](std::uint8_t type) {
            return nft::icmp_type_is(icmpv6_number, type);
        };
        const auto is_none = std::tuple(nft::load_address(ip_family::v6, nft::side::source),
                                        nft::is_in(cidr::parse("::")));
        const nft::load_payload next_header{nft::payload_base::network, 6, 1};
        deny("neighbour", "no plain neighbour message", next_header, is_not_icmpv6);
        allow("neighbour", is_type(solicitation), is_none, own(ip_family::v6, target));
        allow("neighbour", is_type(router_solicitation), is_none);
        const auto asks = [&](std::uint8_t type, std::uint16_t size) {
            allow("neighbour", is_type(type), is_own, has_size(size));
            allow("neighbour", is_type(type), is_own, has_size(size + 8), tells_mac(1, size));
        };
        asks(router_solicitation, 8);
        asks(solicitation, 24);
        const auto answers = [&](const auto&... rest) {
            allow("neighbour", is_type(advertisement), is_own, own(ip_family::v6, target), rest...);
        };
        answers(has_size(24));
        answers(has_size(32), tells_mac(2, 24));
        deny("neighbour", "not its own place");
    }

    template <class... Matches>
    void allow(const char* chain, const Matches&... matches) {
        change_.add_rule(table_, chain, "", matches..., nft::decide{nft::accept()});
    }
    template <class... Matches>
    void deny(const char* chain, const char* why, const Matches&... matches) {
        put_denial(change_, table_, chain, why, matches...);
    }

    nft::batch& change_;
    const nft::table& table_;
};

/// The bridge's table: containers send from their own addresses, and to the host alone.
///
/// `ports`: how the names of the containers' links begin, where that is known. Then one whose elements a
/// foreign hand took away, and nobody put back, may nothing; without it, it would be nobody's port.
inline void put_bridge_rules(nft::batch& change, const nft::table& table,
                             const std::string& ports) {
    using namespace nft;
    const lookup is_port{.set = ruleset::ports().name, .from = r(0)};
    const auto is_called_so = [&](nft_meta_keys end) {
        return std::tuple(
            load_meta{end, r(0)},
            bitwise{.mask = value::prefix_mask(16, static_cast<unsigned>(8 * ports.size()))},
            compare{NFT_CMP_EQ, value::name(ports)});
    };
    change.add_rule(table, "prerouting", "", load_meta{NFT_META_IIFNAME, r(0)}, is_port,
                    decide{go_to("sender")});
    if (!ports.empty())
        put_denial(change, table, "prerouting", "not connected", is_called_so(NFT_META_IIFNAME));
    sender_rules senders(change, table);
    senders.put_ipv4();
    senders.put_ipv6();
    put_denial(change, table, "sender", "not its own address");

    const auto was_not_routed =
        std::tuple(load_meta{.key = NFT_META_MARK}, compare{NFT_CMP_NEQ, value::number(seen_mark)});
    for (const nft_meta_keys end : {NFT_META_IIFNAME, NFT_META_OIFNAME}) {
        put_denial(change, table, "forward", "", load_meta{end, r(0)}, is_port, was_not_routed);
        if (!ports.empty())
            put_denial(change, table, "forward", "not connected", is_called_so(end),
                       was_not_routed);
    }
}

}  // namespace kumiki::inline v0::detail
