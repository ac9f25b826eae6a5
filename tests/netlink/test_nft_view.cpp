#include <cstdlib>

#include <kumiki/netlink/nft_view.hpp>

#include "support/catch.hpp"
#include "support/netns.hpp"

using namespace kumiki;
using kumiki_test::private_netns;

namespace {

void nft_program(const private_netns& in, const std::string& command) {
    REQUIRE(in.run([&] { return std::system(("nft '" + command + "'").c_str()); }) == 0);
}

}  // namespace

TEST_CASE("What the nft program made is read back: chains, rules and elements") {
    NEEDS_NETNS;
    const private_netns ns;
    nft_program(ns,
                "table inet t { set s { type ipv4_addr; elements = { 10.0.0.1 comment \"one\", "
                "10.0.0.2 }; }\n"
                "chain f { type filter hook forward priority -5; policy drop; "
                "ip saddr @s accept comment \"mine\"; counter drop; }\n"
                "chain other { reject; }\n}\n");
    auto socket = netlink_socket::open_in(ns.fd(), NETLINK_NETFILTER);
    const auto chains = nft::list_chains(socket);
    REQUIRE(chains.size() == 2);
    CHECK(chains[0].table == "t");
    CHECK(chains[0].name == "f");
    CHECK(chains[0].type == "filter");
    CHECK(chains[0].hook == static_cast<std::uint32_t>(nft::hook_point::forward));
    CHECK(chains[0].priority == -5);
    CHECK(chains[0].policy == nft::policy::drop);
    CHECK(chains[1].type.empty());

    const auto rules = nft::list_rules(socket, {nft::family::inet, "t"});
    REQUIRE(rules.size() == 3);
    CHECK(rules[0].comment == "mine");
    CHECK(rules[0].is_conditional);
    CHECK(rules[0].verdict == 1);
    CHECK_FALSE(rules[1].is_conditional);
    CHECK(rules[1].verdict == 0);
    CHECK(rules[2].chain == "other");
    CHECK(rules[2].verdict == 0);  // a rejection
    CHECK(nft::list_rules(socket, {nft::family::inet, "nothing"}).empty());

    const auto elements = nft::list_elements(socket, {nft::family::inet, "t"}, "s");
    REQUIRE(elements.size() == 2);
    for (const auto& each : elements)
        CHECK(each.comment == (each.key == std::string("\x0a\0\0\x01", 4) ? "one" : ""));
    CHECK_THROWS_AS(nft::list_elements(socket, {nft::family::inet, "t"}, "none"), error);
}

TEST_CASE("Rules that were made alike are equal whatever they have counted, others are not") {
    NEEDS_NETNS;
    const private_netns ns;
    nft_program(ns,
                "table ip t { chain a { counter packets 5 bytes 500 drop; }\n"
                "chain b { counter drop; } ; chain c { counter accept; }\n}\n");
    auto socket = netlink_socket::open_in(ns.fd(), NETLINK_NETFILTER);
    const auto rules = nft::list_rules(socket, {nft::family::ip, "t"});
    REQUIRE(rules.size() == 3);
    CHECK(rules[0].expressions == rules[1].expressions);
    CHECK(rules[0].expressions != rules[2].expressions);
}
