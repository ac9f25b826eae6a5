// A container's connection to a network, in two phases around the birth of its process.
//
//   auto reserved = reserve(attachment, "web");            // addresses, host ports: may be refused
//   ... clone3 ...
//   endpoint link = std::move(reserved).connect(netns_fd); // rules, veth, addresses, routes
//
// The rules are in force before the interface is. connect() costs one nftables transaction, one
// sendmsg in the host's namespace and one in the container's, made on a thread of its own.
// The host's side of the veth pair is deleted by hand: a namespace's end takes it along only later,
// and then its name would still be taken (moby #48749).
// Kernel: as bridge_network.hpp. Left out: changing publish and policy while connected.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <kumiki/core/error.hpp>
#include <kumiki/core/ip.hpp>
#include <kumiki/core/observer.hpp>
#include <kumiki/core/scope_exit.hpp>
#include <kumiki/netlink/address.hpp>
#include <kumiki/netlink/link.hpp>
#include <kumiki/netlink/route.hpp>
#include <kumiki/netlink/socket.hpp>
#include <kumiki/network/bridge_network.hpp>
#include <kumiki/network/firewall.hpp>
#include <kumiki/network/leases.hpp>
#include <kumiki/network/names.hpp>
#include <kumiki/network/port_reservation.hpp>

namespace kumiki::inline v0 {

/// Brings the loopback interface of the namespace behind `netns_fd` up: all the networking of a
/// container that has no network. 127.0.0.1 and ::1 come with it.
inline void bring_loopback_up(int netns_fd) {
    auto socket = netlink_socket::open_in(netns_fd, NETLINK_ROUTE);
    netlink_batch batch;
    set_link(batch, "lo", {.up = true});
    socket.transact(batch);
}

namespace detail {

/// What an endpoint holds beside the kernel objects that it makes.
struct endpoint_parts {
    network_attachment attachment;
    std::string container;
    address_lease lease4;
    std::optional<address_lease> lease6 = {};
    port_reservation ports = {};
    firewall_rules rules = {};

    // The bridge's index and the lease's number: nobody else's name while both are held, and short
    // enough in base 36 for any index and any IPv4 network.
    std::string link_name() const {
        const auto text = [](std::uint64_t number) {
            std::string digits;
            for (; number != 0 || digits.empty(); number /= 36)
                digits.insert(0, 1, "0123456789abcdefghijklmnopqrstuvwxyz"[number % 36]);
            return digits;
        };
        return "km" + text(static_cast<std::uint64_t>(attachment.network->bridge.index)) + "x" +
               text(lease4.offset());
    }
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

}  // namespace detail

/// A connected container. Destroying it disconnects.
class endpoint {
  public:
    endpoint(endpoint&&) noexcept = default;
    endpoint& operator=(endpoint&& other) noexcept {
        if (this != &other) {
            detail::release_quietly([this] { disconnect(); });
            parts_ = std::move(other.parts_);
        }
        return *this;
    }
    endpoint(const endpoint&) = delete;
    endpoint& operator=(const endpoint&) = delete;
    ~endpoint() {
        detail::release_quietly([this] { disconnect(); });
    }

    /// Deletes the interfaces, takes the rules back and ends the flows of the published ports; then
    /// the addresses and ports are free. What is gone already is no error, and a failure does not
    /// keep the rest from being released. Nothing happens the second time.
    void disconnect() {
        if (!parts_) return;
        const auto parts = std::move(parts_);
        detail::network_state& network = *parts->attachment.network;
        const scope_exit rules([&]() noexcept {
            detail::release_quietly([&] {
                const std::lock_guard guard(network.mutex);
                network.wall->disconnect(parts->rules);
            });
        });
        // The kernel answers 10 to 20 ms after it has let go of its own lock: nobody else is to wait for
        // that, so the network's socket is taken only where there is no other.
        if (auto own = detail::open_beside(network.route))
            return delete_pair(*own, parts->rules.port);
        const std::lock_guard guard(network.mutex);
        delete_pair(network.route, parts->rules.port);
    }

    /// As disconnect(), for a container whose processes have ended: returns once the rules and the
    /// ports are free and the pair is out of the bridge. The pair goes, and then the addresses are
    /// free, soon after; at the latest with the network.
    void disconnect_soon() {
        if (!parts_) return;
        const auto parts = std::move(parts_);
        detail::network_state& network = *parts->attachment.network;
        {
            const std::lock_guard guard(network.mutex);
            detail::release_quietly([&] {
                netlink_batch batch;
                set_link(batch, parts->rules.port, {.master = 0});
                for (const netlink_failure& failure : network.route.submit(batch))
                    if (failure.code != ENODEV) throw to_error(batch, failure);
            });
            detail::release_quietly([&] { network.wall->take_back(parts->rules); });
        }
        network.remover->remove({.link = parts->rules.port,
                                 .addresses = parts->rules.addresses,
                                 .lease4 = std::move(parts->lease4),
                                 .lease6 = std::move(parts->lease6)});
    }

    /// The container's addresses, IPv4 first.
    const std::vector<ip_address>& addresses() const noexcept { return parts_->rules.addresses; }
    /// The ports that lead into it, with those filled in that the kernel picked.
    const std::vector<published_port>& published() const noexcept { return parts_->ports.ports(); }
    /// The host's side of its veth pair.
    const std::string& host_link() const noexcept { return parts_->rules.port; }

