#include <sys/wait.h>

#include <set>

#include <kumiki/network/endpoint.hpp>
#include <kumiki/network/existing_bridge.hpp>

#include "support/catch.hpp"
#include "support/failure.hpp"
#include "support/netns.hpp"
#include "support/scratch.hpp"
#include "support/witness.hpp"

using namespace kumiki;
using namespace kumiki::literals;
using kumiki_test::message_of;
using kumiki_test::private_netns;
using kumiki_test::says;
using kumiki_test::witness;

namespace {

// A host with a bridge of its user's, br0, on which a neighbour is, and a far host behind up0.
struct users_host {
    kumiki_test::scratch place;
    private_netns ns;
    private_netns neighbour;
    private_netns far;
    netlink_socket socket = netlink_socket::open_in(ns.fd(), NETLINK_ROUTE);

    users_host() {
        netlink_batch batch;
        set_link(batch, "lo", {.up = true});
        create_bridge(batch, {.name = "br0", .mac = mac_address::parse("02:00:00:00:00:01")});
        create_veth(batch, {.name = "port0", .peer_name = "eth0", .peer_netns = neighbour.fd()});
        create_veth(batch, {.name = "up0", .peer_name = "eth0", .peer_netns = far.fd()});
        socket.transact(batch);
        netlink_batch port;
        set_link(port, "port0", {.master = index("br0")});
        set_link(port, "port0", {.up = true, .no_link_local = true});
        socket.transact(port);
        up(socket, "br0", {"192.0.2.1/24"_cidr, "2001:db8::1/64"_cidr, "fe80::1/64"_cidr});
        up(socket, "up0", {"198.51.100.1/24"_cidr});
        for (const auto& [other, own, way] :
             {std::tuple(&neighbour, "192.0.2.9/24"_cidr, "192.0.2.1"_ip),
              std::tuple(&far, "198.51.100.9/24"_cidr, "198.51.100.1"_ip)}) {
            auto there = netlink_socket::open_in(other->fd(), NETLINK_ROUTE);
            up(there, "eth0", {own});
            netlink_batch out;
            add_route(out, default_route(way));
            there.transact(out);
        }
        for (int tries = 0; tries < 100 && says(witness(ns, "ip link show"), "state DOWN"); ++tries)
            ::usleep(20000);
        ns.run([] { sys::write_file_at(AT_FDCWD, "/proc/sys/net/ipv4/ip_forward", "0"); });
    }
    int index(const std::string& name) { return find_link(socket, name).value().index; }
    static void up(netlink_socket& in, const std::string& name, const std::vector<cidr>& own) {
        netlink_batch batch;
        set_link(batch, name, {.no_link_local = true});
        set_link(batch, name, {.up = true});
        for (const cidr& each : own) add_address(batch, find_link(in, name)->index, each);
        in.transact(batch);
    }
    bridge_options options() const {
        return {.name = "web",
                .subnet = "10.88.0.0/24"_cidr,
                .subnet6 = "fd00:88::/64"_cidr,
                .existing_bridge = "br0",
                .state_directory = place.path()};
    }
    bridge_network open(const bridge_options& wanted) const {
        return ns.run([&] { return bridge_network::open(wanted); });
    }
    // All that the network could have changed, as others see it.
    std::string state() const {
        return witness(
            ns,
            "ip -d -o link | sed 's/.*gc_timer.*designated_bridge/designated/; "
            "s/ gc_timer *[0-9.]*//; s/ [a-z_]*_timer *[0-9.]*//g; s/ state [A-Z]*//'; ip -o addr; "
            "ip route show table all; ip -6 route show table all; "
            "cd /proc/sys/net; grep -r . ipv4/conf/br0 ipv6/conf/br0 ipv4/conf/up0 "
            "ipv6/conf/all/forwarding | sort; nft list tables");
    }
    std::string seen(const private_netns& from, const private_netns& at, ip_address service,
                     ip_address to, std::uint16_t port, std::uint16_t inner, int wait) const {
        const auto server = kumiki_test::serve(at, SOCK_STREAM, service, inner);
        const auto who = kumiki_test::reaches(from, SOCK_STREAM, to, port, server, wait);
        return who ? to_string(who->address) : "nothing";
    }
};

// The lines that are in one of the two texts alone; nothing when they are the same.
std::string difference(const std::string& before, const std::string& after) {
    std::multiset<std::string> lines;
    for (const auto line : split(before, '\n')) lines.emplace(line);
    std::string text;
    for (const auto each : split(after, '\n')) {
        const std::string line(each);
        if (const auto found = lines.find(line); found != lines.end())
            lines.erase(found);
        else
            text += "+ " + line + "\n";
    }
    for (const std::string& line : lines) text += "- " + line + "\n";
    return text;
}

}  // namespace

