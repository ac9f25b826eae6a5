#include <arpa/inet.h>

#include <random>

#include <kumiki/core/ip.hpp>

#include "support/catch.hpp"

using namespace kumiki;
using namespace kumiki::literals;
using namespace std::string_view_literals;

static_assert("10.88.0.0/24"_cidr.prefix == 24);
static_assert("::1"_ip.is_loopback());
static_assert("10.0.0.1"_ip < "10.0.0.2"_ip);

namespace {

/// What the libc makes of it: 4 or 16 bytes, or nothing.
std::optional<std::string> libc_bytes(int family, const std::string& text) {
    unsigned char raw[16];
    if (::inet_pton(family, text.c_str(), raw) != 1) return std::nullopt;
    return std::string(reinterpret_cast<char*>(raw), family == AF_INET ? 4 : 16);
}

std::string bytes_of(const ip_address& address) {
    return {reinterpret_cast<const char*>(address.data()), address.size()};
}

}  // namespace

TEST_CASE("IPv4 addresses are four numbers") {
    CHECK(ip_address::parse("192.0.2.1") == ip_address(std::array<std::uint8_t, 4>{192, 0, 2, 1}));
    CHECK(ip_address::parse("0.0.0.0").is_unspecified());
    CHECK(ip_address::parse("255.255.255.255")[3] == 255);
    CHECK(ip_address::parse("127.8.8.8").is_loopback());
    CHECK_FALSE(ip_address::parse("128.0.0.1").is_loopback());
    CHECK(ip_address::parse("1.2.3.4").is_v4());
    CHECK(ip_address::parse("1.2.3.4").bits() == 32);
}

TEST_CASE("IPv6 addresses are read in every form of RFC 4291") {
    const auto [text, shown] = GENERATE(table<std::string, std::string>({
        {"::", "::"},
        {"::1", "::1"},
        {"1::", "1::"},
        {"2001:DB8::1", "2001:db8::1"},
        {"2001:db8:0:0:0:0:0:1", "2001:db8::1"},
        {"2001:0db8:0000:0000:0000:0000:0000:0001", "2001:db8::1"},
        {"1:2:3:4:5:6:7:8", "1:2:3:4:5:6:7:8"},
        {"1:2:3:4:5:6:7::", "1:2:3:4:5:6:7:0"},
        {"::2:3:4:5:6:7:8", "0:2:3:4:5:6:7:8"},
        {"1:0:0:2:0:0:0:3", "1:0:0:2::3"},
        {"1:0:0:2:3:0:0:4", "1::2:3:0:0:4"},
        {"1:0:2:3:4:5:6:7", "1:0:2:3:4:5:6:7"},
        {"::ffff:192.0.2.1", "::ffff:c000:201"},
        {"64:ff9b::192.0.2.33", "64:ff9b::c000:221"},
        {"1:2:3:4:5:6:1.2.3.4", "1:2:3:4:5:6:102:304"},
        {"fe80::a:b", "fe80::a:b"},
    }));
    CAPTURE(text);
    const ip_address address = ip_address::parse(text);
    CHECK(address.is_v6());
    CHECK(bytes_of(address) == libc_bytes(AF_INET6, text));
    CHECK(to_string(address) == shown);
    CHECK(ip_address::parse(shown) == address);
}

TEST_CASE("an address that is not one is refused, with its text in the error") {
    const auto text = GENERATE(
        as<std::string_view>(), "", " ", ".", "...", "1", "1.2", "1.2.3", "1.2.3.", ".1.2.3",
        "1..2.3", "1.2.3.4.", "1.2.3.4.5", "256.0.0.1", "1.2.3.256", "1.2.3.999", "01.2.3.4",
        "1.2.3.04", "010.0.0.1", "1.2.3.00", "0x7f.0.0.1", "2130706433", "-1.2.3.4", "+1.2.3.4",
        " 1.2.3.4", "1.2.3.4 ", "1.2.3.4\n", "1.2.3.a", "1.2.3.4/24", "1.2.3.4:80", "localhost",
        ":", ":::", "1:", ":1", "1:2", "1:2:3:4:5:6:7", "1:2:3:4:5:6:7:8:9",
        "1:2:3:4:5:6:7:8::", "::1:2:3:4:5:6:7:8", "1:2:3:4::5:6:7:8", "1::2::3",
        "::1::", "12345::", "::fffff", "::g", "::-1", "::+1", "::1%eth0", "[::1]", "::1/64", " ::1",
        "::1 ", "::1.2.3", "::1.2.3.4.5", "::1.2.3.256", "::01.2.3.4", "1.2.3.4::", "::1.2.3.4:5",
        "1:2:3:4:5:6:7:1.2.3.4", "::1:2:3:4:5:6:1.2.3.4", "1:::2", "1.2.3.4\0"sv, "::1\0"sv);
    CAPTURE(text);
    CHECK_FALSE(ip_address::try_parse(text));
    try {
        ip_address::parse(text);
        FAIL("it was accepted");
    } catch (const invalid_input& refused) {
        CHECK(refused.object() == "'" + std::string(text) + "'");
    }
}

