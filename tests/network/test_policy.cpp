#include <array>

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
    CHECK(rules.decide("10.0.0.66"_ip, 6, 443).rule == 0U);
    CHECK(rules.decide("10.0.0.67"_ip, 6, 443).rule == 1U);
    CHECK_FALSE(rules.decide("10.0.0.67"_ip, 6, 80).rule);
    CHECK(detail::rule_name("my-web", "out", 1) == "my-web:out:1");
    CHECK(detail::rule_name("my-web", "in", {}) == "my-web:in:rest");
}
