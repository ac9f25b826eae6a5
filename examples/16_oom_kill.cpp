// A container that takes more memory than it may: what the kernel tells while it happens, and what the
// result says after the end. As root:
//
//   $ example_16_oom_kill
//   populated
//   oom 1
//   oom_kill 1
//   empty
//   killed for memory: yes, processes: 1, status 137
//   memory.max was met 13 times
//
// Without the memory controller in cgroup v2 it says so, and the same command runs to its end.
#include <unistd.h>

#include <fmt/format.h>

#include <kumiki/kumiki.hpp>

using namespace kumiki;
using namespace kumiki::literals;

task<int> run_out_of_memory(scheduler& io) {
    container_spec spec{
        .rootfs = rootfs::assembled({.size = 1_MiB}),
        // It waits for a line; then dd(1) fills one buffer of 64 MiB.
        .process =
            {.args = {"sh", "-c",
                      "read go; exec dd if=/dev/zero of=/dev/null bs=64M count=1 2>/dev/null"},
             .stdio = {stdio::pipe(), stdio::null(), stdio::null()}},
        .limits = {.memory = 24_MiB, .memory_swap = 0_B},
        .mounts = host_system(),
    };
    {
        const auto root = cgroup_root::open();
        const auto missing = controllers_needed(spec.limits) & ~root.available();
        if (missing != controllers::none) {
            fmt::print("without a limit: {}\n", root.hierarchy().explain_missing(missing));
            spec.limits = {};
        }
    }
    auto box = co_await container::start(io, std::move(spec));

    auto events = box.events();
    for (bool told = false;;) {
        auto event = co_await events.next();
        if (!event) break;  // the last process has ended
        switch (event->kind) {
        case cgroup_event_kind::memory_max:
            continue;  // one for each attempt to go on: the result has their number
        case cgroup_event_kind::populated:
        case cgroup_event_kind::empty:
            fmt::print("{}\n", to_string(event->kind));
            break;
        default:
            fmt::print("{} {}\n", to_string(event->kind), event->count);
        }
        if (!told) {
            told = true;
            co_await box.in().write("go\n");  // what follows is seen from its beginning
        }
    }

    auto result = co_await box.wait();
    fmt::print("killed for memory: {}, processes: {}, status {}\n",
               result.was_oom_killed() ? "yes" : "no", result.oom_kills, result.exit_code());
    if (const auto& counts = result.usage.memory_events)
        fmt::print("memory.max was met {} times\n", counts->max);
    co_return 0;
}

int main() try {
    if (::geteuid() != 0) {
        fmt::print(stderr, "It takes root.\n");
        return 77;
    }
    return run(run_out_of_memory);
} catch (const error& failure) {
    fmt::print(stderr, "{}\n", failure.what());
    return exit_status_of(failure);
}
