#include <sys/wait.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <optional>
#include <string>
#include <thread>

#include <kumiki/network/endpoint.hpp>

#include "network/town.hpp"
#include "support/catch.hpp"
#include "support/failure.hpp"
#include "support/netns.hpp"
#include "support/scratch.hpp"
#include "support/witness.hpp"

using namespace kumiki;
using namespace kumiki::literals;
using kumiki_test::errno_of;
using kumiki_test::private_netns;

namespace {

struct endpoint_host {
    kumiki_test::scratch place;
    private_netns ns;
    netlink_socket socket = netlink_socket::open_in(ns.fd(), NETLINK_ROUTE);
    std::optional<bridge_network> net;

    explicit endpoint_host(cidr subnet = "10.88.0.0/24"_cidr,
                           std::optional<cidr> subnet6 = "fd00:88::/64"_cidr) {
        bring_loopback_up(ns.fd());
        net = ns.run([&] {
            return bridge_network::open({.name = "web",
                                         .subnet = subnet,
                                         .subnet6 = subnet6,
                                         .state_directory = place.path()});
        });
    }
    endpoint_reservation hold(const std::string& name, attach_options options = {}) const {
        return ns.run([&] { return reserve(net->attach(std::move(options)), name); });
    }
    endpoint connect(const private_netns& inside, const std::string& name,
                     attach_options options = {}) const {
        return hold(name, std::move(options)).connect(inside.fd());
    }
    // The host's ends of veth pairs.
    std::vector<std::string> ports() {
        std::vector<std::string> names;
        for (const auto& link : list_links(socket))
            if (link.kind == "veth") names.push_back(link.name);
        return names;
    }
};

std::vector<std::string> routes_of(const private_netns& ns) {
    auto socket = netlink_socket::open_in(ns.fd(), NETLINK_ROUTE);
    std::vector<std::string> texts;
    for (const auto& route : list_routes(socket)) texts.push_back(to_string(route));
    std::sort(texts.begin(), texts.end());
    return texts;
}

}  // namespace

TEST_CASE("A connected container has its interface, addresses and routes, and its loopback") {
    NEEDS_NETNS;
    endpoint_host host;
    const private_netns inside;
    const auto link = host.connect(inside, "box");
    CHECK(link.addresses() == std::vector<ip_address>{"10.88.0.2"_ip, "fd00:88::2"_ip});

    auto socket = netlink_socket::open_in(inside.fd(), NETLINK_ROUTE);
    const auto eth0 = find_link(socket, "eth0");
    REQUIRE(eth0);
    CHECK(eth0->is_up);
    CHECK(eth0->mtu == 1500);
    CHECK(!eth0->forwards_ipv4);
    CHECK(to_string(eth0->mac.value()) == "02:00:0a:58:00:02");
    CHECK(find_link(socket, "lo")->is_up);
    std::vector<std::string> addresses;
    for (const auto& a : list_addresses(socket, eth0->index)) {
        CHECK(!a.is_tentative());
        addresses.push_back(to_string(a.address));
    }
    std::sort(addresses.begin(), addresses.end());
    CHECK(addresses ==
          std::vector<std::string>{"10.88.0.2/24", "fd00:88::2/64", "fe80::aff:fe58:2/64"});
    CHECK(routes_of(inside) == std::vector<std::string>{"10.88.0.1/32", "default via 10.88.0.1",
                                                        "default via fd00:88::1", "fd00:88::1/128",
                                                        "fe80::/64"});
    const auto out = find_link(host.socket, link.host_link());
    REQUIRE(out);
    CHECK(out->is_up);
    CHECK(out->peer == eth0->index);
    CHECK(out->master == host.net->bridge().index);
    CHECK(out->alias == "kumiki:web:box");
    CHECK(list_addresses(host.socket, out->index).empty());  // no link-local address on a port
}

TEST_CASE("Packets pass between host and container in both families at once") {
    NEEDS_NETNS;
    endpoint_host host;
    const private_netns inside;
    const auto link = host.connect(inside, "box");
    for (const auto& address : link.addresses()) {
        CAPTURE(to_string(address));
        for (const int type : {SOCK_STREAM, SOCK_DGRAM}) {
            const auto server = kumiki_test::serve(inside, type, address, 80);
            const auto seen = kumiki_test::reaches(host.ns, type, address, 80, server);
            REQUIRE(seen);
            CHECK(seen->address == (address.is_v4() ? "10.88.0.1"_ip : "fd00:88::1"_ip));
        }
    }
}

TEST_CASE("What was asked for is given: addresses, Ethernet address, name of the interface") {
    NEEDS_NETNS;
    endpoint_host host;
    const private_netns inside;
    const auto link = host.connect(inside, "box",
                                   {.address = "10.88.0.77"_ip,
                                    .address6 = "fd00:88::abcd"_ip,
                                    .mac = mac_address::parse("02:11:22:33:44:55"),
                                    .interface = "net7"});
    CHECK(link.addresses() == std::vector<ip_address>{"10.88.0.77"_ip, "fd00:88::abcd"_ip});
    auto socket = netlink_socket::open_in(inside.fd(), NETLINK_ROUTE);
    const auto net7 = find_link(socket, "net7");
    REQUIRE(net7);
    CHECK(to_string(net7->mac.value()) == "02:11:22:33:44:55");
    CHECK(errno_of([&] { host.hold("other", {.address = "10.88.0.77"_ip}); }) == EADDRINUSE);
}

