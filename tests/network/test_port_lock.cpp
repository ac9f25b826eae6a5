#include <cerrno>
#include <optional>
#include <string>
#include <vector>

#include <kumiki/network/port_lock.hpp>
#include <kumiki/network/port_reservation.hpp>

#include "support/catch.hpp"
#include "support/netns.hpp"
#include "support/scratch.hpp"

using namespace kumiki;
using namespace kumiki::literals;

namespace {

struct shared_directory {
    kumiki_test::scratch place;
    unique_fd fd = sys::open_at(AT_FDCWD, place.path(), O_RDONLY | O_DIRECTORY);

    bool is_free(ip_address address, std::uint16_t port) const {
        detail::port_locks other(fd.get());
        return other.take(address, port);
    }
};

}  // namespace

TEST_CASE("A locked port conflicts with the same port on the same address, and on all of them") {
    const shared_directory shared;
    detail::port_locks ours(shared.fd.get());
    CHECK(ours.take("192.0.2.1"_ip, 7000));
    CHECK_FALSE(shared.is_free("192.0.2.1"_ip, 7000));
    CHECK_FALSE(shared.is_free("0.0.0.0"_ip, 7000));
    CHECK(shared.is_free("192.0.2.2"_ip, 7000));
    CHECK(shared.is_free("0.0.0.0"_ip, 7001));
    CHECK(shared.is_free("::"_ip, 7000));
    CHECK(ours.take("::"_ip, 65535));
    CHECK_FALSE(shared.is_free("::"_ip, 65535));
    CHECK_FALSE(shared.is_free("2001:db8::1"_ip, 65535));
    CHECK(shared.is_free("0.0.0.0"_ip, 65535));
}

TEST_CASE("What is given back is free, but for what is held for another reason") {
    const shared_directory shared;
    detail::port_locks ours(shared.fd.get());
    for (const char* const each : {"0.0.0.0", "192.0.2.1", "192.0.2.1", "255.255.255.254"})
        CHECK(ours.take(ip_address::parse(each), 7000));
    ours.give_back("0.0.0.0"_ip, 7000);
    CHECK_FALSE(shared.is_free("192.0.2.1"_ip, 7000));
    CHECK_FALSE(shared.is_free("255.255.255.254"_ip, 7000));
    for (const char* const each : {"0.0.0.1", "192.0.2.0", "192.0.2.2", "255.255.255.255"})
        CHECK(shared.is_free(ip_address::parse(each), 7000));
    ours.give_back("192.0.2.1"_ip, 7000);
    CHECK_FALSE(shared.is_free("192.0.2.1"_ip, 7000));
    ours.give_back("192.0.2.1"_ip, 7000);
    CHECK(shared.is_free("192.0.2.1"_ip, 7000));
    ours.give_back("192.0.2.1"_ip, 7000);
    CHECK_FALSE(shared.is_free("0.0.0.0"_ip, 7000));
}

TEST_CASE("An SCTP port is one container's, whether or not the kernel has sockets of it") {
    const shared_directory shared;
    const std::vector<ip_address> two_addresses{"10.88.0.2"_ip, "fd00:88::2"_ip};
    const auto hold = [&](const std::vector<published_port>& ports) {
        return port_reservation::hold(ports, two_addresses, shared.fd.get());
    };
    std::optional<port_reservation> first = hold({sctp(7000, 70), sctp(0, 71)});
    const std::uint16_t picked = first->ports().at(1).host.first;
    CHECK(picked != 0);
    for (const std::uint16_t port : {std::uint16_t{7000}, picked}) {
        try {
            (void)hold({sctp(7001, 1), sctp(port, 70)});
            FAIL("a second container got SCTP port " << port);
        } catch (const error& failure) {
            CHECK(failure.errno_value() == EADDRINUSE);
            CHECK(failure.object() == "0.0.0.0:" + std::to_string(port) + "/sctp");
            CHECK_FALSE(failure.remedy().empty());
        }
    }
    CHECK(hold({sctp(7001, 1)}).ports().size() == 1);
    CHECK(hold({sctp(0, 1)}).ports().front().host.first != picked);
    // Kept through a change, and free with the last that holds it.
    *first = first->changed(std::vector<published_port>{sctp(7000, 70)}, two_addresses);
    CHECK_THROWS_AS(hold({sctp(7000, 70)}), error);
    CHECK(hold({sctp(picked, 1)}).ports().size() == 1);
    first.reset();
    CHECK(hold({sctp(7000, 70)}).ports().size() == 1);
}
