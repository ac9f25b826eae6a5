// Ports as people speak of them: tcp(80), udp(53), and published ones, "127.0.0.1:8080:80/tcp": which
// port of the host leads to which port of a container.
//
// Pure. The text form is that of docker's and podman's `--publish`. Left out: a single container
// port for a range of host ports (which of them would it be?). Holding a port on the host is in
// port_reservation.hpp, leading it into a container in firewall.hpp.
#pragma once

#include <compare>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include <kumiki/core/error.hpp>
#include <kumiki/core/ip.hpp>
#include <kumiki/core/text.hpp>

namespace kumiki::inline v0 {

/// One way into a container: host ports on an address of the host, one by one, to its ports.
struct published_port {
    protocol transport = protocol::tcp;
    /// The ports on the host. {0, 0}: free ones that the kernel picks when they are reserved.
    port_range host{};
    /// The ports in the container; as many as on the host.
    port_range container{};
    /// The host's address. None: all of them, of both families; 0.0.0.0 or ::, all of that family.
    std::optional<ip_address> address{};

    bool operator==(const published_port&) const = default;

    /// True when the host's port is still to be picked.
    constexpr bool picks_port() const noexcept { return host == port_range{}; }
    /// True when packets of `family` are meant.
    constexpr bool covers(ip_family family) const noexcept {
        return !address || address->family() == family;
    }
    /// True when packets to any address of the host (of the families covered) are meant.
    constexpr bool on_all_addresses() const noexcept {
        return !address || address->is_unspecified();
    }

    /// From "[[ADDRESS:][HOST-PORTS]:]PORTS[/PROTOCOL]"; ADDRESS in brackets when it is IPv6, PORTS
    /// one number or FIRST-LAST. Without HOST-PORTS free ones are picked.
    /// Errors: invalid_input that quotes `text` and says what is wrong with it.
    static published_port parse(std::string_view text);
};

/// Refuses what cannot be published. Errors: invalid_input.
inline void require_valid(const published_port& port);

/// Ports of one protocol: for a policy, or published under the same numbers.
struct port_match {
    protocol transport = protocol::tcp;
    port_range ports{};

