// What a network without a living process can leave, by the names that its objects have: tables,
// interfaces, files. All of it goes by these; that something is gone already is no error.
#pragma once

#include <unistd.h>

#include <cerrno>
#include <string>

#include <kumiki/netlink/kernel_parts.hpp>
#include <kumiki/netlink/link.hpp>
#include <kumiki/netlink/link_info.hpp>
#include <kumiki/netlink/nftables.hpp>
#include <kumiki/netlink/socket.hpp>
#include <kumiki/network/ruleset.hpp>

namespace kumiki::inline v0::detail {

/// The text on a network's bridge; on its ports it goes on with ":CONTAINER".
inline std::string network_alias(const std::string& network) { return "kumiki:" + network; }

/// Deletes the bridge and its ports. Errors: kumiki::error of the first that could not be.
inline void delete_network_links(netlink_socket& route, const std::string& network) {
    const std::string alias = network_alias(network);
    netlink_batch change;
    for (const link_info& link : list_links(route))
        if (link.alias == alias || link.alias.starts_with(alias + ":"))
            delete_link(change, link.index);
    for (const netlink_failure& failure : route.submit(change))
        if (failure.code != ENODEV) throw to_error(change, failure);
}

/// Deletes the tables with all in them. Errors: unsupported without nf_tables; kumiki::error.
inline void delete_network_tables(netlink_socket& netfilter, const std::string& network) {
    const ruleset tables(network);
    nft::batch change;
    for (const nft::table& table : {tables.inet, tables.bridge}) {
        change.add_table(table);  // so that its deletion cannot fail
        change.delete_table(table);
    }
    try {
        change.commit(netfilter);
    } catch (const error& failure) {
        if (failure.errno_value() == EOPNOTSUPP)
            if (const auto named = name_missing_parts(netfilter, failure)) throw *named;
        throw;
    }
}

/// Deletes the files in the network's directory, but for the locks on it.
inline void delete_network_files(int directory) noexcept {
    for (const char* file : {"settings", "leases4", "leases6"}) ::unlinkat(directory, file, 0);
}

}  // namespace kumiki::inline v0::detail
