// Host ports held for a container: a socket is bound to each, so that no other program, and no other
// network of kumiki's, can take them while they are published.
//
// The sockets never see a packet: the destination is translated before sockets are looked up. They
// are bound without SO_REUSEADDR and do not listen unless told to, so that a client that comes too
// early is refused by the kernel and not left in a backlog that nobody reads. SCTP ports are locked in
// a file, too: the kernel need not have sockets of it to translate it (port_lock.hpp).
// Lifetime: the kernel frees the ports with the process, however it ends.
#pragma once

#include <fcntl.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <kumiki/core/error.hpp>
#include <kumiki/core/ip.hpp>
#include <kumiki/core/observer.hpp>
#include <kumiki/core/unique_fd.hpp>
#include <kumiki/network/bound_port.hpp>
#include <kumiki/network/port_lock.hpp>
#include <kumiki/network/port_place.hpp>
#include <kumiki/network/publish.hpp>
#include <kumiki/network/socket_address.hpp>
#include <kumiki/sys/check.hpp>

namespace kumiki::inline v0 {

/// Ports of the host, held. Move-only; destroying it frees them.
class port_reservation {
  public:
    port_reservation() = default;
    port_reservation(port_reservation&& other) noexcept
        : held_(std::exchange(other.held_, {})), ports_(std::move(other.ports_)),
          locks_(std::move(other.locks_)) {}
    port_reservation& operator=(port_reservation&& other) noexcept {
        if (this != &other) {
            give_back();
            held_ = std::exchange(other.held_, {});
            ports_ = std::move(other.ports_);
            locks_ = std::move(other.locks_);
        }
        return *this;
    }
    port_reservation(const port_reservation&) = delete;
    port_reservation& operator=(const port_reservation&) = delete;
    ~port_reservation() { give_back(); }

    /// Holds all of `ports`, or none: in the calling thread's network namespace, for the families of
    /// `addresses`, which are the container's. SCTP ports are locked in a file in `directory`, which
    /// the networks of the namespace share (-1: they are bound only, where the kernel can).
    ///
    /// Errors: invalid_input for what cannot be published, or to this container; kumiki::error
    /// EADDRINUSE with the port and, where it can be found out, who has it; EADDRNOTAVAIL when the
    /// host does not have the address; EACCES for a port below 1024 without CAP_NET_BIND_SERVICE.
    static port_reservation hold(std::span<const published_port> ports,
                                 std::span<const ip_address> addresses, int directory = -1) {
        port_reservation none;
        if (directory >= 0 && std::any_of(ports.begin(), ports.end(), is_sctp))
            none.locks_ = std::make_shared<detail::port_locks>(directory);
        return none.changed(ports, addresses, directory);
    }

    /// Another reservation, of `ports`: what this one holds of them is held by both. So when the
    /// one takes the other's place, no port that stays was free in between. Errors: as hold().
    port_reservation changed(std::span<const published_port> ports,
                             std::span<const ip_address> addresses, int directory = -1) const {
        port_reservation next;
        next.locks_ = locks_;
        if (!next.locks_ && directory >= 0 && std::any_of(ports.begin(), ports.end(), is_sctp))
            next.locks_ = std::make_shared<detail::port_locks>(directory);
        std::vector<families> wanted;
        for (const published_port& port : ports) {
            require_valid(port);
            wanted.push_back(detail::families_of(port, addresses));
        }
        // A port on all addresses first: it holds those on a single one, too.
        for (const bool wild : {true, false})
            for (std::size_t i = 0; i < ports.size(); ++i)
                if (!ports[i].picks_port() && ports[i].on_all_addresses() == wild)
                    for (std::uint32_t n = ports[i].host.first; n <= ports[i].host.last; ++n)
                        next.hold_one(ports[i], static_cast<std::uint16_t>(n), wanted[i], *this);
        for (std::size_t i = 0; i < ports.size(); ++i) {
            const published_port& port = ports[i];
            if (!port.picks_port()) {
                next.ports_.push_back(port);
                continue;
            }
            // The free ports need not be neighbours: each is published by itself.
            for (std::uint32_t n = port.container.first; n <= port.container.last; ++n) {
                const auto inside = static_cast<std::uint16_t>(n);
                const std::uint16_t outside = next.hold_any(port, wanted[i], *this);
                next.ports_.push_back({.transport = port.transport,
                                       .host = {outside, outside},
                                       .container = {inside, inside},
                                       .address = port.address});
            }
        }
        return next;
    }

    /// What is held, with the picked ports filled in.
    const std::vector<published_port>& ports() const noexcept { return ports_; }

    /// Shows the TCP ports to those who list listening sockets. To be called once the firewall leads
    /// the ports into the container, not before. Errors: kumiki::error.
    void listen() {
        for (const auto& [where, socket] : held_)
            if (socket && where.transport == protocol::tcp)
                sys::check(::listen(socket.get(), 0), "listen");
    }

  private:
    using place = detail::port_place;
    using families = detail::port_families;

