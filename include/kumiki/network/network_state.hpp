// What one process holds of a bridge network: the bridge, the tables, the pools of addresses, and
// its presence among the processes that share them. Not for users: bridge_network.hpp is.
//
// All kernel objects of a network are made by the first process that opens it and removed by the
// last one that goes; what a killed last one left behind is found by its names and the alias on its
// interfaces, and removed by the next one. /run/kumiki/net-COOKIE/NAME/ holds no more than locks.
#pragma once

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <initializer_list>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <kumiki/core/error.hpp>
#include <kumiki/core/ip.hpp>
#include <kumiki/core/observer.hpp>
#include <kumiki/core/scope_exit.hpp>
#include <kumiki/core/text.hpp>
#include <kumiki/core/unique_fd.hpp>
#include <kumiki/netlink/address.hpp>
#include <kumiki/netlink/link.hpp>
#include <kumiki/netlink/route.hpp>
#include <kumiki/netlink/socket.hpp>
#include <kumiki/network/bridge_options.hpp>
#include <kumiki/network/endpoint_remover.hpp>
#include <kumiki/network/existing_bridge.hpp>
#include <kumiki/network/explain.hpp>
#include <kumiki/network/firewall.hpp>
#include <kumiki/network/forwarding.hpp>
#include <kumiki/network/host_firewall.hpp>
#include <kumiki/network/host_view.hpp>
#include <kumiki/network/leases.hpp>
#include <kumiki/network/loopback_route.hpp>
#include <kumiki/network/network_bridge.hpp>
#include <kumiki/network/network_remains.hpp>
#include <kumiki/network/port_lock.hpp>
#include <kumiki/network/port_name.hpp>
#include <kumiki/network/shared_place.hpp>
#include <kumiki/network/subnets.hpp>
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
            std::optional<shared_bridge> shared;
            if (!is_own_bridge()) shared = {.name = bridge_name(), .subnets = subnets_of(options)};
            enable_forwarding(directory, netns_.get(), options.uplinks,
                              options.subnet6 ? ip_family::v6 : ip_family::v4, shared);
        });
        undo.dismiss();
    }
    network_state(const network_state&) = delete;
    network_state& operator=(const network_state&) = delete;
    ~network_state() { close(); }

    std::string bridge_name() const {
        return is_own_bridge() ? std::string(bridge_prefix) + options.name
                               : options.existing_bridge;
    }
    bool is_own_bridge() const noexcept { return options.existing_bridge.empty(); }
    /// The text that marks interfaces as this network's.
    std::string alias() const { return network_alias(options.name); }

    /// For firewall: true of an address that a container of this network has, in whatever process.
    auto lease_holders() const {
        return [this](const ip_address& address) {
            const auto& pool = address.is_v4() ? pool4 : pool6;
            return pool && pool->is_leased(address);
        };
    }
    int netns() const noexcept { return netns_.get(); }
    /// The directory that all networks of the namespace share, for locks.
    int shared_directory() const noexcept { return host_.directory(); }

    /// The rules of this network as far as this object knows them, and which of `asked` have others.
    network_rules rules(std::initializer_list<ip_address> asked) {
        const std::lock_guard guard(mutex);
        network_rules known{.options = wall->options()};
        for (const auto& [name, each] : wall->connected()) known.containers.push_back(each);
        for (const ip_address& address : asked) {
            const auto& pool = address.is_v4() ? pool4 : pool6;
            if (pool && pool->is_leased_elsewhere(address)) known.elsewhere.push_back(address);
        }
        return known;
    }
    /// The host's own addresses, and its routes.
    host_view host() {
        const std::lock_guard guard(mutex);
        return read_host_view(route);
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
        if (!alone) {
            const auto theirs = sys::try_read_file_at(directory, "settings").value_or("");
            take_chosen(options, theirs);
            if (theirs != describe(options))
                throw error(EEXIST, {.operation = "open network",
                                     .object = options.name,
                                     .remedy = "It is open with other settings: " + theirs});
            if (options.rules == rule_lifetime::with_process)
                throw error(EEXIST,
                            {.operation = "open network",
                             .object = options.name,
                             .remedy = "Its rules belong to the process that has it open."});
        }
        scope_exit undo([&]() noexcept {
            if (alone) remove_all(directory);
        });
        const auto firewall_for = [this] {
            return firewall::open({.network = options.name,
                                   .bridge = bridge_name(),
                                   .subnets = subnets_of(options),
                                   .ports = port_prefix(bridge.index),
                                   .use = is_own_bridge() ? bridge_use::own : bridge_use::shared,
                                   .lifetime = options.rules,
                                   .names = options.names});
        };
        if (alone) {
            if (is_own_bridge()) require_free_name(route, bridge_name(), alias());
            delete_links();
            return_bridge(directory, netns_.get(), route);
            if (!is_own_bridge()) {
                require_free_bridge(host_.path(), options.name, bridge_name());
                bridge = require_bridge(route, bridge_name());
                if (options.subnet6) require_ipv6(netns_.get(), bridge, options.name);
            }
            choose_subnets(options, route, bridge.index);
            for (const cidr& subnet : subnets_of(options))
                require_no_overlap(route, subnet, bridge.index);
            auto netfilter = open_netfilter();
            delete_network_tables(netfilter, options.name);
            if (is_own_bridge()) {
                make_bridge(route, netns_.get(), options, bridge_name(), alias());
            } else {
                wall.emplace(firewall_for());  // the guard, before what it has to guard
                adopt_bridge(directory, netns_.get(), route, bridge, gateways_of(options));
            }
            sys::open_at(directory, "settings", O_WRONLY | O_CREAT | O_TRUNC, 0600);
            sys::write_file_at(directory, "settings", describe(options));
        }
        const auto found = find_link(route, bridge_name());
        if (!found)
            throw error(ENODEV, {.operation = "open network",
                                 .object = options.name,
                                 .remedy = "Its bridge " + bridge_name() +
                                           " was deleted while others use it."});
        bridge = *found;
        has_ipv6 = bridge.has_ipv6;
        if (!wall) wall.emplace(firewall_for());
        pool4.emplace(options.subnet, directory, "leases4");
        if (options.subnet6) pool6.emplace(*options.subnet6, directory, "leases6");
        remover.emplace(netlink_socket::open(NETLINK_ROUTE),
                        netlink_socket::open(NETLINK_NETFILTER), *wall, mutex);
        if (alone) tell_obstacles(netns_.get(), options, bridge_name());
        undo.dismiss();
    }
    void delete_links() { delete_network_links(route, options.name); }
    void remove_all(int directory) noexcept {
        release_quietly([this] { delete_links(); });
        release_quietly([&] { return_bridge(directory, netns_.get(), route); });
        release_quietly([this] {
            if (wall) wall->remove();
        });
        delete_network_files(directory);
    }
    // True when nobody else uses it.
    bool leave_own() {
        bool was_last = false;
        if (own_)
            own_->leave([&](int directory, bool alone) {
                if (alone) remove_all(directory);
                was_last = alone;
            });
        return was_last;
    }
    void close() noexcept {
        remover.reset();  // its leases are the pools'
        release_quietly([this] {
            if (is_own_bridge()) {
                leave_own();
                return;
            }
            host_.exclusively([this](int directory) {  // in the order of opening
                if (leave_own()) forget_bridge(directory, netns_.get(), bridge_name());
            });
        });
        release_quietly([this] {
            host_.leave([this](int directory, bool alone) {
                if (!alone) return;
                ::unlinkat(directory, port_locks::file_name, 0);
                restore_forwarding(directory, netns_.get());
            });
        });
    }

    unique_fd netns_;
    shared_place host_;
    std::optional<shared_place> own_ = {};
};

}  // namespace detail
}  // namespace kumiki::inline v0
