// What is sent in the instant in which a container is connected arrives: nobody asks for a neighbour first,
// and no interface waits for the kernel's worker to notice that it is up.
#include <sys/socket.h>

#include <cstdio>
#include <utility>

#include <kumiki/network/endpoint.hpp>

#include "network/town.hpp"
#include "support/catch.hpp"
#include "support/kernel.hpp"

using namespace kumiki;
using namespace kumiki::literals;
using namespace kumiki_test;

namespace {

bool looks_at_once() {  // net/core/link_watch.c: linkwatch_sync_dev()
    return kumiki_test::kernel_is_at_least(6, 8);
}

// One datagram, never sent again.
bool arrives(const node& from, ip_address to, std::uint16_t port, const unique_fd& server) {
    const unique_fd out = from.ns.run([&] {
        return unique_fd(::socket(to.is_v4() ? AF_INET : AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    });
    const auto [address, size] = endpoint_address(to, port).to_kernel();
    REQUIRE(::sendto(out.get(), "x", 1, 0, reinterpret_cast<const sockaddr*>(&address), size) == 1);
    if (!wait_for(server.get(), POLLIN, 700)) return false;
    char byte = 0;
    return ::recv(server.get(), &byte, 1, 0) == 1;
}

}  // namespace

TEST_CASE(
    "The first datagram arrives, from the container and to it, also at an address used before") {
    NEEDS_NETNS;
    if (!looks_at_once())
        KUMIKI_SKIP("this kernel lets interfaces wait for a worker (Linux < 6.8)");
    town net;
    const auto outside = serve(net.outside.ns, udp_type, "::"_ip, 7000);
    constexpr int rounds = 20;
    int from_it = 0;
    int from_it6 = 0;
    int to_it = 0;
    for (int round = 0; round < rounds; ++round) {
        const node inside;
        const auto server = serve(inside.ns, udp_type, "::"_ip, 80);
        const auto number = static_cast<unsigned>(round / 2);  // each address twice
        const endpoint link = net.connect(
            *net.web, inside, "box",
            {.address = "10.88.0.10"_ip.plus(number), .address6 = "fd00:88::10"_ip.plus(number)});
        switch (round % 3) {
        case 0:
            from_it += !arrives(inside, "192.0.2.2"_ip, 7000, outside);
            break;
        case 1:
            from_it6 += !arrives(inside, "2001:db8::2"_ip, 7000, outside);
            break;
        default:
            to_it += !arrives(net.host, link.addresses().front(), 80, server);
        }
    }
    CHECK(from_it == 0);
    CHECK(from_it6 == 0);
    CHECK(to_it == 0);
}
