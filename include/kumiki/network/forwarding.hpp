// Letting the host forward packets for containers without making it a router for anybody else.
//
// Where the host forwards already, nothing is touched. Else IPv4 forwarding is switched on for the
// uplinks alone (by netlink), IPv6 forwarding for all interfaces (the kernel has one switch before
// 6.17), and a table of its own, `inet kumiki-guard`, drops what neither goes to nor comes from a
// bridge of kumiki's. What was changed is told to the observer, stands in a file in the directory
// that the networks of this namespace share, and is changed back when the last of them goes.
// Interfaces that forward IPv6 ignore router advertisements unless accept_ra is 2: it is set to
// that where it was 1, so that the host does not lose its default route.
#pragma once

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <optional>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>
#include <vector>

#include <kumiki/core/error.hpp>
#include <kumiki/core/ip.hpp>
#include <kumiki/core/observer.hpp>
#include <kumiki/core/text.hpp>
#include <kumiki/netlink/link.hpp>
#include <kumiki/netlink/link_info.hpp>
#include <kumiki/netlink/nft_action.hpp>
#include <kumiki/netlink/nft_match.hpp>
#include <kumiki/netlink/nftables.hpp>
#include <kumiki/netlink/socket.hpp>
#include <kumiki/network/bridge_options.hpp>
#include <kumiki/sys/file.hpp>
#include <kumiki/sys/netns.hpp>

namespace kumiki::inline v0 {

namespace detail {

/// Writes a setting below /proc/sys/net of the calling thread's network namespace unless it has
/// the value already (it may be mounted read-only). Returns whether it was changed.
inline bool write_net_setting(const std::string& key, std::string_view value) {
    const std::string path = "/proc/sys/net/" + key;
    if (trim(sys::read_file_at(AT_FDCWD, path)) == value) return false;
    sys::write_file_at(AT_FDCWD, path, value);
    return true;
}

/// A bridge that is not kumiki's, and the networks on it that are.
struct shared_bridge {
    std::string name = {};
    std::vector<cidr> subnets = {};
};

/// Changes that were made to the host: lines of "ipv4 LINK", "accept_ra LINK", and "ipv6 all"; and
/// what is let through beside "km-...": lines of "bridge LINK NETWORK".
struct forwarding_record {
    static constexpr const char* file = "forwarding";
    std::vector<std::string> ipv4 = {};
    std::vector<std::string> accept_ra = {};
    std::vector<std::pair<std::string, cidr>> bridges = {};
    bool ipv6 = false;

