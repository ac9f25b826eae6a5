// What a firewall enforces for one container: its addresses, what it publishes, its policies and names.
//
// Pure. container_rules.hpp makes rules of the kernel's of it.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <kumiki/core/error.hpp>
#include <kumiki/core/ip.hpp>
#include <kumiki/netlink/mac.hpp>
#include <kumiki/netlink/nft_value.hpp>
#include <kumiki/network/policy.hpp>
#include <kumiki/network/policy_peers.hpp>
#include <kumiki/network/publish.hpp>
#include <kumiki/network/ruleset.hpp>

namespace kumiki::inline v0 {

/// What a firewall enforces for one container.
struct firewall_rules {
    std::string container{};  ///< its name in the network; as for firewall_options::network
    std::string port{};  ///< the bridge's port to it; need not exist yet
    std::vector<ip_address> addresses{};  ///< its own: one of a family at most
    std::vector<published_port> publish{};  ///< with picked ports filled in (port_reservation)
    policy ingress = allow_all();  ///< who may use the published ports
    policy egress = allow_all();  ///< what it may open; denied is also a ping to the host
    policy direct = deny_all();  ///< who of the network may reach it by its own address
    std::vector<std::string> labels{};  ///< that rules of others may name
    std::vector<std::string> aliases{};  ///< further names in a network with a resolver
    std::uint32_t birth = 0;  ///< a number of this connection: names of others do not count as its
    std::optional<mac_address>
        mac{};  ///< its interface's; none: the one made from its first address
    bool ending = false;  ///< nothing leads to it any more, and nobody finds it by its names
};

/// Errors: invalid_input that names what cannot be.
inline void require_valid(const firewall_rules& rules, const firewall_options& options) {
    detail::require_rule_name("container name", rules.container);
    for (const std::string& each : rules.labels) detail::require_rule_name("label", each);
    (void)nft::value::name(rules.port);
    if (rules.addresses.empty())
        throw invalid_input("container", rules.container, "It has no address.");
    for (std::size_t i = 0; i < rules.addresses.size(); ++i) {
        const ip_address& address = rules.addresses[i];
        bool inside = false;
        for (const cidr& subnet : options.subnets) inside = inside || subnet.contains(address);
        if (!inside)
            throw invalid_input("container's address", to_string(address),
                                "It is in none of the subnets of network " + options.network + ".");
        for (std::size_t j = 0; j < i; ++j)
            if (rules.addresses[j].family() == address.family())
                throw invalid_input("container's address", to_string(address),
                                    "It has another one of the same family.");
    }
    for (const std::string& alias : rules.aliases) detail::require_rule_name("alias", alias);
    for (const published_port& port : rules.publish) {
        require_valid(port);
        bool covered = false;
        for (const ip_address& address : rules.addresses)
            covered = covered || port.covers(address.family());
        if (port.picks_port() || !covered)
            throw invalid_input("published port", to_string(port),
                                port.picks_port() ? "Its host port is not reserved yet."
                                                  : "The container has no address of its family.");
    }
}

namespace detail {

inline mac_address mac_of(const firewall_rules& rules) {
    return rules.mac.value_or(mac_address::from(rules.addresses.front()));
}
/// The lowest bit of a birth: the container may have names asked for outside of the network.
inline constexpr std::uint32_t names_go_out = 1;

/// True of what goes to the network's resolver, on its gateways.
inline bool asks_for_names(const firewall_options& options, const ip_address& to,
                           std::uint8_t transport, std::uint16_t port) {
    return options.names == name_service::on && port == 53 &&
           (transport == static_cast<std::uint8_t>(protocol::udp) ||
            transport == static_cast<std::uint8_t>(protocol::tcp)) &&
           std::any_of(options.subnets.begin(), options.subnets.end(),
                       [&](const cidr& each) { return gateway_of(each) == to; });
}

/// What memberships calls a container: by its name, and by each of its labels.
inline std::vector<std::string> member_keys(const firewall_rules& rules) {
    std::vector<std::string> keys{memberships::key(container_name{rules.container})};
    for (const std::string& each : rules.labels) {
        std::string key = memberships::key(label{each});
        if (std::find(keys.begin(), keys.end(), key) == keys.end()) keys.push_back(std::move(key));
    }
    return keys;
}

inline void add_members(memberships& into, const firewall_rules& rules) {
    for (const std::string& key : member_keys(rules))
        for (const ip_address& address : rules.addresses) into.add(member_number(key), address);
}

}  // namespace detail
}  // namespace kumiki::inline v0
