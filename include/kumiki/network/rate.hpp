// How often something may happen: a number in a time, and how much of it at once.
//
// Pure. In the kernel a token bucket (nft limit, Linux 4.3): it is full in the beginning.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

#include <kumiki/core/error.hpp>

namespace kumiki::inline v0 {

/// `count` in each `every`; of those that were not used, up to `burst` may come at once.
struct rate {
    std::uint32_t count = 1;
    std::chrono::seconds every{1};
    std::uint32_t burst = 1;  ///< at least 1

    constexpr bool operator==(const rate&) const = default;
};

/// As many at once as in a whole second.
constexpr rate per_second(std::uint32_t count) {
    return {.count = count, .every = std::chrono::seconds(1), .burst = count};
}
/// As many at once as in a whole minute.
constexpr rate per_minute(std::uint32_t count) {
    return {.count = count, .every = std::chrono::minutes(1), .burst = count};
}

/// "10 in 1 s, 10 at once".
inline std::string to_string(const rate& r) {
    return std::to_string(r.count) + " in " + std::to_string(r.every.count()) + " s, " +
           std::to_string(r.burst) + " at once";
}

/// Errors: invalid_input for a rate of nothing, in no time, or with no burst.
inline void require_valid(const rate& r) {
    if (r.count == 0 || r.every < std::chrono::seconds(1) || r.every > std::chrono::hours(24 * 7) ||
        r.burst == 0)
        throw invalid_input(
            "rate", to_string(r),
            "It must be at least 1, in a time of a second to a week, and at least 1 "
            "at once.");
}

}  // namespace kumiki::inline v0
