#include <string>
#include <vector>

#include <kumiki/network/firewall.hpp>
#include <kumiki/network/port_reservation.hpp>

#include "network/lab.hpp"
#include "support/catch.hpp"
#include "support/netns.hpp"

using namespace kumiki;
using namespace kumiki::literals;
using namespace kumiki_test;

TEST_CASE("A published port is reached from everywhere that it should be, and nowhere else") {
    NEEDS_NETNS;
    // With and without br_netfilter looking into bridged packets, as it does beside other tools.
    const char* const filtered = GENERATE("0", "1");
    const int type = GENERATE(tcp_type, udp_type);
    const bool v4 = GENERATE(true, false);
    CAPTURE(filtered, type, v4);
    lab net(filtered);
    auto web = net.web();
    auto db = net.db();
    web.connect(rules_of_a());
    web.connect(rules_of_b());
    db.connect(rules_of_c());
    const std::uint16_t port = type == tcp_type ? 8080 : 5353;
    const std::uint16_t inside = type == tcp_type ? 80 : 53;
    const auto pick = [&](ip_address four, ip_address six) { return v4 ? four : six; };
    const ip_address any = pick("0.0.0.0"_ip, "::"_ip);
    const ip_address host = pick("192.0.2.1"_ip, "2001:db8::1"_ip);
    const ip_address gateway = pick("10.88.0.1"_ip, "fd00:88::1"_ip);
    const ip_address address = pick("10.88.0.2"_ip, "fd00:88::2"_ip);
    const auto server = serve(net.a.ns, type, any, inside);

    // From outside: the container sees the client's true address.
    auto client = reaches(net.outside, type, host, port, server);
    REQUIRE(client);
    CHECK(client->address == pick("192.0.2.2"_ip, "2001:db8::2"_ip));
    // From the host, by each of its addresses.
    client = reaches(net.host, type, host, port, server);
    REQUIRE(client);
    CHECK(client->address == host);
    if (v4 || *filtered == '0')  // see loopback_route.hpp
        CHECK(reaches(net.host, type, pick("127.0.0.1"_ip, "::1"_ip), port, server));
    CHECK(reaches(net.host, type, gateway, port, server));
    // From a sibling, from itself, from another network.
    CHECK(reaches(net.b, type, host, port, server));
    CHECK(reaches(net.b, type, gateway, port, server));
    CHECK(reaches(net.a, type, host, port, server));
    client = reaches(net.c, type, host, port, server);
    REQUIRE(client);
    CHECK(client->address == pick("10.89.0.2"_ip, "fd00:89::2"_ip));

    // By the container's own address: its owner, the host, and nobody else.
    CHECK(reaches(net.host, type, address, inside, server));
    CHECK(is_silent(net.outside, type, address, inside, server));
    CHECK(is_silent(net.b, type, address, inside, server));
    CHECK(is_silent(net.c, type, address, inside, server));
    // A port that is not published; it is the host's own.
    const auto other = serve(net.a.ns, type, any, 81);
    CHECK(is_silent(net.outside, type, host, 81, other));
    // The host's services are not the containers'.
    const auto service = serve(net.host.ns, type, any, 22);
    CHECK(reaches(net.outside, type, host, 22, service));
    CHECK(is_silent(net.a, type, host, 22, service));
    CHECK(is_silent(net.a, type, gateway, 22, service));
    // To the outside, behind the host's address.
    const auto world = serve(net.outside.ns, type, any, 443);
    client = reaches(net.a, type, pick("192.0.2.2"_ip, "2001:db8::2"_ip), 443, world);
    REQUIRE(client);
    CHECK(client->address == host);

    // Transit to another host's port of the same number is not ours.
    const auto foreign = serve(net.outside.ns, type, any, port);
    CHECK(reaches(net.a, type, pick("192.0.2.2"_ip, "2001:db8::2"_ip), port, foreign));

    web.disconnect(rules_of_a());
    CHECK(is_silent(net.outside, type, host, port, server));
    CHECK(is_silent(net.host, type, host, port, server));
    CHECK(is_silent(net.b, type, host, port, server));
}

