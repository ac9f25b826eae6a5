#include <array>
#include <chrono>

#include <kumiki/network/policy.hpp>

#include "support/catch.hpp"

using namespace kumiki;
using namespace kumiki::literals;

TEST_CASE("A policy without rules is its default") {
    CHECK(deny_all().verdict("192.0.2.1"_ip, tcp(80)) == access::deny);
    CHECK(allow_all().verdict("2001:db8::1"_ip, udp(53)) == access::allow);
}

TEST_CASE("The first rule that matches decides, in the order of writing") {
    const policy rules = deny_all()
                             .deny("10.0.0.66"_ip)
                             .allow("10.0.0.0/24"_cidr, tcp(443))
                             .deny("10.0.0.0/8"_cidr)
                             .allow(tcp(443));
    CHECK(rules.verdict("10.0.0.66"_ip, tcp(443)) == access::deny);
    CHECK(rules.verdict("10.0.0.65"_ip, tcp(443)) == access::allow);
    CHECK(rules.verdict("10.0.0.65"_ip, tcp(80)) == access::deny);
    CHECK(rules.verdict("10.0.0.65"_ip, udp(443)) == access::deny);
    CHECK(rules.verdict("10.9.0.1"_ip, tcp(443)) == access::deny);
    CHECK(rules.verdict("192.0.2.1"_ip, tcp(443)) == access::allow);
    CHECK(rules.verdict("2001:db8::1"_ip, tcp(443)) == access::allow);
    CHECK(rules.verdict("2001:db8::1"_ip, tcp(444)) == access::deny);
    CHECK(rules.rules().size() == 4);
}

TEST_CASE("A rule for a range of ports matches both ends and nothing beside them") {
    policy rules = allow_all();
    rules.deny("::/0"_cidr, udp(port_range{1000, 2000}));
    for (const auto port : std::array<std::uint16_t, 2>{1000, 2000})
        CHECK(rules.verdict("::1"_ip, udp(port)) == access::deny);
    for (const auto port : std::array<std::uint16_t, 2>{999, 2001})
        CHECK(rules.verdict("::1"_ip, udp(port)) == access::allow);
    CHECK(rules.verdict("127.0.0.1"_ip, udp(1500)) == access::allow);  // the other family
}

TEST_CASE("A rule without ports is about every protocol, one with ports about its own alone") {
    const policy closed = allow_all().deny("192.0.2.0/24"_cidr);
    CHECK(closed.verdict("192.0.2.9"_ip, 1, 0) == access::deny);  // ICMP
    const policy web = deny_all().allow("192.0.2.0/24"_cidr, tcp(80));
    CHECK(web.verdict("192.0.2.9"_ip, 1, 80) == access::deny);
}

TEST_CASE("The host bits of a network in a rule mean nothing") {
    const policy rules = deny_all().allow("192.0.2.77/24"_cidr);
    CHECK(rules.rules().front().peers == "192.0.2.0/24"_cidr);
    CHECK(rules.verdict("192.0.2.1"_ip, tcp(1)) == access::allow);
}

TEST_CASE("Malformed networks never become a rule") {
    for (const char* const text : {"", "10.0.0.0/33", "10.0.0.0/", "10.0.0/24", "10.0.0.0/-1", "/8",
                                   "10.0.0.0/8/8", "2001:db8::/129", "2001:db8::g/64", "any",
                                   "10.0.0.0 /8", "010.0.0.0/8", "10.0.0.0/08x"}) {
        CAPTURE(text);
        CHECK_THROWS_AS(deny_all().allow(cidr::parse(text)), invalid_input);
    }
}

TEST_CASE("A policy tells which of its rules decided") {
    const policy rules = deny_all().deny("10.0.0.66"_ip).allow(tcp(443));
    const auto by = [&](ip_address peer, std::uint16_t port) {
        return rules.decide({.peer = peer, .transport = 6, .port = port}).rule;
    };
    CHECK(by("10.0.0.66"_ip, 443) == 0U);
    CHECK(by("10.0.0.67"_ip, 443) == 1U);
    CHECK_FALSE(by("10.0.0.67"_ip, 80));
    CHECK(detail::rule_name("my-web", "out", 1) == "my-web:out:1");
    CHECK(detail::rule_name("my-web", "in", {}) == "my-web:in:rest");
}

