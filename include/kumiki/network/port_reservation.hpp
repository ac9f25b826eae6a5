// Host ports held for a container: a socket is bound to each, so that no other program, and no other
// network of kumiki's, can take them while they are published.
//
// The sockets never see a packet: the destination is translated before sockets are looked up. They
// are bound without SO_REUSEADDR and do not listen unless told to, so that a client that comes too
// early is refused by the kernel and not left in a backlog that nobody reads.
// Lifetime: the kernel frees the ports with the process, however it ends.
#pragma once

#include <netinet/in.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <kumiki/core/error.hpp>
#include <kumiki/core/ip.hpp>
#include <kumiki/core/unique_fd.hpp>
#include <kumiki/network/port_holder.hpp>
#include <kumiki/network/publish.hpp>
#include <kumiki/sys/check.hpp>

namespace kumiki::inline v0 {

/// Ports of the host, held. Move-only; destroying it frees them.
class port_reservation {
  public:
    port_reservation() = default;

    /// Holds all of `ports`, or none: in the calling thread's network namespace, for the families of
    /// `addresses`, which are the container's.
    ///
    /// Errors: invalid_input for what cannot be published, or to this container; kumiki::error
    /// EADDRINUSE with the port and, where it can be found out, who has it; EADDRNOTAVAIL when the
    /// host does not have the address; EACCES for a port below 1024 without CAP_NET_BIND_SERVICE.
    static port_reservation hold(std::span<const published_port> ports,
                                 std::span<const ip_address> addresses) {
        port_reservation held;
        for (const published_port& port : ports) {
            require_valid(port);
            const families wanted = families_of(port, addresses);
            if (!port.picks_port()) {
                for (std::uint32_t number = port.host.first; number <= port.host.last; ++number)
                    held.hold_one(port, static_cast<std::uint16_t>(number), wanted);
                held.ports_.push_back(port);
                continue;
            }
            // The free ports need not be neighbours: each is published by itself.
            for (std::uint32_t number = port.container.first; number <= port.container.last;
                 ++number) {
                const auto inside = static_cast<std::uint16_t>(number);
                const std::uint16_t outside = held.hold_any(port, wanted);
                held.ports_.push_back({.transport = port.transport,
                                       .host = {outside, outside},
                                       .container = {inside, inside},
                                       .address = port.address});
            }
        }
        return held;
    }

    /// What is held, with the picked ports filled in.
    const std::vector<published_port>& ports() const noexcept { return ports_; }

    /// Shows the TCP ports to those who list listening sockets. To be called once the firewall leads
    /// the ports into the container, not before. Errors: kumiki::error.
    void listen() {
        for (const unique_fd& socket : sockets_) {
            int type = 0;
            socklen_t size = sizeof type;
            sys::check(::getsockopt(socket.get(), SOL_SOCKET, SO_TYPE, &type, &size), "getsockopt");
            if (type == SOCK_STREAM) sys::check(::listen(socket.get(), 0), "listen");
        }
    }

  private:
    struct families {
        bool v4 = false;
        bool v6 = false;
    };

