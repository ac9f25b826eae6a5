// Control groups: limits on what a process can use, and what it has used.
//
// Makes a group with limits (as far as this host's cgroup v2 has the controllers), starts a child
// that is born in it, freezes it, kills it and shows the counters. Run as root:
//
//   $ ./03_cgroup
//   group: /sys/fs/cgroup/kumiki-example/box
//   memory.max: 67108864
//   cpu.max: 50000 100000
//   pids.max: 32
//   cgroup.procs: 4711
//   frozen: yes
//   populated after the kill: no
//   processor time: 30125 us
#include <poll.h>
#include <signal.h>

#include <cstdio>
#include <string>

#include <kumiki/cgroup/root.hpp>
#include <kumiki/cgroup/stats.hpp>
#include <kumiki/cgroup/watch.hpp>
#include <kumiki/core/scope_exit.hpp>
#include <kumiki/sys/pidfd.hpp>
#include <kumiki/sys/raw.hpp>

using namespace kumiki;
using namespace kumiki::literals;

static void work_for_ever(void*) {
    for (;;) {}
}

int main() try {
    auto root = cgroup_root::open("kumiki-example");
    resource_limits limits{.memory = 64_MiB, .cpu = cpus(0.5), .pids = 32};
    const auto missing = controllers_needed(limits) & ~root.available();
    if (missing != controllers::none) {
        std::printf("without limits: %s\n", root.hierarchy().explain_missing(missing).c_str());
        limits = {};
    }
    auto box = root.create("box", limits);
    std::printf("group: %s\n", box.path().c_str());
    for (const auto& [key, value] : settings_of(limits))
        std::printf("%s: %s", key.c_str(), box.read(key).c_str());

    // CLONE_INTO_CGROUP: in the group from its first instruction on, and never outside of it.
    int fd = -1;
    const long pid = sys::clone_copied({.flags = sys::clone_pidfd | sys::clone_into_cgroup,
                                        .pidfd = reinterpret_cast<std::uint64_t>(&fd),
                                        .exit_signal = SIGCHLD,
                                        .cgroup = static_cast<std::uint64_t>(box.fd())},
                                       work_for_ever, nullptr);
    if (pid < 0) throw error(static_cast<int>(-pid), {.operation = "clone3"});
    const unique_fd child(fd);
    const scope_exit end([&]() noexcept {
        ::kill(static_cast<pid_t>(pid), SIGKILL);
        sys::wait_blocking(child.get());
    });
    std::printf("cgroup.procs: %s", box.read("cgroup.procs").c_str());

    ::poll(nullptr, 0, 30);  // some time to use
    const cgroup_watch watch(box);
    box.freeze();
    for (pollfd changed{watch.fd(), POLLIN, 0}; !box.is_frozen(); watch.events())
        ::poll(&changed, 1, -1);
    std::printf("frozen: yes\n");
    box.kill();  // works on frozen processes, too
    box.wait_empty(std::chrono::seconds(5));
    std::printf("populated after the kill: %s\n", box.is_populated() ? "yes" : "no");
    if (const auto used = read_stats(box).cpu_usage)
        std::printf("processor time: %ld us\n", static_cast<long>(used->count()));
    return 0;  // the group goes with its handle
} catch (const error& failure) {
    std::fprintf(stderr, "%s\n", failure.what());
    return 1;
}
