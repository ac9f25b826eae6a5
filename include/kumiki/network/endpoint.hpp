// A container's connection to a network, in two phases around the birth of its process.
//
//   auto reserved = reserve(attachment, "web");            // addresses, host ports: may be refused
//   ... clone3 ...
//   endpoint link = std::move(reserved).connect(netns_fd); // rules, veth, addresses, routes
//
// The rules are in force before the interface is. connect() costs one nftables transaction, two
// sendmsg in the host's namespace and one in the container's, made on a thread of its own.
// The host's side of the veth pair is deleted by hand: a namespace's end takes it along only later,
// and then its name would still be taken (moby #48749).
// Kernel: as bridge_network.hpp. Left out: changing the addresses while connected.
#pragma once

#include <sched.h>
#include <sys/random.h>

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
#include <kumiki/netlink/link.hpp>
#include <kumiki/netlink/socket.hpp>
#include <kumiki/network/bridge_network.hpp>
#include <kumiki/network/endpoint_change.hpp>
#include <kumiki/network/endpoint_parts.hpp>
#include <kumiki/network/firewall.hpp>
#include <kumiki/network/leases.hpp>
#include <kumiki/network/names.hpp>
#include <kumiki/network/port_reservation.hpp>
#include <kumiki/network/publish.hpp>
#include <kumiki/network/shaping.hpp>
#include <kumiki/sys/check.hpp>
#include <kumiki/sys/netns.hpp>
#include <kumiki/sys/own_thread.hpp>

namespace kumiki::inline v0 {

/// Brings the loopback interface of the namespace behind `netns_fd` up: all the networking of a
/// container that has no network. 127.0.0.1 and ::1 come with it.
inline void bring_loopback_up(int netns_fd) {
    auto socket = netlink_socket::open_in(netns_fd, NETLINK_ROUTE);
    netlink_batch batch;
    set_link(batch, "lo", {.up = true});
    socket.transact(batch);
}

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
        parts->devices.clear();
        close(network, *parts);
        const scope_exit rules([&]() noexcept {
            detail::release_quietly([&] {
                const std::lock_guard guard(network.mutex);
                network.wall->disconnect(parts->rules);
            });
        });
        // The kernel answers 10 to 20 ms after it has let go of its own lock: nobody else is to wait for
        // that, so the network's socket is taken only where there is no other.
        if (auto own = detail::open_beside(network.route)) return detail::delete_pair(*own, *parts);
        const std::lock_guard guard(network.mutex);
        detail::delete_pair(network.route, *parts);
    }

    /// As disconnect(), for a container whose processes have ended: returns once nothing leads into
    /// it and it may begin nothing, and the ports are free. The pair goes, then the rules, and then
    /// the addresses are free, soon after; at the latest with the network.
    void disconnect_soon() {
        if (!parts_) return;
        const auto parts = std::move(parts_);
        detail::network_state& network = *parts->attachment.network;
        parts->devices.clear();
        close(network, *parts);
        const std::string shaper = parts->shaper_name();
        network.remover->remove({.rules = std::move(parts->rules),
                                 .shaper = shaper,
                                 .lease4 = std::move(parts->lease4),
                                 .lease6 = std::move(parts->lease6)});
    }

    /// Changes what it publishes and its policies, all of it or nothing, while packets pass: each
    /// meets the old rules or the new. Flows that the new rules would not let begin have ended when
    /// this returns; the others go on. No port that stays is free in between.
    ///
    /// Errors: EADDRINUSE with who has a port, and the others of reserve(); kumiki::error.
    void update(const endpoint_change& change) {
        detail::endpoint_parts& parts = *parts_;
        detail::network_state& network = *parts.attachment.network;
        const std::lock_guard guard(network.mutex);
        firewall_rules after = parts.rules;
        std::optional<port_reservation> ports;
        if (change.publish) {
            ports = sys::in_network_namespace(network.netns(), [&] {
                return parts.ports.changed(*change.publish, after.addresses,
                                           network.shared_directory());
            });
            after.publish = ports->ports();
        }
        if (change.ingress) after.ingress = *change.ingress;
        if (change.egress) after.egress = *change.egress;
        if (change.direct) after.direct = *change.direct;
        network.wall->replace(parts.rules, after, network.lease_holders());
        if (ports) parts.ports = std::move(*ports);
        parts.rules = std::move(after);
    }

    /// The container's addresses, IPv4 first.
    const std::vector<ip_address>& addresses() const noexcept { return parts_->rules.addresses; }
    /// The ports that lead into it, with those filled in that the kernel picked.
    const std::vector<published_port>& published() const noexcept { return parts_->ports.ports(); }
    /// The host's side of its veth pair.
    const std::string& host_link() const noexcept { return parts_->rules.port; }

  private:
    friend class endpoint_reservation;
    // The port stays in the bridge until it is gone: elsewhere its packets would meet no rule of ours.
    static void close(detail::network_state& network, detail::endpoint_parts& parts) noexcept {
        detail::release_quietly([&] {
            const std::lock_guard guard(network.mutex);
            parts.rules = network.wall->close(parts.rules);
        });
    }
    endpoint(std::unique_ptr<detail::endpoint_parts> parts, int netns_fd) {
        detail::network_state& network = *parts->attachment.network;
        // The thread that enters the namespace is as long on its way as the kernel is about the rules.
        sys::own_thread entering([netns_fd] {
            sys::check(::setns(netns_fd, CLONE_NEWNET), "enter network namespace");
            return netlink_socket::open(NETLINK_ROUTE);
        });
        const std::lock_guard guard(network.mutex);
        network.wall->connect(parts->rules, network.lease_holders());
        scope_fail undo_rules([&]() noexcept {
            detail::release_quietly([&] { network.wall->disconnect(parts->rules); });
        });
        const link_info port = detail::make_pair(network, *parts, netns_fd);
        const scope_fail undo_pair([&]() noexcept {
            detail::release_quietly([&] { detail::delete_pair(network.route, *parts); });
        });
        if (const shaping& shape = parts->attachment.options.shape; !shape.is_none())
            detail::shape_port(network.route, port, shape, parts->shaper_name(), parts->alias());
        detail::set_up_inside(network, *parts, netns_fd, entering.get(), port.peer);
        detail::settle_port(network, *parts, port);
        scope_fail undo_devices([&]() noexcept { parts->devices.clear(); });
        detail::move_devices(network, *parts, netns_fd);
        parts_ = std::move(parts);
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
    parts->ports = port_reservation::hold(options.publish, addresses, network.shared_directory());
    parts->rules = {.container = parts->container,
                    .port = parts->link_name(),
                    .addresses = std::move(addresses),
                    .publish = parts->ports.ports(),
                    .ingress = options.ingress,
                    .egress = options.egress,
                    .direct = options.direct,
                    .labels = options.labels,
                    .aliases = options.aliases,
                    .mac = parts->mac()};
    if (network.options.names == name_service::on)
        sys::check(::getrandom(&parts->rules.birth, sizeof parts->rules.birth, 0), "getrandom");
    return endpoint_reservation(std::move(parts));
}

}  // namespace kumiki::inline v0
