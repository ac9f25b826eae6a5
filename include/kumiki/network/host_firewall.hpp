// Other people's packet filters where they would drop what a container's rules let pass: named, with what
// to do about it. They are read, never changed: a packet passes when every table lets it.
//
// A base chain of the forward hook drops by its policy or by a last rule without a condition, unless
// some rule on the way from it lets the bridge's packets go on, in both directions. With names on, the
// containers ask the host itself, so the input hook counts, too. Known by their chains: firewalld, ufw,
// Docker, and the tables of iptables in both its forms.
// Left out: what single rules of others drop; a rule that accepts port 53 from wherever; the output hook.
#pragma once

#include <cstddef>
#include <cstdint>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include <kumiki/core/ip.hpp>
#include <kumiki/netlink/nft_view.hpp>
#include <kumiki/netlink/socket.hpp>
#include <kumiki/network/legacy_tables.hpp>
#include <kumiki/network/names.hpp>
#include <kumiki/network/ruleset.hpp>
#include <kumiki/sys/netns.hpp>

namespace kumiki::inline v0 {

/// What somebody else's filter drops.
enum class dropped_traffic : std::uint8_t {
    forwarded,  ///< what containers send to others and get from them
    names,  ///< what they ask the network's resolver, on the host's port 53
};

/// A filter of somebody else's that drops a network's packets.
struct firewall_obstacle {
    dropped_traffic drops = dropped_traffic::forwarded;
    std::string owner{};  ///< "firewalld", "ufw", "Docker", "iptables", or the table's name
    std::string table{};  ///< "inet firewalld", "ip filter", "ip filter (legacy)"
    std::string chain{};  ///< "FORWARD"
    std::string remedy{};  ///< commands for a person to run
};

/// "Docker drops forwarded packets in table ip filter, chain FORWARD: ...".
inline std::string to_string(const firewall_obstacle& o) {
    const char* const what = o.drops == dropped_traffic::forwarded
                                 ? " drops forwarded packets in table "
                                 : " drops what containers ask the resolver in table ";
    return o.owner + what + o.table + ", chain " + o.chain + ": " + o.remedy;
}

namespace detail {

/// Whose a table is, by what is in it.
struct table_signs {
    bool is_iptables = false;
    bool has_docker_user = false;
    bool has_ufw = false;
};

/// The owner and the remedy.
inline firewall_obstacle name_obstacle(dropped_traffic drops, std::string table, std::string chain,
                                       ip_family family, const table_signs& signs,
                                       std::string_view bridge) {
    const std::string name(bridge);
    const bool is_names = drops == dropped_traffic::names;
    firewall_obstacle made{.drops = drops, .table = table, .chain = chain};
    const std::string tool = family == ip_family::v4 ? "iptables" : "ip6tables";
    const auto both = [&](const std::string& where) {
        const std::string insert = tool + " -I " + where;
        if (is_names)
            return insert + " -i " + name + " -p udp --dport 53 -j ACCEPT; " + insert + " -i " +
                   name + " -p tcp --dport 53 -j ACCEPT";
        return insert + " -i " + name + " -j ACCEPT; " + insert + " -o " + name + " -j ACCEPT";
    };
    if (table == "inet firewalld") {
        made.owner = "firewalld";
        made.remedy = "firewall-cmd --permanent --zone=trusted --add-interface=" + name +
                      "; firewall-cmd --reload";
    } else if (signs.has_ufw) {
        made.owner = "ufw";
        made.remedy = is_names
                          ? "ufw allow in on " + name + " to any port 53"
                          : "ufw route allow in on " + name + "; ufw route allow out on " + name;
    } else if (signs.has_docker_user && !is_names) {
        made.owner = "Docker";
        made.remedy = both("DOCKER-USER");
    } else if (signs.is_iptables) {
        made.owner = "iptables";
        made.remedy = both(chain);
    } else {
        made.owner = table.substr(table.find(' ') + 1);
        const std::string insert = "nft insert rule " + table + " " + chain;
        made.remedy =
            is_names ? insert + " iifname " + name + " meta l4proto { tcp, udp } th dport 53 accept"
                     : insert + " iifname " + name + " accept; " + insert + " oifname " + name +
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

/// The chains that rules lead to from `begin`, itself among them.
inline std::set<std::string> chains_behind(const std::vector<nft::rule_view>& rules,
                                           const std::string& begin) {
    std::set<std::string> found{begin};
    for (std::size_t before = 0; before != found.size();) {
        before = found.size();
        for (const nft::rule_view& rule : rules)
            if (!rule.target.empty() && found.contains(rule.chain)) found.insert(rule.target);
    }
    return found;
}

/// What a base chain says to a bridge's packets.
struct chain_answer {
    bool is_dropped = false;
    bool lets_in = false;
    bool lets_out = false;
};

/// `others`: the base chains of its table.
inline chain_answer ask_chain(const nft::chain_view& chain,
                              const std::vector<nft::rule_view>& rules,
                              const std::vector<nft::chain_view>& others, std::string_view bridge) {
    chain_answer answer{.is_dropped = chain.policy == nft::policy::drop};
    // A verdict map may lead from here to what no rule alone leads to.
    const std::set<std::string> own = chains_behind(rules, chain.name);
    std::set<std::string> foreign;
    for (const nft::chain_view& other : others)
        if (other.name != chain.name) foreign.merge(chains_behind(rules, other.name));
    for (const nft::rule_view& rule : rules) {
        if (rule.chain == chain.name && !rule.is_conditional && rule.verdict == 0)
            answer.is_dropped = true;
        if (!own.contains(rule.chain) && foreign.contains(rule.chain)) continue;
        answer.lets_in = answer.lets_in || names_interface(rule, NFT_META_IIFNAME, bridge);
        answer.lets_out = answer.lets_out || names_interface(rule, NFT_META_OIFNAME, bridge);
    }
    return answer;
}

inline void find_nft_obstacles(netlink_socket& socket, std::string_view bridge, name_service names,
                               std::vector<firewall_obstacle>& found) {
    const auto chains = nft::list_chains(socket);
    for (const nft::chain_view& chain : chains) {
        const auto is_at = [&](nft::hook_point point) {
            return chain.hook == static_cast<std::uint32_t>(point);
        };
        const bool is_input = is_at(nft::hook_point::input);
        if (!(is_at(nft::hook_point::forward) || (is_input && names == name_service::on)) ||
            chain.type != "filter" || chain.table.starts_with(detail::table_prefix))
            continue;
        const char* const family = chain.family == nft::family::ip       ? "ip"
                                   : chain.family == nft::family::ip6    ? "ip6"
                                   : chain.family == nft::family::inet   ? "inet"
                                   : chain.family == nft::family::bridge ? "bridge"
                                                                         : nullptr;
        if (family == nullptr) continue;
        table_signs signs{.is_iptables = chain.table == "filter" &&
                                         chain.name == (is_input ? "INPUT" : "FORWARD")};
        std::vector<nft::chain_view> bases;
        for (const nft::chain_view& other : chains)
            if (other.family == chain.family && other.table == chain.table) {
                signs.has_docker_user = signs.has_docker_user || other.name == "DOCKER-USER";
                signs.has_ufw = signs.has_ufw || other.name.starts_with("ufw-");
                if (!other.type.empty()) bases.push_back(other);
            }
        const chain_answer answer =
            ask_chain(chain, nft::list_rules(socket, {chain.family, chain.table}), bases, bridge);
        // firewalld's zones are of interfaces: one rule sends both directions there.
        if (answer.is_dropped && !(answer.lets_in && (is_input || answer.lets_out)))
            found.push_back(name_obstacle(
                is_input ? dropped_traffic::names : dropped_traffic::forwarded,
                std::string(family) + " " + chain.table, chain.name,
                chain.family == nft::family::ip6 ? ip_family::v6 : ip_family::v4, signs, bridge));
    }
}

inline void find_legacy_obstacles(std::string_view bridge, name_service names,
                                  std::vector<firewall_obstacle>& found) {
    for (const ip_family family : {ip_family::v4, ip_family::v6})
        for (const nft::hook_point hook : {nft::hook_point::forward, nft::hook_point::input}) {
            const bool is_input = hook == nft::hook_point::input;
            if (is_input && names == name_service::off) continue;
            const auto chain = read_legacy_chain(family, bridge, hook);
            if (chain && chain->is_dropped &&
                !(chain->accepts_in && (is_input || chain->accepts_out)))
                found.push_back(name_obstacle(
                    is_input ? dropped_traffic::names : dropped_traffic::forwarded,
                    family == ip_family::v4 ? "ip filter (legacy)" : "ip6 filter (legacy)",
                    is_input ? "INPUT" : "FORWARD", family,
                    {.is_iptables = true,
                     .has_docker_user = chain->has_docker_user,
                     .has_ufw = chain->has_ufw},
                    bridge));
        }
}

}  // namespace detail

/// The filters in the network namespace behind `netns_fd` that would drop what is forwarded from or
/// to the interface `bridge`; with `names` on those, too, that would drop what comes in by it for the
/// resolver. Errors: kumiki::error, EPERM without CAP_NET_ADMIN.
inline std::vector<firewall_obstacle> find_obstacles(int netns_fd, std::string_view bridge,
                                                     name_service names = name_service::off) {
    return sys::in_network_namespace(netns_fd, [&] {
        std::vector<firewall_obstacle> found;
        auto socket = netlink_socket::open(NETLINK_NETFILTER);
        detail::find_nft_obstacles(socket, bridge, names, found);
        detail::find_legacy_obstacles(bridge, names, found);
        return found;
    });
}

}  // namespace kumiki::inline v0
