#include <string>
#include <vector>

#include <kumiki/network/bridge_rules.hpp>

#include "network/frames.hpp"
#include "network/lab.hpp"
#include "support/catch.hpp"
#include "support/netns.hpp"

using namespace kumiki;
using namespace kumiki::literals;
using namespace kumiki_test;

namespace {

const mac_address mac_a = mac_address::from("10.88.0.2"_ip);
const mac_address mac_b = mac_address::from("10.88.0.3"_ip);
const ip_address link_local_a = mac_a.link_local().address;
const ip_address link_local_b = mac_b.link_local().address;

/// The lab with a and b connected, both known to the host by their true Ethernet addresses.
struct two_siblings : lab {
    firewall wall = web();
    mac_address bridge_mac = find_link(host.routes, "km-web")->mac.value();

    two_siblings() {
        wall.connect(rules_of_a());
        wall.connect(rules_of_b());
        for (const char* const address : {"10.88.0.2", "10.88.0.3", "fd00:88::2", "fd00:88::3"}) {
            const auto at = ip_address::parse(address);
            const auto server = serve(
                (at == rules_of_a().addresses[0] || at == rules_of_a().addresses[1]) ? a.ns : b.ns,
                udp_type, at, 9);
            REQUIRE(reaches(host, udp_type, at, 9, server));
        }
        REQUIRE(learned(mac_a).find("km-a") != std::string::npos);
        REQUIRE(learned(mac_b).find("km-b") != std::string::npos);
    }
    /// The port behind which the bridge sees an Ethernet address, as its program tells.
    std::string learned(const mac_address& mac) const {
        return output_of(host, ("bridge fdb show br km-web | grep ^" + to_string(mac)).c_str());
    }
    /// The host's entry for a neighbour, as its program tells.
    std::string neighbour(const ip_address& address) const {
        return output_of(host, ("ip neigh show dev km-web " + to_string(address)).c_str());
    }
    void from_a(const mac_address& source, unsigned type, const byte_string& payload) const {
        send_frame(a.ns, "eth0", ethernet(bridge_mac, source, type, payload));
    }
};

bool has(const std::string& text, const std::string& part) {
    return text.find(part) != std::string::npos;
}

}  // namespace

TEST_CASE("A container sends from its own Ethernet address only, and moves no sibling's") {
    NEEDS_NETNS;
    const two_siblings net;
    const auto world = serve(net.outside.ns, udp_type, "0.0.0.0"_ip, 53);
    const auto packet = udp_packet("10.88.0.2"_ip, "192.0.2.2"_ip, 53);
    const auto arrives = [&](const mac_address& source) {
        net.from_a(source, 0x0800, packet);
        if (!kumiki_test::wait_for(world.get(), POLLIN, silence)) return false;
        char buffer[16];
        return ::recv(world.get(), buffer, sizeof buffer, 0) == 4;
    };
    CHECK(arrives(mac_a));
    CHECK_FALSE(arrives(mac_b));
    CHECK_FALSE(arrives(mac_address::parse("02:99:99:99:99:99")));
    CHECK_FALSE(arrives(net.bridge_mac));

    SECTION("by IPv4") {}
    SECTION("by ARP with its own addresses inside") {
        net.from_a(mac_b, 0x0806,
                   arp_answer(mac_a, "10.88.0.2"_ip, net.bridge_mac, "10.88.0.1"_ip));
    }
    SECTION("by ICMPv6") {
        net.from_a(mac_b, 0x86dd,
                   icmp6_packet("fd00:88::2"_ip, "fd00:88::1"_ip, {128, 0, 0, 0, 0, 0, 0, 0}));
        net.from_a(
            mac_b, 0x86dd,
            icmp6_packet(link_local_b, "fd00:88::1"_ip, solicitation("fd00:88::1"_ip, mac_b)));
    }
    SECTION("by a frame for the bridge itself, that no packet filter sees") {
        for (const char* const group :
             {"01:80:c2:00:00:0e", "01:80:c2:00:00:00", "01:80:c2:00:00:03", "01:80:c2:00:00:02"}) {
            mac_address to{.octets = {0x01, 0x80, 0xc2, 0, 0, 0}};
            to.octets[5] = static_cast<std::uint8_t>(
                std::string(group).back() == 'e' ? 0xe : std::string(group).back() - '0');
            send_frame(net.a.ns, "eth0", ethernet(to, mac_b, 0x88cc, byte_string(46)));
        }
    }
    SECTION("by a protocol that nobody speaks, and in a VLAN") {
        net.from_a(mac_b, 0x9999, byte_string(46));
        byte_string tagged;
        put(tagged, {0, 5, 8, 0});
        put(tagged, packet);
        net.from_a(mac_b, 0x8100, tagged);
    }
    CHECK(has(net.learned(mac_a), "km-a"));
    CHECK(has(net.learned(mac_b), "km-b"));
    CHECK_FALSE(has(net.learned(mac_b), "km-a"));
}

