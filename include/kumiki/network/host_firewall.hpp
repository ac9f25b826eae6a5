// Other people's packet filters where they would drop what a container's rules let pass: named, with what
// to do about it. They are read, never changed: a packet passes when every table lets it.
//
// A base chain of the forward hook drops by its policy or by a last rule without a condition, unless
// some rule of the same table lets the bridge's packets go on, in both directions. Known by their
// chains: firewalld, ufw, Docker, and the tables of iptables in both its forms.
// Left out: what single rules of others drop, and the input and output hooks.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include <kumiki/core/ip.hpp>
#include <kumiki/netlink/nft_view.hpp>
#include <kumiki/netlink/socket.hpp>
#include <kumiki/network/legacy_tables.hpp>
#include <kumiki/sys/netns.hpp>

namespace kumiki::inline v0 {

/// A filter of somebody else's that drops a network's packets.
struct firewall_obstacle {
    std::string owner{};  ///< "firewalld", "ufw", "Docker", "iptables", or the table's name
    std::string table{};  ///< "inet firewalld", "ip filter", "ip filter (legacy)"
    std::string chain{};  ///< "FORWARD"
    std::string remedy{};  ///< commands for a person to run
};

/// "Docker drops forwarded packets in ip filter, chain FORWARD: ...".
inline std::string to_string(const firewall_obstacle& o) {
    return o.owner + " drops forwarded packets in table " + o.table + ", chain " + o.chain + ": " +
           o.remedy;
}

namespace detail {

/// The owner and the remedy, by what is in the table.
inline firewall_obstacle name_obstacle(std::string table, std::string chain, bool is_iptables,
                                       ip_family family, bool has_docker_user, bool has_ufw,
                                       std::string_view bridge) {
    const std::string name(bridge);
    firewall_obstacle made{.table = table, .chain = chain};
    const std::string tool = family == ip_family::v4 ? "iptables" : "ip6tables";
    const auto both = [&](const std::string& where) {
        return tool + " -I " + where + " -i " + name + " -j ACCEPT; " + tool + " -I " + where +
               " -o " + name + " -j ACCEPT";
    };
    if (table == "inet firewalld") {
        made.owner = "firewalld";
        made.remedy = "firewall-cmd --permanent --zone=trusted --add-interface=" + name +
                      "; firewall-cmd --reload";
    } else if (has_ufw) {
        made.owner = "ufw";
        made.remedy = "ufw route allow in on " + name + "; ufw route allow out on " + name;
    } else if (has_docker_user) {
        made.owner = "Docker";
        made.remedy = both("DOCKER-USER");
    } else if (is_iptables) {
        made.owner = "iptables";
        made.remedy = both(chain);
    } else {
        made.owner = table.substr(table.find(' ') + 1);
        made.remedy = "nft insert rule " + table + " " + chain + " iifname " + name +
                      " accept; nft insert rule " + table + " " + chain + " oifname " + name +
                      " accept";
    }
    return made;
}

/// Whether a rule lets packets of the interface go on, and in which direction.
inline bool names_interface(const nft::rule_view& rule, nft_meta_keys key,
                            std::string_view bridge) {
    constexpr std::int32_t drop = 0;
    if (!rule.verdict || *rule.verdict == drop) return false;
    // The key of "meta", somewhere behind it the text with its NUL: as the programs write it.
    const std::string load{'\0', '\0', '\0', static_cast<char>(key)};
    std::string name(bridge);
    name.push_back('\0');
    const auto meta = rule.expressions.find("meta");
    const auto loaded = rule.expressions.find(load, meta == std::string::npos ? 0 : meta);
    return meta != std::string::npos && loaded != std::string::npos &&
           rule.expressions.find(name, loaded) != std::string::npos;
}

inline void find_nft_obstacles(netlink_socket& socket, std::string_view bridge,
                               std::vector<firewall_obstacle>& found) {
    const auto chains = nft::list_chains(socket);
    for (const nft::chain_view& chain : chains) {
        if (chain.hook != static_cast<std::uint32_t>(nft::hook_point::forward) ||
            chain.type != "filter" || chain.table.starts_with("kumiki-"))
            continue;
        const char* const family = chain.family == nft::family::ip       ? "ip"
                                   : chain.family == nft::family::ip6    ? "ip6"
                                   : chain.family == nft::family::inet   ? "inet"
                                   : chain.family == nft::family::bridge ? "bridge"
                                                                         : nullptr;
        if (family == nullptr) continue;
        bool is_dropped = chain.policy == nft::policy::drop;
        bool lets_in = false;
        bool lets_out = false;
        for (const nft::rule_view& rule : nft::list_rules(socket, {chain.family, chain.table})) {
            if (rule.chain == chain.name && !rule.is_conditional && rule.verdict == 0)
                is_dropped = true;
            lets_in = lets_in || names_interface(rule, NFT_META_IIFNAME, bridge);
            lets_out = lets_out || names_interface(rule, NFT_META_OIFNAME, bridge);
        }
        const std::string table = std::string(family) + " " + chain.table;
        // firewalld's zones are of interfaces: one rule sends both directions there.
        if (!is_dropped || (lets_in && lets_out)) continue;
        bool has_docker_user = false;
        bool has_ufw = false;
        for (const nft::chain_view& other : chains)
            if (other.family == chain.family && other.table == chain.table) {
                has_docker_user = has_docker_user || other.name == "DOCKER-USER";
                has_ufw = has_ufw || other.name.starts_with("ufw-");
            }
        found.push_back(
            name_obstacle(table, chain.name, chain.table == "filter" && chain.name == "FORWARD",
                          chain.family == nft::family::ip6 ? ip_family::v6 : ip_family::v4,
                          has_docker_user, has_ufw, bridge));
    }
}

}  // namespace detail

/// The filters in the network namespace behind `netns_fd` that would drop what is forwarded from or
/// to the interface `bridge`. Errors: kumiki::error, EPERM without CAP_NET_ADMIN.
inline std::vector<firewall_obstacle> find_obstacles(int netns_fd, std::string_view bridge) {
    return sys::in_network_namespace(netns_fd, [&] {
        std::vector<firewall_obstacle> found;
        auto socket = netlink_socket::open(NETLINK_NETFILTER);
        detail::find_nft_obstacles(socket, bridge, found);
        for (const ip_family family : {ip_family::v4, ip_family::v6})
            if (const auto table = detail::read_legacy_forwarding(family, bridge))
                if (table->is_dropped && !(table->accepts_in && table->accepts_out))
                    found.push_back(detail::name_obstacle(
                        family == ip_family::v4 ? "ip filter (legacy)" : "ip6 filter (legacy)",
                        "FORWARD", true, family, table->has_docker_user, table->has_ufw, bridge));
        return found;
    });
}

}  // namespace kumiki::inline v0
