#include <sys/wait.h>
#include <unistd.h>

#include <string>

#include <kumiki/cgroup/pin.hpp>

#include "cgroup/fixture.hpp"
#include "support/catch.hpp"

using namespace kumiki;
using kumiki_test::child;
using kumiki_test::exists;

TEST_CASE("a pinned group stays without process and handle, and is found again") {
    NEED_GROUPS();
    auto root = kumiki_test::make_root();
    const auto pinned = pin_cgroup(root.create("pinned", {.raw = {{"cgroup.max.depth", "7"}}}));
    CHECK(pinned.path == root.group().path() + "/pinned");
    CHECK(exists(pinned.path));
    {
        // Another program: nothing is open of it, and it is found by name and number.
        const auto found = open_pinned(pinned);
        CHECK(found.read("cgroup.max.depth") == "7\n");
        CHECK_FALSE(found.is_populated());
        CHECK_FALSE(found.is_owned());
    }
    CHECK(exists(pinned.path));
    {
        const auto found = unpin_cgroup(pinned);
        CHECK(found.is_owned());
        child inside(found);
        REQUIRE(inside.pid() > 0);
    }
    CHECK_FALSE(exists(pinned.path));
}

TEST_CASE("a group that is pinned with processes keeps them") {
    NEED_GROUPS();
    auto root = kumiki_test::make_root();
    auto group = root.create("pinned");
    child inside(group);
    REQUIRE(inside.pid() > 0);
    const auto pinned = pin_cgroup(std::move(group));
    CHECK(open_pinned(pinned).procs() == std::vector{inside.pid()});
    { const auto ended = unpin_cgroup(pinned); }
    CHECK(inside.wait().signal == SIGKILL);
    CHECK_FALSE(exists(pinned.path));
}

TEST_CASE("a pinned group that was removed is gone, also when another has its name") {
    NEED_GROUPS();
    auto root = kumiki_test::make_root();
    const auto pinned = pin_cgroup(root.create("pinned"));
    REQUIRE(::rmdir(pinned.path.c_str()) == 0);
    CHECK_THROWS_AS(open_pinned(pinned), cgroup_gone);
    const auto other = root.create("pinned");
    CHECK_THROWS_AS(open_pinned(pinned), cgroup_gone);
    CHECK_THROWS_AS(unpin_cgroup(pinned), cgroup_gone);
    CHECK(exists(other.path()));
}
