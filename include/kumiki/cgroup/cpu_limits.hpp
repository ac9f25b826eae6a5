// The control files of cpu and cpuset: cpu.max, weight, nice, burst, idle, uclamp; cpuset.cpus, mems,
// partition.
//
// Internal (detail). Kernel: cpu 4.15, cpuset 5.0, uclamp 5.4, burst 5.14, idle 5.15. Sources:
// cgroup-v2.rst, sched-bwc.rst.
#pragma once

#include <chrono>
#include <cmath>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <kumiki/cgroup/resource_limits.hpp>
#include <kumiki/cgroup/setting.hpp>
#include <kumiki/core/error.hpp>
#include <kumiki/core/text.hpp>
#include <kumiki/core/units.hpp>

namespace kumiki::inline v0::detail {

inline std::string cpu_max(const resource_limits& limits) {
    using namespace std::chrono_literals;
    const auto period = limits.cpu_period;
    if (period < 1ms || period > 1s)
        throw invalid_input("cpu period", std::to_string(period.count()) + " us",
                            "It must be from 1 ms to 1 s.");
    if (*limits.cpu == cpus(no_limit)) return "max " + std::to_string(period.count());
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

/// "12.50", "max": a percentage with two digits, as the kernel prints it.
inline std::string percent_text(const char* key, double percent) {
    if (!(percent >= 0 && percent <= 100))
        throw invalid_input(key, std::to_string(percent), "It must be from 0 to 100.");
    if (percent == 100) return "max";
    const auto hundredths = static_cast<unsigned>(std::round(percent * 100));
    const std::string fraction = std::to_string(100 + hundredths % 100).substr(1);
    return std::to_string(hundredths / 100) + '.' + fraction;
}

inline void add_cpu_settings(const resource_limits& limits, std::vector<cgroup_setting>& to) {
    if (limits.cpu) to.push_back({"cpu.max", cpu_max(limits)});
    if (const auto& burst = limits.cpu_burst) {
        if (!limits.cpu || *limits.cpu == cpus(no_limit) || burst->count() < 0)
            throw invalid_input("cpu.max.burst", std::to_string(burst->count()),
                                "It must not be negative, and takes a limit of cpu.");
        to.push_back({"cpu.max.burst", std::to_string(burst->count())});
    }
    if (limits.cpu_idle.value_or(false) && (limits.cpu_weight || limits.cpu_nice))
        throw invalid_input("cpu.idle", "1", "A group that is idle has no weight.");
    if (limits.cpu_weight && limits.cpu_nice)
        throw invalid_input("cpu.weight.nice", std::to_string(*limits.cpu_nice),
                            "It sets cpu.weight, which is given too.");
    // Before the weight: a group that is idle takes none.
    if (limits.cpu_idle) to.push_back({"cpu.idle", *limits.cpu_idle ? "1" : "0"});
    if (limits.cpu_weight)
        to.push_back({"cpu.weight", weight_text("cpu.weight", *limits.cpu_weight)});
    if (limits.cpu_nice) {
        if (*limits.cpu_nice < -20 || *limits.cpu_nice > 19)
            throw invalid_input("cpu.weight.nice", std::to_string(*limits.cpu_nice),
                                "It must be from -20 to 19.");
        to.push_back({"cpu.weight.nice", std::to_string(*limits.cpu_nice)});
    }
    const auto& least = limits.cpu_uclamp_min;
    const auto& most = limits.cpu_uclamp_max;
    if (least) to.push_back({"cpu.uclamp.min", percent_text("cpu.uclamp.min", *least)});
    if (most) to.push_back({"cpu.uclamp.max", percent_text("cpu.uclamp.max", *most)});
}

inline void add_cpuset_settings(const resource_limits& limits, std::vector<cgroup_setting>& to) {
    const auto list = [&](const char* key, const std::optional<std::string>& value) {
        if (!value) return;
        check_list(key, *value);
        to.push_back({key, *value});
    };
    list("cpuset.cpus", limits.cpuset_cpus);
    list("cpuset.mems", limits.cpuset_mems);
    if (limits.cpuset_kind) {
        constexpr const char* names[] = {"member", "root", "isolated"};
        to.push_back(
            {"cpuset.cpus.partition", names[static_cast<std::size_t>(*limits.cpuset_kind)]});
    }
}

}  // namespace kumiki::inline v0::detail
