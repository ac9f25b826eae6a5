#include <algorithm>

#include <kumiki/netlink/neighbour.hpp>

#include "netlink/veth_pair.hpp"
#include "support/catch.hpp"
#include "support/netns.hpp"
#include "support/witness.hpp"

using namespace kumiki;
using namespace kumiki::literals;
using kumiki_test::says;
using kumiki_test::witness;

namespace {

struct one_link : kumiki_test::veth_pair {
    void transact(auto&& fill) {
        netlink_batch batch;
        fill(batch);
        socket.transact(batch);
    }
};

}  // namespace

TEST_CASE("A neighbour given by hand is permanent, replaced by the next, and can be forgotten") {
    NEEDS_NETNS;
    if (!kumiki_test::has_witness("ip")) KUMIKI_SKIP("there is no ip program");
    one_link test;
    for (const auto& address : {"192.0.2.7"_ip, "2001:db8::7"_ip}) {
        CAPTURE(to_string(address));
        for (const char* mac : {"02:00:00:00:00:07", "02:00:00:00:00:08"}) {
            test.transact([&](netlink_batch& batch) {
                set_neighbour(batch, test.link, address, mac_address::parse(mac));
            });
            const auto seen = witness(test.ns, "ip neigh show dev v0");
            INFO(seen);
            CHECK(says(seen, to_string(address) + " lladdr " + mac + " PERMANENT"));
            const auto listed = list_neighbours(test.socket, test.link);
            CHECK(std::count_if(listed.begin(), listed.end(), [&](const neighbour_info& n) {
                      return n.address == address && n.is_permanent() && n.mac &&
                             to_string(*n.mac) == mac && n.link == test.link;
                  }) == 1);
        }
        test.transact([&](netlink_batch& batch) { delete_neighbour(batch, test.link, address); });
        CHECK(!says(witness(test.ns, "ip neigh show dev v0 nud permanent"), to_string(address)));
    }
    netlink_batch gone;
    delete_neighbour(gone, test.link, "192.0.2.99"_ip);
    const auto failures = test.socket.submit(gone);
    REQUIRE(failures.size() == 1);
    CHECK(failures[0].code == ENOENT);
}

TEST_CASE("Only the neighbours of the interface that was asked for are listed") {
    NEEDS_NETNS;
    one_link test;
    const int other = find_link(test.socket, "v1")->index;
    test.transact([&](netlink_batch& batch) {
        set_neighbour(batch, test.link, "192.0.2.7"_ip, mac_address::parse("02:00:00:00:00:07"));
        set_neighbour(batch, other, "192.0.2.8"_ip, mac_address::parse("02:00:00:00:00:08"));
    });
    const auto one = list_neighbours(test.socket, other);
    REQUIRE(one.size() == 1);
    CHECK(one[0].address == "192.0.2.8"_ip);
    CHECK(list_neighbours(test.socket).size() == 2);
}

TEST_CASE("A host answers for a neighbour that it was told to answer for") {
    NEEDS_NETNS;
    if (!kumiki_test::has_witness("ip")) KUMIKI_SKIP("there is no ip program");
    one_link test;
    test.transact([&](netlink_batch& batch) {
        answer_for_neighbour(batch, test.link, "192.0.2.50"_ip);
        answer_for_neighbour(batch, test.link, "2001:db8::50"_ip);
    });
    const auto seen = witness(test.ns, "ip neigh show proxy; ip -6 neigh show proxy");
    INFO(seen);
    CHECK(says(seen, "192.0.2.50 dev v0 proxy"));
    CHECK(says(seen, "2001:db8::50 dev v0 proxy"));
}
