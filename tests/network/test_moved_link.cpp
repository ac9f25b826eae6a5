#include <kumiki/netlink/link_kinds.hpp>
#include <kumiki/network/endpoint.hpp>
#include <kumiki/network/moved_link.hpp>

#include "support/catch.hpp"
#include "support/failure.hpp"
#include "support/netns.hpp"
#include "support/scratch.hpp"
#include "support/witness.hpp"

using namespace kumiki;
using namespace kumiki::literals;
using kumiki_test::errno_of;
using kumiki_test::private_netns;
using kumiki_test::says;
using kumiki_test::witness;

namespace {

// A host whose card0 is one end of a cable to a far host.
struct host_with_card {
    private_netns ns;
    private_netns far;
    netlink_socket socket = netlink_socket::open_in(ns.fd(), NETLINK_ROUTE);

    host_with_card() {
        netlink_batch batch;
        set_link(batch, "lo", {.up = true});
        create_veth(batch, {.name = "card0",
                            .peer_name = "eth0",
                            .peer_netns = far.fd(),
                            .mac = mac_address::parse("02:00:00:00:00:42"),
                            .mtu = 1400});
        socket.transact(batch);
        netlink_batch setup;
        const int card = find_link(socket, "card0")->index;
        set_link(setup, card, {.no_link_local = true});
        set_link(setup, card, {.up = true});
        add_address(setup, card, "192.0.2.1/24"_cidr);
        add_address(setup, card, "2001:db8::1/64"_cidr);
        add_route(setup, default_route("192.0.2.254"_ip, card));
        add_route(setup, {.destination = "203.0.113.0/24"_cidr,
                          .gateway = "192.0.2.253"_ip,
                          .link = card,
                          .metric = 7});
        socket.transact(setup);
        auto there = netlink_socket::open_in(far.fd(), NETLINK_ROUTE);
        netlink_batch other;
        set_link(other, "eth0", {.up = true, .no_link_local = true});
        add_address(other, find_link(there, "eth0")->index, "192.0.2.9/24"_cidr);
        there.transact(other);
        for (int tries = 0; tries < 100 && says(state(), "state DOWN"); ++tries) ::usleep(20000);
    }
    std::string state() const {
        return witness(
            ns,
            "ip -o link show dev card0 | sed 's/^[0-9]*: //'; ip -o addr show dev "
            "card0 | sed 's/^[0-9]*: //'; ip route show dev card0; ip -6 route show dev card0");
    }
    moved_link move(const private_netns& to, const std::string& name,
                    moved_options options = {}) const {
        return ns.run([&] { return moved_link::move(to.fd(), name, std::move(options)); });
    }
};

}  // namespace

TEST_CASE("A moved interface is the container's, and comes home as it was") {
    NEEDS_NETNS_AND("ip");
    host_with_card host;
    const std::string before = host.state();
    const private_netns inside;
    {
        const auto card = host.move(inside, "card0",
                                    {.name = "eth0",
                                     .addresses = {"192.0.2.77/24"_cidr},
                                     .gateway = "192.0.2.254"_ip,
                                     .mtu = 1300});
        CHECK(card.name() == "eth0");
        CHECK(!find_link(host.socket, "card0"));
        const auto seen = witness(inside, "ip addr show dev eth0; ip route");
        INFO(seen);
        CHECK(says(seen, "02:00:00:00:00:42"));
        CHECK(says(seen, "mtu 1300"));
        CHECK(says(seen, "inet 192.0.2.77/24"));
        CHECK(says(seen, "default via 192.0.2.254"));
        const auto server = kumiki_test::serve(inside, SOCK_STREAM, "192.0.2.77"_ip, 80);
        CHECK(kumiki_test::reaches(host.far, SOCK_STREAM, "192.0.2.77"_ip, 80, server));
    }
    for (int tries = 0; tries < 100 && says(host.state(), "state DOWN"); ++tries) ::usleep(20000);
    CHECK(host.state() == before);
    CHECK(says(before, "203.0.113.0/24 via 192.0.2.253"));
}

