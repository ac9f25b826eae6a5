#include <kumiki/network/traffic.hpp>

#include "support/catch.hpp"

using namespace kumiki;

TEST_CASE("Kinds of traffic match their packets and no others") {
    const auto v4 = ip_family::v4;
    const auto v6 = ip_family::v6;
    CHECK(all_traffic().matches(v4, 47, 0));
    CHECK(icmp().matches(v4, 1, 0));
    CHECK(icmp().matches(v6, 58, 0));
    CHECK_FALSE(icmp().matches(v4, 58, 0));
    CHECK_FALSE(icmp().matches(v6, 1, 0));
    CHECK(ip_protocol(58).matches(v4, 58, 0));
    CHECK(any_port(protocol::udp).matches(v4, 17, 0));
    CHECK_FALSE(any_port(protocol::udp).matches(v4, 6, 80));
    CHECK(traffic(tcp(port_range{80, 90})).matches(v6, 6, 90));
    CHECK_FALSE(traffic(tcp(port_range{80, 90})).matches(v6, 6, 91));
    CHECK(traffic(tcp(port_range{1, 65535})).matches(v6, 6, 0));
}

TEST_CASE("A kind of traffic covers what is a part of it") {
    CHECK(all_traffic().covers(tcp(80)));
    CHECK(any_port(protocol::tcp).covers(tcp(80)));
    CHECK_FALSE(traffic(tcp(80)).covers(any_port(protocol::tcp)));
    CHECK_FALSE(traffic(tcp(80)).covers(all_traffic()));
    CHECK(traffic(tcp(port_range{1, 65535})).covers(any_port(protocol::tcp)));
    CHECK_FALSE(any_port(protocol::udp).covers(tcp(80)));
    CHECK(traffic(tcp(port_range{80, 90})).covers(tcp(port_range{85, 90})));
    CHECK_FALSE(traffic(tcp(port_range{80, 90})).covers(tcp(port_range{85, 91})));
}

TEST_CASE("A kind of traffic is spelled as people speak of it") {
    CHECK(to_string(all_traffic()) == "all traffic");
    CHECK(to_string(traffic(tcp(80))) == "tcp 80");
    CHECK(to_string(traffic(udp(port_range{80, 90}))) == "udp 80-90");
    CHECK(to_string(any_port(protocol::sctp)) == "sctp");
    CHECK(to_string(icmp()) == "icmp");
    CHECK(to_string(ip_protocol(47)) == "protocol 47");
}