TEST_CASE("An allowed client reaches a published port, and a denied one gets nothing") {
    NEEDS_NETNS;
    const int type = GENERATE(tcp_type, udp_type);
    CAPTURE(type);
    lab net;
    auto web = net.web();
    auto rules = rules_of_a();
    rules.ingress = deny_all()
                        .deny("192.0.2.3"_ip)
                        .allow("192.0.2.0/24"_cidr, tcp(80))
                        .allow("192.0.2.0/24"_cidr, udp(53))
                        .allow("2001:db8:1::/48"_cidr);
    web.connect(rules);
    web.connect(rules_of_b());
    const std::uint16_t port = type == tcp_type ? 8080 : 5353;
    const std::uint16_t inside = type == tcp_type ? 80 : 53;
    const auto server = serve(net.a.ns, type, "0.0.0.0"_ip, inside);
    const auto server6 = serve(net.a.ns, type, "::"_ip, inside + 1000);
    const auto from = [&](ip_address address, int wait = 3000) {
        return reaches(net.outside, type, "192.0.2.1"_ip, port, server, wait,
                       endpoint_address(address, 0));
    };
    CHECK(from("192.0.2.2"_ip));
    CHECK_FALSE(from("192.0.2.3"_ip, silence));
    CHECK(from("192.0.2.2"_ip));
    CHECK(is_silent(net.outside, type, "2001:db8::1"_ip, port, server6));
    // A sibling is a client as any other: by its own address, that is not on the list.
    CHECK(is_silent(net.b, type, "192.0.2.1"_ip, port, server));
    // The host is the containers' owner.
    CHECK(reaches(net.host, type, "127.0.0.1"_ip, port, server));
}

TEST_CASE("What a container may open is what its egress policy says") {
    NEEDS_NETNS;
    lab net;
    auto web = net.web();
    const ip_address world = "192.0.2.2"_ip;
    const ip_address world6 = "2001:db8::2"_ip;
    const auto web_server = serve(net.outside.ns, tcp_type, world, 443);
    const auto web_server6 = serve(net.outside.ns, tcp_type, world6, 443);
    const auto names = serve(net.outside.ns, udp_type, world, 53);
    const auto names2 = serve(net.outside.ns, udp_type, "192.0.2.3"_ip, 53);
    auto rules = rules_of_a();
    const auto pings_gateway = [&] { return pings(net.a, "10.88.0.1"_ip); };

    SECTION("all of it") {
        web.connect(rules);
        CHECK(reaches(net.a, tcp_type, world, 443, web_server));
        CHECK(reaches(net.a, tcp_type, world6, 443, web_server6));
        CHECK(reaches(net.a, udp_type, world, 53, names));
        CHECK(pings_gateway());
    }
    SECTION("nothing, and it still answers who comes by a published port") {
        rules.egress = deny_all();
        web.connect(rules);
        CHECK(is_silent(net.a, tcp_type, world, 443, web_server));
        CHECK(is_silent(net.a, tcp_type, world6, 443, web_server6));
        CHECK(is_silent(net.a, udp_type, world, 53, names));
        CHECK_FALSE(pings_gateway());
        const auto server = serve(net.a.ns, tcp_type, "0.0.0.0"_ip, 80);
        CHECK(reaches(net.outside, tcp_type, "192.0.2.1"_ip, 8080, server));
    }
    SECTION("one address, one protocol, a range of ports") {
        rules.egress = deny_all().allow(world, udp(port_range{50, 60}));
        web.connect(rules);
        CHECK(reaches(net.a, udp_type, world, 53, names));
        CHECK(is_silent(net.a, udp_type, "192.0.2.3"_ip, 53, names2));
        CHECK(is_silent(net.a, tcp_type, world, 443, web_server));
        CHECK_FALSE(pings_gateway());
    }
    SECTION("all but what is denied, of both families") {
        rules.egress = allow_all().deny("192.0.2.0/28"_cidr, tcp(443)).deny("2001:db8::/64"_cidr);
        web.connect(rules);
        CHECK(is_silent(net.a, tcp_type, world, 443, web_server));
        CHECK(is_silent(net.a, tcp_type, world6, 443, web_server6));
        CHECK(reaches(net.a, udp_type, world, 53, names));
    }
    SECTION("a published port counts by the address that the container dials") {
        rules.egress = deny_all().allow("192.0.2.1"_ip, tcp(9090));
        web.connect(rules);
        auto other = rules_of_b();
        other.publish = {tcp(9090, 90), tcp(9091, 90)};
        web.connect(other);
        const auto server = serve(net.b.ns, tcp_type, "0.0.0.0"_ip, 90);
        CHECK(is_silent(net.a, tcp_type, "192.0.2.1"_ip, 9091, server));
        CHECK(reaches(net.a, tcp_type, "192.0.2.1"_ip, 9090, server));
    }
}