TEST_CASE("A virtual interface outlives the end of the container that it is in") {
    NEEDS_NETNS_AND("ip");
    host_with_card host;
    std::optional<private_netns> inside(std::in_place);
    auto card = host.move(*inside, "card0");
    inside.reset();  // nobody else has the namespace now
    card.bring_back();
    REQUIRE(find_link(host.socket, "card0"));
    CHECK(find_link(host.socket, "card0")->is_up);
    card.bring_back();
    CHECK(find_link(host.socket, "card0"));
}

TEST_CASE("A port of a bridge comes back to its bridge") {
    NEEDS_NETNS_AND("ip");
    host_with_card host;
    netlink_batch batch;
    create_bridge(batch, {.name = "br0"});
    host.socket.transact(batch);
    netlink_batch port;
    const int br0 = find_link(host.socket, "br0")->index;
    set_link(port, "card0", {.master = br0});
    host.socket.transact(port);
    const private_netns inside;
    {
        const auto card = host.move(inside, "card0");
        CHECK(!says(witness(inside, "ip link show dev card0"), "master"));
    }
    CHECK(find_link(host.socket, "card0")->master == br0);
}

TEST_CASE("What cannot be moved is refused, and is at home as it was") {
    NEEDS_NETNS_AND("ip");
    host_with_card host;
    const std::string before = host.state();
    const private_netns inside;
    auto in = netlink_socket::open_in(inside.fd(), NETLINK_ROUTE);
    CHECK(errno_of([&] { host.move(inside, "nothing0"); }) == ENODEV);
    CHECK(errno_of([&] { host.move(inside, "lo"); }) == EINVAL);
    netlink_batch taken;
    create_veth(taken, {.name = "card0", .peer_name = "other"});
    in.transact(taken);
    CHECK(errno_of([&] { host.move(inside, "card0"); }) == EEXIST);
    // A gateway that cannot be reached: it was inside already.
    CHECK(errno_of([&] {
              host.move(inside, "card0", {.name = "eth7", .gateway = "198.51.100.1"_ip});
          }) == ENETUNREACH);
    CHECK(!find_link(in, "eth7"));
    for (int tries = 0; tries < 100 && says(host.state(), "state DOWN"); ++tries) ::usleep(20000);
    CHECK(host.state() == before);
}

TEST_CASE("An interface that was deleted in the container is not missed") {
    NEEDS_NETNS_AND("ip");
    host_with_card host;
    const private_netns inside;
    auto card = host.move(inside, "card0");
    auto in = netlink_socket::open_in(inside.fd(), NETLINK_ROUTE);
    netlink_batch gone;
    delete_link(gone, "card0");
    in.transact(gone);
    card.bring_back();
    CHECK(!find_link(host.socket, "card0"));
}

TEST_CASE("A container in a network has the host's devices beside its own until it disconnects") {
    NEEDS_NETNS_AND("ip");
    host_with_card host;
    const kumiki_test::scratch place;
    const private_netns inside;
    const auto net = host.ns.run([&] {
        return bridge_network::open(
            {.name = "web", .subnet = "10.88.0.0/24"_cidr, .state_directory = place.path()});
    });
    const auto connect = [&](std::vector<moved_device> devices) {
        return host.ns.run([&] { return reserve(net.attach({.devices = devices}), "box"); })
            .connect(inside.fd());
    };
    const moved_device card{.link = "card0",
                            .inside = {.name = "lan0", .addresses = {"192.0.2.77/24"_cidr}}};
    // One that is not there: the first is at home again, and the container was never connected.
    CHECK(errno_of([&] { connect({card, {.link = "nothing0"}}); }) == ENODEV);
    CHECK(find_link(host.socket, "card0"));
    for (const auto& each : list_links(host.socket)) CHECK(!each.alias.starts_with("kumiki:web:"));
    for (const bool soon : {false, true}) {
        auto link = connect({card});
        CHECK(!find_link(host.socket, "card0"));
        CHECK(says(witness(inside, "ip addr show dev lan0"), "inet 192.0.2.77/24"));
        CHECK(says(witness(inside, "ip link show dev eth0"), "UP"));
        if (soon)
            link.disconnect_soon();
        else
            link.disconnect();
        CHECK(find_link(host.socket, "card0"));
    }
}
