// Which kernel the tests run on.
#pragma once

#include <sys/utsname.h>

#include <cstdio>
#include <utility>

#include "support/catch.hpp"

namespace kumiki_test {

inline bool kernel_is_at_least(int major, int minor) {
    utsname kernel{};
    int numbers[2] = {};
    REQUIRE(::uname(&kernel) == 0);
    REQUIRE(std::sscanf(kernel.release, "%d.%d", &numbers[0], &numbers[1]) == 2);
    return std::pair(numbers[0], numbers[1]) >= std::pair(major, minor);
}

}  // namespace kumiki_test
