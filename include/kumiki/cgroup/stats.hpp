// What a group has used so far, as one typed snapshot: memory, processor time, processes, and what
// was refused to it. Whatever the group's controllers do not count is not there (nullopt).
//
// cpu.stat's times need no controller; memory.peak is 5.19, pids.peak 6.9. Each file is read once:
// numbers of one file belong together, those of different files are moments apart.
// Left out: memory.stat, io.stat, pressure.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include <kumiki/cgroup/cgroup.hpp>
#include <kumiki/core/text.hpp>
#include <kumiki/core/units.hpp>

namespace kumiki::inline v0 {

/// Counters of memory.events: how often a limit was met. Those of the groups below are included.
struct memory_event_counts {
    std::uint64_t low = 0;             ///< reclaimed from although under memory.low
    std::uint64_t high = 0;            ///< slowed down at memory.high
    std::uint64_t max = 0;             ///< about to go over memory.max
    std::uint64_t oom = 0;             ///< an allocation was about to fail for it
    std::uint64_t oom_kill = 0;        ///< processes killed by the OOM killer
    std::uint64_t oom_group_kill = 0;  ///< groups killed as a whole: 5.17
    bool operator==(const memory_event_counts&) const = default;
};

/// The counters in the text of memory.events.
constexpr memory_event_counts parse_memory_events(std::string_view text) noexcept {
    const auto count = [&](std::string_view key) { return flat_value(text, key).value_or(0); };
    return {.low = count("low"),
            .high = count("high"),
            .max = count("max"),
            .oom = count("oom"),
            .oom_kill = count("oom_kill"),
            .oom_group_kill = count("oom_group_kill")};
}

/// A snapshot of a group and all groups below it.
struct cgroup_stats {
    std::optional<bytes> memory_current{};
    std::optional<bytes> memory_peak{};
    std::optional<memory_event_counts> memory_events{};
    std::optional<std::chrono::microseconds> cpu_usage{};   ///< user and system together
    std::optional<std::chrono::microseconds> cpu_user{};
    std::optional<std::chrono::microseconds> cpu_system{};
    std::optional<std::uint64_t> cpu_periods{};             ///< enforced periods of cpu.max
    std::optional<std::uint64_t> cpu_throttled_periods{};   ///< of those, cut short
    std::optional<std::chrono::microseconds> cpu_throttled{};
    std::optional<std::uint64_t> pids_current{};
    std::optional<std::uint64_t> pids_peak{};
    std::optional<std::uint64_t> pids_max_hits{};           ///< forks refused by pids.max
};

/// The fields of cpu.stat. A key that the text lacks stays unset.
constexpr void parse_cpu_stat(std::string_view text, cgroup_stats& into) noexcept {
    const auto time = [&](std::string_view key) -> std::optional<std::chrono::microseconds> {
        const auto value = flat_value(text, key);
        if (!value) return std::nullopt;
        return std::chrono::microseconds(static_cast<std::int64_t>(*value));
    };
    into.cpu_usage = time("usage_usec");
    into.cpu_user = time("user_usec");
    into.cpu_system = time("system_usec");
    into.cpu_periods = flat_value(text, "nr_periods");
    into.cpu_throttled_periods = flat_value(text, "nr_throttled");
    into.cpu_throttled = time("throttled_usec");
}

/// Reads the snapshot. A group that has been removed gives an empty one.
///
/// Cost: three system calls for each file that is there, one for each that is not.
inline cgroup_stats read_stats(const cgroup& group) {
    cgroup_stats stats;
    const auto number = [&](const char* key) -> std::optional<std::uint64_t> {
        const auto text = group.try_read(key);
        return text ? parse_number<std::uint64_t>(trim(*text)) : std::nullopt;
    };
    const auto amount = [&](const char* key) -> std::optional<bytes> {
        const auto value = number(key);
        return value ? std::optional(bytes{*value}) : std::nullopt;
    };
    if (const auto text = group.try_read("cpu.stat")) parse_cpu_stat(*text, stats);
    stats.memory_current = amount("memory.current");
    if (stats.memory_current) {
        stats.memory_peak = amount("memory.peak");
        if (const auto text = group.try_read("memory.events"))
            stats.memory_events = parse_memory_events(*text);
    }
    stats.pids_current = number("pids.current");
    if (stats.pids_current) {
        stats.pids_peak = number("pids.peak");
        if (const auto text = group.try_read("pids.events"))
            stats.pids_max_hits = flat_value(*text, "max");
    }
    return stats;
}

}  // namespace kumiki::inline v0