TEST_CASE("A network without IPv6 gives a container none") {
    NEEDS_NETNS;
    endpoint_host host("10.88.0.0/24"_cidr, std::nullopt);
    const private_netns inside;
    const auto link = host.connect(inside, "box");
    CHECK(link.addresses() == std::vector<ip_address>{"10.88.0.2"_ip});
    auto socket = netlink_socket::open_in(inside.fd(), NETLINK_ROUTE);
    for (const auto& a : list_addresses(socket, find_link(socket, "eth0")->index))
        CHECK(a.address.address.is_v4());
    const auto server = kumiki_test::serve(inside, SOCK_STREAM, "10.88.0.2"_ip, 80);
    CHECK(kumiki_test::reaches(host.ns, SOCK_STREAM, "10.88.0.2"_ip, 80, server));
}

TEST_CASE("A namespace in which IPv6 is switched off is told with its remedy, and that helps") {
    NEEDS_NETNS;
    endpoint_host host;
    const private_netns inside;
    inside.run([] {
        for (const char* which : {"all", "default"})
            sys::write_file_at(
                AT_FDCWD, "/proc/sys/net/ipv6/conf/" + std::string(which) + "/disable_ipv6", "1");
        return 0;
    });
    try {
        (void)host.connect(inside, "box");
        FAIL("it was connected");
    } catch (const unsupported& refused) {
        CHECK(refused.remedy().find("IPv6 is switched off") != std::string::npos);
        CHECK(refused.remedy().find("disable_ipv6") != std::string::npos);
    }
    CHECK(host.ports().empty());
    const auto link =
        host.connect(inside, "box", {.settings = {{ip_family::v6, "disable_ipv6", "0"}}});
    REQUIRE(link.addresses().size() == 2);
    for (const ip_address& each : link.addresses()) {
        const auto server = kumiki_test::serve(inside, SOCK_STREAM, each, 80);
        CHECK(kumiki_test::reaches(host.ns, SOCK_STREAM, each, 80, server));
    }
}

TEST_CASE("A published port answers from outside and from the host, and denied ones get nothing") {
    NEEDS_NETNS;
    const private_netns outside;
    endpoint_host host;
    {
        auto near = netlink_socket::open_in(host.ns.fd(), NETLINK_ROUTE);
        auto far = netlink_socket::open_in(outside.fd(), NETLINK_ROUTE);
        netlink_batch pair;
        create_veth(pair, {.name = "up0", .peer_name = "eth0", .peer_netns = outside.fd()});
        near.transact(pair);
        const auto give = [](netlink_socket& socket, const char* name, cidr four, cidr six) {
            const auto link = find_link(socket, name).value();
            netlink_batch batch;
            set_link(batch, link.index, {.no_link_local = true});
            set_link(batch, link.index, {.up = true});
            add_address(batch, link.index, four);
            add_address(batch, link.index, six);
            add_address(batch, link.index, link.mac.value().link_local());
            socket.transact(batch);
        };
        give(near, "up0", "192.0.2.1/24"_cidr, "2001:db8::1/64"_cidr);
        give(far, "eth0", "192.0.2.9/24"_cidr, "2001:db8::9/64"_cidr);
        // Opened again with the uplink there: its forwarding is switched on now.
        host.net.reset();
        host.net = host.ns.run([&] {
            return bridge_network::open({.name = "web",
                                         .subnet = "10.88.0.0/24"_cidr,
                                         .subnet6 = "fd00:88::/64"_cidr,
                                         .state_directory = host.place.path()});
        });
    }
    const private_netns inside;
    const auto link = host.connect(inside, "box",
                                   {.publish = {tcp(8080, 80), udp(8080, 80), tcp(8081, 81)},
                                    .ingress = allow_all().deny("192.0.2.0/24"_cidr, tcp(81))});
    const auto passes = [&](const private_netns& from, int type, ip_address to, std::uint16_t port,
                            ip_address service, std::uint16_t inner, int wait) {
        const auto server = kumiki_test::serve(inside, type, service, inner);
        const auto seen = kumiki_test::reaches(from, type, to, port, server, wait);
        return seen ? to_string(seen->address) : std::string("nothing");
    };
    const auto box4 = "10.88.0.2"_ip;
    const auto box6 = "fd00:88::2"_ip;
    for (const int type : {SOCK_STREAM, SOCK_DGRAM}) {
        CAPTURE(type);
        CHECK(passes(outside, type, "192.0.2.1"_ip, 8080, box4, 80, 3000) == "192.0.2.9");
        CHECK(passes(outside, type, "2001:db8::1"_ip, 8080, box6, 80, 3000) == "2001:db8::9");
        CHECK(passes(host.ns, type, "127.0.0.1"_ip, 8080, box4, 80, 3000) != "nothing");
        CHECK(passes(host.ns, type, "192.0.2.1"_ip, 8080, box4, 80, 3000) != "nothing");
    }
    CHECK(passes(outside, SOCK_STREAM, "192.0.2.1"_ip, 8081, box4, 81, 300) == "nothing");
    CHECK(passes(outside, SOCK_STREAM, "192.0.2.1"_ip, 8082, box4, 80, 300) == "nothing");
}

