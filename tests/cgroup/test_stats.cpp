#include <kumiki/cgroup/stats.hpp>

#include "cgroup/fixture.hpp"
#include "support/catch.hpp"

using namespace kumiki;

TEST_CASE("the kernel's counters are read by name, whatever else is there") {
    const auto events = parse_memory_events(
        "low 1\nhigh 2\nmax 3\noom 4\noom_kill 5\noom_group_kill 6\nnew_thing 7\n");
    CHECK(events ==
          memory_event_counts{
              .low = 1, .high = 2, .max = 3, .oom = 4, .oom_kill = 5, .oom_group_kill = 6});
    CHECK(parse_memory_events("oom_kill 2\n").oom == 0);
    CHECK(parse_memory_events("") == memory_event_counts{});

    cgroup_stats stats;
    parse_cpu_stat("usage_usec 30\nuser_usec 10\nsystem_usec 20\n", stats);
    CHECK(stats.cpu_usage == std::chrono::microseconds(30));
    CHECK(stats.cpu_system == std::chrono::microseconds(20));
    CHECK_FALSE(stats.cpu_throttled);
    parse_cpu_stat("usage_usec 1\nnr_periods 5\nnr_throttled 2\nthrottled_usec 9\n", stats);
    CHECK(stats.cpu_throttled_periods == 2U);
    CHECK(stats.cpu_throttled == std::chrono::microseconds(9));
    CHECK_FALSE(stats.cpu_user);
}

TEST_CASE("processor time is counted in any group, and kept after the process") {
    if (const auto why = kumiki_test::missing(); !why.empty()) KUMIKI_SKIP(why);
    auto root = kumiki_test::make_root();
    auto group = root.create("stats");
    kumiki_test::child busy(group, [](void*) {
        ::prctl(PR_SET_PDEATHSIG, SIGKILL);
        timespec used{};
        do {
            ::clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used);
        } while (used.tv_sec == 0 && used.tv_nsec < 20'000'000);
        ::_exit(0);
    });
    REQUIRE(busy.pid() > 0);
    CHECK(busy.wait().code == 0);
    const auto stats = read_stats(group);
    REQUIRE(stats.cpu_usage);
    CHECK(stats.cpu_usage->count() >= 15'000);
    CHECK(stats.memory_current.has_value() == has(group.available(), controllers::memory));
    CHECK(stats.pids_current.has_value() == has(group.available(), controllers::pids));
    REQUIRE(group.try_remove());
    CHECK_FALSE(read_stats(group).cpu_usage);
}
