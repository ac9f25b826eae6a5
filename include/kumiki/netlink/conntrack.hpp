// The kernel's table of flows (conntrack): those that match are listed, and deleted, so that what was
// decided for a flow's first packet is decided anew.
//
// ctnetlink, with the filter inside the kernel since Linux 5.8; before, and in any case, the answers
// are compared here. Finding flows takes one walk over the table, whatever it finds: look for all that
// is wanted in one. Left out: making entries, changing more than their marks,
// expectations, events.
#pragma once

#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_conntrack.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include <kumiki/core/error.hpp>
#include <kumiki/core/ip.hpp>
#include <kumiki/netlink/message.hpp>
#include <kumiki/netlink/nft_value.hpp>
#include <kumiki/netlink/socket.hpp>
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

inline constexpr std::uint16_t ctnetlink_type = NFNL_SUBSYS_CTNETLINK << 8;

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

/// How many flows the socket's network namespace has now; unlike a list, at no cost.
inline std::uint32_t count_flows(netlink_socket& socket) {
    netlink_batch request;
    request.add(detail::ctnetlink_type | IPCTNL_MSG_CT_GET_STATS, 0, nfgenmsg{},
                {"count flows", {}});
    std::uint32_t count = 0;
    socket.transact(request, [&](std::size_t, const netlink_message& answer) {
        if (const auto entries = answer.attributes<nfgenmsg>().find(CTA_STATS_GLOBAL_ENTRIES))
            count = entries->be32();
    });
    return count;
}

/// The flows that match. `socket` is of NETLINK_NETFILTER.
/// Errors: kumiki::error, EINTR when the table changes too fast to be read.
inline std::vector<flow> list_flows(netlink_socket& socket, const flow_filter& filter) {
    netlink_batch request;
    request.add(detail::ctnetlink_type | IPCTNL_MSG_CT_GET, NLM_F_DUMP,
                nfgenmsg{nft::number_of(filter.family), NFNETLINK_V0, 0}, {"list flows", {}});
    // Not for IPv6: its comparison of addresses is the wrong way round in every kernel that has it
    // (5.8 to 6.18), and leaves out just the flows that are looked for. See test_conntrack.cpp.
    flow_filter inside = filter;
    if (filter.family == ip_family::v6) {
        inside.original_source.reset();
        inside.original_destination.reset();
        inside.reply_source.reset();
    }
    detail::put_flow_filter(request, inside);
    return socket.dump(request, [&](const netlink_message& message) {
        std::optional<flow> found = parse_flow(message);
        if (!filter.matches(*found)) found.reset();
        return found;
    });
}

/// All flows of the socket's network namespace, of both families, in one walk.
inline std::vector<flow> list_all_flows(netlink_socket& socket) {
    netlink_batch request;
    request.add(detail::ctnetlink_type | IPCTNL_MSG_CT_GET, NLM_F_DUMP,
                nfgenmsg{AF_UNSPEC, NFNETLINK_V0, 0}, {"list flows", {}});
    return socket.dump(request, [](const netlink_message& message) {
        return std::optional<flow>(parse_flow(message));
    });
}

/// Gives flows a mark (NFT_CT_MARK), or back the one that they were listed with; those that have ended
/// meanwhile are no error. Errors: kumiki::error.
inline void mark_flows(netlink_socket& socket, std::span<const flow> flows,
                       std::optional<std::uint32_t> mark) {
    constexpr std::size_t at_once = 256;
    while (!flows.empty()) {
        netlink_batch request;
        for (const flow& each : flows.first(std::min(at_once, flows.size()))) {
            request.add(detail::ctnetlink_type | IPCTNL_MSG_CT_NEW, NLM_F_ACK,
                        nfgenmsg{nft::number_of(each.original.source.family()), NFNETLINK_V0, 0},
                        {"mark flow", to_string(each.original.source) + " to " +
                                          to_string(each.original.destination)});
            request.data(CTA_TUPLE_ORIG | NLA_F_NESTED, each.raw_tuple);
            request.be32(CTA_MARK, mark.value_or(each.mark));
            if (each.zone) request.u16(CTA_ZONE, *each.zone);
        }
        flows = flows.subspan(request.count());
        for (const netlink_failure& failure : socket.submit(request))
            if (failure.code != ENOENT) throw to_error(request, failure);
    }
}

/// Deletes flows as list_flows() returned them; those that have ended meanwhile are no error.
/// Errors: kumiki::error of the first that could not be deleted; the others are.
inline void delete_flows(netlink_socket& socket, std::span<const flow> flows) {
    constexpr std::size_t at_once = 256;
    while (!flows.empty()) {
        netlink_batch request;
        for (const flow& each : flows.first(std::min(at_once, flows.size()))) {
            request.add(detail::ctnetlink_type | IPCTNL_MSG_CT_DELETE, NLM_F_ACK,
                        nfgenmsg{nft::number_of(each.original.source.family()), NFNETLINK_V0, 0},
                        {"delete flow", to_string(each.original.source) + " to " +
                                            to_string(each.original.destination)});
            request.data(CTA_TUPLE_ORIG | NLA_F_NESTED, each.raw_tuple);
            if (each.id) request.u32(CTA_ID, *each.id);
            if (each.zone) request.u16(CTA_ZONE, *each.zone);
        }
        flows = flows.subspan(request.count());
        for (const netlink_failure& failure : socket.submit(request))
            if (failure.code != ENOENT) throw to_error(request, failure);
    }
}

/// Deletes the IPv4 flows that match, in the kernel: many times faster than to list them, as it passes
/// over empty buckets without a lock. False: it cannot (before 6.11); nothing was done.
///
/// A filter that says nothing is refused: it would mean every flow of the host, of both families.
inline bool try_flush_flows(netlink_socket& socket, const flow_filter& filter) {
    if (filter.family != ip_family::v4) return false;  // see list_flows()
    if (!filter.transport && !filter.original_source && !filter.original_destination &&
        !filter.reply_source)
        throw invalid_input("filter of flows", "", "It must say which flows are meant.");
    netlink_batch request;
    // Version 1: the family counts. (Version 0 means all of them, as old programs expect.)
    request.add(detail::ctnetlink_type | IPCTNL_MSG_CT_DELETE, NLM_F_ACK,
                nfgenmsg{nft::number_of(filter.family), 1, 0}, {"flush flows", {}});
    detail::put_flow_filter(request, filter);
    const auto failures = socket.submit(request);
    if (failures.empty()) return true;
    const int code = failures.front().code;
    if (code == EINVAL || code == EOPNOTSUPP || code == ENOENT) return false;
    throw to_error(request, failures.front());
}

}  // namespace kumiki::inline v0
