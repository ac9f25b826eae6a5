#include <time.h>

#include <kumiki/ns/join.hpp>
#include <kumiki/ns/make_namespace.hpp>

#include "ns/support.hpp"
#include "support/catch.hpp"

using namespace kumiki_test;

TEST_CASE("kinds that need a process, sets and nothing are refused") {
    CHECK_THROWS_AS(make_namespace(namespace_kind::pid), invalid_input);
    CHECK_THROWS_AS(make_namespace(namespace_kind::user), invalid_input);
    CHECK_THROWS_AS(make_namespace(namespace_kind::none), invalid_input);
    CHECK_THROWS_AS(make_namespace(namespace_kind::uts | namespace_kind::ipc), invalid_input);
}

TEST_CASE("the clocks of a time namespace are ahead by its offsets") {
    if (::geteuid() != 0) KUMIKI_SKIP("new namespaces take root");
    if (!has(available_namespaces(), namespace_kind::time)) KUMIKI_SKIP("no time namespaces");
    using std::chrono::seconds;
    const auto ahead =
        make_time_namespace({.monotonic = seconds(86400), .boottime = seconds(7200)});
    const auto reading = [](clockid_t clock) {
        timespec now{};
        ::clock_gettime(clock, &now);
        return now.tv_sec;
    };
    const auto monotonic = reading(CLOCK_MONOTONIC);
    const auto boottime = reading(CLOCK_BOOTTIME);
    CHECK(in_child([&] {
              ahead.enter();
              require(reading(CLOCK_MONOTONIC) >= monotonic + 86400, "monotonic");
              require(reading(CLOCK_BOOTTIME) >= boottime + 7200, "boottime");
              require(reading(CLOCK_MONOTONIC) < monotonic + 86400 + 3600, "too far");
          }) == "");
    CHECK(reading(CLOCK_MONOTONIC) < monotonic + 3600);
}

TEST_CASE("a clock below zero is refused with its range") {
    if (::geteuid() != 0) KUMIKI_SKIP("new namespaces take root");
    if (!has(available_namespaces(), namespace_kind::time)) KUMIKI_SKIP("no time namespaces");
    try {
        make_time_namespace({.monotonic = std::chrono::seconds(-2000000000)});
        FAIL("no error");
    } catch (const error& failure) {
        CHECK(failure.errno_value() == ERANGE);
        CHECK(failure.remedy().find("below zero") != std::string::npos);
    }
}

TEST_CASE("without the right to make a namespace the error says what it takes") {
    if (::geteuid() != 0) KUMIKI_SKIP("the test gives up root itself");
    const std::string text = in_child([] {
        require(::syscall(SYS_setresuid, 1234, 1234, 1234) == 0, "setresuid");
        make_namespace(namespace_kind::uts);
    });
    CHECK(text.find("make a namespace uts: EPERM") != std::string::npos);
    CHECK(text.find("CAP_SYS_ADMIN") != std::string::npos);
}
