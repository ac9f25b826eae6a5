#include <sys/wait.h>

#include <algorithm>

#include <kumiki/network/bridge_network.hpp>
#include <kumiki/network/endpoint.hpp>

#include "support/catch.hpp"
#include "support/failure.hpp"
#include "support/netns.hpp"
#include "support/scratch.hpp"
#include "support/witness.hpp"

using namespace kumiki;
using namespace kumiki::literals;
using kumiki_test::message_of;
using kumiki_test::private_netns;

namespace {

// A host of the test's own and what is in it.
struct bridge_host {
    kumiki_test::scratch place;
    private_netns ns;
    netlink_socket socket = netlink_socket::open_in(ns.fd(), NETLINK_ROUTE);

    bridge_options options(std::string name = "web") const {
        return {.name = std::move(name),
                .subnet = "10.88.0.0/24"_cidr,
                .subnet6 = "fd00:88::/64"_cidr,
                .state_directory = place.path()};
    }
    bridge_network open(const bridge_options& wanted) const {
        return ns.run([&] { return bridge_network::open(wanted); });
    }
    std::string setting(const std::string& key) const {
        return ns.run(
            [&] { return std::string(trim(sys::read_file_at(AT_FDCWD, "/proc/sys/net/" + key))); });
    }
    void set(const std::string& key, const std::string& value) const {
        ns.run([&] { sys::write_file_at(AT_FDCWD, "/proc/sys/net/" + key, value); });
    }
    // Opens the network and connects a container: is its port reached by all addresses that it has?
    bool works(const bridge_options& wanted) const {
        const auto net = open(wanted);
        const private_netns inside;
        const auto link = ns.run([&] { return reserve(net.attach(), "box"); }).connect(inside.fd());
        bool all = !link.addresses().empty();
        for (const ip_address& each : link.addresses()) {
            const auto server = kumiki_test::serve(inside, SOCK_STREAM, each, 80);
            const bool one = kumiki_test::reaches(ns, SOCK_STREAM, each, 80, server).has_value();
            all = all && one;
        }
        return all && link.addresses().size() == (wanted.subnet6 ? 2 : 1);
    }
    // What a network could leave behind.
    std::vector<std::string> traces() {
        std::vector<std::string> found = kumiki_test::names_in(place.path());
        for (const auto& link : list_links(socket))
            if (link.name.starts_with("km")) found.push_back(link.name);
        for (const auto& route : list_routes(socket)) found.push_back(to_string(route));
        const std::string tables = kumiki_test::witness(ns, "nft list tables");
        if (tables.find("kumiki") != std::string::npos) found.push_back(tables);
        return found;
    }
};

bool contains(const std::string& text, const std::string& part) {
    INFO(text);
    return text.find(part) != std::string::npos;
}

}  // namespace

TEST_CASE("An open network is a bridge with the gateway's addresses, usable at once") {
    NEEDS_NETNS;
    bridge_host host;
    {
        const auto net = host.open(host.options());
        CHECK(net.gateway() == "10.88.0.1"_ip);
        const auto bridge = find_link(host.socket, "km-web");
        REQUIRE(bridge);
        CHECK(bridge->kind == "bridge");
        CHECK(bridge->is_up);
        CHECK(bridge->mtu == 1500);
        CHECK(bridge->forwards_ipv4);
        CHECK(bridge->index == net.bridge().index);
        std::vector<std::string> addresses;
        for (const auto& a : list_addresses(host.socket, bridge->index)) {
            CHECK(!a.is_tentative());
            addresses.push_back(to_string(a.address));
        }
        std::sort(addresses.begin(), addresses.end());
        CHECK(addresses == std::vector<std::string>{"10.88.0.1/24", "fd00:88::1/64",
                                                    to_string(bridge->mac->link_local())});
        CHECK(host.setting("ipv6/conf/km-web/accept_ra") == "0");
        CHECK(host.setting("ipv6/conf/km-web/accept_redirects") == "0");
        CHECK(host.setting("ipv4/conf/km-web/accept_redirects") == "0");
        CHECK(host.setting("ipv4/conf/km-web/send_redirects") == "0");
        CHECK(host.setting("ipv4/conf/km-web/rp_filter") == "2");
        CHECK(host.setting("ipv6/conf/all/forwarding") == "1");
        CHECK(kumiki_test::serve(host.ns, SOCK_STREAM, "fd00:88::1"_ip, 80));
    }
    CHECK(host.traces().empty());
    CHECK(host.setting("ipv6/conf/all/forwarding") == "0");
}

