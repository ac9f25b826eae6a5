#include <signal.h>
#include <sys/wait.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include <kumiki/async/timeout.hpp>
#include <kumiki/netlink/neighbour.hpp>
#include <kumiki/network/endpoint.hpp>
#include <kumiki/network/rule_keeper.hpp>

#include "support/catch.hpp"
#include "support/netns.hpp"
#include "support/scratch.hpp"
#include "support/witness.hpp"

using namespace kumiki;
using namespace kumiki::literals;
using namespace std::chrono_literals;
using kumiki_test::private_netns;

namespace {

// A host of the test's own with a network and two containers: a may open nothing, b all.
struct keeper_host {
    kumiki_test::scratch place;
    private_netns ns;
    private_netns inside_a;
    private_netns inside_b;
    bridge_network net = ns.run([&] { return bridge_network::open(options()); });
    std::optional<endpoint> a =
        connect("a", inside_a,
                {.publish = {udp(5353, 53)}, .egress = deny_all().allow("192.0.2.0/24"_cidr)});
    std::optional<endpoint> b = connect("b", inside_b, {});

    bridge_options options() const {
        return {.name = "web", .subnet = "10.88.0.0/24"_cidr, .state_directory = place.path()};
    }
    endpoint connect(const char* name, const private_netns& inside, attach_options how) const {
        return ns.run(
            [&] { return reserve(net.attach(std::move(how)), name).connect(inside.fd()); });
    }
    void nft(const std::string& command) const {
        REQUIRE(ns.run([&] { return std::system(("nft " + command).c_str()); }) == 0);
    }
    std::string listed() const {
        // Counters differ, and so do handles.
        return kumiki_test::witness(ns, "nft -s list ruleset");
    }
    // Lines in any order: the kernel lists a set's elements and new chains in its own.
    std::vector<std::string> sorted() const {
        std::vector<std::string> lines;
        const std::string text = listed();
        for (std::string_view rest = text; const auto line = next_field(rest, '\n');) {
            std::string_view fields = *line;
            while (const auto field = next_field(fields, ',')) lines.emplace_back(trim(*field));
        }
        for (std::string& each : lines) {
            for (const char* const edge : {"elements = {", "}"})
                if (const auto at = each.find(edge); at != std::string::npos)
                    each.erase(at, std::string(edge).size());
            each = std::string(trim(each));
        }
        std::erase(lines, "");
        std::sort(lines.begin(), lines.end());
        return lines;
    }
};

task<std::optional<drift>> next(scheduler& io, stream<drift>& watch,
                                std::chrono::milliseconds limit = 10s) {
    auto taken = co_await with_timeout(io, limit, watch.next());
    if (!taken) co_return std::nullopt;  // and the stream is at its end
    co_return std::move(*taken);
}

}  // namespace

TEST_CASE("A foreign flush is healed for all containers, and told with who did it") {
    NEEDS_NETNS;
    const auto backend = GENERATE(io_backend::io_uring, io_backend::epoll);
    CAPTURE(to_string(backend));
    keeper_host host;
    const auto before = host.sorted();
    scheduler io({.backend = backend});
    auto watch = keep_rules(io, host.net);
    CHECK(host.sorted() == before);
    struct {
        const char* command;
        drift_kind kind;
    } const damages[] = {
        {"flush ruleset", drift_kind::table_gone},
        {"delete table inet kumiki-web", drift_kind::table_gone},
        {"delete table bridge kumiki-web", drift_kind::table_gone},
        {"flush table inet kumiki-web", drift_kind::rules_changed},
        {"flush chain inet kumiki-web egress", drift_kind::rules_changed},
        {"flush chain inet kumiki-web out-a", drift_kind::rules_changed},
        {"insert rule inet kumiki-web ingress accept", drift_kind::rules_changed},
        {"insert rule inet kumiki-web out-a accept", drift_kind::rules_changed},
        {"delete element inet kumiki-web egress4 '{ 10.88.0.3 }'", drift_kind::element_gone},
        {"flush set bridge kumiki-web sources4", drift_kind::element_gone},
        {"flush map inet kumiki-web publish4-any", drift_kind::element_gone},
    };
    for (const auto& damage : damages) {
        CAPTURE(damage.command);
        host.nft(damage.command);
        const auto told = io.run(next(io, watch));
        REQUIRE(told);
        INFO(told->what);
        CHECK(to_string(told->kind) == to_string(damage.kind));
        CHECK(told->by.starts_with("nft (pid "));
        CHECK(told->healed_in > 0ns);
        CHECK(host.sorted() == before);
    }
    CHECK_FALSE(io.run(next(io, watch, 50ms)));
}

