#include <kumiki/network/names.hpp>

#include "support/catch.hpp"

using namespace kumiki;
using namespace kumiki::literals;

TEST_CASE("The hosts file has localhost, the own name on its addresses, and the others") {
    CHECK(hosts_text("web", {"10.88.0.2"_ip, "fd00:88::2"_ip}, {{"10.88.0.3"_ip, "db"}}) ==
          "127.0.0.1\tlocalhost\n"
          "::1\tlocalhost ip6-localhost ip6-loopback\n"
          "10.88.0.2\tweb\n"
          "fd00:88::2\tweb\n"
          "10.88.0.3\tdb\n");
    CHECK(
        hosts_text("web.example.org", {"10.88.0.2"_ip}).find("10.88.0.2\tweb.example.org web\n") !=
        std::string::npos);
    CHECK(hosts_text("alone", {}).find("127.0.1.1\talone\n") != std::string::npos);
}

TEST_CASE("A host name that is none is refused in every file") {
    const auto bad = GENERATE(std::string(), std::string("-a"), std::string("a-"),
                              std::string("a..b"), std::string(".a"), std::string("a."),
                              std::string("a b"), std::string("a\n127.0.0.1 bank"),
                              std::string("a_b"), std::string(65, 'a'), std::string("a\0b", 3));
    CAPTURE(bad);
    CHECK_THROWS_AS(hostname_text(bad), invalid_input);
    CHECK_THROWS_AS(hosts_text(bad, {}), invalid_input);
    CHECK_THROWS_AS(hosts_text("web", {}, {{"10.0.0.1"_ip, bad}}), invalid_input);
    CHECK(hostname_text("Web-1") == "Web-1\n");
}

TEST_CASE("The host's resolver settings are taken over, but for servers on loopback") {
    CHECK(resolv_conf_text("# a comment\n"
                           "nameserver 127.0.0.53\n"
                           "nameserver ::1\n"
                           "nameserver\t192.0.2.53 \n"
                           "nameserver fe80::1%eth0\n"
                           "nameserver 2001:db8::53\n"
                           "search a.example b.example\n"
                           "options edns0 trust-ad\n"
                           "options ndots:2\r\n"
                           "nameserver\n") ==
          "search a.example b.example\n"
          "nameserver 192.0.2.53\n"
          "nameserver 2001:db8::53\n"
          "options edns0 trust-ad ndots:2\n");
    CHECK(resolv_conf_text("search a\ndomain b\n") == "search b\n");
    CHECK(resolv_conf_text("").empty());
    CHECK(resolv_conf_text("nameserver 127.0.0.53").empty());
}

TEST_CASE("What is given replaces what the host says, field by field") {
    const std::string host = "nameserver 192.0.2.53\nsearch lan\noptions edns0\n";
    CHECK(resolv_conf_text(host, {.nameservers = {"10.88.0.1"_ip}}) ==
          "search lan\nnameserver 10.88.0.1\noptions edns0\n");
    CHECK(resolv_conf_text(host, {.search = {"example.org"}, .options = {"ndots:1"}}) ==
          "search example.org\nnameserver 192.0.2.53\noptions ndots:1\n");
    CHECK_THROWS_AS(resolv_conf_text(host, {.search = {"a\nnameserver 6.6.6.6"}}), invalid_input);
    CHECK_THROWS_AS(resolv_conf_text(host, {.options = {""}}), invalid_input);
}

TEST_CASE("A container in the host's network keeps the servers on loopback") {
    CHECK(resolv_conf_text("nameserver 127.0.0.53\nnameserver fe80::1%eth0\n", {},
                           loopback_servers::kept) == "nameserver 127.0.0.53\n");
}
