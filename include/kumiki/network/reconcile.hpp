// Removing what killed processes left of their networks and containers, without opening any of them.
//
// Whether somebody lives is told by locks alone: of a network by those on its directory, of a container
// by the lease of its address. A network without a living process goes whole, and with the last of
// them what was changed on the host for forwarding. In a network that others live in, the rules and
// interfaces of containers whose addresses nobody holds go.
// Left out: other network namespaces than the caller's, and other state directories: what has kumiki's
// names there and is in no known directory is told, and stays.
#pragma once

#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <exception>
#include <map>
#include <optional>
#include <set>
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
#include <kumiki/network/owned_elements.hpp>
#include <kumiki/network/policy_chain.hpp>
#include <kumiki/network/port_lock.hpp>
#include <kumiki/network/port_name.hpp>
#include <kumiki/network/ruleset.hpp>
#include <kumiki/network/shared_place.hpp>
#include <kumiki/sys/directory.hpp>
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
        for (int attempt = 0; attempt < 100; ++attempt) {
            const std::uint32_t generation = nft::generation(netfilter_);
            const found all = find();
            if (dead_.empty()) return {};
            if (!remove_rules(all, generation)) continue;
            delete_links();
            std::vector<ip_address> addresses;
            for (const auto& [address, lease] : dead_) addresses.push_back(address);
            end_all_flows(netfilter_, addresses);
            return {all.names.begin(), all.names.end()};
        }
        throw error(EBUSY, {.operation = "reconcile network",
                            .object = network_,
                            .remedy = "Its rules changed during each of 100 attempts."});
    }

  private:
    struct found {
        std::vector<std::pair<owned_set, std::vector<nft::element_view>>> elements{};
        std::set<std::string> names{};  // of the dead
        std::set<std::string> living{};
    };

    // A dead one's address is leased here, for as long as something of it is removed.
    bool is_dead(const ip_address& address) {
        if (dead_.contains(address)) return true;
        for (address_pool& pool : pools_)
            if (pool.subnet().contains(address)) try {
                    dead_.emplace(address, pool.lease(address));
                    return true;
                } catch (const error& failure) {
                    if (failure.errno_value() != EADDRINUSE && failure.errno_value() != 0) throw;
                }
        return false;
    }
    // Whose link or port it is, by its name.
    std::optional<ip_address> address_of(std::string_view port) const {
        const auto number = lease_of_port(port.substr(0, port.find('\0')));
        for (const address_pool& pool : pools_)
            if (number && pool.subnet().address.is_v4())
                return pool.subnet().network().plus(*number);
        return std::nullopt;
    }
    std::optional<ip_address> owner_of(const owned_set& in, const nft::element_view& each) const {
        return in.place == owner_place::port ? address_of(each.key) : address_in(in, each);
    }
    // All that there is, and who of them is dead. A second look keeps what the first has leased.
    found find() {
        found all;
        std::set<ip_address> living;
        const auto look_at = [&](const ip_address& address, const std::string* name) {
            const bool dead = !living.contains(address) && is_dead(address);
            if (!dead) living.insert(address);
            if (name != nullptr) (dead ? all.names : all.living).insert(*name);
        };
        for (owned_set& in : owned_sets(tables_)) {
            auto elements = elements_of(netfilter_, in);
            for (const nft::element_view& each : elements) {
                const auto address = owner_of(in, each);
                if (address) look_at(*address, in.says_whose ? &each.comment : nullptr);
            }
            all.elements.emplace_back(std::move(in), std::move(elements));
        }
        const std::string beginning = network_alias(network_) + ":";
        for (const link_info& link : list_links(route_))
            if (link.alias.starts_with(beginning))
                if (const auto address = address_of(link.name)) {
                    const std::string name = link.alias.substr(beginning.size());
                    look_at(*address, &name);
                }
        return all;
    }
    // False when somebody else changed the rules meanwhile. Nothing else is told by names alone: a dead
    // one's may live again elsewhere.
    bool remove_rules(const found& all, std::uint32_t generation) {
        nft::batch change;
        change.require_generation(generation);
        for (const auto& [in, elements] : all.elements) {
            std::vector<nft::element> doomed;
            for (const nft::element_view& each : elements) {
                const auto address = owner_of(in, each);
                if (address && dead_.contains(*address))
                    doomed.push_back({.key = nft::value::of_bytes(each.key)});
            }
            change.delete_elements(in.table, in.set, doomed);
        }
        for (const nft::chain_view& chain : nft::list_chains(netfilter_)) {
            const auto name = container_of_chain(chain.name);
            if (chain.table != tables_.inet.name || chain.family != nft::family::inet || !name ||
                !all.names.contains(std::string(*name)) || all.living.contains(std::string(*name)))
                continue;
            change.flush_chain(tables_.inet, chain.name);
            change.delete_chain(tables_.inet, chain.name);
        }
        return change.commit(netfilter_) == nft::commit_result::done;
    }
    void delete_links() {
        netlink_batch links;
        for (const link_info& link : list_links(route_))
            if (link.alias.starts_with(network_alias(network_) + ":"))
                if (const auto address = address_of(link.name); address && dead_.contains(*address))
                    delete_link(links, link.index);
        for (const netlink_failure& failure : route_.submit(links))
            if (failure.code != ENODEV) throw to_error(links, failure);
    }

    std::string network_;
    ruleset tables_;
    netlink_socket route_;
    netlink_socket netfilter_;
    std::vector<address_pool> pools_;
    std::map<ip_address, address_lease> dead_;
};

}  // namespace detail

