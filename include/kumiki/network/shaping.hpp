// How the packets to and from a container are shaped: limited, delayed and lost on purpose.
//
// Both ways at the host's end of the veth pair, so that the container cannot undo it: what goes to the
// container is what that end sends; what comes from it is led through an ifb, which dies with the
// endpoint. In force before the container's interface is.
// Kernel: traffic.hpp's modules, and ifb for the way from the container.
#pragma once

#include <string>

#include <kumiki/netlink/link.hpp>
#include <kumiki/netlink/link_info.hpp>
#include <kumiki/netlink/link_kinds.hpp>
#include <kumiki/netlink/socket.hpp>
#include <kumiki/netlink/traffic.hpp>

namespace kumiki::inline v0 {

/// The shape of a container's traffic, each way of its own.
struct shaping {
    traffic_shape to_container = {};
    traffic_shape from_container = {};

    bool is_none() const noexcept { return to_container.is_none() && from_container.is_none(); }
};

namespace detail {

/// Shapes what passes the host's end `port` of a container's pair; `ifb` and `alias` are the name
/// and mark of the helper for what comes from the container, which is the caller's to delete.
inline void shape_port(netlink_socket& socket, const link_info& port, const shaping& shape,
                       const std::string& ifb, const std::string& alias) {
    netlink_batch batch;
    shape_link(batch, port.index, port.mtu, shape.to_container);
    const bool both = !shape.from_container.is_none();
    if (both) {
        create_ifb(batch, {.name = ifb, .mtu = port.mtu});
        set_link(batch, ifb, {.alias = alias, .no_link_local = port.has_ipv6});
        set_link(batch, ifb, {.up = true});
        get_link(batch, ifb);
    }
    link_info helper;
    socket.transact(batch, [&](std::size_t, const netlink_message& m) { helper = parse_link(m); });
    if (!both) return;
    netlink_batch way;
    shape_link(way, helper.index, port.mtu, shape.from_container);
    lead_received(way, port.index, helper.index);
    socket.transact(way);
}

}  // namespace detail
}  // namespace kumiki::inline v0
