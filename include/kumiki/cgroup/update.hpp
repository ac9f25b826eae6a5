// Changing the limits of a group in use: all of them or none, and what became of them.
//
// What the kernel rounded, and what a group above holds lower, is told (clipped.hpp). memory.max below
// what is in use makes the kernel kill: refused unless asked for.
#pragma once

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <kumiki/cgroup/cgroup.hpp>
#include <kumiki/cgroup/clipped.hpp>
#include <kumiki/cgroup/limits.hpp>
#include <kumiki/cgroup/setting.hpp>
#include <kumiki/core/error.hpp>
#include <kumiki/core/observer.hpp>
#include <kumiki/core/text.hpp>

namespace kumiki::inline v0 {

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

/// What puts a setting back, in the order in which it is written; nothing when there is no such
/// file. A share that was set by its nice value or lost to cpu.idle is put back as a weight.
inline std::vector<cgroup_setting> undo_of(const cgroup& group, const cgroup_setting& setting) {
    const bool is_nice = setting.key == "cpu.weight.nice";
    const std::string key = is_nice ? "cpu.weight" : setting.key;
    auto former = value_now(group, key, std::string(subject_of(setting)));
    if (!former) return {};
    // The kernel's reason stands behind it: "root invalid (...)".
    if (key == "cpuset.cpus.partition") former->resize(std::min(former->find(' '), former->size()));
    // An empty list of processors is written as a line without anything; an idle group's weight
    // cannot be written.
    if (former->empty()) former = "\n";
    if (key == "cpu.weight" && former == "0") return {};
    std::vector<cgroup_setting> undo{{key, std::move(*former)}};
    if (key == "cpu.idle" && undo.front().value == "0")
        for (auto& weight : undo_of(group, {"cpu.weight", ""})) undo.push_back(std::move(weight));
    return undo;
}

}  // namespace detail

/// Changes the limits of a group, all or none: when one is refused, those before it are put back.
/// Returns those that the kernel rounded or clipped.
///
/// Errors: invalid_input and limit_below_use before anything is written; then limit_refused with the
/// key and value; controller_missing when somebody has disabled a controller that is in use, whose
/// other limits of the group are gone with it; cgroup_gone.
inline std::vector<clipped_limit> update_limits(const cgroup& group, const resource_limits& limits,
                                                below_use policy = below_use::refuse) {
    const auto settings = settings_of(limits);
    if (limits.memory && policy == below_use::refuse) {
        const auto text = group.try_read("memory.current");
        const auto used = text ? parse_number<std::uint64_t>(trim(*text)) : std::nullopt;
        if (used && *used > limits.memory->count)
            throw limit_below_use(group.path(), "memory.max", limits.memory->count, *used);
    }
    std::vector<std::vector<cgroup_setting>> undo;
    try {
        for (const cgroup_setting& setting : settings) {
            auto former = detail::undo_of(group, setting);
            group.write(setting.key, setting.value);
            undo.push_back(std::move(former));
        }
    } catch (...) {
        for (auto each = undo.rbegin(); each != undo.rend(); ++each)
            detail::release_quietly([&] { write_settings(group, *each); });
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
