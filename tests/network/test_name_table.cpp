#include <kumiki/network/firewall.hpp>
#include <kumiki/network/name_table.hpp>

#include "support/catch.hpp"
#include "support/netns.hpp"

using namespace kumiki;
using namespace kumiki::literals;
using addresses = std::vector<ip_address>;

TEST_CASE(
    "A name leads to all containers that have it, and an address to its container's own name") {
    const name_table names({{"10.88.0.2"_ip, 0, 7, "web"},
                            {"10.88.0.2"_ip, 1, 7, "www"},
                            {"10.88.0.3"_ip, 1, 9, "www"},
                            {"10.88.0.3"_ip, 0, 9, "spare"},
                            {"fd00::2"_ip, 0, 7, "web"}});
    CHECK(names.find("web") == addresses{"10.88.0.2"_ip, "fd00::2"_ip});
    CHECK(names.find("www") == addresses{"10.88.0.2"_ip, "10.88.0.3"_ip});
    CHECK(names.find("we").empty());
    CHECK(names.find("").empty());
    CHECK(names.name_of("10.88.0.3"_ip) == "spare");
    CHECK_FALSE(names.name_of("10.88.0.4"_ip));
    CHECK(names.may_ask_outside("10.88.0.2"_ip));
    CHECK_FALSE(names.may_ask_outside("10.88.0.4"_ip));
}

TEST_CASE("A name of an earlier birth is not that of who has the address now") {
    const name_table names({{"10.88.0.2"_ip, 0, 6, "web"},
                            {"10.88.0.2"_ip, 1, 12, "bank"},
                            {"10.88.0.5"_ip, 1, 6, "nobody"}});
    CHECK(names.find("bank").empty());
    CHECK(names.find("nobody").empty());
    CHECK(names.find("web") == addresses{"10.88.0.2"_ip});
    CHECK_FALSE(names.may_ask_outside("10.88.0.2"_ip));
}

TEST_CASE("The kernel's names are read back as they were put, and again after each change") {
    NEEDS_NETNS;
    const kumiki_test::private_netns ns;
    auto wall = firewall::open_in(ns.fd(), {.network = "shop",
                                            .bridge = "km-shop",
                                            .subnets = {"10.88.0.0/24"_cidr, "fd00:88::/64"_cidr},
                                            .names = name_service::on});
    detail::name_reader reader(netlink_socket::open_in(ns.fd(), NETLINK_NETFILTER), "shop");
    CHECK(reader.now().find("web").empty());
    const firewall_rules web{.container = "Web",
                             .port = "v1",
                             .addresses = {"10.88.0.2"_ip, "fd00:88::2"_ip},
                             .aliases = {"www", "api.example"},
                             .birth = 1234};
    const firewall_rules closed{.container = "db",
                                .port = "v2",
                                .addresses = {"10.88.0.3"_ip},
                                .egress = deny_all(),
                                .birth = 5};
    const firewall_rules asks{.container = "cron",
                              .port = "v3",
                              .addresses = {"10.88.0.4"_ip},
                              .egress = deny_all().allow("10.88.0.1"_ip, udp(53)),
                              .birth = 6};
    for (const auto& each : {web, closed, asks}) wall.connect(each);
    const addresses both{"10.88.0.2"_ip, "fd00:88::2"_ip};
    for (const char* name : {"web", "www", "api.example"}) CHECK(reader.now().find(name) == both);
    CHECK(reader.now().name_of("fd00:88::2"_ip) == "web");
    CHECK(reader.now().may_ask_outside("10.88.0.2"_ip));
    CHECK_FALSE(reader.now().may_ask_outside("10.88.0.3"_ip));
    CHECK(reader.now().may_ask_outside("10.88.0.4"_ip));

    // A new policy in place of the old one, and a container that a killed process left, with an alias more.
    firewall_rules open = closed;
    open.egress = allow_all();
    wall.replace(closed, open);
    CHECK(reader.now().may_ask_outside("10.88.0.3"_ip));
    firewall_rules next = web;
    next.container = "next";
    next.aliases = {"blog"};
    next.birth = 4321;
    wall.connect(next);
    CHECK(reader.now().find("next") == both);
    CHECK(reader.now().find("blog") == both);
    for (const char* name : {"web", "www", "api.example"}) CHECK(reader.now().find(name).empty());
    wall.disconnect(next);
    CHECK(reader.now().find("next").empty());
    CHECK(reader.now().find("db") == addresses{"10.88.0.3"_ip});
    wall.remove();
    CHECK(reader.now().find("db").empty());
}
