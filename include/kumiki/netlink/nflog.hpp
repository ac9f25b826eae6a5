// NFLOG: copies of packets' heads that a rule sent to a group, with the rule's prefix.
//
// nfnetlink_log. A group of a network namespace belongs to the socket that bound it first, until that
// is closed; packets for a group without one are not copied. What does not fit into the socket's
// queue is lost, and a gap in the numbers tells how many they were.
// Pure: the caller sends the requests and reads the socket. What was captured is a stranger's: every
// length is looked at. Left out: the flow beside the packet (not in every kernel), VLAN tags.
#pragma once

#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_log.h>
#include <sys/socket.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include <kumiki/core/ip.hpp>
#include <kumiki/netlink/flow.hpp>
#include <kumiki/netlink/message.hpp>
#include <kumiki/netlink/view.hpp>

namespace kumiki::inline v0 {

/// What the head of a packet says: between whom it goes, and by which protocol.
struct packet_head {
    flow_tuple between{};
    std::uint8_t transport = 0;  ///< IANA number; 0 for ARP
};

/// A packet as a rule logged it.
struct logged_packet {
    std::string prefix{};
    std::optional<packet_head> head{};  ///< nothing for what is neither IP nor ARP, or cut short
    std::uint32_t in = 0;  ///< index of the interface, or the bridge's port, that it came in by
    std::uint32_t out = 0;  ///< index of the one that it was to leave by; 0: not known yet
    std::uint32_t number = 0;  ///< counts all packets of the group
};

namespace detail {

inline std::uint16_t read_be16(std::span<const std::byte> bytes, std::size_t at) noexcept {
    return static_cast<std::uint16_t>(std::to_integer<unsigned>(bytes[at]) << 8 |
                                      std::to_integer<unsigned>(bytes[at + 1]));
}
inline ip_address read_address(std::span<const std::byte> bytes, std::size_t at, ip_family family) {
    if (family == ip_family::v4)
        return ip_address(*read_structure<std::array<std::uint8_t, 4>>(bytes.subspan(at, 4)));
    return ip_address(*read_structure<std::array<std::uint8_t, 16>>(bytes.subspan(at, 16)));
}

/// The ports, where the protocol has them and they are within what was captured.
inline void parse_ports(std::span<const std::byte> rest, packet_head& into) noexcept {
    constexpr std::uint8_t with_ports[] = {6, 17, 33, 132, 136};  // TCP UDP DCCP SCTP UDP-Lite
    for (const std::uint8_t each : with_ports)
        if (into.transport == each && rest.size() >= 4) {
            into.between.source_port = read_be16(rest, 0);
            into.between.destination_port = read_be16(rest, 2);
        }
}

}  // namespace detail

/// Reads the head of an IPv4 packet. Nothing when it is none, or cut off in its header.
inline std::optional<packet_head> parse_ipv4_head(std::span<const std::byte> bytes) {
    if (bytes.size() < 20 || std::to_integer<unsigned>(bytes[0]) >> 4 != 4) return std::nullopt;
    const std::size_t size = (std::to_integer<std::size_t>(bytes[0]) & 15) * 4;
    if (size < 20) return std::nullopt;
    packet_head head{.transport = std::to_integer<std::uint8_t>(bytes[9])};
    head.between.source = detail::read_address(bytes, 12, ip_family::v4);
    head.between.destination = detail::read_address(bytes, 16, ip_family::v4);
    const bool is_first = (detail::read_be16(bytes, 6) & 0x1fff) == 0;
    if (is_first && size <= bytes.size()) detail::parse_ports(bytes.subspan(size), head);
    return head;
}

/// Reads the head of an IPv6 packet, behind its extension headers.
inline std::optional<packet_head> parse_ipv6_head(std::span<const std::byte> bytes) {
    if (bytes.size() < 40 || std::to_integer<unsigned>(bytes[0]) >> 4 != 6) return std::nullopt;
    packet_head head{.transport = std::to_integer<std::uint8_t>(bytes[6])};
    head.between.source = detail::read_address(bytes, 8, ip_family::v6);
    head.between.destination = detail::read_address(bytes, 24, ip_family::v6);
    for (std::size_t at = 40;;) {
        constexpr std::uint8_t hop_by_hop = 0;
        constexpr std::uint8_t routing = 43;
        constexpr std::uint8_t fragment = 44;
        constexpr std::uint8_t options = 60;
        const std::uint8_t kind = head.transport;
        if (kind != hop_by_hop && kind != routing && kind != fragment && kind != options) {
            if (at <= bytes.size()) detail::parse_ports(bytes.subspan(at), head);
            return head;
        }
        if (bytes.size() < at + 8) return head;
        head.transport = std::to_integer<std::uint8_t>(bytes[at]);
        if (kind == fragment && (detail::read_be16(bytes, at + 2) & 0xfff8) != 0) return head;
        at += kind == fragment ? 8 : (std::to_integer<std::size_t>(bytes[at + 1]) + 1) * 8;
    }
}

/// Reads an ARP packet about IPv4: who asks, and whom.
inline std::optional<packet_head> parse_arp_head(std::span<const std::byte> bytes) {
    if (bytes.size() < 28 || detail::read_be16(bytes, 2) != 0x0800) return std::nullopt;
    packet_head head;
    head.between.source = detail::read_address(bytes, 14, ip_family::v4);
    head.between.destination = detail::read_address(bytes, 24, ip_family::v4);
    return head;
}

/// Requests to bind `group` to the socket that sends them, with `bytes` of each packet, each packet
/// at once. Errors at submit: EBUSY when another socket has it; EPERM without CAP_NET_ADMIN.
inline void bind_nflog(netlink_batch& batch, std::uint16_t group, std::uint32_t bytes = 96) {
    const auto configure = [&] {
        const nfgenmsg head{AF_UNSPEC, NFNETLINK_V0, detail::to_big_endian(group)};
        batch.add(NFNL_SUBSYS_ULOG << 8 | NFULNL_MSG_CONFIG, NLM_F_ACK, head,
                  {"bind NFLOG group", std::to_string(group)});
    };
    configure();
    batch.structure(NFULA_CFG_CMD, nfulnl_msg_config_cmd{.command = NFULNL_CFG_CMD_BIND});
    configure();
    nfulnl_msg_config_mode mode{};
    mode.copy_range = detail::to_big_endian(bytes);
    mode.copy_mode = NFULNL_COPY_PACKET;
    batch.structure(NFULA_CFG_MODE, mode);
    batch.be32(NFULA_CFG_QTHRESH, 1);
    batch.be16(NFULA_CFG_FLAGS, NFULNL_CFG_F_SEQ);
}

/// A packet from a message of the group's socket; nothing for other messages. Errors: EBADMSG.
inline std::optional<logged_packet> parse_logged_packet(const netlink_message& message) {
    if (message.type() != (NFNL_SUBSYS_ULOG << 8 | NFULNL_MSG_PACKET)) return std::nullopt;
    logged_packet packet;
    std::uint16_t ethertype = 0;
    std::span<const std::byte> bytes;
    for (const netlink_attribute& part : message.attributes<nfgenmsg>()) {
        switch (part.type()) {
        case NFULA_PACKET_HDR:
            ethertype = detail::to_big_endian(part.structure<nfulnl_msg_packet_hdr>().hw_protocol);
            break;
        case NFULA_PREFIX:
            packet.prefix = part.text();
            break;
        case NFULA_IFINDEX_INDEV:
            if (packet.in == 0) packet.in = part.be32();
            break;
        case NFULA_IFINDEX_PHYSINDEV:
            packet.in = part.be32();
            break;
        case NFULA_IFINDEX_OUTDEV:
            packet.out = part.be32();
            break;
        case NFULA_SEQ:
            packet.number = part.be32();
            break;
        case NFULA_PAYLOAD:
            bytes = part.payload();
            break;
        default:
            break;
        }
    }
    // What was made on this host may have no EtherType yet: then the version tells.
    if (ethertype == 0x0806) packet.head = parse_arp_head(bytes);
    if (ethertype == 0x0800 || ethertype == 0) packet.head = parse_ipv4_head(bytes);
    if (ethertype == 0x86dd || (ethertype == 0 && !packet.head))
        packet.head = parse_ipv6_head(bytes);
    return packet;
}

}  // namespace kumiki::inline v0
