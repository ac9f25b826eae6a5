#include <kumiki/netlink/mac.hpp>

#include "support/catch.hpp"

using namespace kumiki;
using namespace kumiki::literals;

TEST_CASE("The names that the kernel takes for an interface are taken") {
    CHECK(require_link_name("eth0") == "eth0");
    CHECK(require_link_name("0123456789abcde") == "0123456789abcde");
}

TEST_CASE("A name that cannot be an interface's is refused") {
    const auto name =
        GENERATE(std::string(), std::string("0123456789abcdef"), std::string("a/b"),
                 std::string("a b"), std::string("a:1"), std::string("."), std::string(".."),
                 std::string("a\nb"), std::string("a\0b", 3), std::string("eth%d"));
    CAPTURE(name);
    CHECK_THROWS_AS(require_link_name(name), invalid_input);
}

TEST_CASE("Ethernet addresses are parsed and printed") {
    const auto mac = mac_address::parse("02:00:0A:58:00:ff");
    CHECK(mac.octets == std::array<std::uint8_t, 6>{2, 0, 10, 0x58, 0, 0xff});
    CHECK(to_string(mac) == "02:00:0a:58:00:ff");
    const auto bad = GENERATE("", "02:00:0a:58:00", "02:00:0a:58:00:ff:01", "2:0:a:58:0:ff",
                              "02-00-0a-58-00-ff", "02:00:0a:58:00:fg", "03:00:0a:58:00:ff",
                              "02:00:0a:58:00:ff ", "002:00:0a:58:00:f");
    CAPTURE(bad);
    CHECK_THROWS_AS(mac_address::parse(bad), invalid_input);
}

TEST_CASE("An Ethernet address made from an IP address is local and its own") {
    const auto mac = mac_address::from("10.88.0.2"_ip);
    CHECK(to_string(mac) == "02:00:0a:58:00:02");
    CHECK(mac_address::from("10.88.0.3"_ip) != mac);
    CHECK(mac_address::from("10.88.0.2"_ip, 1) != mac);
    CHECK(to_string(mac_address::from("fd00::1:2"_ip)) == "02:00:00:01:00:02");
}

TEST_CASE("The link-local address of an Ethernet address is the one that the kernel would make") {
    CHECK(to_string(mac_address::parse("02:00:0a:58:00:02").link_local()) == "fe80::aff:fe58:2/64");
    CHECK(to_string(mac_address::parse("52:54:00:12:34:56").link_local()) ==
          "fe80::5054:ff:fe12:3456/64");
}
