#include <utility>

#include <kumiki/network/dns_reply.hpp>

#include "network/dns.hpp"
#include "support/catch.hpp"

using namespace kumiki;
using namespace kumiki::literals;
using kumiki_test::question;

TEST_CASE("An answer has the addresses, and those alone that fit when there are too many") {
    const auto message = question("db", dns_type::a, 9, 600);
    const auto query = parse_dns_query(message);
    dns_reply few(message, *query, dns_code::no_error);
    few.add("10.88.0.2"_ip, 5);
    few.add("fd00::2"_ip, 5);
    const auto whole = std::move(few).finish(512);
    CHECK(kumiki_test::said(whole) == "10.88.0.2 fd00::2");
    CHECK(answers(whole, 9, *query));
    CHECK_FALSE(answers(whole, 8, *query));
    CHECK(kumiki_test::get16(whole, 10) == 1);  // who speaks EDNS is answered with it
    dns_reply many(message, *query, dns_code::no_error);
    for (int i = 0; i < 100; ++i) many.add("10.88.0.2"_ip, 5);
    const auto cut = std::move(many).finish(dns_reply::limit_for(*query));
    CHECK(cut.size() <= 600);
    CHECK(cut.size() > 580);
    CHECK(kumiki_test::said(cut).starts_with("TC 10.88.0.2 "));
}
