#include <array>
#include <initializer_list>
#include <random>
#include <vector>

#include <kumiki/netlink/nflog.hpp>

#include "support/catch.hpp"

using namespace kumiki;
using namespace kumiki::literals;

namespace {

std::vector<std::byte> bytes_of(std::initializer_list<int> numbers) {
    std::vector<std::byte> all;
    for (const int each : numbers) all.push_back(static_cast<std::byte>(each));
    return all;
}

/// UDP from 10.88.0.2:40000 to 192.0.2.1:53, with `words` more words of options.
std::vector<std::byte> udp4(unsigned words = 0, unsigned fragment = 0) {
    auto packet = bytes_of({0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0, 10, 88, 0, 2, 192, 0, 2, 1});
    packet[0] = static_cast<std::byte>(0x45 + words);
    packet[6] = static_cast<std::byte>(fragment >> 8);
    packet[7] = static_cast<std::byte>(fragment);
    packet.resize(20 + words * 4);
    for (const int each : {40000 >> 8, 40000 & 255, 0, 53})
        packet.push_back(static_cast<std::byte>(each));
    return packet;
}

/// IPv6 from fd00::1 to fd00::2 with `next` as its first header, and `rest` behind.
std::vector<std::byte> ipv6_packet(int next, std::initializer_list<int> rest) {
    std::vector<std::byte> packet(40);
    packet[0] = std::byte{0x60};
    packet[6] = static_cast<std::byte>(next);
    packet[8] = packet[24] = std::byte{0xfd};
    packet[23] = std::byte{1};
    packet[39] = std::byte{2};
    for (const int each : rest) packet.push_back(static_cast<std::byte>(each));
    return packet;
}

}  // namespace

TEST_CASE("The head of an IPv4 packet is read, also behind options") {
    for (const unsigned words : {0U, 1U, 10U}) {
        const auto head = parse_ipv4_head(udp4(words));
        REQUIRE(head);
        CHECK(head->transport == 17);
        CHECK(head->between ==
              flow_tuple{"10.88.0.2"_ip, "192.0.2.1"_ip, std::uint16_t{40000}, std::uint16_t{53}});
    }
}

TEST_CASE("A fragment that is not the first has no ports, and neither has what was cut short") {
    CHECK(parse_ipv4_head(udp4(0, 0x2000))->between.destination_port == 53);  // the first of them
    CHECK(parse_ipv4_head(udp4(0, 185))->between.destination_port == 0);
    auto cut = udp4();
    cut.resize(23);
    CHECK(parse_ipv4_head(cut)->between.destination_port == 0);
    cut.resize(19);
    CHECK_FALSE(parse_ipv4_head(cut));
    auto wrong = udp4();
    wrong[0] = std::byte{0x44};  // a header of 16 bytes
    CHECK_FALSE(parse_ipv4_head(wrong));
    wrong[0] = std::byte{0x65};
    CHECK_FALSE(parse_ipv4_head(wrong));
    CHECK_FALSE(parse_ipv4_head({}));
}

TEST_CASE("The head of an IPv6 packet is read behind its extension headers") {
    const flow_tuple expected{"fd00::1"_ip, "fd00::2"_ip, std::uint16_t{1}, std::uint16_t{80}};
    const auto plain = parse_ipv6_head(ipv6_packet(6, {0, 1, 0, 80}));
    REQUIRE(plain);
    CHECK(plain->transport == 6);
    CHECK(plain->between == expected);
    // Hop-by-hop options of 16 bytes, a fragment header, TCP.
    const auto behind =
        parse_ipv6_head(ipv6_packet(0, {44, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,  //
                                        6,  0, 0, 1, 0, 0, 0, 9,  //
                                        0,  1, 0, 80}));
    REQUIRE(behind);
    CHECK(behind->transport == 6);
    CHECK(behind->between == expected);
    // Not the first fragment.
    CHECK(parse_ipv6_head(ipv6_packet(44, {6, 0, 0x05, 0xa8, 0, 0, 0, 9, 0, 1, 0, 80}))
              ->between.destination_port == 0);
    // A header that says that it is longer than all there is.
    CHECK(parse_ipv6_head(ipv6_packet(0, {6, 255, 0, 0, 0, 0, 0, 0, 0, 1, 0, 80}))
              ->between.destination_port == 0);
    CHECK_FALSE(parse_ipv6_head(udp4()));
}

TEST_CASE("An ARP request is read as who asks for whom") {
    const auto head = parse_arp_head(bytes_of(
        {0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 1, 10, 88, 0, 2, 0, 0, 0, 0, 0, 0, 10, 88, 0, 1}));
    REQUIRE(head);
    CHECK(head->between.source == "10.88.0.2"_ip);
    CHECK(head->between.destination == "10.88.0.1"_ip);
    CHECK_FALSE(parse_arp_head(bytes_of({0, 1, 8, 0})));
}

TEST_CASE("No bytes at all make a parser read beyond them") {
    std::mt19937 random(4711);
    for (int round = 0; round < 200000; ++round) {
        // A vector of its own for each, so that a sanitizer sees the end.
        std::vector<std::byte> packet(random() % 100);
        for (std::byte& each : packet) each = static_cast<std::byte>(random());
        if (!packet.empty() && round % 3 == 0) packet[0] = std::byte{0x60};
        if (!packet.empty() && round % 3 == 1) packet[0] = std::byte{0x46};
        if (packet.size() > 6 && round % 2 == 0) packet[6] = static_cast<std::byte>(random() % 64);
        (void)parse_ipv4_head(packet);
        (void)parse_ipv6_head(packet);
        (void)parse_arp_head(packet);
        const netlink_message message{
            .header = {.nlmsg_len = 0,
                       .nlmsg_type = NFNL_SUBSYS_ULOG << 8 | NFULNL_MSG_PACKET,
                       .nlmsg_flags = 0,
                       .nlmsg_seq = 0,
                       .nlmsg_pid = 0},
            .payload = packet};
        try {
            (void)parse_logged_packet(message);
        } catch (const error& refused) {
            if (refused.errno_value() != EBADMSG) throw;
        }
    }
    SUCCEED("200000 of them");
}