TEST_CASE("random text is an address for kumiki exactly when it is one for the libc") {
    std::mt19937 random(20240601);
    constexpr std::string_view letters = "0123456789af::::....";
    for (int round = 0; round < 200000; ++round) {
        std::string text(1 + random() % 16, ' ');
        for (char& c : text) c = letters[random() % letters.size()];
        const auto ours = ip_address::try_parse(text);
        const auto theirs =
            libc_bytes(text.find(':') == std::string::npos ? AF_INET : AF_INET6, text);
        if (ours.has_value() == theirs.has_value() && (!ours || bytes_of(*ours) == *theirs))
            continue;
        CAPTURE(text);
        CHECK(ours.has_value() == theirs.has_value());
        if (ours && theirs) CHECK(bytes_of(*ours) == *theirs);
    }
}

TEST_CASE("random addresses are shown as the libc shows them and read back") {
    std::mt19937 random(20240602);
    for (int round = 0; round < 20000; ++round) {
        std::array<std::uint8_t, 16> raw{};
        raw[0] = 0x20;  // not ::/96, which the libc shows with dots
        for (std::size_t i = 1; i < 16; ++i)
            raw[i] = static_cast<std::uint8_t>(random() % 3 == 0 ? random() : 0);
        const ip_address address(raw);
        char shown[INET6_ADDRSTRLEN];
        REQUIRE(::inet_ntop(AF_INET6, raw.data(), shown, sizeof shown) != nullptr);
        if (to_string(address) == shown && ip_address::parse(shown) == address) continue;
        CHECK(to_string(address) == shown);
        CHECK(ip_address::parse(shown) == address);
    }
}

TEST_CASE("addresses are counted on, with the carry, within their family") {
    CHECK("10.0.0.255"_ip.plus(1) == "10.0.1.0"_ip);
    CHECK("10.0.0.0"_ip.plus(65536 + 2) == "10.1.0.2"_ip);
    CHECK("255.255.255.255"_ip.plus(1) == "0.0.0.0"_ip);
    CHECK("fd00::ffff"_ip.plus(1) == "fd00::1:0"_ip);
    CHECK("fd00::ffff:ffff:ffff:ffff"_ip.plus(1) == "fd00:0:0:1::"_ip);
    CHECK("::"_ip.plus(0xffffffffffffffffU) == "::ffff:ffff:ffff:ffff"_ip);
    CHECK("10.0.0.1"_ip.plus(0) == "10.0.0.1"_ip);
}

TEST_CASE("addresses are masked to a prefix") {
    CHECK("10.1.2.3"_ip.masked(0) == "0.0.0.0"_ip);
    CHECK("10.1.2.3"_ip.masked(8) == "10.0.0.0"_ip);
    CHECK("10.1.2.3"_ip.masked(31) == "10.1.2.2"_ip);
    CHECK("10.1.2.3"_ip.masked(32) == "10.1.2.3"_ip);
    CHECK("2001:db8:ffff::1"_ip.masked(33) == "2001:db8:8000::"_ip);
    CHECK("2001:db8::1"_ip.masked(128) == "2001:db8::1"_ip);
}

TEST_CASE("networks are an address and a prefix length") {
    CHECK(cidr::parse("192.0.2.0/24") == cidr{"192.0.2.0"_ip, 24});
    CHECK(cidr::parse("10.0.0.5/24").network() == "10.0.0.0"_ip);
    CHECK(cidr::parse("192.0.2.1") == cidr{"192.0.2.1"_ip, 32});
    CHECK(cidr::parse("::1").prefix == 128);
    CHECK(cidr::parse("0.0.0.0/0").prefix == 0);
    CHECK(cidr::parse("::/0").last() == "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"_ip);
    CHECK(cidr::parse("10.0.0.0/8").last() == "10.255.255.255"_ip);
    CHECK(cidr::parse("10.0.0.4/32").last() == "10.0.0.4"_ip);
    CHECK(to_string("fd00:88::/64"_cidr) == "fd00:88::/64");
    CHECK(to_string("10.0.0.5/24"_cidr) == "10.0.0.5/24");
}

