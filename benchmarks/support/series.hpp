// Series of samples that are taken by turns: for what is timed as a call, and has one figure.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "support/field.hpp"

namespace bench {

/// What is timed, and its samples in microseconds.
struct series {
    std::string name;
    std::function<double()> measure;
    std::vector<double> samples{};
};

/// In each round every one has its turn, in an order of its own.
inline void measure(std::vector<series>& field, std::size_t rounds,
                    std::size_t unmeasured = warm_up) {
    std::mt19937_64 random(1);
    std::vector<series*> order;
    for (series& each : field) order.push_back(&each);
    for (std::size_t round = 0; round < unmeasured + rounds; ++round) {
        std::ranges::shuffle(order, random);
        for (series* each : order) {
            if (interrupted != 0) return;
            const double one = each->measure();
            if (round >= unmeasured) each->samples.push_back(one);
        }
    }
}

/// The microseconds that one of `count` calls takes.
template <class Function>
double time_each(int count, Function&& function) {
    const std::uint64_t start = now();
    for (int i = 0; i < count; ++i) function();
    return static_cast<double>(now() - start) / 1000 / count;
}

}  // namespace bench
