#include <algorithm>

#include <kumiki/netlink/route.hpp>

#include "netlink/veth_pair.hpp"
#include "support/catch.hpp"
#include "support/netns.hpp"

using namespace kumiki;
using namespace kumiki::literals;
using kumiki_test::private_netns;

namespace {

struct routed_pair : kumiki_test::veth_pair {
    // Without what the kernel makes by itself for IPv6 (multicast is no unicast route).
    std::vector<std::string> routes() {
        std::vector<std::string> texts;
        for (const auto& route : list_routes(socket)) texts.push_back(to_string(route));
        std::sort(texts.begin(), texts.end());
        return texts;
    }
};

}  // namespace

TEST_CASE("An address without a route to its network is reached through its gateway alone") {
    NEEDS_NETNS;
    routed_pair test;
    netlink_batch batch;
    for (const auto& [address, gateway] : {std::pair{"10.88.0.2/24"_cidr, "10.88.0.1"_ip},
                                           std::pair{"fd00:88::2/64"_cidr, "fd00:88::1"_ip}}) {
        add_address(batch, test.link, address, prefix_route::no);
        add_route(batch, {.destination = {.address = gateway,
                                          .prefix = static_cast<std::uint8_t>(gateway.bits())},
                          .link = test.link});
        add_route(batch, default_route(gateway, test.link));
    }
    test.socket.transact(batch);
    CHECK(test.routes() == std::vector<std::string>{"10.88.0.1/32", "default via 10.88.0.1",
                                                    "default via fd00:88::1", "fd00:88::1/128"});
}

TEST_CASE("A network's route comes with the address, and goes with it") {
    NEEDS_NETNS;
    routed_pair test;
    netlink_batch batch;
    add_address(batch, test.link, "10.88.0.2/24"_cidr);
    test.socket.transact(batch);
    CHECK(test.routes() == std::vector<std::string>{"10.88.0.0/24"});
    const auto routes = list_routes(test.socket);
    REQUIRE(routes.size() == 1);
    CHECK(routes[0].link == test.link);
    CHECK(routes[0].source == "10.88.0.2"_ip);
    CHECK(!routes[0].gateway);
    netlink_batch gone;
    delete_address(gone, test.link, "10.88.0.2/24"_cidr);
    test.socket.transact(gone);
    CHECK(test.routes().empty());
}

TEST_CASE("A namespace where nothing was ever routed has no routes") {
    NEEDS_NETNS;
    const private_netns ns;
    auto socket = netlink_socket::open_in(ns.fd(), NETLINK_ROUTE);
    CHECK(list_routes(socket).empty());
}

TEST_CASE("A route can be deleted, once") {
    NEEDS_NETNS;
    routed_pair test;
    netlink_batch batch;
    add_address(batch, test.link, "10.88.0.2/24"_cidr);
    const route_info route{
        .destination = "192.0.2.0/24"_cidr, .gateway = "10.88.0.1"_ip, .metric = 7};
    add_route(batch, route);
    test.socket.transact(batch);
    const auto listed = list_routes(test.socket);
    CHECK(std::count_if(listed.begin(), listed.end(), [&](const route_info& r) {
              return r.destination == route.destination && r.gateway == route.gateway &&
                     r.metric == 7 && r.link == test.link;
          }) == 1);
    netlink_batch gone;
    delete_route(gone, route);
    delete_route(gone, route);
    const auto failures = test.socket.submit(gone);
    REQUIRE(failures.size() == 1);
    CHECK(failures[0].index == 1);
    CHECK(failures[0].code == ESRCH);
}

TEST_CASE("A route that cannot be is refused") {
    NEEDS_NETNS;
    routed_pair test;
    netlink_batch batch;
    CHECK_THROWS_AS(add_route(batch, {.destination = "10.0.0.0/8"_cidr, .gateway = "fd00::1"_ip}),
                    invalid_input);
    add_route(batch, default_route("198.51.100.1"_ip, test.link));
    try {
        test.socket.transact(batch);
        FAIL("it was taken");
    } catch (const error& refused) {
        INFO(refused.what());
        CHECK(refused.errno_value() == ENETUNREACH);
        CHECK(refused.object() == "default via 198.51.100.1");
    }
}
