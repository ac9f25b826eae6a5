// Removing what killed processes left of their networks and containers, without opening any of them.
//
// Whether somebody lives is told by locks alone: of a network by those on its directory, of a container
// by the lease of its address. A network without a living process goes whole, and with the last of
// them what was changed on the host for forwarding. In a network that others live in, the rules and
// interfaces of containers whose addresses nobody holds go.
// Left out: other network namespaces than the caller's, and other state directories: what has kumiki's
// names there and is in no known directory is told, and stays.
#pragma once

#include <dirent.h>
#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <map>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <kumiki/core/error.hpp>
#include <kumiki/core/ip.hpp>
#include <kumiki/core/text.hpp>
#include <kumiki/netlink/link.hpp>
#include <kumiki/netlink/link_info.hpp>
#include <kumiki/netlink/nft_view.hpp>
#include <kumiki/netlink/nftables.hpp>
#include <kumiki/netlink/socket.hpp>
#include <kumiki/network/end_flows.hpp>
#include <kumiki/network/existing_bridge.hpp>
#include <kumiki/network/forwarding.hpp>
#include <kumiki/network/leases.hpp>
#include <kumiki/network/network_remains.hpp>
#include <kumiki/network/policy_chain.hpp>
#include <kumiki/network/port_holder.hpp>
#include <kumiki/network/ruleset.hpp>
#include <kumiki/network/shared_place.hpp>
#include <kumiki/sys/file.hpp>
#include <kumiki/sys/netns.hpp>

namespace kumiki::inline v0 {

/// Where to look.
struct reconcile_options {
    std::string state_directory = "/run/kumiki";  ///< as bridge_options::state_directory
};

/// What was removed, and what was left alone.
struct reconcile_report {
    std::vector<std::string> networks{};  ///< names of those that were removed
    std::vector<std::string> containers{};  ///< "web/box": removed from a network that lives
    std::vector<std::string> unclaimed{};  ///< networks that are in no known directory: untouched
};

namespace detail {

/// Removes the dead containers of a network that others live in.
class dead_containers {
  public:
    dead_containers(int directory, const std::string& network)
        : network_(network), tables_(network), route_(netlink_socket::open(NETLINK_ROUTE)),
          netfilter_(netlink_socket::open(NETLINK_NETFILTER)) {
        const std::string settings = sys::try_read_file_at(directory, "settings").value_or("");
        for (std::string_view rest = settings; const auto field = next_field(rest, ' ');)
            if (field->find('/') != std::string_view::npos) {
                const cidr subnet = cidr::parse(*field);
                pools_.emplace_back(subnet, directory,
                                    subnet.address.is_v4() ? "leases4" : "leases6");
            }
    }

    /// The names of those that were removed. Errors: kumiki::error.
    std::vector<std::string> remove() {
        std::map<std::string, std::vector<address_lease>> dead;  // held while they are removed
        std::set<std::string> living;
        for (const ip_family family : both_families)
            for (const nft::element_view& each : elements(tables_.inet, ruleset::egress(family)))
                if (auto lease = try_lease(each.key))
                    dead[each.comment].push_back(std::move(*lease));
                else
                    living.insert(each.comment);
        std::vector<std::string> names;
        for (const auto& [name, leases] : dead) {
            std::vector<ip_address> addresses;
            for (const address_lease& lease : leases) addresses.push_back(lease.address());
            remove(name, addresses, living.contains(name));
            names.push_back(name);
        }
        return names;
    }