TEST_CASE("Healing takes a few milliseconds") {
    NEEDS_NETNS;
    keeper_host host;
    scheduler io;
    auto watch = keep_rules(io, host.net);
    std::vector<std::chrono::nanoseconds> times;
    for (int i = 0; i < 21; ++i) {
        host.nft("flush ruleset");
        const auto told = io.run(next(io, watch));
        REQUIRE(told);
        times.push_back(*told->healed_in);
    }
    std::sort(times.begin(), times.end());
    const auto in_us = [](auto t) { return static_cast<long>(t / 1us); };
    std::printf("healed in (us): median %ld, worst %ld\n", in_us(times[10]), in_us(times[20]));
    CHECK(times[10] < 100ms);  // the goal is 10 ms, on a machine that is not crowded
}

TEST_CASE("What is no drift is not told: own changes, and other people's tables") {
    NEEDS_NETNS;
    keeper_host host;
    scheduler io;
    auto watch = keep_rules(io, host.net);
    private_netns inside_c;
    {
        const auto c = host.connect("c", inside_c, {.egress = deny_all().allow(tcp(80))});
        host.nft("add table inet theirs");
        host.nft("add chain inet theirs x '{ type filter hook forward priority 5; }'");
    }
    host.nft("delete table inet theirs");
    host.b.reset();
    // A second opening, as by another process, makes the shared rules anew.
    const auto second = host.ns.run([&] { return bridge_network::open(host.options()); });
    CHECK_FALSE(io.run(next(io, watch, 100ms)));
}

TEST_CASE("A flow that began while there were no rules does not outlive the gap") {
    NEEDS_NETNS;
    keeper_host host;
    scheduler io;
    auto watch = keep_rules(io, host.net);
    const auto server = kumiki_test::serve(host.inside_b, SOCK_DGRAM, "10.88.0.3"_ip, 7);
    // a may not open it; a client that keeps its port.
    const unique_fd client = host.inside_a.run(
        [] { return unique_fd(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0)); });
    const auto [to, size] = kumiki_test::endpoint_address("10.88.0.3"_ip, 7).to_kernel();
    REQUIRE(::connect(client.get(), reinterpret_cast<const sockaddr*>(&to), size) == 0);
    const auto arrives = [&](int wait) {
        char bytes[8];
        while (::recv(server.get(), bytes, sizeof bytes, MSG_DONTWAIT) > 0) continue;
        (void)::send(client.get(), "x", 1, 0);
        return kumiki_test::wait_for(server.get(), POLLIN, wait);
    };
    CHECK_FALSE(arrives(100));
    host.nft("flush ruleset");
    // The host forwards between its containers, and nothing keeps it from it: the gap is real. The
    // kernel tracks the flow for who asks it to.
    host.nft("add table inet theirs");
    host.nft("add chain inet theirs x '{ type filter hook forward priority 5; }'");
    host.nft("add rule inet theirs x ct state established accept");
    CHECK(arrives(3000));
    CHECK(arrives(3000));
    REQUIRE(io.run(next(io, watch)));
    CHECK_FALSE(arrives(100));
}

TEST_CASE("Connecting or replacing after a flush brings the others' rules back, too") {
    NEEDS_NETNS;
    keeper_host host;
    const auto before = host.sorted();
    host.nft("flush ruleset");
    host.b.reset();
    host.b = host.connect("b", host.inside_b, {.address = "10.88.0.3"_ip});
    CHECK(host.sorted() == before);
    // The way that a change of a policy takes.
    host.nft("flush ruleset");
    const auto network = host.net.attach().network;
    const firewall_rules rules = network->wall->connected().at(host.b->host_link());
    network->wall->replace(rules, rules);
    CHECK(host.sorted() == before);
    host.nft("flush ruleset");
    host.b.reset();
    const auto text = host.listed();
    CHECK(text.find("10.88.0.2 comment \"a\" : jump out-a") != std::string::npos);
    CHECK(text.find("comment \"b\"") == std::string::npos);
}

