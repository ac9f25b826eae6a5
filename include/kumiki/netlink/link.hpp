// Network interfaces over rtnetlink: requests that create, change and delete them, for a batch,
// and that look up those that are there (link_info.hpp).
//
// rtnetlink(7): RTM_NEWLINK, RTM_SETLINK, RTM_DELLINK, RTM_GETLINK; Linux 5.10 has all of it. Each
// request takes the kernel's one RTNL lock, so they are made to be few: a veth pair is made with
// its peer already in the other namespace, named and addressed, in one message.
// Left out: other kinds than bridge and veth (link_kinds.hpp); traffic control (traffic.hpp).
#pragma once

#include <linux/rtnetlink.h>
#include <linux/veth.h>
#include <sys/socket.h>

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <kumiki/core/error.hpp>
#include <kumiki/netlink/link_info.hpp>
#include <kumiki/netlink/mac.hpp>
#include <kumiki/netlink/message.hpp>
#include <kumiki/netlink/socket.hpp>
#include <kumiki/netlink/view.hpp>

namespace kumiki::inline v0 {

/// Names an interface in a request: by index, or by name.
struct link_ref {
    link_ref(int by_index) : index(by_index) {}  // NOLINT(google-explicit-constructor)
    link_ref(std::string by_name) : name(require_link_name(std::move(by_name))) {}  // NOLINT
    link_ref(const char* by_name) : link_ref(std::string(by_name)) {}               // NOLINT

