// Which parts of the kernel's packet filter are missing: for the error of who needs them.
//
// The kernel answers the same ENOENT for a kind of expression or chain that it does not have as for a
// table that is not there. So each part is asked for by itself, in a transaction without an end,
// which the kernel looks at (and loads modules for) and does not carry out. Nothing is asked while
// all goes well. Left out: what kumiki does not use.
#pragma once

#include <linux/netfilter/nf_tables.h>

#include <cerrno>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <kumiki/core/error.hpp>
#include <kumiki/netlink/conntrack.hpp>
#include <kumiki/netlink/nft_action.hpp>
#include <kumiki/netlink/nft_expression.hpp>
#include <kumiki/netlink/nft_match.hpp>
#include <kumiki/netlink/nftables.hpp>
#include <kumiki/netlink/socket.hpp>

namespace kumiki::inline v0 {

/// A part of the kernel: a module, and the option that builds it.
struct kernel_part {
    std::string module;
    std::string option;
};

namespace detail {

/// Whether the kernel takes a rule with `statements` in a chain like `where`.
template <class... Statements>
bool takes_rule(netlink_socket& socket, const nft::hook& where, const Statements&... statements) {
    const nft::table probe{nft::family::inet, "kumiki-probe"};
    nft::batch change;
    change.add_table(probe);
    change.add_chain(probe, "probe", where);
    change.add_rule(probe, "probe", "", statements...);
    return change.probe(socket) == 0;
}

}  // namespace detail

/// The parts that kumiki's networks need and this kernel lacks, in the namespace of `netfilter` (a
/// socket of NETLINK_NETFILTER). When nf_tables itself is missing, it is all that is named.
/// Errors: kumiki::error EPERM without CAP_NET_ADMIN.
inline std::vector<kernel_part> find_missing_parts(netlink_socket& netfilter) {
    using namespace nft;
    std::vector<kernel_part> missing;
    {
        batch change;
        change.add_table({family::inet, "kumiki-probe"});
        const int code = change.probe(netfilter);
        if (code == EPERM)
            throw error(EPERM, {.operation = "look for parts of the kernel",
                                .object = "nf_tables",
                                .remedy = "It needs CAP_NET_ADMIN in the network namespace."});
        if (code != 0) return {{"nf_tables", "CONFIG_NF_TABLES, CONFIG_NF_TABLES_INET"}};
    }
    const auto need = [&](bool is_there, const char* module, const char* option) {
        if (!is_there) missing.push_back({module, option});
    };
    const auto takes = [&](const hook& where, const auto&... statements) {
        return detail::takes_rule(netfilter, where, statements...);
    };
    const auto chain_of_bridge = [&] {
        const table probe{family::bridge, "kumiki-probe"};
        batch change;
        change.add_table(probe);
        change.add_chain(probe, "probe", hook{});
        return change.probe(netfilter) == 0;
    };
    const hook filter{};
    const hook nat{"nat", hook_point::postrouting, 100};
    need(chain_of_bridge(), "nf_tables_bridge", "CONFIG_NF_TABLES_BRIDGE");
    const bool has_nat = takes(nat, counter{});
    need(has_nat, "nft_chain_nat", "CONFIG_NFT_NAT");
    const load_value address{value(ip_address())};
    need(!has_nat || takes(hook{"nat", hook_point::prerouting, -100}, address, translate{}),
         "nft_nat", "CONFIG_NFT_NAT");
    need(!has_nat || takes(nat, masquerade{}), "nft_masq", "CONFIG_NFT_MASQ");
    need(takes(filter, load_ct{}), "nft_ct or nf_conntrack", "CONFIG_NFT_CT, CONFIG_NF_CONNTRACK");
    need(takes(hook{"filter", hook_point::prerouting, 0}, load_fib{}), "nft_fib_inet",
         "CONFIG_NFT_FIB_INET");
    need(takes(filter, log_to{.group = 1}), "nft_log or nfnetlink_log",
         "CONFIG_NFT_LOG, CONFIG_NETFILTER_NETLINK_LOG");
    bool has_flows = true;
    try {
        (void)count_flows(netfilter);
    } catch (const error&) {
        has_flows = false;
    }
    need(has_flows, "nf_conntrack_netlink", "CONFIG_NF_CT_NETLINK");
    return missing;
}

namespace detail {

/// A socket of NETLINK_NETFILTER; `unsupported` with what is missing where there is none.
inline netlink_socket open_netfilter() {
    try {
        return netlink_socket::open(NETLINK_NETFILTER);
    } catch (const error& failure) {
        if (failure.errno_value() != EPROTONOSUPPORT) throw;
        error_context context = failure.context();
        context.remedy =
            "This kernel lacks nfnetlink and nf_tables: load them as modules, or "
            "build the kernel with CONFIG_NETFILTER_NETLINK, CONFIG_NF_TABLES.";
        throw unsupported(EPROTONOSUPPORT, std::move(context));
    }
}

}  // namespace detail

/// The error for a failed attempt when parts are missing, that names them; nothing when none is.
inline std::optional<unsupported> name_missing_parts(netlink_socket& netfilter,
                                                     const error& failure) {
    std::string names;
    std::string options;
    for (const kernel_part& each : find_missing_parts(netfilter)) {
        names += (names.empty() ? "" : ", ") + each.module;
        options += (options.empty() ? "" : ", ") + each.option;
    }
    if (names.empty()) return std::nullopt;
    error_context context = failure.context();
    context.remedy = "This kernel lacks " + names +
                     ": load it as a module, or build the kernel with " + options + ".";
    return unsupported(failure.errno_value(), std::move(context), failure.where());
}

}  // namespace kumiki::inline v0
