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
#include <kumiki/core/text.hpp>
#include <kumiki/netlink/mac.hpp>
#include <kumiki/network/names.hpp>

namespace kumiki::inline v0 {

/// What begins the names of kumiki's bridges.
inline constexpr std::string_view bridge_prefix = "km-";

/// How long the rules of a network live.
enum class rule_lifetime : std::uint8_t {
    /// Until the last process leaves the network; what killed ones left is removed by the next, or by
    /// reconcile(). Several processes can use the network.
    shared,
    /// Until the process ends, however it does: the kernel takes them away. Nobody else can change
    /// them, and no other process can use the network. Kernel: 5.12.
    with_process,
};

/// How a bridge network is to be.
struct bridge_options {
    /// 1 to 12 letters, digits, '-', '_', '.'. The bridge is called "km-<name>".
    std::string name = {};
    /// The IPv4 network, with room for a gateway and a container (a prefix of 8 to 30); none
    /// (prefix 0): one is chosen that overlaps no route of the host's, see subnets.hpp.
    cidr subnet = {};
    /// The IPv6 network (a prefix of 48 to 126), or "::/0" for a chosen one; none: the containers
    /// have no IPv6.
    std::optional<cidr> subnet6 = {};
    /// Where the IPv4 network is chosen from; empty: default_subnet_pools().
    std::vector<cidr> pools = {};
    /// A bridge that is there already and stays when the network goes, in the place of "km-<name>":
    /// see existing_bridge.hpp.
    std::string existing_bridge = {};
    /// In bytes; none: that of the interface with the default route, or 1500.
    std::optional<std::uint32_t> mtu = {};
    /// The interfaces that outside is behind; empty: all that are up when the network is opened.
    /// They matter only where the host does not forward packets: see forwarding.hpp.
    std::vector<std::string> uplinks = {};
    /// Whose the rules are: all processes' that use the network, or one's alone.
    rule_lifetime rules = rule_lifetime::shared;
    /// Whether the containers find each other by name: their resolv.conf names the host's address
    /// in the network then, where serve_names() (resolver.hpp) answers.
    name_service names = name_service::off;
    /// With names: what may stand behind them, as in "db.shop.internal"; empty: nothing. Names that
    /// end in it are never asked for outside.
    std::string domain = {};
    /// Where processes that share networks find each other's locks.
    std::string state_directory = "/run/kumiki";
};

/// The prefix of an IPv4 network that is chosen.
inline constexpr std::uint8_t chosen_prefix = 24;

namespace detail {

/// True for a network that stands for one to be chosen: "0.0.0.0/0", "::/0".
inline bool is_chosen(const cidr& subnet) noexcept {
    return subnet.prefix == 0 && subnet.address.is_unspecified();
}

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
    if (name == "guard")
        throw invalid_input("network name", name,
                            "It is that of the table that guards forwarding, kumiki-guard.");
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
    if (options.subnet.address.is_v6() || !is_chosen(options.subnet))
        check(options.subnet, ip_family::v4, 8, 30);
    if (options.subnet6 && (options.subnet6->address.is_v4() || !is_chosen(*options.subnet6)))
        check(*options.subnet6, ip_family::v6, 48, 126);
    for (const cidr& pool : options.pools) check(pool, ip_family::v4, 8, chosen_prefix);
    if (!options.existing_bridge.empty()) require_link_name(options.existing_bridge);
    if (!options.existing_bridge.empty() && options.rules == rule_lifetime::with_process)
        throw invalid_input(
            "bridge", options.existing_bridge,
            "It would be open to its others when the process dies and its rules with "
            "it, as the bridge's settings stay: the rules of an existing bridge are "
            "shared.");
    if (!options.existing_bridge.empty() && options.mtu)
        throw invalid_input("MTU", std::to_string(*options.mtu),
                            "An existing bridge keeps the one that it has.");
    if (options.mtu && (*options.mtu < 1280 || *options.mtu > 65535))
        throw invalid_input("MTU", std::to_string(*options.mtu), "It must be from 1280 to 65535.");
    if (!options.domain.empty()) (void)require_hostname(options.domain);
    if (!options.domain.empty() && options.names == name_service::off)
        throw invalid_input("domain", options.domain, "The network's names are off.");
    if (!options.state_directory.starts_with('/'))
        throw invalid_input("state directory", options.state_directory, "It must be absolute.");
    return options;
}

/// Of the rules of networks (base_rules.hpp) and of what containers add to them: processes with different
/// ones cannot share a network, as each would put its own back.
inline constexpr int rules_version = 2;

/// What all that share a network must have alike, as it stands in its file "settings".
inline std::string describe(const bridge_options& options) {
    return to_string(options.subnet) + (options.subnet6 ? " " + to_string(*options.subnet6) : "") +
           (options.mtu ? " mtu " + std::to_string(*options.mtu) : "") +
           (options.existing_bridge.empty() ? "" : " bridge " + options.existing_bridge) +
           (options.rules == rule_lifetime::with_process ? " rules with process" : "") +
           (options.names == name_service::on ? " names " + options.domain : "") + " version " +
           std::to_string(rules_version);
}
/// Takes the networks that are to be chosen from those with whom this one is shared, out of what
/// describe() wrote.
inline void take_chosen(bridge_options& options, std::string_view theirs) {
    const auto next = [&] { return cidr::try_parse(next_field(theirs, ' ').value_or("")); };
    const auto four = next();
    if (four && is_chosen(options.subnet)) options.subnet = *four;
    if (!options.subnet6 || !is_chosen(*options.subnet6)) return;
    if (const auto six = next()) options.subnet6 = *six;
}

}  // namespace detail
}  // namespace kumiki::inline v0
