// What each step of one start took, kumiki's spans and the floor's steps, and the medians of many.
#pragma once

#include <functional>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "floor.hpp"
#include "ours.hpp"
#include "statistics.hpp"

namespace bench {

/// By the names of the steps: microseconds.
using durations = std::map<std::string, double, std::less<>>;

inline durations durations_of(const kumiki_start& ours, const sample& whole) {
    durations all;
    for (const kumiki::timeline_span& span : ours.line().spans()) {
        const bool child = span.track == kumiki::timeline_track::child;
        all[std::string(child ? "child: " : "supervisor: ") + span.name] =
            static_cast<double>(span.end - span.begin) / 1000;
    }
    all["end"] = whole.released - whole.first;
    all["all"] = whole.released;
    return all;
}
inline durations durations_of(const floor_start& floor, const sample& whole) {
    durations all;
    const steps& stamps = floor.stamps();
    for (std::size_t i = 0; i + 1 < stamps.count; ++i)
        all[stamps.stamps[i].name] =
            static_cast<double>(stamps.stamps[i + 1].at - stamps.stamps[i].at) / 1000;
    all["all"] = whole.released;
    return all;
}

/// The median of each step that the starts have.
inline durations medians_of(std::span<const durations> starts) {
    std::map<std::string, std::vector<double>, std::less<>> samples;
    for (const durations& start : starts)
        for (const auto& [name, took] : start) samples[name].push_back(took);
    durations medians;
    for (const auto& [name, all] : samples) medians[name] = summarise(all).median;
    return medians;
}

}  // namespace bench
