#include <pthread.h>
#include <sched.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <thread>
#include <vector>

#include <kumiki/network/endpoint.hpp>
#include <kumiki/network/endpoint_change.hpp>

#include "network/town.hpp"
#include "support/catch.hpp"
#include "support/netns.hpp"

using namespace kumiki;
using namespace kumiki::literals;
using namespace kumiki_test;

namespace {

const ip_address host_address = "192.0.2.1"_ip;

std::string rules_of(const node& host) { return output_of(host, "nft -nn -s list ruleset"); }

/// A flow from outside to a port of the host, and the container's end of it.
struct live_flow {
    unique_fd client;
    unique_fd server;

    live_flow(const town& net, const node& inside, int type, std::uint16_t port,
              std::uint16_t inner) {
        unique_fd service = serve(inside.ns, type, "0.0.0.0"_ip, inner);
        client = net.outside.ns.run([&] {
            unique_fd fd(sys::check(::socket(AF_INET, type | SOCK_CLOEXEC, 0), "socket"));
            const auto [to, size] = endpoint_address(host_address, port).to_kernel();
            sys::check(::connect(fd.get(), reinterpret_cast<const sockaddr*>(&to), size),
                       "connect");
            return fd;
        });
        if (type == SOCK_STREAM) {
            REQUIRE(kumiki_test::wait_for(service.get(), POLLIN, 3000));
            server.reset(::accept4(service.get(), nullptr, nullptr, SOCK_CLOEXEC));
            return;
        }
        REQUIRE(::send(client.get(), "hello", 5, 0) == 5);
        REQUIRE(kumiki_test::wait_for(service.get(), POLLIN, 3000));
        sockaddr_storage peer{};
        socklen_t size = sizeof peer;
        char text[8];
        REQUIRE(::recvfrom(service.get(), text, sizeof text, 0, reinterpret_cast<sockaddr*>(&peer),
                           &size) == 5);
        REQUIRE(::connect(service.get(), reinterpret_cast<const sockaddr*>(&peer), size) == 0);
        server = std::move(service);
    }
    /// A number goes to the container and comes back.
    bool answers(std::uint32_t number, int milliseconds = 3000) const {
        std::uint32_t got = 0;
        if (::send(client.get(), &number, sizeof number, MSG_NOSIGNAL) != sizeof number ||
            !kumiki_test::wait_for(server.get(), POLLIN, milliseconds) ||
            ::recv(server.get(), &got, sizeof got, 0) != sizeof got ||
            ::send(server.get(), &got, sizeof got, MSG_NOSIGNAL) != sizeof got ||
            !kumiki_test::wait_for(client.get(), POLLIN, milliseconds) ||
            ::recv(client.get(), &got, sizeof got, 0) != sizeof got)
            return false;
        return got == number;
    }
};

}  // namespace

TEST_CASE("A connected container's ports and policies change while it runs") {
    NEEDS_NETNS;
    const town net;
    const node inside;
    auto link = net.connect(*net.web, inside, "box", {.publish = {tcp(8080, 80)}});
    const auto server = serve(inside.ns, tcp_type, "0.0.0.0"_ip, 80);
    const auto other = serve(inside.ns, tcp_type, "0.0.0.0"_ip, 81);
    const auto world = serve(net.outside.ns, udp_type, "192.0.2.2"_ip, 53);
    CHECK(reaches(net.outside, tcp_type, host_address, 8080, server));

    link.update({.publish = std::vector<published_port>{tcp(8080, 81), tcp(0, 80)}});
    REQUIRE(link.published().size() == 2);
    const std::uint16_t picked = link.published()[1].host.first;
    CHECK(reaches(net.outside, tcp_type, host_address, 8080, other));
    CHECK(reaches(net.outside, tcp_type, host_address, picked, server));

    link.update({.publish = std::vector<published_port>{tcp(8081, 80)}});
    CHECK(is_silent(net.outside, tcp_type, host_address, 8080, other));
    CHECK(is_silent(net.outside, tcp_type, host_address, picked, server));
    CHECK(reaches(net.outside, tcp_type, host_address, 8081, server));
    CHECK(reaches(inside, udp_type, "192.0.2.2"_ip, 53, world));

    link.update({.ingress = allow_all().deny("192.0.2.2"_ip), .egress = deny_all()});
    CHECK(is_silent(net.outside, tcp_type, host_address, 8081, server));
    CHECK(reaches(net.outside, tcp_type, host_address, 8081, server, 3000,
                  endpoint_address("192.0.2.3"_ip, 0)));
    CHECK(is_silent(inside, udp_type, "192.0.2.2"_ip, 53, world));
    // What is not set stays.
    link.update({.egress = allow_all()});
    CHECK(reaches(inside, udp_type, "192.0.2.2"_ip, 53, world));
    CHECK(is_silent(net.outside, tcp_type, host_address, 8081, server));
    link.disconnect();
    CHECK(rules_of(net.host).find("10.88.0.2") == std::string::npos);
    CHECK(rules_of(net.host).find("out-box") == std::string::npos);
}