TEST_CASE("A port published on one address is not reached by the others") {
    NEEDS_NETNS;
    lab net;
    auto web = net.web();
    auto rules = rules_of_a();
    rules.publish = {
        published_port::parse("192.0.2.1:8080:80"), published_port::parse("127.0.0.1:9000:90"),
        published_port::parse("0.0.0.0:7000:70"), published_port::parse("192.0.2.1:7000:71")};
    web.connect(rules);
    const auto server = serve(net.a.ns, tcp_type, "0.0.0.0"_ip, 80);
    const auto local = serve(net.a.ns, tcp_type, "0.0.0.0"_ip, 90);
    const auto wild = serve(net.a.ns, tcp_type, "0.0.0.0"_ip, 70);
    const auto exact = serve(net.a.ns, tcp_type, "0.0.0.0"_ip, 71);
    CHECK(reaches(net.outside, tcp_type, "192.0.2.1"_ip, 8080, server));
    CHECK(is_silent(net.outside, tcp_type, "10.88.0.1"_ip, 8080, server));
    CHECK(is_silent(net.host, tcp_type, "127.0.0.1"_ip, 8080, server));
    CHECK(reaches(net.host, tcp_type, "127.0.0.1"_ip, 9000, local));
    CHECK(is_silent(net.outside, tcp_type, "192.0.2.1"_ip, 9000, local));
    // The more exact one comes first.
    CHECK(reaches(net.outside, tcp_type, "192.0.2.1"_ip, 7000, exact));
    CHECK(reaches(net.host, tcp_type, "127.0.0.1"_ip, 7000, wild));

    // A neighbour that sends to 127.0.0.1 over the wire, and a host that would take it.
    net.host.setting("ipv4/conf/up/route_localnet", "1");
    net.outside.setting("ipv4/conf/eth0/route_localnet", "1");
    {
        netlink_batch batch;
        delete_address(batch, find_link(net.outside.routes, "lo")->index, "127.0.0.1/8"_cidr);
        net.outside.routes.transact(batch);
    }
    net.outside.route("127.0.0.1/32"_cidr, "192.0.2.1"_ip);
    const auto service = serve(net.host.ns, udp_type, "127.0.0.1"_ip, 5000);
    CHECK(is_silent(net.outside, tcp_type, "127.0.0.1"_ip, 9000, local));
    CHECK(is_silent(net.outside, udp_type, "127.0.0.1"_ip, 5000, service));
    CHECK(nft_says(net.host).find("ip daddr 127.0.0.0/8 counter packets 0 ") == std::string::npos);
}

TEST_CASE("A flow ends with the rule that let it begin") {
    NEEDS_NETNS;
    lab net;
    auto web = net.web();
    const auto server = serve(net.a.ns, udp_type, "0.0.0.0"_ip, 53);
    const auto other = serve(net.b.ns, udp_type, "0.0.0.0"_ip, 53);
    const endpoint_address client("192.0.2.2"_ip, 40000);
    const auto sends = [&](const unique_fd& to, int wait) {
        return reaches(net.outside, udp_type, "192.0.2.1"_ip, 5353, to, wait, client);
    };
    // Before it is published: the host knows the flow as one of its own.
    const auto early = serve(net.host.ns, udp_type, "192.0.2.1"_ip, 5353);
    CHECK(sends(early, 3000));
    web.connect(rules_of_a());
    CHECK(sends(server, 3000));
    web.disconnect(rules_of_a());
    CHECK_FALSE(sends(server, silence));
    auto rules = rules_of_b();
    rules.publish = {udp(5353, 53)};
    web.connect(rules);
    CHECK(sends(other, 3000));
}

