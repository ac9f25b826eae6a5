// Ending the flows of addresses in the kernel's connection tracking: what a container that is gone
// began or was led to. Its next owner's would be taken for them.
//
// The table is the kernel's whole one, walked once a call (5 to 25 ms), so nothing is walked where
// there are no flows, and what need not be waited for is left to endpoint_remover.hpp.
#pragma once

#include <algorithm>
#include <cstdint>
#include <utility>
#include <vector>

#include <kumiki/core/ip.hpp>
#include <kumiki/netlink/conntrack.hpp>
#include <kumiki/netlink/socket.hpp>

namespace kumiki::inline v0::detail {

/// On a flow that is about to be ended: the rules let none of its packets pass any more, though it is
/// established.
inline constexpr std::uint32_t ending_mark = 0x6b6d656e;

/// Up to how many flows one walk that lists them all is cheaper than several that choose.
inline constexpr std::uint32_t few_flows = 10000;

/// The flows from or to `addresses` of which `wanted(flow)` is true.
template <class Predicate>
std::vector<flow> find_flows(netlink_socket& netfilter, const std::vector<ip_address>& addresses,
                             Predicate&& wanted) {
    std::vector<flow> found;
    const std::uint32_t count = count_flows(netfilter);
    if (count == 0) return found;
    const auto is_of = [](const flow& each, const ip_address& address) {
        return each.original.source == address || each.reply.source == address;
    };
    if (count <= few_flows) {
        for (flow& each : list_all_flows(netfilter))
            if (std::any_of(addresses.begin(), addresses.end(),
                            [&](const ip_address& address) { return is_of(each, address); }) &&
                wanted(each))
                found.push_back(std::move(each));
        return found;
    }
    for (const ip_address& address : addresses) {
        const auto collect = [&](const flow_filter& filter) {
            for (flow& each : list_flows(netfilter, filter))
                if (is_of(each, address) && wanted(each)) found.push_back(std::move(each));
        };
        if (address.is_v4()) {
            collect({.original_source = address});
            collect({.reply_source = address});
        } else {
            collect({.family = ip_family::v6});  // one walk: the kernel cannot filter it
        }
    }
    return found;
}

/// Ends all flows of `addresses`.
inline void end_all_flows(netlink_socket& netfilter, const std::vector<ip_address>& addresses) {
    if (count_flows(netfilter) == 0) return;
    for (const ip_address& address : addresses)
        if (!try_flush_flows(netfilter, {.family = address.family(), .original_source = address}) ||
            !try_flush_flows(netfilter, {.family = address.family(), .reply_source = address}))
            delete_flows(netfilter,
                         find_flows(netfilter, {address}, [](const flow&) { return true; }));
}

}  // namespace kumiki::inline v0::detail
