// Matches of nftables rules as people think of them: "iifname eth0", "ip saddr 10.0.0.0/8", "ct state
// established". Each is a tuple of expressions to be given to nft::batch::add_rule().
//
// Pure. All of them use register 0 and up, and leave nothing in them that a later one relies on.
// Addresses ask for the family first: a table of the inet family sees both.
#pragma once

#include <linux/rtnetlink.h>

#include <cstdint>
#include <optional>
#include <string_view>
#include <tuple>

#include <kumiki/core/ip.hpp>
#include <kumiki/netlink/nft_expression.hpp>
#include <kumiki/netlink/nft_value.hpp>

namespace kumiki::inline v0::nft {

/// The packet came in by the interface `name` (or, with NFT_CMP_NEQ, by another).
inline auto input_is(std::string_view name, nft_cmp_ops how = NFT_CMP_EQ) {
    return std::tuple(load_meta{.key = NFT_META_IIFNAME}, compare{how, value::name(name)});
}

/// The packet goes out by the interface `name`; where none is known yet, by none.
inline auto output_is(std::string_view name, nft_cmp_ops how = NFT_CMP_EQ) {
    return std::tuple(load_meta{.key = NFT_META_OIFNAME}, compare{how, value::name(name)});
}

/// The packet is of IPv4, or of IPv6.
inline auto family_is(ip_family family) {
    return std::tuple(load_meta{.key = NFT_META_NFPROTO},
                      compare{NFT_CMP_EQ, value::byte(number_of(family))});
}

/// Which address of a packet.
enum class side : std::uint8_t { source, destination };

/// An address of the packet into a register.
inline load_payload load_address(ip_family family, side which, reg into = r(0)) {
    const bool v4 = family == ip_family::v4;
    const std::uint32_t length = v4 ? 4 : 16;
    const std::uint32_t source = v4 ? 12 : 8;  // RFC 791, RFC 8200: where the two addresses begin
    return {payload_base::network, which == side::source ? source : source + length, length, into};
}

/// The destination's address as the sender of the flow's first packet wrote it, before any
/// translation, into a register. Kernel: 4.17.
inline load_ct load_original_destination(ip_family family, reg into = r(0)) {
    return {family == ip_family::v4 ? NFT_CT_DST_IP : NFT_CT_DST_IP6, flow_direction::original,
            into};
}

/// What is in register 0 is in `network`. Nothing to compare for a prefix of 0.
inline auto is_in(const cidr& network) {
    const std::size_t size = network.address.size();
    std::optional<bitwise> mask;
    std::optional<compare> same;
    if (network.prefix != 0) same = compare{NFT_CMP_EQ, value(network.network())};
    if (network.prefix != 0 && network.prefix != network.address.bits())
        mask = bitwise{.mask = value::prefix_mask(size, network.prefix)};
    return std::tuple(mask, same);
}

/// An address of the packet is in `network`.
inline auto address_in(side which, const cidr& network) {
    return std::tuple(family_is(network.address.family()),
                      load_address(network.address.family(), which), is_in(network));
}
inline auto from(const cidr& network) { return address_in(side::source, network); }
inline auto to(const cidr& network) { return address_in(side::destination, network); }

/// The transport protocol, by IANA number.
inline auto protocol_is(std::uint8_t number) {
    return std::tuple(load_meta{.key = NFT_META_L4PROTO}, compare{NFT_CMP_EQ, value::byte(number)});
}
inline auto protocol_is(protocol transport) {
    return protocol_is(static_cast<std::uint8_t>(transport));
}

/// The destination port into a register; the same place in TCP, UDP and SCTP.
inline load_payload load_destination_port(reg into = r(0)) {
    return {payload_base::transport, 2, 2, into};
}

/// What is in register 0, a port, is in `ports`. Nothing to compare for all of them.
inline auto is_port_in(port_range ports) {
    std::optional<compare> same;
    std::optional<within> range;
    if (ports.first == ports.last)
        same = compare{NFT_CMP_EQ, value::wire(ports.first)};
    else if (ports.first > 1 || ports.last < 65535)
        range = within{value::wire(ports.first), value::wire(ports.last)};
    return std::tuple(same, range);
}

/// The type of an ICMP or ICMPv6 message.
inline auto icmp_type_is(std::uint8_t protocol_number, std::uint8_t type) {
    return std::tuple(protocol_is(protocol_number), load_payload{payload_base::transport, 0, 1},
                      compare{NFT_CMP_EQ, value::byte(type)});
}

/// Bits of `ct state`, as the kernel numbers them.
namespace ct_state {
inline constexpr std::uint32_t invalid = 1;
inline constexpr std::uint32_t established = 2;
inline constexpr std::uint32_t related = 4;
inline constexpr std::uint32_t fresh = 8;  ///< "new"
inline constexpr std::uint32_t untracked = 64;
}  // namespace ct_state

/// The packet's flow is in one of the states.
inline auto state_is_any(std::uint32_t states) {
    return std::tuple(load_ct{.key = NFT_CT_STATE}, bitwise{.mask = value::number(states)},
                      compare{NFT_CMP_NEQ, value::number(0)});
}

/// The destination of the packet's flow was translated (or, with NFT_CMP_EQ, was not).
inline auto destination_was_translated(nft_cmp_ops how = NFT_CMP_NEQ) {
    return std::tuple(load_ct{.key = NFT_CT_STATUS}, bitwise{.mask = value::number(IPS_DST_NAT)},
                      compare{how, value::number(0)});
}

/// The packet's destination is an address of this host (or, with NFT_CMP_NEQ, is not).
inline auto destination_is_local(nft_cmp_ops how = NFT_CMP_EQ) {
    return std::tuple(load_fib{}, compare{how, value::number(RTN_LOCAL)});
}

}  // namespace kumiki::inline v0::nft
