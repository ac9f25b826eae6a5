#include <unistd.h>

#include <kumiki/netlink/address.hpp>
#include <kumiki/netlink/link_kinds.hpp>
#include <kumiki/netlink/socket.hpp>

#include "support/catch.hpp"
#include "support/netns.hpp"
#include "support/witness.hpp"

using namespace kumiki;
using namespace kumiki::literals;
using kumiki_test::private_netns;
using kumiki_test::says;
using kumiki_test::witness;

namespace {

// Two hosts on one cable: each has an end called eth0.
struct two_hosts {
    private_netns near;
    private_netns far;
    netlink_socket here = netlink_socket::open_in(near.fd(), NETLINK_ROUTE);
    netlink_socket there = netlink_socket::open_in(far.fd(), NETLINK_ROUTE);
    int parent = 0;

    two_hosts() {
        netlink_batch pair;
        create_veth(pair, {.name = "eth0", .peer_name = "eth0", .peer_netns = far.fd()});
        here.transact(pair);
        parent = up(here, "eth0");
        up(there, "eth0");
    }
    static int up(netlink_socket& socket, const std::string& name,
                  const std::vector<cidr>& addresses = {}) {
        netlink_batch batch;
        set_link(batch, name, {.no_link_local = true});
        set_link(batch, name, {.up = true});
        const int index = find_link(socket, name).value().index;
        for (const cidr& address : addresses) add_address(batch, index, address);
        socket.transact(batch);
        return index;
    }
};

// False where this kernel has no such kind; then the error names what is missing.
template <class Create>
bool can_make(netlink_socket& socket, const std::string& module, Create&& create) {
    netlink_batch batch;
    create(batch);
    try {
        socket.transact(batch);
        return true;
    } catch (const error& refused) {
        INFO(refused.what());
        REQUIRE(refused.errno_value() == EOPNOTSUPP);
        CHECK(says(refused.what(), "module " + module));
        return false;
    }
}

int refusal_of(netlink_socket& socket, netlink_batch& batch) {
    const auto failures = socket.submit(batch);
    return failures.empty() ? 0 : failures.front().code;
}

}  // namespace

TEST_CASE("A macvlan is born in a container with a parent outside, and speaks on its wire") {
    NEEDS_NETNS_AND("ip");
    two_hosts hosts;
    const private_netns inside;
    if (!can_make(hosts.here, "macvlan", [&](netlink_batch& batch) {
            create_macvlan(batch, {.name = "mac0",
                                   .parent = hosts.parent,
                                   .netns = inside.fd(),
                                   .mac = mac_address::parse("02:00:00:00:00:42"),
                                   .mtu = 1400});
        }))
        KUMIKI_SKIP("this kernel has no macvlan");
    const auto seen = witness(inside, "ip -d link show dev mac0");
    INFO(seen);
    CHECK(says(seen, "macvlan mode bridge"));
    CHECK(says(seen, "02:00:00:00:00:42"));
    CHECK(says(seen, "mtu 1400"));
    CHECK(!find_link(hosts.here, "mac0"));
    auto in = netlink_socket::open_in(inside.fd(), NETLINK_ROUTE);
    const auto mac0 = find_link(in, "mac0");
    REQUIRE(mac0);
    CHECK(mac0->kind == "macvlan");
    CHECK(mac0->peer == hosts.parent);

    two_hosts::up(in, "mac0", {"192.0.2.5/24"_cidr});
    two_hosts::up(hosts.there, "eth0", {"192.0.2.9/24"_cidr});
    const auto server = kumiki_test::serve(inside, SOCK_STREAM, "192.0.2.5"_ip, 80);
    const auto client = kumiki_test::reaches(hosts.far, SOCK_STREAM, "192.0.2.5"_ip, 80, server);
    REQUIRE(client);
    CHECK(client->address == "192.0.2.9"_ip);
}

