// What a bridge network is to be, and the check of it.
//
// Pure. The limits are the kernel's (15 bytes for an interface's name, an MTU of at least 1280 for
// IPv6) and those of sense: a network that containers are to share has room for some.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <kumiki/core/error.hpp>
#include <kumiki/core/ip.hpp>
#include <kumiki/netlink/mac.hpp>
#include <kumiki/network/names.hpp>

namespace kumiki::inline v0 {

/// What begins the names of kumiki's bridges.
inline constexpr std::string_view bridge_prefix = "km-";

/// How a bridge network is to be.
struct bridge_options {
    /// 1 to 12 letters, digits, '-', '_', '.'. The bridge is called "km-<name>".
    std::string name = {};
    /// The IPv4 network, with room for a gateway and a container (a prefix of 8 to 30).
    cidr subnet = {};
    /// The IPv6 network (a prefix of 48 to 126); none: the containers have no IPv6.
    std::optional<cidr> subnet6 = {};
    /// In bytes; none: that of the interface with the default route, or 1500.
    std::optional<std::uint32_t> mtu = {};
    /// The interfaces that outside is behind; empty: all that are up when the network is opened.
    /// They matter only where the host does not forward packets: see forwarding.hpp.
    std::vector<std::string> uplinks = {};
    /// Whether the containers find each other by name: their resolv.conf names the host's address
    /// in the network then, where serve_names() (resolver.hpp) answers.
    name_service names = name_service::off;
    /// With names: what may stand behind them, as in "db.shop.internal"; empty: nothing. Names that
    /// end in it are never asked for outside.
    std::string domain = {};
    /// Where processes that share networks find each other's locks.
    std::string state_directory = "/run/kumiki";
};

namespace detail {

/// Returns `options` when they can be a network's. Errors: invalid_input.
inline bridge_options require_bridge_options(bridge_options options) {
    const std::string& name = options.name;
    bool good = !name.empty() && name.size() <= link_name_size - bridge_prefix.size() &&
                name.front() != '-' && name.front() != '.';
    for (const char c : name)
        good = good && ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
                        (c >= '0' && c <= '9') || c == '-' || c == '_' || c == '.');
    if (!good)
        throw invalid_input("network name", name,
                            "It must be 1 to 12 letters, digits, '-', '_' or '.', and begin with a "
                            "letter or digit: the interface km-<name> has 15 bytes at most.");
    const auto check = [](const cidr& subnet, ip_family family, unsigned least, unsigned most) {
        const auto first = subnet.network()[0];
        if (subnet.address.family() != family || subnet.prefix < least || subnet.prefix > most ||
            subnet.network().is_loopback() || first == 0 ||
            first >= (family == ip_family::v4 ? 224 : 254))
            throw invalid_input("subnet", to_string(subnet),
                                std::string("It must be a unicast network of ") +
                                    (family == ip_family::v4 ? "IPv4" : "IPv6") +
                                    " with a prefix of " + std::to_string(least) + " to " +
                                    std::to_string(most) + ".");
    };
    check(options.subnet, ip_family::v4, 8, 30);
    if (options.subnet6) check(*options.subnet6, ip_family::v6, 48, 126);
    if (options.mtu && (*options.mtu < 1280 || *options.mtu > 65535))
        throw invalid_input("MTU", std::to_string(*options.mtu), "It must be from 1280 to 65535.");
    if (!options.domain.empty()) (void)require_hostname(options.domain);
    if (!options.domain.empty() && options.names == name_service::off)
        throw invalid_input("domain", options.domain, "The network's names are off.");
    if (!options.state_directory.starts_with('/'))
        throw invalid_input("state directory", options.state_directory, "It must be absolute.");
    return options;
}

}  // namespace detail
}  // namespace kumiki::inline v0