TEST_CASE("a network that is not one is refused") {
    const auto text = GENERATE(
        as<std::string_view>(), "", "/", "/24", "10.0.0.0/", "10.0.0.0/33", "10.0.0.0/-1",
        "10.0.0.0/+8", "10.0.0.0/ 8", "10.0.0.0/8 ", "10.0.0/8", "10.0.0.0/8/8", "10.0.0.0/256",
        "10.0.0.0/a", "10.0.0.0/255.0.0.0", "10.0.0.0\\8", "::/129", "::/", "::1%lo/64",
        "fd00::/64x", "web/24", "10.0.0.0 /8", "10.0.0.0/4294967304", "10.0.0.0/8\0"sv);
    CAPTURE(text);
    CHECK_FALSE(cidr::try_parse(text));
    CHECK_THROWS_AS(cidr::parse(text), invalid_input);
}

TEST_CASE("a network contains the addresses of its own family and prefix") {
    constexpr cidr net = "10.88.0.0/23"_cidr;
    CHECK(net.contains("10.88.0.0"_ip));
    CHECK(net.contains("10.88.1.255"_ip));
    CHECK_FALSE(net.contains("10.88.2.0"_ip));
    CHECK_FALSE(net.contains("10.87.255.255"_ip));
    CHECK_FALSE(net.contains("::ffff:10.88.0.1"_ip));
    CHECK("0.0.0.0/0"_cidr.contains("255.1.2.3"_ip));
    CHECK_FALSE("0.0.0.0/0"_cidr.contains("::1"_ip));
    CHECK_FALSE("::/0"_cidr.contains("0.0.0.0"_ip));
}

TEST_CASE("networks overlap when one contains the other") {
    CHECK("10.0.0.0/8"_cidr.overlaps("10.88.0.0/24"_cidr));
    CHECK("10.88.0.0/24"_cidr.overlaps("10.0.0.0/8"_cidr));
    CHECK("10.88.0.5/24"_cidr.overlaps("10.88.0.9/24"_cidr));
    CHECK("0.0.0.0/0"_cidr.overlaps("10.0.0.0/8"_cidr));
    CHECK_FALSE("10.88.0.0/24"_cidr.overlaps("10.88.1.0/24"_cidr));
    CHECK_FALSE("::/0"_cidr.overlaps("0.0.0.0/0"_cidr));
    CHECK_FALSE("fd00::/64"_cidr.overlaps("fd00:0:0:1::/64"_cidr));
}

TEST_CASE("ports are one number or a range") {
    CHECK(port_range::parse("80") == port_range{80, 80});
    CHECK(port_range::parse("8000-8010").count() == 11);
    CHECK(port_range::parse("1-65535").count() == 65535);
    CHECK(port_range::parse("65535") == port_range{65535, 65535});
    CHECK(port_range::parse("53-53").contains(53));
    CHECK_FALSE(port_range::parse("8000-8010").contains(8011));
    CHECK_FALSE(port_range::parse("8000-8010").contains(7999));
}

TEST_CASE("a port that is not one is refused") {
    const auto text =
        GENERATE(as<std::string_view>(), "", " ", "0", "0-1", "65536", "1-65536", "-1", "80-",
                 "-80", "-", "80-79", "80--81", "80-81-82", "80,81", "80:81", "80 ", " 80", "+80",
                 "0x50", "http", "8o", "80.0", "80/tcp", "4294967376", "80\0"sv);
    CAPTURE(text);
    CHECK_THROWS_AS(port_range::parse(text), invalid_input);
}

TEST_CASE("protocols have their names and their IANA numbers") {
    CHECK(to_string(protocol::tcp) == "tcp");
    CHECK(to_string(protocol::udp) == "udp");
    CHECK(to_string(protocol::sctp) == "sctp");
    CHECK(static_cast<int>(protocol::tcp) == 6);
    CHECK(static_cast<int>(protocol::udp) == 17);
    CHECK(static_cast<int>(protocol::sctp) == 132);
}