TEST_CASE("A network on the user's bridge leaves what is the user's as it was, also at the end") {
    NEEDS_NETNS_AND("ip");
    users_host host;
    const std::string before = host.state();
    const private_netns inside;
    {
        const auto net = host.open(host.options());
        CHECK(net.bridge().name == "br0");
        CHECK(!find_link(host.socket, "km-web"));
        const auto link =
            host.ns.run([&] { return reserve(net.attach({.publish = {tcp(8080, 80)}}), "box"); })
                .connect(inside.fd());
        const auto box = "10.88.0.2"_ip;
        const auto br0 = "192.0.2.1"_ip;
        // Published: from the neighbour, from far, from the host.
        CHECK(host.seen(host.neighbour, inside, box, br0, 8080, 80, 3000) == "192.0.2.9");
        CHECK(host.seen(host.far, inside, box, "198.51.100.1"_ip, 8080, 80, 3000) ==
              "198.51.100.9");
        CHECK(host.seen(host.ns, inside, box, "127.0.0.1"_ip, 8080, 80, 3000) == "10.88.0.1");
        // The neighbour reaches the host as before, and no container around the published port.
        CHECK(host.seen(host.neighbour, host.ns, br0, br0, 22, 22, 3000) == "192.0.2.9");
        CHECK(host.seen(inside, host.ns, br0, br0, 22, 22, 300) == "nothing");
        CHECK(host.seen(host.neighbour, inside, box, box, 81, 81, 300) == "nothing");
        // The container's way out, to the bridge's others and beyond, has the host's address.
        CHECK(host.seen(inside, host.neighbour, "192.0.2.9"_ip, "192.0.2.9"_ip, 80, 80, 3000) ==
              "192.0.2.1");
        CHECK(host.seen(inside, host.far, "198.51.100.9"_ip, "198.51.100.9"_ip, 80, 80, 3000) ==
              "198.51.100.1");
        // The host was no router for its neighbours, and is none.
        CHECK(host.seen(host.neighbour, host.far, "198.51.100.9"_ip, "198.51.100.9"_ip, 80, 80,
                        300) == "nothing");
        CHECK(host.seen(host.far, host.neighbour, "192.0.2.9"_ip, "192.0.2.9"_ip, 80, 80, 300) ==
              "nothing");
    }
    CHECK(difference(before, host.state()) == "");
}

TEST_CASE("A container sends through the user's bridge from its own addresses alone") {
    NEEDS_NETNS_AND("ip");
    users_host host;
    const private_netns inside;
    const auto net = host.open(host.options());
    const auto link =
        host.ns.run([&] { return reserve(net.attach(), "box"); }).connect(inside.fd());
    users_host::up(host.socket, "lo", {});
    auto in = netlink_socket::open_in(inside.fd(), NETLINK_ROUTE);
    netlink_batch steal;
    add_address(steal, find_link(in, "eth0")->index, "192.0.2.200/24"_cidr);
    in.transact(steal);
    CHECK(host.seen(inside, host.neighbour, "192.0.2.9"_ip, "192.0.2.9"_ip, 80, 80, 500) ==
          "nothing");
}

TEST_CASE("A killed process's changes of the user's bridge are changed back by the next to open") {
    NEEDS_NETNS_AND("ip");
    const bool is_damaged = GENERATE(false, true);
    users_host host;
    const std::string before = host.state();
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
    ::kill(child, SIGKILL);
    REQUIRE(::waitpid(child, nullptr, 0) == child);
    CHECK(says(witness(host.ns, "ip addr show dev br0"), "10.88.0.1/24"));
    if (is_damaged) {  // what cannot be read of the record keeps nobody from the rest of it
        const std::string network =
            host.place.path() + "/net-" + std::to_string(host.socket.netns_cookie()) + "/web";
        const unique_fd record = sys::open_at(AT_FDCWD, network + "/bridge", O_WRONLY | O_APPEND);
        REQUIRE(::write(record.get(), "address 10.88\nset\n", 18) == 18);
    }
    (void)host.open(host.options());
    CHECK(difference(before, host.state()) == "");
    ::close(ready[0]);
}

