#include <kumiki/core/error.hpp>

#include "support/catch.hpp"

using kumiki::error;

TEST_CASE("an error's text has all its parts in order") {
    const error failure(EPERM, {.operation = "mount",
                                .object = "proc on /proc",
                                .step = "rootfs",
                                .container = "web",
                                .remedy = "Make a user namespace."});
    CHECK(std::string(failure.what()) ==
          "mount proc on /proc (step rootfs, container web): EPERM (Operation not permitted). "
          "Make a user namespace.");
}

TEST_CASE("an error's text leaves out what is not known") {
    const auto text = [](int code, kumiki::error_context context) {
        return std::string(error(code, std::move(context)).what());
    };
    CHECK(text(ENOENT, {.operation = "open"}) == "open: ENOENT (No such file or directory)");
    CHECK(text(0, {.operation = "open"}) == "open");
    CHECK(text(0, {.object = "/x"}) == "/x");
    CHECK(text(0, {.operation = "open", .object = "/x"}) == "open /x");
    CHECK(text(0, {.operation = "open", .step = "rootfs"}) == "open (step rootfs)");
    CHECK(text(0, {.operation = "open", .container = "web"}) == "open (container web)");
    CHECK(text(0, {.operation = "open", .remedy = "Do not."}) == "open: Do not.");
    CHECK(text(EPERM, {}) == ": EPERM (Operation not permitted)");
    CHECK(text(0, {}).empty());
}

TEST_CASE("an error is a std::system_error with the errno") {
    try {
        throw error(EACCES, {.operation = "open", .object = "/x"});
    } catch (const std::system_error& caught) {
        CHECK(caught.code() == std::errc::permission_denied);
        CHECK(std::string(caught.what()) == "open /x: EACCES (Permission denied)");
    }
}

TEST_CASE("an error whose kernel call was never made has no errno and is invalid all the same") {
    const error failure(0, {.operation = "parse"});
    CHECK(failure.errno_value() == 0);
    CHECK(failure.code() == std::errc::invalid_argument);
}

TEST_CASE("an error knows where it was made") {
    const auto line = std::source_location::current().line() + 1;
    const error failure(EPERM, {.operation = "open"});
    CHECK(failure.where().line() == line);
    CHECK(std::string_view(failure.where().file_name()).ends_with("test_error.cpp"));
}

TEST_CASE("context from further out fills gaps and replaces nothing") {
    error failure(EPERM, {.operation = "open", .object = "/x", .step = "rootfs"});
    failure.add_context({.operation = "start",
                         .object = "web",
                         .step = "network",
                         .container = "web",
                         .remedy = "Try again."});
    CHECK(failure.operation() == "open");
    CHECK(failure.object() == "/x");
    CHECK(failure.step() == "rootfs");
    CHECK(failure.context().container == "web");
    CHECK(failure.remedy() == "Try again.");
    CHECK(std::string(failure.what()) ==
          "open /x (step rootfs, container web): EPERM (Operation not permitted). Try again.");
}

TEST_CASE("a copy of an error keeps its text when the original is gone") {
    auto original = std::make_unique<error>(EPERM, kumiki::error_context{.operation = "open"});
    const error copy = *original;
    original.reset();
    CHECK(std::string(copy.what()) == "open: EPERM (Operation not permitted)");
}

TEST_CASE("errno names are the symbolic ones") {
    CHECK(kumiki::errno_name(EPERM) == "EPERM");
    CHECK(kumiki::errno_name(EBUSY) == "EBUSY");
    CHECK(kumiki::errno_name(4711) == "errno 4711");
    CHECK(kumiki::errno_name(-1) == "errno -1");
}

TEST_CASE("refused input names the thing, the value and the reason") {
    const kumiki::invalid_input refused("port", "80x", "It must be a number.");
    CHECK(std::string(refused.what()) == "invalid port '80x': It must be a number.");
    CHECK(refused.errno_value() == 0);
    CHECK_THROWS_AS(throw kumiki::invalid_input("a", "b", "c"), error);
}

TEST_CASE("what a host lacks is a type of its own") {
    CHECK_THROWS_AS(throw kumiki::unsupported(ENOSYS, {.operation = "clone3"}), error);
    CHECK_THROWS_AS(throw kumiki::unsupported(ENOSYS, {.operation = "clone3"}),
                    kumiki::unsupported);
}
