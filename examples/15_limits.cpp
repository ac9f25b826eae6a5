// Limits of memory, processors, io and processes, as the container itself sees them, and an update while
// it runs. DIRECTORY is on the disk whose writes are limited. As root:
//
//   example_15_limits [DIRECTORY]
//
//   $ example_15_limits /home
//   from its first instruction on:
//     memory.max 67108864
//     cpu.max 50000 100000
//     ...
//   updated while it runs:
//   ...
//   memory.max: 100664296 asked for, 100663296 in force
//   memory.max of 4096 is refused: set memory.max of /sys/fs/cgroup/kumiki/limits: EBUSY ...
//
// A controller that this host does not have in cgroup v2 is named, with what can be done, and left out.
#include <unistd.h>

#include <string>

#include <fmt/format.h>

#include <kumiki/kumiki.hpp>

using namespace kumiki;
using namespace kumiki::literals;

/// The limits without those that this host has no controller for.
resource_limits possible(resource_limits limits, const cgroup_root& root) {
    const auto missing = controllers_needed(limits) & ~root.available();
    if (missing == controllers::none) return limits;
    fmt::print("not here: {}. {}\n", to_string(missing), root.hierarchy().explain_missing(missing));
    if (has(missing, controllers::memory)) limits.memory = limits.memory_swap = {};
    if (has(missing, controllers::cpu)) limits.cpu = {};
    if (has(missing, controllers::pids)) limits.pids = {};
    if (has(missing, controllers::io)) limits.io = {};
    return limits;
}

/// What a process inside reads in /sys/fs/cgroup: its own group is the root of what it sees.
task<void> look_inside(scheduler& io, container& box) {
    exec_spec command{.args = {"sh", "-c",
                               "cd /sys/fs/cgroup; for key in memory.max cpu.max pids.max io.max "
                               "cgroup.max.descendants; do [ ! -e $key ] || "
                               "echo \"  $key $(cat $key)\"; done"}};
    auto seen = co_await run_and_capture(io, box, std::move(command));
    fmt::print("{}", seen.out.text);
}

task<int> show_limits(scheduler& io, std::string directory) {
    const auto root = cgroup_root::open();
    resource_limits limits{.memory = 64_MiB,
                           .memory_swap = 0_B,
                           .cpu = cpus(0.5),
                           .pids = 32,
                           .raw = {{"cgroup.max.descendants", "8"}}};  // of the core: always there
    if (const auto disk = device_number::behind(directory))
        limits.io = {{.device = *disk, .write = 4_MiB}};
    else
        fmt::print("not here: a limit of io. There is no disk of its own behind {}\n", directory);

    container_spec spec{
        .name = "limits",
        .rootfs = rootfs::assembled({.size = 1_MiB}),
        .process = {.args = {"sleep", "60"}},
        .limits = possible(std::move(limits), root),
        .mounts = host_system(),
    };
    auto box = co_await container::start(io, std::move(spec));
    fmt::print("from its first instruction on:\n");
    co_await look_inside(io, box);

    // All of an update or nothing. The kernel rounds memory to pages: what it made of it comes back.
    resource_limits more{.cpu = cpus(1.5), .pids = 64, .raw = {{"cgroup.max.descendants", "2"}}};
    more.memory = 96_MiB + 1000_B;
    const auto there = box.cgroup().available();
    if (!has(there, controllers::memory)) more.memory = {};
    if (!has(there, controllers::cpu)) more.cpu = {};
    if (!has(there, controllers::pids)) more.pids = {};
    const auto clipped = update_limits(box.cgroup(), more);
    fmt::print("updated while it runs:\n");
    co_await look_inside(io, box);
    for (const clipped_limit& each : clipped)
        fmt::print("{}: {} asked for, {} in force\n", each.key, each.asked, each.in_force);

    if (has(there, controllers::memory)) try {
            update_limits(box.cgroup(), {.memory = 4096_B});
        } catch (const limit_below_use& refused) {
            fmt::print("memory.max of 4096 is refused: {}\n", refused.what());
        }
    box.signal(SIGKILL);
    co_await box.wait();
    co_return 0;
}

int main(int argc, char** argv) {
    if (::geteuid() != 0) {
        fmt::print(stderr, "It takes root.\n");
        return 77;
    }
    try {
        scheduler io;
        return io.run(show_limits(io, argc > 1 ? argv[1] : "/"));
    } catch (const error& failure) {
        fmt::print(stderr, "{}\n", failure.what());
        return exit_status_of(failure);
    }
}
