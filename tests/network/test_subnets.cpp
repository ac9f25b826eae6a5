#include <kumiki/network/subnets.hpp>

#include "support/catch.hpp"
#include "support/netns.hpp"

using namespace kumiki;
using namespace kumiki::literals;
using kumiki_test::private_netns;

namespace {

cidr chosen(const std::vector<cidr>& taken, const std::vector<cidr>& pools, unsigned prefix = 24) {
    std::vector<route_info> routes{default_route("192.0.2.1"_ip), default_route("fe80::1"_ip)};
    for (const cidr& each : taken) routes.push_back({.destination = each});
    return choose_subnet(routes, pools, prefix);
}

}  // namespace

TEST_CASE("The first network that nothing overlaps is chosen, whatever sizes stand before it") {
    const std::vector<cidr> pools{"10.216.0.0/13"_cidr, "192.168.192.0/18"_cidr};
    CHECK(chosen({}, pools) == "10.216.0.0/24"_cidr);
    CHECK(chosen({"10.216.0.7/32"_cidr}, pools) == "10.216.1.0/24"_cidr);
    CHECK(chosen({"10.216.0.0/16"_cidr, "10.217.0.128/25"_cidr}, pools) == "10.217.1.0/24"_cidr);
    CHECK(chosen({"10.0.0.0/8"_cidr}, pools) == "192.168.192.0/24"_cidr);
    CHECK(chosen({"10.216.0.0/13"_cidr, "192.168.192.0/24"_cidr}, pools) ==
          "192.168.193.0/24"_cidr);
    CHECK(chosen({}, pools, 30) == "10.216.0.0/30"_cidr);
    CHECK(chosen({"fd00::/64"_cidr, "10.216.0.0/24"_cidr}, {"fd00::/48"_cidr}, 64) ==
          "fd00:0:0:1::/64"_cidr);
}

TEST_CASE("Pools that are used up, also at the end of all addresses, are named") {
    for (const auto& [taken, pool] : {std::pair("10.0.0.0/8"_cidr, "10.216.0.0/13"_cidr),
                                      std::pair("255.255.0.0/16"_cidr, "255.255.0.0/16"_cidr)})
        try {
            chosen({taken}, {pool});
            FAIL("one was chosen");
        } catch (const error& none) {
            INFO(none.what());
            CHECK(none.errno_value() == EADDRNOTAVAIL);
            CHECK(none.object() == "/24 in " + to_string(pool));
        }
    CHECK_THROWS_AS(chosen({}, {"10.0.0.0/25"_cidr}), invalid_input);
}

TEST_CASE("The host's own addresses and the routes of other tables are kept clear of") {
    NEEDS_NETNS;
    const private_netns ns;
    auto socket = netlink_socket::open_in(ns.fd(), NETLINK_ROUTE);
    netlink_batch batch;
    set_link(batch, "lo", {.up = true});
    add_address(batch, 1, "10.216.0.9/32"_cidr);
    add_route(batch, {.destination = "10.216.1.0/24"_cidr, .link = 1, .table = 4242});
    socket.transact(batch);
    const std::vector<cidr> pools{"10.216.0.0/16"_cidr};
    CHECK(choose_subnet(socket, pools, 24) == "10.216.2.0/24"_cidr);
    const cidr six = choose_subnet6(socket);
    CHECK("fd00::/8"_cidr.contains(six.address));
    CHECK(six.prefix == 64);
    CHECK(choose_subnet6(socket) != six);
}
