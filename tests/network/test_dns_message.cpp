#include <random>

#include <kumiki/network/dns_message.hpp>
#include <kumiki/network/dns_reply.hpp>

#include "network/dns.hpp"
#include "support/catch.hpp"

using namespace kumiki;
using namespace kumiki::literals;
using kumiki_test::dns_message;
using kumiki_test::question;

TEST_CASE("A question is read with its name in lower case and what the asker can take") {
    const auto message = question("Db.Shop.internal", dns_type::aaaa, 0x1234, 1400);
    const auto query = parse_dns_query(message);
    REQUIRE(query);
    CHECK(query->problem == dns_code::no_error);
    CHECK(query->id == 0x1234);
    CHECK(query->name == "db.shop.internal");
    CHECK(query->labels == 3);
    CHECK(query->type == dns_type::aaaa);
    CHECK(query->edns_size == 1400);
    CHECK(query->end == message.size() - 11);
    CHECK_FALSE(parse_dns_query(question("a", 1))->edns_size);
    CHECK(parse_dns_query(question("", 2))->labels == 0);
}

TEST_CASE("Bytes of a label that are no plain text cannot pass for another name") {
    auto message = question("ab.c", dns_type::a);
    message[14] = std::byte{'.'};
    CHECK(parse_dns_query(message)->name == "a\\046.c");
    CHECK(parse_dns_query(message)->labels == 2);
    message[14] = std::byte{0};
    CHECK(parse_dns_query(message)->name == "a\\000.c");
}

TEST_CASE("What is no question gets no answer, and a bad one is told so") {
    auto message = question("a.b", dns_type::a);
    CHECK_FALSE(parse_dns_query(std::span(message).first(11)));
    auto reply = message;
    reply[2] |= std::byte{0x80};
    CHECK_FALSE(parse_dns_query(reply));
    const auto problem = [](dns_message bytes) { return parse_dns_query(bytes)->problem; };
    auto update = message;
    update[2] = std::byte{0x28};
    CHECK(problem(update) == dns_code::not_implemented);
    auto two = message;
    two[5] = std::byte{2};
    CHECK(problem(two) == dns_code::format_error);
    auto chaos = message;
    chaos.back() = std::byte{3};
    CHECK(problem(chaos) == dns_code::refused);
    for (std::size_t size = 12; size < message.size(); ++size)
        CHECK(problem({message.begin(), message.begin() + static_cast<std::ptrdiff_t>(size)}) ==
              dns_code::format_error);
}

TEST_CASE("A name that points at itself, forwards, into the header or for too long is refused") {
    const auto with_name = [](std::initializer_list<unsigned> bytes) {
        dns_message made;
        for (const unsigned number : {1U, 0x0100U, 1U, 0U, 0U, 0U})
            kumiki_test::put16(made, number);
        for (const unsigned byte : bytes)
            made.push_back(std::byte(static_cast<std::uint8_t>(byte)));
        for (const unsigned number : {1U, 1U}) kumiki_test::put16(made, number);
        return parse_dns_query(made)->problem;
    };
    CHECK(with_name({0xc0, 12}) == dns_code::format_error);
    CHECK(with_name({0xc0, 14}) == dns_code::format_error);
    CHECK(with_name({1, 'a', 0xc0, 12}) == dns_code::format_error);
    // The header would be a name here; in the answer, whose header differs, it would be another.
    CHECK(with_name({0xc0, 0}) == dns_code::format_error);
    CHECK(with_name({0xc0, 11}) == dns_code::format_error);
    CHECK(with_name({1, 'a', 0xc0, 6}) == dns_code::format_error);
    CHECK(with_name({0x40, 'a', 0}) == dns_code::format_error);
    CHECK(with_name({1, 'a', 0}) == dns_code::no_error);
    dns_message long_name;
    for (const unsigned number : {1U, 0x0100U, 1U, 0U, 0U, 0U})
        kumiki_test::put16(long_name, number);
    for (int label = 0; label < 130; ++label)
        for (const char c : {'\1', 'a'})
            long_name.push_back(std::byte(static_cast<std::uint8_t>(c)));
    long_name.push_back(std::byte{0});
    for (const unsigned number : {1U, 1U}) kumiki_test::put16(long_name, number);
    CHECK(parse_dns_query(long_name)->problem == dns_code::format_error);
}

TEST_CASE("Random bytes and spoiled questions are read without a fault") {
    std::mt19937 random(7);
    for (int round = 0; round < 20000; ++round) {
        auto message = question("db.shop.internal", dns_type::a, 1, 1232);
        for (int i = 0; i < 4; ++i)
            message[random() % message.size()] = std::byte(static_cast<std::uint8_t>(random()));
        message.resize(random() % (message.size() + 1));
        if (const auto query = parse_dns_query(message)) {
            REQUIRE(query->end <= message.size());
            REQUIRE(query->name.size() < 1024);
            const auto reply = dns_reply(message, *query, dns_code::refused).finish(512);
            REQUIRE(reply.size() >= 12);
        }
        (void)answers(message, 1, {});
    }
}

TEST_CASE("An answer to another question is none") {
    const auto message = question("db.example", dns_type::a, 9);
    const auto query = parse_dns_query(message);
    const auto of = [&](const dns_message& asked) {
        return answers(kumiki_test::answer_to(asked, 0, {"192.0.2.1"_ip}), 9, *query);
    };
    CHECK(of(message));
    CHECK(of(question("DB.example", dns_type::a, 9)));
    CHECK_FALSE(of(question("bank.example", dns_type::a, 9)));
    CHECK_FALSE(of(question("db.example", dns_type::aaaa, 9)));
    CHECK_FALSE(of(question("db.example", dns_type::a, 10)));
    CHECK_FALSE(answers(message, 9, *query));
}

TEST_CASE("A name in reverse is an address") {
    CHECK(address_in_reverse("9.0.88.10.in-addr.arpa") == "10.88.0.9"_ip);
    CHECK(address_in_reverse(
              "2.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.8.0.0.0.0.d.f.ip6.arpa") ==
          "fd00:88::2"_ip);
    for (const char* none : {"in-addr.arpa", "0.88.10.in-addr.arpa", "300.0.88.10.in-addr.arpa",
                             "a.ip6.arpa", "9.0.88.10", ".9.0.88.in-addr.arpa"})
        CHECK_FALSE(address_in_reverse(none));
}
