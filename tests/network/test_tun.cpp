#include <algorithm>

#include <kumiki/netlink/address.hpp>
#include <kumiki/network/tun.hpp>

#include "support/catch.hpp"
#include "support/netns.hpp"
#include "support/witness.hpp"

using namespace kumiki;
using namespace kumiki::literals;
using kumiki_test::private_netns;
using kumiki_test::says;
using kumiki_test::witness;

namespace {

// The device, or nothing where there is no /dev/net/tun, or no right to it.
std::optional<tun_device> try_open(const private_netns& ns, const std::string& name,
                                   tun_kind kind = tun_kind::packets) {
    try {
        return tun_device::open_in(ns.fd(), name, kind);
    } catch (const unsupported& missing) {
        INFO(missing.what());
        CHECK(says(missing.what(), "module tun"));
        return std::nullopt;
    }
}

// Reads until a packet fits; nothing when none comes within two seconds.
std::vector<std::uint8_t> next_packet(int fd, auto&& fits) {
    while (kumiki_test::wait_for(fd, POLLIN, 2000)) {
        std::vector<std::uint8_t> bytes(2000);
        const auto size = ::read(fd, bytes.data(), bytes.size());
        if (size <= 0) break;
        bytes.resize(static_cast<std::size_t>(size));
        if (fits(bytes)) return bytes;
    }
    return {};
}

void give(const private_netns& ns, const std::string& name, cidr own) {
    auto socket = netlink_socket::open_in(ns.fd(), NETLINK_ROUTE);
    netlink_batch batch;
    set_link(batch, name, {.no_link_local = true});
    set_link(batch, name, {.up = true});
    add_address(batch, find_link(socket, name)->index, own);
    socket.transact(batch);
}

}  // namespace

TEST_CASE("A program outside receives a container's packets, and answers them") {
    NEEDS_NETNS;
    const private_netns inside;
    auto device = try_open(inside, "tun0");
    if (!device) KUMIKI_SKIP("there is no /dev/net/tun");
    CHECK(device->name() == "tun0");
    if (kumiki_test::has_witness("ip"))
        CHECK(says(witness(inside, "ip -d link show dev tun0"), "tun type tun pi off"));
    give(inside, "tun0", "192.0.2.1/24"_cidr);
    const auto server = kumiki_test::serve(inside, SOCK_DGRAM, "192.0.2.1"_ip, 7);
    const auto [to, size] = kumiki_test::endpoint_address("192.0.2.9"_ip, 9).to_kernel();
    REQUIRE(::sendto(server.get(), "ping", 4, 0, reinterpret_cast<const sockaddr*>(&to), size) ==
            4);
    auto sent =
        next_packet(device->fd(), [](const auto& p) { return p.size() == 32 && p[9] == 17; });
    REQUIRE(sent.size() == 32);
    CHECK(std::equal(sent.begin() + 28, sent.end(), "ping"));
    // The same back: addresses and ports exchanged, so both checksums stay right.
    std::swap_ranges(sent.begin() + 12, sent.begin() + 16, sent.begin() + 16);
    std::swap_ranges(sent.begin() + 20, sent.begin() + 22, sent.begin() + 22);
    REQUIRE(::write(device->fd(), sent.data(), sent.size()) == 32);
    REQUIRE(kumiki_test::wait_for(server.get(), POLLIN, 2000));
    char text[8] = {};
    CHECK(::recv(server.get(), text, sizeof text, 0) == 4);
    CHECK(std::string(text) == "ping");
    device.reset();
    auto socket = netlink_socket::open_in(inside.fd(), NETLINK_ROUTE);
    CHECK(!find_link(socket, "tun0"));
}

TEST_CASE("A tap device gives whole frames, and its name is taken once") {
    NEEDS_NETNS;
    const private_netns inside;
    const auto device = try_open(inside, "tap0", tun_kind::frames);
    if (!device) KUMIKI_SKIP("there is no /dev/net/tun");
    give(inside, "tap0", "192.0.2.1/24"_cidr);
    const auto server = kumiki_test::serve(inside, SOCK_DGRAM, "192.0.2.1"_ip, 7);
    const auto [to, size] = kumiki_test::endpoint_address("192.0.2.9"_ip, 9).to_kernel();
    (void)::sendto(server.get(), "ping", 4, 0, reinterpret_cast<const sockaddr*>(&to), size);
    const auto asked = next_packet(device->fd(), [](const auto& frame) {
        return frame.size() >= 42 && frame[12] == 0x08 && frame[13] == 0x06;  // ARP
    });
    REQUIRE(asked.size() >= 42);
    CHECK(asked[41] == 9);
    try {
        (void)tun_device::open_in(inside.fd(), "tap0", tun_kind::frames);
        FAIL("it was made twice");
    } catch (const error& taken) {
        CHECK(taken.errno_value() == EBUSY);
        CHECK(taken.object() == "tap0");
    }
    CHECK_THROWS_AS(tun_device::open_in(inside.fd(), "0123456789abcdef"), invalid_input);
}
