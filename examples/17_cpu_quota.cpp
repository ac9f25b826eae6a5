// Two busy containers side by side, one of which may use a fifth of a processor: what each of them got,
// and how often the kernel stopped the one that wanted more. As root:
//
//   $ example_17_cpu_quota
//   for 2 s            got       throttled   stopped for
//   a fifth           20.1 %    20 of 21     1.58 s
//   all it can get    99.7 %
//
// Without the cpu controller in cgroup v2 it says so, and both get what they can.
#include <unistd.h>

#include <chrono>

#include <fmt/format.h>

#include <kumiki/kumiki.hpp>

using namespace kumiki;
using namespace kumiki::literals;
using namespace std::chrono_literals;

container_spec busy(resource_limits limits) {
    return {
        .rootfs = rootfs::assembled({.size = 1_MiB}),
        .process = {.args = {"sh", "-c", "while :; do :; done"}},
        .limits = std::move(limits),
        .mounts = host_system(),
    };
}

/// A group's counters with the time at which they were read.
struct reading {
    cgroup_stats stats{};
    std::chrono::steady_clock::time_point time{};
};

reading read(const container& box) { return {box.stats(), std::chrono::steady_clock::now()}; }

void show(const char* name, const reading& from, const reading& to) {
    const std::chrono::duration<double> wall = to.time - from.time;
    const std::chrono::duration<double> used = *to.stats.cpu_usage - *from.stats.cpu_usage;
    fmt::print("{:<16} {:6.1f} %", name, 100 * used / wall);
    if (to.stats.cpu_periods.value_or(0) > 0) {
        const std::chrono::duration<double> stopped =
            *to.stats.cpu_throttled - *from.stats.cpu_throttled;
        fmt::print("    {} of {}    {:.2f} s",
                   *to.stats.cpu_throttled_periods - *from.stats.cpu_throttled_periods,
                   *to.stats.cpu_periods - *from.stats.cpu_periods, stopped.count());
    }
    fmt::print("\n");
}

task<int> compare(scheduler& io) {
    resource_limits fifth{.cpu = cpus(0.2)};  // 20 ms in each period of 100 ms
    {
        const auto root = cgroup_root::open();
        const auto missing = controllers_needed(fifth) & ~root.available();
        if (missing != controllers::none) {
            fmt::print("without a quota: {}\n", root.hierarchy().explain_missing(missing));
            fifth = {};
        }
    }
    auto slow = co_await container::start(io, busy(std::move(fifth)));
    auto fast = co_await container::start(io, busy({}));

    const reading slow_before = read(slow);
    const reading fast_before = read(fast);
    co_await io.sleep_for(2s);
    const reading slow_after = read(slow);
    const reading fast_after = read(fast);
    fmt::print("for 2 s            got       throttled   stopped for\n");
    show("a fifth", slow_before, slow_after);
    show("all it can get", fast_before, fast_after);

    for (container* box : {&slow, &fast}) {
        box->signal(SIGKILL);
        co_await box->wait();
    }
    co_return 0;
}

int main() try {
    if (::geteuid() != 0) {
        fmt::print(stderr, "It takes root.\n");
        return 77;
    }
    return run(compare);
} catch (const error& failure) {
    fmt::print(stderr, "{}\n", failure.what());
    return exit_status_of(failure);
}
