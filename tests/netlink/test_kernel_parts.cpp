#include <optional>
#include <string>

#include <kumiki/netlink/kernel_parts.hpp>
#include <kumiki/network/firewall.hpp>
#include <kumiki/sys/file.hpp>

#include "support/catch.hpp"
#include "support/netns.hpp"

using namespace kumiki;
using namespace kumiki::literals;
using kumiki_test::private_netns;

namespace {

/// An expression that no kernel has.
struct unknown_expression {
    void append(netlink_batch& rule) const {
        detail::put_nft_expression(rule, "kumiki-no-such", [] {});
    }
};

}  // namespace

TEST_CASE("A network opens where no part is missing, and names the part where one is", "[vm]") {
    NEEDS_NETNS;
    const private_netns ns;
    const auto open = [&] {
        (void)firewall::open_in(
            ns.fd(), {.network = "web", .bridge = "km-web", .subnets = {"10.88.0.0/24"_cidr}});
    };
    std::optional<netlink_socket> socket;
    try {
        socket = netlink_socket::open_in(ns.fd(), NETLINK_NETFILTER);
    } catch (const error& refused) {
        CHECK(refused.errno_value() == EPROTONOSUPPORT);
        try {
            open();
            FAIL("it opened without netfilter");
        } catch (const unsupported& told) {
            CHECK(told.remedy() ==
                  "This kernel lacks nfnetlink and nf_tables: load them as modules, or build the "
                  "kernel with CONFIG_NETFILTER_NETLINK, CONFIG_NF_TABLES.");
        }
        return;
    }
    const auto missing = find_missing_parts(*socket);
    if (missing.empty()) {
        open();
        return;
    }
    try {
        open();
        FAIL("it opened without " << missing[0].module);
    } catch (const unsupported& refused) {
        INFO(refused.what());
        for (const auto& part : missing) {
            CHECK(refused.remedy().find(part.module) != std::string::npos);
            CHECK(refused.remedy().find("CONFIG_") != std::string::npos);
        }
    }
}

TEST_CASE("Looking for parts changes nothing, and a kind that is not there is seen") {
    NEEDS_NETNS;
    const private_netns ns;
    std::optional<netlink_socket> socket;
    try {
        socket = netlink_socket::open_in(ns.fd(), NETLINK_NETFILTER);
    } catch (const error&) {
        KUMIKI_SKIP("this kernel has no netfilter");
    }
    if (!find_missing_parts(*socket).empty()) KUMIKI_SKIP("this kernel lacks parts of nf_tables");
    const auto before = nft::generation(*socket);
    (void)find_missing_parts(*socket);
    CHECK(detail::takes_rule(*socket, {}, nft::counter{}));
    CHECK_FALSE(detail::takes_rule(*socket, {}, unknown_expression{}));
    CHECK_FALSE(detail::takes_rule(*socket, {.type = "no-such"}, nft::counter{}));
    CHECK(nft::generation(*socket) == before);
    // The kernel's word for it is the one for a table that is not there.
    const nft::table t{nft::family::inet, "t"};
    nft::batch change;
    change.add_table(t);
    change.add_chain(t, "c");
    change.add_rule(t, "c", "", unknown_expression{});
    CHECK(change.probe(*socket) == ENOENT);
}
