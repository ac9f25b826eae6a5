#include <map>
#include <string>

#include <kumiki/network/rule_counts.hpp>

#include "network/lab.hpp"
#include "support/catch.hpp"

using namespace kumiki;
using namespace kumiki::literals;
using namespace kumiki_test;

TEST_CASE("Denials are counted by the names of the rules that gave them") {
    NEEDS_NETNS;
    lab net;
    auto web = net.web();
    auto a = rules_of_a();
    a.ingress = allow_all().deny("192.0.2.3"_ip);
    web.connect(a);
    const auto server = serve(net.a.ns, udp_type, "0.0.0.0"_ip, 53);
    const auto other = serve(net.a.ns, udp_type, "0.0.0.0"_ip, 7);
    for (int time = 0; time < 3; ++time)
        CHECK_FALSE(reaches(net.outside, udp_type, "192.0.2.1"_ip, 5353, server, silence,
                            endpoint_address("192.0.2.3"_ip, 0)));
    CHECK(reaches(net.outside, udp_type, "192.0.2.1"_ip, 5353, server));
    CHECK(is_silent(net.outside, udp_type, "10.88.0.2"_ip, 7, other));
    auto socket = netlink_socket::open_in(net.host.ns.fd(), NETLINK_NETFILTER);
    std::map<std::string, std::string> counts;
    for (const rule_count& each : list_rule_counts(socket, "web"))
        if (each.packets != 0)
            counts[each.rule] =
                (each.denies ? "denied " : "allowed ") + std::to_string(each.packets);
    CHECK(counts["a:in:0"] == "denied 3");
    CHECK(counts["a:in:rest"] == "allowed 1");
    CHECK(counts["base:ingress:not published"] == "denied 1");
    const std::string witness = nft_says(net.host);
    CHECK(witness.find("counter packets 3 bytes 96 log prefix \"a:in:0\"") != std::string::npos);
    CHECK(list_rule_counts(socket, "nobody").empty());
}
