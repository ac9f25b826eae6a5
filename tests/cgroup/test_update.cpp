#include <sys/mman.h>

#include <string>
#include <vector>

#include <kumiki/cgroup/update.hpp>

#include "cgroup/fixture.hpp"
#include "support/catch.hpp"

using namespace kumiki;
using namespace kumiki::literals;

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

TEST_CASE("an update that is refused puts back shares, also those of an idle group [vm]", "[vm]") {
    NEED(controllers::cpu | controllers::pids);
    auto root = kumiki_test::make_root();
    const auto group = root.create("shares", {.cpu = cpus(0.5), .cpu_weight = 33, .pids = 9});
    const auto refused = [&](resource_limits limits) {
        limits.raw = {{"pids.max", "many"}};
        CHECK_THROWS_AS(update_limits(group, limits), limit_refused);
        CHECK(group.read("cpu.weight") == "33\n");
        CHECK(group.read("cpu.max") == "50000 100000\n");
        CHECK(group.read("pids.max") == "9\n");
    };
    refused({.cpu = no_limit, .cpu_nice = -5, .pids = no_limit});
    refused({.cpu_weight = 10000});
    if (!group.try_read("cpu.idle")) return;
    refused({.cpu_idle = true});
    CHECK(group.read("cpu.idle") == "0\n");
}

TEST_CASE("an update that is refused puts back the limits of a disk [vm]", "[vm]") {
    NEED(controllers::io);
    const auto disk = kumiki_test::exists("/scratch") ? device_number::behind("/scratch")
                                                      : std::optional<device_number>();
    if (!disk) KUMIKI_SKIP("no disk of one's own at /scratch");
    auto root = kumiki_test::make_root();
    const auto group = root.create("disk", {.io = {{.device = *disk, .write = 1_MiB}}});
    const auto before = group.read("io.max");
    CHECK(update_limits(group, {.io = {{.device = *disk, .write = 1_MiB}}}).empty());
    CHECK_THROWS_AS(update_limits(group, {.io = {{.device = *disk, .read = 5_MiB, .write = 2_MiB},
                                                 {.device = {4095, 7}, .read = 1_MiB}}}),
                    limit_refused);
    CHECK(group.read("io.max") == before);
}