    auto operator<=>(const port_match&) const = default;
    constexpr operator published_port() const {
        return {.transport = transport, .host = ports, .container = ports};
    }
};

namespace detail {

constexpr port_range checked_ports(port_range ports) {
    if (ports.first == 0 || ports.last < ports.first)
        throw invalid_input("port", std::to_string(ports.first) + "-" + std::to_string(ports.last),
                            "Ports go from 1 to 65535, ranges upwards.");
    return ports;
}
constexpr published_port published(protocol transport, std::uint16_t host,
                                   std::uint16_t container) {
    return {.transport = transport,
            .host = {host, host},
            .container = checked_ports({container, container})};
}

}  // namespace detail

/// TCP port `port`. Errors: invalid_input on 0.
constexpr port_match tcp(std::uint16_t port) {
    return {protocol::tcp, detail::checked_ports({port, port})};
}
constexpr port_match tcp(port_range ports) { return {protocol::tcp, detail::checked_ports(ports)}; }
/// The container's TCP port `container`, published as `host` on all addresses (0: a free one).
constexpr published_port tcp(std::uint16_t host, std::uint16_t container) {
    return detail::published(protocol::tcp, host, container);
}
/// As tcp().
constexpr port_match udp(std::uint16_t port) {
    return {protocol::udp, detail::checked_ports({port, port})};
}
constexpr port_match udp(port_range ports) { return {protocol::udp, detail::checked_ports(ports)}; }
constexpr published_port udp(std::uint16_t host, std::uint16_t container) {
    return detail::published(protocol::udp, host, container);
}
/// As tcp().
constexpr port_match sctp(std::uint16_t port) {
    return {protocol::sctp, detail::checked_ports({port, port})};
}
constexpr port_match sctp(port_range ports) {
    return {protocol::sctp, detail::checked_ports(ports)};
}
constexpr published_port sctp(std::uint16_t host, std::uint16_t container) {
    return detail::published(protocol::sctp, host, container);
}

/// "80" or "8000-8010".
inline std::string to_string(port_range ports) {
    std::string text = std::to_string(ports.first);
    if (ports.last != ports.first) text += "-" + std::to_string(ports.last);
    return text;
}

/// The text that published_port::parse() reads: "127.0.0.1:8080:80/tcp".
inline std::string to_string(const published_port& port) {
    std::string text;
    if (port.address)
        text = (port.address->is_v4() ? to_string(*port.address)
                                      : "[" + to_string(*port.address) + "]") +
               ":";
    if (!port.picks_port()) text += to_string(port.host);
    if (!text.empty()) text += ":";
    return text + to_string(port.container) + "/" + std::string(to_string(port.transport));
}

inline void require_valid(const published_port& port) {
    const auto refuse = [&](std::string_view why) {
        throw invalid_input("published port", to_string(port), why);
    };
    const auto wrong = [](port_range ports) {
        return ports.first == 0 || ports.last < ports.first;
    };
    if (wrong(port.container) || (wrong(port.host) && !port.picks_port()))
        refuse("Ports go from 1 to 65535, ranges upwards.");
    if (!port.picks_port() && port.host.count() != port.container.count())
        refuse("There must be as many ports on the host as in the container.");
    if (port.address &&
        (port.address->is_v4() ? (*port.address)[0] >= 224 : (*port.address)[0] == 0xff))
        refuse("The host's address must not be a multicast or broadcast address.");
}

inline published_port published_port::parse(std::string_view text) {
    const auto refuse = [&](std::string_view why) {
        throw invalid_input("published port", text, why);
    };
    const auto ports = [&](std::string_view part) {
        const auto dash = part.find('-');
        const auto first = parse_number<std::uint16_t>(part.substr(0, dash));
        const auto last = dash == std::string_view::npos
                              ? first
                              : parse_number<std::uint16_t>(part.substr(dash + 1));
        if (!first || !last)
            refuse("'" + std::string(part) +
                   "' must be a port from 1 to 65535 or a range of them.");
        return port_range{*first, *last};
    };
    published_port result;
    std::string_view rest = text;
    if (const auto slash = rest.rfind('/'); slash != std::string_view::npos) {
        const std::string_view name = rest.substr(slash + 1);
        if (name == "udp")
            result.transport = protocol::udp;
        else if (name == "sctp")
            result.transport = protocol::sctp;
        else if (name != "tcp")
            refuse("The protocol must be tcp, udp or sctp.");
        rest = rest.substr(0, slash);
    }
    const auto colon = rest.rfind(':');
    result.container = ports(colon == std::string_view::npos ? rest : rest.substr(colon + 1));
    if (colon != std::string_view::npos) {
        rest = rest.substr(0, colon);
        std::string_view host = rest;
        // An address has colons of its own only in brackets.
        if (const auto split = rest.rfind(':'); split != std::string_view::npos) {
            std::string_view address = rest.substr(0, split);
            host = rest.substr(split + 1);
            const bool bracketed = address.starts_with('[') && address.ends_with(']');
            if (bracketed) address = address.substr(1, address.size() - 2);
            result.address = ip_address::try_parse(address);
            if (!result.address || result.address->is_v6() != bracketed)
                refuse("The host's address must be like 192.0.2.1 or [2001:db8::1].");
        } else if (rest.empty()) {
            refuse("A colon must have a host port before it.");
        }
        if (!host.empty()) result.host = ports(host);
        if (!host.empty() && result.host.first == 0 && result.host.last != 0)
            refuse("Ports go from 1 to 65535, ranges upwards.");
    }
    try {
        require_valid(result);
    } catch (const invalid_input& failure) {
        refuse(failure.remedy());
    }
    return result;
}

}  // namespace kumiki::inline v0
