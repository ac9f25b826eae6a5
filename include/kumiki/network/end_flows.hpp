// Ending the flows of addresses in the kernel's connection tracking: what a container that is gone
// began or was led to. Its next owner's would be taken for them.
//
// The table is the kernel's whole one, walked once a call (5 to 25 ms), so nothing is walked where
// there are no flows, and what need not be waited for is left to endpoint_remover.hpp.
#pragma once

#include <utility>
#include <vector>

#include <kumiki/core/ip.hpp>
#include <kumiki/netlink/conntrack.hpp>
#include <kumiki/netlink/socket.hpp>

namespace kumiki::inline v0::detail {

/// Ends the flows from or to `address` of which `ends(flow)` is true.
template <class Predicate>
void end_flows(netlink_socket& netfilter, const ip_address& address, Predicate&& ends) {
    std::vector<flow> found;
    const auto collect = [&](const flow_filter& filter) {
        for (flow& each : list_flows(netfilter, filter))
            if ((each.original.source == address || each.reply.source == address) && ends(each))
                found.push_back(std::move(each));
    };
    if (address.is_v4()) {
        collect({.original_source = address});
        collect({.reply_source = address});
    } else {
        collect({.family = ip_family::v6});  // one walk: the kernel cannot filter it
    }
    delete_flows(netfilter, found);
}

/// Ends all flows of `addresses`.
inline void end_all_flows(netlink_socket& netfilter, const std::vector<ip_address>& addresses) {
    if (count_flows(netfilter) == 0) return;
    for (const ip_address& address : addresses)
        if (!try_flush_flows(netfilter, {.family = address.family(), .original_source = address}) ||
            !try_flush_flows(netfilter, {.family = address.family(), .reply_source = address}))
            end_flows(netfilter, address, [](const flow&) { return true; });
}

}  // namespace kumiki::inline v0::detail