TEST_CASE("A network without IPv6 gives the bridge none") {
    NEEDS_NETNS;
    bridge_host host;
    auto options = host.options();
    options.subnet6.reset();
    options.mtu = 1400;
    const auto net = host.open(options);
    CHECK(list_addresses(host.socket, net.bridge().index).size() == 1);
    CHECK(host.setting("ipv6/conf/all/forwarding") == "0");
    CHECK(find_link(host.socket, "km-web")->mtu == 1400);
}

TEST_CASE("Where IPv6 is switched off a network has IPv4, and one with both is refused by name") {
    NEEDS_NETNS;
    bridge_host host;
    host.set("ipv6/conf/all/disable_ipv6", "1");
    host.set("ipv6/conf/default/disable_ipv6", "1");
    try {
        host.open(host.options());
        FAIL("it was opened");
    } catch (const unsupported& refused) {
        INFO(refused.what());
        CHECK(refused.errno_value() == EAFNOSUPPORT);
        CHECK(contains(refused.what(), "open network web"));
        CHECK(contains(refused.remedy(), "leave out the network's subnet6"));
        CHECK(contains(refused.remedy(), "net.ipv6.conf.default.disable_ipv6"));
    }
    CHECK(host.traces().empty());
    CHECK(host.setting("ipv6/conf/all/forwarding") == "0");
    auto options = host.options();
    options.subnet6.reset();
    CHECK(host.works(options));
    CHECK(host.traces().empty());
    // It may be on for the bridge that is made, whatever the others have.
    host.set("ipv6/conf/default/disable_ipv6", "0");
    CHECK(host.works(host.options()));
    CHECK(host.traces().empty());
}

// The kernel gives no IPv6 to an interface with an MTU below 1280, as it gives none to any when it was
// started with ipv6.disable=1.
TEST_CASE("An interface without IPv6 carries a network of IPv4, and one with both is refused") {
    NEEDS_NETNS;
    bridge_host host;
    netlink_batch batch;
    create_veth(batch, {.name = "up0", .peer_name = "up1", .mtu = 1200});
    set_link(batch, "up0", {.up = true});
    host.socket.transact(batch);
    netlink_batch way;
    const int up0 = find_link(host.socket, "up0")->index;
    add_address(way, up0, "192.0.2.2/24"_cidr);
    add_route(way, default_route("192.0.2.1"_ip, up0));
    host.socket.transact(way);
    const auto before = host.traces();
    const std::string refused = message_of([&] { host.open(host.options()); });
    CHECK(contains(refused, "1200"));
    CHECK(contains(refused, "1280"));
    CHECK(host.traces() == before);
    auto options = host.options();
    options.subnet6.reset();
    CHECK(host.works(options));
    CHECK(host.traces() == before);
    options = host.options();
    options.mtu = 1280;
    CHECK(host.works(options));
    CHECK(host.traces() == before);
}

TEST_CASE("The MTU is that of the way out") {
    NEEDS_NETNS;
    bridge_host host;
    netlink_batch batch;
    create_veth(batch, {.name = "up0", .peer_name = "up1", .mtu = 1380});
    set_link(batch, "up0", {.up = true});
    host.socket.transact(batch);
    netlink_batch way;
    const int up0 = find_link(host.socket, "up0")->index;
    add_address(way, up0, "192.0.2.2/24"_cidr);
    add_route(way, default_route("192.0.2.1"_ip, up0));
    host.socket.transact(way);
    const auto net = host.open(host.options());
    CHECK(find_link(host.socket, "km-web")->mtu == 1380);
}

