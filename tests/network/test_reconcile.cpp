#include <signal.h>
#include <sys/wait.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include <kumiki/network/endpoint.hpp>
#include <kumiki/network/endpoint_change.hpp>
#include <kumiki/network/reconcile.hpp>

#include "support/catch.hpp"
#include "support/netns.hpp"
#include "support/scratch.hpp"
#include "support/witness.hpp"

using namespace kumiki;
using namespace kumiki::literals;
using namespace std::chrono_literals;
using kumiki_test::private_netns;

namespace {

// A host of the test's own, and processes that use its networks.
struct reconciled_host {
    kumiki_test::scratch place;
    private_netns ns;
    private_netns inside;

    reconciled_host() { bring_loopback_up(ns.fd()); }
    bridge_options options() const {
        return {.name = "web",
                .subnet = "10.88.0.0/24"_cidr,
                .subnet6 = "fd00:88::/64"_cidr,
                .state_directory = place.path()};
    }
    bridge_network open() const {
        return ns.run([&] { return bridge_network::open(options()); });
    }
    attach_options rules() const {
        return {.publish = {tcp(8080, 80), published_port::parse("127.0.0.1:90:90")},
                .ingress = deny_all().allow("192.0.2.0/24"_cidr),
                .egress = deny_all().allow(tcp(443))};
    }
    endpoint connect(const bridge_network& net, const std::string& name) const {
        return ns.run([&] { return reserve(net.attach(rules()), name).connect(inside.fd()); });
    }
    /// A process with a container called `name`, or with one after the other.
    pid_t start(const std::string& name, bool for_ever) const {
        int ready[2];
        REQUIRE(::pipe2(ready, O_CLOEXEC) == 0);
        const pid_t child = ::fork();
        if (child == 0) {
            try {
                if (!for_ever) (void)!::write(ready[1], "x", 1);
                do {
                    const auto net = open();
                    const auto link = connect(net, name);
                    if (for_ever) (void)!::write(ready[1], "x", 1);
                    while (for_ever) ::pause();
                } while (true);
            } catch (const error& failure) {
                std::fprintf(stderr, "%s\n", failure.what());
            }
            ::_exit(1);
        }
        REQUIRE(child > 0);
        ::close(ready[1]);
        char byte = 0;
        CHECK(::read(ready[0], &byte, 1) == 1);
        ::close(ready[0]);
        return child;
    }
    static void kill(pid_t child) {
        REQUIRE(::kill(child, SIGKILL) == 0);
        int status = 0;
        REQUIRE(::waitpid(child, &status, 0) == child);
        CHECK(WIFSIGNALED(status));
    }
    reconcile_report reconcile() const {
        return ns.run([&] { return kumiki::reconcile({.state_directory = place.path()}); });
    }
    std::string ruleset() const { return kumiki_test::witness(ns, "nft -s list ruleset"); }
    std::vector<std::string> traces() const {
        std::vector<std::string> found = kumiki_test::names_in(place.path());
        auto socket = netlink_socket::open_in(ns.fd(), NETLINK_ROUTE);
        for (const auto& link : list_links(socket))
            if (link.name.starts_with("km")) found.push_back(link.name);
        for (const auto& route : list_routes(socket)) found.push_back(to_string(route));
        if (const auto rules = ruleset(); !rules.empty()) found.push_back(rules);
        return found;
    }
};

}  // namespace

TEST_CASE("Where nothing was left there is nothing to do, and nothing is made") {
    NEEDS_NETNS;
    const reconciled_host host;
    const auto report = host.reconcile();
    CHECK(report.networks.empty());
    CHECK(report.containers.empty());
    CHECK(report.unclaimed.empty());
    CHECK(host.traces().empty());
}

TEST_CASE("What a killed process left goes, with the switch for forwarding") {
    NEEDS_NETNS;
    const reconciled_host host;
    const auto forwarding = [&] {
        return host.ns.run([] {
            return std::string(
                trim(sys::read_file_at(AT_FDCWD, "/proc/sys/net/ipv6/conf/all/forwarding")));
        });
    };
    const pid_t child = host.start("box", true);
    CHECK(forwarding() == "1");
    host.kill(child);
    CHECK_FALSE(host.traces().empty());
    const auto report = host.reconcile();
    CHECK(report.networks == std::vector<std::string>{"web"});
    CHECK(host.traces().empty());
    CHECK(forwarding() == "0");
    CHECK(host.reconcile().networks.empty());
}

