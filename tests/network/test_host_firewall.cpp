#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <string>
#include <vector>

#include <kumiki/network/endpoint.hpp>
#include <kumiki/network/host_firewall.hpp>

#include "support/catch.hpp"
#include "support/netns.hpp"
#include "support/scratch.hpp"
#include "support/witness.hpp"

using namespace kumiki;
using kumiki_test::private_netns;
using kumiki_test::witness;

namespace {

bool shell(const private_netns& in, const std::string& command) {
    return in.run([&] { return std::system(("exec >/dev/null 2>&1; " + command).c_str()); }) == 0;
}

/// What the observer is told while it lives.
struct notes : observer {
    std::vector<std::string> texts{};
    observer* before = set_observer(this);
    ~notes() override { set_observer(before); }
    void notice(std::string_view text) noexcept override { texts.emplace_back(text); }
    int count(const char* part) const {
        return static_cast<int>(std::count_if(
            texts.begin(), texts.end(),
            [&](const std::string& each) { return each.find(part) != std::string::npos; }));
    }
};

void load(const private_netns& in, const std::string& rules) {
    REQUIRE(shell(in, "nft -f - <<'END'\n" + rules + "\nEND\n"));
}

}  // namespace

TEST_CASE("Where nothing of others drops there is no obstacle") {
    NEEDS_NETNS;
    const private_netns ns;
    CHECK(find_obstacles(ns.fd(), "km-web").empty());
    load(ns,
         "table inet theirs {\n"
         "chain in { type filter hook input priority 0; policy drop; }\n"
         "chain f { type filter hook forward priority 0; ip saddr 192.0.2.7 drop; }\n}\n"
         "table inet kumiki-web {\n"
         "chain f { type filter hook forward priority 0; policy drop; }\n}");
    CHECK(find_obstacles(ns.fd(), "km-web").empty());
}

TEST_CASE("The forward policy of the iptables program is named, and its remedy removes it") {
    NEEDS_NETNS;
    const std::string form = GENERATE("nft", "legacy");
    const std::string tool = GENERATE("iptables", "ip6tables");
    CAPTURE(form, tool);
    const private_netns ns;
    const std::string program = tool + "-" + form;
    if (!shell(ns, program + " -P FORWARD DROP"))
        KUMIKI_SKIP(program + " is missing, or this kernel lacks its tables");
    const std::string before = witness(ns, program + "-save");
    const auto found = find_obstacles(ns.fd(), "km-web");
    CHECK(witness(ns, program + "-save") == before);
    REQUIRE(found.size() == 1);
    CHECK(found[0].owner == "iptables");
    CHECK(found[0].chain == "FORWARD");
    CHECK(found[0].table == std::string(tool == "iptables" ? "ip" : "ip6") + " filter" +
                                (form == "legacy" ? " (legacy)" : ""));
    CHECK(found[0].remedy ==
          tool + " -I FORWARD -i km-web -j ACCEPT; " + tool + " -I FORWARD -o km-web -j ACCEPT");
    // One direction is not enough, nor is a rule for an interface whose name begins alike.
    const auto run = [&](const std::string& arguments) {
        REQUIRE(shell(ns, program + " " + arguments));
    };
    run("-I FORWARD -i km-web -j ACCEPT");
    run("-I FORWARD -o km-web2 -j ACCEPT");
    CHECK(find_obstacles(ns.fd(), "km-web").size() == 1);
    run("-I FORWARD -o km-web -j ACCEPT");
    CHECK(find_obstacles(ns.fd(), "km-web").empty());
    // A last rule drops as a policy does.
    run("-P FORWARD ACCEPT");
    run("-F FORWARD");
    CHECK(find_obstacles(ns.fd(), "km-web").empty());
    run("-A FORWARD -p tcp -j DROP");
    CHECK(find_obstacles(ns.fd(), "km-web").empty());
    run("-A FORWARD -j DROP");
    CHECK(find_obstacles(ns.fd(), "km-web").size() == 1);
}

