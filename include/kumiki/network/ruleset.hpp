// The tables, sets and maps of one network in nftables: their names and types.
//
// Table `inet kumiki-NAME`: a packet's way is a few rules and one look-up in a hash in each of
// publish4/6 (host port to container), egress4/6 and ingress4/6 (container to verdict), however many
// containers there are. Table `bridge kumiki-NAME`: the containers' ports and what each may send from.
//
// Pure. The rules that all containers share are in base_rules.hpp, the elements and chains that each of
// them adds in container_rules.hpp; firewall.hpp puts them into the kernel.
#pragma once

#include <cstdint>
#include <cstring>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <kumiki/core/error.hpp>
#include <kumiki/core/ip.hpp>
#include <kumiki/netlink/nft_set.hpp>
#include <kumiki/netlink/nft_value.hpp>
#include <kumiki/netlink/nftables.hpp>
#include <kumiki/network/bridge_options.hpp>
#include <kumiki/network/names.hpp>
#include <kumiki/network/policy_peers.hpp>

namespace kumiki::inline v0 {

/// Whose a network's bridge is. What comes by a shared one from outside of the network is for the
/// host's own firewall to judge.
enum class bridge_use : std::uint8_t { own, shared };

/// The network that a firewall is for.
struct firewall_options {
    std::string network{};  ///< its name: letters, digits, '_', '.', '-'; at most 63 bytes
    std::string bridge{};  ///< the bridge that its containers' ports are on
    std::vector<cidr> subnets{};  ///< the networks that its containers' addresses are in
    std::string ports{};  ///< how the names of its containers' ports begin; empty: in many ways
    bridge_use use = bridge_use::own;
    rule_lifetime lifetime =
        rule_lifetime::shared;  ///< with_process: this object's socket owns them
    name_service names = name_service::off;  ///< on: the gateways answer on port 53
};

namespace detail {

/// The host's address in a network of containers: the first.
inline ip_address gateway_of(const cidr& subnet) { return subnet.network().plus(1); }

/// Errors: invalid_input unless `name` can be a part of the names of tables and chains.
inline void require_rule_name(std::string_view what, std::string_view name) {
    const auto alphanumeric = [](char c) {
        return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
    };
    bool good = !name.empty() && name.size() <= 63 && alphanumeric(name.front());
    for (const char c : name) good = good && (alphanumeric(c) || c == '_' || c == '.' || c == '-');
    if (!good)
        throw invalid_input(what, name,
                            "It must have 1 to 63 letters, digits, '_', '.' or '-', the first of "
                            "them a letter or a digit.");
}

/// How the names of networks' tables begin.
inline constexpr std::string_view table_prefix = "kumiki-";

/// The names and types of a network's tables, sets and maps.
struct ruleset {
    nft::table inet{};
    nft::table bridge{};

    explicit ruleset(const std::string& network)
        : inet{nft::family::inet, std::string(table_prefix) + network},
          bridge{nft::family::bridge, std::string(table_prefix) + network} {}

    /// {protocol, host's address, host's port} to {container's address, its port}.
    static nft::set publish(ip_family family) {
        using namespace nft::fields;
        return {.name = named("publish", family),
                .key = {transport, address(family), port},
                .kind = nft::set_kind::map,
                .data = {address(family), port}};
    }
    /// The same for any address of the host: looked at when there is none in publish().
    static nft::set publish_any(ip_family family) {
        using namespace nft::fields;
        return {.name = named("publish", family) + "-any",
                .key = {transport, port},
                .kind = nft::set_kind::map,
                .data = {address(family), port}};
    }
    /// Container's address to what it may open.
    static nft::set egress(ip_family family) {
        return {.name = named("egress", family),
                .key = {nft::fields::address(family)},
                .kind = nft::set_kind::verdict_map};
    }
    /// Container's address to who may use its published ports.
    static nft::set ingress(ip_family family) {
        return {.name = named("ingress", family),
                .key = {nft::fields::address(family)},
                .kind = nft::set_kind::verdict_map};
    }
    /// {container's address, number of the name} to the container's birth; the comment is the name.
    /// No rule looks at it: name_table.hpp reads it.
    static nft::set names(ip_family family) {
        return {.name = named("names", family),
                .key = {nft::fields::address(family), nft::fields::mark},
                .kind = nft::set_kind::map,
                .data = {nft::fields::mark}};
    }
    /// In the bridge's table: the containers' ports, and the Ethernet and IP addresses that each may
    /// send from.
    static nft::set ports() { return {.name = "ports", .key = {nft::fields::interface}}; }
    static nft::set sources(ip_family family) {
        return {.name = named("sources", family),
                .key = {nft::fields::interface, nft::fields::ether, nft::fields::address(family)}};
    }

    /// Container's address to who of the network may reach it by that address.
    static nft::set direct(ip_family family) {
        return {.name = named("direct", family),
                .key = {nft::fields::address(family)},
                .kind = nft::set_kind::verdict_map};
    }
    /// Container's address to the rates of what it sends, and of what is sent to it. Added with the
    /// first container that has any.
    static nft::set rates_out(ip_family family) {
        return {.name = named("rates-out", family),
                .key = {nft::fields::address(family)},
                .kind = nft::set_kind::verdict_map};
    }
    static nft::set rates_in(ip_family family) {
        return {.name = named("rates-in", family),
                .key = {nft::fields::address(family)},
                .kind = nft::set_kind::verdict_map};
    }
    /// Who has which names and labels: a number for one of them, and a container's address.
    static nft::set members(ip_family family) {
        using namespace nft::fields;
        return {.name = named("members", family), .key = {mark, mark, address(family)}};
    }
    /// The first two fields of a key of members().
    static nft::value member(std::string_view key) {
        const std::uint64_t number = member_number(key);
        nft::value both = nft::value::number(static_cast<std::uint32_t>(number >> 32));
        both.append_padded(nft::value::number(static_cast<std::uint32_t>(number)));
        return both;
    }
    /// What a key of members() says, from its bytes; nothing for what is none.
    static std::optional<std::pair<std::uint64_t, ip_address>> member_of(std::string_view key) {
        std::uint32_t half[2];
        if (key.size() < sizeof half) return std::nullopt;
        std::memcpy(half, key.data(), sizeof half);
        const auto address = ip_address::try_from_bytes(key.substr(sizeof half));
        if (!address) return std::nullopt;
        return std::pair(std::uint64_t{half[0]} << 32 | half[1], *address);
    }

  private:
    static std::string named(std::string_view what, ip_family family) {
        return std::string(what) + (family == ip_family::v4 ? "4" : "6");
    }
};

inline nft::owner owner_of(const firewall_options& options) noexcept {
    return options.lifetime == rule_lifetime::shared ? nft::owner::nobody : nft::owner::socket;
}

inline constexpr ip_family both_families[] = {ip_family::v4, ip_family::v6};

}  // namespace detail
}  // namespace kumiki::inline v0
