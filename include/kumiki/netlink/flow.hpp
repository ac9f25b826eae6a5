// A flow of the kernel's table (conntrack) as a value: what it is between, what was translated of it,
// and which flows are looked for.
//
// Pure: ctnetlink's attributes, read and written (nfnetlink_conntrack.h); CTA_FILTER since Linux 5.8, an
// attribute that is passed over before. What is done with flows is in conntrack.hpp.
// Left out: helpers, expectations, labels, counters, states of a protocol.
#pragma once

#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_conntrack.h>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include <kumiki/core/ip.hpp>
#include <kumiki/netlink/message.hpp>
#include <kumiki/netlink/view.hpp>

namespace kumiki::inline v0 {

/// What the packets of one direction of a flow look like. Ports are 0 where the protocol has none.
struct flow_tuple {
    ip_address source{};
    ip_address destination{};
    std::uint16_t source_port = 0;
    std::uint16_t destination_port = 0;

    bool operator==(const flow_tuple&) const = default;
};

/// An entry of the table. The packets that answer are of `reply`, which differs from the mirrored
/// `original` by what was translated.
struct flow {
    std::uint8_t transport = 0;  ///< IANA number
    flow_tuple original{};
    flow_tuple reply{};
    std::uint32_t mark = 0;

    // How the kernel named it, for its deletion.
    std::vector<std::byte> raw_tuple{};
    std::optional<std::uint32_t> id{};
    std::optional<std::uint16_t> zone{};

    /// True when its destination was translated: to reply.source, reply.source_port.
    bool is_redirected() const noexcept {
        return reply.source != original.destination ||
               reply.source_port != original.destination_port;
    }
};

/// Which flows are looked for. What is not set matches all.
struct flow_filter {
    ip_family family = ip_family::v4;
    std::optional<std::uint8_t> transport{};
    std::optional<ip_address> original_source{};
    std::optional<ip_address> original_destination{};
    std::optional<ip_address> reply_source{};

    bool matches(const flow& f) const noexcept {
        return f.original.source.family() == family && (!transport || *transport == f.transport) &&
               (!original_source || *original_source == f.original.source) &&
               (!original_destination || *original_destination == f.original.destination) &&
               (!reply_source || *reply_source == f.reply.source);
    }
};

namespace detail {

// What is compared in the kernel: bits of CTA_FILTER_*_FLAGS, which its headers do not name.
inline constexpr std::uint32_t filter_source = 1U << 0;
inline constexpr std::uint32_t filter_destination = 1U << 1;
inline constexpr std::uint32_t filter_transport = 1U << 3;

inline void parse_flow_tuple(const netlink_attribute& from, flow_tuple& into,
                             std::uint8_t& transport) {
    for (const netlink_attribute& part : from.nested()) {
        if (part.type() == CTA_TUPLE_IP)
            for (const netlink_attribute& end : part.nested()) {
                if (end.type() == CTA_IP_V4_SRC || end.type() == CTA_IP_V6_SRC)
                    into.source = end.address();
                if (end.type() == CTA_IP_V4_DST || end.type() == CTA_IP_V6_DST)
                    into.destination = end.address();
            }
        if (part.type() == CTA_TUPLE_PROTO)
            for (const netlink_attribute& end : part.nested()) {
                if (end.type() == CTA_PROTO_NUM) transport = end.u8();
                if (end.type() == CTA_PROTO_SRC_PORT) into.source_port = end.be16();
                if (end.type() == CTA_PROTO_DST_PORT) into.destination_port = end.be16();
            }
    }
}

inline void put_flow_filter_tuple(netlink_batch& request, std::uint16_t type,
                                  const std::optional<ip_address>& source,
                                  const std::optional<ip_address>& destination,
                                  const std::optional<std::uint8_t>& transport) {
    if (!source && !destination && !transport) return;
    const auto tuple = request.nested(type);
    {
        const auto addresses = request.nested(CTA_TUPLE_IP);
        if (source) request.address(source->is_v4() ? CTA_IP_V4_SRC : CTA_IP_V6_SRC, *source);
        if (destination)
            request.address(destination->is_v4() ? CTA_IP_V4_DST : CTA_IP_V6_DST, *destination);
    }
    const auto protocol = request.nested(CTA_TUPLE_PROTO);
    if (transport) request.u8(CTA_PROTO_NUM, *transport);
}

inline void put_flow_filter(netlink_batch& request, const flow_filter& filter) {
    put_flow_filter_tuple(request, CTA_TUPLE_ORIG, filter.original_source,
                          filter.original_destination, filter.transport);
    put_flow_filter_tuple(request, CTA_TUPLE_REPLY, filter.reply_source, {}, {});
    const std::uint32_t original = (filter.original_source ? filter_source : 0) |
                                   (filter.original_destination ? filter_destination : 0) |
                                   (filter.transport ? filter_transport : 0);
    const std::uint32_t reply = filter.reply_source ? filter_source : 0;
    if (original == 0 && reply == 0) return;
    const auto flags = request.nested(CTA_FILTER);
    request.u32(CTA_FILTER_ORIG_FLAGS, original);
    request.u32(CTA_FILTER_REPLY_FLAGS, reply);
}

}  // namespace detail

/// A message of ctnetlink as a value. Errors: EBADMSG.
inline flow parse_flow(const netlink_message& message) {
    flow result;
    for (const netlink_attribute& part : message.attributes<nfgenmsg>()) {
        if (part.type() == CTA_TUPLE_ORIG) {
            detail::parse_flow_tuple(part, result.original, result.transport);
            result.raw_tuple.assign(part.payload().begin(), part.payload().end());
        }
        if (part.type() == CTA_TUPLE_REPLY)
            detail::parse_flow_tuple(part, result.reply, result.transport);
        if (part.type() == CTA_MARK) result.mark = part.be32();
        if (part.type() == CTA_ID) result.id = part.u32();
        if (part.type() == CTA_ZONE) result.zone = part.u16();
    }
    return result;
}

}  // namespace kumiki::inline v0
