#include <net/if.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <memory>
#include <stdexcept>
#include <string>

#include <kumiki/ns/network_namespace.hpp>
#include <kumiki/sys/file.hpp>

#include "support/catch.hpp"

using namespace kumiki;

TEST_CASE("a new network namespace has a loopback device and nothing else") {
    if (::geteuid() != 0) KUMIKI_SKIP("new namespaces take root");
    const auto before = namespace_fd::current(namespace_kind::net);
    const auto made = make_network_namespace();
    CHECK(made.kind() == namespace_kind::net);
    CHECK_FALSE(made == before);
    const std::string devices = in_network_namespace(
        made, [] { return sys::read_file_at(AT_FDCWD, "/proc/thread-self/net/dev"); });
    CHECK(devices.find("lo:") != std::string::npos);
    CHECK(devices.find("eth0:") == std::string::npos);
    CHECK(namespace_fd::current(namespace_kind::net) == before);
}

TEST_CASE("a socket that was opened inside a network namespace stays in it") {
    if (::geteuid() != 0) KUMIKI_SKIP("new namespaces take root");
    const auto made = make_network_namespace();
    const unique_fd socket = in_network_namespace(made, [] {
        return unique_fd(sys::check(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), "socket"));
    });
    const unique_fd outside(sys::check(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), "socket"));
    const auto cookie = in_network_namespace(made, [] {
        const unique_fd other(sys::check(::socket(AF_INET, SOCK_DGRAM, 0), "socket"));
        return sys::netns_cookie(other.get());
    });
    CHECK(sys::netns_cookie(socket.get()) == cookie);
    CHECK(sys::netns_cookie(outside.get()) != cookie);
}

TEST_CASE("what is thrown inside a network namespace arrives outside") {
    if (::geteuid() != 0) KUMIKI_SKIP("new namespaces take root");
    const auto made = make_network_namespace();
    CHECK_THROWS_AS(in_network_namespace(made, [] { throw std::out_of_range("x"); }),
                    std::out_of_range);
    bool called = false;
    in_network_namespace(made, [&] { called = true; });
    CHECK(called);
    const auto owned = in_network_namespace(made, [] { return std::make_unique<int>(7); });
    CHECK(*owned == 7);
}

TEST_CASE("only a network namespace is taken for one") {
    const auto uts = namespace_fd::current(namespace_kind::uts);
    CHECK_THROWS_AS(in_network_namespace(uts, [] {}), invalid_input);
}

TEST_CASE("network namespaces are made again and again under a tight limit") {
    if (::geteuid() != 0) KUMIKI_SKIP("setting the limit takes root");
    // Ended ones count against the limit until the kernel has cleaned them up: they are waited
    // for. The limit is that of a user namespace of the test's own.
    const pid_t child = ::fork();
    REQUIRE(child >= 0);
    if (child == 0) {
        int status = 1;
        try {
            make_user_namespace({{0, 0, 4294967295U}}, {{0, 0, 4294967295U}}).enter();
            sys::write_file_at(AT_FDCWD, "/proc/sys/user/max_net_namespaces", "2");
            status = 2;
            for (int i = 0; i < 12; ++i) make_network_namespace();
            status = 3;
            const auto one = make_network_namespace();
            const auto two = make_network_namespace();
            status = 4;
            make_network_namespace(std::chrono::milliseconds(20));
            status = 5;
        } catch (const error& failure) {
            if (status == 4 && failure.errno_value() == ENOSPC && !failure.remedy().empty())
                status = 0;
        }
        ::_exit(status);
    }
    int status = 0;
    REQUIRE(::waitpid(child, &status, 0) == child);
    CHECK(WEXITSTATUS(status) == 0);
}

TEST_CASE("without the right to make one, the error says what it takes") {
    if (::geteuid() != 0) KUMIKI_SKIP("the test gives up root itself");
    const pid_t child = ::fork();
    REQUIRE(child >= 0);
    if (child == 0) {
        int status = 1;
        if (::setresuid(1234, 1234, 1234) == 0) {
            try {
                make_network_namespace();
            } catch (const error& failure) {
                const bool helpful = failure.remedy().find("CAP_SYS_ADMIN") != std::string::npos;
                if (failure.errno_value() == EPERM && helpful) status = 0;
            }
        }
        ::_exit(status);
    }
    int status = 0;
    REQUIRE(::waitpid(child, &status, 0) == child);
    CHECK(WEXITSTATUS(status) == 0);
}
