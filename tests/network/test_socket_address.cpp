#include <kumiki/core/unique_fd.hpp>
#include <kumiki/network/socket_address.hpp>

#include "support/catch.hpp"

using namespace kumiki;
using namespace kumiki::literals;
using detail::socket_address;

TEST_CASE("What a socket is bound to, and whom it is with, is read back in both families") {
    for (const ip_address& address : {"127.0.0.1"_ip, "::1"_ip}) {
        const auto open = [&] {
            return unique_fd(sys::check(
                ::socket(address.is_v4() ? AF_INET : AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0),
                "socket"));
        };
        const unique_fd server = open();
        const socket_address any(address, 0);
        if (::bind(server.get(), any.get(), any.size()) != 0) {
            CHECK(address.is_v6());  // a host without IPv6
            continue;
        }
        const auto own = socket_address::own_of(server.get());
        CHECK(own.address() == address);
        CHECK(own.port() != 0);

        const unique_fd client = open();
        CHECK(socket_address::peer_of(client.get()).address() == "0.0.0.0"_ip);
        CHECK(socket_address::peer_of(client.get()).port() == 0);
        REQUIRE(::connect(client.get(), own.get(), own.size()) == 0);
        const auto peer = socket_address::peer_of(client.get());
        CHECK(peer.address() == address);
        CHECK(peer.port() == own.port());
        CHECK(peer.size() == own.size());

        REQUIRE(::send(client.get(), "x", 1, 0) == 1);
        char text = 0;
        iovec part{.iov_base = &text, .iov_len = 1};
        socket_address from;
        msghdr into = from.message(part);
        REQUIRE(::recvmsg(server.get(), &into, 0) == 1);
        CHECK(from.address() == address);
        CHECK(from.port() == socket_address::own_of(client.get()).port());
    }
    CHECK_THROWS_AS(socket_address::own_of(-1), error);
}
