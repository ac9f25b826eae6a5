// Resource limits: the control files that they stand for, and writing them.
//
// Every controller of the kernel is typed (resource_limits.hpp); whatever else there is goes as a
// raw key ({"io.bfq.weight", "10"}), checked for its form only. What a value was rounded to is told by
// clipped.hpp.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <kumiki/cgroup/cgroup.hpp>
#include <kumiki/cgroup/controller.hpp>
#include <kumiki/cgroup/cpu_limits.hpp>
#include <kumiki/cgroup/io_limits.hpp>
#include <kumiki/cgroup/named_limits.hpp>
#include <kumiki/cgroup/resource_limits.hpp>
#include <kumiki/cgroup/setting.hpp>
#include <kumiki/core/error.hpp>
#include <kumiki/core/text.hpp>
#include <kumiki/core/units.hpp>

namespace kumiki::inline v0 {

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

inline void add_memory_settings(const resource_limits& limits, std::vector<cgroup_setting>& to) {
    const auto amount = [&](const char* key, const std::optional<bytes>& value,
                            std::uint64_t least) {
        if (!value) return;
        if (value->count < least)
            throw invalid_input(key, std::to_string(value->count),
                                "It is less than one page of memory: nothing can run with it.");
        to.push_back({key, amount_text(*value)});
    };
    const auto flag = [&](const char* key, const std::optional<bool>& value) {
        if (value) to.push_back({key, *value ? "1" : "0"});
    };
    constexpr std::uint64_t page = 4096;
    amount("memory.min", limits.memory_min, 0);
    amount("memory.low", limits.memory_low, 0);
    amount("memory.high", limits.memory_high, page);
    amount("memory.swap.high", limits.memory_swap_high, 0);
    amount("memory.zswap.max", limits.memory_zswap, 0);
    flag("memory.zswap.writeback", limits.memory_zswap_writeback);
    amount("memory.swap.max", limits.memory_swap, 0);
    amount("memory.max", limits.memory, page);
    flag("memory.oom.group", limits.memory_oom_group);
}

}  // namespace detail

/// The control files for the limits, in the order in which they are written.
/// Errors: invalid_input for a value that no kernel would take, or that nothing could run with.
inline std::vector<cgroup_setting> settings_of(const resource_limits& limits) {
    std::vector<cgroup_setting> settings;
    detail::add_memory_settings(limits, settings);
    detail::add_cpu_settings(limits, settings);
    detail::add_cpuset_settings(limits, settings);
    detail::add_io_max_settings(limits.io, settings);
    detail::add_io_share_settings(limits.io_weight, limits.io_device_weights, limits.io_latencies,
                                  limits.io_priority, settings);
    detail::add_hugetlb_settings(limits.hugetlb, settings);
    if (limits.pids) {
        if (*limits.pids == 0)
            throw invalid_input("pids.max", "0", "It must be at least 1: nothing could start.");
        settings.push_back({"pids.max", detail::count_text(*limits.pids)});
    }
    detail::add_rdma_settings(limits.rdma, settings);
    detail::add_misc_settings(limits.misc, settings);
    detail::add_dmem_settings(limits.dmem, settings);
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

/// Writes the settings one by one. Errors: the first that the kernel refuses, as cgroup::write();
/// those before it are in force.
inline void write_settings(const cgroup& group, const std::vector<cgroup_setting>& settings) {
    for (const cgroup_setting& setting : settings) group.write(setting.key, setting.value);
}

/// Writes the limits. Errors: invalid_input before anything is written; else as above.
inline void set_limits(const cgroup& group, const resource_limits& limits) {
    write_settings(group, settings_of(limits));
}

}  // namespace kumiki::inline v0
