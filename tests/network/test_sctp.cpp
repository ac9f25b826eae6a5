// Published ports of SCTP, also on kernels that have no SCTP sockets: then the packets are made by hand.
#include <algorithm>
#include <array>
#include <cstring>
#include <optional>

#include <kumiki/network/endpoint.hpp>

#include "support/catch.hpp"
#include "support/netns.hpp"
#include "support/scratch.hpp"

using namespace kumiki;
using namespace kumiki::literals;
using kumiki_test::private_netns;

namespace {

/// RFC 9260, appendix A: CRC32c, over the packet with a checksum of zero.
std::uint32_t checksum(const std::vector<std::uint8_t>& packet) {
    std::uint32_t crc = 0xffffffff;
    for (const std::uint8_t byte : packet) {
        crc ^= byte;
        for (int bit = 0; bit < 8; ++bit) crc = crc >> 1 ^ ((crc & 1) != 0 ? 0x82f63b78U : 0U);
    }
    return ~crc;
}

/// The INIT that begins an association.
std::vector<std::uint8_t> first_packet(std::uint16_t from, std::uint16_t to) {
    std::vector<std::uint8_t> packet{
        std::uint8_t(from >> 8),
        std::uint8_t(from),
        std::uint8_t(to >> 8),
        std::uint8_t(to),
        0,
        0,
        0,
        0,  // verification tag: none yet
        0,
        0,
        0,
        0,  // checksum
        1,
        0,
        0,
        20,  // INIT of 20 bytes
        0x12,
        0x34,
        0x56,
        0x78,  // its tag
        0,
        1,
        0,
        0,
        0,
        1,
        0,
        1,  // window, streams out and in
        0x9a,
        0xbc,
        0xde,
        0xf0,  // first sequence number
    };
    const std::uint32_t sum = checksum(packet);
    std::memcpy(packet.data() + 8, &sum, sizeof sum);  // its low byte first
    return packet;
}

unique_fd raw_sctp(const private_netns& ns, ip_address own) {
    return ns.run([&] {
        unique_fd fd(
            sys::check(::socket(AF_INET, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_SCTP), "socket"));
        const auto [to, size] = kumiki_test::endpoint_address(own, 0).to_kernel();
        sys::check(::bind(fd.get(), reinterpret_cast<const sockaddr*>(&to), size), "bind");
        return fd;
    });
}

struct sctp_site {
    kumiki_test::scratch place{};
    private_netns host{};
    private_netns outside{};
    private_netns inside{};
    std::optional<bridge_network> net{};

    sctp_site() {
        bring_loopback_up(host.fd());
        netlink_batch batch;
        create_veth(batch, {.name = "up0", .peer_name = "out0", .peer_netns = outside.fd()});
        netlink_socket::open_in(host.fd(), NETLINK_ROUTE).transact(batch);
        give(host, "up0", "192.0.2.1/24"_cidr);
        give(outside, "out0", "192.0.2.2/24"_cidr);
        net = host.run([&] {
            return bridge_network::open(
                {.name = "web", .subnet = "10.88.0.0/24"_cidr, .state_directory = place.path()});
        });
    }
    static void give(const private_netns& ns, const char* name, cidr address) {
        auto route = netlink_socket::open_in(ns.fd(), NETLINK_ROUTE);
        netlink_batch batch;
        add_address(batch, find_link(route, name)->index, address);
        set_link(batch, name, {.up = true});
        route.transact(batch);
    }
    endpoint connect(attach_options options) const {
        return host.run([&] { return reserve(net->attach(std::move(options)), "box"); })
            .connect(inside.fd());
    }
    /// The port to which a packet for `port` of the host comes inside, and from whom.
    std::optional<std::pair<std::uint16_t, ip_address>> arrival(std::uint16_t from,
                                                                std::uint16_t port, int wait) {
        const auto receiver = raw_sctp(inside, "0.0.0.0"_ip);
        const auto sender = raw_sctp(outside, "192.0.2.2"_ip);
        const auto packet = first_packet(from, port);
        const auto [to, size] = kumiki_test::endpoint_address("192.0.2.1"_ip, 0).to_kernel();
        sys::check(::sendto(sender.get(), packet.data(), packet.size(), 0,
                            reinterpret_cast<const sockaddr*>(&to), size),
                   "send");
        if (!kumiki_test::wait_for(receiver.get(), POLLIN, wait)) return std::nullopt;
        std::array<std::uint8_t, 256> bytes{};
        REQUIRE(::recv(receiver.get(), bytes.data(), bytes.size(), 0) == 20 + 32);
        auto body = std::vector<std::uint8_t>(bytes.begin() + 20, bytes.begin() + 52);
        std::uint32_t sum = 0;
        std::memcpy(&sum, body.data() + 8, sizeof sum);
        std::fill(body.begin() + 8, body.begin() + 12, std::uint8_t{0});
        CHECK(sum == checksum(body));  // translated, and a packet that SCTP would take
        return std::pair(static_cast<std::uint16_t>(body[2] << 8 | body[3]),
                         ip_address(std::array{bytes[12], bytes[13], bytes[14], bytes[15]}));
    }
};

}  // namespace

TEST_CASE("A packet to a published port of SCTP comes into the container, and to no other") {
    NEEDS_NETNS;
    sctp_site here;
    const auto box = here.connect({.publish = {sctp(7000, 70)}});
    const auto seen = here.arrival(40000, 7000, 3000);
    REQUIRE(seen);
    CHECK(seen->first == 70);
    CHECK(seen->second == "192.0.2.2"_ip);
    CHECK_FALSE(here.arrival(40001, 7001, 200));
    CHECK_FALSE(here.arrival(40002, 70, 200));
}

TEST_CASE("A policy decides on SCTP as on the rest, by its own ports") {
    NEEDS_NETNS;
    sctp_site here;
    const auto box = here.connect({.publish = {sctp(7000, 70), sctp(7001, 71)},
                                   .ingress = allow_all().deny("192.0.2.2"_ip, sctp(71))});
    CHECK(here.arrival(40000, 7000, 3000));
    CHECK_FALSE(here.arrival(40001, 7001, 200));
}

TEST_CASE("An association is set up with a published port of SCTP") {
    NEEDS_NETNS;
    if (!unique_fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, IPPROTO_SCTP)))
        KUMIKI_SKIP("this kernel has no SCTP sockets: " + errno_name(errno));
    sctp_site here;
    const auto box = here.connect({.publish = {sctp(7000, 70)}});
    const auto make = [](const private_netns& ns) {
        return ns.run([] {
            return unique_fd(
                sys::check(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, IPPROTO_SCTP), "socket"));
        });
    };
    const unique_fd server = make(here.inside);
    const auto [own, own_size] = kumiki_test::endpoint_address("0.0.0.0"_ip, 70).to_kernel();
    sys::check(::bind(server.get(), reinterpret_cast<const sockaddr*>(&own), own_size), "bind");
    sys::check(::listen(server.get(), 4), "listen");
    const unique_fd client = make(here.outside);
    const timeval limit{.tv_sec = 5, .tv_usec = 0};
    ::setsockopt(client.get(), SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
    const auto [to, size] = kumiki_test::endpoint_address("192.0.2.1"_ip, 7000).to_kernel();
    CHECK(::connect(client.get(), reinterpret_cast<const sockaddr*>(&to), size) == 0);
    CHECK(kumiki_test::wait_for(server.get(), POLLIN, 3000));
}
