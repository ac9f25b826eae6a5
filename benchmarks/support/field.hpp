// What is measured side by side: the contenders, the rounds in which each has its turn, and how their
// figures are written.
#pragma once

#include <signal.h>
#include <stdlib.h>
#include <sys/utsname.h>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdio>
#include <exception>
#include <functional>
#include <random>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "place.hpp"
#include "statistics.hpp"

namespace bench {

constexpr std::size_t warm_up = 10;

/// One row of the result.
struct contender {
    std::string name;
    std::function<sample()> run;
    std::vector<double> first{};
    std::vector<double> released{};
};

/// Set by SIGINT and SIGTERM.
inline volatile sig_atomic_t interrupted = 0;

inline void stop_when_asked() {
    struct sigaction stop{};
    stop.sa_handler = [](int) { interrupted = 1; };
    ::sigaction(SIGINT, &stop, nullptr);
    ::sigaction(SIGTERM, &stop, nullptr);
}

/// Lets what the last start left to the kernel's workers run, and the next start find a quiet machine.
inline void settle(std::chrono::milliseconds pause = std::chrono::milliseconds(2)) {
    std::this_thread::sleep_for(pause);
}

/// Measures all, interleaved: each round starts every contender once, in an order of its own, so
/// that none always runs in the wake of the same other.
inline void measure(std::vector<contender*> field, std::size_t rounds, std::size_t unmeasured) {
    std::mt19937_64 random(1);
    for (std::size_t round = 0; round < unmeasured + rounds && interrupted == 0; ++round) {
        std::ranges::shuffle(field, random);
        for (contender* each : field) {
            const sample one = each->run();
            settle();
            if (round < unmeasured) continue;
            each->first.push_back(one.first);
            each->released.push_back(one.released);
        }
    }
}

inline std::string cell(std::span<const double> samples) {
    const summary s = summarise(samples);
    return fmt::format("{:.2f} ({:.2f} to {:.2f}; {:.2f})", s.median / 1000,
                       s.lower_quartile / 1000, s.upper_quartile / 1000, s.min / 1000);
}

inline std::string cell(const ratio& r) {
    return fmt::format("{}{:.2f} ({:.2f} to {:.2f})",
                       r.differs() ? "" : "no difference shown: ", r.value, r.low, r.high);
}

inline nlohmann::json to_json(std::span<const double> samples) {
    const summary s = summarise(samples);
    return {{"median_us", s.median},
            {"lower_quartile_us", s.lower_quartile},
            {"upper_quartile_us", s.upper_quartile},
            {"min_us", s.min},
            {"samples_us", std::vector<double>(samples.begin(), samples.end())}};
}

inline nlohmann::json to_json(const ratio& r) {
    return {{"ratio", r.value}, {"low_95", r.low}, {"high_95", r.high}, {"differs", r.differs()}};
}

inline nlohmann::json to_json(const contender& each) {
    return {{"first", to_json(each.first)}, {"released", to_json(each.released)}};
}

/// What a suite's JSON begins with.
inline nlohmann::json host() {
    utsname system{};
    ::uname(&system);
    return {{"kernel", system.release},
            {"processors", std::thread::hardware_concurrency()},
            {"unit", "us"}};
}

/// The machine of a suite's JSON, in words.
inline std::string machine(const nlohmann::json& of) {
    return fmt::format("Linux {}, {} processors", of["kernel"].get<std::string>(),
                       of["processors"].get<unsigned>());
}

/// A row and the JSON of how many times `below` `above` is, to both points of a start.
inline void report_ratio(const contender& above, const contender& below, nlohmann::json& json) {
    const std::string name = above.name + " / " + below.name;
    const ratio first = ratio_of_medians(above.first, below.first);
    const ratio released = ratio_of_medians(above.released, below.released);
    fmt::print("| {} | {} | {} |\n", name, cell(first), cell(released));
    json["ratios"][name] = {{"first", to_json(first)}, {"released", to_json(released)}};
}

/// Says so when others keep the processors busy: then the figures are of the scheduler, too.
inline void warn_of_load() {
    double load = 0;
    if (::getloadavg(&load, 1) == 1 && load > 0.5)
        fmt::print(stderr,
                   "The load average is {:.1f}: other programs are running. They lengthen every "
                   "wait,\nwhich brings all ratios closer to 1: measure on a quiet machine.\n",
                   load);
}

/// The main() of a benchmark: `options` by its parse(), then `run(options)`.
template <class Options>
int main_of(int argc, char** argv, const char* program, const char* usage,
            bool (*parse)(int, char**, Options&), void (*run)(const Options&)) {
    Options wanted;
    try {
        if (!parse(argc, argv, wanted)) {
            fmt::print(stderr, "{}", usage);
            return 2;
        }
        stop_when_asked();
        run(wanted);
        return interrupted != 0 ? 130 : 0;
    } catch (const std::exception& failure) {
        fmt::print(stderr, "{}: {}\n", program, failure.what());
        return 1;
    }
}

}  // namespace bench
