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
#include <string>
#include <string_view>
#include <vector>

#include <kumiki/core/error.hpp>
#include <kumiki/core/ip.hpp>
#include <kumiki/netlink/nft_set.hpp>
#include <kumiki/netlink/nft_value.hpp>
#include <kumiki/netlink/nftables.hpp>
#include <kumiki/network/policy_peers.hpp>

namespace kumiki::inline v0 {

/// The network that a firewall is for.
struct firewall_options {
    std::string network{};  ///< its name: letters, digits, '_', '.', '-'; at most 63 bytes
    std::string bridge{};  ///< the bridge that its containers' ports are on
    std::vector<cidr> subnets{};  ///< the networks that its containers' addresses are in
};

namespace detail {

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

/// The names and types of a network's tables, sets and maps.
struct ruleset {
    nft::table inet{};
    nft::table bridge{};

    explicit ruleset(const std::string& network)
        : inet{nft::family::inet, "kumiki-" + network},
          bridge{nft::family::bridge, "kumiki-" + network} {}

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
    /// In the bridge's table: the containers' ports, and the addresses that each may send from.
    static nft::set ports() { return {.name = "ports", .key = {nft::fields::interface}}; }
    static nft::set sources(ip_family family) {
        return {.name = named("sources", family),
                .key = {nft::fields::interface, nft::fields::address(family)}};
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

  private:
    static std::string named(std::string_view what, ip_family family) {
        return std::string(what) + (family == ip_family::v4 ? "4" : "6");
    }
};

inline constexpr ip_family both_families[] = {ip_family::v4, ip_family::v6};

}  // namespace detail
}  // namespace kumiki::inline v0
