// Catch2, version 2 or 3, and what the tests of kumiki add to it: a skip that is counted.
//
// A test that cannot run on this host says KUMIKI_SKIP("why"). It returns from the test; main.cpp
// prints "SKIPPED: <test name>: why" and counts the test as skipped, never as passed, whatever it
// checked before. A test with a failed check counts as failed also when it skipped later.
#pragma once

#if __has_include(<catch2/catch_test_macros.hpp>)
#include <catch2/catch_get_random_seed.hpp>
#include <catch2/catch_message.hpp>
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators_all.hpp>
#else
#include <catch2/catch.hpp>
#endif

#include <string>

namespace kumiki_test {

/// Prints that the test which runs now is skipped, and why; main.cpp counts it.
void skip(const std::string& reason);

}  // namespace kumiki_test

/// Ends the test that runs now, as skipped. To be used in the body of a TEST_CASE, on its thread.
#define KUMIKI_SKIP(reason)                                                                        \
    do {                                                                                           \
        ::kumiki_test::skip(reason);                                                               \
        return;                                                                                    \
    } while (false)