    int index = 0;
    std::string name = {};
};

inline std::string to_string(const link_ref& link) {
    return link.name.empty() ? "interface " + std::to_string(link.index) : link.name;
}

/// IPv4 settings of one interface (the files below /proc/sys/net/ipv4/conf), set by netlink: so it
/// does not matter whose /proc is mounted where. The values are IPV4_DEVCONF_* of <linux/ip.h>.
enum class ipv4_setting : std::uint8_t {
    forwarding = 1,
    accept_redirects = 4,
    send_redirects = 6,
    rp_filter = 8,
    route_localnet = 26,
};

/// What to change of an interface; what is not set stays as it is.
struct link_change {
    std::optional<bool> up = {};
    std::optional<std::uint32_t> mtu = {};
    std::optional<mac_address> mac = {};
    std::optional<int> master = {};  ///< index of the bridge; 0: none
    std::string alias = {};          ///< text that others see in `ip link`; empty: as it is
    bool no_link_local = false;      ///< no fe80:: address is made when it goes up
    std::optional<bool> isolated = {};  ///< as a bridge's port: speaks with no other isolated port
    std::optional<bool> hairpin = {};  ///< as a bridge's port: may be sent what came from it
    std::vector<std::pair<ipv4_setting, std::uint32_t>> ipv4 = {};
};

struct bridge_link {
    std::string name;
    std::optional<mac_address> mac = {};  ///< none: that of the lowest port, changing with them
    std::optional<std::uint32_t> mtu = {};
};

struct veth_link {
    std::string name;
    std::string peer_name;
    int peer_netns = -1;  ///< descriptor of the namespace in which the peer is born; -1: here
    std::optional<mac_address> mac = {};
    std::optional<mac_address> peer_mac = {};
    std::optional<std::uint32_t> mtu = {};  ///< of both ends
    int master = 0;  ///< the bridge that this end is made a port of
};

namespace detail {

inline void put_link_ref(netlink_batch& batch, std::uint16_t type, unsigned flags,
                         const link_ref& link, const char* operation, ifinfomsg header = {}) {
    header.ifi_index = link.index;
    batch.add(type, flags, header, {operation, to_string(link)});
    if (!link.name.empty()) batch.text(IFLA_IFNAME, link.name);
}

inline void put_link_basics(netlink_batch& batch, const std::string& name,
                            const std::optional<mac_address>& mac,
                            const std::optional<std::uint32_t>& mtu) {
    batch.text(IFLA_IFNAME, require_link_name(name));
    if (mac) batch.data(IFLA_ADDRESS, std::as_bytes(std::span(mac->octets)));
    if (mtu) batch.u32(IFLA_MTU, *mtu);
}

inline constexpr unsigned create_flags = NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL;

}  // namespace detail

/// Requests a bridge without spanning tree and multicast snooping, that learns nothing from frames
/// for bridges themselves (LLDP ...): no packet filter sees them. Errors: EEXIST.
inline void create_bridge(netlink_batch& batch, const bridge_link& bridge) {
    batch.add(RTM_NEWLINK, detail::create_flags, ifinfomsg{}, {"create bridge", bridge.name});
    detail::put_link_basics(batch, bridge.name, bridge.mac, bridge.mtu);
    const auto info = batch.nested(IFLA_LINKINFO);
    batch.text(IFLA_INFO_KIND, "bridge");
    const auto data = batch.nested(IFLA_INFO_DATA);
    batch.u8(IFLA_BR_MCAST_SNOOPING, 0);
    constexpr std::uint32_t no_link_local_learning = 1U << 0;  // Linux 5.0: BR_BOOLOPT_NO_LL_LEARN
    const std::uint32_t value_and_mask[] = {no_link_local_learning, no_link_local_learning};
    batch.data(IFLA_BR_MULTI_BOOLOPT, std::as_bytes(std::span(value_and_mask)));
}

/// Requests a veth pair, each end with the one queue that the kernel would use of those that it
/// makes for each processor: so the pair is made in less time, without waiting for RCU. Both ends
/// are down. Errors: EEXIST when either name is taken.
inline void create_veth(netlink_batch& batch, const veth_link& veth) {
    batch.add(RTM_NEWLINK, detail::create_flags, ifinfomsg{}, {"create veth", veth.name});
    detail::put_link_basics(batch, veth.name, veth.mac, veth.mtu);
    const auto one_queue = [&batch] {
        batch.u32(IFLA_NUM_TX_QUEUES, 1);
        batch.u32(IFLA_NUM_RX_QUEUES, 1);
    };
    one_queue();
    if (veth.master != 0) batch.u32(IFLA_MASTER, static_cast<std::uint32_t>(veth.master));
    const auto info = batch.nested(IFLA_LINKINFO);
    batch.text(IFLA_INFO_KIND, "veth");
    const auto data = batch.nested(IFLA_INFO_DATA);
    const auto peer = batch.nested(VETH_INFO_PEER);
    batch.raw(ifinfomsg{});
    detail::put_link_basics(batch, veth.peer_name, veth.peer_mac, veth.mtu);
    one_queue();
    if (veth.peer_netns >= 0)
        batch.u32(IFLA_NET_NS_FD, static_cast<std::uint32_t>(veth.peer_netns));
}

/// Requests changes to one interface. The kernel carries `up` out before the settings: give
/// no_link_local in an earlier request than the one that brings the interface up.
inline void set_link(netlink_batch& batch, const link_ref& link, const link_change& change) {
    ifinfomsg header{};
    header.ifi_change = change.up ? detail::link_flag_up : 0;
    header.ifi_flags = change.up.value_or(false) ? detail::link_flag_up : 0;
    // RTM_NEWLINK without NLM_F_CREATE: RTM_SETLINK does not know the settings of a bridge's port.
    detail::put_link_ref(batch, RTM_NEWLINK, NLM_F_ACK, link, "change link", header);
    if (change.mtu) batch.u32(IFLA_MTU, *change.mtu);
    if (change.mac) batch.data(IFLA_ADDRESS, std::as_bytes(std::span(change.mac->octets)));
    if (change.master) batch.u32(IFLA_MASTER, static_cast<std::uint32_t>(*change.master));
    if (!change.alias.empty()) batch.data(IFLA_IFALIAS, std::as_bytes(std::span(change.alias)));
    if (change.isolated || change.hairpin) {
        const auto info = batch.nested(IFLA_LINKINFO);
        batch.text(IFLA_INFO_SLAVE_KIND, "bridge");
        const auto data = batch.nested(IFLA_INFO_SLAVE_DATA);
        if (change.isolated) batch.u8(IFLA_BRPORT_ISOLATED, *change.isolated ? 1 : 0);
        if (change.hairpin) batch.u8(IFLA_BRPORT_MODE, *change.hairpin ? 1 : 0);
    }
    if (change.ipv4.empty() && !change.no_link_local) return;
    const auto families = batch.nested(IFLA_AF_SPEC);
    if (!change.ipv4.empty()) {
        const auto family = batch.nested(AF_INET);
        const auto settings = batch.nested(IFLA_INET_CONF);
        for (const auto& [setting, value] : change.ipv4)
            batch.u32(static_cast<std::uint16_t>(setting), value);
    }
    if (change.no_link_local) {
        const auto family = batch.nested(AF_INET6);
        batch.u8(IFLA_INET6_ADDR_GEN_MODE, IN6_ADDR_GEN_MODE_NONE);
    }
}

/// Requests the removal of an interface (of a veth: with its peer). Errors: ENODEV.
inline void delete_link(netlink_batch& batch, const link_ref& link) {
    detail::put_link_ref(batch, RTM_DELLINK, NLM_F_ACK, link, "delete link");
}

/// Requests what the kernel knows of one interface; parse_link() reads the answer. Errors: ENODEV.
inline void get_link(netlink_batch& batch, const link_ref& link) {
    detail::put_link_ref(batch, RTM_GETLINK, NLM_F_ACK, link, "look up link");
}

/// The interface, or nothing when there is none of that name or index.
inline std::optional<link_info> find_link(netlink_socket& socket, const link_ref& link) {
    netlink_batch batch;
    get_link(batch, link);
    std::optional<link_info> found;
    const auto failures = socket.submit(
        batch, [&](std::size_t, const netlink_message& message) { found = parse_link(message); });
    if (!failures.empty() && failures.front().code != ENODEV)
        throw to_error(batch, failures.front());
    return found;
}

/// All interfaces of the socket's network namespace.
inline std::vector<link_info> list_links(netlink_socket& socket) {
    netlink_batch batch;
    batch.add(RTM_GETLINK, NLM_F_DUMP, ifinfomsg{}, {"list links"});
    return socket.dump(
        batch, [](const netlink_message& message) { return std::optional(parse_link(message)); });
}

}  // namespace kumiki::inline v0
