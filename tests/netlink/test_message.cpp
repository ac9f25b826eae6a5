#include <memory>
#include <random>

#include <kumiki/netlink/message.hpp>
#include <kumiki/netlink/view.hpp>

#include "support/catch.hpp"

using namespace kumiki;
using namespace kumiki::literals;

namespace {

struct family_header {
    std::uint32_t value = 7;
};

std::vector<std::byte> payload_of(std::size_t size) {
    std::vector<std::byte> payload(size);
    for (std::size_t i = 0; i < size; ++i) payload[i] = static_cast<std::byte>(i * 31);
    return payload;
}

std::uint32_t length_at(std::span<const std::byte> bytes, std::size_t at) {
    return detail::read_structure<std::uint32_t>(bytes.subspan(at)).value();
}

}  // namespace

TEST_CASE("A message is laid out as netlink(7) says") {
    netlink_batch batch;
    batch.add(0x10, NLM_F_ACK, family_header{});
    batch.u8(1, 0xab);
    batch.be32(2, 0x01020304);
    batch.text(3, "eth0");
    const auto bytes = batch.bytes();
    REQUIRE(bytes.size() == 16 + 4 + 8 + 8 + 12);
    CHECK(length_at(bytes, 0) == bytes.size());
    const auto byte = [&](std::size_t at) { return static_cast<unsigned>(bytes[at]); };
    CHECK(byte(20) == 5);     // the length of an attribute leaves its padding out
    CHECK(byte(24) == 0xab);
    CHECK(byte(25) == 0);
    CHECK(byte(32) == 1);     // big endian
    CHECK(byte(35) == 4);
    CHECK(byte(36) == 9);     // the NUL of a text counts
    CHECK(byte(44) == 0);
}

TEST_CASE("An attribute of any size is exact, or refused and the batch is as it was") {
    const auto size =
        GENERATE(std::size_t{0}, std::size_t{1}, std::size_t{3}, std::size_t{4}, std::size_t{65530},
                 std::size_t{65531}, std::size_t{65532}, std::size_t{65533}, std::size_t{65535},
                 std::size_t{65536}, std::size_t{70000}, std::size_t{1} << 20);
    CAPTURE(size);
    netlink_batch batch;
    batch.add(0x10, 0, family_header{});
    const auto before = batch.bytes().size();
    const auto payload = payload_of(size);
    if (size <= 65531) {
        batch.data(9, payload);
        auto rest = batch.bytes();
        const auto message = next_message(rest);
        REQUIRE(message);
        CHECK(rest.empty());
        const auto found = message->attributes<family_header>().find(9);
        REQUIRE(found);
        CHECK(std::vector<std::byte>(found->payload().begin(), found->payload().end()) == payload);
    } else {
        CHECK_THROWS_AS(batch.data(9, payload), invalid_input);
        CHECK(batch.bytes().size() == before);
        CHECK(length_at(batch.bytes(), 0) == before);
    }
}

TEST_CASE("A nest that its attributes would overflow refuses them and stays well-formed") {
    netlink_batch batch;
    batch.add(0x10, 0, family_header{});
    std::size_t taken = 0;
    {
        const auto outer = batch.nested(1);
        const auto inner = batch.nested(2);
        const auto payload = payload_of(1000);
        for (;; ++taken) try {
                batch.data(3, payload);
            } catch (const invalid_input&) {
                break;
            }
        batch.u8(4, 1);  // a small one still fits
    }
    CHECK(taken == (65535 - 8) / 1004);
    auto rest = batch.bytes();
    const auto message = next_message(rest);
    REQUIRE(message);
    const auto outer = message->attributes<family_header>().find(1);
    REQUIRE(outer);
    CHECK(outer->is_nested());
    const auto inner = outer->nested().find(2);
    REQUIRE(inner);
    std::size_t seen = 0;
    for (const auto& part : inner->nested()) seen += part.type() == 3 ? 1 : 0;
    CHECK(seen == taken);
}

TEST_CASE("What cannot be built is refused") {
    netlink_batch batch;
    CHECK_THROWS_AS(batch.u32(1, 2), invalid_input);  // before a message
    CHECK_THROWS_AS(batch.add(1, 0x10000, family_header{}), invalid_input);
    batch.add(0x10, 0, family_header{});
    CHECK_THROWS_AS(batch.text(1, std::string_view("a\0b", 3)), invalid_input);
    const auto outer = batch.nested(1);
    CHECK_THROWS_AS(batch.add(0x10, 0, family_header{}), invalid_input);  // inside a nest
    std::vector<std::unique_ptr<netlink_batch::nest>> open;
    for (unsigned depth = 1; depth < detail::netlink_depth; ++depth)
        open.emplace_back(new netlink_batch::nest(batch.nested(1)));
    CHECK_THROWS_AS(batch.nested(1), invalid_input);
    while (!open.empty()) open.pop_back();
}

TEST_CASE("Numbering gives each message its own number and tells which are acknowledged") {
    netlink_batch batch;
    batch.add(0x10, NLM_F_ACK, family_header{});
    batch.u8(5, 1);
    batch.add(0x11, 0, family_header{});
    batch.u8(6, 1);
    CHECK(batch.number(41) == std::vector<bool>{true, false});
    auto rest = batch.bytes();
    CHECK(next_message(rest)->header.nlmsg_seq == 41);
    CHECK(next_message(rest)->header.nlmsg_seq == 42);
    CHECK(batch.attribute_at(42, 20) == 6U);
    CHECK(!batch.attribute_at(42, 28));
    CHECK(!batch.attribute_at(43, 20));
    CHECK(!batch.attribute_at(41, 0));
}

namespace {

// A random tree of attributes, written by `grow` and read back by `same` from the same seed.
void grow(netlink_batch& batch, std::mt19937& random, unsigned depth) {
    for (auto count = random() % 4; count > 0; --count) {
        const auto type = static_cast<std::uint16_t>(random() % 0x3fff);
        if (random() % 3 == 0 && depth < 6) {
            const auto nest = batch.nested(type);
            grow(batch, random, depth + 1);
        } else {
            batch.data(type, payload_of(random() % 40));
        }
    }
}

bool same(const netlink_attributes& attributes, std::mt19937& random, unsigned depth) {
    auto at = attributes.begin();
    for (auto count = random() % 4; count > 0; --count, ++at) {
        const auto type = static_cast<std::uint16_t>(random() % 0x3fff);
        if (at == attributes.end() || at->type() != type) return false;
        if (random() % 3 == 0 && depth < 6) {
            if (!at->is_nested() || !same(at->nested(), random, depth + 1)) return false;
        } else {
            const auto expected = payload_of(random() % 40);
            if (!std::equal(expected.begin(), expected.end(), at->payload().begin(),
                            at->payload().end()))
                return false;
        }
    }
    return at == attributes.end();
}

}  // namespace

TEST_CASE("Random trees of attributes come back as they were built") {
    for (std::uint32_t seed = 0; seed < 20000; ++seed) {
        netlink_batch batch;
        batch.add(0x10, 0, family_header{});
        std::mt19937 writer(seed);
        grow(batch, writer, 0);
        auto rest = batch.bytes();
        const auto message = next_message(rest);
        std::mt19937 reader(seed);
        if (!message || !rest.empty() || !same(message->attributes<family_header>(), reader, 0)) {
            CAPTURE(seed);
            REQUIRE(false);
        }
    }
    CHECK(true);
}