TEST_CASE("Macvlans of the isolated mode do not reach each other, those of a bridge do") {
    NEEDS_NETNS_AND("ip");
    for (const macvlan_type mode : {macvlan_type::isolated, macvlan_type::bridge}) {
        two_hosts hosts;
        const private_netns one;
        const private_netns two;
        for (const auto& [ns, address] :
             {std::pair(&one, "192.0.2.1/24"_cidr), std::pair(&two, "192.0.2.2/24"_cidr)}) {
            if (!can_make(hosts.here, "macvlan", [&, inside = ns](netlink_batch& batch) {
                    create_macvlan(batch, {.name = "mac0",
                                           .parent = hosts.parent,
                                           .mode = mode,
                                           .netns = inside->fd()});
                }))
                KUMIKI_SKIP("this kernel has no macvlan");
            auto in = netlink_socket::open_in(ns->fd(), NETLINK_ROUTE);
            two_hosts::up(in, "mac0", {address});
        }
        const auto server = kumiki_test::serve(two, SOCK_DGRAM, "192.0.2.2"_ip, 80);
        const bool open = mode == macvlan_type::bridge;
        CHECK(kumiki_test::reaches(one, SOCK_DGRAM, "192.0.2.2"_ip, 80, server, open ? 2000 : 300)
                  .has_value() == open);
    }
}

TEST_CASE("A vxlan carries frames between two hosts inside of UDP packets") {
    NEEDS_NETNS_AND("ip");
    two_hosts hosts;
    two_hosts::up(hosts.here, "eth0", {"192.0.2.1/24"_cidr});
    two_hosts::up(hosts.there, "eth0", {"192.0.2.9/24"_cidr});
    const auto connect = [](netlink_socket& socket, ip_address own, ip_address other, int parent,
                            cidr inner) {
        const bool made = can_make(socket, "vxlan", [&](netlink_batch& batch) {
            create_vxlan(batch, {.name = "vx0",
                                 .id = 4242,
                                 .remote = other,
                                 .local = own,
                                 .parent = parent,
                                 .port = 4790,
                                 .learning = vxlan_learning::off});
        });
        if (made) two_hosts::up(socket, "vx0", {inner});
        return made;
    };
    if (!connect(hosts.here, "192.0.2.1"_ip, "192.0.2.9"_ip, hosts.parent, "10.9.0.1/24"_cidr))
        KUMIKI_SKIP("this kernel has no vxlan");
    REQUIRE(connect(hosts.there, "192.0.2.9"_ip, "192.0.2.1"_ip, 0, "10.9.0.2/24"_cidr));
    const auto seen = witness(hosts.near, "ip -d link show dev vx0");
    INFO(seen);
    CHECK(says(seen, "vxlan id 4242 remote 192.0.2.9 local 192.0.2.1 dev eth0"));
    CHECK(says(seen, "dstport 4790 nolearning"));
    CHECK(find_link(hosts.here, "vx0")->kind == "vxlan");
    const auto server = kumiki_test::serve(hosts.far, SOCK_STREAM, "10.9.0.2"_ip, 80);
    const auto client = kumiki_test::reaches(hosts.near, SOCK_STREAM, "10.9.0.2"_ip, 80, server);
    REQUIRE(client);
    CHECK(client->address == "10.9.0.1"_ip);

    netlink_batch again;  // the same number at the same port
    create_vxlan(again, {.name = "vx1", .id = 4242, .local = "192.0.2.1"_ip, .port = 4790});
    CHECK(refusal_of(hosts.here, again) == EEXIST);
}

TEST_CASE("A vlan takes the frames with its tag, and no others [vm]", "[vm]") {
    NEEDS_NETNS_AND("ip");
    if (::access("/proc/net/if_inet6", F_OK) != 0) KUMIKI_SKIP("this kernel has no IPv6");
    two_hosts hosts;
    const private_netns elsewhere;
    if (!can_make(hosts.here, "8021q", [&](netlink_batch& batch) {
            create_vlan(batch, {.name = "blue", .parent = hosts.parent, .id = 100});
        }))
        KUMIKI_SKIP("this kernel has no vlan");
    CHECK(says(witness(hosts.near, "ip -d link show dev blue"), "vlan protocol 802.1Q id 100"));
    const int far = find_link(hosts.there, "eth0")->index;
    netlink_batch others;
    create_vlan(others, {.name = "blue", .parent = far, .id = 100});
    create_vlan(others, {.name = "red", .parent = far, .id = 200, .netns = elsewhere.fd()});
    hosts.there.transact(others);
    two_hosts::up(hosts.here, "blue", {"10.9.0.1/24"_cidr, "10.9.1.1/24"_cidr});
    two_hosts::up(hosts.there, "blue", {"10.9.0.2/24"_cidr});
    auto other_tag = netlink_socket::open_in(elsewhere.fd(), NETLINK_ROUTE);
    two_hosts::up(other_tag, "red", {"10.9.1.2/24"_cidr});
    const auto server = kumiki_test::serve(hosts.far, SOCK_STREAM, "10.9.0.2"_ip, 80);
    CHECK(kumiki_test::reaches(hosts.near, SOCK_STREAM, "10.9.0.2"_ip, 80, server));
    const auto other = kumiki_test::serve(elsewhere, SOCK_DGRAM, "10.9.1.2"_ip, 80);
    CHECK(!kumiki_test::reaches(hosts.near, SOCK_DGRAM, "10.9.1.2"_ip, 80, other, 500));
    netlink_batch taken;
    create_vlan(taken, {.name = "again", .parent = hosts.parent, .id = 100});
    CHECK(refusal_of(hosts.here, taken) == EEXIST);
}

