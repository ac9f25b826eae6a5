// Resource limits as typed values, the control files that they stand for, and writing them.
//
// memory, cpu, io, pids, cpuset and hugetlb are typed; everything else is a raw key
// ({"misc.max", "res_a 1"}), checked for its form only. What a limit means is the kernel's:
// Documentation/admin-guide/cgroup-v2.rst. What a value was rounded to is update.hpp's to tell.
#pragma once

#include <chrono>
#include <cmath>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <kumiki/cgroup/cgroup.hpp>
#include <kumiki/cgroup/controller.hpp>
#include <kumiki/cgroup/io_limits.hpp>
#include <kumiki/core/error.hpp>
#include <kumiki/core/text.hpp>
#include <kumiki/core/units.hpp>

namespace kumiki::inline v0 {

/// What a group may use. A field that is not set is not written: the kernel's default, or what was
/// there before, stays.
struct resource_limits {
    /// memory.max: more makes the kernel reclaim, then kill (OOM). Swap is not counted here.
    std::optional<bytes> memory{};
    /// memory.high: above it, processes are slowed down and reclaimed from, never killed.
    std::optional<bytes> memory_high{};
    /// memory.low: below it, memory is reclaimed only if nothing else can be.
    std::optional<bytes> memory_low{};
    /// memory.min: below it, memory is not reclaimed at all.
    std::optional<bytes> memory_min{};
    /// memory.swap.high: above it, processes are slowed down. Kernel: 5.8.
    std::optional<bytes> memory_swap_high{};
    /// memory.zswap.max: memory for compressed swap. Kernel: 5.19.
    std::optional<bytes> memory_zswap{};
    /// memory.swap.max: swap space beside `memory`; 0 allows none.
    std::optional<bytes> memory_swap{};
    /// memory.oom.group: an OOM kill takes all processes of the group, not one.
    std::optional<bool> memory_oom_group{};
    /// cpu.max: processor time per wall time, over all processors: cpus(0.5).
    std::optional<cpus> cpu{};
    /// The period in which `cpu` is enforced: 1 ms to 1 s. Shorter ones throttle for shorter.
    std::chrono::microseconds cpu_period = std::chrono::milliseconds(100);
    /// cpu.weight: the share under contention, 1 to 10000; the kernel's default is 100.
    std::optional<unsigned> cpu_weight{};
    /// cpu.max.burst: processor time that may be saved up from quiet periods. Kernel: 5.14.
    std::optional<std::chrono::microseconds> cpu_burst{};
    /// cpu.idle: run only when nothing else wants to; takes the place of a weight. Kernel: 5.15.
    std::optional<bool> cpu_idle{};
    /// cpu.uclamp.min and .max: bounds of the processors' frequency, in percent, 0 to 100.
    std::optional<double> cpu_uclamp_min{};
    std::optional<double> cpu_uclamp_max{};
    /// cpuset.cpus and cpuset.mems: processors and memory nodes, as lists: "0-3,6".
    std::optional<std::string> cpuset_cpus{};
    std::optional<std::string> cpuset_mems{};
    /// io.max of each device: bytes and operations in a second.
    std::vector<io_limit> io{};
    /// io.weight: the share under contention, 1 to 10000; the kernel's default is 100.
    std::optional<unsigned> io_weight{};
    /// io.latency: groups with a longer target are slowed down when this one is missed.
    std::vector<io_latency> io_latencies{};
    /// hugetlb.SIZE.max: memory in huge pages of each size.
    std::vector<hugetlb_limit> hugetlb{};
    /// pids.max: processes and threads together, at least 1.
    std::optional<std::uint64_t> pids{};
    /// Written after the others, in this order. The same key may stand more than once (io.max).
    std::vector<cgroup_setting> raw{};
};

namespace detail {

inline void check_raw(const cgroup_setting& setting) {
    const std::string_view key = setting.key;
    const auto refuse = [&](const char* why) { throw invalid_input("cgroup key", key, why); };
    if (!is_path_component(key) || key.find('.') == std::string_view::npos)
        refuse("It must be the name of a control file, like io.weight.");
    // The core's own files act on processes and groups: they are no limits but for these.
    if (key.starts_with("cgroup.") && !key.starts_with("cgroup.max."))
        refuse("It is not a limit; only cgroup.max.depth and cgroup.max.descendants are.");
    if (setting.value.empty() || setting.value.find('\0') != std::string::npos)
        throw invalid_input("value for " + setting.key, setting.value,
                            "It must not be empty and have no NUL byte in it.");
}

inline std::string cpu_max(const resource_limits& limits) {
    using namespace std::chrono_literals;
    const auto period = limits.cpu_period;
    if (period < 1ms || period > 1s)
        throw invalid_input("cpu period", std::to_string(period.count()) + " us",
                            "It must be from 1 ms to 1 s.");
    const double quota = std::round(limits.cpu->count() * static_cast<double>(period.count()));
    if (quota < 1000)
        throw invalid_input("cpu limit", std::to_string(limits.cpu->count()),
                            "It is less than 1 ms in each period: use a longer cpu_period.");
    return std::to_string(static_cast<std::uint64_t>(quota)) + ' ' + std::to_string(period.count());
}

/// "0-3,6": the form only; which processors there are is the kernel's to say.
inline void check_list(const char* key, std::string_view list) {
    for (const auto range : split(list, ',')) {
        const auto parts = split(range, '-');
        const auto first = parse_number<std::uint32_t>(parts.front());
        const auto last = parse_number<std::uint32_t>(parts.back());
        if (!first || !last || *first > *last || *last >= 8192 || parts.size() > 2)
            throw invalid_input(key, list, "It must be a list like 0-3,6, of numbers below 8192.");
    }
}

inline void add_cpu_settings(const resource_limits& limits, std::vector<cgroup_setting>& to) {
    if (const auto& burst = limits.cpu_burst) {
        if (!limits.cpu || burst->count() < 0)
            throw invalid_input("cpu.max.burst", std::to_string(burst->count()),
                                "It must not be negative, and takes a limit of cpu.");
        to.push_back({"cpu.max.burst", std::to_string(burst->count())});
    }
    if (limits.cpu_idle && limits.cpu_weight)
        throw invalid_input("cpu.idle", "", "A group that is idle has no weight.");
    if (limits.cpu_idle) to.push_back({"cpu.idle", *limits.cpu_idle ? "1" : "0"});
    const auto clamp = [&](const char* key, const std::optional<double>& percent) {
        if (!percent) return;
        if (!(*percent >= 0 && *percent <= 100))
            throw invalid_input(key, std::to_string(*percent), "It must be from 0 to 100.");
        const auto hundredths = static_cast<unsigned>(std::round(*percent * 100));
        const std::string fraction = std::to_string(100 + hundredths % 100).substr(1);
        to.push_back({key, std::to_string(hundredths / 100) + '.' + fraction});
    };
    clamp("cpu.uclamp.min", limits.cpu_uclamp_min);
    clamp("cpu.uclamp.max", limits.cpu_uclamp_max);
    const auto list = [&](const char* key, const std::optional<std::string>& value) {
        if (!value) return;
        check_list(key, *value);
        to.push_back({key, *value});
    };
    list("cpuset.cpus", limits.cpuset_cpus);
    list("cpuset.mems", limits.cpuset_mems);
}

}  // namespace detail

/// The control files for the limits, in the order in which they are written.
/// Errors: invalid_input for a value that no kernel would take, or that nothing could run with.
inline std::vector<cgroup_setting> settings_of(const resource_limits& limits) {
    std::vector<cgroup_setting> settings;
    const auto memory = [&](const char* key, const std::optional<bytes>& value,
                            std::uint64_t least) {
        if (!value) return;
        if (value->count < least)
            throw invalid_input(key, std::to_string(value->count),
                                "It is less than one page of memory: nothing can run with it.");
        settings.push_back({key, detail::amount_text(*value)});
    };
    constexpr std::uint64_t page = 4096;
    memory("memory.min", limits.memory_min, 0);
    memory("memory.low", limits.memory_low, 0);
    memory("memory.high", limits.memory_high, page);
    memory("memory.swap.high", limits.memory_swap_high, 0);
    memory("memory.zswap.max", limits.memory_zswap, 0);
    memory("memory.swap.max", limits.memory_swap, 0);
    memory("memory.max", limits.memory, page);
    if (limits.memory_oom_group)
        settings.push_back({"memory.oom.group", *limits.memory_oom_group ? "1" : "0"});
    if (limits.cpu) settings.push_back({"cpu.max", detail::cpu_max(limits)});
    if (limits.cpu_weight) {
        if (*limits.cpu_weight < 1 || *limits.cpu_weight > 10000)
            throw invalid_input("cpu.weight", std::to_string(*limits.cpu_weight),
                                "It must be from 1 to 10000.");
        settings.push_back({"cpu.weight", std::to_string(*limits.cpu_weight)});
    }
    detail::add_cpu_settings(limits, settings);
    detail::add_io_settings(limits.io, limits.io_weight, limits.io_latencies, settings);
    for (const hugetlb_limit& limit : limits.hugetlb)
        settings.push_back({detail::hugetlb_key(limit), detail::amount_text(limit.most)});
    if (limits.pids) {
        if (*limits.pids == 0)
            throw invalid_input("pids.max", "0", "It must be at least 1: nothing could start.");
        settings.push_back({"pids.max", std::to_string(*limits.pids)});
    }
    for (const cgroup_setting& setting : limits.raw) {
        detail::check_raw(setting);
        settings.push_back(setting);
    }
    return settings;
}

/// The controllers that these settings need.
inline controllers controllers_of(const std::vector<cgroup_setting>& settings) {
    controllers set = controllers::none;
    for (const cgroup_setting& setting : settings) set |= controller_of(setting.key);
    return set;
}

/// The controllers that the limits need. Errors: as settings_of().
inline controllers controllers_needed(const resource_limits& limits) {
    return controllers_of(settings_of(limits));
}

/// Writes the settings one by one. Errors: the first that the kernel refuses, with its key, value
/// and errno; those before it are in force.
inline void write_settings(const cgroup& group, const std::vector<cgroup_setting>& settings) {
    for (const cgroup_setting& setting : settings) group.write(setting.key, setting.value);
}

/// Writes the limits. Errors: invalid_input before anything is written; else as above.
inline void set_limits(const cgroup& group, const resource_limits& limits) {
    write_settings(group, settings_of(limits));
}

}  // namespace kumiki::inline v0
