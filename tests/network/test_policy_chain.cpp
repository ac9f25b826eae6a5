#include <chrono>
#include <string>
#include <utility>

#include <kumiki/network/policy_chain.hpp>

#include "network/lab.hpp"
#include "support/catch.hpp"

using namespace kumiki;
using namespace kumiki::literals;
using namespace kumiki_test;

namespace {

/// The rules of a chain as the nft program shows them.
std::string chain(const node& host, const std::string& name) {
    return output_of(host, ("nft -nn list chain inet kumiki-web " + name + " 2>&1").c_str());
}

}  // namespace

TEST_CASE("A set of networks is one look-up, whose set comes and goes with its rule") {
    NEEDS_NETNS;
    lab net;
    auto web = net.web();
    auto rules = rules_of_a();
    rules.egress = deny_all().allow(
        address_set{"192.0.2.3/32"_cidr, "198.51.100.0/24"_cidr, "2001:db8::2/128"_cidr}, tcp(443));
    web.connect(rules);
    const auto server = serve(net.outside.ns, tcp_type, "0.0.0.0"_ip, 443);
    const auto server6 = serve(net.outside.ns, tcp_type, "2001:db8::2"_ip, 443);
    CHECK(reaches(net.a, tcp_type, "192.0.2.3"_ip, 443, server));
    CHECK(is_silent(net.a, tcp_type, "192.0.2.2"_ip, 443, server));
    CHECK(reaches(net.a, tcp_type, "2001:db8::2"_ip, 443, server6));
    const std::string text = chain(net.host, "out-a");
    INFO(text);
    CHECK(text.find("ct original ip daddr { 192.0.2.3, 198.51.100.0/24 }") != std::string::npos);
    auto other = rules;
    other.egress = deny_all().allow(address_set{"192.0.2.2/31"_cidr}, tcp(443));
    web.replace(rules, other);
    CHECK(reaches(net.a, tcp_type, "192.0.2.2"_ip, 443, server));
    CHECK(nft_says(net.host).find("198.51.100") == std::string::npos);
    web.disconnect(other);
    CHECK(nft_says(net.host).find("192.0.2.2") == std::string::npos);
}

TEST_CASE("Rules about names and labels hold for containers that come later, until they go") {
    NEEDS_NETNS;
    lab net;
    auto web = net.web();
    auto a = rules_of_a();
    a.ingress = deny_all().allow(label{"front"}, tcp(80)).allow(container_name{"c"}, udp(53));
    web.connect(a);
    auto b = rules_of_b();
    const auto server = serve(net.a.ns, tcp_type, "0.0.0.0"_ip, 80);
    const auto names = serve(net.a.ns, udp_type, "0.0.0.0"_ip, 53);
    web.connect(b);
    CHECK(is_silent(net.b, tcp_type, "192.0.2.1"_ip, 8080, server));
    web.disconnect(b);
    b.labels = {"front", "other", "front"};
    web.connect(b);
    CHECK(reaches(net.b, tcp_type, "192.0.2.1"_ip, 8080, server));
    CHECK(is_silent(net.b, udp_type, "192.0.2.1"_ip, 5353, names));
    auto renamed = b;
    renamed.container = "c";
    renamed.labels = {};
    web.disconnect(b);
    web.connect(renamed);
    CHECK(reaches(net.b, udp_type, "192.0.2.1"_ip, 5353, names));
    CHECK(is_silent(net.b, tcp_type, "192.0.2.1"_ip, 8080, server));
    CHECK(is_silent(net.outside, tcp_type, "192.0.2.1"_ip, 8080, server));
    web.disconnect(renamed);
    CHECK(nft_says(net.host).find("10.88.0.3") == std::string::npos);
}

TEST_CASE("A rule may be about an interface, about a whole protocol, and about ICMP") {
    NEEDS_NETNS;
    lab net;
    auto web = net.web();
    auto a = rules_of_a();
    a.ingress = deny_all().allow(tcp(80), {.interface = "up"});
    a.egress = deny_all().allow(icmp()).allow(any_port(protocol::udp), {.interface = "up"});
    web.connect(a);
    web.connect(rules_of_b());
    const auto server = serve(net.a.ns, tcp_type, "0.0.0.0"_ip, 80);
    CHECK(reaches(net.outside, tcp_type, "192.0.2.1"_ip, 8080, server));
    CHECK(is_silent(net.b, tcp_type, "192.0.2.1"_ip, 8080, server));
    CHECK(pings(net.a, "10.88.0.1"_ip));
    CHECK(pings(net.a, "192.0.2.2"_ip));
    const auto world = serve(net.outside.ns, udp_type, "0.0.0.0"_ip, 53);
    CHECK(reaches(net.a, udp_type, "192.0.2.2"_ip, 53, world));
    const auto other = serve(net.outside.ns, tcp_type, "0.0.0.0"_ip, 53);
    CHECK(is_silent(net.a, tcp_type, "192.0.2.2"_ip, 53, other));
}