TEST_CASE("At whatever moment a process is killed, nothing of it is left") {
    NEEDS_NETNS;
    const reconciled_host host;
    int left = 0;
    for (int round = 0; round < 40; ++round) {
        CAPTURE(round);
        const pid_t child = host.start("box", false);
        std::this_thread::sleep_for(std::chrono::microseconds(700) * round);
        host.kill(child);
        left += host.traces().empty() ? 0 : 1;
        (void)host.reconcile();
        REQUIRE(host.traces() == std::vector<std::string>{});
    }
    CHECK(left > 10);  // most of them had left something
}

TEST_CASE("In a network that lives, the dead container goes and the living one stays") {
    NEEDS_NETNS;
    const reconciled_host host;
    const pid_t child = host.start("dead", true);  // first: a fork shares the parent's locks
    const auto net = host.open();
    private_netns inside;
    const endpoint link =
        host.ns.run([&] { return reserve(net.attach(), "living").connect(inside.fd()); });
    const auto alone = [&] {
        const std::string rules = host.ruleset();
        return rules.find("\"dead\"") == std::string::npos &&
               rules.find("out-dead") == std::string::npos &&
               rules.find("in-dead") == std::string::npos;
    };
    CHECK_FALSE(alone());
    CHECK(host.reconcile().containers.empty());  // both live
    CHECK_FALSE(alone());
    host.kill(child);
    const auto report = host.reconcile();
    CHECK(report.networks.empty());
    CHECK(report.containers == std::vector<std::string>{"web/dead"});
    CHECK(alone());
    CHECK(host.ruleset().find("10.88.0.3 comment \"living\"") != std::string::npos);
    auto socket = netlink_socket::open_in(host.ns.fd(), NETLINK_ROUTE);
    int ports = 0;
    for (const auto& each : list_links(socket)) ports += each.kind == "veth" ? 1 : 0;
    CHECK(ports == 1);
    CHECK(find_link(socket, link.host_link()));
}

TEST_CASE("What is in no directory that is known is told, and stays") {
    NEEDS_NETNS;
    const reconciled_host host;
    const auto net = host.open();
    const kumiki_test::scratch elsewhere;
    const auto report =
        host.ns.run([&] { return kumiki::reconcile({.state_directory = elsewhere.path()}); });
    CHECK(report.unclaimed == std::vector<std::string>{"web"});
    auto socket = netlink_socket::open_in(host.ns.fd(), NETLINK_ROUTE);
    CHECK(find_link(socket, "km-web"));
    CHECK(host.reconcile().unclaimed.empty());
    CHECK(find_link(socket, "km-web"));
}

// As nft(8) and iptables-save(8) tell them, but for what packets count up and when they were told.
TEST_CASE("The rules of others are byte for byte what they were at each step of a network's life") {
    NEEDS_NETNS;
    if (!kumiki_test::has_witness("nft")) KUMIKI_SKIP("there is no nft program");
    const reconciled_host host;
    const std::string made = kumiki_test::witness(host.ns, R"(nft -f - <<'END'
table inet theirs {
    set friends { type ipv4_addr; flags interval; elements = { 192.0.2.0/24, 203.0.113.7 } }
    set seen { type ipv6_addr . inet_service; timeout 1h; }
    map ways { type inet_service : verdict; elements = { 22 : accept, 25 : drop } }
    map hosts { type inet_service : ipv4_addr; elements = { 8080 : 10.88.0.2 } }
    chain mine { ip saddr @friends accept; tcp dport vmap @ways; }
    chain in { type filter hook input priority -5; policy accept; jump mine; }
    chain forward { type filter hook forward priority -5; policy accept; ct state invalid drop; }
    chain nat { type nat hook prerouting priority -105; dnat ip to tcp dport map @hosts; }
}
table bridge theirs {
    chain f { type filter hook forward priority 5; ether type arp accept; }
}
table ip6 kumiki-other {
    chain c { type filter hook output priority 0; ip6 daddr fd00:99::/64 drop; }
}
END
for family in iptables ip6tables; do for form in nft legacy; do
    $family-$form -N DOCKER-USER && $family-$form -A FORWARD -j DOCKER-USER &&
    $family-$form -A DOCKER-USER -p tcp --dport 25 -j DROP &&
    $family-$form -t nat -A POSTROUTING -o up0 -j MASQUERADE
done; done)");
    const auto theirs = [&] {
        return kumiki_test::witness(
            host.ns,
            "nft list tables | grep -v -e 'kumiki-web' -e 'kumiki-guard' | while read -r table; do "
            "echo $table; nft -j -a -s list $table; done; "
            "for family in iptables ip6tables; do for form in nft legacy; do "
            "echo $family-$form; $family-$form-save; done; done | "
            "sed -e 's/ \\[[0-9]*:[0-9]*\\]//' -e '/^# [GC]/d'");
    };
    const std::string before = theirs();
    INFO(made);
    // All of it was made, and is told.
    for (const char* const part :
         {"203.0.113.7", "DOCKER-USER", "kumiki-other", "bridge theirs", "MASQUERADE"})
        REQUIRE(kumiki_test::says(before, part));
    {
        std::optional<bridge_network> net = host.open();
        CHECK(theirs() == before);
        endpoint link = host.connect(*net, "box");
        CHECK(theirs() == before);
        link.update({.publish = std::vector<published_port>{tcp(8081, 80), udp(53, 53)},
                     .ingress = allow_all().deny("192.0.2.0/24"_cidr),
                     .egress = deny_all()});
        CHECK(theirs() == before);
        host.reconcile();
        CHECK(theirs() == before);
        link.disconnect();
        CHECK(theirs() == before);
    }
    CHECK(theirs() == before);
    host.kill(host.start("box", true));
    CHECK(theirs() == before);
    const auto report = host.reconcile();
    CHECK(report.networks == std::vector<std::string>{"web"});
    CHECK(theirs() == before);
    CHECK_FALSE(kumiki_test::says(host.ruleset(), "kumiki-web"));
}