TEST_CASE("A neighbour on the user's bridge does not pass for a container") {
    NEEDS_NETNS_AND("ip");
    users_host host;
    const private_netns inside;
    const auto net = host.open(host.options());
    const auto link =
        host.ns.run([&] { return reserve(net.attach(), "box"); }).connect(inside.fd());
    const auto box = link.addresses().at(0);
    CHECK(host.seen(inside, host.far, "198.51.100.9"_ip, "198.51.100.9"_ip, 80, 80, 3000) ==
          "198.51.100.1");
    auto there = netlink_socket::open_in(host.neighbour.fd(), NETLINK_ROUTE);
    users_host::up(there, "eth0", {{.address = box, .prefix = 32}});
    const auto server = kumiki_test::serve(host.far, SOCK_DGRAM, "198.51.100.9"_ip, 7);
    const auto forged = kumiki_test::serve(host.neighbour, SOCK_DGRAM, box, 7);
    const auto [to, size] = kumiki_test::endpoint_address("198.51.100.9"_ip, 7).to_kernel();
    for (int i = 0; i < 3; ++i)
        (void)::sendto(forged.get(), "ping", 4, 0, reinterpret_cast<const sockaddr*>(&to), size);
    CHECK(!kumiki_test::wait_for(server.get(), POLLIN, 500));
}

TEST_CASE("A bridge without ports gives its own network, one with others must have a second") {
    NEEDS_NETNS_AND("ip");
    users_host host;
    auto wanted = host.options();
    wanted.subnet = {};
    {
        const auto net = host.open(wanted);
        CHECK(!net.subnet().overlaps("192.0.2.0/24"_cidr));
    }
    netlink_batch batch;
    create_bridge(batch, {.name = "br1"});
    host.socket.transact(batch);
    users_host::up(host.socket, "br1", {"10.77.0.1/24"_cidr});
    wanted.existing_bridge = "br1";
    const auto net = host.open(wanted);
    CHECK(net.subnet() == "10.77.0.0/24"_cidr);
    CHECK(net.gateway() == "10.77.0.1"_ip);
    const private_netns inside;
    const auto link =
        host.ns.run([&] { return reserve(net.attach(), "box"); }).connect(inside.fd());
    CHECK(host.seen(inside, host.far, "198.51.100.9"_ip, "198.51.100.9"_ip, 80, 80, 3000) ==
          "198.51.100.1");
}

TEST_CASE("A bridge is one network's at a time, and the holder is named") {
    NEEDS_NETNS_AND("ip");
    users_host host;
    auto second = host.options();
    second.name = "db";
    second.subnet = "10.99.0.0/24"_cidr;
    second.subnet6.reset();
    {
        const auto net = host.open(host.options());
        const auto same = host.open(host.options());  // the same one may be opened again
        CHECK(says(message_of([&] { host.open(second); }), "The network web has it"));
        CHECK(says(witness(host.ns, "ip addr show dev br0"), "10.88.0.1/24"));
    }
    CHECK(host.open(second).gateway() == "10.99.0.1"_ip);
}

TEST_CASE("A bridge on which IPv6 is off is a network's of IPv4 alone") {
    NEEDS_NETNS_AND("ip");
    users_host host;
    host.ns.run([] {
        sys::write_file_at(AT_FDCWD, "/proc/sys/net/ipv6/conf/br0/disable_ipv6", "1");
        return 0;
    });
    const std::string before = host.state();
    const std::string refused = message_of([&] { host.open(host.options()); });
    INFO(refused);
    CHECK(says(refused, "IPv6 is switched off for br0"));
    CHECK(says(refused, "leave out the network's subnet6"));
    CHECK(difference(before, host.state()) == "");
    auto options = host.options();
    options.subnet6.reset();
    CHECK_NOTHROW(host.open(options));
    CHECK(difference(before, host.state()) == "");
}

TEST_CASE("What cannot be a network's bridge is refused, with nothing changed") {
    NEEDS_NETNS_AND("ip");
    users_host host;
    netlink_batch batch;
    create_bridge(batch, {.name = "br1"});
    host.socket.transact(batch);
    const std::string before = host.state();
    auto wanted = host.options();
    const auto refusal = [&] { return message_of([&] { host.open(wanted); }); };
    wanted.existing_bridge = "br9";
    CHECK(says(refusal(), "There is no interface of this name"));
    wanted.existing_bridge = "up0";
    CHECK(says(refusal(), "It is a veth, not a bridge"));
    wanted.existing_bridge = "br1";
    CHECK(says(refusal(), "It is down"));
    wanted.existing_bridge = "br0";
    for (const auto& taken : {"192.0.0.0/16"_cidr, "192.0.2.0/24"_cidr}) {
        wanted.subnet = taken;
        CHECK(says(refusal(), "192.0.2.0/24 on br0"));
    }
    wanted.subnet = "198.51.100.0/24"_cidr;
    CHECK(says(refusal(), "on up0"));
    CHECK(difference(before, host.state()) == "");
    CHECK(kumiki_test::names_in(host.place.path()).empty());
}
