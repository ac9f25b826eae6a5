#include <cstdint>
#include <random>
#include <set>
#include <vector>

#include <kumiki/network/address_set.hpp>

#include "support/catch.hpp"

using namespace kumiki;
using namespace kumiki::literals;

TEST_CASE("Networks that overlap or touch are one range of a set") {
    const address_set all{"192.0.2.128/25"_cidr,     "192.0.2.77/25"_cidr, "2001:db8::/33"_cidr,
                          "2001:db8:8000::/33"_cidr, "10.0.0.1/32"_cidr,   "10.0.0.3/32"_cidr};
    CHECK(to_string(all) ==
          "10.0.0.1, 10.0.0.3, 192.0.2.0-192.0.2.255, "
          "2001:db8::-2001:db8:ffff:ffff:ffff:ffff:ffff:ffff");
    CHECK(all.contains("192.0.2.255"_ip));
    CHECK_FALSE(all.contains("10.0.0.2"_ip));
    CHECK_FALSE(all.contains("2001:db9::"_ip));
    CHECK(all.has(ip_family::v6));
    CHECK(address_set{"10.0.0.2/32"_cidr}.add(all).ranges().size() == 3);
    CHECK(all.contains(address_set{"192.0.2.64/26"_cidr, "10.0.0.1/32"_cidr}));
    CHECK_FALSE(all.contains(address_set{"10.0.0.0/30"_cidr}));
    CHECK(address_set{}.empty());
}

TEST_CASE("The ends of the address space are no special place") {
    const address_set all{"255.255.255.255/32"_cidr, "0.0.0.0/32"_cidr,
                          "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff/128"_cidr, "::/128"_cidr};
    CHECK(all.ranges().size() == 4);
    CHECK(all.contains("255.255.255.255"_ip));
    CHECK(all.contains("::"_ip));
    CHECK_FALSE(all.contains("0.0.0.1"_ip));
    CHECK(address_set{"0.0.0.0/0"_cidr, "10.0.0.0/8"_cidr} == address_set{"0.0.0.0/0"_cidr});
}

TEST_CASE("A set of networks at random holds what the networks hold") {
    std::mt19937 random(7);
    for (int round = 0; round < 200; ++round) {
        std::vector<cidr> networks;
        for (unsigned i = 0; i <= random() % 8; ++i)
            networks.push_back(
                {"10.0.0.0"_ip.plus(random() % 256), static_cast<std::uint8_t>(24 + random() % 9)});
        const address_set all{std::span<const cidr>(networks)};
        for (std::size_t i = 1; i < all.ranges().size(); ++i)
            CHECK(all.ranges()[i - 1].last.plus(1) < all.ranges()[i].first);
        bool same = true;
        for (unsigned i = 0; i < 256; ++i) {
            const ip_address address = "10.0.0.0"_ip.plus(i);
            bool held = false;
            for (const cidr& each : networks) held = held || each.contains(address);
            same = same && held == all.contains(address);
        }
        CHECK(same);
    }
}
