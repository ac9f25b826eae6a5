#include <sys/mman.h>

#include <string>
#include <vector>

#include <kumiki/cgroup/update.hpp>

#include "cgroup/fixture.hpp"
#include "support/catch.hpp"

using namespace kumiki;
using namespace kumiki::literals;

#define NEED(set)                                                                                  \
    if (const auto why = kumiki_test::missing(set); !why.empty()) KUMIKI_SKIP(why)

TEST_CASE("what is in force is told apart from what was asked for") {
    using detail::is_in_force;
    CHECK(is_in_force({"memory.max", "4096"}, "4096"));
    CHECK_FALSE(is_in_force({"memory.max", "5000"}, "4096"));
    CHECK(is_in_force({"io.weight", "50"}, "default 50"));
    CHECK(is_in_force({"io.max", "8:0 rbps=1 wbps=max"}, "8:0 rbps=1 wbps=max riops=9 wiops=max"));
    CHECK_FALSE(is_in_force({"io.max", "8:0 rbps=1"}, "8:0 rbps=2 wbps=max riops=9 wiops=max"));
    CHECK(is_in_force({"cpuset.cpus", "0,1,2,5"}, "0-2,5"));
    CHECK_FALSE(is_in_force({"cpuset.cpus", "0-3"}, "0-2"));
    CHECK_FALSE(is_in_force({"cpuset.cpus", "0-3"}, ""));
}

TEST_CASE("a limit that is refused puts back those before it") {
    if (const auto why = kumiki_test::missing(); !why.empty()) KUMIKI_SKIP(why);
    auto root = kumiki_test::make_root();
    const auto group = root.create("undo", {.raw = {{"cgroup.max.depth", "7"}}});
    try {
        update_limits(group, {.raw = {{"cgroup.max.depth", "3"},
                                      {"cgroup.max.descendants", "9"},
                                      {"cgroup.max.descendants", "many"}}});
        FAIL("no error");
    } catch (const error& failure) {
        CHECK(failure.errno_value() == EINVAL);
        CHECK(failure.object() == group.path() + "/cgroup.max.descendants");
    }
    CHECK(group.read("cgroup.max.depth") == "7\n");
    CHECK(group.read("cgroup.max.descendants") == "max\n");
    CHECK(update_limits(group, {.raw = {{"cgroup.max.depth", "3"}}}).empty());
    CHECK(group.read("cgroup.max.depth") == "3\n");
    CHECK(clipped_limits(group, {{"cgroup.max.depth", "4"}, {"none.max", "1"}}) ==
          std::vector<clipped_limit>{{"cgroup.max.depth", "4", "3"}, {"none.max", "1", ""}});
}

TEST_CASE("huge pages are limited, and rounded to whole ones") {
    NEED(controllers::hugetlb);
    auto root = kumiki_test::make_root();
    root.require(controllers::hugetlb);
    const auto group = root.create("hugetlb");
    if (!group.try_read("hugetlb.2MB.max")) KUMIKI_SKIP("no huge pages of 2 MiB here");
    CHECK(update_limits(group, {.hugetlb = {{2_MiB, 4_MiB}}}).empty());
    CHECK(group.read("hugetlb.2MB.max") == "4194304\n");
    const auto clipped = update_limits(group, {.hugetlb = {{2_MiB, 5_MiB}}});
    CHECK(clipped == std::vector<clipped_limit>{{"hugetlb.2MB.max", "5242880", "4194304"}});
}

TEST_CASE("memory that is in use is not taken away by an update, unless asked for [vm]", "[vm]") {
    NEED(controllers::memory | controllers::pids);
    auto root = kumiki_test::make_root();
    const auto group = root.create("below", {.memory = 64_MiB, .pids = 9});
    const kumiki_test::child user(group, [](void*) {
        ::prctl(PR_SET_PDEATHSIG, SIGKILL);
        constexpr std::size_t size = 16U << 20;
        void* memory =
            ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        for (std::size_t i = 0; i < size; i += 4096) static_cast<volatile char*>(memory)[i] = 1;
        for (;;) ::pause();
    });
    REQUIRE(user.pid() > 0);
    const auto used = [&] {
        return parse_number<std::uint64_t>(trim(group.read("memory.current"))).value_or(0);
    };
    REQUIRE(kumiki_test::eventually([&] { return used() >= (16U << 20); }));
    try {
        update_limits(group, {.memory = 8_MiB, .pids = 5});
        FAIL("no error");
    } catch (const limit_below_use& failure) {
        CHECK(failure.used() >= (16U << 20));
        CHECK(failure.object() == group.path());
    }
    CHECK(group.read("pids.max") == "9\n");
    CHECK(group.read("memory.max") == "67108864\n");
    const auto clipped = update_limits(group, {.memory = bytes{(32U << 20) + 100}});
    CHECK(clipped == std::vector<clipped_limit>{{"memory.max", "33554532", "33554432"}});
    update_limits(group, {.memory = no_limit});
    CHECK(group.read("memory.max") == "max\n");
}
