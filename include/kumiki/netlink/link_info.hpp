// A network interface as the kernel shows it.
//
// Pure: RTM_NEWLINK, the answer to RTM_GETLINK and what RTNLGRP_LINK tells (rtnetlink(7), Linux 5.10),
// as a value. The requests are in link.hpp.
// Left out: counters, the settings of a bridge and its ports, VFs.
#pragma once

#include <linux/rtnetlink.h>
#include <sys/socket.h>

#include <cstdint>
#include <optional>
#include <string>

#include <kumiki/netlink/mac.hpp>
#include <kumiki/netlink/view.hpp>

namespace kumiki::inline v0 {

/// An interface as the kernel shows it.
struct link_info {
    int index = 0;
    std::string name = {};
    std::string kind = {};  ///< "bridge", "veth" ...; empty for hardware and lo
    std::string alias = {};
    std::optional<mac_address> mac = {};
    std::uint32_t mtu = 0;
    int master = 0;
    /// The other end's index, in its own namespace; of a macvlan, vlan or vxlan that of its parent.
    int peer = 0;
    bool is_up = false;
    bool is_loopback = false;
    bool forwards_ipv4 = false;  ///< packets that come in here may go on to other interfaces
    bool has_ipv6 = false;  ///< IPv6 is in the kernel and on for this interface
    bool makes_link_local = false;  ///< an fe80:: address is made when it goes up
};

namespace detail {

inline constexpr unsigned link_flag_up = 1;  // IFF_UP: <linux/if.h> and <net/if.h> do not
inline constexpr unsigned link_flag_loopback = 8;  // go together

}  // namespace detail

/// An RTM_NEWLINK message as a value. Errors: EBADMSG.
inline link_info parse_link(const netlink_message& message) {
    const auto header = message.family_header<ifinfomsg>();
    link_info link;
    link.index = header.ifi_index;
    link.is_up = (header.ifi_flags & detail::link_flag_up) != 0;
    link.is_loopback = (header.ifi_flags & detail::link_flag_loopback) != 0;
    for (const netlink_attribute& part : message.attributes<ifinfomsg>()) {
        const auto type = part.type();
        if (type == IFLA_IFNAME) link.name = part.text();
        if (type == IFLA_IFALIAS) link.alias = part.text();
        if (type == IFLA_MTU) link.mtu = part.u32();
        if (type == IFLA_MASTER) link.master = static_cast<int>(part.u32());
        if (type == IFLA_LINK) link.peer = static_cast<int>(part.u32());
        if (type == IFLA_ADDRESS && part.payload().size() == 6)
            link.mac = part.structure<mac_address>();
        if (type == IFLA_LINKINFO)
            if (const auto kind = part.nested().find(IFLA_INFO_KIND)) link.kind = kind->text();
        if (type != IFLA_AF_SPEC) continue;
        const auto families = part.nested();
        const auto ipv6 = families.find(AF_INET6);
        link.has_ipv6 = ipv6.has_value();
        const auto mode = ipv6 ? ipv6->nested().find(IFLA_INET6_ADDR_GEN_MODE) : std::nullopt;
        link.makes_link_local = mode && mode->u8() != IN6_ADDR_GEN_MODE_NONE;
        // All IPv4 settings as one array of numbers, which ipv4_setting counts from 1.
        const auto ipv4 = families.find(AF_INET);
        const auto settings = ipv4 ? ipv4->nested().find(IFLA_INET_CONF) : std::nullopt;
        link.forwards_ipv4 = settings && settings->structure<std::uint32_t>() != 0;
    }
    return link;
}

}  // namespace kumiki::inline v0
