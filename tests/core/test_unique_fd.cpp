#include <fcntl.h>

#include <kumiki/core/unique_fd.hpp>

#include "support/catch.hpp"

using kumiki::unique_fd;

namespace {

unique_fd open_null() { return unique_fd(::open("/dev/null", O_RDONLY | O_CLOEXEC)); }
bool is_open(int fd) { return ::fcntl(fd, F_GETFD) >= 0; }

}  // namespace

TEST_CASE("a unique_fd closes its descriptor when it dies") {
    int number = -1;
    {
        const unique_fd fd = open_null();
        REQUIRE(fd);
        number = fd.get();
        CHECK(is_open(number));
    }
    CHECK_FALSE(is_open(number));
}

TEST_CASE("an empty unique_fd holds -1 and closes nothing") {
    unique_fd none;
    CHECK_FALSE(none);
    CHECK(none.get() == -1);
    CHECK(unique_fd(-7).get() == -1);
    none.reset(-2);
    CHECK(none.get() == -1);
    CHECK(none.release() == -1);
}

TEST_CASE("descriptor 0 is a descriptor") {
    unique_fd zero(0);
    CHECK(zero);
    CHECK(zero.release() == 0);
    CHECK_FALSE(zero);
}

TEST_CASE("moving a unique_fd leaves nothing behind") {
    unique_fd from = open_null();
    const int number = from.get();
    unique_fd to = std::move(from);
    CHECK(from.get() == -1);  // NOLINT(bugprone-use-after-move): what a moved-from one holds
    CHECK(to.get() == number);
    CHECK(is_open(number));
}

TEST_CASE("assigning to a unique_fd closes what it held") {
    unique_fd a = open_null();
    unique_fd b = open_null();
    const int old = a.get();
    const int kept = b.get();
    a = std::move(b);
    CHECK_FALSE(is_open(old));
    CHECK(a.get() == kept);
    CHECK(is_open(kept));
}

TEST_CASE("assigning a unique_fd to itself keeps it") {
    unique_fd fd = open_null();
    unique_fd& same = fd;
    fd = std::move(same);
    REQUIRE(fd);
    CHECK(is_open(fd.get()));
}

TEST_CASE("releasing a unique_fd gives the open descriptor away") {
    int number = -1;
    {
        unique_fd fd = open_null();
        number = fd.release();
    }
    CHECK(is_open(number));
    const unique_fd again(number);
}

TEST_CASE("resetting a unique_fd closes the old and takes the new") {
    unique_fd fd = open_null();
    const int old = fd.get();
    const int fresh = open_null().release();
    fd.reset(fresh);
    CHECK_FALSE(is_open(old));
    CHECK(fd.get() == fresh);
    fd.reset();
    CHECK_FALSE(is_open(fresh));
}

TEST_CASE("swapping two unique_fds closes neither") {
    unique_fd a = open_null();
    unique_fd b = open_null();
    const int first = a.get();
    const int second = b.get();
    swap(a, b);
    CHECK(a.get() == second);
    CHECK(b.get() == first);
    CHECK(is_open(first));
    CHECK(is_open(second));
}

static_assert(!std::is_copy_constructible_v<unique_fd>);
static_assert(!std::is_copy_assignable_v<unique_fd>);
static_assert(!std::is_convertible_v<int, unique_fd>);
static_assert(std::is_nothrow_move_constructible_v<unique_fd>);
static_assert(sizeof(unique_fd) == sizeof(int));
