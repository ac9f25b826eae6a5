// Whose an element of a network's sets is: told by the container's addresses, or by its port, wherever
// these stand in the element. What a killed process left is found by that, whatever it was.
//
// Kernel: as nft_view.hpp. Left out: chains, which are told by their names (policy_chain.hpp).
#pragma once

#include <cerrno>
#include <cstdint>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include <kumiki/core/error.hpp>
#include <kumiki/core/ip.hpp>
#include <kumiki/netlink/nft_set.hpp>
#include <kumiki/netlink/nft_value.hpp>
#include <kumiki/netlink/nft_view.hpp>
#include <kumiki/netlink/nftables.hpp>
#include <kumiki/netlink/socket.hpp>
#include <kumiki/network/ruleset.hpp>

namespace kumiki::inline v0::detail {

/// Where in an element its owner stands.
enum class owner_place : std::uint8_t {
    key,  ///< an address begins the key
    member,  ///< an address is behind the member's number
    data,  ///< an address begins the data
    port,  ///< a port's name begins the key
};

/// A set with elements of containers.
struct owned_set {
    nft::table table{};
    nft::set set{};
    ip_family family = ip_family::v4;
    owner_place place = owner_place::key;
    bool says_whose = true;  ///< the elements' comments are containers' names
};

/// All of a network's.
inline std::vector<owned_set> owned_sets(const ruleset& tables) {
    std::vector<owned_set> all;
    for (const ip_family family : both_families) {
        for (const nft::set& set :
             {ruleset::egress(family), ruleset::ingress(family), ruleset::direct(family),
              ruleset::rates_out(family), ruleset::rates_in(family)})
            all.push_back({tables.inet, set, family, owner_place::key});
        all.push_back({tables.inet, ruleset::names(family), family, owner_place::key, false});
        all.push_back({tables.inet, ruleset::members(family), family, owner_place::member});
        for (const nft::set& set : {ruleset::publish(family), ruleset::publish_any(family)})
            all.push_back({tables.inet, set, family, owner_place::data});
        all.push_back({tables.bridge, ruleset::sources(family), family, owner_place::port});
    }
    all.push_back({tables.bridge, ruleset::ports(), ip_family::v4, owner_place::port});
    return all;
}

/// The elements that there are; none in a set that is not there. Errors: kumiki::error.
inline std::vector<nft::element_view> elements_of(netlink_socket& netfilter, const owned_set& in) {
    try {
        return nft::list_elements(netfilter, in.table, in.set.name);
    } catch (const error& failure) {
        if (failure.errno_value() != ENOENT) throw;
        return {};
    }
}

/// The address that an element is of; nothing where it is a port's.
inline std::optional<ip_address> address_in(const owned_set& in, const nft::element_view& element) {
    const std::size_t size = in.family == ip_family::v4 ? 4 : 16;
    const std::size_t at = in.place == owner_place::member ? 8 : 0;
    const std::string_view bytes = in.place == owner_place::data ? element.data : element.key;
    if (in.place == owner_place::port || bytes.size() < at + size) return std::nullopt;
    return ip_address::try_from_bytes(bytes.substr(at, size));
}

/// Containers, by what tells their elements.
struct element_owners {
    std::set<ip_address> addresses{};
    std::set<std::string> ports{};  ///< nft::value::name(), as keys begin with it

    bool own(const owned_set& in, const nft::element_view& element) const {
        if (in.place == owner_place::port) return ports.contains(element.key.substr(0, 16));
        const auto address = address_in(in, element);
        return address && addresses.contains(*address);
    }
};

}  // namespace kumiki::inline v0::detail