TEST_CASE("A replaced policy ends the flows that it denies, and no others") {
    NEEDS_NETNS;
    lab net;
    auto web = net.web();
    const auto before = rules_of_a();
    web.connect(before);
    const auto server = serve(net.a.ns, tcp_type, "0.0.0.0"_ip, 80);
    const auto dial = [&](ip_address own) {
        const unique_fd client = net.outside.ns.run([&] {
            unique_fd fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
            const auto [bound, size] = endpoint_address(own, 0).to_kernel();
            sys::check(::bind(fd.get(), reinterpret_cast<const sockaddr*>(&bound), size), "bind");
            const auto [to, to_size] = endpoint_address("192.0.2.1"_ip, 8080).to_kernel();
            sys::check(::connect(fd.get(), reinterpret_cast<const sockaddr*>(&to), to_size),
                       "connect");
            return fd;
        });
        unique_fd accepted(
            sys::check(::accept4(server.get(), nullptr, nullptr, SOCK_CLOEXEC), "accept"));
        return std::pair(unique_fd(::dup(client.get())), std::move(accepted));
    };
    if (!kumiki_test::wait_for(server.get(), POLLIN, 0)) {
        const auto good = dial("192.0.2.2"_ip);
        const auto bad = dial("192.0.2.3"_ip);
        auto after = before;
        after.ingress = allow_all().deny("192.0.2.3"_ip);
        web.replace(before, after);
        for (const auto* pair : {&good, &bad})
            REQUIRE(::send(pair->first.get(), "x", 1, MSG_NOSIGNAL) == 1);
        CHECK(kumiki_test::wait_for(good.second.get(), POLLIN, 3000));
        CHECK_FALSE(kumiki_test::wait_for(bad.second.get(), POLLIN, silence));
        // An answer on a flow that is denied does not come through either.
        REQUIRE(::send(good.second.get(), "y", 1, MSG_NOSIGNAL) == 1);
        REQUIRE(::send(bad.second.get(), "y", 1, MSG_NOSIGNAL) == 1);
        CHECK(kumiki_test::wait_for(good.first.get(), POLLIN, 3000));
        CHECK_FALSE(kumiki_test::wait_for(bad.first.get(), POLLIN, silence));
        // Publishing something else leaves the flow alone.
        auto more = after;
        more.publish.push_back(tcp(7777, 77));
        web.replace(after, more);
        REQUIRE(::send(good.first.get(), "z", 1, MSG_NOSIGNAL) == 1);
        char buffer[8];
        CHECK(kumiki_test::wait_for(good.second.get(), POLLIN, 3000));
        CHECK(::recv(good.second.get(), buffer, sizeof buffer, 0) == 2);
    }
    auto foreign = before;
    foreign.addresses = {"10.88.0.9"_ip};
    CHECK_THROWS_AS(web.replace(before, foreign), invalid_input);
}

TEST_CASE("Who comes to the address of one that was killed gets nothing of what was that one's") {
    NEEDS_NETNS;
    lab net;
    firewall_rules old = rules_of_a();
    old.container = "old";
    old.labels = {"trusted"};
    old.direct = deny_all().allow(tcp(5432));
    old.egress = deny_all().allow(udp(53), {.packets = per_second(10)});
    net.web().connect(old);  // this object goes, and says nothing
    REQUIRE(nft_says(net.host).find("\"old\"") != std::string::npos);

    auto web = net.web();
    firewall_rules fresh{.container = "new", .port = old.port, .addresses = old.addresses};
    web.connect(fresh);
    const std::string left = nft_says(net.host);
    INFO(left);
    CHECK(left.find("\"old\"") == std::string::npos);  // the comment of what was its
    const auto server = serve(net.a.ns, tcp_type, "0.0.0.0"_ip, 80);
    CHECK(is_silent(net.outside, tcp_type, "192.0.2.1"_ip, 8080, server));
    const auto direct = serve(net.a.ns, tcp_type, "0.0.0.0"_ip, 5432);
    CHECK(is_silent(net.b, tcp_type, "10.88.0.2"_ip, 5432, direct));
    web.disconnect(fresh);
    CHECK(nft_says(net.host).find("\"new\"") == std::string::npos);
}