TEST_CASE("A container does not reach its sibling, and both keep reaching the gateway") {
    NEEDS_NETNS;
    endpoint_host host;
    const private_netns one;
    const private_netns two;
    const auto first = host.connect(one, "one");
    const auto second = host.connect(two, "two", {.publish = {tcp(8080, 80)}});
    for (const auto& address : second.addresses()) {
        CAPTURE(to_string(address));
        const auto server = kumiki_test::serve(two, SOCK_STREAM, address, 81);
        CHECK(!kumiki_test::reaches(one, SOCK_STREAM, address, 81, server, 300));
    }
    // By the published port it does (hairpin), more than once: no redirect leads it astray.
    for (int i = 0; i < 3; ++i) {
        const auto server = kumiki_test::serve(two, SOCK_STREAM, "10.88.0.3"_ip, 80);
        CHECK(kumiki_test::reaches(one, SOCK_STREAM, "10.88.0.1"_ip, 8080, server));
    }
}

TEST_CASE("Disconnecting leaves neither interface, and frees address and port at once") {
    NEEDS_NETNS;
    endpoint_host host("10.88.0.0/30"_cidr, std::nullopt);  // one address to give
    const private_netns inside;
    for (int round = 0; round < 20; ++round) {
        auto link = host.connect(inside, "box", {.publish = {tcp(8080, 80)}});
        CHECK(link.published().at(0).host == port_range{8080, 8080});
        CHECK(errno_of([&] { host.hold("second"); }) == EADDRNOTAVAIL);
        if (round % 2 == 0) {
            link.disconnect();
            link.disconnect();
        }
    }
    CHECK(host.ports().empty());
    auto socket = netlink_socket::open_in(inside.fd(), NETLINK_ROUTE);
    CHECK(!find_link(socket, "eth0"));
}

TEST_CASE("Disconnecting ends the flows to the container, at once or soon") {
    NEEDS_NETNS;
    endpoint_host host;
    const private_netns inside;
    auto netfilter = netlink_socket::open_in(host.ns.fd(), NETLINK_NETFILTER);
    const bool soon = GENERATE(false, true);
    auto link = host.connect(inside, "box", {.publish = {udp(8080, 80)}});
    const auto server = kumiki_test::serve(inside, SOCK_DGRAM, link.addresses().front(), 80);
    REQUIRE(kumiki_test::reaches(host.ns, SOCK_DGRAM, "127.0.0.1"_ip, 8080, server));
    REQUIRE(list_flows(netfilter, {.reply_source = link.addresses().front()}).size() == 1);
    if (soon) {
        link.disconnect_soon();
        host.net->attach().network->remover->drain();
    } else {
        link.disconnect();
    }
    CHECK(list_flows(netfilter, {}).empty());
}

TEST_CASE("A container whose namespace went first is disconnected without complaint") {
    NEEDS_NETNS;
    struct counting : observer {
        int failures = 0;
        observer* before = set_observer(this);
        void release_failed(const error&) noexcept override { ++failures; }
        ~counting() override { set_observer(before); }
    } told;
    endpoint_host host("10.88.0.0/30"_cidr, std::nullopt);
    for (int round = 0; round < 20; ++round) {
        std::optional<private_netns> inside(std::in_place);
        const auto link = host.connect(*inside, "box");
        inside.reset();  // the kernel takes the pair away, now or later
    }
    CHECK(host.ports().empty());
    CHECK(told.failures == 0);
}

TEST_CASE("A failure at any point of connecting leaves nothing") {
    NEEDS_NETNS;
    endpoint_host host;
    const private_netns inside;
    auto socket = netlink_socket::open_in(inside.fd(), NETLINK_ROUTE);
    netlink_batch batch;
    attach_options options{.publish = {tcp(8080, 80)}};
    int netns = inside.fd();
    const unique_fd no_netns = sys::open_at(AT_FDCWD, "/dev/null", O_RDONLY);
    SECTION("the interface's name is taken inside") { create_bridge(batch, {.name = "eth0"}); }
    SECTION("the descriptor is no network namespace") { netns = no_netns.get(); }
    SECTION("the default route is there already") {
        create_veth(batch, {.name = "x0", .peer_name = "x1"});
        set_link(batch, "x0", {.up = true});
        socket.transact(batch);
        batch.clear();
        const int x0 = find_link(socket, "x0")->index;
        add_address(batch, x0, "192.0.2.2/24"_cidr);
        add_route(batch, default_route("192.0.2.1"_ip, x0));
    }
    SECTION("the bridge is gone") {
        netlink_batch gone;
        delete_link(gone, "km-web");
        host.socket.transact(gone);
    }
    socket.transact(batch);
    CHECK_THROWS_AS(host.hold("box", options).connect(netns).addresses(), error);
    CHECK(host.ports().empty());
    // The address and the port are free again.
    auto again = host.hold("again", {.publish = {tcp(8080, 80)}, .address = "10.88.0.2"_ip});
    CHECK(again.addresses().front() == "10.88.0.2"_ip);
}