TEST_CASE("Docker and ufw are known by their chains, and told how they want to be asked") {
    NEEDS_NETNS;
    const std::string program = GENERATE("iptables-nft", "iptables-legacy");
    CAPTURE(program);
    const private_netns ns;
    if (!shell(ns, program + " -P FORWARD DROP"))
        KUMIKI_SKIP(program + " is missing, or this kernel lacks its tables");
    SECTION("Docker") {
        REQUIRE(
            shell(ns, program + " -N DOCKER-USER && " + program + " -A FORWARD -j DOCKER-USER"));
        auto found = find_obstacles(ns.fd(), "km-web");
        REQUIRE(found.size() == 1);
        CHECK(found[0].owner == "Docker");
        CHECK(found[0].remedy.starts_with("iptables -I DOCKER-USER -i km-web"));
        REQUIRE(shell(ns, program + " -I DOCKER-USER -i km-web -j ACCEPT && " + program +
                              " -I DOCKER-USER -o km-web -j ACCEPT"));
        CHECK(find_obstacles(ns.fd(), "km-web").empty());
    }
    SECTION("ufw") {
        REQUIRE(shell(ns, program + " -N ufw-user-forward && " + program +
                              " -A FORWARD -j ufw-user-forward"));
        const auto found = find_obstacles(ns.fd(), "km-web");
        REQUIRE(found.size() == 1);
        CHECK(found[0].owner == "ufw");
        CHECK(found[0].remedy == "ufw route allow in on km-web; ufw route allow out on km-web");
    }
}

TEST_CASE("A table that ends in a rejection, as firewalld's, is named") {
    NEEDS_NETNS;
    const private_netns ns;
    load(ns,
         "table inet firewalld {\n"
         "chain filter_FORWARD { type filter hook forward priority filter + 10; policy accept;\n"
         "ct state { established, related } accept\n jump zones\n"
         "reject with icmpx admin-prohibited\n}\n"
         "chain zones { }\n}");
    const std::string before = witness(ns, "nft list ruleset");
    const auto found = find_obstacles(ns.fd(), "km-web");
    CHECK(witness(ns, "nft list ruleset") == before);
    REQUIRE(found.size() == 1);
    CHECK(found[0].owner == "firewalld");
    CHECK(found[0].chain == "filter_FORWARD");
    CHECK(to_string(found[0]).find("--zone=trusted --add-interface=km-web") != std::string::npos);
    load(ns,
         "table inet firewalld {\n chain trusted { accept; }\n"
         "chain zones { iifname \"km-web\" goto trusted; oifname \"km-web\" goto trusted; }\n}");
    CHECK(find_obstacles(ns.fd(), "km-web").empty());
}

TEST_CASE("A table of anybody's is named with the rules that it wants") {
    NEEDS_NETNS;
    const private_netns ns;
    load(ns, "table ip mine { chain way { type filter hook forward priority 0; policy drop; }\n}");
    const auto found = find_obstacles(ns.fd(), "km-web");
    REQUIRE(found.size() == 1);
    CHECK(found[0].owner == "mine");
    // The remedy does what it says.
    REQUIRE(shell(ns, found[0].remedy));
    CHECK(find_obstacles(ns.fd(), "km-web").empty());
}

