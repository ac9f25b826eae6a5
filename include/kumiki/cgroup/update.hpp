// Changing the limits of a group in use: all of them or none, and what became of them.
//
// The kernel rounds (memory to pages), and a group above may allow less: what is in force is read
// back and told. memory.max below what is in use makes the kernel kill: refused unless asked for.
#pragma once

#include <cerrno>
#include <cstdint>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <kumiki/cgroup/cgroup.hpp>
#include <kumiki/cgroup/limits.hpp>
#include <kumiki/core/error.hpp>
#include <kumiki/core/observer.hpp>
#include <kumiki/core/text.hpp>

namespace kumiki::inline v0 {

/// A limit that is not in force as it was asked for.
struct clipped_limit {
    std::string key{};
    std::string asked{};
    std::string in_force{};
    bool operator==(const clipped_limit&) const = default;
};

/// A limit is below what the group uses now. Nothing was changed.
class limit_below_use : public error {
  public:
    limit_below_use(const std::string& path, std::string_view key, std::uint64_t asked,
                    std::uint64_t used)
        : error(EBUSY, {.operation = "set " + std::string(key) + " of",
                        .object = path,
                        .remedy = std::to_string(asked) + " is asked for, " + std::to_string(used) +
                                  " are in use: the kernel would kill. Free some first "
                                  "(memory.high, reclaim()), or ask for below_use::allow."}),
          used_(used) {}
    /// What is in use.
    std::uint64_t used() const noexcept { return used_; }

  private:
    std::uint64_t used_;
};

/// What is done with a memory.max that is less than memory.current.
enum class below_use : std::uint8_t { refuse, allow };

namespace detail {

/// What undoes a setting: the text that is there now, of a key with devices that of the device.
inline std::optional<std::string> former_value(const cgroup& group, const cgroup_setting& setting) {
    const auto text = group.try_read(setting.key);
    if (!text) return std::nullopt;
    if (setting.key != "io.max" && setting.key != "io.latency") {
        const auto plain = trim(*text);
        return std::string(plain.starts_with("default ") ? plain.substr(0, plain.find('\n'))
                                                         : plain);
    }
    const std::string device = setting.value.substr(0, setting.value.find(' '));
    for (std::string_view rest = *text; const auto line = next_field(rest, '\n');)
        if (line->starts_with(device + ' ')) return std::string(*line);
    return device +
           (setting.key == "io.max" ? " rbps=max wbps=max riops=max wiops=max" : " target=0");
}

/// The numbers in "0-3,6".
inline std::set<std::uint32_t> numbers_of(std::string_view list) {
    std::set<std::uint32_t> numbers;
    for (const auto range : split(list, ',')) {
        const auto parts = split(range, '-');
        const auto first = parse_number<std::uint32_t>(parts.front());
        const auto last = parse_number<std::uint32_t>(parts.back());
        for (auto each = first.value_or(1); last && each <= *last && *last < 8192; ++each)
            numbers.insert(each);
    }
    return numbers;
}

/// True when the text of the control file says what was asked for.
inline bool is_in_force(const cgroup_setting& setting, std::string_view now) {
    if (setting.key.starts_with("cpuset."))
        return now == setting.value || numbers_of(now) == numbers_of(setting.value);
    if (setting.key != "io.max" && setting.key != "io.latency")
        return now == setting.value || now == "default " + setting.value;
    const auto fields = split(now, ' ');
    for (const auto asked : split(setting.value, ' ')) {
        bool is_there = false;
        for (const auto field : fields) is_there = is_there || field == asked;
        // A device without any limit left has no line.
        if (!is_there && !asked.ends_with("=max") && !asked.ends_with("=0")) return false;
    }
    return true;
}

}  // namespace detail

/// Which of the settings are in force otherwise than they were asked for: rounded, or changed by
/// somebody. A processor list is compared with cpuset.cpus.effective.
inline std::vector<clipped_limit> clipped_limits(const cgroup& group,
                                                 const std::vector<cgroup_setting>& settings) {
    std::vector<clipped_limit> clipped;
    for (const cgroup_setting& setting : settings) {
        cgroup_setting shown = setting;
        if (setting.key == "cpuset.cpus" || setting.key == "cpuset.mems") shown.key += ".effective";
        const auto now = detail::former_value(group, shown);
        if (!now || !detail::is_in_force(setting, *now))
            clipped.push_back({setting.key, setting.value, now.value_or("")});
    }
    return clipped;
}

/// Changes the limits of a group, all or none: when one is refused, those before it are put back.
/// Returns those that the kernel rounded or clipped.
///
/// Errors: invalid_input and limit_below_use before anything is written; else the key, value and
/// errno of the one that was refused.
inline std::vector<clipped_limit> update_limits(const cgroup& group, const resource_limits& limits,
                                                below_use policy = below_use::refuse) {
    const auto settings = settings_of(limits);
    if (limits.memory && policy == below_use::refuse) {
        const auto text = group.try_read("memory.current");
        const auto used = text ? parse_number<std::uint64_t>(trim(*text)) : std::nullopt;
        if (used && *used > limits.memory->count)
            throw limit_below_use(group.path(), "memory.max", limits.memory->count, *used);
    }
    std::vector<cgroup_setting> undo;
    try {
        for (const cgroup_setting& setting : settings) {
            auto former = detail::former_value(group, setting);
            group.write(setting.key, setting.value);
            // An empty list of processors is written as a line without anything.
            if (former) undo.push_back({setting.key, former->empty() ? "\n" : std::move(*former)});
        }
    } catch (...) {
        for (auto each = undo.rbegin(); each != undo.rend(); ++each)
            detail::release_quietly([&] { group.write(each->key, each->value); });
        throw;
    }
    return clipped_limits(group, settings);
}

/// Asks the kernel to take memory back from the group now; false when it found less than that.
/// Kernel: 5.19 (memory.reclaim). Errors: ENOENT before, and without the memory controller.
inline bool reclaim(const cgroup& group, bytes amount) {
    try {
        group.write("memory.reclaim", std::to_string(amount.count));
        return true;
    } catch (const error& failure) {
        if (failure.errno_value() == EAGAIN) return false;
        throw;
    }
}

}  // namespace kumiki::inline v0