TEST_CASE("A change that cannot be made changes nothing") {
    NEEDS_NETNS;
    const town net;
    const node inside;
    const node beside;
    auto link = net.connect(*net.web, inside, "box", {.publish = {tcp(8080, 80)}});
    const auto second =
        net.connect(*net.web, beside, "neighbour", {.publish = {tcp(9090, 90), sctp(9, 9)}});
    const auto server = serve(inside.ns, tcp_type, "0.0.0.0"_ip, 80);
    const std::string before = rules_of(net.host);
    const auto refused = [&](std::vector<published_port> ports, int code) {
        try {
            link.update({.publish = std::move(ports), .ingress = deny_all(), .egress = deny_all()});
            FAIL("it was done");
        } catch (const error& failure) {
            INFO(failure.what());
            CHECK(failure.errno_value() == code);
            CHECK_FALSE(failure.remedy().empty());
        }
        CHECK(rules_of(net.host) == before);
        CHECK(link.published() == std::vector<published_port>{tcp(8080, 80)});
        CHECK(reaches(net.outside, tcp_type, host_address, 8080, server));
    };
    const auto taken = serve(net.host.ns, tcp_type, "0.0.0.0"_ip, 7070);
    refused({tcp(8080, 80), tcp(7070, 70)}, EADDRINUSE);
    refused({tcp(7071, 70), tcp(9090, 80)}, EADDRINUSE);
    refused({tcp(7071, 70), sctp(9, 80)}, EADDRINUSE);
    refused({published_port::parse("192.0.2.99:80:80")}, EADDRNOTAVAIL);
    refused({published_port{.host = {1, 2}, .container = {1, 1}}}, 0);
    // And what was taken for it on the way is free again.
    CHECK(serve(net.host.ns, tcp_type, "0.0.0.0"_ip, 7071));
}

// How many changes: KUMIKI_CHANGES in the environment.
TEST_CASE("Flows that a change does not concern go on") {
    NEEDS_NETNS;
    const town net;
    const node inside;
    const std::vector<published_port> both{tcp(8080, 80), udp(5353, 53)};
    auto link = net.connect(*net.web, inside, "box", {.publish = both});
    const live_flow stream(net, inside, tcp_type, 8080, 80);
    const live_flow datagrams(net, inside, udp_type, 5353, 53);
    const char* const wanted = ::getenv("KUMIKI_CHANGES");
    const auto changes = static_cast<std::uint32_t>(wanted ? std::atoi(wanted) : 100);
    int lost = 0;
    std::chrono::steady_clock::duration spent{};
    for (std::uint32_t i = 0; i < changes; ++i) {
        auto publish = both;
        if (i % 2 == 0) publish.push_back(tcp(static_cast<std::uint16_t>(20000 + i), 81));
        if (i % 3 == 0) publish.push_back(udp(static_cast<std::uint16_t>(20000 + i), 81));
        endpoint_change change{.publish = std::move(publish)};
        if (i % 4 == 0) change.ingress = deny_all().allow("192.0.2.0/28"_cidr);
        if (i % 4 == 2) change.ingress = allow_all().deny("192.0.2.77"_ip);
        if (i % 5 == 0) change.egress = deny_all();
        if (i % 5 == 1) change.egress = allow_all().deny("203.0.113.0/24"_cidr, tcp(80));
        // Packets are on their way while it is made.
        (void)::send(datagrams.client.get(), &i, sizeof i, MSG_NOSIGNAL);
        const auto begun = std::chrono::steady_clock::now();
        link.update(change);
        spent += std::chrono::steady_clock::now() - begun;
        std::uint32_t got = 0;
        if (!kumiki_test::wait_for(datagrams.server.get(), POLLIN, 1000) ||
            ::recv(datagrams.server.get(), &got, sizeof got, 0) != sizeof got || got != i)
            ++lost;
        REQUIRE(stream.answers(i));
        REQUIRE(datagrams.answers(i));
    }
    CHECK(lost == 0);
    const auto us = std::chrono::duration_cast<std::chrono::microseconds>(spent).count();
    WARN("a change took " << us / changes << " us");
}

TEST_CASE("Flows of what was taken away end, and no packet of them passes after the change") {
    NEEDS_NETNS;
    const town net;
    const node inside;
    const std::vector<published_port> all{tcp(8080, 80), tcp(8081, 81), udp(5353, 53),
                                          udp(5354, 54)};
    auto link = net.connect(*net.web, inside, "box", {.publish = all});
    const live_flow kept(net, inside, tcp_type, 8080, 80);
    const live_flow cut(net, inside, tcp_type, 8081, 81);
    const live_flow kept_datagrams(net, inside, udp_type, 5353, 53);
    const live_flow cut_datagrams(net, inside, udp_type, 5354, 54);
    for (const auto* each : {&kept, &cut, &kept_datagrams, &cut_datagrams})
        REQUIRE(each->answers(1));
    SECTION("by what is published") {
        link.update({.publish = std::vector<published_port>{tcp(8080, 80), udp(5353, 53)}});
    }
    SECTION("by the policy") { link.update({.ingress = allow_all().deny(tcp(81)).deny(udp(54))}); }
    CHECK_FALSE(cut.answers(2, silence));
    CHECK_FALSE(cut_datagrams.answers(2, silence));
    CHECK(kept.answers(3));
    CHECK(kept_datagrams.answers(3));
    // The container's own word does not come through either.
    CHECK(::send(cut.server.get(), "x", 1, MSG_NOSIGNAL) == 1);
    (void)kumiki_test::wait_for(cut.client.get(), POLLIN, silence);
    char byte = 0;
    CHECK(::recv(cut.client.get(), &byte, 1, MSG_DONTWAIT) <= 0);
}

