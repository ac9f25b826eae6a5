#include <algorithm>

#include <kumiki/netlink/link_kinds.hpp>
#include <kumiki/netlink/traffic.hpp>

#include "support/catch.hpp"
#include "support/netns.hpp"
#include "support/witness.hpp"

using namespace kumiki;
using kumiki_test::private_netns;
using kumiki_test::says;
using kumiki_test::witness;

namespace {

struct shaped_link {
    private_netns ns;
    netlink_socket socket = netlink_socket::open_in(ns.fd(), NETLINK_ROUTE);
    int link = 0;

    shaped_link() {
        netlink_batch batch;
        create_veth(batch, {.name = "v0", .peer_name = "v1"});
        socket.transact(batch);
        link = find_link(socket, "v0")->index;
    }
    int submit(auto&& fill) {
        netlink_batch batch;
        fill(batch);
        const auto failures = socket.submit(batch);
        return failures.empty() ? 0 : failures.front().code;
    }
    std::vector<std::string> kinds() {
        std::vector<std::string> all;
        for (const auto& each : list_qdiscs(socket, link)) all.push_back(each.kind);
        std::sort(all.begin(), all.end());
        return all;
    }
};

}  // namespace

TEST_CASE("A rate is what tc shows, also beyond 32 bits, and is replaced and taken away") {
    NEEDS_NETNS_AND("tc");
    shaped_link test;
    const auto limit = [&](bytes_per_second rate) {
        return test.submit(
            [&](netlink_batch& batch) { shape_link(batch, test.link, 1500, {.rate = rate}); });
    };
    const int code = limit(megabits(100));
    if (code == ENOENT) KUMIKI_SKIP("this kernel has no tbf");
    REQUIRE(code == 0);
    CHECK(says(witness(test.ns, "tc qdisc show dev v0"), "tbf 20: root refcnt"));
    CHECK(says(witness(test.ns, "tc qdisc show dev v0"), "rate 100Mbit"));
    CHECK(limit(megabits(80'000)) == 0);
    CHECK(says(witness(test.ns, "tc qdisc show dev v0"), "rate 80Gbit"));
    CHECK(limit(bytes_per_second{1000}) == 0);
    CHECK(says(witness(test.ns, "tc qdisc show dev v0"), "rate 8Kbit burst 3200b"));
    CHECK(test.kinds() == std::vector<std::string>{"tbf"});
    CHECK(test.submit([&](netlink_batch& batch) { unshape_link(batch, test.link); }) == 0);
    CHECK(test.submit([&](netlink_batch& batch) { unshape_link(batch, test.link); }) == ENOENT);
    CHECK(!says(witness(test.ns, "tc qdisc show dev v0"), "tbf"));
}

TEST_CASE("What an interface receives is led through another once") {
    NEEDS_NETNS_AND("tc");
    shaped_link test;
    netlink_batch make;
    create_ifb(make, {.name = "ifb0"});
    if (!test.socket.submit(make).empty()) KUMIKI_SKIP("this kernel has no ifb");
    const int ifb = find_link(test.socket, "ifb0")->index;
    const auto lead = [&](netlink_batch& batch) { lead_received(batch, test.link, ifb); };
    const int code = test.submit(lead);
    if (code == ENOENT) KUMIKI_SKIP("this kernel has no ingress, u32 or mirred");
    REQUIRE(code == 0);
    const auto seen = witness(test.ns, "tc filter show dev v0 ingress");
    INFO(seen);
    CHECK(says(seen, "filter parent ffff: protocol all pref 1 u32"));
    CHECK(says(seen, "match 00000000/00000000 at 0"));
    CHECK(says(seen, "mirred (Egress Redirect to device ifb0) stolen"));
    CHECK(test.submit(lead) == EEXIST);
    const auto kinds = test.kinds();
    CHECK(std::count(kinds.begin(), kinds.end(), "ingress") == 1);
}

TEST_CASE("A shape that is none asks for nothing, and one on no interface is refused") {
    NEEDS_NETNS_AND("tc");
    shaped_link test;
    netlink_batch batch;
    shape_link(batch, test.link, 1500, {});
    CHECK(batch.empty());
    const int code =
        test.submit([](netlink_batch& b) { shape_link(b, 4711, 1500, {.rate = megabits(1)}); });
    CHECK(code == ENODEV);
}
