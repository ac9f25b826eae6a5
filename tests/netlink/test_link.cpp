#include <fstream>

#include <kumiki/netlink/link.hpp>
#include <kumiki/netlink/link_info.hpp>

#include "support/catch.hpp"
#include "support/netns.hpp"

using namespace kumiki;
using kumiki_test::private_netns;

namespace {

// A value of /proc/sys/net as a thread in the namespace sees it.
std::string sysctl(const private_netns& ns, const std::string& key) {
    return ns.run([&] {
        std::ifstream file("/proc/sys/net/" + key);
        std::string value;
        file >> value;
        return value;
    });
}

}  // namespace

TEST_CASE("A veth pair is born with its peer in the other namespace, named, addressed, a port") {
    NEEDS_NETNS;
    const private_netns host;
    const private_netns inside;
    auto out = netlink_socket::open_in(host.fd(), NETLINK_ROUTE);
    auto in = netlink_socket::open_in(inside.fd(), NETLINK_ROUTE);
    netlink_batch bridge;
    create_bridge(bridge, {.name = "br0", .mac = mac_address::parse("02:00:00:00:00:01")});
    out.transact(bridge);
    const auto br0 = find_link(out, "br0");
    REQUIRE(br0);
    CHECK(br0->kind == "bridge");

    netlink_batch batch;
    create_veth(batch, {.name = "v0",
                        .peer_name = "eth0",
                        .peer_netns = inside.fd(),
                        .mac = mac_address::parse("02:00:00:00:00:02"),
                        .peer_mac = mac_address::parse("02:00:00:00:00:03"),
                        .mtu = 1400,
                        .master = br0->index});
    get_link(batch, "v0");
    link_info v0;
    out.transact(batch, [&](std::size_t, const netlink_message& m) { v0 = parse_link(m); });
    CHECK(v0.name == "v0");
    CHECK(v0.kind == "veth");
    CHECK(v0.mtu == 1400);
    CHECK(v0.master == br0->index);
    CHECK(to_string(v0.mac.value()) == "02:00:00:00:00:02");
    CHECK(!v0.is_up);
    CHECK(!find_link(out, "eth0"));
    const auto eth0 = find_link(in, "eth0");
    REQUIRE(eth0);
    CHECK(eth0->index == v0.peer);
    CHECK(eth0->mtu == 1400);
    CHECK(to_string(eth0->mac.value()) == "02:00:00:00:00:03");
    CHECK(to_string(find_link(out, "br0")->mac.value()) == "02:00:00:00:00:01");

    netlink_batch gone;
    delete_link(gone, v0.index);
    out.transact(gone);
    CHECK(!find_link(out, "v0"));
    CHECK(!find_link(in, "eth0"));
}

TEST_CASE("Changes of a link are what the kernel shows afterwards") {
    NEEDS_NETNS;
    const private_netns ns;
    auto socket = netlink_socket::open_in(ns.fd(), NETLINK_ROUTE);
    netlink_batch batch;
    create_bridge(batch, {.name = "br0"});
    create_veth(batch, {.name = "v0", .peer_name = "v1"});
    set_link(batch, "br0",
             {.mtu = 1300,
              .alias = "kumiki web",
              .no_link_local = true,
              .ipv4 = {{ipv4_setting::forwarding, 1},
                       {ipv4_setting::send_redirects, 0},
                       {ipv4_setting::accept_redirects, 0},
                       {ipv4_setting::rp_filter, 2},
                       {ipv4_setting::route_localnet, 1}}});
    set_link(batch, "br0", {.up = true});
    socket.transact(batch);
    const auto br0 = find_link(socket, "br0");
    REQUIRE(br0);
    CHECK(br0->is_up);
    CHECK(br0->mtu == 1300);
    CHECK(br0->alias == "kumiki web");
    CHECK(br0->forwards_ipv4);
    CHECK(br0->has_ipv6 == ns.run([] { return std::ifstream("/proc/net/if_inet6").is_open(); }));
    CHECK(!find_link(socket, "v0")->forwards_ipv4);
    CHECK(sysctl(ns, "ipv4/conf/br0/forwarding") == "1");
    CHECK(sysctl(ns, "ipv4/conf/br0/send_redirects") == "0");
    CHECK(sysctl(ns, "ipv4/conf/br0/accept_redirects") == "0");
    CHECK(sysctl(ns, "ipv4/conf/br0/rp_filter") == "2");
    CHECK(sysctl(ns, "ipv4/conf/br0/route_localnet") == "1");
    CHECK(sysctl(ns, "ipv6/conf/br0/addr_gen_mode") == "1");
    CHECK(sysctl(ns, "ipv4/conf/v0/forwarding") == "0");

    netlink_batch port;
    set_link(port, "v0", {.master = br0->index});
    set_link(port, "v0", {.up = true, .isolated = true, .hairpin = true});
    socket.transact(port);
    CHECK(find_link(socket, "v0")->master == br0->index);
    netlink_batch down;
    set_link(down, "v0", {.up = false, .master = 0});
    socket.transact(down);
    CHECK(find_link(socket, "v0")->master == 0);
    CHECK(!find_link(socket, "v0")->is_up);
}

