// The way back for a host that reaches a published port by ::1, which has no route_localnet.
//
// An answer that comes in by the bridge and is translated back to ::1 is looked up with the bridge as
// its interface, and finds the route of ::1 on lo not meant (rt6_need_strict()); with a second route, on
// the bridge, it does. Nobody can send to ::1 from outside by it: such packets are dropped when they
// come in, before anything is translated (RFC 4291, 2.5.3). What the host sends to ::1 stays on lo, whose
// route has the lower metric. The route goes with the bridge.
//
// Not where br_netfilter looks into IPv6: there the answer is translated in the bridge, comes in as one
// to ::1, and is dropped by that rule: loopback_obstacle() tells. 127.0.0.1 works in both cases.
#pragma once

#include <fcntl.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <sys/socket.h>

#include <cstdint>
#include <optional>
#include <string>

#include <kumiki/core/ip.hpp>
#include <kumiki/core/text.hpp>
#include <kumiki/netlink/message.hpp>
#include <kumiki/sys/file.hpp>
#include <kumiki/sys/netns.hpp>

namespace kumiki::inline v0 {

/// Requests the route of ::1 on the bridge with index `link`, which must be up and have IPv6.
/// Errors at transact(): EEXIST when it has one.
inline void add_loopback_route(netlink_batch& batch, int link) {
    rtmsg header{};
    header.rtm_family = AF_INET6;
    header.rtm_dst_len = 128;
    header.rtm_table = RT_TABLE_LOCAL;
    header.rtm_protocol = RTPROT_STATIC;
    header.rtm_type = RTN_LOCAL;
    const auto index = static_cast<std::uint32_t>(link);
    batch.add(RTM_NEWROUTE, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL, header,
              {"add route of ::1 on interface", std::to_string(link)});
    batch.address(RTA_DST, ip_address::parse("::1"));
    batch.u32(RTA_OIF, index);
    // One of its own for each bridge: routes of one metric would be taken for the same.
    batch.u32(RTA_PRIORITY, 1024 + index);
}

/// Why the host reaches no published port by ::1 in the network namespace behind `netns_fd`, for a
/// person to read; nothing where it does. Errors: kumiki::error.
inline std::optional<std::string> loopback_obstacle(int netns_fd, const std::string& bridge) {
    const auto filtered = sys::in_network_namespace(netns_fd, [] {
        return sys::try_read_file_at(AT_FDCWD, "/proc/sys/net/bridge/bridge-nf-call-ip6tables");
    });
    if (!filtered || trim(*filtered) != "1") return std::nullopt;
    return "br_netfilter looks into the IPv6 packets of bridges here, so published ports are not "
           "reached by ::1 through " +
           bridge +
           ": use 127.0.0.1 or another address of the host, or, if nobody else needs it, "
           "sysctl -w net.bridge.bridge-nf-call-ip6tables=0";
}

}  // namespace kumiki::inline v0
