// What is known of a container after its end.
#pragma once

#include <chrono>
#include <cstdint>

#include <kumiki/cgroup/stats.hpp>
#include <kumiki/sys/pidfd.hpp>

namespace kumiki::inline v0 {

/// How a container ended, and what it used.
struct container_result {
    sys::exit_status status{};
    cgroup_stats usage{};                 ///< the group's last counters, read before its removal
    /// From its execve up to when the wait for its end was over.
    std::chrono::nanoseconds wall_time{};
    std::uint64_t oom_kills = 0;          ///< how many of its processes the OOM killer took

    /// As a shell shows it: the exit status, or 128 plus the signal.
    int exit_code() const noexcept { return status.shell_status(); }
    bool was_oom_killed() const noexcept { return oom_kills != 0; }
};

}  // namespace kumiki::inline v0
