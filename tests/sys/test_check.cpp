#include <fcntl.h>
#include <unistd.h>

#include <string>

#include <kumiki/sys/check.hpp>

#include "support/catch.hpp"

using namespace kumiki;

TEST_CASE("a result that is not negative passes through with its type") {
    CHECK(sys::check(0, "x") == 0);
    CHECK(sys::check(7L, "x") == 7L);
    static_assert(std::is_same_v<decltype(sys::check(7L, "x")), long>);
    int described = 0;
    CHECK(sys::check(3, [&] {
              ++described;
              return error_context{};
          }) == 3);
    CHECK(described == 0);  // the text of an error costs nothing on the good path
}

TEST_CASE("a failed call becomes an error with errno, operation, object and place") {
    const auto line = __LINE__;
    try {
        sys::check(::open("/nowhere", O_RDONLY), "open", "/nowhere");
        FAIL("nothing was thrown");
    } catch (const error& failure) {
        CHECK(failure.errno_value() == ENOENT);
        CHECK(failure.code() == std::errc::no_such_file_or_directory);
        CHECK(failure.operation() == "open");
        CHECK(failure.object() == "/nowhere");
        CHECK(failure.where().line() == line + 2);
        CHECK(std::string(failure.what()) == "open /nowhere: ENOENT (No such file or directory)");
    }
}

TEST_CASE("errno is the call's own, whatever the description does to it") {
    try {
        sys::check(::close(-1), [] {
            ::open("/nowhere", O_RDONLY);
            return error_context{.operation = "close", .remedy = "Open it first."};
        });
        FAIL("nothing was thrown");
    } catch (const error& failure) {
        CHECK(failure.errno_value() == EBADF);
        CHECK(failure.remedy() == "Open it first.");
    }
}

TEST_CASE("a call is repeated after a signal and after nothing else") {
    int calls = 0;
    CHECK(sys::retry([&] {
              errno = EINTR;
              return ++calls < 3 ? -1 : 5;
          }) == 5);
    CHECK(calls == 3);
    calls = 0;
    CHECK(sys::retry([&] {
              ++calls;
              errno = EAGAIN;
              return -1;
          }) == -1);
    CHECK(calls == 1);
    CHECK(errno == EAGAIN);
}
