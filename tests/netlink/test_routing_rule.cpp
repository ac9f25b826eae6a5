#include <algorithm>

#include <kumiki/netlink/routing_rule.hpp>

#include "support/catch.hpp"
#include "support/netns.hpp"
#include "support/witness.hpp"

using namespace kumiki;
using namespace kumiki::literals;
using kumiki_test::private_netns;
using kumiki_test::says;
using kumiki_test::witness;

TEST_CASE("A rule is shown as it was asked for, listed, and deleted once") {
    NEEDS_NETNS_AND("ip");
    const private_netns ns;
    auto socket = netlink_socket::open_in(ns.fd(), NETLINK_ROUTE);
    const std::vector<routing_rule> rules{
        {.priority = 100, .from = "10.88.0.0/24"_cidr, .input = "eth7", .table = 4242},
        {.priority = 101, .to = "192.0.2.0/24"_cidr, .mark = 0x10, .mark_mask = 0xf0, .table = 42},
        {.priority = 102, .from = "203.0.113.0/24"_cidr, .action = rule_action::prohibit},
        {.family = ip_family::v6, .priority = 103, .from = "fd00:88::/64"_cidr, .table = 4242},
    };
    netlink_batch batch;
    for (const auto& rule : rules) add_rule(batch, rule);
    socket.transact(batch);
    const auto seen = witness(ns, "ip rule; ip -6 rule");
    INFO(seen);
    CHECK(says(seen, "100:\tfrom 10.88.0.0/24 iif eth7 [detached] lookup 4242"));
    CHECK(says(seen, "101:\tfrom all to 192.0.2.0/24 fwmark 0x10/0xf0 lookup 42"));
    CHECK(says(seen, "102:\tfrom 203.0.113.0/24 prohibit"));
    CHECK(says(seen, "103:\tfrom fd00:88::/64 lookup 4242"));
    auto listed = list_rules(socket, ip_family::v4);
    const auto six = list_rules(socket, ip_family::v6);
    listed.insert(listed.end(), six.begin(), six.end());
    for (const auto& rule : rules) {
        CAPTURE(to_string(rule));
        const bool looks_up = rule.action == rule_action::look_up;
        CHECK(std::count_if(listed.begin(), listed.end(), [&](routing_rule each) {
                  if (!looks_up) each.table = rule.table;  // it has none
                  return each == rule;
              }) == 1);
    }
    netlink_batch gone;
    delete_rule(gone, rules[0]);
    delete_rule(gone, rules[0]);
    const auto failures = socket.submit(gone);
    REQUIRE(failures.size() == 1);
    CHECK(failures[0].index == 1);
    CHECK(failures[0].code == ENOENT);
    CHECK(!says(witness(ns, "ip rule"), "eth7"));
    netlink_batch again;
    add_rule(again, rules[1]);
    const auto twice = socket.submit(again);
    REQUIRE(twice.size() == 1);
    CHECK(twice[0].code == EEXIST);
}

TEST_CASE("A rule without a priority or with two families is refused") {
    netlink_batch batch;
    CHECK_THROWS_AS(add_rule(batch, {.table = 42}), invalid_input);
    CHECK_THROWS_AS(add_rule(batch, {.priority = 1, .from = "fd00::/64"_cidr}), invalid_input);
    CHECK_THROWS_AS(add_rule(batch, {.priority = 1, .input = "a name of 16 b."}), invalid_input);
    CHECK(batch.empty());
}

TEST_CASE("Packets take the way of the table that the rule for their source names") {
    NEEDS_NETNS_AND("ip");
    const private_netns ns;
    const private_netns first;
    const private_netns second;
    auto socket = netlink_socket::open_in(ns.fd(), NETLINK_ROUTE);
    const auto cable = [&](const private_netns& to, const std::string& name, cidr own) {
        netlink_batch batch;
        create_veth(batch, {.name = name, .peer_name = "eth0", .peer_netns = to.fd()});
        set_link(batch, name, {.no_link_local = true});
        set_link(batch, name, {.up = true});
        socket.transact(batch);
        const int link = find_link(socket, name)->index;
        netlink_batch address;
        add_address(address, link, own);
        socket.transact(address);
        auto far = netlink_socket::open_in(to.fd(), NETLINK_ROUTE);
        netlink_batch there;
        set_link(there, "eth0", {.no_link_local = true});
        set_link(there, "eth0", {.up = true});
        const int eth0 = find_link(far, "eth0")->index;
        add_address(there, eth0, {.address = own.network().plus(9), .prefix = own.prefix});
        add_address(there, eth0, "203.0.113.1/32"_cidr);  // both are the server
        add_route(there, default_route(own.address, eth0));
        far.transact(there);
        return link;
    };
    const int one = cable(first, "one", "192.0.2.1/24"_cidr);
    const int two = cable(second, "two", "198.51.100.1/24"_cidr);
    netlink_batch ways;
    add_route(ways, default_route("192.0.2.9"_ip, one));
    auto other = default_route("198.51.100.9"_ip, two);
    other.table = 4242;
    add_route(ways, other);
    add_rule(ways, {.priority = 100, .from = "198.51.100.1/32"_cidr, .table = 4242});
    socket.transact(ways);
    CHECK(list_routes(socket, 4242) == std::vector<route_info>{other});
    CHECK(says(witness(ns, "ip route get 203.0.113.1 from 192.0.2.1"), "via 192.0.2.9 dev one"));
    CHECK(says(witness(ns, "ip route get 203.0.113.1 from 198.51.100.1"),
               "via 198.51.100.9 dev two table 4242"));
    const auto at_first = kumiki_test::serve(first, SOCK_DGRAM, "203.0.113.1"_ip, 80);
    CHECK(kumiki_test::reaches(ns, SOCK_DGRAM, "203.0.113.1"_ip, 80, at_first));
}

TEST_CASE("A route that refuses is told to the sender as its type says") {
    NEEDS_NETNS_AND("ip");
    const private_netns ns;
    auto socket = netlink_socket::open_in(ns.fd(), NETLINK_ROUTE);
    netlink_batch batch;
    set_link(batch, "lo", {.up = true});
    for (const auto& [network, type] : {std::pair("192.0.2.0/24"_cidr, route_type::prohibit),
                                        std::pair("198.51.100.0/24"_cidr, route_type::unreachable),
                                        std::pair("203.0.113.0/24"_cidr, route_type::drop),
                                        std::pair("2001:db8::/32"_cidr, route_type::prohibit)})
        add_route(batch, {.destination = network, .type = type});
    socket.transact(batch);
    const auto refused = [&](ip_address to) {
        return ns.run([&] {
            const unique_fd fd(
                ::socket(to.is_v4() ? AF_INET : AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0));
            const auto [address, size] = kumiki_test::endpoint_address(to, 9).to_kernel();
            return ::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), size) == 0
                       ? 0
                       : errno;
        });
    };
    CHECK(refused("192.0.2.1"_ip) == EACCES);
    CHECK(refused("198.51.100.1"_ip) == EHOSTUNREACH);
    CHECK(refused("203.0.113.1"_ip) == EINVAL);
    CHECK(refused("2001:db8::1"_ip) == EACCES);
    const auto routes = list_routes(socket);
    CHECK(std::count_if(routes.begin(), routes.end(), [](const route_info& route) {
              return route.type == route_type::prohibit;
          }) == 2);
    netlink_batch gone;
    for (const auto& route : routes) delete_route(gone, route);
    socket.transact(gone);
    CHECK(list_routes(socket).empty());
}
