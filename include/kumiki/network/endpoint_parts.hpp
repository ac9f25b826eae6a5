// What a connected container is made of, and its links in the kernel: the veth pair, what is set inside,
// devices of the host's that it has beside. Not for users: endpoint.hpp is.
//
// Kernel: as bridge_network.hpp.
#pragma once

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <kumiki/core/error.hpp>
#include <kumiki/core/ip.hpp>
#include <kumiki/core/observer.hpp>
#include <kumiki/core/unique_fd.hpp>
#include <kumiki/netlink/address.hpp>
#include <kumiki/netlink/link.hpp>
#include <kumiki/netlink/mac.hpp>
#include <kumiki/netlink/neighbour.hpp>
#include <kumiki/netlink/route.hpp>
#include <kumiki/netlink/socket.hpp>
#include <kumiki/network/bridge_network.hpp>
#include <kumiki/network/firewall_rules.hpp>
#include <kumiki/network/interface_settings.hpp>
#include <kumiki/network/leases.hpp>
#include <kumiki/network/moved_link.hpp>
#include <kumiki/network/network_state.hpp>
#include <kumiki/network/port_name.hpp>
#include <kumiki/network/port_reservation.hpp>
#include <kumiki/network/shaping.hpp>
#include <kumiki/sys/netns.hpp>

namespace kumiki::inline v0::detail {

/// What an endpoint holds beside the kernel objects that it makes.
struct endpoint_parts {
    network_attachment attachment;
    std::string container;
    address_lease lease4;
    std::optional<address_lease> lease6 = {};
    port_reservation ports = {};
    firewall_rules rules = {};
    std::vector<moved_link> devices = {};  // away from home