TEST_CASE(
    "With names on, what drops on the way to the host's port 53 is named, with what opens it") {
    NEEDS_NETNS;
    struct way {
        const char* owner;
        const char* setup;
        const char* remedy;
        const char* done;  // what the program makes of the remedy; null: the remedy is run
    };
    const way one = GENERATE(values<way>({
        {"iptables", "iptables-nft -P INPUT DROP",
         "iptables -I INPUT -i km-web -p udp --dport 53 -j ACCEPT; "
         "iptables -I INPUT -i km-web -p tcp --dport 53 -j ACCEPT",
         "iptables() { iptables-nft \"$@\"; }; "},
        {"iptables", "iptables-legacy -P INPUT DROP",
         "iptables -I INPUT -i km-web -p udp --dport 53 -j ACCEPT; "
         "iptables -I INPUT -i km-web -p tcp --dport 53 -j ACCEPT",
         "iptables() { iptables-legacy \"$@\"; }; "},
        {"ufw",
         "iptables-nft -N ufw-user-input; iptables-nft -N ufw-user-forward; "
         "iptables-nft -A INPUT -j ufw-user-input; iptables-nft -A FORWARD -j ufw-user-forward; "
         // what `ufw route allow in on km-web` has made says nothing of the input
         "iptables-nft -A ufw-user-forward -i km-web -j ACCEPT; iptables-nft -P INPUT DROP",
         "ufw allow in on km-web to any port 53",
         "iptables-nft -A ufw-user-input -i km-web -p tcp --dport 53 -j ACCEPT; "
         "iptables-nft -A ufw-user-input -i km-web -p udp --dport 53 -j ACCEPT #"},
        {"ufw",
         "iptables-legacy -N ufw-user-input; iptables-legacy -N ufw-user-forward; "
         "iptables-legacy -A INPUT -j ufw-user-input; "
         "iptables-legacy -A FORWARD -j ufw-user-forward; "
         "iptables-legacy -A ufw-user-forward -i km-web -j ACCEPT; "
         "iptables-legacy -P INPUT DROP",
         "ufw allow in on km-web to any port 53",
         "iptables-legacy -A ufw-user-input -i km-web -p tcp --dport 53 -j ACCEPT; "
         "iptables-legacy -A ufw-user-input -i km-web -p udp --dport 53 -j ACCEPT #"},
        {"firewalld",
         "nft -f - <<'END'\ntable inet firewalld {\n"
         "chain filter_INPUT { type filter hook input priority filter + 10; policy accept;\n"
         "ct state { established, related } accept\n jump filter_INPUT_ZONES\n"
         "reject with icmpx admin-prohibited\n}\n"
         "chain filter_INPUT_ZONES { }\n}\nEND\n",
         "firewall-cmd --permanent --zone=trusted --add-interface=km-web; firewall-cmd --reload",
         "nft 'add chain inet firewalld filter_IN_trusted { accept; }; "
         "add rule inet firewalld filter_INPUT_ZONES iifname km-web goto filter_IN_trusted' #"},
        {"mine",
         "nft -f - <<'END'\ntable inet mine {\n"
         "chain in { type filter hook input priority 0; policy drop; }\n}\nEND\n",
         "nft insert rule inet mine in iifname km-web meta l4proto { tcp, udp } th dport 53 accept",
         ""},
    }));
    CAPTURE(one.owner, one.setup);
    const private_netns host;
    const private_netns inside;
    const kumiki_test::scratch place;
    // A program that is missing: sh says 127; a kernel without the table: 3 or 4.
    if (!shell(host, one.setup)) KUMIKI_SKIP("this program or its table is missing here");
    const auto net = host.run([&] {
        return bridge_network::open({.name = "web",
                                     .subnet = {ip_address::parse("10.88.0.0"), 24},
                                     .names = name_service::on,
                                     .state_directory = place.path()});
    });
    const auto link = host.run([&] { return reserve(net.attach(), "a").connect(inside.fd()); });
    const auto gateway = ip_address::parse("10.88.0.1");
    const auto resolver = kumiki_test::serve(host, SOCK_DGRAM, gateway, 53);
    const auto asks = [&](int milliseconds) {
        return kumiki_test::reaches(inside, SOCK_DGRAM, gateway, 53, resolver, milliseconds)
            .has_value();
    };
    const auto found = find_obstacles(host.fd(), "km-web", name_service::on);
    REQUIRE(found.size() == 1);
    CHECK(found[0].owner == one.owner);
    CHECK(found[0].drops == dropped_traffic::names);
    CHECK(found[0].remedy == one.remedy);
    CHECK(to_string(found[0]).find(" drops what containers ask the resolver in table ") !=
          std::string::npos);
    CHECK(find_obstacles(host.fd(), "km-web").empty());
    CHECK_FALSE(asks(100));
    REQUIRE(shell(host, one.done + found[0].remedy));
    CHECK(asks(3000));
    CHECK(find_obstacles(host.fd(), "km-web", name_service::on).empty());
}

TEST_CASE("What lets packets of one hook go on says nothing of those of the other") {
    NEEDS_NETNS;
    const std::string program = GENERATE("iptables-nft", "iptables-legacy");
    CAPTURE(program);
    const private_netns ns;
    if (!shell(ns, program + " -P FORWARD DROP && " + program + " -P INPUT DROP"))
        KUMIKI_SKIP(program + " is missing, or this kernel lacks its tables");
    const auto dropped = [&] {
        std::vector<dropped_traffic> all;
        for (const auto& each : find_obstacles(ns.fd(), "km-web", name_service::on))
            all.push_back(each.drops);
        std::sort(all.begin(), all.end());
        return all;
    };
    using enum dropped_traffic;
    CHECK(dropped() == std::vector{forwarded, names});
    REQUIRE(shell(ns, program + " -N to-host && " + program + " -N around && " + program +
                          " -A INPUT -j to-host && " + program + " -A FORWARD -j around && " +
                          program + " -A to-host -i km-web -j ACCEPT && " + program +
                          " -A to-host -o km-web -j ACCEPT || true"));
    CHECK(dropped() == std::vector{forwarded});
    REQUIRE(shell(ns, program + " -F to-host && " + program + " -A around -i km-web -j ACCEPT && " +
                          program + " -A around -o km-web -j ACCEPT"));
    CHECK(dropped() == std::vector{names});
    // By one that both lead to.
    REQUIRE(shell(ns, program + " -A to-host -j around"));
    CHECK(dropped().empty());
}

