#include <kumiki/core/scope_exit.hpp>

#include "support/catch.hpp"

using kumiki::scope_exit;
using kumiki::scope_fail;

TEST_CASE("scope_exit runs at the end of its scope, also by an exception") {
    int runs = 0;
    {
        const scope_exit undo([&] { ++runs; });
        CHECK(runs == 0);
    }
    CHECK(runs == 1);
    try {
        const scope_exit undo([&] { ++runs; });
        throw 1;
    } catch (int) {
        CHECK(runs == 2);
    }
}

TEST_CASE("a dismissed scope_exit does not run") {
    int runs = 0;
    {
        scope_exit undo([&] { ++runs; });
        undo.dismiss();
        undo.dismiss();
    }
    CHECK(runs == 0);
}

TEST_CASE("scopes are left in reverse order") {
    std::string order;
    {
        const scope_exit first([&] { order += '1'; });
        const scope_exit second([&] { order += '2'; });
    }
    CHECK(order == "21");
}

TEST_CASE("scope_fail runs only when an exception leaves its scope") {
    int runs = 0;
    {
        const scope_fail undo([&] { ++runs; });
    }
    CHECK(runs == 0);
    try {
        const scope_fail undo([&] { ++runs; });
        throw 1;
    } catch (int) {}
    CHECK(runs == 1);
}

TEST_CASE("scope_fail does not take an exception that is on its way already for its own") {
    int runs = 0;
    try {
        const scope_exit outer([&] {
            const scope_fail undo([&] { ++runs; });  // left normally, while the 1 is in flight
        });
        throw 1;
    } catch (int) {}
    CHECK(runs == 0);
}
