#include <cstdio>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include <kumiki/async/timeout.hpp>
#include <kumiki/network/denial.hpp>
#include <kumiki/network/denials.hpp>
#include <kumiki/network/endpoint.hpp>

#include "support/catch.hpp"
#include "support/netns.hpp"
#include "support/scratch.hpp"
#include "support/witness.hpp"

using namespace kumiki;
using namespace kumiki::literals;
using namespace std::chrono_literals;
using kumiki_test::private_netns;

namespace {

// A host of the test's own and a network with a container of rules, and one that may do nothing.
struct denials_host {
    kumiki_test::scratch place;
    private_netns ns;
    private_netns inside_a;
    private_netns inside_b;
    bridge_network net = ns.run([&] {
        return bridge_network::open({.name = "web",
                                     .subnet = "10.88.0.0/24"_cidr,
                                     .subnet6 = "fd00:88::/64"_cidr,
                                     .state_directory = place.path()});
    });
    std::optional<endpoint> a = connect("a", inside_a,
                                        {.publish = {udp(5353, 53)},
                                         .ingress = allow_all().deny("10.88.0.1"_ip, udp(9)),
                                         .egress = allow_all()
                                                       .allow("10.88.0.77"_ip)
                                                       .deny("10.88.0.9"_ip)
                                                       .deny("fd00:99::/64"_cidr, tcp(80))});
    std::optional<endpoint> b = connect("b", inside_b, {.egress = deny_all()});

    endpoint connect(const char* name, const private_netns& inside, attach_options how) const {
        return ns.run(
            [&] { return reserve(net.attach(std::move(how)), name).connect(inside.fd()); });
    }
    /// Sends `count` datagrams.
    static void send(const private_netns& from, ip_address to, std::uint16_t port, int count = 1,
                     std::optional<std::uint16_t> own_port = {}) {
        from.run([&] {
            const unique_fd fd(
                ::socket(to.is_v4() ? AF_INET : AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0));
            if (own_port) {
                const ip_address any = to.is_v4() ? "0.0.0.0"_ip : "::"_ip;
                const auto [own, size] = kumiki_test::endpoint_address(any, *own_port).to_kernel();
                sys::check(::bind(fd.get(), reinterpret_cast<const sockaddr*>(&own), size), "bind");
            }
            const auto [address, size] = kumiki_test::endpoint_address(to, port).to_kernel();
            for (int i = 0; i < count; ++i)
                (void)::sendto(fd.get(), "ping", 4, 0, reinterpret_cast<const sockaddr*>(&address),
                               size);
            return 0;
        });
    }
    /// The counter of the one rule that `nft` lists with this text.
    unsigned long counted(const std::string& marked) const {
        const std::string text = kumiki_test::witness(ns, "nft list ruleset");
        const auto at = text.find(marked);
        if (at == std::string::npos) return 0UL;
        const auto line = text.rfind('\n', at) + 1;
        const auto packets = text.find("packets ", line);
        return std::stoul(text.substr(packets + 8));
    }
};

task<std::optional<denial>> next(scheduler& io, stream<denial>& denied,
                                 std::chrono::milliseconds limit = 5s) {
    auto taken = co_await with_timeout(io, limit, denied.next());
    if (!taken) co_return std::nullopt;  // and the stream is at its end
    co_return std::move(*taken);
}

}  // namespace