  private:
    friend class endpoint_reservation;
    endpoint(std::unique_ptr<detail::endpoint_parts> parts, int netns_fd) {
        detail::network_state& network = *parts->attachment.network;
        // The thread that enters the namespace is as long on its way as the kernel is about the rules.
        sys::own_thread entering([netns_fd] {
            sys::check(::setns(netns_fd, CLONE_NEWNET), "enter network namespace");
            return netlink_socket::open(NETLINK_ROUTE);
        });
        const std::lock_guard guard(network.mutex);
        network.wall->connect(parts->rules);
        scope_fail undo_rules([&]() noexcept {
            detail::release_quietly([&] { network.wall->take_back(parts->rules); });
        });
        const int peer = make_pair(network, *parts, netns_fd);
        const scope_fail undo_pair([&]() noexcept {
            detail::release_quietly([&] { delete_pair(network.route, parts->rules.port); });
        });
        set_up_inside(network, *parts, entering.get(), peer);
        parts_ = std::move(parts);
    }

    // Returns the index that the container's side has in its namespace.
    static int make_pair(detail::network_state& network, const detail::endpoint_parts& parts,
                         int netns_fd) {
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
                 {.alias = network.alias() + ":" + parts.container,
                  .no_link_local = network.has_ipv6,
                  .hairpin = true});
        set_link(batch, name, {.up = true});
        link_info made;
        const auto failures = network.route.submit(
            batch, [&](std::size_t, const netlink_message& m) { made = parse_link(m); });
        if (failures.empty()) return made.peer;
        // The first request made the pair, or nothing did (then the name may be another's).
        if (failures.front().index != 0)
            detail::release_quietly([&] { delete_pair(network.route, name); });
        throw to_error(batch, failures.front());
    }
    static void delete_pair(netlink_socket& route, const std::string& name) {
        netlink_batch batch;
        delete_link(batch, name);
        for (const netlink_failure& failure : route.submit(batch))
            if (failure.code != ENODEV) throw to_error(batch, failure);
    }
    static void set_up_inside(const detail::network_state& network,
                              const detail::endpoint_parts& parts, netlink_socket inside,
                              int link) {
        netlink_batch batch;
        set_link(batch, "lo", {.up = true});
        // What a new namespace's settings begin with depends on the host's
        // (net.core.devconf_inherit_init_net): what matters is set.
        set_link(batch, link,
                 {.no_link_local = network.has_ipv6,
                  .ipv4 = {{ipv4_setting::forwarding, 0}, {ipv4_setting::accept_redirects, 0}}});
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
        };
        way_out(network.pool4->gateway());
        if (parts.lease6) way_out(network.pool6->gateway());
        inside.transact(batch);
    }

    std::unique_ptr<detail::endpoint_parts> parts_;
};

/// Addresses and host ports that are the container's before its process exists.
class endpoint_reservation {
  public:
    /// The container's addresses, IPv4 first.
    const std::vector<ip_address>& addresses() const noexcept { return parts_->rules.addresses; }
    /// The host's ports, with those filled in that the kernel picked.
    const std::vector<published_port>& published() const noexcept { return parts_->ports.ports(); }

    /// Connects the network namespace behind `netns_fd`. Errors: kumiki::error, with nothing left.
    endpoint connect(int netns_fd) && { return {std::move(parts_), netns_fd}; }

  private:
    friend endpoint_reservation reserve(network_attachment attachment, std::string container);
    explicit endpoint_reservation(std::unique_ptr<detail::endpoint_parts> parts) noexcept
        : parts_(std::move(parts)) {}

    std::unique_ptr<detail::endpoint_parts> parts_;
};

/// Leases addresses and reserves the published ports for `container` (a name that is unique in the
/// network), in the calling thread's network namespace, which must be the network's.
///
/// Errors: EADDRINUSE for a port (with its holder, where that can be found out) or an address that
/// is taken; EADDRNOTAVAIL for an exhausted pool; invalid_input.
inline endpoint_reservation reserve(network_attachment attachment, std::string container) {
    detail::network_state& network = *attachment.network;
    const attach_options& wanted = attachment.options;
    const auto lease = [&] {
        std::pair<address_lease, std::optional<address_lease>> held(
            wanted.address ? network.pool4->lease(*wanted.address) : network.pool4->lease(),
            std::nullopt);
        // The same number in both networks, where that is free: 10.88.0.5 and fd00:88::5.
        if (network.pool6)
            held.second = wanted.address6 ? network.pool6->lease(*wanted.address6)
                                          : network.pool6->lease(held.first.offset());
        return held;
    };
    auto leases = [&] {
        try {
            return lease();
        } catch (const error& failure) {
            if (failure.errno_value() != EADDRINUSE && failure.errno_value() != EADDRNOTAVAIL)
                throw;
            network.remover->drain();  // what is wanted may be on its way back
            return lease();
        }
    }();
    auto parts = std::make_unique<detail::endpoint_parts>(
        detail::endpoint_parts{.attachment = std::move(attachment),
                               .container = std::move(container),
                               .lease4 = std::move(leases.first),
                               .lease6 = std::move(leases.second)});
    const attach_options& options = parts->attachment.options;
    std::vector<ip_address> addresses{parts->lease4.address()};
    if (parts->lease6) addresses.push_back(parts->lease6->address());
    parts->ports = port_reservation::hold(options.publish, addresses);
    parts->rules = {.container = parts->container,
                    .port = parts->link_name(),
                    .addresses = std::move(addresses),
                    .publish = parts->ports.ports(),
                    .ingress = options.ingress,
                    .egress = options.egress};
    return endpoint_reservation(std::move(parts));
}

}  // namespace kumiki::inline v0