/// Removes what killed processes left in the calling thread's network namespace. May be called at
/// any time, by any number of processes; what lives is not touched.
///
/// Errors: kumiki::error of the first that could not be removed, when the others are.
inline reconcile_report reconcile(const reconcile_options& options = {}) {
    auto route = netlink_socket::open(NETLINK_ROUTE);
    auto netfilter = netlink_socket::open(NETLINK_NETFILTER);
    const std::string path =
        options.state_directory + "/net-" + std::to_string(route.netns_cookie());
    reconcile_report report;
    std::exception_ptr failed;
    std::set<std::string> known;
    struct stat status{};
    if (::stat(path.c_str(), &status) == 0) {
        const unique_fd netns = sys::network_namespace_of(route.fd());
        shared_place host(path, [](int, bool) {});
        for (const std::string& name : sys::directories_in(path)) {
            known.insert(name);
            // In the order in which a network takes these locks when it is opened.
            try {
                host.exclusively([&](int shared) {
                    shared_place own(path + "/" + name, [&](int directory, bool alone) {
                        if (!alone) {
                            for (const std::string& each :
                                 detail::dead_containers(directory, name).remove())
                                report.containers.push_back(name + "/" + each);
                            return;
                        }
                        const auto bridge = detail::bridge_record::read(directory).link;
                        detail::delete_network_links(route, name);
                        detail::return_bridge(directory, netns.get(), route);
                        if (!bridge.empty()) forget_bridge(shared, netns.get(), bridge);
                        detail::delete_network_tables(netfilter, name);
                        detail::delete_network_files(directory);
                        report.networks.push_back(name);
                    });
                });
            } catch (...) {
                if (!failed) failed = std::current_exception();
            }
        }
        host.leave([&](int directory, bool alone) {
            if (!alone) return;
            ::unlinkat(directory, detail::port_locks::file_name, 0);
            restore_forwarding(directory, netns.get());
        });
    }
    constexpr std::string_view mark = "kumiki:";
    std::set<std::string> unclaimed;
    for (const link_info& link : list_links(route))
        if (link.alias.starts_with(mark)) {
            std::string_view rest = std::string_view(link.alias).substr(mark.size());
            if (const auto name = next_field(rest, ':')) unclaimed.emplace(*name);
        }
    for (const nft::table_view& table : nft::list_tables(netfilter))
        if (table.name.starts_with(detail::table_prefix) && table.name != detail::guard_table &&
            (table.family == nft::family::inet || table.family == nft::family::bridge))
            unclaimed.insert(table.name.substr(detail::table_prefix.size()));
    for (const std::string& each : unclaimed)
        if (!known.contains(each)) report.unclaimed.push_back(each);
    if (failed) std::rethrow_exception(failed);
    return report;
}

}  // namespace kumiki::inline v0
