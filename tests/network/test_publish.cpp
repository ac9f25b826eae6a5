#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <string>
#include <vector>

#include <kumiki/netlink/link.hpp>
#include <kumiki/netlink/socket.hpp>
#include <kumiki/network/port_reservation.hpp>
#include <kumiki/network/publish.hpp>

#include "support/catch.hpp"
#include "support/kernel.hpp"
#include "support/netns.hpp"

using namespace kumiki;
using namespace kumiki::literals;
using kumiki_test::private_netns;

namespace {

const std::vector<ip_address> only_v4{"10.88.0.2"_ip};
const std::vector<ip_address> both{"10.88.0.2"_ip, "fd00:88::2"_ip};

/// The error that `function` throws, or nothing.
template <class Function>
std::optional<error> any_failure_of(Function&& function) {
    try {
        function();
    } catch (const error& failure) {
        return failure;
    }
    return std::nullopt;
}

port_reservation hold_in(const private_netns& ns, const std::vector<published_port>& ports,
                         const std::vector<ip_address>& addresses) {
    return ns.run([&] { return port_reservation::hold(ports, addresses); });
}

int try_bind(const private_netns& ns, int type, ip_address address, std::uint16_t port) {
    return ns.run([&] {
        const unique_fd fd(::socket(address.is_v4() ? AF_INET : AF_INET6, type | SOCK_CLOEXEC, 0));
        const int on = 1;
        ::setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
        if (address.is_v6()) ::setsockopt(fd.get(), IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on);
        const auto [to, size] = kumiki_test::endpoint_address(address, port).to_kernel();
        return ::bind(fd.get(), reinterpret_cast<const sockaddr*>(&to), size) == 0 ? 0 : errno;
    });
}

}  // namespace

TEST_CASE("Published ports are read as docker and podman read them") {
    const auto port = [](std::string_view text) { return published_port::parse(text); };
    CHECK(port("8080:80") == tcp(8080, 80));
    CHECK(port("8080:80/tcp") == tcp(8080, 80));
    CHECK(port("53:53/udp") == published_port(udp(53)));
    CHECK(port("9000:90/sctp") == sctp(9000, 90));
    CHECK(port("80") == tcp(0, 80));
    CHECK(port("80").picks_port());
    CHECK(port("80").container == port_range{80, 80});
    CHECK(port("0:80").picks_port());
    CHECK(port("127.0.0.1:8080:80").address == "127.0.0.1"_ip);
    CHECK(port("127.0.0.1::80").picks_port());
    CHECK(port("[::1]:8080:80/tcp").address == "::1"_ip);
    CHECK(port("[::]:8080:80").on_all_addresses());
    CHECK_FALSE(port("[::]:8080:80").covers(ip_family::v4));
    CHECK(port("8000-8010:9000-9010/udp") == published_port{.transport = protocol::udp,
                                                            .host = {8000, 8010},
                                                            .container = {9000, 9010}});
    CHECK(port("8000-8010").picks_port());
}

TEST_CASE("What is printed of a published port is read back as the same") {
    for (const char* const text :
         {"8080:80/tcp", "80/udp", "127.0.0.1:8080:80/tcp", "127.0.0.1::80/tcp",
          "[::1]:1-3:4-6/sctp", "0.0.0.0:65535:1/udp", "[2001:db8::1]::80/tcp"})
        CHECK(to_string(published_port::parse(text)) == text);
}

TEST_CASE("Each malformed published port is refused with what was given") {
    const std::string text = GENERATE(
        as<std::string>{}, "", ":", "::", ":80", "80:", "0", "65536", "8080:0", "65536:80",
        "8080:65536", "-1:80", "+80", " 80", "80 ", "8080:80/", "8080:80/icmp", "8080:80/TCP/",
        "/tcp", "a:80", "80:a", "8080-8081:80", "8080:80-81", "8081-8080:80-81", "5-4", "0-5:1-6",
        "1-:1", "-5", "1-2-3", "127.0.0.1:80:80:80", "127.0.0.01:80:80", "256.0.0.1:80:80",
        "localhost:80:80", "::1:80:80", "[::1:80:80", "::1]:80:80", "[::1]80:80",
        "[127.0.0.1]:80:80", "[]:80:80", "[::1%lo]:80:80", "0x50:80", "224.0.0.1:80:80",
        "255.255.255.255:80:80", "[ff02::1]:80:80", "80\n:80", "8080:99999999999999999999");
    CAPTURE(text);
    const auto failure = any_failure_of([&] { (void)published_port::parse(text); });
    REQUIRE(failure);
    CHECK(failure->object() == "'" + text + "'");
    CHECK_FALSE(failure->remedy().empty());
    CHECK_THROWS_AS(published_port::parse(text), invalid_input);
}

TEST_CASE("Ports that cannot be are refused where they are made") {
    CHECK_THROWS_AS(tcp(0), invalid_input);
    CHECK_THROWS_AS(udp(8080, 0), invalid_input);
    CHECK_THROWS_AS(sctp(port_range{5, 4}), invalid_input);
    CHECK(tcp(0, 80).picks_port());
}

