// Ten thousand groups watched by one thread: what each takes, and that nothing runs while nothing happens.
#pragma once

#include <malloc.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <exception>
#include <string>
#include <thread>
#include <vector>

#include <kumiki/async/scheduler.hpp>
#include <kumiki/async/when.hpp>
#include <kumiki/cgroup/events.hpp>
#include <kumiki/core/text.hpp>

#include "cgroup/place.hpp"

namespace bench {

struct many_result {
    std::size_t groups = 0;
    double descriptors_each = 0;  ///< its handle included
    double heap_each = 0;  ///< bytes
    double seconds = 0;
    std::uint64_t switches = 0;  ///< voluntary context switches of the thread in that time
    std::uint64_t runs = 0;  ///< how often the scheduler gave it a processor
    std::uint64_t processor_ns = 0;
    std::size_t told = 0;  ///< of the groups that were frozen then, at once
    std::size_t caused = 0;
};

/// The number behind `key` in /proc/self/task/TID/`file`; without a key the field at `index`.
inline std::uint64_t of_thread(pid_t thread, const char* file, std::string_view key,
                               std::size_t index = 0) {
    const std::string text =
        sys::read_file_at(AT_FDCWD, "/proc/self/task/" + std::to_string(thread) + "/" + file);
    if (key.empty()) {
        const auto fields = kumiki::split(kumiki::trim(text), ' ');
        return kumiki::require_number<std::uint64_t>(file, fields.at(index));
    }
    for (std::string_view rest = text; const auto line = kumiki::next_field(rest, '\n');)
        if (line->starts_with(key))
            return kumiki::require_number<std::uint64_t>(file,
                                                         kumiki::trim(line->substr(key.size())));
    return 0;
}

inline std::size_t open_descriptors() {
    std::size_t count = 0;
    for ([[maybe_unused]] const auto& each : fs::directory_iterator("/proc/self/fd")) ++count;
    return count - 1;  // of the listing
}

inline std::size_t heap_in_use() {
    const auto info = ::mallinfo2();
    return info.uordblks + info.hblkhd;
}

inline kumiki::task<void> count_frozen(kumiki::scheduler& io, const kumiki::cgroup& group,
                                       std::atomic<std::size_t>& ready,
                                       std::atomic<std::size_t>& told) {
    auto events = kumiki::watch_events(io, group);
    for (;;) {
        auto event = co_await events.next();
        if (!event) co_return;
        if (event->kind == kumiki::cgroup_event_kind::empty) ++ready;
        if (event->kind == kumiki::cgroup_event_kind::frozen) ++told;
    }
}

inline kumiki::task<void> count_all(kumiki::scheduler& io,
                                    const std::vector<kumiki::cgroup>& groups,
                                    std::atomic<std::size_t>& ready,
                                    std::atomic<std::size_t>& told) {
    std::vector<kumiki::task<void>> tasks;
    for (const auto& group : groups) tasks.push_back(count_frozen(io, group, ready, told));
    co_await kumiki::when_all(std::move(tasks));
}

/// How many descriptors this process may have, raised as far as it goes.
inline std::size_t raise_descriptor_limit(std::size_t wanted) {
    rlimit limit{};
    ::getrlimit(RLIMIT_NOFILE, &limit);
    const rlimit more{std::max<rlim_t>(wanted, limit.rlim_cur),
                      std::max<rlim_t>(wanted, limit.rlim_max)};
    if (::setrlimit(RLIMIT_NOFILE, &more) != 0) {
        limit.rlim_cur = limit.rlim_max;
        ::setrlimit(RLIMIT_NOFILE, &limit);
    }
    ::getrlimit(RLIMIT_NOFILE, &limit);
    return limit.rlim_cur;
}

/// Waits for at most a minute.
template <class Condition>
bool soon(Condition condition) {
    for (int i = 0; i < 60'000 && interrupted == 0; ++i) {
        if (condition()) return true;
        const timespec pause{.tv_sec = 0, .tv_nsec = 1'000'000};
        ::nanosleep(&pause, nullptr);
    }
    return condition();
}

/// Watches up to `wanted` groups of `parent`, as many as there are descriptors for.
inline many_result watch_many(const kumiki::cgroup& parent, std::size_t wanted, double seconds) {
    constexpr std::size_t reserve = 64;
    // A group that is watched takes no descriptor: its handle has one.
    const std::size_t limit = raise_descriptor_limit(wanted + 2 * reserve);
    many_result result{.seconds = seconds};
    std::vector<kumiki::cgroup> groups;
    groups.reserve(wanted);
    const std::size_t descriptors_before = open_descriptors();
    wanted = std::min(wanted, limit - descriptors_before - reserve);
    while (groups.size() < wanted && interrupted == 0)
        groups.push_back(kumiki::cgroup::create(parent, "many-" + std::to_string(groups.size())));
    result.groups = groups.size();

    std::atomic<std::size_t> ready{0};
    std::atomic<std::size_t> told{0};
    std::atomic<pid_t> thread_id{0};
    std::exception_ptr failure;
    const std::size_t heap_before = heap_in_use();
    std::thread thread([&] {
        try {
            thread_id = ::gettid();
            kumiki::scheduler io;
            io.run(count_all(io, groups, ready, told));
        } catch (...) {
            failure = std::current_exception();
            ready = groups.size();
        }
    });
    try {
        if (soon([&] { return ready == groups.size(); }) && !failure) {
            const timespec pause{.tv_sec = 0, .tv_nsec = 500'000'000};
            ::nanosleep(&pause, nullptr);
            result.descriptors_each = static_cast<double>(open_descriptors() - descriptors_before) /
                                      static_cast<double>(groups.size());
            result.heap_each =
                (static_cast<double>(heap_in_use()) - static_cast<double>(heap_before)) /
                static_cast<double>(groups.size());
            const auto counters = [&] {
                return std::array{of_thread(thread_id, "status", "voluntary_ctxt_switches:"),
                                  of_thread(thread_id, "schedstat", "", 2),
                                  of_thread(thread_id, "schedstat", "", 0)};
            };
            const auto before = counters();
            const auto whole = static_cast<time_t>(seconds);
            const timespec idle{.tv_sec = whole, .tv_nsec = 0};
            ::nanosleep(&idle, nullptr);
            const auto after = counters();
            result.switches = after[0] - before[0];
            result.runs = after[1] - before[1];
            result.processor_ns = after[2] - before[2];
            // They are awake nevertheless.
            for (std::size_t i = 0; i < groups.size(); i += 100, ++result.caused)
                groups[i].freeze();
            soon([&] { return told == result.caused; });
            result.told = told;
        }
    } catch (...) {
        if (!failure) failure = std::current_exception();
    }
    for (auto& group : groups) kumiki::detail::release_quietly([&] { group.destroy(); });
    thread.join();
    if (failure) std::rethrow_exception(failure);
    return result;
}

}  // namespace bench
