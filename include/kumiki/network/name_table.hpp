// Which names the containers of a network have, and at which addresses: read from the kernel, where
// they stand beside the containers' rules, come with them and go with them, whoever's they are.
//
// In the maps names4 and names6 of the network's table an element is {address, number of the name},
// the name is its comment, and its data are a birth number and whether the container may have names
// asked for outside (container_rules.hpp puts them there). Number 0 is the container's own name; a
// further one counts only when it is of the same birth: what a killed process left does not.
// Kernel: as nftables.hpp. Left out: names that are no container's.
#pragma once

#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <iterator>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <kumiki/core/error.hpp>
#include <kumiki/core/ip.hpp>
#include <kumiki/netlink/message.hpp>
#include <kumiki/netlink/nft_value.hpp>
#include <kumiki/netlink/nft_view.hpp>
#include <kumiki/netlink/nftables.hpp>
#include <kumiki/netlink/socket.hpp>
#include <kumiki/network/firewall_rules.hpp>
#include <kumiki/network/ruleset.hpp>

namespace kumiki::inline v0 {

namespace detail {

/// One element of names4 or names6.
struct name_element {
    ip_address address = {};
    std::uint32_t number = 0;  // 0: the container's own name
    std::uint32_t birth = 0;  // its lowest bit: names_go_out
    std::string name = {};

    bool operator==(const name_element&) const = default;
};

inline std::string lower_case(std::string_view text) {
    std::string lower(text);
    for (char& c : lower)
        if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
    return lower;
}

/// The elements in one message of a dump of names4 or names6; others in it are left out.
/// Errors: EBADMSG.
inline std::vector<name_element> parse_names(const netlink_message& message) {
    std::vector<name_element> found;
    parse_nft_elements(message, [&](const nft::element_view& each) {
        name_element made;
        constexpr std::size_t number = sizeof made.number;  // behind the address
        if (each.key.size() < number || each.data.size() != sizeof made.birth) return;
        const std::string_view key = each.key;
        const auto address = ip_address::try_from_bytes(key.substr(0, key.size() - number));
        if (!address || each.comment.empty()) return;
        made.address = *address;
        std::memcpy(&made.number, key.data() + key.size() - number, number);
        std::memcpy(&made.birth, each.data.data(), sizeof made.birth);
        made.name = lower_case(each.comment);
        found.push_back(std::move(made));
    });
    return found;
}

}  // namespace detail

/// Names and addresses. Names are in lower case.
class name_table {
  public:
    name_table() = default;
    /// Of elements in any order; those that are not of their container's birth do not count.
    explicit name_table(std::vector<detail::name_element> elements) {
        for (detail::name_element& each : elements)
            if (each.number == 0) owners_.push_back(each);
        std::sort(owners_.begin(), owners_.end(), by_address);
        for (detail::name_element& each : elements) {
            const detail::name_element* owner = find_owner(each.address);
            constexpr std::uint32_t go_out = detail::names_go_out;
            if (owner != nullptr && (owner->birth | go_out) == (each.birth | go_out))
                names_.emplace_back(std::move(each.name), each.address);
        }
        std::sort(names_.begin(), names_.end());
        names_.erase(std::unique(names_.begin(), names_.end()), names_.end());
    }

    /// The addresses of all containers that have this name (in lower case), of both families.
    std::vector<ip_address> find(std::string_view name) const {
        std::vector<ip_address> found;
        auto at = std::lower_bound(
            names_.begin(), names_.end(), name,
            [](const auto& each, std::string_view wanted) { return each.first < wanted; });
        for (; at != names_.end() && at->first == name; ++at) found.push_back(at->second);
        return found;
    }
    /// The name of the container that has this address; nothing when there is none.
    std::optional<std::string> name_of(const ip_address& address) const {
        const detail::name_element* owner = find_owner(address);
        if (owner == nullptr) return std::nullopt;
        return owner->name;
    }
    /// True when the container with this address may have names asked for outside of the network.
    bool may_ask_outside(const ip_address& address) const {
        const detail::name_element* owner = find_owner(address);
        return owner != nullptr && (owner->birth & detail::names_go_out) != 0;
    }

  private:
    static bool by_address(const detail::name_element& a, const detail::name_element& b) {
        return a.address < b.address;
    }
    const detail::name_element* find_owner(const ip_address& address) const {
        const auto at = std::lower_bound(owners_.begin(), owners_.end(),
                                         detail::name_element{.address = address}, by_address);
        return at != owners_.end() && at->address == address ? &*at : nullptr;
    }

    std::vector<detail::name_element> owners_;
    std::vector<std::pair<std::string, ip_address>> names_;
};

namespace detail {

/// The names of one network, read again when any of the namespace's nftables rules have changed.
class name_reader {
  public:
    /// The socket is one of NETLINK_NETFILTER in the network's namespace.
    name_reader(netlink_socket socket, std::string network)
        : socket_(std::move(socket)), network_(std::move(network)) {}

    /// Errors: kumiki::error. A network whose table somebody deleted has no names.
    const name_table& now() {
        const std::uint32_t generation = nft::generation(socket_);
        if (read_ && *read_ == generation) return table_;
        std::vector<name_element> all;
        for (const ip_family family : both_families)
            for (auto& part : dump(family))
                all.insert(all.end(), std::make_move_iterator(part.begin()),
                           std::make_move_iterator(part.end()));
        table_ = name_table(std::move(all));
        read_ = generation;
        return table_;
    }

  private:
    std::vector<std::vector<name_element>> dump(ip_family family) {
        const ruleset tables(network_);
        netlink_batch ask;
        ask.add(NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_GETSETELEM, NLM_F_DUMP,
                nfgenmsg{static_cast<std::uint8_t>(nft::family::inet), NFNETLINK_V0, 0},
                {"read names of network", network_});
        ask.text(NFTA_SET_ELEM_LIST_TABLE, tables.inet.name);
        ask.text(NFTA_SET_ELEM_LIST_SET, ruleset::names(family).name);
        try {
            return socket_.dump(ask, [](const netlink_message& message) {
                return std::optional(parse_names(message));
            });
        } catch (const error& failure) {
            if (failure.errno_value() != ENOENT) throw;
            return {};
        }
    }

    netlink_socket socket_;
    std::string network_;
    std::optional<std::uint32_t> read_;
    name_table table_;
};

}  // namespace detail
}  // namespace kumiki::inline v0