    std::string link_name() const {
        return port_name(attachment.network->bridge.index, lease4.offset());
    }
    // The helper that shapes what comes from the container; empty without one.
    std::string shaper_name() const {
        return attachment.options.shape.from_container.is_none() ? "" : shaper_of(link_name());
    }
    std::string alias() const { return attachment.network->alias() + ":" + container; }
    mac_address mac() const {
        return attachment.options.mac.value_or(mac_address::from(lease4.address()));
    }
};

/// Another socket of the protocol NETLINK_ROUTE in the namespace of `socket`; nothing when there can be no
/// more descriptors or threads.
inline std::optional<netlink_socket> open_beside(const netlink_socket& socket) {
    try {
        const unique_fd netns = sys::network_namespace_of(socket.fd());
        return netlink_socket::open_in(netns.get(), NETLINK_ROUTE);
    } catch (const error&) {
        return std::nullopt;
    }
}

/// Deletes the pair, and the shaper. That they are gone already is no error. Errors: kumiki::error.
inline void delete_pair(netlink_socket& route, const endpoint_parts& parts) {
    netlink_batch batch;
    delete_link(batch, parts.rules.port);
    if (const auto shaper = parts.shaper_name(); !shaper.empty()) delete_link(batch, shaper);
    for (const netlink_failure& failure : route.submit(batch))
        if (failure.code != ENODEV) throw to_error(batch, failure);
}
/// Returns the host's end, which knows the index that the other has in its namespace.
/// Errors: kumiki::error, with nothing left.
inline link_info make_pair(network_state& network, const endpoint_parts& parts, int netns_fd) {
    const std::string& name = parts.rules.port;
    netlink_batch batch;
    create_veth(batch, {.name = name,
                        .peer_name = parts.attachment.options.interface,
                        .peer_netns = netns_fd,
                        .peer_mac = parts.mac(),
                        .mtu = network.bridge.mtu,
                        .master = network.bridge.index});
    get_link(batch, name);  // now: after `up` the kernel would wait for the carrier first
    set_link(batch, name,
             {.alias = parts.alias(), .no_link_local = network.has_ipv6, .hairpin = true});
    set_link(batch, name, {.up = true});
    link_info made;
    const auto failures = network.route.submit(
        batch, [&](std::size_t, const netlink_message& m) { made = parse_link(m); });
    if (failures.empty()) return made;
    // The first request made the pair, or nothing did (then the name may be another's).
    if (failures.front().index != 0) release_quietly([&] { delete_pair(network.route, parts); });
    throw to_error(batch, failures.front());
}

/// Lets the first packets pass at once, each way: otherwise they would be lost, or ask for their neighbour
/// again a second later. The kernel lets a port pass packets, and an interface send, only when a worker of
/// its own has seen that the other end is up; who asks for the link makes it look now (Linux 6.8, commit
/// facd15dfd691; before, nobody waits for the worker). And who is where is told, so that nobody needs to
/// ask. Nothing depends on it: a failure is none.
inline void settle_port(network_state& network, const endpoint_parts& parts,
                        const link_info& port) {
    netlink_batch batch;
    get_link(batch, port.index);
    get_link(batch, network.bridge.index);
    introduce_to_bridge(batch, port.index, parts.mac());
    for (const ip_address& address : parts.rules.addresses)
        introduce_neighbour(batch, network.bridge.index, address, parts.mac());
    (void)network.route.submit(batch, [](std::size_t, const netlink_message&) {});
}

/// Errors: kumiki::error; what was moved is in `parts` then, too.
inline void move_devices(const network_state& network, endpoint_parts& parts, int netns_fd) {
    if (parts.attachment.options.devices.empty()) return;
    const unique_fd home = sys::network_namespace_of(network.route.fd());
    for (const moved_device& each : parts.attachment.options.devices)
        parts.devices.push_back(moved_link::move_from(
            netlink_socket::open_in(home.get(), NETLINK_ROUTE), netns_fd, each.link, each.inside));
}

/// What is set of the container's interface, but for what the user has set.
inline std::vector<std::pair<ipv4_setting, std::uint32_t>> unless_wanted(
    const attach_options& wanted) {
    std::vector<std::pair<ipv4_setting, std::uint32_t>> all;
    for (const auto& [key, setting] :
         {std::pair("forwarding", ipv4_setting::forwarding),
          std::pair("accept_redirects", ipv4_setting::accept_redirects)})
        if (std::none_of(wanted.settings.begin(), wanted.settings.end(),
                         [name = key](const interface_setting& each) {
                             return each.family == ip_family::v4 && each.key == name;
                         }))
            all.emplace_back(setting, 0);
    return all;
}

/// Addresses, routes and settings in the container's namespace, of which `inside` is.
/// Errors: unsupported where IPv6 is switched off in that and the network has it; kumiki::error.
inline void set_up_inside(const network_state& network, const endpoint_parts& parts, int netns_fd,
                          netlink_socket inside, int link) {
    const attach_options& wanted = parts.attachment.options;
    write_settings(netns_fd, wanted.interface, wanted.settings);
    if (wanted.checksum == checksums::computed)
        set_checksums(netns_fd, wanted.interface, wanted.checksum);
    netlink_batch batch;
    set_link(batch, "lo", {.up = true});
    // What a new namespace's settings begin with depends on the host's
    // (net.core.devconf_inherit_init_net): what matters is set.
    set_link(batch, link, {.no_link_local = network.has_ipv6, .ipv4 = unless_wanted(wanted)});
    const auto give = [&](const address_lease& lease) {
        add_address(batch, link, lease.with_prefix(), prefix_route::no);
    };
    give(parts.lease4);
    if (parts.lease6) {
        give(*parts.lease6);
        add_address(batch, link, parts.mac().link_local());
    }
    set_link(batch, link, {.up = true});
    // The gateway is all that is on the link: siblings are reached through it, so that the
    // host's rules hold between them.
    const auto way_out = [&](const ip_address& gateway) {
        add_route(batch, {.destination = {.address = gateway,
                                          .prefix = static_cast<std::uint8_t>(gateway.bits())},
                          .link = link});
        add_route(batch, default_route(gateway, link));
        if (network.is_own_bridge() && network.bridge.mac)  // another's may change
            introduce_neighbour(batch, link, gateway, *network.bridge.mac);
    };
    way_out(network.pool4->gateway());
    if (parts.lease6) way_out(network.pool6->gateway());
    get_link(batch, link);  // as in settle_port()
    const auto failures = inside.submit(batch);
    // The table of neighbours is one for all of the host's namespaces, and may be full: then the
    // gateway is asked for, as it would be.
    const auto failed = std::ranges::find_if(failures, [&](const netlink_failure& each) {
        return each.code != ENOBUFS || batch.note(each.index).operation != introducing;
    });
    if (failed == failures.end()) return;
    const error failure = to_error(batch, *failed);
    if (failure.errno_value() != EACCES || !parts.lease6) throw failure;
    error_context context = failure.context();
    context.remedy =
        "IPv6 is switched off in the container's network namespace: set disable_ipv6 of its "
        "interface to 0 (attach_options::settings), or leave out the network's subnet6.";
    throw unsupported(EACCES, std::move(context), failure.where());
}

}  // namespace kumiki::inline v0::detail
