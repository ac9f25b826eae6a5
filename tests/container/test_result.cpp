// The counters that come with a container's result: the last ones, read before its group goes.
#include <fcntl.h>
#include <unistd.h>

#include <chrono>
#include <string>
#include <string_view>
#include <utility>

#include <kumiki/cgroup/root.hpp>
#include <kumiki/container/container.hpp>
#include <kumiki/container/result.hpp>

#include "container/support.hpp"
#include "support/busybox.hpp"
#include "support/catch.hpp"

using namespace kumiki;
using namespace kumiki::literals;
using namespace std::chrono_literals;
using kumiki_test::busybox;
using kumiki_test::has_controllers;
using kumiki_test::run_shell;
using kumiki_test::shell;

namespace {

/// The result, the group's path while it ran, and whether that is there after the end.
struct ending {
    container_result result;
    bool was_there = false;
    bool is_there = true;
};
task<ending> run_to_the_end(scheduler& io, container_spec spec) {
    auto box = co_await container::start(io, std::move(spec));
    const std::string path = "/proc/" + std::to_string(box.pid()) + "/cgroup";
    const auto text = sys::read_file_at(AT_FDCWD, path);
    std::string name;
    for (std::string_view rest = text; const auto line = next_field(rest, '\n');)
        if (line->starts_with("0::")) name = line->substr(3);
    const std::string group = cgroup_root::open().hierarchy().mount().mount_point + name;
    ending seen;
    seen.was_there = ::access(group.c_str(), F_OK) == 0;
    seen.result = co_await box.wait();
    seen.is_there = ::access(group.c_str(), F_OK) == 0;
    co_return seen;
}

}  // namespace

TEST_CASE("a result has the counters of its group, which is gone when it is there") {
    scheduler io;
    // The work is done by a process that has ended before the container does.
    const auto seen = io.run(run_to_the_end(
        io, shell("sleep 0.1; (i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done); sleep 0.1")));
    CHECK(seen.was_there);
    CHECK_FALSE(seen.is_there);
    const auto& usage = seen.result.usage;
    REQUIRE(usage.cpu_usage);
    const auto rounding = 20ms;
    CHECK(*usage.cpu_usage >= 10ms);
    CHECK(*usage.cpu_usage + rounding >=
          seen.result.status.user_time + seen.result.status.system_time);
    CHECK(usage.taken + 10s > std::chrono::steady_clock::now());
}

TEST_CASE("a result tells of what was refused up to the end [vm]", "[vm]") {
    constexpr auto needed = controllers::memory | controllers::pids;
    if (!has_controllers(needed)) KUMIKI_SKIP("no memory and pids controllers in cgroup v2");
    auto spec = shell("for i in 1 2 3 4 5 6 7 8; do sleep 1 & done; wait");
    spec.limits = {.memory = 64_MiB, .pids = 6};
    const auto forks = run_shell(std::move(spec)).result;
    REQUIRE(forks.usage.pids_max_hits);
    CHECK(*forks.usage.pids_max_hits >= 1);
    if (forks.usage.pids_peak) CHECK(*forks.usage.pids_peak == 6);
    REQUIRE(forks.usage.memory_events);
    CHECK(forks.usage.memory_events->oom_kill == 0);
    CHECK(forks.oom_kills == 0);

    auto hungry = shell("x=aaaaaaaaaaaaaaaa; while true; do x=$x$x; done");
    hungry.limits = {.memory = 24_MiB, .memory_swap = 0_B};
    const auto killed = run_shell(std::move(hungry)).result;
    REQUIRE(killed.usage.memory_events_local);
    CHECK(killed.usage.memory_events_local->oom_kill >= 1);
    CHECK(killed.exit_code() == 137);
    CHECK(killed.oom_kills >= 1);
    if (killed.usage.memory_peak) CHECK(*killed.usage.memory_peak > 16_MiB);
}