TEST_CASE("A network that is made under a filter that drops tells its remedy, once, and goes on") {
    NEEDS_NETNS;
    const private_netns ns;
    const kumiki_test::scratch place;
    load(ns,
         "table ip mine {\n"
         "chain way { type filter hook forward priority 0; policy drop; }\n"
         "chain in { type filter hook input priority 0; policy drop; }\n}");
    const name_service names = GENERATE(name_service::off, name_service::on);
    notes told;
    const auto open = [&] {
        return ns.run([&] {
            return bridge_network::open(
                {.name = "web",
                 .subnet = {.address = ip_address::parse("10.88.0.0"), .prefix = 24},
                 .names = names,
                 .state_directory = place.path()});
        });
    };
    const auto net = open();
    const auto again = open();
    CHECK(told.count("nft insert rule ip mine way iifname km-web accept") == 1);
    CHECK(told.count("th dport 53 accept") == (names == name_service::on ? 1 : 0));
    CHECK(told.count("route_localnet") == 1);
}

TEST_CASE(
    "Where bridged IPv6 is filtered a network with IPv6 tells that ::1 does not reach its ports") {
    NEEDS_NETNS;
    const std::string filtered = GENERATE("0", "1");
    const bool has_ipv6 = GENERATE(true, false);
    CAPTURE(filtered, has_ipv6);
    const private_netns host;
    const private_netns inside;
    const kumiki_test::scratch place;
    // A bridge whose address is tentative yet sends nothing.
    if (!shell(host,
               "echo 0 | tee /proc/sys/net/ipv6/conf/all/accept_dad "
               "/proc/sys/net/ipv6/conf/default/accept_dad; ip link set lo up; echo " +
                   filtered + " > /proc/sys/net/bridge/bridge-nf-call-ip6tables"))
        KUMIKI_SKIP("this kernel has no br_netfilter, or no IPv6");
    notes told;
    const auto net = host.run([&] {
        bridge_options options{.name = "web",
                               .subnet = {ip_address::parse("10.88.0.0"), 24},
                               .state_directory = place.path()};
        if (has_ipv6) options.subnet6 = {ip_address::parse("fd00:88::"), 64};
        return bridge_network::open(options);
    });
    const auto link = host.run([&] {
        return reserve(net.attach({.publish = {tcp(8080, 80)}}), "a").connect(inside.fd());
    });
    CHECK(told.count("sysctl -w net.bridge.bridge-nf-call-ip6tables=0") ==
          (filtered == "1" && has_ipv6 ? 1 : 0));
    const auto server =
        kumiki_test::serve(inside, SOCK_STREAM, ip_address::parse(has_ipv6 ? "::" : "0.0.0.0"), 80);
    const auto reaches = [&](const char* to, int milliseconds) {
        return kumiki_test::reaches(host, SOCK_STREAM, ip_address::parse(to), 8080, server,
                                    milliseconds)
            .has_value();
    };
    CHECK(reaches("127.0.0.1", 3000));
    if (!has_ipv6) return;
    CHECK(reaches("::1", filtered == "1" ? 200 : 3000) == (filtered == "0"));
    if (filtered == "0") return;
    // What it tells is all that was in the way.
    REQUIRE(shell(host, "sysctl -w net.bridge.bridge-nf-call-ip6tables=0"));
    CHECK(reaches("::1", 3000));
}

TEST_CASE("No table's bytes make the parser read beyond them") {
    std::mt19937 random(4711);
    for (int round = 0; round < 50000; ++round) {
        std::vector<std::byte> entries(random() % 700);
        for (std::byte& each : entries)
            each = static_cast<std::byte>(random() % 3 == 0 ? random() : 0);
        const auto family = round % 2 == 0 ? ip_family::v4 : ip_family::v6;
        const std::size_t offsets = family == ip_family::v4 ? 88 : 140;
        if (entries.size() > offsets + 4) {
            const std::uint16_t parts[2] = {static_cast<std::uint16_t>(100 + random() % 120),
                                            static_cast<std::uint16_t>(140 + random() % 300)};
            std::memcpy(entries.data() + offsets, parts, sizeof parts);
        }
        (void)detail::parse_legacy_entries(
            {}, entries, family, "km-web",
            round % 3 == 0 ? nft::hook_point::input : nft::hook_point::forward);
    }
    SUCCEED("50000 of them");
}
