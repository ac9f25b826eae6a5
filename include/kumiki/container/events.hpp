// What happens to a container, as a stream that ends with it: OOM kills, limits that were met,
// frozen and thawed, the last process gone.
//
// They are its cgroup's events (cgroup/events.hpp): nothing polls by time, and what happened before
// the first look is told by it.
#pragma once

#include <utility>

#include <kumiki/async/scheduler.hpp>
#include <kumiki/async/stream.hpp>
#include <kumiki/cgroup/cgroup.hpp>
#include <kumiki/cgroup/events.hpp>

namespace kumiki::inline v0 {

using container_event = cgroup_event;

namespace detail {

/// The events of `from` up to the end of the last process; that is the last event.
template <class = void>
inline stream<container_event> until_the_end(stream<cgroup_event> from) {
    for (;;) {
        auto event = co_await from.next();
        if (!event) co_return;
        const bool last = event->kind == cgroup_event_kind::empty;
        co_yield *event;
        if (last) co_return;
    }
}

}  // namespace detail

/// The events of a container's group. Errors: ENOENT when the group has been removed.
template <class = void>
inline stream<container_event> container_events(scheduler& io, const cgroup& group) {
    return detail::until_the_end(watch_events(io, group));
}

}  // namespace kumiki::inline v0
