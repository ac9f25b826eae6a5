// What one process holds of a bridge network: the bridge, the tables, the pools of addresses, and
// its presence among the processes that share them. Not for users: bridge_network.hpp is.
//
// All kernel objects of a network are made by the first process that opens it and removed by the
// last one that goes; what a killed last one left behind is found by its names and the alias on its
// interfaces, and removed by the next one. /run/kumiki/net-COOKIE/NAME/ holds no more than locks.
#pragma once

#include <fcntl.h>
#include <unistd.h>

#include <cstdint>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <kumiki/core/error.hpp>
#include <kumiki/core/ip.hpp>
#include <kumiki/core/observer.hpp>
#include <kumiki/core/scope_exit.hpp>
#include <kumiki/core/unique_fd.hpp>
#include <kumiki/netlink/address.hpp>
#include <kumiki/netlink/link.hpp>
#include <kumiki/netlink/route.hpp>
#include <kumiki/netlink/socket.hpp>
#include <kumiki/network/bridge_options.hpp>
#include <kumiki/network/endpoint_remover.hpp>
#include <kumiki/network/explain.hpp>
#include <kumiki/network/firewall.hpp>
#include <kumiki/network/forwarding.hpp>
#include <kumiki/network/leases.hpp>
#include <kumiki/network/loopback_route.hpp>
#include <kumiki/network/shared_place.hpp>
#include <kumiki/sys/file.hpp>
#include <kumiki/sys/netns.hpp>

namespace kumiki::inline v0 {

namespace detail {

class network_state {
  public:
    explicit network_state(bridge_options wanted)
        : options(require_bridge_options(std::move(wanted))),
          route(netlink_socket::open(NETLINK_ROUTE)), netns_(sys::network_namespace_of(route.fd())),
          host_(options.state_directory + "/net-" + std::to_string(route.netns_cookie()),
                [](int, bool) {}) {
        scope_exit undo([this]() noexcept { close(); });
        host_.exclusively([this](int directory) {
            own_.emplace(host_.path() + "/" + options.name,
                         [this](int own, bool alone) { open(own, alone); });
            enable_forwarding(directory, netns_.get(), options.uplinks,
                              options.subnet6 ? ip_family::v6 : ip_family::v4);
        });
        undo.dismiss();
    }
    network_state(const network_state&) = delete;
    network_state& operator=(const network_state&) = delete;
    ~network_state() { close(); }

    std::string bridge_name() const { return std::string(bridge_prefix) + options.name; }
    /// The text that marks interfaces as this network's.
    std::string alias() const { return "kumiki:" + options.name; }

    /// The rules of this network as far as this process knows them.
    network_rules rules() {
        const std::lock_guard guard(mutex);
        network_rules known{wall->options(), {}};
        for (const auto& [name, each] : wall->connected()) known.containers.push_back(each);
        return known;
    }
    /// The host's own addresses, and its routes.
    host_view host() {
        const std::lock_guard guard(mutex);
        host_view seen;
        std::map<int, std::string> names;
        for (const link_info& each : list_links(route)) names[each.index] = each.name;
        for (const route_info& each : list_routes(route))
            seen.routes.push_back({each.destination, names[each.link]});
        for (const address_info& each : list_addresses(route))
            seen.addresses.push_back(each.address.address);
        return seen;
    }

    bridge_options options;
    netlink_socket route;
    link_info bridge = {};
    bool has_ipv6 = false;  // in the kernel: it may be unused here
    std::optional<address_pool> pool4 = {};
    std::optional<address_pool> pool6 = {};
    std::optional<firewall> wall = {};
    std::optional<endpoint_remover> remover = {};
    std::mutex mutex = {};  // of route and wall: sockets that are used by one thread at a time

