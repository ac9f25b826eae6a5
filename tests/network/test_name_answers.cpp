#include <kumiki/network/name_answers.hpp>

#include "network/dns.hpp"
#include "support/catch.hpp"

using namespace kumiki;
using namespace kumiki::literals;

namespace {

/// What a container is told; "outside" when that is asked.
std::string told(std::string_view name, unsigned type, ip_address sender = "10.88.0.2"_ip,
                 std::string domain = "shop.internal") {
    static const name_table names({{"10.88.0.2"_ip, 0, 7, "web"},
                                   {"fd00:88::2"_ip, 0, 7, "web"},
                                   {"10.88.0.3"_ip, 0, 8, "db"},
                                   {"10.88.0.3"_ip, 1, 8, "api.example"}});
    const detail::name_zone zone{.subnets = {"10.88.0.0/24"_cidr, "fd00:88::/64"_cidr},
                                 .domain = std::move(domain)};
    const auto message = kumiki_test::question(name, type, 2);
    const auto answer =
        detail::own_answer(zone, names, message, *parse_dns_query(message), sender, 512);
    return answer ? kumiki_test::said(*answer) : "outside";
}

}  // namespace

TEST_CASE("A container's name is answered in both families, alone and below the domain") {
    for (const char* name : {"web", "WEB", "web.shop.internal"}) {
        CHECK(told(name, dns_type::a) == "10.88.0.2");
        CHECK(told(name, dns_type::aaaa) == "fd00:88::2");
        CHECK(told(name, dns_type::any) == "10.88.0.2 fd00:88::2");
        CHECK(told(name, 15).empty());  // it is there, without such a record
    }
    CHECK(told("db", dns_type::aaaa).empty());
    CHECK(told("web.shop.internal", dns_type::a, "10.88.0.2"_ip, "") == "outside");
    CHECK(told("api.example", dns_type::a) == "10.88.0.3");
}

TEST_CASE("Names of one label or below the domain are never asked for outside") {
    for (const char* name : {"wpad", "we", "x.shop.internal", "a.b.shop.internal"})
        CHECK(told(name, dns_type::a) == "NXDOMAIN");
    CHECK(told("shop.internal", dns_type::a).empty());
    CHECK(told("myshop.internal", dns_type::a) == "outside");
    CHECK(told("", 2) == "REFUSED");
}

TEST_CASE("An address of the network has its container's name, and others are for outside") {
    CHECK(told("3.0.88.10.in-addr.arpa", dns_type::ptr) == "db.shop.internal");
    CHECK(told("3.0.88.10.in-addr.arpa", dns_type::ptr, "10.88.0.2"_ip, "") == "db");
    CHECK(told("9.0.88.10.in-addr.arpa", dns_type::ptr) == "NXDOMAIN");
    CHECK(told("1.2.0.192.in-addr.arpa", dns_type::ptr) == "outside");
}

TEST_CASE("A container that may not ask outside is told its siblings' names alone") {
    const auto closed = "10.88.0.3"_ip;
    CHECK(told("web", dns_type::a, closed) == "10.88.0.2");
    CHECK(told("secret.of.mine.example", dns_type::a, closed) == "REFUSED");
    CHECK(told("1.2.0.192.in-addr.arpa", dns_type::ptr, closed) == "REFUSED");
}

TEST_CASE("Who is no container of the network is told nothing") {
    CHECK(told("web", dns_type::a, "10.88.0.9"_ip) == "REFUSED");
    CHECK(told("example.org", dns_type::a, "192.0.2.1"_ip) == "REFUSED");
}
