#include <chrono>
#include <optional>
#include <thread>

#include <kumiki/network/endpoint.hpp>
#include <kumiki/network/shaping.hpp>

#include "support/catch.hpp"
#include "support/netns.hpp"
#include "support/scratch.hpp"
#include "support/witness.hpp"

using namespace kumiki;
using namespace kumiki::literals;
using namespace std::chrono_literals;
using kumiki_test::private_netns;
using kumiki_test::says;
using kumiki_test::witness;

namespace {

struct test_host {
    kumiki_test::scratch place;
    private_netns ns;
    private_netns inside;
    netlink_socket socket = netlink_socket::open_in(ns.fd(), NETLINK_ROUTE);
    std::optional<bridge_network> net;

    test_host() {
        bring_loopback_up(ns.fd());
        net = ns.run([&] {
            return bridge_network::open(
                {.name = "web", .subnet = "10.88.0.0/24"_cidr, .state_directory = place.path()});
        });
    }
    endpoint connect(shaping shape) const {
        return ns
            .run([&] {
                return reserve(
                    net->attach(
                        {.publish = {tcp(8080, 80)}, .address = "10.88.0.2"_ip, .shape = shape}),
                    "box");
            })
            .connect(inside.fd());
    }
    // The kernel's words when it has no such part; nothing when it has.
    std::string missing(shaping shape) const {
        try {
            (void)connect(shape);
            return {};
        } catch (const error& refused) {
            const int code = refused.errno_value();
            REQUIRE((code == ENOENT || code == EOPNOTSUPP));
            CHECK(says(refused.what(), "kernel's module"));
            return refused.what();
        }
    }
    std::vector<std::string> ports() {
        std::vector<std::string> names;
        for (const auto& link : list_links(socket))
            if (link.kind == "veth" || link.kind == "ifb") names.push_back(link.name);
        return names;
    }
};

// How long `size` bytes take through a connection from a server in the container to the host, or
// the other way.
std::chrono::milliseconds transfer(const test_host& host, std::size_t size, bool to_container) {
    const auto server = kumiki_test::serve(host.inside, SOCK_STREAM, "10.88.0.2"_ip, 80);
    const unique_fd client = host.ns.run([&] {
        unique_fd fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
        const auto [to, length] = kumiki_test::endpoint_address("10.88.0.2"_ip, 80).to_kernel();
        sys::check(::connect(fd.get(), reinterpret_cast<const sockaddr*>(&to), length), "connect");
        return fd;
    });
    REQUIRE(kumiki_test::wait_for(server.get(), POLLIN, 3000));
    const unique_fd connection(::accept4(server.get(), nullptr, nullptr, SOCK_CLOEXEC));
    const int from = to_container ? client.get() : connection.get();
    const int to = to_container ? connection.get() : client.get();
    const auto begin = std::chrono::steady_clock::now();
    std::thread sender([&] {
        const std::string all(size, 'x');
        for (std::size_t sent = 0; sent < size;) {
            const auto more = ::send(from, all.data() + sent, size - sent, MSG_NOSIGNAL);
            if (more <= 0) break;
            sent += static_cast<std::size_t>(more);
        }
    });
    std::vector<char> buffer(65536);
    std::size_t got = 0;
    while (got < size && kumiki_test::wait_for(to, POLLIN, 10000)) {
        const auto more = ::recv(to, buffer.data(), buffer.size(), 0);
        if (more <= 0) break;
        got += static_cast<std::size_t>(more);
    }
    ::shutdown(to, SHUT_RDWR);
    sender.join();
    CHECK(got == size);
    return std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::steady_clock::now() -
                                                                 begin);
}

}  // namespace

TEST_CASE("A rate limit holds each way, as tc shows and as the time says") {
    NEEDS_NETNS_AND("tc");
    test_host host;
    const shaping shape{.to_container = {.rate = megabits(16)},
                        .from_container = {.rate = megabits(32)}};
    if (const auto why = host.missing(shape); !why.empty()) KUMIKI_SKIP(why);
    const auto link = host.connect(shape);
    const auto port = witness(host.ns, "tc qdisc show dev " + link.host_link());
    INFO(port);
    CHECK(says(port, "qdisc tbf 20: root"));
    CHECK(says(port, "rate 16Mbit burst "));
    CHECK(says(port, "qdisc ingress ffff: parent ffff:fff1"));
    const auto ifb = witness(host.ns, "tc qdisc show dev kx" + link.host_link().substr(2));
    INFO(ifb);
    CHECK(says(ifb, "rate 32Mbit burst "));
    constexpr std::size_t size = 2'000'000;  // a second, and half of one
    const auto to = transfer(host, size, true);
    const auto from = transfer(host, size, false);
    INFO("to the container " << to.count() << " ms, from it " << from.count() << " ms");
    CHECK(to > 850ms);
    CHECK(to < 5s);
    CHECK(from > 400ms);
    CHECK(from < 4s);
    const auto counted = witness(host.ns, "tc -s qdisc show dev kx" + link.host_link().substr(2));
    INFO(counted);
    CHECK(!says(counted, "Sent 0 bytes"));
}