TEST_CASE("A reservation that is not used is given back") {
    NEEDS_NETNS;
    endpoint_host host("10.88.0.0/30"_cidr, std::nullopt);
    { const auto held = host.hold("box", {.publish = {tcp(8080, 80)}}); }
    const auto held = host.hold("box", {.publish = {tcp(8080, 80)}});
    CHECK(held.addresses().front() == "10.88.0.2"_ip);
    CHECK(held.published().size() == 1);
    CHECK(host.ports().empty());
}

TEST_CASE("A host port in use is told when the container is reserved") {
    NEEDS_NETNS;
    endpoint_host host;
    const auto other = kumiki_test::serve(host.ns, SOCK_STREAM, "0.0.0.0"_ip, 8080);
    CHECK(errno_of([&] { host.hold("box", {.publish = {tcp(8080, 80)}}); }) == EADDRINUSE);
    const auto held = host.hold("box", {.publish = {tcp(8081, 80)}});
    CHECK(errno_of([&] { host.hold("second", {.publish = {tcp(8081, 80)}}); }) == EADDRINUSE);
    // Who has it, by name, also in another network; whatever the transport, the address, the family.
    const private_netns inside;
    const auto link = host.connect(inside, "web",
                                   {.publish = {tcp(8082, 80), udp(5353, 53), sctp(7000, 70),
                                                published_port::parse("127.0.0.1:8083:80")}});
    for (const published_port& wanted :
         {tcp(8082, 1), udp(5353, 1), sctp(7000, 1), tcp(8083, 1),
          published_port::parse("[::1]:8082:1"), published_port::parse("127.0.0.1:8083:1")}) {
        CAPTURE(to_string(wanted));
        try {
            host.hold("second", {.publish = {wanted}});
            FAIL("it was held");
        } catch (const error& refused) {
            CHECK(refused.errno_value() == EADDRINUSE);
            CAPTURE(refused.what());
            CHECK(
                std::string(refused.remedy()).find("published for container web of network web") !=
                std::string::npos);
        }
    }
}

TEST_CASE("An SCTP port is one container's, in all networks of the host, and ends with it") {
    NEEDS_NETNS;
    endpoint_host host;
    const private_netns first;
    const private_netns second;
    std::optional<endpoint> link = host.connect(first, "one", {.publish = {sctp(7000, 70)}});
    const auto rules = [&] { return kumiki_test::witness(host.ns, "nft -nn -s list ruleset"); };
    const std::string before = rules();
    CHECK(before.find("132 . 7000 comment \"one\" : 10.88.0.2 . 70") != std::string::npos);
    CHECK(errno_of([&] { host.connect(second, "two", {.publish = {sctp(7000, 71)}}); }) ==
          EADDRINUSE);
    CHECK(rules() == before);
    const auto db = host.ns.run([&] {
        return bridge_network::open(
            {.name = "db", .subnet = "10.89.0.0/24"_cidr, .state_directory = host.place.path()});
    });
    const auto reserve_in_db = [&] {
        return host.ns.run([&] {
            return reserve(
                db.attach({.publish = {published_port::parse("127.0.0.1:7000:70/sctp")}}), "three");
        });
    };
    CHECK(errno_of([&] { (void)reserve_in_db(); }) == EADDRINUSE);
    link.reset();
    CHECK(reserve_in_db().published().size() == 1);
}

TEST_CASE("One port may lead elsewhere on one of the host's addresses") {
    NEEDS_NETNS;
    endpoint_host host;
    const private_netns inside;
    const auto link = host.connect(inside, "box",
                                   {.publish = {published_port::parse("127.0.0.1:7000:71"),
                                                published_port::parse("0.0.0.0:7000:70")}});
    const auto wild = kumiki_test::serve(inside, SOCK_STREAM, "0.0.0.0"_ip, 70);
    const auto exact = kumiki_test::serve(inside, SOCK_STREAM, "0.0.0.0"_ip, 71);
    CHECK(kumiki_test::reaches(host.ns, SOCK_STREAM, "127.0.0.1"_ip, 7000, exact));
    CHECK(kumiki_test::reaches(host.ns, SOCK_STREAM, "10.88.0.1"_ip, 7000, wild));
}

TEST_CASE("Many containers connect from many threads and all go") {
    NEEDS_NETNS;
    endpoint_host host;
    std::vector<std::thread> threads;
    std::atomic<int> wrong{0};
    for (int t = 0; t < 8; ++t)
        threads.emplace_back([&, t] {
            try {
                for (int i = 0; i < 10; ++i) {
                    const private_netns inside;
                    const auto link =
                        host.connect(inside, "box" + std::to_string(t) + "-" + std::to_string(i));
                    if (routes_of(inside).size() != 5) ++wrong;
                }
            } catch (...) {
                ++wrong;
            }
        });
    for (auto& thread : threads) thread.join();
    CHECK(wrong == 0);
    CHECK(host.ports().empty());
}

