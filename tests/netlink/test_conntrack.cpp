#include <algorithm>
#include <string>
#include <vector>

#include <kumiki/netlink/address.hpp>
#include <kumiki/netlink/conntrack.hpp>
#include <kumiki/netlink/flow.hpp>
#include <kumiki/netlink/link.hpp>
#include <kumiki/netlink/nft_match.hpp>
#include <kumiki/netlink/nftables.hpp>

#include "support/catch.hpp"
#include "support/netns.hpp"

using namespace kumiki;
using namespace kumiki::literals;
using kumiki_test::private_netns;

namespace {

constexpr std::uint8_t udp_number = 17;

/// A namespace with a loopback that is up, and flows that are tracked.
struct tracked_netns {
    private_netns ns{};
    netlink_socket netfilter = netlink_socket::open_in(ns.fd(), NETLINK_NETFILTER);

    tracked_netns() {
        auto routes = netlink_socket::open_in(ns.fd(), NETLINK_ROUTE);
        netlink_batch up;
        set_link(up, "lo", {.up = true});
        routes.transact(up);
        // Flows are tracked from the first rule on that asks for their state.
        const nft::table table{.family = nft::family::inet, .name = "track"};
        nft::batch rules;
        rules.add_table(table);
        rules.add_chain(table, "out", nft::hook{.point = nft::hook_point::output});
        rules.add_rule(table, "out", "", nft::state_is_any(nft::ct_state::invalid), nft::counter{});
        rules.commit(netfilter);
    }
    void send(ip_address to, std::uint16_t port) {
        const auto server = kumiki_test::serve(ns, SOCK_DGRAM, to, port);
        REQUIRE(kumiki_test::reaches(ns, SOCK_DGRAM, to, port, server));
    }
    std::size_t count(const flow_filter& filter) { return list_flows(netfilter, filter).size(); }
};

}  // namespace

TEST_CASE("Flows are listed with both of their directions") {
    NEEDS_NETNS;
    tracked_netns here;
    here.send("127.0.0.1"_ip, 5000);
    const auto flows = list_flows(here.netfilter, {});
    REQUIRE(flows.size() == 1);
    CHECK(flows[0].transport == udp_number);
    CHECK(flows[0].original.destination == "127.0.0.1"_ip);
    CHECK(flows[0].original.destination_port == 5000);
    CHECK(flows[0].reply.source_port == 5000);
    CHECK(flows[0].reply.destination_port == flows[0].original.source_port);
    CHECK_FALSE(flows[0].is_redirected());
}

TEST_CASE("A filter finds its flows and no others") {
    NEEDS_NETNS;
    tracked_netns here;
    here.send("127.0.0.1"_ip, 5000);
    here.send("127.0.0.2"_ip, 5000);
    here.send("::1"_ip, 5000);
    CHECK(here.count({}) == 2);
    CHECK(here.count({.family = ip_family::v6}) == 1);
    CHECK(here.count({.family = ip_family::v6, .original_destination = "::1"_ip}) == 1);
    CHECK(here.count({.original_destination = "127.0.0.2"_ip}) == 1);
    CHECK(here.count({.original_destination = "127.0.0.3"_ip}) == 0);
    CHECK(here.count({.reply_source = "127.0.0.2"_ip}) == 1);
    CHECK(here.count({.original_source = "127.0.0.1"_ip, .reply_source = "127.0.0.2"_ip}) <= 1);
    CHECK(here.count({.transport = udp_number}) == 2);
    CHECK(here.count({.transport = 6}) == 0);
}

TEST_CASE("Deleted flows are gone, the others stay, and a second deletion is no error") {
    NEEDS_NETNS;
    tracked_netns here;
    for (std::uint16_t port = 5000; port < 5010; ++port) here.send("127.0.0.1"_ip, port);
    here.send("::1"_ip, 5000);
    auto flows = list_flows(here.netfilter, {});
    REQUIRE(flows.size() == 10);
    flows.pop_back();
    delete_flows(here.netfilter, flows);
    CHECK(here.count({}) == 1);
    CHECK(here.count({.family = ip_family::v6}) == 1);
    delete_flows(here.netfilter, flows);
    delete_flows(here.netfilter, list_flows(here.netfilter, {.family = ip_family::v6}));
    CHECK(here.count({.family = ip_family::v6}) == 0);
}

TEST_CASE("Flows are counted, and flushed in the kernel where it can") {
    NEEDS_NETNS;
    tracked_netns here;
    CHECK(count_flows(here.netfilter) == 0);
    here.send("127.0.0.1"_ip, 5000);
    here.send("127.0.0.2"_ip, 5000);
    here.send("::1"_ip, 5000);
    CHECK(count_flows(here.netfilter) == 3);
    CHECK_THROWS_AS(try_flush_flows(here.netfilter, {}), invalid_input);
    CHECK_FALSE(try_flush_flows(here.netfilter,
                                {.family = ip_family::v6, .original_destination = "::1"_ip}));
    CHECK(count_flows(here.netfilter) == 3);
    if (!try_flush_flows(here.netfilter, {.reply_source = "127.0.0.2"_ip}))
        KUMIKI_SKIP("this kernel does not flush by a filter");
    CHECK(here.count({.original_destination = "127.0.0.2"_ip}) == 0);
    CHECK(count_flows(here.netfilter) == 2);
    CHECK(try_flush_flows(here.netfilter, {.original_source = "127.0.0.9"_ip}));
    CHECK(count_flows(here.netfilter) == 2);
    CHECK(try_flush_flows(here.netfilter, {.original_source = "127.0.0.1"_ip}));
    CHECK(count_flows(here.netfilter) == 1);
}

TEST_CASE("A flow that the kernel cannot read is refused by name") {
    NEEDS_NETNS;
    tracked_netns here;
    flow odd;
    odd.original = {.source = "192.0.2.1"_ip, .destination = "192.0.2.2"_ip};
    odd.raw_tuple = std::vector<std::byte>(4, std::byte{0xff});
    try {
        delete_flows(here.netfilter, std::vector{odd});
        FAIL("the kernel took it");
    } catch (const error& failure) {
        CHECK(failure.object() == "192.0.2.1 to 192.0.2.2");
    }
}

TEST_CASE("Messages that are no flow are an error and never read beyond their end") {
    std::vector<std::byte> bytes(sizeof(nfgenmsg) + 8);
    const std::uint16_t length = 200;
    std::memcpy(bytes.data() + sizeof(nfgenmsg), &length, sizeof length);
    CHECK_THROWS_AS(parse_flow({.payload = bytes}), error);
    CHECK_THROWS_AS(parse_flow({.payload = {}}), error);
}
