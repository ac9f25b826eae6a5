#include <kumiki/security/seccomp_rule.hpp>

#include "support/catch.hpp"

using namespace kumiki;

TEST_CASE("a condition says what its expression says") {
    const auto is = [](const argument_condition& c, unsigned index, std::uint64_t mask,
                       argument_test test, std::uint64_t value) {
        return c == argument_condition{index, mask, test, value};
    };
    constexpr std::uint64_t all = ~std::uint64_t{0};
    CHECK(is(arg(0) == 5, 0, all, argument_test::equal, 5));
    CHECK(is(arg(1) != 5, 1, all, argument_test::not_equal, 5));
    CHECK(is(arg(2) < 5, 2, all, argument_test::less, 5));
    CHECK(is(arg(3) <= 5, 3, all, argument_test::less_equal, 5));
    CHECK(is(arg(4) > 5, 4, all, argument_test::greater, 5));
    CHECK(is(arg(5) >= 5, 5, all, argument_test::greater_equal, 5));
    CHECK(is((arg(5) & 0xff & 0x3c) == 4, 5, 0x3c, argument_test::equal, 4));
}

TEST_CASE("an action is the kernel's value") {
    CHECK(seccomp_action::allow().value() == SECCOMP_RET_ALLOW);
    CHECK(seccomp_action::kill_process().value() == SECCOMP_RET_KILL_PROCESS);
    CHECK(seccomp_action::trap().value() == SECCOMP_RET_TRAP);
    CHECK(seccomp_action::log().value() == SECCOMP_RET_LOG);
    CHECK(seccomp_action::notify().value() == SECCOMP_RET_USER_NOTIF);
    CHECK(seccomp_action::fail(1).value() == (SECCOMP_RET_ERRNO | 1));
    CHECK(seccomp_action::fail(0).value() == SECCOMP_RET_ERRNO);
    CHECK(seccomp_action::fail(4095).value() == (SECCOMP_RET_ERRNO | 4095));
}
