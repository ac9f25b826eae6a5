#include <cmath>
#include <memory>
#include <optional>
#include <vector>

#include <kumiki/async/when.hpp>
#include <kumiki/cgroup/rates.hpp>

#include "cgroup/fixture.hpp"
#include "support/catch.hpp"

using namespace kumiki;
using namespace kumiki::literals;
using namespace std::chrono_literals;
using kumiki_test::child;

namespace {

bool is_near(const std::optional<double>& value, double wanted) {
    return value && std::abs(*value - wanted) < 1e-9;
}

/// A snapshot that was taken `at` after another.
cgroup_stats snapshot(std::chrono::milliseconds at) {
    cgroup_stats stats;
    stats.taken += 1h + at;
    return stats;
}

void spin(void*) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    for (;;) asm volatile("");
}

}  // namespace

TEST_CASE("rates are differences by the measured time") {
    auto before = snapshot(0ms);
    before.cpu_usage = 10s;
    before.cpu_user = 1s;
    before.cpu_periods = 100;
    before.cpu_throttled_periods = 10;
    before.memory_current = 10_MiB;
    before.memory_events = memory_event_counts{.oom_kill = 1};
    before.pids_max_hits = 5;
    before.io = {{.device = {8, 0}, .read = 1000_B, .written = 10_B, .reads = 1}};
    before.cpu_pressure = pressure{.some = {.total = 1s}};
    auto after = snapshot(2000ms);
    after.cpu_usage = 13s;
    after.cpu_user = 2s;
    after.cpu_periods = 120;
    after.cpu_throttled_periods = 15;
    after.memory_current = 8_MiB;
    after.memory_events = memory_event_counts{.oom_kill = 4};
    after.pids_max_hits = 7;
    after.io = {{.device = {8, 0}, .read = 5000_B, .written = 10_B, .reads = 3},
                {.device = {8, 16}, .written = 500_B, .writes = 8}};
    after.cpu_pressure = pressure{.some = {.total = 1500ms}};
    const auto rates = rates_between(before, after);
    CHECK(rates.elapsed == 2s);
    CHECK(is_near(rates.cpu, 1.5));
    CHECK(is_near(rates.cpu_user, 0.5));
    CHECK_FALSE(rates.cpu_system);
    CHECK(is_near(rates.throttled_share, 0.25));
    CHECK(is_near(rates.memory_growth, -1048576));
    CHECK(is_near(rates.read_bytes, 2000));
    CHECK(is_near(rates.written_bytes, 250));
    CHECK(is_near(rates.reads, 1));
    CHECK(is_near(rates.writes, 4));
    CHECK(is_near(rates.cpu_pressure, 0.25));
    CHECK_FALSE(rates.memory_pressure);
    CHECK(rates.forks_refused == 2U);
    CHECK(rates.oom_kills == 3U);
    CHECK(rates.now.cpu_usage == 13s);
}

TEST_CASE("what is not counted has no rate, and what ran backwards stands still") {
    const auto empty = rates_between(snapshot(0ms), snapshot(10ms));
    CHECK_FALSE(empty.cpu);
    CHECK_FALSE(empty.read_bytes);
    CHECK_FALSE(empty.throttled_share);
    CHECK_FALSE(empty.forks_refused);
    auto before = snapshot(0ms);
    auto after = snapshot(10ms);
    before.cpu_usage = 5s;
    after.cpu_usage = 1s;
    before.pids_max_hits = 5;
    after.pids_max_hits = 1;
    before.cpu_periods = after.cpu_periods = 7;
    before.cpu_throttled_periods = 9;
    after.cpu_throttled_periods = 20;
    before.io = {{.device = {8, 0}, .read = 5000_B}};
    after.io = {{.device = {8, 0}, .read = 1_B}};
    const auto still = rates_between(before, after);
    CHECK(is_near(still.cpu, 0));
    CHECK(still.forks_refused == 0U);
    CHECK(is_near(still.throttled_share, 0));
    CHECK(is_near(still.read_bytes, 0));
    // No time has passed, or it ran backwards: no rate is infinite.
    CHECK_FALSE(rates_between(before, before).cpu);
    CHECK_FALSE(rates_between(after, before).cpu);
}

