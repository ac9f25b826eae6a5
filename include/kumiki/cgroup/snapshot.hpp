// The snapshot of a group's counters, and the parts of it that can be asked for. stats.hpp reads it.
//
// Kernel: memory.peak 5.19, memory.swap.peak 6.5, pids.peak 6.9, pids.events.local 6.11,
// cpu.stat.local 6.6, memory.events.local 5.3, irq.pressure 6.1; what is not there is unset.
// Source: Documentation/admin-guide/cgroup-v2.rst.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include <kumiki/cgroup/counts.hpp>
#include <kumiki/cgroup/pressure_counts.hpp>
#include <kumiki/core/flags.hpp>
#include <kumiki/core/text.hpp>
#include <kumiki/core/units.hpp>

namespace kumiki::inline v0 {

/// The parts of a snapshot: each is one file or a few.
enum class stat_parts : unsigned {
    none = 0,
    cpu = 1U << 0,  ///< cpu.stat
    cpu_local = 1U << 1,  ///< cpu.stat.local
    memory = 1U << 2,  ///< memory.current, .peak, .swap.current, .swap.peak, .zswap.current
    memory_stat = 1U << 3,  ///< memory.stat: the kernel sums it up anew, which takes a while
    memory_events = 1U << 4,  ///< memory.events, memory.events.local, memory.swap.events
    io = 1U << 5,  ///< io.stat
    pids = 1U << 6,  ///< pids.current, .peak, .events, .events.local
    hugetlb = 1U << 7,  ///< hugetlb.SIZE.current, .events, .events.local of each size
    pressure = 1U << 8,  ///< memory.pressure, cpu.pressure, io.pressure, irq.pressure
    misc = 1U << 9,  ///< misc.current
    rdma = 1U << 10,  ///< rdma.current
    usual = cpu | memory | memory_events | io | pids,
    all = (1U << 11) - 1,
};

template <>
inline constexpr bool is_flags<stat_parts> = true;

/// A snapshot of a group and all groups below it.
struct cgroup_stats {
    /// When its first file was read; rates are taken between two of these.
    std::chrono::steady_clock::time_point taken{};

    std::optional<std::chrono::microseconds> cpu_usage{};  ///< user and system together
    std::optional<std::chrono::microseconds> cpu_user{};
    std::optional<std::chrono::microseconds> cpu_system{};
    std::optional<std::chrono::microseconds> cpu_nice{};  ///< of user: 6.13
    std::optional<std::chrono::microseconds> cpu_forced_idle{};  ///< by core scheduling: 6.0
    std::optional<std::uint64_t> cpu_periods{};  ///< enforced periods of cpu.max
    std::optional<std::uint64_t> cpu_throttled_periods{};  ///< of those, cut short
    std::optional<std::chrono::microseconds> cpu_throttled{};
    std::optional<std::uint64_t> cpu_bursts{};  ///< periods that used cpu.max.burst: 5.16
    std::optional<std::chrono::microseconds> cpu_burst_time{};
    std::optional<std::chrono::microseconds> cpu_throttled_local{};  ///< by whatever group's limit

    std::optional<bytes> memory_current{};
    std::optional<bytes> memory_peak{};
    std::optional<bytes> swap_current{};
    std::optional<bytes> swap_peak{};
    std::optional<bytes> zswap_current{};
    std::optional<memory_stat> memory{};
    std::optional<memory_event_counts> memory_events{};
    std::optional<memory_event_counts> memory_events_local{};  ///< without the groups below
    std::optional<swap_event_counts> swap_events{};

    std::vector<io_device_stat> io{};  ///< devices that were used
    std::optional<std::uint64_t> pids_current{};
    std::optional<std::uint64_t> pids_peak{};
    /// How often pids.max refused a fork: the limit of this group or of one below. Before 6.11 (and
    /// with the mount option pids_localevents): forks of its own processes, by whatever limit.
    std::optional<std::uint64_t> pids_max_hits{};
    std::optional<std::uint64_t> pids_max_hits_local{};  ///< of this group's own limit
    std::vector<hugetlb_stat> hugetlb{};
    std::optional<kumiki::pressure> memory_pressure{};
    std::optional<kumiki::pressure> cpu_pressure{};
    std::optional<kumiki::pressure> io_pressure{};
    std::optional<kumiki::pressure> irq_pressure{};
    std::vector<misc_stat> misc{};
    std::vector<rdma_stat> rdma{};
};

/// The fields of cpu.stat. A key that the text lacks stays unset.
constexpr void parse_cpu_stat(std::string_view text, cgroup_stats& into) noexcept {
    const auto time = [&](std::string_view key) -> std::optional<std::chrono::microseconds> {
        const auto value = flat_value(text, key);
        // What is more than the type can hold, 292,000 years, is no time.
        if (!value || *value > std::uint64_t{INT64_MAX}) return std::nullopt;
        return std::chrono::microseconds(static_cast<std::int64_t>(*value));
    };
    into.cpu_usage = time("usage_usec");
    into.cpu_user = time("user_usec");
    into.cpu_system = time("system_usec");
    into.cpu_nice = time("nice_usec");
    into.cpu_forced_idle = time("core_sched.force_idle_usec");
    into.cpu_periods = flat_value(text, "nr_periods");
    into.cpu_throttled_periods = flat_value(text, "nr_throttled");
    into.cpu_throttled = time("throttled_usec");
    into.cpu_bursts = flat_value(text, "nr_bursts");
    into.cpu_burst_time = time("burst_usec");
}

}  // namespace kumiki::inline v0
