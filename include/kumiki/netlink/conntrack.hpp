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
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include <kumiki/core/error.hpp>
#include <kumiki/core/ip.hpp>
#include <kumiki/netlink/flow.hpp>
#include <kumiki/netlink/message.hpp>
#include <kumiki/netlink/nft_value.hpp>
#include <kumiki/netlink/socket.hpp>
#include <kumiki/netlink/view.hpp>

namespace kumiki::inline v0 {

namespace detail {

inline constexpr std::uint16_t ctnetlink_type = NFNL_SUBSYS_CTNETLINK << 8;

}  // namespace detail

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

namespace detail {

/// One request for each of `flows`, some at a time: `put(request, flow)` appends to it what is not the
/// flow's name. A flow that has ended meanwhile is no error.
template <class Put>
void change_flows(netlink_socket& socket, std::span<const flow> flows, std::uint16_t type,
                  const char* operation, Put&& put) {
    constexpr std::size_t at_once = 256;
    while (!flows.empty()) {
        netlink_batch request;
        for (const flow& each : flows.first(std::min(at_once, flows.size()))) {
            request.add(ctnetlink_type | type, NLM_F_ACK,
                        nfgenmsg{nft::number_of(each.original.source.family()), NFNETLINK_V0, 0},
                        {operation, to_string(each.original.source) + " to " +
                                        to_string(each.original.destination)});
            request.data(CTA_TUPLE_ORIG | NLA_F_NESTED, each.raw_tuple);
            if (each.zone) request.u16(CTA_ZONE, *each.zone);
            put(request, each);
        }
        flows = flows.subspan(request.count());
        for (const netlink_failure& failure : socket.submit(request))
            if (failure.code != ENOENT) throw to_error(request, failure);
    }
}

}  // namespace detail

/// Gives flows a mark (NFT_CT_MARK), or back the one that they were listed with; those that have ended
/// meanwhile are no error. Errors: kumiki::error.
inline void mark_flows(netlink_socket& socket, std::span<const flow> flows,
                       std::optional<std::uint32_t> mark) {
    detail::change_flows(socket, flows, IPCTNL_MSG_CT_NEW, "mark flow",
                         [&](netlink_batch& request, const flow& each) {
                             request.be32(CTA_MARK, mark.value_or(each.mark));
                         });
}

/// Deletes flows as list_flows() returned them; those that have ended meanwhile are no error.
/// Errors: kumiki::error of the first that could not be deleted; the others are.
inline void delete_flows(netlink_socket& socket, std::span<const flow> flows) {
    detail::change_flows(socket, flows, IPCTNL_MSG_CT_DELETE, "delete flow",
                         [](netlink_batch& request, const flow& each) {
                             if (each.id) request.u32(CTA_ID, *each.id);
                         });
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