TEST_CASE("A connected container keeps its network open") {
    NEEDS_NETNS;
    endpoint_host host;
    const private_netns inside;
    std::optional<endpoint> link = host.connect(inside, "box");
    host.net.reset();
    CHECK(find_link(host.socket, "km-web"));
    link.reset();
    CHECK(!find_link(host.socket, "km-web"));
    CHECK(kumiki_test::names_in(host.place.path()).empty());
}

TEST_CASE("What a killed process left of its containers is removed by the next to open") {
    NEEDS_NETNS;
    endpoint_host host;
    const private_netns inside;
    int ready[2];
    REQUIRE(::pipe2(ready, O_CLOEXEC) == 0);
    const pid_t child = ::fork();
    if (child == 0) {
        try {
            // Its own handle: the parent's locks are shared with it by the fork, so they go first.
            host.net.reset();
            auto net = host.ns.run([&] {
                return bridge_network::open({.name = "other",
                                             .subnet = "10.99.0.0/24"_cidr,
                                             .state_directory = host.place.path()});
            });
            const auto link =
                host.ns.run([&] { return reserve(net.attach(), "box"); }).connect(inside.fd());
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
    CHECK(host.ports().size() == 1);
    ::kill(child, SIGKILL);
    REQUIRE(::waitpid(child, nullptr, 0) == child);
    CHECK(host.ports().size() == 1);
    host.ns.run([&] {
        const auto net = bridge_network::open(
            {.name = "other", .subnet = "10.99.0.0/24"_cidr, .state_directory = host.place.path()});
        CHECK(host.ports().empty());
    });
    CHECK(!find_link(host.socket, "km-other"));
    ::close(ready[0]);
}

TEST_CASE("Loopback alone comes up, with both of its addresses") {
    NEEDS_NETNS;
    const private_netns inside;
    bring_loopback_up(inside.fd());
    auto socket = netlink_socket::open_in(inside.fd(), NETLINK_ROUTE);
    CHECK(find_link(socket, "lo")->is_up);
    CHECK(list_addresses(socket, 1).size() == 2);
    const auto server = kumiki_test::serve(inside, SOCK_STREAM, "127.0.0.1"_ip, 80);
    CHECK(kumiki_test::reaches(inside, SOCK_STREAM, "127.0.0.1"_ip, 80, server));
}

TEST_CASE("A sibling opens what it was allowed to directly, as itself, and others do not") {
    NEEDS_NETNS;
    endpoint_host host;
    const auto other_net = host.ns.run([&] {
        return bridge_network::open(
            {.name = "bank", .subnet = "10.99.0.0/24"_cidr, .state_directory = host.place.path()});
    });
    const private_netns store_ns, client_ns, third_ns, shy_ns, other_ns, outside;
    const policy direct = deny_all()
                              .allow("10.88.0.3"_ip, tcp(5432))
                              .allow("fd00:88::3"_ip, tcp(5432))
                              .allow("10.88.0.3"_ip, udp(5432))
                              .allow("10.88.0.5"_ip)
                              .allow("10.99.0.0/16"_cidr)
                              .allow("192.0.2.0/24"_cidr);
    auto store = host.connect(store_ns, "store", {.direct = direct, .address = "10.88.0.2"_ip});
    const auto client = host.connect(client_ns, "client", {.address = "10.88.0.3"_ip});
    const auto third = host.connect(third_ns, "third", {.address = "10.88.0.4"_ip});
    const auto shy = host.connect(shy_ns, "shy", {.egress = deny_all(), .address = "10.88.0.5"_ip});
    const auto foreign =
        host.ns.run([&] { return reserve(other_net.attach(), "foreign"); }).connect(other_ns.fd());
    netlink_batch cable;
    create_veth(cable, {.name = "up0", .peer_name = "out0", .peer_netns = outside.fd()});
    host.socket.transact(cable);
    const auto give = [](const private_netns& ns, const char* name, cidr address) {
        auto route = netlink_socket::open_in(ns.fd(), NETLINK_ROUTE);
        netlink_batch batch;
        add_address(batch, find_link(route, name)->index, address);
        set_link(batch, name, {.up = true});
        route.transact(batch);
        return find_link(route, name)->index;
    };
    give(host.ns, "up0", "192.0.2.1/24"_cidr);
    const int out0 = give(outside, "out0", "192.0.2.2/24"_cidr);
    netlink_batch way;
    add_route(way, {.destination = "10.88.0.0/24"_cidr, .gateway = "192.0.2.1"_ip, .link = out0});
    netlink_socket::open_in(outside.fd(), NETLINK_ROUTE).transact(way);

    const auto server = kumiki_test::serve(store_ns, SOCK_STREAM, "10.88.0.2"_ip, 5432);
    const auto server6 = kumiki_test::serve(store_ns, SOCK_STREAM, "fd00:88::2"_ip, 5432);
    const auto datagrams = kumiki_test::serve(store_ns, SOCK_DGRAM, "10.88.0.2"_ip, 5432);
    const auto closed = kumiki_test::serve(store_ns, SOCK_STREAM, "10.88.0.2"_ip, 5433);
    const auto from = [&](const private_netns& who, int type, ip_address to, std::uint16_t port,
                          const unique_fd& where, int wait = 150) {
        const auto seen = kumiki_test::reaches(who, type, to, port, where, wait);
        return seen ? to_string(seen->address) : "nobody";
    };
    CHECK(from(client_ns, SOCK_STREAM, "10.88.0.2"_ip, 5432, server, 3000) == "10.88.0.3");
    CHECK(from(client_ns, SOCK_STREAM, "fd00:88::2"_ip, 5432, server6, 3000) == "fd00:88::3");
    CHECK(from(client_ns, SOCK_DGRAM, "10.88.0.2"_ip, 5432, datagrams, 3000) == "10.88.0.3");
    CHECK(from(client_ns, SOCK_STREAM, "10.88.0.2"_ip, 5433, closed) == "nobody");
    CHECK(from(third_ns, SOCK_STREAM, "10.88.0.2"_ip, 5432, server) == "nobody");
    CHECK(from(shy_ns, SOCK_STREAM, "10.88.0.2"_ip, 5432, server) == "nobody");  // its own policy
    // Neither another network's containers nor anybody outside are siblings, whatever the rules say.
    CHECK(from(other_ns, SOCK_STREAM, "10.88.0.2"_ip, 5432, server) == "nobody");
    CHECK(from(outside, SOCK_STREAM, "10.88.0.2"_ip, 5432, server) == "nobody");
    // The way back is for answers alone.
    const auto back = kumiki_test::serve(client_ns, SOCK_STREAM, "10.88.0.3"_ip, 80);
    CHECK(from(store_ns, SOCK_STREAM, "10.88.0.3"_ip, 80, back) == "nobody");
    // Who comes to the address next inherits nothing.
    store.disconnect();
    const private_netns heir_ns;
    const auto heir = host.connect(heir_ns, "heir", {.address = "10.88.0.2"_ip});
    const auto next = kumiki_test::serve(heir_ns, SOCK_STREAM, "10.88.0.2"_ip, 5432);
    CHECK(from(client_ns, SOCK_STREAM, "10.88.0.2"_ip, 5432, next) == "nobody");
}

TEST_CASE(
    "No two containers' links have one name, whatever their bridges' and leases' numbers are") {
    NEEDS_NETNS;
    // The names tell number from number: 2 and 33 * 36 + 5 are not 2 * 36 + 33 and 5.
    endpoint_host host("10.88.0.0/16"_cidr, {});
    const int first = host.net->bridge().index;
    REQUIRE(first < 36);
    const int second = first * 36 + 33;
    netlink_batch batch;
    const int last = list_links(host.socket).back().index;
    for (int index = last + 1; index < second; ++index)
        create_bridge(batch, {.name = "t" + std::to_string(index)});
    host.socket.transact(batch);
    const auto other = host.ns.run([&] {
        return bridge_network::open(
            {.name = "other", .subnet = "10.99.0.0/24"_cidr, .state_directory = host.place.path()});
    });
    REQUIRE(other.bridge().index == second);
    const private_netns one, two;
    const auto far = host.connect(one, "far", {.address = "10.88.4.169"_ip});
    const auto near =
        host.ns.run([&] { return reserve(other.attach({.address = "10.99.0.5"_ip}), "near"); })
            .connect(two.fd());
    CHECK(far.host_link() != near.host_link());
    CHECK(find_link(host.socket, far.host_link())->master == first);
    CHECK(find_link(host.socket, near.host_link())->master == second);
}

TEST_CASE("The longest name of a container's link is one that an interface can have") {
    CHECK(detail::port_name(2147483647, (1U << 24) - 2).size() <= 15);
    CHECK(detail::port_name(2, 2) == "km2x2");
}

TEST_CASE("A network explains what its containers' rules say, as long as they are connected") {
    NEEDS_NETNS;
    endpoint_host host;
    const private_netns inside;
    const packet from_far{.source = "192.0.2.9"_ip,
                          .destination = "10.88.0.1"_ip,
                          .source_port = 40000,
                          .destination_port = 8080,
                          .input = "up"};
    CHECK(host.net->explain(from_far).rule.empty());
    {
        const auto link = host.connect(
            inside, "box",
            {.publish = {tcp(8080, 80)}, .ingress = allow_all().deny("192.0.2.0/24"_cidr)});
        const explanation told = host.net->explain(from_far);
        CHECK(told.verdict == access::deny);
        CHECK(told.rule == "box:in:0");
        CHECK(told.led_to == address_port{"10.88.0.2"_ip, 80});
        // The witness: the rule that counts in the kernel has the name that was told.
        const auto rules = kumiki_test::witness(host.ns, "nft list chain inet kumiki-web in-box");
        INFO(rules);
        CHECK(
            rules.find("ip saddr 192.0.2.0/24 counter packets 0 bytes 0 log prefix \"box:in:0\"") !=
            std::string::npos);
    }
    CHECK(host.net->explain(from_far).rule.empty());
}

TEST_CASE("Containers reach each other by their own addresses, names and labels as attached") {
    NEEDS_NETNS;
    endpoint_host host;
    const private_netns database;
    const private_netns client;
    const private_netns stranger;
    const auto db = host.connect(
        database, "db",
        {.direct = deny_all().allow(label{"web"}, tcp(5432)).allow(container_name{"it"}, icmp())});
    const auto web = host.connect(client, "web", {.labels = {"web"}});
    const auto other = host.connect(stranger, "other");
    for (const ip_address& address : db.addresses()) {
        const auto server = kumiki_test::serve(database, SOCK_STREAM, address, 5432);
        const auto seen = kumiki_test::reaches(client, SOCK_STREAM, address, 5432, server);
        REQUIRE(seen);
        CHECK(seen->address == web.addresses()[address.is_v4() ? 0 : 1]);
        CHECK_FALSE(kumiki_test::reaches(stranger, SOCK_STREAM, address, 5432, server, 100));
        const auto told = [&](const endpoint& from) {
            return host.net
                ->explain({.source = from.addresses()[address.is_v4() ? 0 : 1],
                           .destination = address,
                           .destination_port = 5432})
                .rule;
        };
        CHECK(told(web) == "db:direct:0");
        CHECK(told(other) == "db:direct:rest");
    }
    CHECK_THROWS_AS(host.net->attach({.labels = {"a b"}}), invalid_input);
}

TEST_CASE("All of another network are peers of a rule") {
    NEEDS_NETNS;
    endpoint_host host;
    const policy rules = deny_all().allow(*host.net, tcp(80));
    CHECK(rules.verdict("10.88.0.200"_ip, tcp(80)) == access::allow);
    CHECK(rules.verdict("fd00:88::77"_ip, tcp(80)) == access::allow);
    CHECK(rules.verdict("10.89.0.2"_ip, tcp(80)) == access::deny);
}

TEST_CASE(
    "Containers of the network that a rule names get in as themselves, and a third's do not") {
    NEEDS_NETNS;
    using namespace kumiki_test;
    const town net;
    const auto third = net.host.ns.run([&] {
        return bridge_network::open({.name = "third",
                                     .subnet = "10.90.0.0/24"_cidr,
                                     .subnet6 = "fd00:90::/64"_cidr,
                                     .state_directory = net.place.path()});
    });
    const node shop;
    const node database;
    const node beside;
    const node stranger;
    auto link = net.connect(
        *net.web, shop, "shop",
        {.publish = {kumiki::tcp(8080, 80), udp(8080, 80), kumiki::tcp(8081, 81)},
         .ingress = deny_all().allow(*net.db, kumiki::tcp(80)).allow(*net.db, udp(80))});
    const auto of_db = net.connect(*net.db, database, "database");
    const auto of_web = net.connect(*net.web, beside, "beside");
    const auto of_third = net.connect(third, stranger, "stranger");
    // Who reaches it, as whom, by each protocol and family.
    const auto check = [&](const node& allowed, const endpoint& allowed_link,
                           const std::vector<const node*>& refused) {
        for (const auto& to : {"192.0.2.1"_ip, "2001:db8::1"_ip})
            for (const int type : {tcp_type, udp_type}) {
                CAPTURE(to_string(to), type);
                const auto server = serve(shop.ns, type, to.is_v4() ? "0.0.0.0"_ip : "::"_ip, 80);
                const auto seen = reaches(allowed, type, to, 8080, server);
                REQUIRE(seen);
                CHECK(seen->address == allowed_link.addresses()[to.is_v4() ? 0 : 1]);
                for (const node* each : refused) CHECK(is_silent(*each, type, to, 8080, server));
            }
    };
    check(database, of_db, {&stranger, &beside, &net.outside});
    // Another port than the rule's, and the address that is the container's own.
    const auto other = serve(shop.ns, tcp_type, "::"_ip, 81);
    CHECK(is_silent(database, tcp_type, "192.0.2.1"_ip, 8081, other));
    for (const ip_address& own : link.addresses()) {
        const auto direct = serve(shop.ns, tcp_type, "::"_ip, 80);
        CHECK(is_silent(database, tcp_type, own, 80, direct));
    }
    link.update({.ingress = deny_all().allow(third)});
    check(stranger, of_third, {&database});
}

namespace {

/// Sends numbers from one port to one port, without an end.
class steady_client {
  public:
    steady_client(const kumiki_test::node& from, ip_address own, ip_address to, std::uint16_t port)
        : socket_(from.ns.run([&] {
              unique_fd fd(sys::check(
                  ::socket(to.is_v4() ? AF_INET : AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0),
                  "socket"));
              const auto [address, size] = kumiki_test::endpoint_address(own, 40000).to_kernel();
              sys::check(::bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), size),
                         "bind");
              return fd;
          })) {
        thread_ = std::thread([this, to, port] {
            const auto [address, size] = kumiki_test::endpoint_address(to, port).to_kernel();
            while (!stop_) {
                const std::uint32_t number = ++sent_;
                (void)::sendto(socket_.get(), &number, sizeof number, 0,
                               reinterpret_cast<const sockaddr*>(&address), size);
                std::this_thread::sleep_for(std::chrono::microseconds(100));
            }
        });
    }
    ~steady_client() {
        stop_ = true;
        thread_.join();
    }
    std::uint32_t sent() const { return sent_; }

  private:
    unique_fd socket_;
    std::atomic<bool> stop_{false};
    std::atomic<std::uint32_t> sent_{0};
    std::thread thread_;
};

}  // namespace