TEST_CASE("Two living containers of one name do not take each other's policy") {
    NEEDS_NETNS;
    lab net;
    auto first = net.web();
    auto second = net.web();
    firewall_rules one = rules_of_a();
    one.egress = deny_all().allow(tcp(80));
    firewall_rules other = rules_of_b();
    other.container = one.container;
    other.egress = deny_all().allow(tcp(443));
    first.connect(one);
    try {
        second.connect(other, [](const ip_address&) { return true; });
        FAIL("it was connected");
    } catch (const error& refused) {
        CHECK(refused.errno_value() == EEXIST);
        CHECK(std::string(refused.what()).find("already, at 10.88.0.2") != std::string::npos);
    }
    const std::string rules = nft_says(net.host);
    CHECK(rules.find("10.88.0.3") == std::string::npos);
    CHECK(rules.find("443") == std::string::npos);
    // Of a dead one it is no more than the name.
    second.connect(other);
}

TEST_CASE("A flow that a sibling opened is permitted while its policy is") {
    const firewall_options options{
        .network = "web", .bridge = "km-web", .subnets = {"10.88.0.0/24"_cidr}};
    const firewall_rules rules{.container = "a",
                               .port = "km-a",
                               .addresses = {"10.88.0.2"_ip},
                               .direct = deny_all().allow("10.88.0.3"_ip, tcp(5432))};
    const auto permitted = [&](ip_address from, std::uint16_t port) {
        const flow f{.transport = 6,
                     .original = {.source = from,
                                  .destination = "10.88.0.2"_ip,
                                  .source_port = 4000,
                                  .destination_port = port},
                     .reply = {.source = "10.88.0.2"_ip,
                               .destination = from,
                               .source_port = port,
                               .destination_port = 4000}};
        return detail::permits(options, rules, f, {.host = {.addresses = {"10.88.0.1"_ip}}});
    };
    CHECK(permitted("10.88.0.3"_ip, 5432));
    CHECK_FALSE(permitted("10.88.0.3"_ip, 5433));
    CHECK_FALSE(permitted("10.88.0.4"_ip, 5432));
    CHECK(permitted("10.88.0.1"_ip, 22));  // the host is its owner
    CHECK_FALSE(permitted("192.0.2.1"_ip, 22));  // nobody of the network's
    // To the host itself: names, and echoes that its policy allows.
    const auto asks = [&](std::uint8_t transport, std::uint16_t port, name_service names) {
        auto network = options;
        network.names = names;
        const flow f{.transport = transport,
                     .original = {"10.88.0.2"_ip, "10.88.0.1"_ip, 4000, port},
                     .reply = {"10.88.0.1"_ip, "10.88.0.2"_ip, port, 4000}};
        return detail::permits(network, rules, f, {.host = {.addresses = {"10.88.0.1"_ip}}});
    };
    CHECK_FALSE(asks(6, 22, name_service::on));
    CHECK(asks(17, 53, name_service::on));
    CHECK_FALSE(asks(17, 53, name_service::off));
    CHECK(asks(1, 0, name_service::off));
}