TEST_CASE("Rules that live with their process are nobody else's, and go with it, also killed") {
    NEEDS_NETNS;
    const reconciled_host host;
    auto options = host.options();
    options.rules = rule_lifetime::with_process;
    const auto open = [&] { return host.ns.run([&] { return bridge_network::open(options); }); };
    const auto run = [&](const std::string& command) {
        return host.ns.run([&] { return std::system((command + " 2>/dev/null").c_str()); });
    };
    const auto has_rules = [&] { return host.ruleset().find("kumiki-web") != std::string::npos; };
    int ready[2];
    REQUIRE(::pipe2(ready, O_CLOEXEC) == 0);
    const pid_t child = ::fork();
    if (child == 0) {
        try {
            const auto net = open();
            { const auto first = host.connect(net, "first"); }
            const auto link = host.connect(net, "box");
            const auto wall = net.attach().network;
            auto after = wall->wall->connected().at(link.host_link());
            after.egress = deny_all().allow(udp(53));
            wall->wall->replace(wall->wall->connected().at(link.host_link()), after);
            wall->wall->reassert();
            (void)!::write(ready[1], "x", 1);
            for (;;) ::pause();
        } catch (const error& failure) {
            std::fprintf(stderr, "%s\n", failure.what());
        }
        ::_exit(1);
    }
    REQUIRE(child > 0);
    ::close(ready[1]);
    char byte = 0;
    CHECK(::read(ready[0], &byte, 1) == 1);
    ::close(ready[0]);
    CHECK(host.ruleset().find("udp dport") == std::string::npos);  // an egress rule is of the flow
    CHECK(host.ruleset().find("ct original proto-dst 53") != std::string::npos);
    // A flush passes them over, and a change is refused.
    CHECK(run("nft flush ruleset") == 0);
    CHECK(has_rules());
    CHECK(run("nft delete table inet kumiki-web") != 0);
    CHECK(run("nft flush chain inet kumiki-web egress") != 0);
    CHECK(run("nft delete element inet kumiki-web egress4 '{ 10.88.0.3 }'") != 0);
    try {
        (void)open();
        FAIL("a second process opened it");
    } catch (const error& refused) {
        INFO(refused.what());
        CHECK(refused.errno_value() == EEXIST);
    }
    CHECK_THROWS_AS(host.open(), error);  // nor with shared rules
    CHECK(has_rules());
    reconciled_host::kill(child);
    CHECK_FALSE(has_rules());
    CHECK(host.reconcile().networks == std::vector<std::string>{"web"});
    CHECK(host.traces().empty());
    // Shared ones had stayed behind: they are replaced.
    reconciled_host::kill(host.start("box", true));
    CHECK(has_rules());
    {
        const auto net = open();
        CHECK(run("nft delete table inet kumiki-web") != 0);
    }
    CHECK(host.traces().empty());
}
