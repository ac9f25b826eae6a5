// Whether a run is slower than an earlier one, by the samples of both: medians, their ratio, and a
// bootstrap interval of it.
//
// Two runs meet different weather. Where both have measured a floor beside kumiki, what is compared
// is how many times its floor each was, so what slows all of a run down cancels. A change counts when
// all of the interval lies beyond `margin`: the noise of one run is in the interval, that between two
// runs is what the margin is for. Compared are the series with "kumiki" in their names.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <map>
#include <optional>
#include <random>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>

#include "statistics.hpp"

namespace bench {

/// Samples by where they stand in a file: "starts / kumiki / first". Less is better in all: "samples"
/// are times, and "rates", of which more is better, stand as their inverses: "... / kumiki, inverse".
using all_series = std::map<std::string, std::vector<double>>;

namespace detail {

inline void collect_series(const nlohmann::json& from, const std::string& at, all_series& to) {
    if (!from.is_object()) return;
    for (const auto& [key, value] : from.items()) {
        if (key.starts_with("samples") && value.is_array())
            to[at] = value.get<std::vector<double>>();
        else if (key == "rates" && value.is_array())
            std::ranges::transform(value.get<std::vector<double>>(),
                                   std::back_inserter(to[at + ", inverse"]),
                                   [](double rate) { return 1 / rate; });
        else
            collect_series(value, at.empty() ? key : at + " / " + key, to);
    }
}

/// The median of as many samples as there are, drawn at `places` of the rounds.
inline double median_at(std::span<const double> samples, std::span<const std::size_t> places,
                        std::vector<double>& room) {
    room.clear();
    for (const std::size_t place : places) room.push_back(samples[place]);
    return median_of(room);
}

}  // namespace detail

/// All series of a file that a suite has written with --json.
inline all_series series_in(const nlohmann::json& file) {
    all_series found;
    detail::collect_series(file, "", found);
    return found;
}

/// What one run has measured of one thing, and of its floor in the same rounds; that may be empty.
struct measured {
    std::span<const double> samples;
    std::span<const double> floor{};
};

/// How many times `before` `after` is: the ratio of medians, each over that of its floor where both
/// have one. The interval, 99 % wide for there are many series in a file, draws whole rounds of each
/// run. The seed is fixed.
inline ratio ratio_between_runs(measured before, measured after, std::size_t draws = 2000) {
    const bool relative = !before.floor.empty() && !after.floor.empty();
    const auto rounds_of = [&](const measured& run) {
        return relative ? std::min(run.samples.size(), run.floor.size()) : run.samples.size();
    };
    if (rounds_of(before) == 0 || rounds_of(after) == 0) return {};
    std::mt19937_64 random(0x6b756d696b69);
    std::vector<std::size_t> places;
    std::vector<double> room;
    const auto value_at = [&](const measured& run) {
        const double value = detail::median_at(run.samples, places, room);
        return relative ? value / detail::median_at(run.floor, places, room) : value;
    };
    const auto value_of = [&](const measured& run) {
        places.resize(rounds_of(run));
        for (std::size_t i = 0; i < places.size(); ++i) places[i] = i;
        return value_at(run);
    };
    const auto draw = [&](const measured& run) {
        places.resize(rounds_of(run));
        std::uniform_int_distribution<std::size_t> any(0, places.size() - 1);
        for (std::size_t& place : places) place = any(random);
        return value_at(run);
    };
    std::vector<double> drawn(draws);
    for (double& each : drawn) {
        const double above = draw(after);
        each = above / draw(before);
    }
    std::ranges::sort(drawn);
    const double above = value_of(after);
    return {.value = above / value_of(before),
            .low = quantile(drawn, 0.005),
            .high = quantile(drawn, 0.995)};
}

enum class verdict : std::uint8_t { same, faster, slower, too_few_samples };

/// Of fewer, all of one run lie beyond all of the other by chance more often than the interval says:
/// five do once in 252 times.
inline constexpr std::size_t least_samples = 5;

/// What has become of one series.
struct change {
    std::string name;
    ratio times;  ///< the new over the old
    bool relative = false;  ///< to its floor
    verdict is = verdict::same;
};

/// The floor of a series of kumiki's: that of the same name with "bare" or "raw" in its place.
inline std::optional<std::string> floor_of(const std::string& name, const all_series& in) {
    constexpr std::string_view ours = "kumiki";
    const auto at = name.find(ours);
    if (at == std::string::npos) return std::nullopt;
    for (const char* floor : {"bare", "raw"}) {
        std::string other = name;
        other.replace(at, ours.size(), floor);
        if (in.contains(other)) return other;
    }
    return std::nullopt;
}

inline verdict judge(const ratio& times, double margin) {
    if (times.low > 1 + margin) return verdict::slower;
    if (times.high != 0 && times.high < 1 / (1 + margin)) return verdict::faster;
    return verdict::same;
}

/// Every series of kumiki's that both files have.
inline std::vector<change> compare(const all_series& before, const all_series& after,
                                   double margin) {
    std::vector<change> changes;
    for (const auto& [name, samples] : after) {
        const auto old = before.find(name);
        if (old == before.end() || name.find("kumiki") == std::string::npos) continue;
        measured was{.samples = old->second};
        measured is{.samples = samples};
        const auto floor = floor_of(name, after);
        const bool relative = floor && before.contains(*floor);
        if (relative) {
            was.floor = before.at(*floor);
            is.floor = after.at(*floor);
        }
        const ratio times = ratio_between_runs(was, is);
        const bool are_enough = std::min(old->second.size(), samples.size()) >= least_samples;
        changes.push_back({.name = name,
                           .times = times,
                           .relative = relative,
                           .is = are_enough ? judge(times, margin) : verdict::too_few_samples});
    }
    return changes;
}

}  // namespace bench