TEST_CASE("A second opening shares the network, and the last one to go removes it") {
    NEEDS_NETNS;
    bridge_host host;
    std::optional<bridge_network> first = host.open(host.options());
    std::optional<bridge_network> second = host.open(host.options());
    CHECK(first->bridge().index == second->bridge().index);
    first.reset();
    CHECK(find_link(host.socket, "km-web"));
    std::optional<network_attachment> attachment = second->attach();
    second.reset();
    CHECK(find_link(host.socket, "km-web"));  // an attachment keeps it open
    attachment.reset();
    CHECK(host.traces().empty());
}

TEST_CASE("Other settings than those that the network is open with are refused") {
    NEEDS_NETNS;
    bridge_host host;
    const auto net = host.open(host.options());
    auto other = host.options();
    other.subnet = "10.89.0.0/24"_cidr;
    CHECK(contains(message_of([&] { host.open(other); }), "10.88.0.0/24"));
    other = host.options();
    other.mtu = 1400;
    CHECK(contains(message_of([&] { host.open(other); }), "other settings"));
    CHECK(find_link(host.socket, "km-web"));
}

TEST_CASE("Another process shares the network, and when it is killed it is as if it had gone") {
    NEEDS_NETNS;
    bridge_host host;
    int ready[2];
    REQUIRE(::pipe2(ready, O_CLOEXEC) == 0);
    const pid_t child = ::fork();
    if (child == 0) {
        try {
            const auto net = host.open(host.options());
            (void)!::write(ready[1], "x", 1);
            for (;;) ::pause();
        } catch (...) {
            ::_exit(1);
        }
    }
    REQUIRE(child > 0);
    ::close(ready[1]);
    char byte = 0;
    REQUIRE(::read(ready[0], &byte, 1) == 1);
    const int index = find_link(host.socket, "km-web")->index;
    const bool killed_first = GENERATE(true, false);
    {
        std::optional<bridge_network> net;
        if (!killed_first) net = host.open(host.options());
        ::kill(child, SIGKILL);
        REQUIRE(::waitpid(child, nullptr, 0) == child);
        CHECK(find_link(host.socket, "km-web"));
        // What was left by the killed one is replaced; what is shared with a living one stays.
        if (killed_first) net = host.open(host.options());
        CHECK((net->bridge().index == index) == !killed_first);
    }
    CHECK(host.traces().empty());
    CHECK(host.setting("ipv6/conf/all/forwarding") == "0");
    ::close(ready[0]);
}

TEST_CASE("A subnet that overlaps a route of the host's is refused, and the route is named") {
    NEEDS_NETNS;
    bridge_host host;
    netlink_batch batch;
    create_bridge(batch, {.name = "br0"});
    set_link(batch, "br0", {.up = true});
    host.socket.transact(batch);
    netlink_batch address;
    const int br0 = find_link(host.socket, "br0")->index;
    const bool v6 = GENERATE(false, true);
    add_address(address, br0, v6 ? "fd00:88:0:0:8000::1/65"_cidr : "10.0.0.1/8"_cidr);
    host.socket.transact(address);
    const auto before = host.traces();
    const std::string text = message_of([&] { host.open(host.options()); });
    CHECK(contains(text, v6 ? "fd00:88:0:0:8000::/65 on br0" : "10.0.0.0/8 on br0"));
    CHECK(contains(text, v6 ? "fd00:88::/64" : "10.88.0.0/24"));
    CHECK(host.traces() == before);
}

TEST_CASE("Two networks have subnets that do not overlap") {
    NEEDS_NETNS;
    bridge_host host;
    const auto net = host.open(host.options());
    auto other = host.options("db");
    CHECK(contains(message_of([&] { host.open(other); }), "on km-web"));
    other.subnet = "10.88.1.0/24"_cidr;
    other.subnet6 = "fd00:89::/64"_cidr;
    const auto db = host.open(other);
    CHECK(find_link(host.socket, "km-db"));
}