TEST_CASE("What a label let begin ends with the rule about it, and not with another") {
    NEEDS_NETNS;
    lab net;
    auto web = net.web();
    auto a = rules_of_a();
    a.ingress = deny_all().allow(label{"front"});
    web.connect(a);
    auto b = rules_of_b();
    b.labels = {"front"};
    web.connect(b);
    const auto server = serve(net.a.ns, udp_type, "0.0.0.0"_ip, 53);
    const endpoint_address own("10.88.0.3"_ip, 40000);
    CHECK(reaches(net.b, udp_type, "192.0.2.1"_ip, 5353, server, 3000, own));
    const auto flows = [&] {
        return output_of(net.host, "conntrack -L 2>/dev/null | grep -c 40000");
    };
    const std::string before = flows();
    auto more = a;
    more.ingress.allow("192.0.2.2"_ip);
    web.replace(a, more);
    CHECK(flows() == before);
    auto closed = a;
    closed.ingress = deny_all();
    web.replace(more, closed);
    CHECK(flows() == "0\n");
    CHECK_FALSE(reaches(net.b, udp_type, "192.0.2.1"_ip, 5353, server, silence, own));
}

TEST_CASE("Containers of one network reach each other by their own addresses where they may") {
    NEEDS_NETNS;
    const char* const filtered = GENERATE("0", "1");
    const bool v4 = GENERATE(true, false);
    CAPTURE(filtered, v4);
    lab net(filtered);
    auto web = net.web();
    auto db = net.db();
    auto a = rules_of_a();
    a.direct = deny_all().allow(label{"front"}, tcp(5432)).allow(container_name{"b"}, udp(53));
    auto b = rules_of_b();
    b.labels = {"front"};
    auto c = rules_of_c();
    c.labels = {"front"};
    web.connect(a);
    web.connect(b);
    db.connect(c);
    const ip_address of_a = v4 ? "10.88.0.2"_ip : "fd00:88::2"_ip;
    const ip_address of_b = v4 ? "10.88.0.3"_ip : "fd00:88::3"_ip;
    // As endpoints have it: nothing but the gateway is on the link.
    const ip_address gateway = v4 ? "10.88.0.1"_ip : "fd00:88::1"_ip;
    const auto prefix = static_cast<std::uint8_t>(gateway.bits());
    net.a.route({of_b, prefix}, gateway);
    net.b.route({of_a, prefix}, gateway);
    const auto server = serve(net.a.ns, tcp_type, of_a, 5432);
    const auto names = serve(net.a.ns, udp_type, of_a, 53);
    const auto other = serve(net.a.ns, tcp_type, of_a, 80);
    for (int time = 0; time < 3; ++time) {
        const auto client = reaches(net.b, tcp_type, of_a, 5432, server);
        REQUIRE(client);
        CHECK(client->address == of_b);  // as it is
    }
    // No host tells them a shorter way: the bridge would stop them on it.
    CHECK(output_of(net.b, "awk '/^Icmp6InRedirects/ {print $2}' /proc/net/snmp6") == "0\n");
    const endpoint_address own(of_b, 40000);
    CHECK(reaches(net.b, udp_type, of_a, 53, names, 3000, own));
    CHECK(is_silent(net.b, tcp_type, of_a, 80, other));
    // Not from elsewhere, and not the other way round.
    CHECK(is_silent(net.c, tcp_type, of_a, 5432, server));
    CHECK(is_silent(net.outside, tcp_type, of_a, 5432, server));
    const auto of_other = serve(net.b.ns, tcp_type, of_b, 5432);
    CHECK(is_silent(net.a, tcp_type, of_b, 5432, of_other));
    // The host is the owner, whatever the rules.
    CHECK(reaches(net.host, tcp_type, of_a, 80, other));

    auto closed = a;
    closed.direct = deny_all().allow(label{"front"}, tcp(5432));
    web.replace(a, closed);
    CHECK_FALSE(reaches(net.b, udp_type, of_a, 53, names, silence, own));
    CHECK(reaches(net.b, tcp_type, of_a, 5432, server));
    // The sender's own policy is asked first.
    auto silent = b;
    silent.egress = allow_all().deny(container_name{"a"});
    web.replace(b, silent);
    CHECK(is_silent(net.b, tcp_type, of_a, 5432, server));
    web.disconnect(closed);
    CHECK(nft_says(net.host).find("direct-a") == std::string::npos);
}

TEST_CASE("Flows begin as often as their rule's rate allows, and the rest meets the rules behind") {
    NEEDS_NETNS;
    lab net;
    auto web = net.web();
    auto a = rules_of_a();
    constexpr rate three{.count = 3, .every = std::chrono::hours(1), .burst = 3};
    a.ingress = deny_all().allow("192.0.2.2"_ip, udp(53), {.connections = three}).allow(tcp(80));
    web.connect(a);
    // Datagrams, as a connection would try again.
    const auto names = serve(net.a.ns, udp_type, "0.0.0.0"_ip, 53);
    for (int time = 0; time < 3; ++time)
        CHECK(reaches(net.outside, udp_type, "192.0.2.1"_ip, 5353, names));
    CHECK(is_silent(net.outside, udp_type, "192.0.2.1"_ip, 5353, names));
    const std::string text = chain(net.host, "in-a");
    INFO(text);
    CHECK(text.find("limit rate 3/hour burst 3 packets counter packets 3 ") != std::string::npos);
    const auto server = serve(net.a.ns, tcp_type, "0.0.0.0"_ip, 80);
    CHECK(reaches(net.outside, tcp_type, "192.0.2.1"_ip, 8080, server));
}

