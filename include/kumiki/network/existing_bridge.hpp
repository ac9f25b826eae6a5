// A bridge that somebody else made, as a network's: what is changed of it stands in a record and is
// changed back, and the bridge stays.
//
// The gateway's addresses are added where it has none of the network's, and what the rules of
// network depend on is set below /proc/sys/net (forwarding is forwarding.hpp's). What others send
// through the bridge is left to the host's own firewall: see bridge_use in ruleset.hpp.
// A bridge that has ports already gives its containers a network of their own: others may be in the
// bridge's. Left out: several networks on one bridge; ARP and NDP
// that its others forge; asking the bridge's neighbours whether they use an address of the network.
#pragma once

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <kumiki/core/error.hpp>
#include <kumiki/core/ip.hpp>
#include <kumiki/core/observer.hpp>
#include <kumiki/core/text.hpp>
#include <kumiki/netlink/address.hpp>
#include <kumiki/netlink/link.hpp>
#include <kumiki/netlink/link_info.hpp>
#include <kumiki/netlink/route.hpp>
#include <kumiki/netlink/socket.hpp>
#include <kumiki/network/loopback_route.hpp>
#include <kumiki/sys/directory.hpp>
#include <kumiki/sys/file.hpp>
#include <kumiki/sys/netns.hpp>

namespace kumiki::inline v0::detail {

/// What was changed of a bridge: lines of "link NAME", "set KEY VALUE" (the old one), "address
/// NETWORK".
struct bridge_record {
    static constexpr const char* file = "bridge";
    std::string link = {};
    std::vector<std::pair<std::string, std::string>> settings = {};
    std::vector<cidr> addresses = {};