TEST_CASE("A held port cannot be bound by another program, of either family") {
    NEEDS_NETNS;
    const private_netns ns;
    {
        const auto held = hold_in(ns, {tcp(8080, 80), udp(port_range{5000, 5002})}, both);
        CHECK(held.ports().size() == 2);
        for (const auto& any : {"0.0.0.0"_ip, "::"_ip}) {
            CHECK(try_bind(ns, SOCK_STREAM, any, 8080) == EADDRINUSE);
            CHECK(try_bind(ns, SOCK_DGRAM, any, 5002) == EADDRINUSE);
            CHECK(try_bind(ns, SOCK_DGRAM, any, 8080) == 0);
            CHECK(try_bind(ns, SOCK_STREAM, any, 8081) == 0);
        }
    }
    CHECK(try_bind(ns, SOCK_STREAM, "0.0.0.0"_ip, 8080) == 0);
    CHECK(try_bind(ns, SOCK_DGRAM, "::"_ip, 5001) == 0);
}

TEST_CASE("A port is held for the families that the container has") {
    NEEDS_NETNS;
    const private_netns ns;
    const auto held = hold_in(ns, {tcp(8080, 80)}, only_v4);
    CHECK(try_bind(ns, SOCK_STREAM, "0.0.0.0"_ip, 8080) == EADDRINUSE);
    CHECK(try_bind(ns, SOCK_STREAM, "::"_ip, 8080) == 0);
    CHECK_THROWS_AS(hold_in(ns, {published_port::parse("[::]:1:1")}, only_v4), invalid_input);
}

TEST_CASE("A port in use is an error that names the port and who has it") {
    NEEDS_NETNS;
    const private_netns ns;
    const auto server = kumiki_test::serve(ns, SOCK_STREAM, "0.0.0.0"_ip, 8080);
    const auto failure =
        any_failure_of([&] { hold_in(ns, {tcp(8079, 80), tcp(8080, 80)}, only_v4); });
    REQUIRE(failure);
    CHECK(failure->errno_value() == EADDRINUSE);
    CHECK(failure->object() == "0.0.0.0:8080/tcp");
    CHECK(failure->remedy().find("pid " + std::to_string(::getpid())) != std::string::npos);
    CHECK(try_bind(ns, SOCK_STREAM, "0.0.0.0"_ip, 8079) == 0);  // nothing is held by halves

    const auto udp_server = kumiki_test::serve(ns, SOCK_DGRAM, "::"_ip, 53);
    const auto other = any_failure_of([&] { hold_in(ns, {udp(53)}, both); });
    REQUIRE(other);
    CHECK(other->remedy().find("pid " + std::to_string(::getpid())) != std::string::npos);
}

TEST_CASE("Two containers cannot hold the same port, and the second is told") {
    NEEDS_NETNS;
    const private_netns ns;
    auto first = hold_in(ns, {tcp(8080, 80), udp(5353, 53)}, both);
    const std::string own_pid = "(pid " + std::to_string(::getpid()) + ")";
    const auto says = [&](const published_port& wanted) {
        const auto failure = any_failure_of([&] { hold_in(ns, {wanted}, both); });
        REQUIRE(failure);
        CHECK(failure->errno_value() == EADDRINUSE);
        return failure->remedy();
    };
    CHECK(says(udp(5353, 54)).find(own_pid) != std::string::npos);
    // Bound and no more, as it is: told by the kernel since Linux 6.8.
    if (kumiki_test::kernel_is_at_least(6, 8))
        CHECK(says(tcp(8080, 81)).find(own_pid) != std::string::npos);
    first.listen();
    CHECK(says(tcp(8080, 81)).find(own_pid) != std::string::npos);
}

TEST_CASE("A free port is picked, told, and held") {
    NEEDS_NETNS;
    const private_netns ns;
    const auto held =
        hold_in(ns, {tcp(0, 80), published_port::parse("127.0.0.1::53-54/udp")}, both);
    INFO(kumiki::to_string(held.ports().front()));
    CHECK(held.ports().size() == 3);  // each port of a range is picked by itself
}

TEST_CASE("An address that the host does not have is refused by name") {
    NEEDS_NETNS;
    const private_netns ns;
    // A namespace in which no interface was ever up has no table of addresses to look in.
    auto links = netlink_socket::open_in(ns.fd(), NETLINK_ROUTE);
    netlink_batch up;
    set_link(up, "lo", {.up = true});
    links.transact(up);
    const auto failure =
        any_failure_of([&] { hold_in(ns, {published_port::parse("192.0.2.9:80:80")}, only_v4); });
    REQUIRE(failure);
    CHECK(failure->errno_value() == EADDRNOTAVAIL);
    CHECK(failure->object() == "192.0.2.9:80/tcp");
}