TEST_CASE("The helper goes with the endpoint, in both ways of disconnecting, and after a failure") {
    NEEDS_NETNS_AND("tc");
    test_host host;
    const shaping shape{.from_container = {.rate = megabits(8)}};
    if (const auto why = host.missing(shape); !why.empty()) KUMIKI_SKIP(why);
    auto link = host.connect(shape);
    CHECK(host.ports().size() == 2);
    link.disconnect();
    CHECK(host.ports().empty());
    {
        auto soon = host.connect(shape);
        soon.disconnect_soon();
        host.net.reset();
    }
    CHECK(host.ports().empty());
}

TEST_CASE("A shape that the kernel cannot make leaves neither link nor lease, and is named") {
    NEEDS_NETNS_AND("tc");
    test_host host;
    const shaping late{.from_container = {.rate = megabits(8), .delay = 20ms}};
    if (const auto why = host.missing(late); why.empty())
        KUMIKI_SKIP("this kernel can delay packets");
    else
        CHECK(says(why, "sch_netem"));
    CHECK(host.ports().empty());
    const auto link = host.connect({});
    CHECK(to_string(link.addresses().at(0)) != "");
    CHECK(host.ports().size() == 1);
}

TEST_CASE("Packets are late and lost as they should be, each way [vm]", "[vm]") {
    NEEDS_NETNS_AND("tc");
    std::optional<test_host> made;
    try {
        made.emplace();
    } catch (const unsupported& refused) {
        KUMIKI_SKIP(refused.what());  // nf_tables
    }
    test_host& host = *made;
    const shaping late{.to_container = {.delay = 80ms}, .from_container = {.delay = 40ms}};
    if (const auto why = host.missing(late); !why.empty()) KUMIKI_SKIP(why);
    {
        const auto link = host.connect(late);
        CHECK(says(witness(host.ns, "tc qdisc show dev " + link.host_link()), "delay 80ms"));
        CHECK(says(witness(host.ns, "tc qdisc show dev kx" + link.host_link().substr(2)),
                   "delay 40ms"));
        const auto server = kumiki_test::serve(host.inside, SOCK_STREAM, "10.88.0.2"_ip, 80);
        (void)kumiki_test::reaches(host.ns, SOCK_STREAM, "10.88.0.2"_ip, 80, server, 5000);  // ARP
        const auto begin = std::chrono::steady_clock::now();
        CHECK(kumiki_test::reaches(host.ns, SOCK_STREAM, "10.88.0.2"_ip, 80, server, 5000));
        CHECK(std::chrono::steady_clock::now() - begin >= 200ms);  // SYN, answer, the third
    }
    const auto link = host.connect({.to_container = {.rate = megabits(80), .loss = 0.5}});
    const auto shown = witness(host.ns, "tc qdisc show dev " + link.host_link());
    INFO(shown);
    CHECK(says(shown, "loss 50%"));
    CHECK(says(shown, "parent 10:1 rate 80Mbit"));
    const auto server = kumiki_test::serve(host.inside, SOCK_DGRAM, "10.88.0.2"_ip, 80);
    (void)kumiki_test::reaches(host.ns, SOCK_DGRAM, "10.88.0.2"_ip, 80, server, 1000);
    int arrived = 0;
    for (int i = 0; i < 60; ++i)
        if (kumiki_test::reaches(host.ns, SOCK_DGRAM, "10.88.0.2"_ip, 80, server, 40)) ++arrived;
    CHECK(arrived > 8);
    CHECK(arrived < 52);
}

TEST_CASE("A shape that cannot be is refused when a place is asked for") {
    NEEDS_NETNS_AND("tc");
    test_host host;
    const auto refused = [&](traffic_shape shape) {
        CHECK_THROWS_AS(host.net->attach({.shape = {.to_container = shape}}), invalid_input);
        CHECK_THROWS_AS(host.net->attach({.shape = {.from_container = shape}}), invalid_input);
    };
    refused({.rate = bytes_per_second{999}});
    refused({.delay = -1us});
    refused({.delay = 61s});
    refused({.delay = 1ms, .jitter = 2ms});
    refused({.loss = 1.01});
    refused({.loss = -0.1});
    refused({.loss = std::numeric_limits<double>::quiet_NaN()});
}
