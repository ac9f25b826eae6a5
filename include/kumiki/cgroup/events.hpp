// What happens to a group, as streams and awaitables: processes in it or none, frozen or not,
// memory limits met, processes killed for memory, forks refused. Nothing is polled by time.
//
// The event files are watched before they are first read, and read after each change: no change is
// lost between two waits, and what happened before the subscription is told first. The kernel tells
// of changes of one file at most every 10 ms; several become one event with a count. All groups of a
// scheduler share one inotify instance (monitor.hpp). Pressure is pressure.hpp's.
#pragma once

#include <algorithm>
#include <chrono>
#include <memory>
#include <utility>
#include <vector>

#include <kumiki/async/scheduler.hpp>
#include <kumiki/async/stream.hpp>
#include <kumiki/async/task.hpp>
#include <kumiki/async/timeout.hpp>
#include <kumiki/cgroup/cgroup.hpp>
#include <kumiki/cgroup/event_source.hpp>
#include <kumiki/cgroup/group_watch.hpp>

namespace kumiki::inline v0 {
namespace detail {

template <class = void>
inline stream<cgroup_event> events_of(std::unique_ptr<group_watch> watch) {
    std::vector<cgroup_event> news;
    while (watch->look(news)) {
        for (const cgroup_event& event : news) co_yield event;
        news.clear();
        co_await watch->change();
    }
    for (const cgroup_event& event : news) co_yield event;
}

template <class = void>
inline task<void> wait_for_state(std::unique_ptr<group_watch> watch,
                                 bool (group_watch::*state)() const noexcept, bool wanted) {
    std::vector<cgroup_event> news;
    while (watch->look(news) && ((*watch).*state)() != wanted) {
        news.clear();
        co_await watch->change();
    }
}
template <class = void>
inline std::unique_ptr<group_watch> watch_states(scheduler& io, const cgroup& group) {
    return std::make_unique<group_watch>(io, group, cgroup_event_files::state);
}

}  // namespace detail

/// What happens to the group from its creation on, until it is removed.
///
/// The first events tell of what has been: whether it is populated, and what was counted. Files that
/// the group does not have (a controller that is not enabled, an older kernel) tell nothing. The
/// group's handle need not stay. A consumer that is slow gets fewer events with higher counts.
///
/// `overflow` says that more happened to the groups of this scheduler than the kernel keeps
/// (fs.inotify.max_queued_events). Everything is read again then: no count is lost, but a state may
/// have changed and changed back unseen.
///
/// To be called, and destroyed, on the scheduler's thread.
/// Errors: ENOENT when the group has already been removed; EMFILE, ENOSPC of inotify, with the sysctl.
template <class = void>
inline stream<cgroup_event> watch_events(scheduler& io, const cgroup& group,
                                         cgroup_event_files files = cgroup_event_files::usual) {
    return detail::events_of(std::make_unique<detail::group_watch>(io, group, files));
}

/// Waits until no process is in the group or below it, or it is removed.
/// Errors: as watch_events().
template <class = void>
inline task<void> until_empty(scheduler& io, const cgroup& group) {
    return detail::wait_for_state(detail::watch_states(io, group),
                                  &detail::group_watch::is_populated, false);
}

/// Waits until there is a process in the group or below it, or it is removed.
/// Errors: as watch_events().
template <class = void>
inline task<void> until_populated(scheduler& io, const cgroup& group) {
    return detail::wait_for_state(detail::watch_states(io, group),
                                  &detail::group_watch::is_populated, true);
}

/// Waits until all processes of the group have stopped, after cgroup::freeze(), or it is removed.
/// Errors: as watch_events().
template <class = void>
inline task<void> until_frozen(scheduler& io, const cgroup& group) {
    return detail::wait_for_state(detail::watch_states(io, group), &detail::group_watch::is_frozen,
                                  true);
}

/// Waits until the group is frozen no more, after cgroup::thaw(), or it is removed.
/// Errors: as watch_events().
template <class = void>
inline task<void> until_thawed(scheduler& io, const cgroup& group) {
    return detail::wait_for_state(detail::watch_states(io, group), &detail::group_watch::is_frozen,
                                  false);
}

/// Kills what is in the group and removes it, as cgroup::destroy() does, without blocking.
/// Errors: EBUSY after `patience`, with the processes that are left.
template <class = void>
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