    static families families_of(const published_port& port, std::span<const ip_address> addresses) {
        families wanted;
        for (const ip_address& each : addresses)
            if (port.covers(each.family())) (each.is_v4() ? wanted.v4 : wanted.v6) = true;
        if (!wanted.v4 && !wanted.v6)
            throw invalid_input("published port", to_string(port),
                                "The container has no address of its family.");
        return wanted;
    }
    void hold_one(const published_port& port, std::uint16_t number, families wanted) {
        if (wanted.v4) (void)bind_to(port, ip_family::v4, number);
        if (wanted.v6) (void)bind_to(port, ip_family::v6, number);
    }
    // What is free for one family may be taken for the other: then another is tried.
    std::uint16_t hold_any(const published_port& port, families wanted) {
        for (int attempt = 0;; ++attempt) {
            const std::size_t before = sockets_.size();
            const auto number = bind_to(port, wanted.v4 ? ip_family::v4 : ip_family::v6, 0);
            if (!number)
                throw unsupported(EPROTONOSUPPORT,
                                  {.operation = "pick a free port for",
                                   .object = to_string(port),
                                   .step = {},
                                   .container = {},
                                   .remedy = "This kernel has no sockets of that protocol."});
            try {
                if (wanted.v4 && wanted.v6) (void)bind_to(port, ip_family::v6, *number);
                return *number;
            } catch (const error& failure) {
                if (failure.errno_value() != EADDRINUSE || attempt == 32) throw;
                sockets_.resize(before);
            }
        }
    }
    // The port that was bound; nothing when there are no sockets of the family or the protocol, so
    // that no other program can take the port either.
    std::optional<std::uint16_t> bind_to(const published_port& port, ip_family family,
                                         std::uint16_t number) {
        const ip_address address = port.address && port.address->family() == family ? *port.address
                                   : family == ip_family::v4
                                       ? ip_address(std::array<std::uint8_t, 4>{})
                                       : ip_address(std::array<std::uint8_t, 16>{});
        const int domain = family == ip_family::v4 ? AF_INET : AF_INET6;
        const int type = port.transport == protocol::udp ? SOCK_DGRAM : SOCK_STREAM;
        const int made = ::socket(domain, type | SOCK_CLOEXEC, static_cast<int>(port.transport));
        if (made < 0 &&
            (errno == EAFNOSUPPORT || errno == EPROTONOSUPPORT || errno == ESOCKTNOSUPPORT))
            return std::nullopt;
        const std::string name = name_of(port, address, number);
        unique_fd socket(sys::check(made, "open a socket to hold", name));

        sockaddr_storage to{};
        socklen_t size = sizeof(sockaddr_in);
        if (family == ip_family::v4) {
            auto& v4 = reinterpret_cast<sockaddr_in&>(to);
            v4.sin_family = AF_INET;
            v4.sin_port = htons(number);
            std::memcpy(&v4.sin_addr, address.data(), 4);
        } else {
            const int on = 1;
            sys::check(::setsockopt(socket.get(), IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on),
                       "setsockopt IPV6_V6ONLY");
            auto& v6 = reinterpret_cast<sockaddr_in6&>(to);
            v6.sin6_family = AF_INET6;
            v6.sin6_port = htons(number);
            std::memcpy(&v6.sin6_addr, address.data(), 16);
            size = sizeof(sockaddr_in6);
        }
        auto* raw = reinterpret_cast<sockaddr*>(&to);
        if (::bind(socket.get(), raw, size) != 0) {
            const int code = errno;
            throw error(code, {.operation = "reserve host port",
                               .object = name,
                               .step = {},
                               .container = {},
                               .remedy = remedy(code, port, address, number)});
        }
        sys::check(::getsockname(socket.get(), raw, &size), "getsockname", name);
        sockets_.push_back(std::move(socket));
        return ntohs(family == ip_family::v4 ? reinterpret_cast<sockaddr_in&>(to).sin_port
                                             : reinterpret_cast<sockaddr_in6&>(to).sin6_port);
    }
    static std::string name_of(const published_port& port, const ip_address& address,
                               std::uint16_t number) {
        const std::string text = to_string(address);
        return (address.is_v4() ? text : "[" + text + "]") + ":" + std::to_string(number) + "/" +
               std::string(to_string(port.transport));
    }
    static std::string remedy(int code, const published_port& port, const ip_address& address,
                              std::uint16_t number) {
        if (code == EACCES) return "Ports below 1024 need CAP_NET_BIND_SERVICE.";
        if (code == EADDRNOTAVAIL) return "It must be an address of this host.";
        if (code != EADDRINUSE) return {};
        const auto holder = port_holder(port.transport, address, number);
        return holder ? "It is in use by " + *holder + "."
                      : "It is in use, perhaps by the published port of another container.";
    }

    std::vector<unique_fd> sockets_;
    std::vector<published_port> ports_;
};

}  // namespace kumiki::inline v0