TEST_CASE("Two keepers heal one flush and leave each other in peace") {
    NEEDS_NETNS;
    keeper_host host;
    const auto other = host.ns.run([&] { return bridge_network::open(host.options()); });
    private_netns inside_c;
    // A set without a name of its own goes and comes with each change of its rule.
    const policy with_set =
        deny_all().allow(address_set{"192.0.2.0/24"_cidr, "198.51.100.1/32"_cidr});
    endpoint c = host.ns.run(
        [&] { return reserve(other.attach({.egress = with_set}), "c").connect(inside_c.fd()); });
    host.a->update({.egress = with_set});
    const auto before = host.sorted();
    scheduler io;
    auto first = keep_rules(io, host.net);
    auto second = keep_rules(io, other);
    host.nft("flush ruleset");
    CHECK(io.run(next(io, first)));
    CHECK(io.run(next(io, second)));
    CHECK(host.sorted() == before);
    CHECK_FALSE(io.run(next(io, first, 100ms)));
    CHECK_FALSE(io.run(next(io, second, 100ms)));
    c.update({.egress = deny_all().allow(address_set{"192.0.2.0/24"_cidr})});
    CHECK_FALSE(io.run(next(io, first, 100ms)));
    CHECK_FALSE(io.run(next(io, second, 100ms)));
}

TEST_CASE("A table that somebody switches off is switched on again") {
    NEEDS_NETNS;
    keeper_host host;
    const auto before = host.sorted();
    scheduler io;
    auto watch = keep_rules(io, host.net);
    for (const char* family : {"inet", "bridge"}) {
        CAPTURE(family);
        host.nft(std::string("add table ") + family + " kumiki-web '{ flags dormant; }'");
        REQUIRE(host.sorted() != before);
        const auto told = io.run(next(io, watch));
        REQUIRE(told);
        CHECK(told->kind == drift_kind::rules_changed);
        CHECK(host.sorted() == before);
    }
}

TEST_CASE("Containers whose process does not watch get nothing by a flush that another heals") {
    NEEDS_NETNS;
    keeper_host host;
    const auto other = host.ns.run([&] { return bridge_network::open(host.options()); });
    const private_netns inside_c;
    const private_netns inside_d;
    const auto connect = [&](const char* name, const private_netns& inside) {
        return host.ns.run([&] { return reserve(other.attach(), name).connect(inside.fd()); });
    };
    const endpoint c = connect("c", inside_c);
    const endpoint d = connect("d", inside_d);
    // Past the host, as nothing but the bridge stands between them.
    const auto see = [](const private_netns& ns, const endpoint& sibling) {
        auto route = netlink_socket::open_in(ns.fd(), NETLINK_ROUTE);
        const int link = find_link(route, "eth0")->index;
        const ip_address to = sibling.addresses().front();
        netlink_batch batch;
        add_route(batch, {.destination = {to, 32}, .link = link});
        set_neighbour(batch, link, to, mac_address::from(to));
        route.transact(batch);
    };
    see(inside_c, d);
    see(inside_d, c);
    const auto server = kumiki_test::serve(inside_d, SOCK_DGRAM, d.addresses().front(), 9);
    const auto arrives = [&](int wait) {
        return kumiki_test::reaches(inside_c, SOCK_DGRAM, d.addresses().front(), 9, server, wait)
            .has_value();
    };
    CHECK_FALSE(arrives(100));
    scheduler io;
    auto watch = keep_rules(io, host.net);
    host.nft("flush ruleset");
    CHECK(arrives(3000));  // the way is there, when there are no rules
    REQUIRE(io.run(next(io, watch)));
    CHECK_FALSE(arrives(200));
    host.nft("delete element bridge kumiki-web ports '{ \"" + host.b->host_link() + "\" }'");
    CHECK_FALSE(arrives(200));
}

TEST_CASE("A bridge or a port that somebody deletes is told") {
    NEEDS_NETNS;
    keeper_host host;
    scheduler io;
    auto watch = keep_rules(io, host.net);
    auto routes = netlink_socket::open_in(host.ns.fd(), NETLINK_ROUTE);
    netlink_batch batch;
    delete_link(batch, host.b->host_link());
    routes.transact(batch);
    auto told = io.run(next(io, watch));
    REQUIRE(told);
    CHECK(told->kind == drift_kind::port_gone);
    CHECK(told->what == "port " + host.b->host_link() + " of container b");
    CHECK_FALSE(told->healed_in);
    host.b.reset();
    netlink_batch bridge;
    delete_link(bridge, "km-web");
    routes.transact(bridge);
    bool bridge_told = false;
    while (!bridge_told) {
        told = io.run(next(io, watch));
        REQUIRE(told);
        bridge_told = told->kind == drift_kind::bridge_gone;
    }
    CHECK(told->what == "bridge km-web");
}
