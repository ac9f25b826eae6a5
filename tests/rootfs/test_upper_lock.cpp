#include <sys/wait.h>
#include <unistd.h>

#include <string>

#include <kumiki/rootfs/upper_lock.hpp>

#include "support/busybox.hpp"
#include "support/catch.hpp"

using namespace kumiki;
using kumiki_test::temporary_directory;

TEST_CASE("a directory is claimed once, by any name, until the claim goes") {
    const temporary_directory place;
    {
        const unique_fd claim = detail::lock_upper(place.path());
        CHECK_THROWS_AS(detail::lock_upper(place.path() + "/."), upper_in_use);
        try {
            detail::lock_upper(place.path());
            FAIL("claimed twice");
        } catch (const upper_in_use& failure) {
            CHECK(failure.object() == place.path());
            CHECK(failure.errno_value() == EBUSY);
            CHECK_FALSE(failure.remedy().empty());
        }
        // Another process is refused as well.
        const pid_t child = ::fork();
        if (child == 0) {
            try {
                detail::lock_upper(place.path());
            } catch (const upper_in_use&) {
                ::_exit(7);
            } catch (...) {}
            ::_exit(1);
        }
        int status = 0;
        REQUIRE(::waitpid(child, &status, 0) == child);
        CHECK(WEXITSTATUS(status) == 7);
    }
    CHECK_NOTHROW(detail::lock_upper(place.path()));
}

TEST_CASE("what is no directory is not claimed") {
    const temporary_directory place;
    kumiki_test::write_text(place.path() + "/file", "");
    CHECK_THROWS_AS(detail::lock_upper(place.path() + "/file"), error);
    CHECK_THROWS_AS(detail::lock_upper("/nowhere"), error);
}
