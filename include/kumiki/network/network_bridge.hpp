// A network's bridge and its subnets: chosen, checked against the host's routes, made. Not for users:
// bridge_network.hpp is. (One that was there before is existing_bridge.hpp's.)
#pragma once

#include <fcntl.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include <kumiki/core/error.hpp>
#include <kumiki/core/ip.hpp>
#include <kumiki/core/observer.hpp>
#include <kumiki/core/text.hpp>
#include <kumiki/netlink/address.hpp>
#include <kumiki/netlink/link.hpp>
#include <kumiki/netlink/mac.hpp>
#include <kumiki/netlink/route.hpp>
#include <kumiki/netlink/socket.hpp>
#include <kumiki/network/bridge_options.hpp>
#include <kumiki/network/forwarding.hpp>
#include <kumiki/network/host_firewall.hpp>
#include <kumiki/network/loopback_route.hpp>
#include <kumiki/network/ruleset.hpp>
#include <kumiki/network/subnets.hpp>
#include <kumiki/sys/file.hpp>
#include <kumiki/sys/netns.hpp>

namespace kumiki::inline v0::detail {

inline std::vector<cidr> subnets_of(const bridge_options& options) {
    std::vector<cidr> all{options.subnet};
    if (options.subnet6) all.push_back(*options.subnet6);
    return all;
}
/// The host's addresses in them: the first of each.
inline std::vector<cidr> gateways_of(const bridge_options& options) {
    std::vector<cidr> all = subnets_of(options);
    for (cidr& each : all) each.address = gateway_of(each);
    return all;
}

/// Errors: EEXIST when an interface of this name is there that is not the network's.
inline void require_free_name(netlink_socket& route, const std::string& name,
                              const std::string& alias) {
    const auto link = find_link(route, name);
    if (link && link->alias != alias)
        throw error(EEXIST, {.operation = "create bridge",
                             .object = name,
                             .remedy = "An interface of this name is there, not kumiki's."});
}

/// True when somebody is on the bridge with this index already.
inline bool has_ports(netlink_socket& route, int bridge) {
    const auto links = list_links(route);
    return std::any_of(links.begin(), links.end(),
                       [&](const link_info& each) { return each.master == bridge; });
}

/// Chooses what was left to be chosen. `bridge`: the index of an existing one, or 0; one without ports
/// gives the network that it has. Errors: as choose_subnet().
inline void choose_subnets(bridge_options& options, netlink_socket& route, int bridge) {
    if (is_chosen(options.subnet) && bridge != 0 && !has_ports(route, bridge))
        for (const address_info& each : list_addresses(route, bridge))
            if (each.address.address.is_v4() && each.address.prefix <= 30 &&
                each.address.address == gateway_of(each.address))
                options.subnet = {.address = each.address.network(), .prefix = each.address.prefix};
    if (is_chosen(options.subnet))
        options.subnet = choose_subnet(
            route, options.pools.empty() ? default_subnet_pools() : options.pools, chosen_prefix);
    if (options.subnet6 && is_chosen(*options.subnet6)) options.subnet6 = choose_subnet6(route);
}

/// Errors: invalid_input with the host's route that leads into `subnet`; but for those of the bridge with
/// the index `bridge`, where nobody is on it.
inline void require_no_overlap(netlink_socket& route, const cidr& subnet, int bridge) {
    for (const route_info& taken : list_routes(route)) {
        if (taken.is_default() || !taken.destination.overlaps(subnet) ||
            (bridge != 0 && taken.link == bridge && !has_ports(route, bridge)))
            continue;
        const auto link = find_link(route, taken.link);
        throw invalid_input("subnet", to_string(subnet),
                            "It overlaps the host's route " + to_string(taken) +
                                (link ? " on " + link->name : "") + ".");
    }
}

/// The MTU of the way to the outside.
inline std::uint32_t uplink_mtu(netlink_socket& route) {
    for (const route_info& way : list_routes(route))
        if (way.is_default() && way.link != 0)
            if (const auto link = find_link(route, way.link)) return link->mtu;
    return 1500;
}

/// Errors: unsupported with the reason when the bridge can have no IPv6 address: the kernel was started
/// without IPv6, the MTU is below its least, or it is switched off for new interfaces.
inline void require_ipv6(int netns, const link_info& bridge, const std::string& network) {
    constexpr std::uint32_t least_mtu = 1280;  // RFC 8200, 5
    std::string reason;
    if (bridge.mtu < least_mtu)
        reason = "IPv6 needs an MTU of 1280, and that of " + bridge.name + " is " +
                 std::to_string(bridge.mtu) + ": set a greater one, or";
    else if (!bridge.has_ipv6)
        reason = "IPv6 is off in this kernel:";
    else if (sys::in_network_namespace(netns, [&] {
                 const std::string key = "ipv6/conf/" + bridge.name + "/disable_ipv6";
                 return trim(sys::read_file_at(AT_FDCWD, "/proc/sys/net/" + key)) != "0";
             }))
        reason = "IPv6 is switched off for " + bridge.name +
                 ": set net.ipv6.conf.default.disable_ipv6 (of a bridge that was there before: its "
                 "own) to 0, or";
    else
        return;
    throw unsupported(EAFNOSUPPORT, {.operation = "open network",
                                     .object = network,
                                     .remedy = reason + " leave out the network's subnet6."});
}

/// Makes a network's bridge with its addresses and settings, and brings it up. Killed in the middle of it,
/// this process leaves a bridge that is known by its alias. Errors: kumiki::error.
inline void make_bridge(netlink_socket& route, int netns, const bridge_options& options,
                        const std::string& name, const std::string& alias) {
    const ip_address gateway4 = gateway_of(options.subnet);
    const mac_address mac = mac_address::from(gateway4, 1);
    netlink_batch make;
    create_bridge(
        make, {.name = name, .mac = mac, .mtu = options.mtu ? *options.mtu : uplink_mtu(route)});
    // In the same system call.
    set_link(make, name, {.alias = alias});
    get_link(make, name);
    link_info made;
    route.transact(make, [&](std::size_t, const netlink_message& m) { made = parse_link(m); });
    if (options.subnet6) require_ipv6(netns, made, options.name);
    if (made.has_ipv6)
        sys::in_network_namespace(netns, [&] {
            // Containers must not become the host's routers (CVE-2020-10749).
            for (const char* key : {"/accept_ra", "/accept_redirects"})
                write_net_setting("ipv6/conf/" + made.name + key, "0");
        });
    netlink_batch setup;
    set_link(setup, made.index,
             {.no_link_local = made.has_ipv6,
              .ipv4 = {{ipv4_setting::forwarding, 1},
                       {ipv4_setting::route_localnet, 1},  // the firewall guards it
                       {ipv4_setting::rp_filter, 2},
                       {ipv4_setting::accept_redirects, 0},
                       {ipv4_setting::send_redirects, 0}}});
    add_address(setup, made.index, {.address = gateway4, .prefix = options.subnet.prefix});
    if (options.subnet6) {
        add_address(setup, made.index,
                    {.address = gateway_of(*options.subnet6), .prefix = options.subnet6->prefix});
        add_address(setup, made.index, mac.link_local());
    }
    set_link(setup, made.index, {.up = true});
    if (options.subnet6) add_loopback_route(setup, made.index);
    route.transact(setup);
}

/// Tells the observer what a person has to know of a new network, or to do for it.
inline void tell_obstacles(int netns, const bridge_options& options, const std::string& bridge) {
    if (current_observer.load() == nullptr) return;
    report_notice("route_localnet was switched on for " + bridge +
                  " alone, so that published ports are reached by 127.0.0.1; the table kumiki-" +
                  options.name + " drops what comes to 127.0.0.0/8 from elsewhere");
    try {
        for (const firewall_obstacle& each : find_obstacles(netns, bridge, options.names))
            report_notice(to_string(each));
        if (options.subnet6)
            if (const auto told = loopback_obstacle(netns, bridge)) report_notice(*told);
    } catch (const error& failure) {  // theirs could not be read: that stops nobody
        report_notice(failure.what());
    }
}

}  // namespace kumiki::inline v0::detail