TEST_CASE("A container sends from its own addresses only") {
    NEEDS_NETNS;
    const char* const filtered = GENERATE("0", "1");
    CAPTURE(filtered);
    lab net(filtered);
    auto web = net.web();
    web.connect(rules_of_a());
    web.connect(rules_of_b());
    const auto world = serve(net.outside.ns, udp_type, "0.0.0.0"_ip, 53);
    const auto world6 = serve(net.outside.ns, udp_type, "::"_ip, 54);
    const auto from = [&](ip_address own, ip_address to, std::uint16_t port,
                          const unique_fd& server, int wait) {
        return reaches(net.a, udp_type, to, port, server, wait, endpoint_address(own, 0));
    };
    CHECK(from("10.88.0.2"_ip, "192.0.2.2"_ip, 53, world, 3000));
    CHECK(from("fd00:88::2"_ip, "2001:db8::2"_ip, 54, world6, 3000));
    // A sibling's, a free one, another network's, the host's.
    for (const char* const stolen : {"10.88.0.3/32", "10.88.0.77/32", "10.89.0.2/32"}) {
        CAPTURE(stolen);
        net.a.address("eth0", cidr::parse(stolen));
        CHECK_FALSE(from(cidr::parse(stolen).address, "192.0.2.2"_ip, 53, world, silence));
    }
    net.a.address("eth0", "fd00:88::3/128"_cidr);
    CHECK_FALSE(from("fd00:88::3"_ip, "2001:db8::2"_ip, 54, world6, silence));
    CHECK(nft_says(net.host).find("packets 0 bytes 0 drop comment \"not its own address\"") ==
          std::string::npos);
}

TEST_CASE("A second opening of a network leaves what the first one connected") {
    NEEDS_NETNS;
    lab net;
    auto first = net.web();
    auto rules = rules_of_a();
    rules.egress = deny_all().allow("192.0.2.0/24"_cidr);
    first.connect(rules);
    const std::string once = nft_says(net.host);
    auto second = net.web();
    const auto count = [](const std::string& text, const std::string& part) {
        std::size_t found = 0;
        for (auto at = text.find(part); at != std::string::npos; at = text.find(part, at + 1))
            ++found;
        return found;
    };
    const std::string twice = nft_says(net.host);
    CHECK(count(once, "\n") == count(twice, "\n"));
    const auto server = serve(net.a.ns, tcp_type, "0.0.0.0"_ip, 80);
    CHECK(reaches(net.outside, tcp_type, "192.0.2.1"_ip, 8080, server));

    // The second can take down what the first put up; twice is no error, nor is an empty house.
    second.disconnect(rules);
    CHECK(is_silent(net.outside, tcp_type, "192.0.2.1"_ip, 8080, server));
    const std::string after = nft_says(net.host);
    CHECK(count(after, "10.88.0.2") == 0);
    CHECK(count(after, "out-a") == 0);
    second.disconnect(rules);
    second.remove();
    CHECK(nft_says(net.host).empty());
    first.remove();
    first.disconnect(rules);
}

TEST_CASE("Connecting mends what a killed process left, and what a foreign hand flushed") {
    NEEDS_NETNS;
    lab net;
    auto web = net.web();
    const auto server = serve(net.b.ns, tcp_type, "0.0.0.0"_ip, 80);
    // Left behind: the same host port leads to another address, a chain is still there.
    auto stale = rules_of_a();
    stale.ingress = deny_all().allow("192.0.2.99"_ip);
    web.connect(stale);
    auto rules = rules_of_b();
    rules.container = "a";
    rules.publish = {tcp(8080, 80)};
    rules.ingress = allow_all().deny("192.0.2.99"_ip);
    web.connect(rules);
    CHECK(reaches(net.outside, tcp_type, "192.0.2.1"_ip, 8080, server));

    net.host.ns.run([] { return ::system("nft flush ruleset"); });
    REQUIRE(nft_says(net.host).empty());
    web.disconnect(rules);
    web.connect(rules);
    CHECK(reaches(net.outside, tcp_type, "192.0.2.1"_ip, 8080, server));
    CHECK(is_silent(net.outside, tcp_type, "10.88.0.3"_ip, 80, server));
}

