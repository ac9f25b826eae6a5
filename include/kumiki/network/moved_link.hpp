// An interface of the host's in a container, and back at the end, as it was.
//
// Moving (IFLA_NET_NS_FD) takes an interface down and its addresses and routes away, and gives it
// another index where its own is taken; so what it had at home is remembered. Hardware that is in a
// namespace when that ends comes back to the first namespace by itself, but a virtual interface dies
// with it: this object keeps the namespace until it has brought the interface home.
// Kernel: 5.10. Left out: the home's routes through other interfaces, its neighbours, queueing
// disciplines; interfaces that the kernel ties to their namespace (lo, bridges before 6.12).
#pragma once

#include <fcntl.h>

#include <cerrno>
#include <cstdint>
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
#include <kumiki/netlink/link_info.hpp>
#include <kumiki/netlink/route.hpp>
#include <kumiki/netlink/socket.hpp>
#include <kumiki/sys/check.hpp>
#include <kumiki/sys/netns.hpp>

namespace kumiki::inline v0 {

/// What a moved interface is to be in the container.
struct moved_options {
    std::string name = {};  ///< what it is called there; empty: as at home
    std::vector<cidr> addresses = {};
    std::optional<ip_address> gateway = {};  ///< of the container's default route
    std::optional<std::uint32_t> mtu = {};
};

/// An interface of the host's that a container is to have for as long as it is connected.
struct moved_device {
    std::string link = {};  ///< what it is called at home
    moved_options inside = {};
};

/// An interface that is away from home. Destroying it brings the interface back.
class moved_link {
  public:
    /// Moves `link` of the calling thread's network namespace into the one behind `netns_fd`, and
    /// brings it up there.
    ///
    /// Errors: ENODEV when it is not there; EEXIST when its name is taken in the container; EINVAL
    /// for one that cannot be moved; kumiki::error. Then it is at home, as it was.
    static moved_link move(int netns_fd, const link_ref& link, moved_options options = {}) {
        return move_from(netlink_socket::open(NETLINK_ROUTE), netns_fd, link, std::move(options));
    }
    /// As move(), from the network namespace of the socket `home`.
    static moved_link move_from(netlink_socket home, int netns_fd, const link_ref& link,
                                moved_options options = {}) {
        return {std::move(home), netns_fd, link, std::move(options)};
    }
    moved_link(moved_link&&) noexcept = default;
    moved_link& operator=(moved_link&& other) noexcept {
        if (this != &other) {
            detail::release_quietly([this] { bring_back(); });
            home_ = std::move(other.home_);
            away_ = std::move(other.away_);
            was_ = std::exchange(other.was_, {});
            addresses_ = std::move(other.addresses_);
            routes_ = std::move(other.routes_);
            name_ = std::move(other.name_);
        }
        return *this;
    }
    moved_link(const moved_link&) = delete;
    moved_link& operator=(const moved_link&) = delete;
    ~moved_link() {
        detail::release_quietly([this] { bring_back(); });
    }

    /// What it is called in the container.
    const std::string& name() const noexcept { return name_; }

    /// Brings the interface home: its name, MTU, bridge, addresses and the main table's routes
    /// through it are those that it had; up if it was. That it is gone is no error. Nothing happens
    /// the second time. Errors: EEXIST when its name was taken at home meanwhile (it stays in the
    /// container, and dies or comes home with that); kumiki::error.
    void bring_back() {
        if (!away_) return;
        const unique_fd container = std::move(away_);
        const unique_fd host = sys::network_namespace_of(home_.fd());
        auto inside = netlink_socket::open_in(container.get(), NETLINK_ROUTE);
        if (!send(inside, name_, host.get(), was_.name)) return;
        restore();
    }

  private:
    moved_link(netlink_socket home, int netns_fd, const link_ref& link, moved_options options)
        : home_(std::move(home)) {
        const auto found = find_link(home_, link);
        if (!found) throw error(ENODEV, {.operation = "move link", .object = to_string(link)});
        was_ = *found;
        name_ = require_link_name(options.name.empty() ? was_.name : options.name);
        for (const address_info& each : list_addresses(home_, was_.index))
            if (!was_.makes_link_local || !is_link_local(each.address.address))
                addresses_.push_back(each);
        for (const route_info& each : list_routes(home_))
            if (each.link == was_.index && !is_link_local(each.destination.address))
                routes_.push_back(each);
        unique_fd container(
            sys::check(::fcntl(netns_fd, F_DUPFD_CLOEXEC, 0), "keep network namespace"));
        scope_fail undo([&]() noexcept { detail::release_quietly([this] { restore(); }); });
        if (!send(home_, was_.name, container.get(), name_))
            throw error(ENODEV, {.operation = "move link", .object = was_.name});
        away_ = std::move(container);
        scope_fail undo_move([&]() noexcept { detail::release_quietly([this] { bring_back(); }); });
        auto inside = netlink_socket::open_in(away_.get(), NETLINK_ROUTE);
        const auto arrived = find_link(inside, name_);
        if (!arrived) throw error(ENODEV, {.operation = "move link", .object = name_});
        netlink_batch setup;
        if (options.mtu) set_link(setup, arrived->index, {.mtu = options.mtu});
        for (const cidr& address : options.addresses) add_address(setup, arrived->index, address);
        set_link(setup, arrived->index, {.up = true});
        if (options.gateway) add_route(setup, default_route(*options.gateway, arrived->index));
        inside.transact(setup);
    }
    static bool is_link_local(const ip_address& address) {
        return address.is_v6() && cidr::parse("fe80::/10").contains(address);
    }
    // False when there is no such interface. It is down afterwards, and called `name`.
    static bool send(netlink_socket& from, const std::string& link, int to,
                     const std::string& name) {
        const auto found = find_link(from, link);
        if (!found) return false;
        netlink_batch batch;
        set_link(batch, found->index, {.up = false});
        ifinfomsg header{};
        header.ifi_index = found->index;
        batch.add(RTM_NEWLINK, NLM_F_ACK, header, {"move link", link + " as " + name});
        batch.u32(IFLA_NET_NS_FD, static_cast<std::uint32_t>(to));
        batch.text(IFLA_IFNAME, name);
        for (const netlink_failure& failure : from.submit(batch)) {
            if (failure.code == ENODEV) return false;
            throw to_error(batch, failure);
        }
        return true;
    }
    // What it had at home, in as far as it is not there yet.
    void restore() {
        const auto now = find_link(home_, was_.name);
        if (!now) return;
        netlink_batch batch;
        set_link(batch, now->index,
                 {.mtu = was_.mtu,
                  .mac = was_.mac,
                  .no_link_local = was_.has_ipv6 && !was_.makes_link_local});
        if (was_.master != 0) set_link(batch, now->index, {.master = was_.master});
        for (const address_info& each : addresses_)
            add_address(
                batch, now->index, each.address,
                (each.flags & IFA_F_NOPREFIXROUTE) != 0 ? prefix_route::no : prefix_route::yes);
        if (was_.is_up) set_link(batch, now->index, {.up = true});
        for (route_info route : routes_) {
            route.link = now->index;
            add_route(batch, route);
        }
        std::optional<error> first;
        for (const netlink_failure& failure : home_.submit(batch))
            if (failure.code != EEXIST && !first) first = to_error(batch, failure);
        if (first) throw error(*first);
    }

    netlink_socket home_;
    unique_fd away_;  // the container's namespace, while the interface is there
    link_info was_ = {};
    std::vector<address_info> addresses_;
    std::vector<route_info> routes_;
    std::string name_;
};

}  // namespace kumiki::inline v0