TEST_CASE("A denied packet is told with its container, its rule and its addresses") {
    NEEDS_NETNS;
    const auto backend = GENERATE(io_backend::io_uring, io_backend::epoll);
    CAPTURE(to_string(backend));
    denials_host host;
    scheduler io({.backend = backend});
    auto denied = watch_denials(io, host.net);

    host.send(host.inside_a, "10.88.0.9"_ip, 443, 1, 40000);
    auto told = io.run(next(io, denied));
    REQUIRE(told);
    CHECK(told->rule == "a:out:1");
    CHECK(told->container == "a");
    CHECK(told->direction == flow_side::out);
    CHECK(told->packet ==
          flow_tuple{"10.88.0.2"_ip, "10.88.0.9"_ip, std::uint16_t{40000}, std::uint16_t{443}});
    CHECK(told->transport == 17);
    CHECK((told->in == "km-web" || told->in == host.a->host_link()));  // the latter by br_netfilter
    CHECK(told->lost == 0);
    CHECK(to_string(*told) == "a out 10.88.0.2:40000 to 10.88.0.9:443 protocol 17 by a:out:1");

    // A container without rules of its own, IPv4 and IPv6.
    host.send(host.inside_b, "10.88.0.9"_ip, 7);
    host.send(host.inside_b, "fd00:88::2"_ip, 8);
    std::vector<std::string> rules;
    for (int i = 0; i < 2; ++i) {
        told = io.run(next(io, denied));
        REQUIRE(told);
        CHECK(told->container == "b");
        rules.push_back(told->rule + " " + std::to_string(told->packet.destination_port));
    }
    CHECK(rules == std::vector<std::string>{"b:out:rest 7", "b:out:rest 8"});

    // A sibling's address that is not published.
    host.send(host.inside_a, "10.88.0.3"_ip, 9);
    told = io.run(next(io, denied));
    REQUIRE(told);
    CHECK(told->rule == "base:ingress:not published");
    CHECK(told->direction == flow_side::in);
    CHECK(told->container == "b");

    // The host is no peer.
    host.send(host.inside_a, "10.88.0.1"_ip, 22);
    told = io.run(next(io, denied));
    REQUIRE(told);
    CHECK(told->rule == "base:host:the host is not a peer");
    CHECK(told->container == "a");

    // An address that is not its own.
    auto routes = netlink_socket::open_in(host.inside_a.fd(), NETLINK_ROUTE);
    netlink_batch batch;
    add_address(batch, find_link(routes, "eth0")->index, "10.88.0.66/32"_cidr);
    routes.transact(batch);
    host.inside_a.run([] {
        const unique_fd fd(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
        const auto [own, size] = kumiki_test::endpoint_address("10.88.0.66"_ip, 0).to_kernel();
        sys::check(::bind(fd.get(), reinterpret_cast<const sockaddr*>(&own), size), "bind");
        const auto [to, to_size] = kumiki_test::endpoint_address("10.88.0.1"_ip, 7).to_kernel();
        (void)::sendto(fd.get(), "x", 1, 0, reinterpret_cast<const sockaddr*>(&to), to_size);
        return 0;
    });
    told = io.run(next(io, denied));
    REQUIRE(told);
    CHECK(told->rule == "base:sender:not its own address");
    CHECK(told->in == host.a->host_link());
    CHECK(told->packet.source == "10.88.0.66"_ip);
}

TEST_CASE("What was told and what was lost are together what the rule has counted") {
    NEEDS_NETNS;
    denials_host host;
    scheduler io;
    auto denied = watch_denials(io, host.net);
    constexpr int sent = 20000;  // far more than the queue has room for
    host.send(host.inside_a, "10.88.0.9"_ip, 443, sent);
    const unsigned long counted = host.counted("log prefix \"a:out:1\"");
    CHECK(counted > 5000);
    // The queue was full to its end: a packet that another rule denies, and is not lost, comes with
    // the number of those that were.
    const std::jthread others([&](const std::stop_token& stop) {
        while (!stop.stop_requested()) {
            host.send(host.inside_a, "10.88.0.3"_ip, 9);
            std::this_thread::sleep_for(50ms);
        }
    });
    unsigned long told = 0;
    unsigned long lost = 0;
    for (;;) {
        const auto each = io.run(next(io, denied));
        REQUIRE(each);
        lost += each->lost;
        if (each->rule == "a:out:1")
            ++told;
        else if (told + lost >= counted)
            break;
    }
    std::printf("counted %lu, told %lu, lost %lu\n", counted, told, lost);
    CHECK(lost > 0);
    CHECK(told + lost - counted < 100);  // of the others, some may be lost, too
}

TEST_CASE("There is one reader of a network's denials, and the next one may come after it") {
    NEEDS_NETNS;
    denials_host host;
    scheduler io;
    std::optional<stream<denial>> first = watch_denials(io, host.net);
    try {
        (void)watch_denials(io, host.net);
        FAIL("a second reader was let in");
    } catch (const error& refused) {
        INFO(refused.what());
        CHECK(refused.errno_value() == EBUSY);
        CHECK(refused.remedy().find("Another reader") != std::string::npos);
    }
    first.reset();
    auto second = watch_denials(io, host.net);
    host.send(host.inside_a, "10.88.0.9"_ip, 443);
    CHECK(io.run(next(io, second)));
}

TEST_CASE("A rule's place in its policy is the number that is told") {
    NEEDS_NETNS;
    denials_host host;
    scheduler io;
    host.a.reset();
    policy many = allow_all();
    for (std::uint16_t i = 0; i < 12; ++i)
        many.deny("10.88.0.9"_ip, udp(static_cast<std::uint16_t>(7000 + i)));
    host.a = host.connect("a", host.inside_a, {.egress = many});
    auto denied = watch_denials(io, host.net);
    for (std::uint16_t i = 0; i < 12; ++i) {
        host.send(host.inside_a, "10.88.0.9"_ip, static_cast<std::uint16_t>(7000 + i));
        const auto told = io.run(next(io, denied));
        REQUIRE(told);
        CHECK(told->rule == "a:out:" + std::to_string(i));
    }
}