TEST_CASE("A client that never stops sending reaches the container that comes after, within 2 s") {
    NEEDS_NETNS;
    using namespace kumiki_test;
    const town net;
    const bool v4 = GENERATE(true, false);
    const bool soon = GENERATE(true, false);
    const steady_client client(net.outside, v4 ? "192.0.2.2"_ip : "2001:db8::2"_ip,
                               v4 ? "192.0.2.1"_ip : "2001:db8::1"_ip, 5353);
    for (std::uint32_t round = 0; round < 2; ++round) {
        CAPTURE(v4, soon, round);
        const node inside;
        const auto server = serve(inside.ns, udp_type, v4 ? "0.0.0.0"_ip : "::"_ip, 53);
        auto link = net.connect(*net.web, inside, "box",
                                {.publish = {udp(5353, 53)},
                                 .address = "10.88.0.100"_ip.plus(round),
                                 .address6 = "fd00:88::100"_ip.plus(round)});
        const std::uint32_t before = client.sent();
        // Its neighbour is asked for again after a second.
        for (std::uint32_t last = 0; last <= before;) {
            REQUIRE(kumiki_test::wait_for(server.get(), POLLIN, 2000));
            REQUIRE(::recv(server.get(), &last, sizeof last, 0) == sizeof last);
        }
        if (soon)
            link.disconnect_soon();
        else
            link.disconnect();
    }
}