  private:
    std::vector<nft::element_view> elements(const nft::table& table, const nft::set& set) {
        try {
            return nft::list_elements(netfilter_, table, set.name);
        } catch (const error& failure) {
            if (failure.errno_value() != ENOENT) throw;
            return {};  // somebody flushed the ruleset
        }
    }
    std::optional<address_lease> try_lease(std::string_view bytes) {
        const auto address = ip_address::try_from_bytes(bytes);
        for (address_pool& pool : pools_)
            if (address && pool.subnet().contains(*address)) try {
                    return pool.lease(*address);
                } catch (const error& failure) {
                    if (failure.errno_value() != EADDRINUSE && failure.errno_value() != 0) throw;
                }
        return std::nullopt;
    }
    // Elements by their addresses, not by the name alone: that may live again elsewhere.
    void remove(const std::string& name, const std::vector<ip_address>& addresses,
                bool name_lives) {
        const auto speaks_of = [&](const std::string& bytes) {
            return std::any_of(addresses.begin(), addresses.end(), [&](const ip_address& address) {
                return bytes.find(std::string_view(reinterpret_cast<const char*>(address.data()),
                                                   address.size())) != std::string::npos;
            });
        };
        std::set<std::string> ports;  // 16 bytes each
        nft::batch change;
        const auto take = [&](const nft::table& table, const nft::set& set, auto&& is_meant) {
            std::vector<nft::element> found;
            for (const nft::element_view& each : elements(table, set))
                if (each.comment == name && is_meant(each))
                    found.push_back({.key = nft::value::of_bytes(each.key)});
            change.delete_elements(table, set, found);
        };
        const auto by_key = [&](const nft::element_view& each) { return speaks_of(each.key); };
        const auto by_data = [&](const nft::element_view& each) { return speaks_of(each.data); };
        for (const ip_family family : both_families) {
            for (const nft::element_view& each : elements(tables_.bridge, ruleset::sources(family)))
                if (each.comment == name && by_key(each)) ports.insert(each.key.substr(0, 16));
            for (const nft::set& set :
                 {ruleset::egress(family), ruleset::ingress(family), ruleset::direct(family),
                  ruleset::members(family), ruleset::rates_out(family), ruleset::rates_in(family)})
                take(tables_.inet, set, by_key);
            std::vector<nft::element> called;  // each says what, not whose it is
            for (const nft::element_view& each : elements(tables_.inet, ruleset::names(family)))
                if (speaks_of(each.key)) called.push_back({.key = nft::value::of_bytes(each.key)});
            change.delete_elements(tables_.inet, ruleset::names(family), called);
            for (const nft::set& set : {ruleset::publish(family), ruleset::publish_any(family)})
                take(tables_.inet, set, by_data);
        }
        const auto by_port = [&](const nft::element_view& each) {
            return ports.contains(each.key.substr(0, 16));
        };
        for (const ip_family family : both_families)  // its link-local address is there, too
            take(tables_.bridge, ruleset::sources(family), by_port);
        take(tables_.bridge, ruleset::ports(), by_port);
        if (!name_lives)
            for (const nft::chain_view& chain : nft::list_chains(netfilter_))
                if (chain.table == tables_.inet.name && chain.family == nft::family::inet &&
                    container_of_chain(chain.name) == name) {
                    change.flush_chain(tables_.inet, chain.name);
                    change.delete_chain(tables_.inet, chain.name);
                }
        change.commit(netfilter_);
        netlink_batch links;
        for (const link_info& link : list_links(route_))
            if (link.alias == network_alias(network_) + ":" + name) {
                std::string field = link.name;
                if (field.starts_with("kx")) field[1] = 'm';  // its shaper
                field.resize(16);
                if (ports.contains(field) || !name_lives) delete_link(links, link.index);
            }
        for (const netlink_failure& failure : route_.submit(links))
            if (failure.code != ENODEV) throw to_error(links, failure);
        end_all_flows(netfilter_, addresses);
    }

    std::string network_;
    ruleset tables_;
    netlink_socket route_;
    netlink_socket netfilter_;
    std::vector<address_pool> pools_;
};

/// The directories in a directory.
inline std::vector<std::string> directories_in(const std::string& path) {
    std::vector<std::string> names;
    const directory_stream all(::opendir(path.c_str()));
    if (!all) return names;
    while (const dirent* each = ::readdir(all.get())) {
        struct stat status{};
        if (each->d_name[0] != '.' &&
            ::fstatat(::dirfd(all.get()), each->d_name, &status, AT_SYMLINK_NOFOLLOW) == 0 &&
            S_ISDIR(status.st_mode))
            names.emplace_back(each->d_name);
    }
    return names;
}

}  // namespace detail

/// Removes what killed processes left in the calling thread's network namespace. May be called at
/// any time, by any number of processes; what lives is not touched.
///
/// Errors: kumiki::error of what could not be removed; a second call goes on from there.
inline reconcile_report reconcile(const reconcile_options& options = {}) {
    auto route = netlink_socket::open(NETLINK_ROUTE);
    auto netfilter = netlink_socket::open(NETLINK_NETFILTER);
    const std::string path =
        options.state_directory + "/net-" + std::to_string(route.netns_cookie());
    reconcile_report report;
    std::set<std::string> known;
    struct stat status{};
    if (::stat(path.c_str(), &status) == 0) {
        const unique_fd netns = sys::network_namespace_of(route.fd());
        shared_place host(path, [](int, bool) {});
        for (const std::string& name : detail::directories_in(path)) {
            known.insert(name);
            shared_place own(path + "/" + name, [&](int directory, bool alone) {
                if (!alone) {
                    for (const std::string& each :
                         detail::dead_containers(directory, name).remove())
                        report.containers.push_back(name + "/" + each);
                    return;
                }
                detail::delete_network_tables(netfilter, name);
                detail::delete_network_links(route, name);
                detail::return_bridge(directory, netns.get(), route);
                detail::delete_network_files(directory);
                report.networks.push_back(name);
            });
        }
        host.leave([&](int directory, bool alone) {
            if (alone) restore_forwarding(directory, netns.get());
        });
    }
    constexpr std::string_view mark = "kumiki:";
    std::set<std::string> unclaimed;
    for (const link_info& link : list_links(route))
        if (link.alias.starts_with(mark)) {
            std::string_view rest = std::string_view(link.alias).substr(mark.size());
            if (const auto name = next_field(rest, ':')) unclaimed.emplace(*name);
        }
    for (const std::string& each : unclaimed)
        if (!known.contains(each)) report.unclaimed.push_back(each);
    return report;
}

}  // namespace kumiki::inline v0
