// How the kernel schedules and runs a container's process: policy and priority of its processor
// time and of its I/O, the processors that it may use, its personality.
//
// All of them are inherited by what the process starts. How much a container gets as a whole is its
// cgroup's (cgroup/limits.hpp). Sources: sched(7), ioprio_set(2), sched_setaffinity(2),
// personality(2). Kernel: 3.14 (sched_setattr).
#pragma once

#include <array>
#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include <kumiki/core/error.hpp>
#include <kumiki/core/flags.hpp>

namespace kumiki::inline v0 {

/// The kernel's scheduling policies, by its numbers.
enum class scheduling_policy : std::uint8_t {
    other = 0,  ///< the usual one
    fifo = 1,  ///< real-time, until it gives way
    round_robin = 2,  ///< real-time, in turn with others of its priority
    batch = 3,
    idle = 5,
    deadline = 6,  ///< `runtime` in each `period`, before `deadline`
};

/// A policy and what belongs to it. Real-time ones and `deadline` need CAP_SYS_NICE.
struct scheduling {
    scheduling_policy policy = scheduling_policy::other;
    unsigned priority = 0;  ///< fifo and round_robin: 1 to 99; else 0
    std::chrono::nanoseconds runtime{0};  ///< deadline only, as are the next two
    std::chrono::nanoseconds deadline{0};
    std::chrono::nanoseconds period{0};
    /// What the process starts is scheduled as `other`; `deadline` cannot fork without it.
    bool reset_on_fork = false;

    /// Errors: invalid_input.
    void validate() const {
        const bool real_time =
            policy == scheduling_policy::fifo || policy == scheduling_policy::round_robin;
        if (real_time ? priority < 1 || priority > 99 : priority != 0)
            throw invalid_input("scheduling priority", std::to_string(priority),
                                "It is from 1 to 99 for fifo and round_robin, and 0 for others.");
        const bool times = runtime.count() != 0 || deadline.count() != 0 || period.count() != 0;
        if (policy != scheduling_policy::deadline) {
            if (times)
                throw invalid_input("scheduling", "runtime, deadline, period",
                                    "They belong to the policy deadline.");
            return;
        }
        // The kernel takes a period of 0 for the deadline.
        const auto last = period.count() == 0 ? deadline : period;
        if (runtime.count() < 1024 || runtime > deadline || deadline > last)
            throw invalid_input("scheduling", std::to_string(runtime.count()) + " ns",
                                "It must be 1024 ns <= runtime <= deadline <= period.");
    }
};

/// The classes of I/O priority, by the kernel's numbers.
enum class io_class : std::uint8_t { real_time = 1, best_effort = 2, idle = 3 };

/// What schedulers of block devices make of the process's I/O. real_time needs CAP_SYS_ADMIN.
struct io_priority {
    io_class which = io_class::best_effort;
    unsigned level = 4;  ///< 0 (first) to 7; without meaning for idle

    void validate() const {
        if (level > 7)
            throw invalid_input("I/O priority", std::to_string(level), "It is from 0 to 7.");
    }
};

/// Bits of personality(2) that a container may want.
enum class personality_bits : std::uint32_t {
    none = 0,
    linux32 = 0x8,  ///< uname(2) tells a 32-bit machine
    uname26 = 0x20000,  ///< uname(2) tells a release 2.6.x
    no_address_randomization = 0x40000,
    read_implies_exec = 0x400000,
    legacy_layout = 0x200000,  ///< mappings grow upwards, as before 2.6.7
};
template <>
inline constexpr bool is_flags<personality_bits> = true;

/// More than any machine that Linux runs on has (CONFIG_NR_CPUS).
inline constexpr unsigned most_processors = 8192;

namespace detail {

/// struct sched_attr as far as 3.14 defines it.
struct sched_payload {
    std::uint32_t size = 48;
    std::uint32_t policy = 0;
    std::uint64_t flags = 0;
    std::int32_t nice = 0;
    std::uint32_t priority = 0;
    std::uint64_t runtime = 0;
    std::uint64_t deadline = 0;
    std::uint64_t period = 0;
};
static_assert(sizeof(sched_payload) == 48);

inline sched_payload make_sched_payload(const scheduling& wanted, int nice) {
    constexpr std::uint64_t reset_on_fork = 1;
    return {.policy = static_cast<std::uint32_t>(wanted.policy),
            .flags = wanted.reset_on_fork ? reset_on_fork : 0,
            .nice = nice,
            .priority = wanted.priority,
            .runtime = static_cast<std::uint64_t>(wanted.runtime.count()),
            .deadline = static_cast<std::uint64_t>(wanted.deadline.count()),
            .period = static_cast<std::uint64_t>(wanted.period.count())};
}

/// The bits of sched_setaffinity(2), least significant first, of words as the kernel has them.
inline std::vector<unsigned long> make_affinity_mask(const std::vector<unsigned>& processors) {
    constexpr unsigned bits = 8 * sizeof(unsigned long);
    std::vector<unsigned long> mask;
    for (const unsigned each : processors) {
        if (each / bits >= mask.size()) mask.resize(each / bits + 1);
        mask[each / bits] |= 1UL << each % bits;
    }
    return mask;
}

}  // namespace detail
}  // namespace kumiki::inline v0
