#include <kumiki/network/bridge_options.hpp>

#include "support/catch.hpp"

using namespace kumiki;
using namespace kumiki::literals;

namespace {

bridge_options good() {
    return {.name = "web", .subnet = "10.88.0.0/24"_cidr, .subnet6 = "fd00:88::/64"_cidr};
}

}  // namespace

TEST_CASE("The guard's name, and rules that die before a user's bridge is put back, are refused") {
    bridge_options options{.name = "guard", .subnet = "10.88.0.0/24"_cidr};
    CHECK_THROWS_AS(detail::require_bridge_options(options), invalid_input);
    options.name = "web";
    options.rules = rule_lifetime::with_process;
    CHECK_NOTHROW(detail::require_bridge_options(options));
    options.existing_bridge = "br0";
    CHECK_THROWS_AS(detail::require_bridge_options(options), invalid_input);
}

TEST_CASE("Good options are taken as they are") {
    auto options = good();
    CHECK(detail::require_bridge_options(options).name == "web");
    options.name = "0123456789ab";
    options.mtu = 1280;
    CHECK(detail::require_bridge_options(options).mtu == 1280U);
}

TEST_CASE("A name that cannot be a network's is refused") {
    auto options = good();
    options.name = GENERATE("", "0123456789abc", "a b", "a/b", ".a", "-a", "a:b", "\xc3\xa4");
    CAPTURE(options.name);
    CHECK_THROWS_AS(detail::require_bridge_options(options), invalid_input);
}

TEST_CASE("A subnet that cannot be a container network's is refused") {
    auto options = good();
    options.subnet = GENERATE("10.88.0.0/31"_cidr, "10.0.0.0/7"_cidr, "127.0.0.0/8"_cidr,
                              "224.0.0.0/8"_cidr, "0.0.0.0/8"_cidr, "fd00::/64"_cidr, "::/0"_cidr);
    CAPTURE(to_string(options.subnet));
    CHECK_THROWS_AS(detail::require_bridge_options(options), invalid_input);
}

TEST_CASE("An IPv6 subnet that cannot be a container network's is refused") {
    auto options = good();
    options.subnet6 = GENERATE("fd00::/127"_cidr, "fd00::/32"_cidr, "::/64"_cidr, "fe80::/64"_cidr,
                               "ff02::/64"_cidr, "10.89.0.0/24"_cidr, cidr{});
    CAPTURE(to_string(*options.subnet6));
    CHECK_THROWS_AS(detail::require_bridge_options(options), invalid_input);
}

TEST_CASE("An MTU out of range and a relative state directory are refused") {
    auto options = good();
    SECTION("small") { options.mtu = 1279; }
    SECTION("large") { options.mtu = 65536; }
    SECTION("relative") { options.state_directory = "run"; }
    SECTION("empty") { options.state_directory = ""; }
    CHECK_THROWS_AS(detail::require_bridge_options(options), invalid_input);
}

TEST_CASE("Networks may be left to be chosen, from pools that have room for one") {
    auto options = good();
    options.subnet = {};
    options.subnet6 = "::/0"_cidr;
    options.pools = {"10.0.0.0/8"_cidr, "192.0.2.0/24"_cidr};
    CHECK(detail::require_bridge_options(options).pools.size() == 2);
    options.pools = {GENERATE("192.0.2.0/25"_cidr, "fd00::/16"_cidr, "127.0.0.0/8"_cidr)};
    CHECK_THROWS_AS(detail::require_bridge_options(options), invalid_input);
}

TEST_CASE("An existing bridge must have a name that can be, and keeps its MTU") {
    auto options = good();
    options.existing_bridge = "br0";
    CHECK(detail::require_bridge_options(options).existing_bridge == "br0");
    SECTION("name") { options.existing_bridge = "0123456789abcdef"; }
    SECTION("MTU") { options.mtu = 1400; }
    CHECK_THROWS_AS(detail::require_bridge_options(options), invalid_input);
}
