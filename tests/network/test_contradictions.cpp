#include <string>
#include <vector>

#include <kumiki/network/contradictions.hpp>

#include "support/catch.hpp"

using namespace kumiki;
using namespace kumiki::literals;

namespace {
using sentences = std::vector<std::string>;
}

TEST_CASE("Options that say nothing against themselves have no contradictions") {
    CHECK(contradictions({}).empty());
    CHECK(contradictions({.publish = {tcp(8080, 80)}}).empty());
    CHECK(contradictions({.publish = {tcp(8080, 80), udp(5353, 53)},
                          .ingress = deny_all().allow(tcp(80)).allow("192.0.2.0/24"_cidr, udp(53)),
                          .egress = deny_all().allow("192.0.2.0/24"_cidr).allow(icmp())})
              .empty());
    // Part of the clients denied is what a policy is for; so is one family.
    CHECK(contradictions({.publish = {tcp(8080, 80)}, .ingress = allow_all().deny("::/0"_cidr)})
              .empty());
    CHECK(contradictions({.publish = {tcp(8080, 80)}, .ingress = deny_all().allow(label{"web"})})
              .empty());
}

TEST_CASE("A published port that nobody may reach is told, with the rule that closes it") {
    CHECK(
        contradictions({.publish = {tcp(8080, 80)}, .ingress = deny_all()}) ==
        sentences{"Port 8080:80/tcp is published, but nobody may reach it: in:rest (deny all that "
                  "no rule allows)."});
    CHECK(contradictions({.publish = {tcp(8080, 80), udp(5353, 53)},
                          .ingress = allow_all().deny("192.0.2.1"_ip).deny(tcp(80))}) ==
          sentences{"Port 8080:80/tcp is published, but nobody may reach it: in:1 (deny everybody "
                    "tcp 80)."});
    CHECK(contradictions(
              {.publish = {published_port::parse("192.0.2.1:8000-8005:1000-1005")},
               .ingress = allow_all().deny("0.0.0.0/0"_cidr, tcp(port_range{1002, 1003}))}) ==
          sentences{"Port 192.0.2.1:8000-8005:1000-1005/tcp is published, but nobody may reach its "
                    "port 1002: in:0 (deny 0.0.0.0/0 tcp 1002-1003)."});
    // One family alone is published, and just that one is closed.
    CHECK(contradictions({.publish = {published_port::parse("[::]:8080:80")},
                          .ingress = deny_all().allow("192.0.2.0/24"_cidr)})
              .size() == 1);
}

TEST_CASE("A rule that never decides is told, with the one before it") {
    CHECK(contradictions(
              {.egress = allow_all().deny("10.0.0.0/8"_cidr).allow("10.1.2.3"_ip, tcp(443))}) ==
          sentences{"Rule out:1 (allow 10.1.2.3/32 tcp 443) never decides: out:0 (deny 10.0.0.0/8 "
                    "all traffic) comes before it."});
    const auto closed = contradictions(
        {.publish = {tcp(8080, 80)},
         .ingress = deny_all().deny("192.0.0.0/16"_cidr).allow("192.0.2.0/24"_cidr, tcp(80))});
    REQUIRE(closed.size() == 2);
    CHECK(closed[0].find("nobody may reach it") != std::string::npos);
    CHECK(closed[1].find("Rule in:1") == 0);
    // By one interface, or of one kind, is not all of it.
    CHECK(contradictions({.egress = allow_all()
                                        .deny("10.0.0.0/8"_cidr, {}, {.interface = "eth1"})
                                        .allow("10.1.2.3"_ip)
                                        .deny("10.1.2.0/24"_cidr, udp(53))})
              .empty());
}

TEST_CASE("A rule about the host's port is told, where the container's is meant") {
    CHECK(contradictions({.publish = {tcp(8080, 80)}, .ingress = allow_all().deny(tcp(8080))}) ==
          sentences{
              "Rule in:0 (deny everybody tcp 8080) is about a port of the host: the container's "
              "own is meant, as in 8080:80/tcp the last one."});
    CHECK(contradictions({.publish = {tcp(8080, 80), tcp(80, 8080)},
                          .ingress = allow_all().deny("192.0.2.1"_ip, tcp(8080))})
              .empty());
}
