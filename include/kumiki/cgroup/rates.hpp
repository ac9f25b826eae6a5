// How quickly a group uses what it uses: two snapshots by the time between them, and a stream of
// that at an interval.
//
//   auto rates = watch_rates(io, group, 1s);
//   while (auto rate = co_await rates.next()) show(rate->cpu, rate->read_bytes);
//
// The one place here that wakes up by time: the kernel tells nobody that a counter has moved.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <kumiki/async/scheduler.hpp>
#include <kumiki/async/stream.hpp>
#include <kumiki/async/timeout.hpp>
#include <kumiki/cgroup/cgroup.hpp>
#include <kumiki/cgroup/group_watch.hpp>
#include <kumiki/cgroup/stats.hpp>
#include <kumiki/core/error.hpp>

namespace kumiki::inline v0 {

/// What was used in one interval. Rates are in a second; what is not counted is unset.
struct cgroup_rates {
    std::chrono::nanoseconds elapsed{};        ///< the measured time between the two snapshots
    std::optional<double> cpu{};  ///< processors in use: 1.0 is one of them, all the time
    std::optional<double> cpu_user{};
    std::optional<double> cpu_system{};
    std::optional<double>
        throttled_share{};  ///< of the periods of cpu.max, those cut short: 0 to 1
    std::optional<double> memory_growth{};  ///< bytes; negative when it shrinks
    std::optional<double> read_bytes{};  ///< of all devices together
    std::optional<double> written_bytes{};
    std::optional<double> reads{};
    std::optional<double> writes{};
    std::optional<double> cpu_pressure{};  ///< share of the time that some waited: 0 to 1
    std::optional<double> memory_pressure{};
    std::optional<double> io_pressure{};
    std::optional<std::uint64_t> forks_refused{};  ///< in the interval, not in a second
    std::optional<std::uint64_t> oom_kills{};  ///< as forks_refused
    cgroup_stats now{};  ///< the later snapshot
};

/// The rates between two snapshots of one group. A counter that ran backwards (its controller was
/// disabled meanwhile) counts as still.
inline cgroup_rates rates_between(const cgroup_stats& before, const cgroup_stats& after) {
    cgroup_rates rates{.elapsed = after.taken - before.taken, .now = after};
    const double seconds = std::chrono::duration<double>(rates.elapsed).count();
    if (!(seconds > 0)) return rates;
    const auto used = [&](const std::optional<std::chrono::microseconds>& from,
                          const std::optional<std::chrono::microseconds>& to) {
        if (!from || !to) return std::optional<double>();
        const std::chrono::duration<double> time = std::max(*to, *from) - *from;
        return std::optional(time.count() / seconds);
    };
    const auto counted = [](const std::optional<std::uint64_t>& from,
                            const std::optional<std::uint64_t>& to) {
        if (!from || !to) return std::optional<std::uint64_t>();
        return std::optional(*to > *from ? *to - *from : 0);
    };
    const auto waited = [&](const std::optional<pressure>& from,
                            const std::optional<pressure>& to) {
        if (!from || !to) return std::optional<double>();
        const auto share = used(from->some.total, to->some.total);
        return std::optional(std::min(*share, 1.0));
    };
    rates.cpu = used(before.cpu_usage, after.cpu_usage);
    rates.cpu_user = used(before.cpu_user, after.cpu_user);
    rates.cpu_system = used(before.cpu_system, after.cpu_system);
    const auto periods = counted(before.cpu_periods, after.cpu_periods);
    const auto cut = counted(before.cpu_throttled_periods, after.cpu_throttled_periods);
    if (periods && cut)
        rates.throttled_share =
            *periods == 0
                ? 0.0
                : std::min(static_cast<double>(*cut) / static_cast<double>(*periods), 1.0);
    if (before.memory_current && after.memory_current)
        rates.memory_growth = (static_cast<double>(after.memory_current->count) -
                               static_cast<double>(before.memory_current->count)) /
                              seconds;
    rates.cpu_pressure = waited(before.cpu_pressure, after.cpu_pressure);
    rates.memory_pressure = waited(before.memory_pressure, after.memory_pressure);
    rates.io_pressure = waited(before.io_pressure, after.io_pressure);
    rates.forks_refused = counted(before.pids_max_hits, after.pids_max_hits);
    if (before.memory_events && after.memory_events)
        rates.oom_kills = counted(before.memory_events->oom_kill, after.memory_events->oom_kill);
    if (after.io.empty()) return rates;
    // A device that was not there before has started from nothing.
    double sums[4] = {};
    for (const io_device_stat& to : after.io) {
        io_device_stat from{};
        for (const io_device_stat& known : before.io)
            if (known.device == to.device) from = known;
        const std::pair<std::uint64_t, std::uint64_t> moves[] = {
            {from.read.count, to.read.count},
            {from.written.count, to.written.count},
            {from.reads, to.reads},
            {from.writes, to.writes}};
        for (std::size_t i = 0; i < std::size(moves); ++i)
            if (moves[i].second > moves[i].first)
                sums[i] += static_cast<double>(moves[i].second - moves[i].first);
    }
    rates.read_bytes = sums[0] / seconds;
    rates.written_bytes = sums[1] / seconds;
    rates.reads = sums[2] / seconds;
    rates.writes = sums[3] / seconds;
    return rates;
}

namespace detail {

/// Waits until the group has been removed: true, or until `tick`: false.
template <class = void>
inline task<bool> until_removed(scheduler& io, group_watch& group,
                                std::chrono::steady_clock::time_point tick) {
    std::vector<cgroup_event> none;
    while (group.look(none)) {
        const auto left = tick - std::chrono::steady_clock::now();
        if (left.count() <= 0) co_return false;
        auto changed = co_await with_timeout(io, left, group.change());
        if (!changed) co_return false;
    }
    co_return true;
}

template <class = void>
inline stream<cgroup_rates> rates_of(scheduler& io, std::unique_ptr<group_watch> group,
                                     stats_reader reader, std::chrono::nanoseconds interval) {
    cgroup_stats before = reader.read();
    for (auto tick = before.taken + interval;; tick += interval) {
        // Ticks that passed while the consumer was busy are left out; those to come stay in step.
        const auto late = std::chrono::steady_clock::now() - tick;
        if (late > interval) tick += late / interval * interval;
        const bool removed = co_await until_removed(io, *group, tick);
        cgroup_stats after;
        if (removed || !reader.read(after)) co_return;
        cgroup_rates rates = rates_between(before, after);
        before = std::move(after);
        co_yield std::move(rates);
    }
}

}  // namespace detail

/// The group's rates, after each `interval`; the first after one. Ends when the group is removed.
///
/// The ticks are in step with the first next(): they do not drift by what a consumer takes, and
/// those that it is too late for are left out. Each value is by the time that has really passed.
/// Errors: invalid_input for an interval of nothing; otherwise as watch_events().
template <class = void>
inline stream<cgroup_rates> watch_rates(scheduler& io, const cgroup& group,
                                        std::chrono::nanoseconds interval,
                                        stat_parts parts = stat_parts::usual |
                                                           stat_parts::pressure) {
    if (interval.count() <= 0)
        throw invalid_input("interval", std::to_string(interval.count()) + " ns",
                            "It must be more than nothing.");
    auto watch = std::make_unique<detail::group_watch>(io, group, cgroup_event_files::none);
    return detail::rates_of(io, std::move(watch), stats_reader(group, parts), interval);
}

}  // namespace kumiki::inline v0
