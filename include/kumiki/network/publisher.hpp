// For which container a port of the host is published: for the error that says that it is taken.
//
// Read from the maps of all networks of the namespace, whose elements have the containers' names as
// comments: also those of other processes. Kernel: as nft_view.hpp. Left out: a port that is reserved for
// a container that is not connected yet (port_holder.hpp tells the process).
#pragma once

#include <linux/netlink.h>

#include <optional>
#include <string>
#include <string_view>

#include <kumiki/core/ip.hpp>
#include <kumiki/netlink/mac.hpp>
#include <kumiki/netlink/nft_value.hpp>
#include <kumiki/netlink/nft_view.hpp>
#include <kumiki/netlink/socket.hpp>
#include <kumiki/network/owned_elements.hpp>
#include <kumiki/network/publish.hpp>
#include <kumiki/network/ruleset.hpp>

namespace kumiki::inline v0::detail {

/// True when the key of an element of ruleset::publish() or publish_any() has this transport and port,
/// and an address that stands in the way of `address`.
inline bool publishes(const nft::element_view& element, protocol transport,
                      const ip_address& address, std::uint16_t port) {
    const std::string_view key = element.key;
    const nft::value first = nft::concat(transport);
    const nft::value last = nft::concat(nft::value::wire(port));
    if (!key.starts_with(first.view()) || !key.ends_with(last.view())) return false;
    const std::string_view middle =
        key.substr(first.size(), key.size() - first.size() - last.size());
    if (middle.empty() || address.is_unspecified()) return true;
    return ip_address::try_from_bytes(middle) == address;
}

/// "container web of network shop"; nothing when there is none, or it cannot be found out.
inline std::optional<std::string> find_publisher(protocol transport, const ip_address& address,
                                                 std::uint16_t port) noexcept {
    try {
        auto netfilter = netlink_socket::open(NETLINK_NETFILTER);
        for (const nft::table_view& table : nft::list_tables(netfilter)) {
            if (table.family != nft::family::inet || !table.name.starts_with(table_prefix))
                continue;
            const std::string network = table.name.substr(table_prefix.size());
            for (const owned_set& set : owned_sets(ruleset(network))) {
                if (set.place != owner_place::data || set.family != address.family()) continue;
                for (const nft::element_view& each : elements_of(netfilter, set))
                    if (publishes(each, transport, address, port))
                        return "container " + each.comment + " of network " + network;
            }
        }
    } catch (...) {  // not root, no memory: the error is told without the name
    }
    return std::nullopt;
}

}  // namespace kumiki::inline v0::detail