  private:
    // Runs while no other process can open or leave this network.
    void open(int directory, bool alone) {
        const std::string settings = describe();
        if (!alone) {
            const auto theirs = sys::try_read_file_at(directory, "settings").value_or("");
            if (theirs != settings)
                throw error(EEXIST, {.operation = "open network",
                                     .object = options.name,
                                     .remedy = "It is open with other settings: " + theirs});
        }
        scope_exit undo([&]() noexcept {
            if (alone) remove_all(directory);
        });
        const auto firewall_for = [this] {
            std::vector<cidr> subnets{options.subnet};
            if (options.subnet6) subnets.push_back(*options.subnet6);
            return firewall::open(
                {.network = options.name, .bridge = bridge_name(), .subnets = subnets});
        };
        if (alone) {
            require_name_free();
            delete_links();
            require_no_overlap(options.subnet);
            if (options.subnet6) require_no_overlap(*options.subnet6);
            firewall_for().remove();
            make_bridge();
            sys::open_at(directory, "settings", O_WRONLY | O_CREAT | O_TRUNC, 0600);
            sys::write_file_at(directory, "settings", settings);
        }
        const auto found = find_link(route, bridge_name());
        if (!found)
            throw error(ENODEV, {.operation = "open network",
                                 .object = options.name,
                                 .remedy = "Its bridge " + bridge_name() +
                                           " was deleted while others use it."});
        bridge = *found;
        has_ipv6 = bridge.has_ipv6;
        wall.emplace(firewall_for());
        pool4.emplace(options.subnet, directory, "leases4");
        if (options.subnet6) pool6.emplace(*options.subnet6, directory, "leases6");
        remover.emplace(netlink_socket::open(NETLINK_ROUTE),
                        netlink_socket::open(NETLINK_NETFILTER));
        undo.dismiss();
    }
    std::string describe() const {
        return to_string(options.subnet) +
               (options.subnet6 ? " " + to_string(*options.subnet6) : "") +
               (options.mtu ? " mtu " + std::to_string(*options.mtu) : "");
    }
    void require_name_free() {
        const auto link = find_link(route, bridge_name());
        if (link && link->alias != alias())
            throw error(EEXIST, {.operation = "create bridge",
                                 .object = bridge_name(),
                                 .remedy = "An interface of this name is there, not kumiki's."});
    }
    // The bridge and its ports; also those that a killed process left.
    void delete_links() {
        netlink_batch change;
        for (const link_info& link : list_links(route))
            if (link.alias == alias() || link.alias.starts_with(alias() + ":"))
                delete_link(change, link.index);
        for (const netlink_failure& failure : route.submit(change))
            if (failure.code != ENODEV) throw to_error(change, failure);
    }
    void require_no_overlap(const cidr& subnet) {
        for (const route_info& taken : list_routes(route))
            if (!taken.is_default() && taken.destination.overlaps(subnet))
                throw invalid_input("subnet", to_string(subnet),
                                    "It overlaps the host's route " + to_string(taken) +
                                        link_text(taken.link) + ".");
    }
    std::string link_text(int index) {
        const auto link = find_link(route, index);
        return link ? " on " + link->name : "";
    }
    std::uint32_t uplink_mtu() {
        for (const route_info& way : list_routes(route))
            if (way.is_default() && way.link != 0)
                if (const auto link = find_link(route, way.link)) return link->mtu;
        return 1500;
    }
    void make_bridge() {
        const ip_address gateway4 = options.subnet.network().plus(1);
        const mac_address mac = mac_address::from(gateway4, 1);
        netlink_batch make;
        create_bridge(
            make,
            {.name = bridge_name(), .mac = mac, .mtu = options.mtu ? *options.mtu : uplink_mtu()});
        get_link(make, bridge_name());
        link_info made;
        route.transact(make, [&](std::size_t, const netlink_message& m) { made = parse_link(m); });
        if (options.subnet6 && !made.has_ipv6)
            throw unsupported(EAFNOSUPPORT, {.operation = "open network",
                                             .object = options.name,
                                             .remedy = "IPv6 is off in this kernel: leave out the "
                                                       "network's subnet6."});
        if (made.has_ipv6)
            sys::in_network_namespace(netns_.get(), [&] {
                // Containers must not become the host's routers (CVE-2020-10749).
                for (const char* key : {"/accept_ra", "/accept_redirects"})
                    write_net_setting("ipv6/conf/" + made.name + key, "0");
            });
        netlink_batch setup;
        set_link(setup, made.index,
                 {.alias = alias(),
                  .no_link_local = made.has_ipv6,
                  .ipv4 = {{ipv4_setting::forwarding, 1},
                           {ipv4_setting::route_localnet, 1},  // the firewall guards it
                           {ipv4_setting::rp_filter, 2},
                           {ipv4_setting::accept_redirects, 0},
                           {ipv4_setting::send_redirects, 0}}});
        add_address(setup, made.index, {.address = gateway4, .prefix = options.subnet.prefix});
        if (options.subnet6) {
            add_address(
                setup, made.index,
                {.address = options.subnet6->network().plus(1), .prefix = options.subnet6->prefix});
            add_address(setup, made.index, mac.link_local());
        }
        set_link(setup, made.index, {.up = true});
        if (options.subnet6) add_loopback_route(setup, made.index);
        route.transact(setup);
    }
    void remove_all(int directory) noexcept {
        release_quietly([this] {
            if (wall) wall->remove();
        });
        release_quietly([this] { delete_links(); });
        for (const char* file : {"settings", "leases4", "leases6"}) ::unlinkat(directory, file, 0);
    }
    void close() noexcept {
        remover.reset();  // its leases are the pools'
        release_quietly([this] {
            if (own_)
                own_->leave([this](int directory, bool alone) {
                    if (alone) remove_all(directory);
                });
        });
        release_quietly([this] {
            host_.leave([this](int directory, bool alone) {
                if (alone) restore_forwarding(directory, netns_.get());
            });
        });
    }

    unique_fd netns_;
    shared_place host_;
    std::optional<shared_place> own_ = {};
};

}  // namespace detail
}  // namespace kumiki::inline v0