namespace {

task<std::optional<cgroup_rates>> next(scheduler& io, stream<cgroup_rates>& rates) {
    auto taken = co_await with_timeout(io, 10s, rates.next());
    if (!taken) throw error(ETIMEDOUT, {.operation = "wait for rates"});
    co_return std::move(*taken);
}

task<void> destroy_soon(scheduler& io, cgroup group) {
    co_await io.sleep_for(20ms);
    group.destroy();
}

task<void> see_one_processor(scheduler& io, cgroup_root& root) {
    auto group = root.create("rates");
    auto rates = watch_rates(io, group, 200ms);
    const auto begun = std::chrono::steady_clock::now();
    auto idle = co_await next(io, rates);
    REQUIRE(idle);
    CHECK(std::chrono::steady_clock::now() - begun >= 200ms);
    CHECK(idle->elapsed >= 200ms);
    CHECK(is_near(idle->cpu, 0));
    const child busy(group, spin);
    REQUIRE(busy.pid() > 0);
    auto first = co_await next(io, rates);
    auto second = co_await next(io, rates);
    REQUIRE(second);
    REQUIRE(second->cpu);
    // One process: no more than one processor, whatever else the machine does; and some of it.
    CHECK(*second->cpu <= 1.1);
    CHECK(*second->cpu > 0.05);
    CHECK(second->now.cpu_usage > first->now.cpu_usage);
    // Late by more than two intervals: that value comes at once, the next at a tick.
    co_await io.sleep_for(500ms);
    auto late = co_await next(io, rates);
    REQUIRE(late);
    CHECK(late->elapsed >= 500ms);
    auto after = co_await next(io, rates);
    REQUIRE(after);
    // In step still: a whole number of intervals later.
    const auto off = (after->now.taken - second->now.taken + 100ms) % 200ms - 100ms;
    CHECK(std::chrono::abs(off) < 60ms);
    // It ends at once, not at the next tick.
    auto slow = watch_rates(io, group, 1h);
    auto end = co_await when_all(next(io, slow), destroy_soon(io, std::move(group)));
    CHECK_FALSE(std::get<0>(end));
    auto none = co_await next(io, rates);
    CHECK_FALSE(none);
}

task<void> keep_in_step(scheduler& io, cgroup_root& root) {
    const auto group = root.create("ticks");
    auto rates = watch_rates(io, group, 20ms, stat_parts::cpu);
    auto first = co_await next(io, rates);
    REQUIRE(first);
    std::optional<cgroup_rates> last;
    for (int i = 0; i < 50; ++i) {
        co_await io.sleep_for(3ms);  // what a consumer takes does not add up
        last = co_await next(io, rates);
        REQUIRE(last);
    }
    const std::chrono::duration<double, std::milli> whole = last->now.taken - first->now.taken;
    INFO("50 ticks of 20 ms took " << whole.count() << " ms");
    CHECK(whole.count() >= 980);
    CHECK(whole.count() <= 1120);  // with the 3 ms each it would be 1,150
}

}  // namespace

TEST_CASE("the use of processors is told at an interval, until the group is removed") {
    if (const auto why = kumiki_test::missing(); !why.empty()) KUMIKI_SKIP(why);
    auto root = kumiki_test::make_root();
    const auto backend = GENERATE(io_backend::io_uring, io_backend::epoll);
    CAPTURE(to_string(backend));
    scheduler io(scheduler_options{.backend = backend});
    io.run(see_one_processor(io, root));
}

TEST_CASE("the ticks of rates do not drift") {
    if (const auto why = kumiki_test::missing(); !why.empty()) KUMIKI_SKIP(why);
    auto root = kumiki_test::make_root();
    scheduler io;
    io.run(keep_in_step(io, root));
}

TEST_CASE("rates of a removed group, or at no interval, are refused") {
    if (const auto why = kumiki_test::missing(); !why.empty()) KUMIKI_SKIP(why);
    auto root = kumiki_test::make_root();
    scheduler io;
    auto group = root.create("refused");
    CHECK_THROWS_AS(watch_rates(io, group, 0s), invalid_input);
    CHECK_THROWS_AS(watch_rates(io, group, -1s), invalid_input);
    REQUIRE(group.try_remove());
    CHECK_THROWS_AS(watch_rates(io, group, 1s), error);
}

namespace {

task<void> see_the_throttle(scheduler& io, cgroup_root& root) {
    const auto group = root.create("throttled", {.cpu = cpus(0.2)});
    const child busy(group, spin);
    REQUIRE(busy.pid() > 0);
    auto rates = watch_rates(io, group, 2s);
    auto first = co_await next(io, rates);
    auto seen = co_await next(io, rates);
    REQUIRE(seen);
    REQUIRE(seen->cpu);
    CHECK(*seen->cpu > 0.15);
    CHECK(*seen->cpu < 0.25);
    REQUIRE(seen->throttled_share);
    CHECK(*seen->throttled_share > 0.8);
}

}  // namespace

TEST_CASE("a quota of a fifth is seen as a fifth of a processor, throttled [vm]", "[vm]") {
    if (const auto why = kumiki_test::missing(controllers::cpu); !why.empty()) KUMIKI_SKIP(why);
    auto root = kumiki_test::make_root();
    scheduler io;
    io.run(see_the_throttle(io, root));
}