TEST_CASE("Isolated ports of a bridge do not reach each other") {
    NEEDS_NETNS;
    const bool isolated = GENERATE(true, false);
    CAPTURE(isolated);
    const private_netns ns;
    auto socket = netlink_socket::open_in(ns.fd(), NETLINK_ROUTE);
    netlink_batch batch;
    create_bridge(batch, {.name = "br0"});
    set_link(batch, "br0", {.no_link_local = true});
    set_link(batch, "br0", {.up = true});
    socket.transact(batch);
    const int br0 = find_link(socket, "br0")->index;
    const private_netns sides[2];
    for (int i = 0; i < 2; ++i) {
        netlink_batch veth;
        const std::string name = "v" + std::to_string(i);
        create_veth(
            veth, {.name = name, .peer_name = "eth0", .peer_netns = sides[i].fd(), .master = br0});
        set_link(veth, name, {.up = true, .isolated = isolated});
        socket.transact(veth);
        auto in = netlink_socket::open_in(sides[i].fd(), NETLINK_ROUTE);
        netlink_batch up;
        set_link(up, "eth0", {.up = true});
        in.transact(up);
        // An address by hand, from below: rtnetlink's own test is in test_address.cpp.
        netlink_batch address;
        ifaddrmsg header{};
        header.ifa_family = AF_INET;
        header.ifa_prefixlen = 24;
        header.ifa_index = static_cast<std::uint32_t>(find_link(in, "eth0")->index);
        address.add(RTM_NEWADDR, detail::create_flags, header, {"add address", "eth0"});
        const auto ip =
            ip_address(std::array<std::uint8_t, 4>{10, 1, 1, static_cast<std::uint8_t>(1 + i)});
        address.address(IFA_LOCAL, ip);
        in.transact(address);
    }
    const auto server = kumiki_test::serve(sides[1], SOCK_DGRAM, ip_address::parse("10.1.1.2"), 7);
    const auto arrived = kumiki_test::reaches(sides[0], SOCK_DGRAM, ip_address::parse("10.1.1.2"),
                                              7, server, isolated ? 300 : 3000);
    CHECK(arrived.has_value() == !isolated);
}

TEST_CASE("A link that is not there is no answer to a question and an error to a change") {
    NEEDS_NETNS;
    const private_netns ns;
    auto socket = netlink_socket::open_in(ns.fd(), NETLINK_ROUTE);
    CHECK(!find_link(socket, "none0"));
    CHECK(!find_link(socket, 4711));
    for (const bool change : {true, false}) {
        netlink_batch batch;
        if (change)
            set_link(batch, "none0", {.up = true});
        else
            delete_link(batch, "none0");
        try {
            socket.transact(batch);
            FAIL("it was taken");
        } catch (const error& refused) {
            INFO(refused.what());
            CHECK(refused.errno_value() == ENODEV);
            CHECK(refused.object() == "none0");
        }
    }
}

TEST_CASE("A name that is taken is an error that names it, in either namespace") {
    NEEDS_NETNS;
    const private_netns ns;
    const private_netns other;
    auto socket = netlink_socket::open_in(ns.fd(), NETLINK_ROUTE);
    auto there = netlink_socket::open_in(other.fd(), NETLINK_ROUTE);
    netlink_batch first;
    create_veth(first, {.name = "v0", .peer_name = "eth0", .peer_netns = other.fd()});
    socket.transact(first);
    const bool here = GENERATE(true, false);
    netlink_batch second;
    create_veth(second, {.name = here ? "v0" : "v1",
                         .peer_name = here ? "eth1" : "eth0",
                         .peer_netns = other.fd()});
    const auto failures = socket.submit(second);
    REQUIRE(failures.size() == 1);
    CHECK(failures[0].code == EEXIST);
    CHECK(!find_link(socket, "v1"));
    CHECK(!find_link(there, "eth1"));
}

TEST_CASE("Bad names are refused before the kernel is asked") {
    netlink_batch batch;
    CHECK_THROWS_AS(create_bridge(batch, {.name = "0123456789abcdef"}), invalid_input);
    CHECK_THROWS_AS(create_veth(batch, {.name = "", .peer_name = "eth0"}), invalid_input);
    CHECK_THROWS_AS(create_veth(batch, {.name = "v0", .peer_name = "a/b"}), invalid_input);
    CHECK_THROWS_AS(set_link(batch, "a b", {.up = true}), invalid_input);
    CHECK_THROWS_AS(link_ref(std::string()), invalid_input);
}

TEST_CASE("Loopback is told from other links") {
    auto socket = netlink_socket::open(NETLINK_ROUTE);
    CHECK(find_link(socket, "lo")->is_loopback);
    CHECK(find_link(socket, "lo")->kind.empty());
}