TEST_CASE("By ARP a container tells where it is itself, and nothing of others") {
    NEEDS_NETNS;
    const two_siblings net;
    const auto answer = [&](const mac_address& mac, ip_address address) {
        net.from_a(mac_a, 0x0806, arp_answer(mac, address, net.bridge_mac, "10.88.0.1"_ip));
    };
    answer(mac_a, "10.88.0.3"_ip);
    answer(mac_b, "10.88.0.3"_ip);
    answer(mac_b, "10.88.0.2"_ip);
    answer(mac_address::parse("02:99:99:99:99:99"), "10.88.0.2"_ip);
    CHECK(has(net.neighbour("10.88.0.2"_ip), to_string(mac_a)));
    CHECK(has(net.neighbour("10.88.0.3"_ip), to_string(mac_b)));
}

TEST_CASE("By neighbour discovery a container tells where it is itself, and nothing of others") {
    NEEDS_NETNS;
    const two_siblings net;
    const auto send = [&](ip_address from, const byte_string& message) {
        net.from_a(mac_a, 0x86dd, icmp6_packet(from, "fd00:88::1"_ip, message));
    };
    const auto own = "fd00:88::2"_ip;
    const auto sibling = "fd00:88::3"_ip;
    const auto nobody = mac_address::parse("02:99:99:99:99:99");
    for (const ip_address& from : {own, link_local_a, link_local_b, "fe80::7"_ip, "::"_ip}) {
        CAPTURE(to_string(from));
        send(from, advertisement(sibling, mac_a));
        send(from, advertisement(sibling, nobody));
        send(from, advertisement(link_local_b, mac_a));
        send(from, advertisement(own, nobody));
        send(from, advertisement(own, mac_b));
    }
    // The sender of a question is believed to be where it says.
    for (const ip_address& from : {sibling, link_local_b}) {
        send(from, solicitation("fd00:88::1"_ip, mac_a));
        send(from, router_solicitation(mac_a));
    }
    for (const ip_address& from : {own, link_local_a}) {
        send(from, solicitation("fd00:88::1"_ip, nobody));
        send(from, router_solicitation(nobody));
        // Behind another option, and behind a header of the network's.
        byte_string hidden = advertisement(own, nobody);
        const byte_string nonce{14, 1, 1, 2, 3, 4, 5, 6};
        hidden.insert(hidden.begin() + 24, nonce.begin(), nonce.end());
        send(from, hidden);
    }
    CHECK(has(net.neighbour(own), to_string(mac_a)));
    CHECK(has(net.neighbour(sibling), to_string(mac_b)));
    CHECK_FALSE(has(net.neighbour(link_local_b), to_string(mac_a)));
    CHECK_FALSE(has(net.neighbour(link_local_a), to_string(nobody)));
    // What is true comes through, with its answer or in its question.
    for (const bool asks : {false, true}) {
        output_of(net.host,
                  "ip neigh replace fd00:88::2 lladdr 02:00:00:00:00:01 dev km-web nud stale");
        send(own, asks ? solicitation("fd00:88::1"_ip, mac_a) : advertisement(own, mac_a));
        CHECK(has(net.neighbour(own), to_string(mac_a)));
    }
}

TEST_CASE("A container with an Ethernet address of its own choice speaks with that one") {
    NEEDS_NETNS;
    lab net;
    auto web = net.web();
    auto rules = rules_of_a();
    const auto world = serve(net.outside.ns, udp_type, "0.0.0.0"_ip, 53);
    const auto world6 = serve(net.outside.ns, udp_type, "::"_ip, 54);
    rules.mac = mac_address::parse("02:11:22:33:44:55");
    web.connect(rules);
    CHECK(is_silent(net.a, udp_type, "192.0.2.2"_ip, 53, world));
    net.a.set("eth0", {.mac = rules.mac});
    net.a.address("eth0", rules.mac->link_local());
    CHECK(reaches(net.a, udp_type, "192.0.2.2"_ip, 53, world));
    CHECK(reaches(net.a, udp_type, "2001:db8::2"_ip, 54, world6));
}
