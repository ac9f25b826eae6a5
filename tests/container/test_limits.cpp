// Limits of a container as its processes meet them, where the controllers are there: in the virtual
// machines of tests/vm, and on hosts that have them in cgroup v2.
#include <algorithm>
#include <cstdlib>
#include <string>
#include <vector>

#include <kumiki/cgroup/hierarchy.hpp>
#include <kumiki/cgroup/root.hpp>
#include <kumiki/container/container.hpp>

#include "container/support.hpp"
#include "support/busybox.hpp"
#include "support/catch.hpp"
#include "support/leaks.hpp"

using namespace kumiki;
using namespace kumiki::literals;
using kumiki_test::busybox;
using kumiki_test::has_controllers;
using kumiki_test::run_shell;
using kumiki_test::shell;

namespace {

/// The descriptors of the groups above are this process's for its life: they are not looked at.
bool leaves_nothing(const kumiki_test::holdings& before) {
    auto after = kumiki_test::holdings::settled(before);
    return after.children == before.children && after.groups == before.groups &&
           after.mounts == before.mounts;
}

}  // namespace

TEST_CASE("a process that takes more memory than it may is killed, and the result says so",
          "[vm]") {
    if (!has_controllers(controllers::memory)) KUMIKI_SKIP("no memory controller in cgroup v2");
    const auto before = kumiki_test::holdings::now();
    // The shell doubles a string until the kernel refuses.
    auto spec = shell("x=aaaaaaaaaaaaaaaa; while true; do x=$x$x; done");
    spec.limits.memory = 24_MiB;
    spec.limits.memory_swap = 0_B;
    const auto seen = run_shell(std::move(spec));
    CHECK(seen.result.exit_code() == 137);
    CHECK(seen.result.was_oom_killed());
    CHECK(seen.result.oom_kills >= 1);
    REQUIRE(seen.result.usage.memory_events);
    CHECK(seen.result.usage.memory_events->max >= 1);
    CHECK(leaves_nothing(before));
}

TEST_CASE("the events of a container tell of an OOM kill before its end", "[vm]") {
    if (!has_controllers(controllers::memory)) KUMIKI_SKIP("no memory controller in cgroup v2");
    scheduler io;
    auto spec = shell("x=aaaaaaaaaaaaaaaa; while true; do x=$x$x; done");
    spec.limits.memory = 24_MiB;
    spec.limits.memory_swap = 0_B;
    const auto kinds = io.run(kumiki_test::start_and_watch(io, std::move(spec)));
    REQUIRE_FALSE(kinds.empty());
    CHECK(std::count(kinds.begin(), kinds.end(), cgroup_event_kind::oom_kill) == 1);
    CHECK(kinds.back() == cgroup_event_kind::empty);
}

namespace {

/// $KUMIKI_KILLS: fewer in an emulated guest, where each start takes a tenth of a second.
int number_of_kills() {
    const char* const wanted = std::getenv("KUMIKI_KILLS");
    return wanted == nullptr ? 1000 : std::atoi(wanted);
}

/// Starts one container after the other, each of which wants more memory than it may have.
task<void> kill_many(scheduler& io, int kills, int& reports, std::uint64_t& kills_told) {
    for (int i = 0; i < kills; ++i) {
        container_spec spec = kumiki_test::shell_spec(busybox(), "");
        spec.process.args = {"dd", "if=/dev/zero", "of=/dev/null", "bs=32M", "count=1"};
        spec.limits.memory = 4_MiB;
        spec.limits.memory_swap = 0_B;
        auto result = co_await kumiki_test::start_and_wait(io, std::move(spec));
        if (result.was_oom_killed() && result.exit_code() == 137) ++reports;
        kills_told += result.oom_kills;
    }
}

}  // namespace

TEST_CASE("every container that is killed for memory says so, a thousand in a row", "[vm]") {
    if (!has_controllers(controllers::memory)) KUMIKI_SKIP("no memory controller in cgroup v2");
    const auto before = kumiki_test::holdings::now();
    scheduler io;
    const int kills = number_of_kills();
    REQUIRE(kills >= 1);
    int reports = 0;
    std::uint64_t kills_told = 0;
    io.run(kill_many(io, kills, reports, kills_told));
    CHECK(reports == kills);
    CHECK(kills_told == static_cast<std::uint64_t>(kills));
    CHECK(leaves_nothing(before));
}

TEST_CASE("a container that computes gets the processor time of its limit, within 3 %", "[vm]") {
    if (!has_controllers(controllers::cpu)) KUMIKI_SKIP("no cpu controller in cgroup v2");
    auto spec = shell("while true; do true; done & sleep 3");
    spec.limits.cpu = cpus(0.2);
    const auto seen = run_shell(std::move(spec));
    const auto& usage = seen.result.usage;
    REQUIRE(usage.cpu_usage);
    REQUIRE(usage.cpu_periods);
    REQUIRE(seen.result.wall_time >= std::chrono::seconds(2));
    const std::chrono::duration<double, std::micro> used = *usage.cpu_usage;
    const double percent = 100 * used / seen.result.wall_time;
    INFO(percent << " % of the time");
    CHECK(percent > 17);
    CHECK(percent < 23);
    CHECK(usage.cpu_throttled_periods > 10U);
}

TEST_CASE("a fork bomb stops at pids.max and takes nothing else along", "[vm]") {
    if (!has_controllers(controllers::pids)) KUMIKI_SKIP("no pids controller in cgroup v2");
    const auto before = kumiki_test::holdings::now();
    auto spec = shell("bomb() { bomb | bomb & }; bomb; sleep 1; exit 5");
    spec.limits.pids = 20;
    const auto seen = run_shell(std::move(spec));
    REQUIRE(seen.result.usage.pids_max_hits);
    CHECK(*seen.result.usage.pids_max_hits >= 1);
    if (seen.result.usage.pids_peak) CHECK(*seen.result.usage.pids_peak <= 20);
    CHECK(leaves_nothing(before));
}

TEST_CASE("limits are in the control group's files before the payload runs", "[vm]") {
    constexpr auto needed = controllers::memory | controllers::cpu | controllers::pids;
    if (!has_controllers(needed)) KUMIKI_SKIP("no memory, cpu and pids controllers in cgroup v2");
    auto spec =
        shell("cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/cpu.max /sys/fs/cgroup/pids.max");
    spec.limits = {.memory = 64_MiB, .cpu = cpus(0.5), .pids = 32};
    CHECK(run_shell(std::move(spec)).output == "67108864\n50000 100000\n32\n");
}

TEST_CASE("a limit whose controller is not there is refused with its name and a remedy") {
    if (has_controllers(controllers::memory)) KUMIKI_SKIP("the memory controller is there");
    scheduler io;
    const auto before = kumiki_test::holdings::now();
    auto spec = shell("exit 0");
    spec.limits.memory = 64_MiB;
    try {
        io.run(kumiki_test::start_and_wait(io, std::move(spec)));
        FAIL("it was accepted");
    } catch (const unsupported& failure) {
        INFO(failure.what());
        CHECK(std::string(failure.what()).find("memory") != std::string::npos);
        CHECK(exit_status_of(failure) == 125);
        CHECK_FALSE(failure.remedy().empty());
    }
    CHECK(leaves_nothing(before));
}