TEST_CASE("A port that leads to a container that lives is not taken from it") {
    NEEDS_NETNS;
    lab net;
    auto web = net.web();
    const auto server = serve(net.a.ns, tcp_type, "0.0.0.0"_ip, 80);
    web.connect(rules_of_a());
    auto rules = rules_of_b();
    rules.publish = {tcp(7070, 70), tcp(8080, 80), sctp(9000, 90)};
    const auto stateless = [&] { return output_of(net.host, "nft -nn -s list ruleset"); };
    const std::string before = stateless();
    const auto lives = [](const ip_address& at) { return at == "10.88.0.2"_ip; };
    try {
        web.connect(rules, lives);
        FAIL("the port was taken");
    } catch (const error& failure) {
        CHECK(failure.errno_value() == EADDRINUSE);
        CHECK(failure.remedy().find("Container a at 10.88.0.2") != std::string::npos);
    }
    CHECK(stateless() == before);
    CHECK(reaches(net.outside, tcp_type, "192.0.2.1"_ip, 8080, server));
    // Connected twice it is in nobody's way, and what a dead one left is replaced in one piece.
    web.connect(rules_of_a(), lives);
    CHECK(reaches(net.outside, tcp_type, "192.0.2.1"_ip, 8080, server));
    const auto other = serve(net.b.ns, tcp_type, "0.0.0.0"_ip, 80);
    web.connect(rules, [](const ip_address&) { return false; });
    CHECK(reaches(net.outside, tcp_type, "192.0.2.1"_ip, 8080, other));
}

TEST_CASE("Ten thousand ports are one transaction, and none of them stays") {
    NEEDS_NETNS;
    lab net;
    auto web = net.web();
    auto rules = rules_of_a();
    rules.publish = {{.transport = protocol::tcp, .host = {20000, 29999}, .container = {1, 10000}}};
    web.connect(rules);
    const auto server = serve(net.a.ns, tcp_type, "0.0.0.0"_ip, 10000);
    CHECK(reaches(net.outside, tcp_type, "192.0.2.1"_ip, 29999, server));
    web.disconnect(rules);
    CHECK(nft_says(net.host).find("29999") == std::string::npos);
}

TEST_CASE("A held port leads into its container all the same") {
    NEEDS_NETNS;
    lab net;
    auto web = net.web();
    auto rules = rules_of_a();
    rules.publish = {tcp(0, 80)};
    auto held =
        net.host.ns.run([&] { return port_reservation::hold(rules.publish, rules.addresses); });
    rules.publish = held.ports();
    web.connect(rules);
    held.listen();
    const std::uint16_t port = rules.publish.front().host.first;
    const auto server = serve(net.a.ns, tcp_type, "0.0.0.0"_ip, 80);
    CHECK(reaches(net.outside, tcp_type, "192.0.2.1"_ip, port, server));
    CHECK(reaches(net.host, tcp_type, "127.0.0.1"_ip, port, server));
}

TEST_CASE(
    "What rules say to a flow that is known already is what the kernel said to its first packet") {
    auto rules = rules_of_a();
    rules.publish = {tcp(port_range{8000, 8009}), published_port::parse("192.0.2.1:8005:5")};
    rules.ingress = allow_all().deny("192.0.2.3"_ip).deny(tcp(8001));
    rules.egress = deny_all().allow("192.0.2.0/24"_cidr, udp(53));
    const auto led = [](ip_address client, ip_address to, std::uint16_t port,
                        std::uint16_t inside) {
        return flow{.transport = 6,
                    .original = {client, to, 40000, port},
                    .reply = {"10.88.0.2"_ip, client, inside, 40000}};
    };
    const auto good = led("192.0.2.2"_ip, "192.0.2.9"_ip, 8005, 8005);
    CHECK(detail::published_as(rules, good) == 8005);
    CHECK(detail::permits({}, rules, good, {}));
    CHECK(detail::published_as(rules, led("192.0.2.2"_ip, "192.0.2.1"_ip, 8005, 5)) == 5);
    CHECK_FALSE(detail::permits({}, rules, led("192.0.2.2"_ip, "192.0.2.1"_ip, 8005, 8005), {}));
    CHECK_FALSE(detail::permits({}, rules, led("192.0.2.3"_ip, "192.0.2.9"_ip, 8005, 8005), {}));
    CHECK_FALSE(detail::permits({}, rules, led("192.0.2.2"_ip, "192.0.2.9"_ip, 8001, 8001), {}));
    CHECK_FALSE(detail::permits({}, rules, led("192.0.2.2"_ip, "192.0.2.9"_ip, 8010, 8010), {}));
    const auto own = [](std::uint8_t transport, std::uint16_t port) {
        return flow{.transport = transport,
                    .original = {"10.88.0.2"_ip, "192.0.2.2"_ip, 40000, port},
                    .reply = {"192.0.2.2"_ip, "192.0.2.1"_ip, port, 40000}};
    };
    CHECK(detail::permits({}, rules, own(17, 53), {}));
    CHECK_FALSE(detail::permits({}, rules, own(6, 53), {}));
    CHECK_FALSE(detail::permits({}, rules, own(17, 54), {}));
}