TEST_CASE("As many flows live at once as their rule allows, and another when one has ended") {
    NEEDS_NETNS;
    lab net;
    auto web = net.web();
    auto a = rules_of_a();
    a.egress = deny_all().allow(tcp(443), {.at_once = 2});
    web.connect(a);
    const auto server = serve(net.outside.ns, tcp_type, "0.0.0.0"_ip, 443);
    const auto dial = [&] {
        return net.a.ns.run([&] {
            unique_fd fd(sys::check(
                ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), "socket"));
            const auto [to, size] = endpoint_address("192.0.2.2"_ip, 443).to_kernel();
            (void)::connect(fd.get(), reinterpret_cast<const sockaddr*>(&to), size);
            return fd;
        });
    };
    const auto arrives = [&](int wait) {
        if (!wait_for(server.get(), POLLIN, wait)) return unique_fd();
        return unique_fd(::accept4(server.get(), nullptr, nullptr, SOCK_CLOEXEC));
    };
    unique_fd first = dial();
    unique_fd first_end = arrives(3000);
    const unique_fd second = dial();
    const unique_fd second_end = arrives(3000);
    REQUIRE(first_end);
    REQUIRE(second_end);
    unique_fd third = dial();
    CHECK_FALSE(arrives(silence));
    third.reset();
    first.reset();
    first_end.reset();
    CHECK(wait_for(second.get(), POLLOUT, 3000));
    const unique_fd fourth = dial();
    CHECK(arrives(3000));
}

TEST_CASE("Packets beyond a rate are dropped in flows that live, and answers are not counted") {
    NEEDS_NETNS;
    lab net;
    auto web = net.web();
    constexpr rate ten{.count = 10, .every = std::chrono::hours(1), .burst = 10};
    auto a = rules_of_a();
    a.egress = allow_all()
                   .allow("192.0.2.3"_ip, udp(7))
                   .allow(address_set{"192.0.2.0/24"_cidr}, udp(7), {.packets = ten});
    a.ingress = deny_all().allow(udp(53), {.packets = ten});
    web.connect(a);
    // Fifty datagrams and as many answers: how many of them came.
    const auto exchange = [&](const node& client_node, const node& server_node, ip_address to,
                              std::uint16_t port, std::uint16_t inside) {
        const auto server = serve(server_node.ns, udp_type, "0.0.0.0"_ip, inside);
        const auto client = serve(client_node.ns, udp_type, "0.0.0.0"_ip, 4000);
        const auto [address, size] = endpoint_address(to, port).to_kernel();
        sockaddr_storage seen{};
        socklen_t seen_size = sizeof seen;
        int came = 0;
        char bytes[16];
        for (int i = 0; i < 50; ++i) {
            REQUIRE(::sendto(client.get(), "ping", 4, 0,
                             reinterpret_cast<const sockaddr*>(&address), size) == 4);
            while (wait_for(server.get(), POLLIN, came < 10 ? 100 : 2) &&
                   ::recvfrom(server.get(), bytes, sizeof bytes, 0,
                              reinterpret_cast<sockaddr*>(&seen), &seen_size) > 0)
                ++came;
        }
        int answers = 0;
        for (int i = 0; came > 0 && i < 50; ++i) {
            REQUIRE(::sendto(server.get(), "pong", 4, 0, reinterpret_cast<const sockaddr*>(&seen),
                             seen_size) == 4);
            if (wait_for(client.get(), POLLIN, 100) && ::recv(client.get(), bytes, 16, 0) > 0)
                ++answers;
        }
        return std::pair(came, answers);
    };
    CHECK(exchange(net.a, net.outside, "192.0.2.2"_ip, 7, 7) == std::pair(10, 50));
    CHECK(exchange(net.a, net.outside, "192.0.2.3"_ip, 7, 7) == std::pair(50, 50));
    CHECK(exchange(net.a, net.outside, "192.0.2.2"_ip, 8, 8) == std::pair(50, 50));
    CHECK(exchange(net.outside, net.a, "192.0.2.1"_ip, 5353, 53) == std::pair(10, 50));
    CHECK(chain(net.host, "rateout-a").find("counter packets 40 ") != std::string::npos);
    web.disconnect(a);
    CHECK(nft_says(net.host).find("10.88.0.2") == std::string::npos);
    CHECK(nft_says(net.host).find("rateout-a") == std::string::npos);
}

TEST_CASE("A label that cannot be is refused") {
    const firewall_options options{.network = "web",
                                   .bridge = "km-web",
                                   .subnets = {"10.88.0.0/24"_cidr, "fd00:88::/64"_cidr}};
    for (const char* const name : {"", "a b", "-a"}) {
        auto rules = rules_of_a();
        rules.labels = {name};
        CHECK_THROWS_AS(require_valid(rules, options), invalid_input);
    }
}