    /// Lines that say nothing known are left out.
    static forwarding_record parse(std::string_view text) {
        forwarding_record record;
        for (std::string_view rest = text; const auto line = next_field(rest, '\n');) {
            std::string_view words = *line;
            const auto kind = next_field(words, ' ');
            if (kind == "ipv4") record.ipv4.emplace_back(words);
            if (kind == "accept_ra") record.accept_ra.emplace_back(words);
            if (kind == "ipv6") record.ipv6 = true;
            if (kind != "bridge") continue;
            const auto link = next_field(words, ' ');
            if (const auto subnet = cidr::try_parse(words); link && subnet)
                record.bridges.emplace_back(*link, *subnet);
        }
        return record;
    }
    static forwarding_record read(int directory) {
        return parse(sys::try_read_file_at(directory, file).value_or(""));
    }
    std::string text() const {
        std::string text;
        for (const std::string& link : ipv4) text += "ipv4 " + link + "\n";
        for (const std::string& link : accept_ra) text += "accept_ra " + link + "\n";
        for (const auto& [link, subnet] : bridges)
            text += "bridge " + link + " " + to_string(subnet) + "\n";
        if (ipv6) text += "ipv6 all\n";
        return text;
    }
    void write(int directory) const {
        const std::string all = text();
        sys::open_at(directory, file, O_WRONLY | O_CREAT | O_TRUNC, 0600);
        if (!all.empty()) sys::write_file_at(directory, file, all);
    }
    bool empty() const noexcept { return ipv4.empty() && !ipv6; }
};

/// The guard's table; no network can be called so.
inline constexpr const char* guard_table = "kumiki-guard";

/// Replaces the guard's table by one for `record`, or takes it away.
inline void guard_forwarding(const forwarding_record& record) {
    const nft::table guard{.family = nft::family::inet, .name = guard_table};
    const auto name_is = [](nft_meta_keys key, nft_cmp_ops how) {
        return std::tuple(nft::load_meta{.key = key},
                          nft::bitwise{.mask = nft::value::prefix_mask(16, 8 * 3)},
                          nft::compare{how, nft::value::name(bridge_prefix)});
    };
    nft::batch change;
    change.add_table(guard);
    change.delete_table(guard);
    if (!record.empty()) {
        change.add_table(guard, "kumiki: keeps this host from being a router");
        change.add_chain(guard, "forward",
                         nft::hook{.point = nft::hook_point::forward, .priority = -1});
        for (const auto& [link, subnet] : record.bridges) {
            change.add_rule(guard, "forward", "", nft::input_is(link), nft::from(subnet),
                            nft::decide{nft::leave()});
            change.add_rule(guard, "forward", "", nft::output_is(link), nft::to(subnet),
                            nft::decide{nft::leave()});
        }
        const auto leaves_elsewhere = name_is(NFT_META_OIFNAME, NFT_CMP_NEQ);
        for (const std::string& link : record.ipv4)
            change.add_rule(guard, "forward", "", nft::family_is(ip_family::v4),
                            nft::input_is(link), leaves_elsewhere, nft::decide{nft::drop()});
        if (record.ipv6)
            change.add_rule(guard, "forward", "", nft::family_is(ip_family::v6),
                            name_is(NFT_META_IIFNAME, NFT_CMP_NEQ), leaves_elsewhere,
                            nft::decide{nft::drop()});
    }
    auto socket = netlink_socket::open(NETLINK_NETFILTER);
    change.commit(socket);
}

}  // namespace detail

/// Makes the host of namespace `netns` forward between kumiki's bridges and `uplinks` (names;
/// empty: all that are up and not kumiki's), IPv6 too when asked for; and the networks on `shared`,
/// with nothing else of that bridge.
///
/// `directory` keeps the record; nobody else may use it meanwhile (shared_place). Errors:
/// invalid_input for an uplink that is not there; kumiki::error, with what was changed recorded.
inline void enable_forwarding(int directory, int netns, const std::vector<std::string>& uplinks,
                              ip_family most,
                              const std::optional<detail::shared_bridge>& shared = {}) {
    sys::in_network_namespace(netns, [&] {
        auto socket = netlink_socket::open(NETLINK_ROUTE);
        const auto links = list_links(socket);
        const auto is_ours = [](const link_info& l) { return l.name.starts_with(bridge_prefix); };
        for (const std::string& name : uplinks)
            if (std::none_of(links.begin(), links.end(), [&](auto& l) { return l.name == name; }))
                throw invalid_input("uplink", name, "There is no interface of this name.");
        auto record = detail::forwarding_record::read(directory);
        netlink_batch change;
        std::string told;
        bool lets_more = false;
        for (const cidr& subnet : shared ? shared->subnets : std::vector<cidr>{}) {
            const std::pair each(shared->name, subnet);
            if (std::count(record.bridges.begin(), record.bridges.end(), each) != 0) continue;
            record.bridges.push_back(each);
            lets_more = true;
        }
        for (const link_info& link : links) {
            const bool wanted =
                (uplinks.empty() ? link.is_up && link.master == 0
                                 : std::count(uplinks.begin(), uplinks.end(), link.name) != 0) ||
                (shared && link.name == shared->name);
            if (!wanted || link.is_loopback || is_ours(link) || link.forwards_ipv4) continue;
            if (std::count(record.ipv4.begin(), record.ipv4.end(), link.name) == 0)
                record.ipv4.push_back(link.name);
            set_link(change, link.index, {.ipv4 = {{ipv4_setting::forwarding, 1}}});
            told += (told.empty() ? "" : ", ") + link.name;
        }
        const std::string all6 = "/proc/sys/net/ipv6/conf/all/forwarding";
        const bool ipv6 = most == ip_family::v6 && trim(sys::read_file_at(AT_FDCWD, all6)) == "0";
        record.ipv6 = record.ipv6 || ipv6;
        if (ipv6) told += (told.empty() ? "" : ", ") + std::string("IPv6 on all interfaces");
        for (const link_info& link : links) {
            const std::string key = "ipv6/conf/" + link.name + "/accept_ra";
            const auto now = ipv6 && !is_ours(link) && !link.is_loopback
                                 ? sys::try_read_file_at(AT_FDCWD, "/proc/sys/net/" + key)
                                 : std::nullopt;
            if (!now || trim(*now) != "1") continue;
            record.accept_ra.push_back(link.name);
            told += ", accept_ra of " + link.name;
        }
        if (told.empty() && !lets_more) return;
        // First the record, then the guard, then what they are for: in this order a crash at any
        // point leaves a host that is no router, and a record that undoes it.
        record.write(directory);
        detail::guard_forwarding(record);
        for (const std::string& link : record.accept_ra)
            if (ipv6) detail::write_net_setting("ipv6/conf/" + link + "/accept_ra", "2");
        if (ipv6) detail::write_net_setting("ipv6/conf/all/forwarding", "1");
        socket.transact(change);
        if (told.empty()) return;
        detail::report_notice("forwarding was switched on for containers, and is guarded: " + told);
    });
}

/// Lets nothing through any more for the networks on the shared bridge `name`.
inline void forget_bridge(int directory, int netns, const std::string& name) {
    auto record = detail::forwarding_record::read(directory);
    if (std::erase_if(record.bridges, [&](const auto& each) { return each.first == name; }) == 0)
        return;
    sys::in_network_namespace(netns, [&] { detail::guard_forwarding(record); });
    record.write(directory);
}

/// Changes back what enable_forwarding() changed, as the record in `directory` says.
inline void restore_forwarding(int directory, int netns) {
    const auto record = detail::forwarding_record::read(directory);
    if (!record.empty()) {
        sys::in_network_namespace(netns, [&] {
            // An interface may be gone: it has nothing to be changed back.
            detail::release_quietly([&] {
                auto socket = netlink_socket::open(NETLINK_ROUTE);
                netlink_batch change;
                for (const std::string& link : record.ipv4)
                    set_link(change, link, {.ipv4 = {{ipv4_setting::forwarding, 0}}});
                for (const netlink_failure& failure : socket.submit(change))
                    if (failure.code != ENODEV)
                        detail::report_release_failure(to_error(change, failure));
            });
            detail::release_quietly([&] {
                if (record.ipv6) detail::write_net_setting("ipv6/conf/all/forwarding", "0");
            });
            for (const std::string& link : record.accept_ra)
                if (::access(("/proc/sys/net/ipv6/conf/" + link).c_str(), F_OK) == 0)
                    detail::release_quietly([&] {
                        detail::write_net_setting("ipv6/conf/" + link + "/accept_ra", "1");
                    });
            detail::release_quietly([] { detail::guard_forwarding({}); });
        });
    }
    ::unlinkat(directory, detail::forwarding_record::file, 0);
}

}  // namespace kumiki::inline v0
