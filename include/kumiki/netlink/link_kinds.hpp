// Requests for the other kinds of interfaces: macvlan, vlan, vxlan, dummy and ifb.
//
// rtnetlink(7), ip-link(8): IFLA_INFO_KIND and the attributes of each kind; Linux 5.10 has all of
// it, where the kind's module is there: the error names it otherwise. Each can be born in another
// network namespace while its parent stays in the socket's own.
// Left out: ipvlan, bonds, tunnels other than vxlan; tun and tap devices, which are no netlink's
// (tun.hpp).
#pragma once

#include <linux/if_ether.h>
#include <linux/if_link.h>
#include <linux/rtnetlink.h>

#include <cstdint>
#include <optional>
#include <string>

#include <kumiki/core/error.hpp>
#include <kumiki/core/ip.hpp>
#include <kumiki/netlink/link.hpp>
#include <kumiki/netlink/mac.hpp>
#include <kumiki/netlink/message.hpp>

namespace kumiki::inline v0 {

/// What the macvlans of one parent may say to each other; none can speak with the parent itself.
enum class macvlan_type : std::uint8_t {
    isolated = MACVLAN_MODE_PRIVATE,         ///< nothing
    by_switch = MACVLAN_MODE_VEPA,           ///< what a switch outside sends back
    bridge = MACVLAN_MODE_BRIDGE,            ///< everything
    passthrough = MACVLAN_MODE_PASSTHRU,  ///< there is one alone, and the parent is all its own
};

/// An interface with an Ethernet address of its own on another one.
struct macvlan_link {
    std::string name = {};
    int parent = 0;  ///< index
    macvlan_type mode = macvlan_type::bridge;
    int netns = -1;  ///< descriptor of the namespace that it is born in; -1: the socket's
    std::optional<mac_address> mac = {};
    std::optional<std::uint32_t> mtu = {};
};

/// What marks the frames of a vlan.
enum class vlan_protocol : std::uint16_t { customer = ETH_P_8021Q, provider = ETH_P_8021AD };

/// The frames of another interface that carry the tag `id`.
struct vlan_link {
    std::string name = {};
    int parent = 0;
    std::uint16_t id = 0;  ///< 1 to 4094
    vlan_protocol protocol = vlan_protocol::customer;
    int netns = -1;
    std::optional<mac_address> mac = {};
    std::optional<std::uint32_t> mtu = {};
};

/// Whether a vxlan remembers which host a sender was behind.
enum class vxlan_learning : std::uint8_t { on, off };

/// An Ethernet segment through UDP packets.
struct vxlan_link {
    std::string name = {};
    std::uint32_t id = 0;  ///< below 2^24
    std::optional<ip_address> remote = {};  ///< where unknown destinations are: a host or a group
    std::optional<ip_address> local = {};  ///< the source of the packets outside
    int parent = 0;  ///< what they go out by; 0: as the routes say
    std::uint16_t port = 4789;  ///< of UDP
    vxlan_learning learning = vxlan_learning::on;
    int netns = -1;
    std::optional<mac_address> mac = {};
    std::optional<std::uint32_t> mtu = {};
};

/// An interface that takes everything and gives nothing: a place for addresses.
struct dummy_link {
    std::string name = {};
    int netns = -1;
    std::optional<mac_address> mac = {};
    std::optional<std::uint32_t> mtu = {};
};

/// An interface that what others receive can be led through, to be shaped (traffic.hpp).
struct ifb_link {
    std::string name = {};
    int netns = -1;
    std::optional<mac_address> mac = {};
    std::optional<std::uint32_t> mtu = {};
};

namespace detail {

/// The head of a request for a link of `kind`; `put_data` adds what is the kind's own.
template <class Link, class PutData>
void put_new_link(netlink_batch& batch, const Link& link, int parent, const char* operation,
                  const char* kind, const char* module, PutData&& put_data) {
    batch.add(RTM_NEWLINK, create_flags, ifinfomsg{}, {operation, link.name, module});
    put_link_basics(batch, link.name, link.mac, link.mtu);
    if (link.netns >= 0) batch.u32(IFLA_NET_NS_FD, static_cast<std::uint32_t>(link.netns));
    if (parent != 0) batch.u32(IFLA_LINK, static_cast<std::uint32_t>(parent));
    const auto info = batch.nested(IFLA_LINKINFO);
    batch.text(IFLA_INFO_KIND, kind);
    const auto data = batch.nested(IFLA_INFO_DATA);
    put_data();
}

}  // namespace detail

/// Requests a macvlan. Errors: EEXIST; ENODEV without the parent; EBUSY on a parent that is a
/// bridge's port; EINVAL for a second one where the first has the parent to itself.
inline void create_macvlan(netlink_batch& batch, const macvlan_link& link) {
    detail::put_new_link(batch, link, link.parent, "create macvlan", "macvlan", "macvlan", [&] {
        batch.u32(IFLA_MACVLAN_MODE, static_cast<std::uint32_t>(link.mode));
    });
}

/// Requests a vlan. Errors: invalid_input for an id that cannot be; EEXIST when the name, or the id
/// on this parent, is taken; ENODEV.
inline void create_vlan(netlink_batch& batch, const vlan_link& link) {
    if (link.id == 0 || link.id > 4094)
        throw invalid_input("vlan", std::to_string(link.id), "It must be from 1 to 4094.");
    detail::put_new_link(batch, link, link.parent, "create vlan", "vlan", "8021q", [&] {
        batch.u16(IFLA_VLAN_ID, link.id);
        batch.be16(IFLA_VLAN_PROTOCOL, static_cast<std::uint16_t>(link.protocol));
    });
}

/// Requests a vxlan. Errors: invalid_input for an id that cannot be, or addresses of two families;
/// EEXIST when the name, or the id at this port, is taken.
inline void create_vxlan(netlink_batch& batch, const vxlan_link& link) {
    if (link.id >> 24 != 0)
        throw invalid_input("vxlan", std::to_string(link.id), "It must be below 16777216.");
    if (link.remote && link.local && link.remote->family() != link.local->family())
        throw invalid_input("vxlan", to_string(*link.remote),
                            "It is not of the family of " + to_string(*link.local) + ".");
    detail::put_new_link(batch, link, 0, "create vxlan", "vxlan", "vxlan", [&] {
        batch.u32(IFLA_VXLAN_ID, link.id);
        if (link.remote)
            batch.address(link.remote->is_v4() ? IFLA_VXLAN_GROUP : IFLA_VXLAN_GROUP6,
                          *link.remote);
        if (link.local)
            batch.address(link.local->is_v4() ? IFLA_VXLAN_LOCAL : IFLA_VXLAN_LOCAL6, *link.local);
        if (link.parent != 0) batch.u32(IFLA_VXLAN_LINK, static_cast<std::uint32_t>(link.parent));
        batch.be16(IFLA_VXLAN_PORT, link.port);
        batch.u8(IFLA_VXLAN_LEARNING, link.learning == vxlan_learning::on ? 1 : 0);
    });
}

/// Requests a dummy. Errors: EEXIST.
inline void create_dummy(netlink_batch& batch, const dummy_link& link) {
    detail::put_new_link(batch, link, 0, "create dummy", "dummy", "dummy", [] {});
}

/// Requests an ifb. Errors: EEXIST.
inline void create_ifb(netlink_batch& batch, const ifb_link& link) {
    detail::put_new_link(batch, link, 0, "create ifb", "ifb", "ifb", [] {});
}

}  // namespace kumiki::inline v0