TEST_CASE("A dummy holds addresses, and is up without a wire [vm]", "[vm]") {
    NEEDS_NETNS_AND("ip");
    if (::access("/proc/net/if_inet6", F_OK) != 0) KUMIKI_SKIP("this kernel has no IPv6");
    const private_netns ns;
    const private_netns inside;
    auto socket = netlink_socket::open_in(ns.fd(), NETLINK_ROUTE);
    if (!can_make(socket, "dummy", [&](netlink_batch& batch) {
            create_dummy(batch, {.name = "d0", .netns = inside.fd()});
        }))
        KUMIKI_SKIP("this kernel has no dummy");
    auto in = netlink_socket::open_in(inside.fd(), NETLINK_ROUTE);
    CHECK(says(witness(inside, "ip -d link show dev d0"), "dummy"));
    two_hosts::up(in, "lo");
    two_hosts::up(in, "d0", {"192.0.2.1/32"_cidr});
    const auto server = kumiki_test::serve(inside, SOCK_STREAM, "192.0.2.1"_ip, 80);
    CHECK(kumiki_test::reaches(inside, SOCK_STREAM, "192.0.2.1"_ip, 80, server));
}

TEST_CASE("An ifb is made where the kernel has the kind") {
    NEEDS_NETNS_AND("ip");
    const private_netns ns;
    auto socket = netlink_socket::open_in(ns.fd(), NETLINK_ROUTE);
    if (!can_make(socket, "ifb", [](netlink_batch& batch) { create_ifb(batch, {.name = "ifb7"}); }))
        KUMIKI_SKIP("this kernel has no ifb");
    CHECK(says(witness(ns, "ip -d link show dev ifb7"), "ifb"));
    CHECK(find_link(socket, "ifb7")->kind == "ifb");
}

TEST_CASE("A kind that the kernel does not know is named with its module") {
    NEEDS_NETNS_AND("ip");
    const private_netns ns;
    auto socket = netlink_socket::open_in(ns.fd(), NETLINK_ROUTE);
    netlink_batch batch;
    detail::put_new_link(batch, dummy_link{.name = "x0"}, 0, "create nonsense", "kumiki-none",
                         "kumiki_none", [] {});
    try {
        socket.transact(batch);
        FAIL("it was taken");
    } catch (const error& refused) {
        INFO(refused.what());
        CHECK(refused.errno_value() == EOPNOTSUPP);
        CHECK(refused.object() == "x0");
        CHECK(says(refused.what(), "kernel's module kumiki_none"));
    }
}

TEST_CASE("What cannot be a vlan or vxlan is refused before the kernel is asked") {
    netlink_batch batch;
    for (const std::uint16_t id : {std::uint16_t{0}, std::uint16_t{4095}})
        CHECK_THROWS_AS(create_vlan(batch, {.name = "v", .parent = 2, .id = id}), invalid_input);
    CHECK_THROWS_AS(create_vxlan(batch, {.name = "v", .id = 1U << 24}), invalid_input);
    CHECK_THROWS_AS(
        create_vxlan(batch, {.name = "v", .remote = "10.0.0.1"_ip, .local = "fd00::1"_ip}),
        invalid_input);
    CHECK_THROWS_AS(create_dummy(batch, {.name = "a name of 16 b."}), invalid_input);
}

TEST_CASE("A macvlan on a parent that is not there is refused") {
    NEEDS_NETNS_AND("ip");
    const private_netns ns;
    auto socket = netlink_socket::open_in(ns.fd(), NETLINK_ROUTE);
    netlink_batch batch;
    create_macvlan(batch, {.name = "m0", .parent = 4711});
    const int code = refusal_of(socket, batch);
    CHECK((code == ENODEV || code == EOPNOTSUPP));
    CHECK(!find_link(socket, "m0"));
}