// How often: KUMIKI_ROUNDS in the environment.
TEST_CASE("Two processes connect and disconnect in one network at once, and nothing is left") {
    NEEDS_NETNS;
    using namespace kumiki_test;
    const scratch place;
    const node host;
    const char* const wanted = ::getenv("KUMIKI_ROUNDS");
    const int rounds = wanted ? std::atoi(wanted) : 20;
    // How often it had the port 8080, which both want; who has it is reached by it.
    const auto work = [&](const std::string& name) {
        const node inside;
        const auto server = serve(inside.ns, udp_type, "0.0.0.0"_ip, 80);
        const auto net = host.ns.run([&] {
            return bridge_network::open({.name = "web",
                                         .subnet = "10.88.0.0/24"_cidr,
                                         .subnet6 = "fd00:88::/64"_cidr,
                                         .state_directory = place.path()});
        });
        int held = 0;
        for (int round = 0; round < rounds; ++round) {
            const std::string container = name + std::to_string(round);
            const auto hold = [&](std::vector<published_port> ports) {
                return host.ns.run(
                    [&] { return reserve(net.attach({.publish = std::move(ports)}), container); });
            };
            std::optional<endpoint_reservation> reserved;
            try {
                reserved.emplace(hold({udp(8080, 80), udp(0, 80)}));
            } catch (const error& failure) {
                if (failure.errno_value() != EADDRINUSE) throw;
                reserved.emplace(hold({udp(0, 80)}));
            }
            auto link = std::move(*reserved).connect(inside.ns.fd());
            for (const published_port& port : link.published()) {
                if (port.host.first == 8080) ++held;
                bool reached = false;
                for (int tries = 0; tries < 20 && !reached; ++tries)
                    reached =
                        reaches(host.ns, udp_type, "10.88.0.1"_ip, port.host.first, server, silence)
                            .has_value();
                if (!reached) throw error(ETIMEDOUT, {.operation = "reach", .object = container});
            }
            link.disconnect();
        }
        return held;
    };
    std::vector<pid_t> children;
    for (const char* const name : {"one-", "two-"}) {
        const pid_t child = ::fork();
        if (child == 0) {
            try {
                ::_exit(work(name) > 0 ? 0 : 2);
            } catch (const std::exception& failure) {
                std::fprintf(stderr, "%s%s\n", name, failure.what());
            }
            ::_exit(1);
        }
        REQUIRE(child > 0);
        children.push_back(child);
    }
    int held = 0;
    for (const pid_t child : children) {
        int status = 0;
        REQUIRE(::waitpid(child, &status, 0) == child);
        REQUIRE(WIFEXITED(status));
        CHECK(WEXITSTATUS(status) != 1);
        if (WEXITSTATUS(status) == 0) ++held;
    }
    CHECK(held > 0);
    auto socket = netlink_socket::open_in(host.ns.fd(), NETLINK_ROUTE);
    CHECK(list_links(socket).size() == 1);
    CHECK(output_of(host, "nft list ruleset 2>&1") == "");
    CHECK(names_in(place.path()).empty());
}