TEST_CASE("Of a flow that is denied no packet passes from the moment that the rules are in force") {
    NEEDS_NETNS;
    const town net;
    const node inside;
    using clock = std::chrono::steady_clock;
    const auto sink = serve(net.outside.ns, udp_type, "192.0.2.2"_ip, 53);
    const int room = 8 << 20;
    ::setsockopt(sink.get(), SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof room);
    auto link = net.connect(*net.web, inside, "box");
    auto rules = netlink_socket::open_in(net.host.ns.fd(), NETLINK_NETFILTER);
    for (int round = 0; round < 10; ++round) {
        const unique_fd socket = inside.ns.run([&] {
            unique_fd fd(sys::check(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), "socket"));
            const auto [to, size] = endpoint_address("192.0.2.2"_ip, 53).to_kernel();
            sys::check(::connect(fd.get(), reinterpret_cast<const sockaddr*>(&to), size),
                       "connect");
            return fd;
        });
        std::atomic<bool> stop{false};
        std::atomic<clock::rep> in_force{0};
        const auto at_once = [] {  // on a busy machine, too
            const sched_param first{.sched_priority = 1};
            ::pthread_setschedparam(::pthread_self(), SCHED_FIFO, &first);
        };
        std::thread sender([&] {
            at_once();
            while (!stop) {
                const clock::rep now = clock::now().time_since_epoch().count();
                (void)::send(socket.get(), &now, sizeof now, MSG_NOSIGNAL);
                std::this_thread::sleep_for(std::chrono::microseconds(50));
            }
        });
        // An answer makes it a flow that is let pass as such.
        REQUIRE(kumiki_test::wait_for(sink.get(), POLLIN, 3000));
        sockaddr_storage client{};
        socklen_t size = sizeof client;
        char text[8];
        REQUIRE(::recvfrom(sink.get(), text, sizeof text, 0, reinterpret_cast<sockaddr*>(&client),
                           &size) == 8);
        REQUIRE(::sendto(sink.get(), text, 8, 0, reinterpret_cast<const sockaddr*>(&client),
                         size) == 8);
        std::thread watch([&, before = nft::generation(rules)] {
            at_once();
            while (!stop && in_force == 0) {
                if (nft::generation(rules) != before)
                    in_force = clock::now().time_since_epoch().count();
                std::this_thread::sleep_for(std::chrono::microseconds(50));
            }
        });
        link.update({.egress = deny_all().allow(tcp(443))});
        stop = true;
        sender.join();
        watch.join();
        REQUIRE(in_force != 0);
        int late = 0;
        clock::rep sent = 0;
        int all = 0;
        for (; ::recv(sink.get(), &sent, sizeof sent, MSG_DONTWAIT) == sizeof sent; ++all)
            if (sent > in_force) ++late;
        CHECK(all > 0);
        CHECK(all < 8000);  // else there was no room for the late ones
        CHECK(late == 0);
        link.update({.egress = allow_all()});
    }
}

TEST_CASE("A change puts back what a foreign hand flushed of its container") {
    NEEDS_NETNS;
    const town net;
    const node inside;
    auto link = net.connect(*net.web, inside, "box",
                            {.publish = {tcp(8080, 80)}, .egress = deny_all().allow(tcp(443))});
    const auto server = serve(inside.ns, tcp_type, "0.0.0.0"_ip, 80);
    const auto own_rules = [&] {
        return output_of(net.host,
                         "(nft -nn -s list table inet kumiki-web; "
                         "nft -nn -s list table bridge kumiki-web) | sort");
    };
    const std::string before = own_rules();
    SECTION("all of it") { output_of(net.host, "nft flush ruleset"); }
    SECTION("one table") { output_of(net.host, "nft delete table inet kumiki-web"); }
    SECTION("one element") {
        output_of(net.host, "nft delete element inet kumiki-web egress4 { 10.88.0.2 }");
    }
    SECTION("the policy's chain") {
        output_of(net.host,
                  "nft delete element inet kumiki-web egress4 { 10.88.0.2 }; "
                  "nft delete element inet kumiki-web egress6 { fd00:88::2 }; "
                  "nft delete chain inet kumiki-web out-box");
    }
    link.update({.ingress = deny_all().allow("192.0.2.2"_ip)});
    CHECK(reaches(net.outside, tcp_type, host_address, 8080, server));
    CHECK(is_silent(net.outside, tcp_type, "10.88.0.2"_ip, 80, server));
    link.update({.ingress = allow_all()});
    CHECK(own_rules() == before);
}