TEST_CASE("The kernel's socket tables are read, whatever is in them") {
    const std::string table =
        "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  "
        "timeout "
        "inode\n"
        "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        "
        "0 "
        "4711 1 0 100 0 0 10 0\n"
        "   1: 00000000000000000000000001000000:0050 00000000000000000000000000000000:0000 0A 0:0 "
        "00:0 0 0 0 4712 1\n";
    CHECK(detail::find_bound_socket(table, "127.0.0.1"_ip, 8080) == 4711);
    CHECK(detail::find_bound_socket(table, "0.0.0.0"_ip, 8080) == 4711);
    CHECK(detail::find_bound_socket(table, "::1"_ip, 80) == 4712);
    CHECK_FALSE(detail::find_bound_socket(table, "127.0.0.2"_ip, 8080));
    for (const char* const odd :
         {"", "\n\n", "0: :1F90", "a b c d e f g h i j", "0: zz:1F90 0 0 0 0"})
        CHECK_FALSE(detail::find_bound_socket(odd, "0.0.0.0"_ip, 8080));
}

TEST_CASE("A port on all addresses and the same on one of them are held together") {
    NEEDS_NETNS;
    const private_netns ns;
    auto links = netlink_socket::open_in(ns.fd(), NETLINK_ROUTE);
    netlink_batch up;
    set_link(up, "lo", {.up = true});
    links.transact(up);
    const auto wild = published_port::parse("0.0.0.0:7000:70");
    const auto exact = published_port::parse("127.0.0.1:7000:71");
    for (const auto& ports : {std::vector{wild, exact}, std::vector{exact, wild}}) {
        const auto held = hold_in(ns, ports, both);
        CHECK(held.ports() == ports);
        CHECK(try_bind(ns, SOCK_STREAM, "127.0.0.1"_ip, 7000) == EADDRINUSE);
        CHECK(try_bind(ns, SOCK_STREAM, "0.0.0.0"_ip, 7000) == EADDRINUSE);
    }
    // Still one of the host's, and still once.
    const auto foreign = any_failure_of(
        [&] { hold_in(ns, {wild, published_port::parse("192.0.2.9:7000:71")}, both); });
    REQUIRE(foreign);
    CHECK(foreign->errno_value() == EADDRNOTAVAIL);
    CHECK(foreign->object() == "192.0.2.9:7000/tcp");
    for (const auto& twice : {std::vector{wild, wild}, std::vector{exact, exact}}) {
        const auto failure = any_failure_of([&] { hold_in(ns, twice, both); });
        REQUIRE(failure);
        CHECK(failure->errno_value() == EADDRINUSE);
    }
    CHECK(try_bind(ns, SOCK_STREAM, "0.0.0.0"_ip, 7000) == 0);
}

TEST_CASE("Ports that change are never free in between, from one address to all and back") {
    NEEDS_NETNS;
    const private_netns ns;
    auto links = netlink_socket::open_in(ns.fd(), NETLINK_ROUTE);
    netlink_batch up;
    set_link(up, "lo", {.up = true});
    links.transact(up);
    const auto kind = GENERATE("tcp", "udp");
    const int type = kind == std::string("tcp") ? SOCK_STREAM : SOCK_DGRAM;
    const auto port = [&](const std::string& text) {
        return published_port::parse(text + "/" + kind);
    };
    auto held = hold_in(ns, {port("0.0.0.0:7000:70"), port("127.0.0.1:7001:71")}, both);
    const auto change = [&](const std::vector<published_port>& ports) {
        auto next = ns.run([&] { return held.changed(ports, both); });
        CHECK(try_bind(ns, type, "127.0.0.1"_ip, 7000) == EADDRINUSE);
        CHECK(try_bind(ns, type, "127.0.0.1"_ip, 7001) == EADDRINUSE);
        held = std::move(next);
        CHECK(held.ports() == ports);
        CHECK(try_bind(ns, type, "127.0.0.1"_ip, 7000) == EADDRINUSE);
        CHECK(try_bind(ns, type, "127.0.0.1"_ip, 7001) == EADDRINUSE);
    };
    change({port("127.0.0.1:7000:70"), port("0.0.0.0:7001:71")});
    CHECK(try_bind(ns, type, "127.0.0.2"_ip, 7000) == 0);
    CHECK(try_bind(ns, type, "127.0.0.2"_ip, 7001) == EADDRINUSE);
    change({port("0.0.0.0:7000:70"), port("0.0.0.0:7001:71")});
    CHECK(try_bind(ns, type, "127.0.0.2"_ip, 7000) == EADDRINUSE);
    // What fails changes nothing.
    const auto other = hold_in(ns, {port("0.0.0.0:7002:72")}, both);
    CHECK(any_failure_of(
        [&] { ns.run([&] { (void)held.changed(std::vector{port("0.0.0.0:7002:72")}, both); }); }));
    CHECK(try_bind(ns, type, "127.0.0.2"_ip, 7000) == EADDRINUSE);
    held = {};
    CHECK(try_bind(ns, type, "127.0.0.1"_ip, 7000) == 0);
}
