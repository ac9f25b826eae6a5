#include <random>

#include <kumiki/netlink/view.hpp>

#include "support/catch.hpp"

using namespace kumiki;
using namespace kumiki::literals;

namespace {

struct view_header {
    std::uint32_t value = 7;
};

std::vector<std::byte> sample() {
    netlink_batch batch;
    batch.add(0x10, 0, view_header{});
    batch.u32(1, 4711);
    batch.address(2, "2001:db8::1"_ip);
    {
        const auto nest = batch.nested(3);
        batch.text(4, "eth0");
        batch.u16(static_cast<std::uint16_t>(5 | NLA_F_NET_BYTEORDER), 0x0102);
    }
    batch.add(0x11, 0, view_header{.value = 8});
    const auto bytes = batch.bytes();
    return {bytes.begin(), bytes.end()};
}

// Reads everything that there is, as a parser of replies would.
std::size_t read_all(const netlink_attributes& attributes) {
    std::size_t sum = 0;
    for (const auto& part : attributes) {
        sum += part.payload().size() + part.text().size();
        if (part.is_nested()) sum += read_all(part.nested());
    }
    return sum;
}

}  // namespace

TEST_CASE("Views give the values of a message") {
    const auto bytes = sample();
    std::span<const std::byte> rest = bytes;
    const auto first = next_message(rest);
    REQUIRE(first);
    CHECK(first->type() == 0x10);
    CHECK(first->family_header<view_header>().value == 7);
    const auto attributes = first->attributes<view_header>();
    CHECK(attributes.find(1)->u32() == 4711);
    CHECK(attributes.find(2)->address() == "2001:db8::1"_ip);
    const auto nest = attributes.find(3)->nested();
    CHECK(nest.find(4)->text() == "eth0");
    CHECK(nest.find(5)->u16() == 0x0102);  // found by its type without the flag bits
    CHECK(!attributes.find(9));
    const auto second = next_message(rest);
    REQUIRE(second);
    CHECK(second->family_header<view_header>().value == 8);
    CHECK(second->attributes<view_header>().begin() == second->attributes<view_header>().end());
    CHECK(!next_message(rest));
}

TEST_CASE("An attribute of another size than its type's is an error") {
    const auto bytes = sample();
    std::span<const std::byte> rest = bytes;
    const auto attributes = next_message(rest)->attributes<view_header>();
    CHECK_THROWS_AS(attributes.find(1)->u16(), error);
    CHECK_THROWS_AS(attributes.find(1)->u64(), error);
    CHECK_THROWS_AS(attributes.find(3)->address(), error);
    struct large {
        std::uint64_t a[4];
    };
    CHECK_THROWS_AS(attributes.find(1)->structure<large>(), error);
}

TEST_CASE("A message cut off at any byte is an error or short, never read beyond its end") {
    const auto bytes = sample();
    for (std::size_t size = 0; size <= bytes.size(); ++size) {
        // A buffer of exactly this size: the address sanitizer sees a read beyond it.
        const std::vector<std::byte> cut(bytes.begin(),
                                         bytes.begin() + static_cast<std::ptrdiff_t>(size));
        std::span<const std::byte> rest = cut;
        try {
            while (const auto message = next_message(rest))
                (void)read_all(message->attributes<view_header>());
        } catch (const error& refused) {
            CHECK(refused.errno_value() == EBADMSG);
        }
    }
}

TEST_CASE("Lengths that lie are errors") {
    auto bytes = sample();
    const auto set = [&](std::size_t at, auto value) {
        std::memcpy(bytes.data() + at, &value, sizeof value);
    };
    std::span<const std::byte> rest = bytes;
    SECTION("a message of less than its header") { set(0, std::uint32_t{15}); }
    SECTION("a message of length 0") { set(0, std::uint32_t{0}); }
    SECTION("a message beyond the buffer") { set(0, std::uint32_t{0xfffffffc}); }
    SECTION("an attribute of less than its header") { set(20, std::uint16_t{3}); }
    SECTION("an attribute beyond the message") { set(20, std::uint16_t{60000}); }
    CHECK_THROWS_AS(
        [&] {
            const auto message = next_message(rest);
            return read_all(message->attributes<view_header>());
        }(),
        error);
}

TEST_CASE("Attributes that nest without an end are an error") {
    std::vector<std::byte> bytes(4 * 40);
    for (std::size_t i = 0; i < 40; ++i) {
        const nlattr head{.nla_len = static_cast<std::uint16_t>(bytes.size() - 4 * i),
                          .nla_type = NLA_F_NESTED | 1};
        std::memcpy(bytes.data() + 4 * i, &head, sizeof head);
    }
    CHECK_THROWS_AS(read_all(netlink_attributes(bytes)), error);
}

TEST_CASE("Random bytes are read to their end or refused") {
    std::mt19937 random(4711);
    for (int round = 0; round < 20000; ++round) {
        auto bytes = sample();
        for (auto flips = random() % 8 + 1; flips > 0; --flips)
            bytes[random() % bytes.size()] = static_cast<std::byte>(random());
        std::span<const std::byte> rest = bytes;
        try {
            while (const auto message = next_message(rest))
                (void)read_all(message->attributes<view_header>());
        } catch (const error&) {}
    }
    CHECK(true);
}
