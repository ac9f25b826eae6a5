// Which rule lets a packet pass or drops it, asked before anybody sends one; and what becomes of the rules
// when somebody flushes all of the host's: they are put back, and it is told who it was. One network
// namespace stands for the host, so that this machine's own is left alone, and a second one for a
// container. As root, and with the nft program, which is the one that flushes:
//
//   Port 8080:80/tcp is published, but nobody may reach it: in:rest (deny all that no rule allows).
//   Rule in:0 (allow everybody tcp 8080) is about a port of the host: the container's own is meant, as in 8080:80/tcp the last one.
//   udp 10.88.0.2:40000 to 192.0.2.53:53 passes by web:out:0
//   tcp 10.88.0.2:40000 to 192.0.2.1:443 is dropped by web:out:rest
//   tcp 198.51.100.7:40000 to 10.88.0.1:8080 passes by web:in:0, to 10.88.0.2:80
//   tcp 203.0.113.7:40000 to 10.88.0.1:8080 is dropped by web:in:rest, to 10.88.0.2:80
//   icmp 10.88.0.2 to 10.88.0.1 passes by web:out:1
//   table_gone by nft: rules are there again, as many as before
//   left behind: nothing
#include <sched.h>
#include <unistd.h>

#include <cstdlib>
#include <string>

#include <fmt/format.h>

#include <kumiki/async/timeout.hpp>
#include <kumiki/network/contradictions.hpp>
#include <kumiki/network/endpoint.hpp>
#include <kumiki/network/reconcile.hpp>
#include <kumiki/network/rule_counts.hpp>
#include <kumiki/network/rule_keeper.hpp>
#include <kumiki/ns/network_namespace.hpp>

using namespace kumiki;
using namespace kumiki::literals;
using namespace std::chrono_literals;

static void tell_fate(const bridge_network& net, const packet& asked) {
    const explanation fate = net.explain(asked);
    fmt::print("{} {} by {}{}\n", to_string(asked),
               fate.verdict == access::allow ? "passes" : "is dropped", fate.rule,
               fate.led_to ? ", to " + to_string(*fate.led_to) : "");
}

static void tell_fates(const bridge_network& net) {
    const packet question{.source = "10.88.0.2"_ip,
                          .destination = "192.0.2.53"_ip,
                          .transport = 17,
                          .source_port = 40000,
                          .destination_port = 53};
    tell_fate(net, question);
    packet other = question;
    other.destination = "192.0.2.1"_ip;
    other.transport = 6;
    other.destination_port = 443;
    tell_fate(net, other);
    for (const ip_address& client : {"198.51.100.7"_ip, "203.0.113.7"_ip})
        tell_fate(net, {.source = client,
                        .destination = net.gateway(),
                        .source_port = 40000,
                        .destination_port = 8080});
    tell_fate(net, {.source = "10.88.0.2"_ip, .destination = net.gateway(), .transport = 1});
}

static task<int> heal(scheduler& io, bridge_network net) {
    auto watch = keep_rules(io, net);
    auto kernel = netlink_socket::open(NETLINK_NETFILTER);
    const auto before = list_rule_counts(kernel, net.name()).size();
    if (std::system("nft flush ruleset") != 0)
        co_return 1;  // a firewall that is loaded anew does it
    auto told = co_await with_timeout(io, 5s, watch.next());
    if (!told || !*told) co_return 1;
    const drift& found = **told;
    const auto now = list_rule_counts(kernel, net.name()).size();
    fmt::print("{} by {}: rules are there again, {}\n", to_string(found.kind),
               found.by.substr(0, found.by.find(" (pid")),
               now == before ? "as many as before" : "but not all");
    co_return 0;
}

static int explain_and_heal() {
    const auto inside = make_network_namespace();
    auto net = bridge_network::open({.name = "heal", .subnet = "10.88.0.0/24"_cidr});
    attach_options options{.publish = {tcp(8080, 80)}, .ingress = deny_all().allow(tcp(8080))};
    for (const std::string& each : contradictions(options)) fmt::print("{}\n", each);

    const address_set offices{"198.51.100.0/25"_cidr, "2001:db8:7::/48"_cidr};
    options.ingress = deny_all().allow(offices, tcp(80), {.at_once = 100});
    options.egress = deny_all()
                         .allow("192.0.2.53"_ip, udp(53))
                         .allow(icmp(), {.packets = per_second(10)})
                         .allow(label{"database"}, tcp(5432))
                         .allow("192.0.2.0/24"_cidr, tcp(22), {.interface = "eth1"});
    const endpoint link = reserve(net.attach(options), "web").connect(inside.get());
    tell_fates(net);
    return kumiki::run([&](scheduler& io) { return heal(io, net); });
}

int main() try {
    if (::geteuid() != 0 || std::system("nft --version >/dev/null 2>&1") != 0) {
        fmt::print(stderr, "It takes root and the nft program.\n");
        return 77;
    }
    sys::check(::unshare(CLONE_NEWNET), "unshare");  // from here on, "the host"
    bring_loopback_up(namespace_fd::current(namespace_kind::net).get());
    const int status = explain_and_heal();

    const reconcile_report left = reconcile();  // what killed processes left would be removed
    const bool is_clean =
        left.networks.empty() && left.containers.empty() && left.unclaimed.empty();
    fmt::print("left behind: {}\n", is_clean ? "nothing" : "something");
    return status != 0 || !is_clean ? 1 : 0;
} catch (const error& failure) {
    fmt::print(stderr, "{}\n", failure.what());
    return 1;
}