TEST_CASE("An interface of the bridge's name that is not ours is left alone") {
    NEEDS_NETNS;
    bridge_host host;
    netlink_batch batch;
    create_bridge(batch, {.name = "km-web"});
    host.socket.transact(batch);
    const int index = find_link(host.socket, "km-web")->index;
    CHECK(contains(message_of([&] { host.open(host.options()); }), "km-web"));
    REQUIRE(find_link(host.socket, "km-web"));
    CHECK(find_link(host.socket, "km-web")->index == index);
    CHECK(kumiki_test::names_in(host.place.path()).empty());
}

TEST_CASE("An uplink that is not there is refused with nothing left") {
    NEEDS_NETNS;
    bridge_host host;
    auto options = host.options();
    options.uplinks = {"nothing0"};
    CHECK(contains(message_of([&] { host.open(options); }), "nothing0"));
    CHECK(host.traces().empty());
}

TEST_CASE("A network whose bridge somebody deleted goes without complaint") {
    NEEDS_NETNS;
    bridge_host host;
    {
        const auto net = host.open(host.options());
        netlink_batch batch;
        delete_link(batch, "km-web");
        host.socket.transact(batch);
        CHECK(contains(message_of([&] { host.open(host.options()); }), "was deleted"));
    }
    CHECK(host.traces().empty());
}

TEST_CASE("A state directory that cannot be written is named") {
    NEEDS_NETNS;
    bridge_host host;
    auto options = host.options();
    options.state_directory = "/proc/nowhere";
    CHECK(contains(message_of([&] { host.open(options); }), "/proc/nowhere"));
    CHECK(host.traces().empty());
}

TEST_CASE("What cannot be attached is refused") {
    NEEDS_NETNS;
    bridge_host host;
    auto options = host.options();
    const auto net = host.open(options);
    CHECK_THROWS_AS(net.attach({.address = "10.99.0.2"_ip}), invalid_input);
    CHECK_THROWS_AS(net.attach({.address6 = "fd01::2"_ip}), invalid_input);
    CHECK_THROWS_AS(net.attach({.interface = "lo"}), invalid_input);
    CHECK_THROWS_AS(net.attach({.interface = "0123456789abcdef"}), invalid_input);
    CHECK(net.attach({.address = "10.88.0.2"_ip}).options.address == "10.88.0.2"_ip);
}

TEST_CASE("A network without a subnet gets one that overlaps nothing, and who shares it the same") {
    NEEDS_NETNS;
    bridge_host host;
    netlink_batch batch;
    set_link(batch, "lo", {.up = true});
    add_route(batch, {.destination = "10.216.0.0/24"_cidr, .link = 1});
    host.socket.transact(batch);
    auto wanted = host.options();
    wanted.subnet = {};
    wanted.subnet6 = "::/0"_cidr;
    {
        const auto net = host.open(wanted);
        CHECK(net.subnet() == "10.216.1.0/24"_cidr);
        CHECK(net.gateway() == "10.216.1.1"_ip);
        REQUIRE(net.subnet6());
        CHECK("fd00::/8"_cidr.contains(net.subnet6()->address));
        const auto same = host.open(wanted);
        CHECK(same.subnet() == net.subnet());
        CHECK(same.subnet6() == net.subnet6());
        auto given = wanted;
        given.subnet = "10.99.0.0/24"_cidr;
        CHECK(contains(message_of([&] { host.open(given); }), "other settings: 10.216.1.0/24"));
        auto second = wanted;
        second.name = "db";
        second.pools = {"10.216.0.0/23"_cidr};
        CHECK(contains(message_of([&] { host.open(second); }), "/24 in 10.216.0.0/23"));
        second.pools = {};
        CHECK(host.open(second).subnet() == "10.216.2.0/24"_cidr);
    }
    CHECK(host.traces() == std::vector<std::string>{"10.216.0.0/24"});
}
