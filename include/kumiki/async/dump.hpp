// What a scheduler is doing: its counters, and a text that says what each task waits for.
//
// A task is named by named("...", task) or by scope::spawn; a line names it and those above it that
// wait for it, innermost first. For people: the text's form may change, the counters' meaning not.
// Costs nothing until it is asked for. Source of the positions: std::source_location.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include <kumiki/async/event_loop.hpp>

namespace kumiki::inline v0 {

/// What a scheduler has done since it was made. An operation is whatever can be awaited: of the
/// kernel, a timer, a lock, an offloaded call.
struct scheduler_counters {
    std::uint64_t submitted = 0;  ///< operations that were begun
    std::uint64_t completed = 0;  ///< of these, those that are over, however they ended
    std::uint64_t cancelled = 0;  ///< of these, those that were ended by a stop
    std::uint64_t overflowed = 0;  ///< times that completions did not fit into the ring
    std::uint64_t resumed = 0;  ///< times that a coroutine was resumed
    std::uint64_t sleeps = 0;  ///< times that the thread waited in the kernel
    std::size_t in_flight = 0;  ///< operations that are not over
};

namespace detail {

inline scheduler_counters count(const event_loop& loop) noexcept {
    return {.submitted = loop.started,
            .completed = loop.finished,
            .cancelled = loop.cancelled,
            .overflowed = loop.overflowed,
            .resumed = loop.ready.resumed(),
            .sleeps = loop.waits,
            .in_flight = loop.operations.size()};
}

/// The names of a task and of those that wait for it: "reply < connection < server".
inline std::string name_of(const promise_base* task) {
    std::string names;
    while (task != nullptr) {
        if (task->name != nullptr) names.append(names.empty() ? "" : " < ").append(task->name);
        task = task->observer != nullptr ? task->observer->awaiting() : task->continuation;
    }
    return names.empty() ? "(unnamed)" : names;
}

inline void describe(std::string& text, const operation& of) {
    text.append(name_of(of.waiter())).append(": ").append(of.what());
    if (of.descriptor() >= 0) text.append(" on ").append(std::to_string(of.descriptor()));
    std::string_view file = of.where().file_name();
    file.remove_prefix(file.rfind('/') + 1);  // npos + 1 is 0
    text.append(" (").append(file).append(":").append(std::to_string(of.where().line()));
    text.append(of.cancel_requested() ? ", being cancelled)\n" : ")\n");
}

inline std::string dump(const event_loop& loop) {
    const scheduler_counters counted = count(loop);
    std::string text = "scheduler on ";
    const auto add = [&text](std::uint64_t number, const char* unit) {
        text.append(", ").append(std::to_string(number)).append(unit);
    };
    text.append(to_string(loop.kind()));
    add(counted.in_flight, " in flight");
    add(counted.submitted, " submitted");
    add(counted.completed, " completed");
    add(counted.cancelled, " cancelled");
    add(counted.overflowed, " overflowed");
    text.append("\n");
    loop.operations.for_each([&text](const operation& of) { describe(text, of); });
    loop.ready.for_each(
        [&text](const promise_base& task) { text.append(name_of(&task)).append(": ready\n"); });
    return text;
}

}  // namespace detail
}  // namespace kumiki::inline v0