TEST_CASE("Rules that cannot be are refused, and nothing is changed") {
    NEEDS_NETNS;
    lab net;
    auto web = net.web();
    const std::string before = nft_says(net.host);
    const auto refused = [&](auto change) {
        auto rules = rules_of_a();
        change(rules);
        CHECK_THROWS_AS(web.connect(rules), invalid_input);
    };
    for (const char* const name : {"", "-a", "a b", "a/b", "a\"b", "a;b", "\n"})
        refused([&](auto& rules) { rules.container = name; });
    refused([](auto& rules) { rules.container = std::string(64, 'a'); });
    refused([](auto& rules) { rules.port = ""; });
    refused([](auto& rules) { rules.port = "sixteen-bytes-16"; });
    refused([](auto& rules) { rules.addresses.clear(); });
    refused([](auto& rules) { rules.addresses = {"10.89.0.2"_ip}; });
    refused([](auto& rules) { rules.addresses = {"10.88.0.2"_ip, "10.88.0.3"_ip}; });
    refused([](auto& rules) { rules.publish = {tcp(0, 80)}; });
    refused(
        [](auto& rules) { rules.publish = {published_port{.host = {1, 2}, .container = {1, 1}}}; });
    refused([](auto& rules) {
        rules.addresses = {"10.88.0.2"_ip};
        rules.publish = {published_port::parse("[::1]:80:80")};
    });
    CHECK(nft_says(net.host) == before);
    // Twice the same port: the map has one place for it.
    auto rules = rules_of_a();
    rules.publish = {tcp(8080, 80), tcp(8080, 81)};
    CHECK_THROWS_AS(web.connect(rules), error);
    CHECK(nft_says(net.host).find("10.88.0.2") == std::string::npos);
    for (const char* const name : {"", "a b", "../x"})
        CHECK_THROWS_AS(firewall::open({.network = name, .bridge = "br0"}), invalid_input);
    CHECK_THROWS_AS(firewall::open({.network = "x", .bridge = ""}), invalid_input);
}

TEST_CASE("The rules are legible to the nft program") {
    NEEDS_NETNS;
    const lab net;
    auto web = net.web();
    auto rules = rules_of_a();
    rules.publish.push_back(published_port::parse("127.0.0.1:9000:90"));
    rules.ingress = deny_all().allow("192.0.2.0/24"_cidr, tcp(80));
    rules.egress = deny_all().allow("10.0.0.53"_ip, udp(53));
    web.connect(rules);
    const std::string text = nft_says(net.host);
    INFO(text);
    for (const char* const line :
         {"6 . 127.0.0.1 . 9000 comment \"a\" : 10.88.0.2 . 90",
          "17 . 5353 comment \"a\" : fd00:88::2 . 53", "10.88.0.2 comment \"a\" : jump out-a",
          "dnat ip to meta l4proto . ip daddr . th dport map @publish4",
          "fib daddr type 2 goto published", "ip6 saddr vmap @egress6",
          "ct original ip daddr 10.0.0.53 meta l4proto 17 ct original proto-dst 53",
          "ip saddr 192.0.2.0/24 tcp dport 80",
          "iifname . ether saddr . ip saddr @sources4 accept"})
        CHECK(text.find(line) != std::string::npos);
}