    /// Lines that say nothing known are left out.
    static bridge_record parse(std::string_view text) {
        bridge_record record;
        for (std::string_view rest = text; const auto line = next_field(rest, '\n');) {
            std::string_view words = *line;
            const auto kind = next_field(words, ' ');
            if (kind == "link") record.link = words;
            if (kind == "address")
                if (const auto address = cidr::try_parse(words))
                    record.addresses.push_back(*address);
            if (kind != "set") continue;
            const auto key = next_field(words, ' ');
            if (key) record.settings.emplace_back(*key, words);
        }
        return record;
    }
    static bridge_record read(int directory) {
        return parse(sys::try_read_file_at(directory, file).value_or(""));
    }
    std::string text() const {
        std::string text = "link " + link + "\n";
        for (const auto& [key, value] : settings) text += "set " + key + " " + value + "\n";
        for (const cidr& address : addresses) text += "address " + to_string(address) + "\n";
        return text;
    }
    void write(int directory) const {
        sys::open_at(directory, file, O_WRONLY | O_CREAT | O_TRUNC, 0600);
        sys::write_file_at(directory, file, text());
    }
};

/// The route of ::1 on a bridge, as add_loopback_route() makes it.
inline route_info loopback_route_of(int link) {
    return {.destination = cidr::parse("::1"),
            .link = link,
            .metric = 1024 + static_cast<std::uint32_t>(link),
            .table = RT_TABLE_LOCAL,
            .type = route_type::local};
}

/// The bridge called `name`. Errors: ENODEV; invalid_input for what is no bridge, or is down.
inline link_info require_bridge(netlink_socket& socket, const std::string& name) {
    const auto found = find_link(socket, name);
    if (!found)
        throw error(ENODEV, {.operation = "use bridge",
                             .object = name,
                             .remedy = "There is no interface of this name."});
    if (found->kind != "bridge")
        throw invalid_input(
            "bridge", name,
            "It is " + (found->kind.empty() ? "a device" : "a " + found->kind) + ", not a bridge.");
    if (!found->is_up) throw invalid_input("bridge", name, "It is down.");
    return *found;
}

/// Errors: EBUSY when another of the networks below `directory` has the bridge called `name`, or was
/// killed and left it changed.
inline void require_free_bridge(const std::string& directory, const std::string& network,
                                const std::string& name) {
    for (const std::string& other : sys::directories_in(directory)) {
        if (other == network) continue;
        const auto place =
            sys::try_open_at(AT_FDCWD, directory + "/" + other, O_RDONLY | O_DIRECTORY);
        if (place && bridge_record::read(place->get()).link == name)
            throw error(EBUSY, {.operation = "use bridge",
                                .object = name,
                                .remedy = "The network " + other +
                                          " has it, or left it changed: "
                                          "end that, or open it once."});
    }
}

/// Changes the bridge as a network with `gateways` (addresses with their prefixes) needs it; the
/// record in `directory` has what to change back. Errors: invalid_input when the bridge has another
/// address in the network than the gateway's; kumiki::error.
inline void adopt_bridge(int directory, int netns, netlink_socket& socket, const link_info& bridge,
                         const std::vector<cidr>& gateways) {
    bridge_record record{.link = bridge.name};
    const auto present = list_addresses(socket, bridge.index);
    bool ipv6 = false;
    for (const cidr& gateway : gateways) {
        ipv6 = ipv6 || gateway.address.is_v6();
        bool there = false;
        for (const address_info& each : present) {
            there = there || each.address.address == gateway.address;
            if (gateway.contains(each.address.address) && each.address.address != gateway.address)
                throw invalid_input("subnet", to_string(gateway),
                                    "The bridge " + bridge.name + " has the address " +
                                        to_string(each.address.address) +
                                        " in it, which is not the first one.");
        }
        if (!there) record.addresses.push_back(gateway);
    }
    const bool has_link_local =
        std::any_of(present.begin(), present.end(), [](const address_info& each) {
            return cidr::parse("fe80::/10").contains(each.address.address);
        });
    if (ipv6 && !has_link_local && bridge.mac) record.addresses.push_back(bridge.mac->link_local());
    std::vector<std::pair<std::string, std::string>> wanted;
    for (const auto& [key, value] :
         {std::pair("route_localnet", "1"), std::pair("rp_filter", "2"),
          std::pair("accept_redirects", "0"), std::pair("send_redirects", "0")})
        wanted.emplace_back("ipv4/conf/" + bridge.name + "/" + key, value);
    if (bridge.has_ipv6)
        for (const char* key : {"accept_ra", "accept_redirects"})
            wanted.emplace_back("ipv6/conf/" + bridge.name + "/" + key, "0");
    sys::in_network_namespace(netns, [&] {
        for (const auto& [key, value] : wanted) {
            const std::string now(trim(sys::read_file_at(AT_FDCWD, "/proc/sys/net/" + key)));
            if (now != value) record.settings.emplace_back(key, now);
        }
        record.write(directory);
        for (const auto& [key, value] : wanted)
            if (std::any_of(record.settings.begin(), record.settings.end(),
                            [&](const auto& old) { return old.first == key; }))
                sys::write_file_at(AT_FDCWD, "/proc/sys/net/" + key, value);
    });
    netlink_batch change;
    for (const cidr& address : record.addresses) add_address(change, bridge.index, address);
    if (ipv6) add_loopback_route(change, bridge.index);
    socket.transact(change);
}

/// Changes back what adopt_bridge() changed, as the record in `directory` says, and deletes that.
inline void return_bridge(int directory, int netns, netlink_socket& socket) {
    if (!sys::try_read_file_at(directory, bridge_record::file)) return;
    const bridge_record record = bridge_record::read(directory);
    const auto bridge = record.link.empty() ? std::nullopt : find_link(socket, record.link);
    if (bridge) {
        release_quietly([&] {
            netlink_batch change;
            for (const cidr& address : record.addresses)
                delete_address(change, bridge->index, address);
            delete_route(change, loopback_route_of(bridge->index));
            for (const netlink_failure& failure : socket.submit(change))
                if (failure.code != EADDRNOTAVAIL && failure.code != ESRCH)
                    report_release_failure(to_error(change, failure));
        });
        sys::in_network_namespace(netns, [&] {
            for (const auto& setting : record.settings)
                release_quietly([&] {
                    sys::write_file_at(AT_FDCWD, "/proc/sys/net/" + setting.first, setting.second);
                });
        });
    }
    ::unlinkat(directory, bridge_record::file, 0);
}

}  // namespace kumiki::inline v0::detail
