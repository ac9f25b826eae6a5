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
#include <netinet/in.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <compare>
#include <cstdint>
#include <cstring>
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
#include <kumiki/network/port_holder.hpp>
#include <kumiki/network/port_lock.hpp>
#include <kumiki/network/publish.hpp>
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
            wanted.push_back(families_of(port, addresses));
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
    /// What a socket is bound to; all addresses of the family come first.
    struct place {
        protocol transport;
        std::uint16_t number;
        ip_address address;
        auto operator<=>(const place&) const = default;
    };
    struct families {
        bool v4 = false;
        bool v6 = false;
    };

    static bool is_sctp(const published_port& port) { return port.transport == protocol::sctp; }
    static families families_of(const published_port& port, std::span<const ip_address> addresses) {
        families wanted;
        for (const ip_address& each : addresses)
            if (port.covers(each.family())) (each.is_v4() ? wanted.v4 : wanted.v6) = true;
        if (!wanted.v4 && !wanted.v6)
            throw invalid_input("published port", to_string(port),
                                "The container has no address of its family.");
        return wanted;
    }
    static ip_address any_of_family(ip_family family) {
        return family == ip_family::v4 ? ip_address(std::array<std::uint8_t, 4>{})
                                       : ip_address(std::array<std::uint8_t, 16>{});
    }
    static ip_address address_of(const published_port& port, ip_family family) {
        return port.address && port.address->family() == family ? *port.address
                                                                : any_of_family(family);
    }

    void hold_one(const published_port& port, std::uint16_t number, families wanted,
                  const port_reservation& before) {
        for (const ip_family family : {ip_family::v4, ip_family::v6}) {
            if (!(family == ip_family::v4 ? wanted.v4 : wanted.v6)) continue;
            const place where{port.transport, number, address_of(port, family)};
            const bool covered =
                held_.contains(place{port.transport, number, any_of_family(family)});
            if (!covered || where.address.is_unspecified()) {
                hold(where, before);
                continue;
            }
            // Held already on all addresses: whether this is one of them is still to be seen.
            bind_to({protocol::udp, 0, where.address}, where);
        }
    }
    // What is free for one family may be taken for the other: then another is tried.
    std::uint16_t hold_any(const published_port& port, families wanted,
                           const port_reservation& before) {
        const ip_family first = wanted.v4 ? ip_family::v4 : ip_family::v6;
        for (int attempt = 0;; ++attempt) {
            place where{port.transport, 0, address_of(port, first)};
            unique_fd socket = bind_to(where, where);
            if (!socket) return hold_any_lock(port, wanted, before);
            where.number = number_of(socket);
            try {
                lock(where);
                held_.emplace(where, std::move(socket));
                if (wanted.v4 && wanted.v6)
                    hold({port.transport, where.number, address_of(port, ip_family::v6)}, before);
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
            try {
                hold_one(port, each, wanted, before);
                return each;
            } catch (const error& failure) {
                if (failure.errno_value() != EADDRINUSE) throw;
                if (wanted.v4) give_back({port.transport, each, address_of(port, ip_family::v4)});
            }
        }
        throw unsupported(EPROTONOSUPPORT,
                          {.operation = "pick a free port for",
                           .object = to_string(port),
                           .step = {},
                           .container = {},
                           .remedy = "This kernel has no sockets of that protocol."});
    }

    void hold(const place& where, const port_reservation& before) {
        if (held_.contains(where)) refuse(EADDRINUSE, where, "It is published twice.");
        lock(where);
        unique_fd socket;
        try {
            if (const auto same = before.held_.find(where); same != before.held_.end()) {
                if (same->second)
                    socket.reset(sys::check(::fcntl(same->second.get(), F_DUPFD_CLOEXEC, 0),
                                            "duplicate socket", name_of(where)));
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
            refuse(EADDRINUSE, where, "It is published for another container.");
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
            unique_fd made = bind_to(where, where, !ours.empty());
            share(0);
            return made;
        } catch (...) {
            share(0);
            throw;
        }
    }
    // A socket bound to `to`; none when there are none of the family or the protocol, so that no
    // other program can take the port either. `wanted` is what an error speaks of.
    static unique_fd bind_to(const place& to, const place& wanted, bool shared = false) {
        const bool v4 = to.address.is_v4();
        const int type = to.transport == protocol::udp ? SOCK_DGRAM : SOCK_STREAM;
        const int made =
            ::socket(v4 ? AF_INET : AF_INET6, type | SOCK_CLOEXEC, static_cast<int>(to.transport));
        if (made < 0 &&
            (errno == EAFNOSUPPORT || errno == EPROTONOSUPPORT || errno == ESOCKTNOSUPPORT))
            return {};
        unique_fd socket(sys::check(made, "open a socket to hold", name_of(wanted)));
        const auto set = [&](int level, int option, int value) {
            sys::check(::setsockopt(socket.get(), level, option, &value, sizeof value),
                       "setsockopt", name_of(wanted));
        };
        sockaddr_storage address{};
        socklen_t size = sizeof(sockaddr_in);
        if (v4) {
            auto& four = reinterpret_cast<sockaddr_in&>(address);
            four.sin_family = AF_INET;
            four.sin_port = htons(to.number);
            std::memcpy(&four.sin_addr, to.address.data(), 4);
        } else {
            set(IPPROTO_IPV6, IPV6_V6ONLY, 1);
            auto& six = reinterpret_cast<sockaddr_in6&>(address);
            six.sin6_family = AF_INET6;
            six.sin6_port = htons(to.number);
            std::memcpy(&six.sin6_addr, to.address.data(), 16);
            size = sizeof(sockaddr_in6);
        }
        if (shared) set(SOL_SOCKET, SO_REUSEADDR, 1);
        if (::bind(socket.get(), reinterpret_cast<const sockaddr*>(&address), size) != 0) {
            const int code = errno;
            refuse(code, wanted, remedy(code, wanted));
        }
        if (shared) set(SOL_SOCKET, SO_REUSEADDR, 0);
        return socket;
    }
    static std::uint16_t number_of(const unique_fd& socket) {
        sockaddr_in6 bound{};  // the port is at the same place in both families
        socklen_t size = sizeof bound;
        sys::check(::getsockname(socket.get(), reinterpret_cast<sockaddr*>(&bound), &size),
                   "getsockname");
        return ntohs(bound.sin6_port);
    }

    [[noreturn]] static void refuse(int code, const place& where, std::string remedy) {
        throw error(code, {.operation = "reserve host port",
                           .object = name_of(where),
                           .step = {},
                           .container = {},
                           .remedy = std::move(remedy)});
    }
    static std::string name_of(const place& where) {
        const std::string text = to_string(where.address);
        return (where.address.is_v4() ? text : "[" + text + "]") + ":" +
               std::to_string(where.number) + "/" + std::string(to_string(where.transport));
    }
    static std::string remedy(int code, const place& where) {
        if (code == EACCES) return "Ports below 1024 need CAP_NET_BIND_SERVICE.";
        if (code == EADDRNOTAVAIL) return "It must be an address of this host.";
        if (code != EADDRINUSE) return {};
        const auto holder = port_holder(where.transport, where.address, where.number);
        return holder ? "It is in use by " + *holder + "."
                      : "It is in use, perhaps by the published port of another container.";
    }

    std::map<place, unique_fd> held_;
    std::vector<published_port> ports_;
    std::shared_ptr<detail::port_locks> locks_;
};

}  // namespace kumiki::inline v0
