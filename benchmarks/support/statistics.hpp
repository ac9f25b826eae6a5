// What may be said of two noisy series: medians, quartiles, minima, and the ratio of two medians
// with a bootstrap interval.
//
// The series of one run are interleaved, so the n-th sample of each met the same weather: the
// bootstrap draws whole rounds, and what slowed all of a round down cancels in the ratio. An
// interval that holds 1 is "no difference shown", whatever the medians say.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <random>
#include <span>
#include <vector>

namespace bench {

/// Order statistics of one series, in the unit of its samples. All zero for an empty series.
struct summary {
    double min = 0;
    double lower_quartile = 0;
    double median = 0;
    double upper_quartile = 0;
    std::size_t count = 0;
};

/// The value at fraction `q` (0 to 1) of sorted, non-empty samples, interpolated between neighbours.
inline double quantile(std::span<const double> sorted, double q) {
    const double at = q * static_cast<double>(sorted.size() - 1);
    const auto below = static_cast<std::size_t>(at);
    const auto above = std::min(below + 1, sorted.size() - 1);
    const double share = at - std::floor(at);
    return sorted[below] * (1 - share) + sorted[above] * share;
}

inline summary summarise(std::span<const double> samples) {
    if (samples.empty()) return {};
    std::vector<double> sorted(samples.begin(), samples.end());
    std::ranges::sort(sorted);
    return {.min = sorted.front(),
            .lower_quartile = quantile(sorted, 0.25),
            .median = quantile(sorted, 0.5),
            .upper_quartile = quantile(sorted, 0.75),
            .count = sorted.size()};
}

/// The median by selection: what the bootstrap calls thousands of times. Reorders `samples`.
inline double median_of(std::vector<double>& samples) {
    const auto half = samples.size() / 2;
    const auto middle = samples.begin() + static_cast<std::ptrdiff_t>(half);
    std::nth_element(samples.begin(), middle, samples.end());
    if (samples.size() % 2 == 1) return *middle;
    return (*middle + *std::max_element(samples.begin(), middle)) / 2;
}

/// A ratio of medians with its 95 % interval.
struct ratio {
    double value = 0;
    double low = 0;
    double high = 0;

    /// False when the noise covers the difference.
    bool differs() const noexcept { return low > 1 || high < 1; }
};

/// median(a) / median(b), of two series of the same rounds; the interval by `draws` resamplings.
/// The seed is fixed: the same samples give the same interval.
inline ratio ratio_of_medians(std::span<const double> a, std::span<const double> b,
                              std::size_t draws = 2000) {
    const std::size_t rounds = std::min(a.size(), b.size());
    if (rounds == 0) return {};
    std::mt19937_64 random(0x6b756d696b69);
    std::uniform_int_distribution<std::size_t> any(0, rounds - 1);
    std::vector<double> left(rounds);
    std::vector<double> right(rounds);
    std::vector<double> ratios(draws);
    for (double& drawn : ratios) {
        for (std::size_t i = 0; i < rounds; ++i) {
            const std::size_t round = any(random);
            left[i] = a[round];
            right[i] = b[round];
        }
        drawn = median_of(left) / median_of(right);
    }
    std::ranges::sort(ratios);
    return {.value = summarise(a.first(rounds)).median / summarise(b.first(rounds)).median,
            .low = quantile(ratios, 0.025),
            .high = quantile(ratios, 0.975)};
}

}  // namespace bench