TEST_CASE("Peers are sets, containers by name and by label, as well as networks") {
    const address_set office{"192.0.2.0/25"_cidr, "2001:db8::/32"_cidr};
    const policy rules = deny_all()
                             .allow(office, icmp())
                             .allow(label{"web"}, tcp(80))
                             .deny(container_name{"db"})
                             .allow(any_port(protocol::udp));
    const auto number = [](const auto& of) {
        return detail::member_number(detail::memberships::key(of));
    };
    detail::memberships members;
    members.add(number(label{"web"}), "10.88.0.2"_ip);
    members.add(number(container_name{"db"}), "10.88.0.3"_ip);
    members.add(number(label{"db"}), "10.88.0.4"_ip);  // a label is not a name
    const auto by = [&](ip_address peer, std::uint8_t transport, std::uint16_t port) {
        return rules
            .decide({.peer = peer, .transport = transport, .port = port, .members = &members})
            .rule;
    };
    CHECK(by("192.0.2.1"_ip, 1, 0) == 0U);
    CHECK(by("2001:db8::1"_ip, 58, 0) == 0U);
    CHECK_FALSE(by("192.0.2.129"_ip, 1, 0));
    CHECK(by("10.88.0.2"_ip, 6, 80) == 1U);
    CHECK_FALSE(by("10.88.0.2"_ip, 6, 81));
    CHECK(by("10.88.0.3"_ip, 17, 53) == 2U);
    CHECK(by("10.88.0.4"_ip, 17, 53) == 3U);
    // Where nobody is known by a name, rules about names are about nobody.
    CHECK(rules.verdict("10.88.0.2"_ip, tcp(80)) == access::deny);
    CHECK(to_string(rules.rules()[0]) ==
          "allow {192.0.2.0-192.0.2.127, 2001:db8::-2001:db8:ffff:ffff:ffff:ffff:ffff:ffff} icmp");
    CHECK(to_string(rules.rules()[2]) == "deny container db all traffic");
    CHECK_THROWS_AS(deny_all().allow(address_set{}), invalid_input);
}

TEST_CASE("A rule of an interface is about flows by it; by one that is not known it denies alone") {
    const policy open = allow_all().deny("192.0.2.0/24"_cidr, {}, {.interface = "eth1"});
    const policy closed = deny_all().allow("192.0.2.0/24"_cidr, {}, {.interface = "eth1"});
    const auto says = [](const policy& rules, std::optional<std::string_view> interface) {
        return rules.decide({.peer = "192.0.2.1"_ip, .transport = 6, .interface = interface})
            .verdict;
    };
    CHECK(says(open, "eth1") == access::deny);
    CHECK(says(open, "eth0") == access::allow);
    CHECK(says(open, {}) == access::deny);
    CHECK(says(closed, "eth1") == access::allow);
    CHECK(says(closed, "eth0") == access::deny);
    CHECK(says(closed, {}) == access::deny);
    CHECK_THROWS_AS(deny_all().allow(tcp(80), {.interface = "sixteen-bytes-16"}), invalid_input);
}

TEST_CASE("Rates are of what is allowed, and at least one of something") {
    CHECK_NOTHROW(deny_all().allow(tcp(80), {.connections = per_second(10)}));
    CHECK_THROWS_AS(allow_all().deny(tcp(80), {.connections = per_second(10)}), invalid_input);
    CHECK_THROWS_AS(allow_all().deny(tcp(80), {.packets = per_second(10)}), invalid_input);
    CHECK_THROWS_AS(allow_all().deny(tcp(80), {.at_once = 10}), invalid_input);
    CHECK_THROWS_AS(deny_all().allow(tcp(80), {.at_once = 0}), invalid_input);
    CHECK_THROWS_AS(deny_all().allow(tcp(80), {.packets = per_second(0)}), invalid_input);
    CHECK_THROWS_AS(
        deny_all().allow(tcp(80), {.connections = rate{.every = std::chrono::seconds(0)}}),
        invalid_input);
    CHECK_THROWS_AS(deny_all().allow(tcp(80), {.connections = rate{.burst = 0}}), invalid_input);
    CHECK(to_string(deny_all().allow(tcp(80), {.connections = per_minute(6)}).rules()[0]) ==
          "allow everybody tcp 80, flows: 6 in 60 s, 6 at once");
}