    static bool is_sctp(const published_port& port) { return port.transport == protocol::sctp; }

    void hold_one(const published_port& port, std::uint16_t number, families wanted,
                  const port_reservation& before) {
        for (const ip_family family : {ip_family::v4, ip_family::v6}) {
            if (!(family == ip_family::v4 ? wanted.v4 : wanted.v6)) continue;
            const place where = detail::place_of(port, number, family);
            const bool covered =
                held_.contains({port.transport, number, detail::any_address(family)});
            if (!covered || where.address.is_unspecified()) {
                hold(where, before);
                continue;
            }
            // Held already on all addresses: whether this is one of them is still to be seen.
            detail::bind_port({protocol::udp, 0, where.address}, where);
        }
    }
    // What is free for one family may be taken for the other: then another is tried.
    std::uint16_t hold_any(const published_port& port, families wanted,
                           const port_reservation& before) {
        const ip_family first = wanted.v4 ? ip_family::v4 : ip_family::v6;
        for (int attempt = 0;; ++attempt) {
            place where = detail::place_of(port, 0, first);
            unique_fd socket = detail::bind_port(where, where);
            if (!socket) return hold_any_lock(port, wanted, before);
            where.number = detail::socket_address::own_of(socket.get()).port();
            try {
                lock(where);
                held_.emplace(where, std::move(socket));
                if (wanted.v4 && wanted.v6)
                    hold(detail::place_of(port, where.number, ip_family::v6), before);
                return where.number;
            } catch (const error& failure) {
                give_back(where);
                if (failure.errno_value() != EADDRINUSE || attempt == 32) throw;
            }
        }
    }
    // Where there are no sockets to bind: a port of those from which kernels pick, too (RFC 6335, 6).
    std::uint16_t hold_any_lock(const published_port& port, families wanted,
                                const port_reservation& before) {
        for (std::uint32_t number = locks_ ? 49152 : 65536; number <= 65535; ++number) {
            const auto each = static_cast<std::uint16_t>(number);
            if (holds(port.transport, each)) continue;
            try {
                hold_one(port, each, wanted, before);
                return each;
            } catch (const error& failure) {
                if (failure.errno_value() != EADDRINUSE) throw;
                if (wanted.v4) give_back(detail::place_of(port, each, ip_family::v4));
            }
        }
        throw unsupported(EPROTONOSUPPORT,
                          {.operation = "pick a free port for",
                           .object = to_string(port),
                           .step = {},
                           .container = {},
                           .remedy = "This kernel has no sockets of that protocol."});
    }

    // On whatever address.
    bool holds(protocol transport, std::uint16_t number) const {
        const auto found = held_.lower_bound({transport, number, {}});
        return found != held_.end() && found->first.transport == transport &&
               found->first.number == number;
    }
    void hold(const place& where, const port_reservation& before) {
        if (held_.contains(where)) detail::refuse_port(EADDRINUSE, where, "It is published twice.");
        lock(where);
        unique_fd socket;
        try {
            if (const auto same = before.held_.find(where); same != before.held_.end()) {
                if (same->second)
                    socket.reset(sys::check(::fcntl(same->second.get(), F_DUPFD_CLOEXEC, 0),
                                            "duplicate socket", to_string(where)));
            } else {
                socket = bind_beside(where, before);
            }
            held_.emplace(where, std::move(socket));
        } catch (...) {
            unlock(where);
            throw;
        }
    }
    void lock(const place& where) {
        if (where.transport == protocol::sctp && locks_ &&
            !locks_->take(where.address, where.number))
            detail::refuse_port(EADDRINUSE, where, detail::port_remedy(EADDRINUSE, where));
    }
    void unlock(const place& where) noexcept {
        if (where.transport == protocol::sctp && locks_)
            detail::release_quietly([&] { locks_->give_back(where.address, where.number); });
    }
    void give_back(const place& where) noexcept {
        if (held_.erase(where) != 0) unlock(where);
    }
    void give_back() noexcept {
        for (const auto& [where, socket] : held_) unlock(where);
        held_.clear();
    }

    // From one address to all of them, or back: the sockets that `before` has stand in the way, and
    // let this one pass for a moment.
    unique_fd bind_beside(const place& where, const port_reservation& before) {
        std::vector<int> ours;
        for (auto at = before.held_.lower_bound({where.transport, where.number, {}});
             at != before.held_.end() && at->first.transport == where.transport &&
             at->first.number == where.number;
             ++at)
            if (at->second && at->first.address.family() == where.address.family())
                ours.push_back(at->second.get());
        const auto share = [&](int on) {
            for (const int socket : ours)
                ::setsockopt(socket, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
        };
        share(1);
        try {
            unique_fd made = detail::bind_port(where, where, !ours.empty());
            share(0);
            return made;
        } catch (...) {
            share(0);
            throw;
        }
    }

    std::map<place, unique_fd> held_;
    std::vector<published_port> ports_;
    std::shared_ptr<detail::port_locks> locks_;
};

}  // namespace kumiki::inline v0
