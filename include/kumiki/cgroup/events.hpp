// What happens to a group, as streams and awaitables: processes in it or none, frozen or not,
// memory limits met, processes killed for memory, forks refused. Nothing is polled by time.
//
// cgroup.events, memory.events and pids.events are read before each wait, which returns at once when one has
// changed since it was read: no change is lost between two waits, and what happened before the
// subscription is told first. The kernel tells of changes of one file at most every 10 ms; several
// become one event with a count. Pressure is pressure.hpp's.
#pragma once

#include <poll.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <kumiki/async/scheduler.hpp>
#include <kumiki/async/stream.hpp>
#include <kumiki/async/task.hpp>
#include <kumiki/async/timeout.hpp>
#include <kumiki/cgroup/cgroup.hpp>
#include <kumiki/cgroup/stats.hpp>
#include <kumiki/cgroup/watch.hpp>
#include <kumiki/core/text.hpp>

namespace kumiki::inline v0 {

/// The kinds of what happens to a group or below it.
enum class cgroup_event_kind : std::uint8_t {
    populated,  ///< there are processes in it
    empty,  ///< the last process has ended
    frozen,  ///< all of its processes have stopped
    thawed,  ///< they go on
    memory_low,  ///< reclaimed from although under memory.low
    memory_high,  ///< slowed down at memory.high
    memory_max,  ///< memory.max was met
    oom,  ///< memory could not be had within the limit
    oom_kill,  ///< processes were killed for it
    oom_group_kill,  ///< the group was killed as a whole (5.17)
    pids_max,  ///< forks were refused by pids.max
};

/// One event: of the counted kinds, `count` is how many there were since the event before.
struct cgroup_event {
    cgroup_event_kind kind = cgroup_event_kind::empty;
    std::uint64_t count = 1;
    bool operator==(const cgroup_event&) const = default;
};

/// "oom_kill", as the enumerator is spelled.
constexpr std::string_view to_string(cgroup_event_kind kind) noexcept {
    constexpr std::string_view names[] = {"populated",  "empty",          "frozen",     "thawed",
                                          "memory_low", "memory_high",    "memory_max", "oom",
                                          "oom_kill",   "oom_group_kill", "pids_max"};
    return names[static_cast<std::size_t>(kind)];
}

namespace detail {

/// What is known of a group; each look at its files gives the events that lead to the new state.
class cgroup_event_source {
  public:
    /// Both texts are of one look, that of cgroup.events taken first: a process that is killed for
    /// memory is then told before the end of the last.
    std::vector<cgroup_event> look(std::string_view events, std::string_view memory_events,
                                   std::string_view pids_events = {}) {
        std::vector<cgroup_event> news;
        const auto counted = [&](cgroup_event_kind kind, std::uint64_t& before, std::uint64_t now) {
            if (now > before) news.push_back({kind, now - before});
            before = now;
        };
        const memory_event_counts now = parse_memory_events(memory_events);
        using enum cgroup_event_kind;
        counted(memory_low, memory_.low, now.low);
        counted(memory_high, memory_.high, now.high);
        counted(memory_max, memory_.max, now.max);
        counted(oom, memory_.oom, now.oom);
        counted(oom_kill, memory_.oom_kill, now.oom_kill);
        counted(oom_group_kill, memory_.oom_group_kill, now.oom_group_kill);
        counted(pids_max, pids_max_, flat_value(pids_events, "max").value_or(0));
        const bool is_frozen = flat_value(events, "frozen") == 1U;
        if (is_frozen != frozen_) news.push_back({is_frozen ? frozen : thawed});
        frozen_ = is_frozen;
        const bool is_populated = flat_value(events, "populated") == 1U;
        if (is_populated != populated_) news.push_back({is_populated ? populated : empty});
        populated_ = is_populated;
        return news;
    }

  private:
    std::optional<bool> populated_{};  // unknown: so the first look tells of it
    bool frozen_ = false;
    memory_event_counts memory_{};
    std::uint64_t pids_max_ = 0;
};

inline stream<cgroup_event> watch_group(scheduler& io, cgroup_watch watch) {
    cgroup_event_source source;
    while (const auto events = watch.events()) {
        const auto memory = watch.memory_events();
        const auto pids = watch.pids_events();
        const auto news =
            source.look(*events, memory.value_or(std::string()), pids.value_or(std::string()));
        for (const cgroup_event& event : news) co_yield event;
        co_await io.poll(watch.fd(), POLLIN);
    }
}

inline task<void> wait_for_state(scheduler& io, cgroup_watch watch, std::string_view key,
                                 std::uint64_t wanted) {
    for (;;) {
        const auto events = watch.events();
        if (!events || flat_value(*events, key) == wanted) co_return;
        co_await io.poll(watch.fd(), POLLIN);
    }
}

}  // namespace detail

/// Everything that happens to the group from its creation on, until it is removed.
///
/// The first events tell of what has been: whether it is populated, and what was counted. Without
/// the memory controller there are no events of memory. The group's handle need not stay.
/// Errors: ENOENT when the group has already been removed.
inline stream<cgroup_event> watch_events(scheduler& io, const cgroup& group) {
    return detail::watch_group(io, cgroup_watch(group));
}

/// Waits until no process is in the group or below it, or it is removed.
/// Errors: ENOENT when it has already been removed.
inline task<void> until_empty(scheduler& io, const cgroup& group) {
    return detail::wait_for_state(io, cgroup_watch(group), "populated", 0);
}

/// Waits until all processes of the group have stopped, after cgroup::freeze(), or it is removed.
/// Errors: ENOENT when it has already been removed.
inline task<void> until_frozen(scheduler& io, const cgroup& group) {
    return detail::wait_for_state(io, cgroup_watch(group), "frozen", 1);
}

/// Kills what is in the group and removes it, as cgroup::destroy() does, without blocking.
/// Errors: EBUSY after `patience`, with the processes that are left.
inline task<void> destroy_group(
    scheduler& io, cgroup group,
    std::chrono::milliseconds patience = std::chrono::milliseconds(2000)) {
    if (group.try_remove()) co_return;
    group.kill();
    const auto until = std::chrono::steady_clock::now() + patience;
    // A group can be busy for a moment longer than it is populated, and nothing tells of that.
    for (std::chrono::milliseconds pause(1);;
         pause = std::min(2 * pause, std::chrono::milliseconds(64))) {
        if (group.try_remove()) co_return;
        if (std::chrono::steady_clock::now() >= until) break;
        const bool emptied = co_await with_timeout(io, pause, until_empty(io, group));
        if (!emptied) continue;
        if (group.try_remove()) co_return;
        co_await io.sleep_for(pause);
    }
    group.remove(std::chrono::milliseconds(0));
}

}  // namespace kumiki::inline v0
