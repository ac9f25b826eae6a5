// A supervisor that is driven by pressure: when the processes of a container wait too long for memory
// it gets more, step by step up to a bound; then it is frozen, until the pressure has gone. Nothing
// here looks at a clock to find out: the kernel tells (PSI triggers). As root:
//
//   $ example_18_pressure
//   memory.high is 32 MiB, the container wants ever more
//   pressure: memory.high grows to 64 MiB
//   pressure: memory.high grows to 96 MiB
//   pressure: the bound is reached, so it is frozen
//   quiet: thawed
//   it goes on, and the pressure is back: yes
//   waited for memory: 4.2 s
//
// Without the memory controller in cgroup v2 the pressure is that of the processors, where only the
// brake is left: it is frozen, and thawed.
#include <poll.h>
#include <unistd.h>

#include <chrono>

#include <fmt/format.h>

#include <kumiki/kumiki.hpp>

using namespace kumiki;
using namespace kumiki::literals;
using namespace std::chrono_literals;

constexpr bytes at_first = 32_MiB;
constexpr bytes more = 32_MiB;
constexpr bytes at_most = 96_MiB;

/// Waits until the trigger tells; false when it did not within `limit`. A trigger tells once in each
/// window at most.
task<bool> is_told(scheduler& io, const pressure_watch& watch, std::chrono::nanoseconds limit) {
    auto seen = co_await with_timeout(io, limit, io.poll(watch.fd(), POLLPRI));
    co_return seen.has_value() && (*seen & POLLERR) == 0;
}

task<int> supervise(scheduler& io, bool has_memory) {
    // With memory: tail(1) keeps what it reads, as it looks for the last line of what has no lines.
    // Without: more to do than there are processors.
    const char* script = has_memory
                             ? "exec tail /dev/zero"
                             : "for i in 1 2 3 4 5 6 7 8; do while :; do :; done & done; wait";
    container_spec spec{
        .rootfs = rootfs::assembled({.size = 1_MiB}),
        .process = {.args = {"sh", "-c", script},
                    .stdio = {stdio::null(), stdio::null(), stdio::null()}},
        .mounts = host_system(),
    };
    if (has_memory) spec.limits = {.memory = 256_MiB, .memory_high = at_first, .memory_swap = 0_B};
    auto box = co_await container::start(io, std::move(spec));
    const auto resource = has_memory ? pressure_resource::memory : pressure_resource::cpu;
    const pressure_watch watch(box.cgroup(),
                               {.resource = resource, .threshold = 200ms, .window = 2s});
    if (has_memory) fmt::print("memory.high is 32 MiB, the container wants ever more\n");

    for (bytes high = at_first;;) {
        const bool told = co_await is_told(io, watch, 20s);
        if (!told) throw error(ETIME, {.operation = "wait for pressure"});
        if (!has_memory || high >= at_most) break;
        high = high + more;
        update_limits(box.cgroup(), {.memory_high = high});
        fmt::print("pressure: memory.high grows to {} MiB\n", high.count >> 20);
    }
    box.freeze();
    co_await until_frozen(io, box.cgroup());
    fmt::print("pressure: {}, so it is frozen\n", has_memory ? "the bound is reached" : "too much");

    // What was waited before the freeze can be told once more; then it stays quiet.
    bool told = true;
    while (told) told = co_await is_told(io, watch, 3s);
    box.thaw();
    fmt::print("quiet: thawed\n");
    const bool again = co_await is_told(io, watch, 20s);
    fmt::print("it goes on, and the pressure is back: {}\n", again ? "yes" : "no");

    const auto waited = read_pressure(box.cgroup(), resource).value_or(pressure{}).some.total;
    box.signal(SIGKILL);
    co_await box.wait();
    fmt::print("waited for {}: {:.1f} s\n", has_memory ? "memory" : "processors",
               std::chrono::duration<double>(waited).count());
    co_return 0;
}

int main() try {
    if (::geteuid() != 0) {
        fmt::print(stderr, "It takes root.\n");
        return 77;
    }
    bool has_memory = true;
    {
        const auto root = cgroup_root::open();
        has_memory = has(root.available(), controllers::memory);
        if (!has_memory)
            fmt::print("without memory.high: {}\n",
                       root.hierarchy().explain_missing(controllers::memory));
        if (!read_pressure(root.group(), pressure_resource::cpu)) {
            fmt::print(stderr, "This kernel does not measure pressure (CONFIG_PSI, psi=1).\n");
            return 77;
        }
    }
    return run([&](scheduler& io) { return supervise(io, has_memory); });
} catch (const error& failure) {
    fmt::print(stderr, "{}\n", failure.what());
    return exit_status_of(failure);
}
