// Of benchmarks/support/comparison.hpp.
#include <cmath>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "../../benchmarks/support/comparison.hpp"
#include "support/catch.hpp"

using namespace bench;

namespace {

/// `count` samples around `middle` whose noise is a tenth of it, and differs with `seed`.
std::vector<double> noisy(double middle, unsigned seed, std::size_t count = 100) {
    std::mt19937_64 random(seed);
    std::uniform_real_distribution<double> noise(0.9, 1.1);
    std::vector<double> samples(count);
    for (double& sample : samples) sample = middle * noise(random);
    return samples;
}

const change& only(const std::vector<change>& changes) {
    REQUIRE(changes.size() == 1);
    return changes.front();
}

}  // namespace

TEST_CASE("the series of a file are named by where they stand") {
    const auto file = nlohmann::json::parse(R"({"kernel": "6.18", "starts": {
        "bare": {"first": {"median_us": 2, "samples_us": [1, 2, 3]}},
        "kumiki": {"first": {"samples_us": [4]}, "released": {"samples_us": []}}},
        "rows": {"ready": {"raw": {"samples_ns": [7, 8]}}}})");
    const all_series found = series_in(file);
    REQUIRE(found.size() == 4);
    CHECK(found.at("starts / bare / first") == std::vector<double>{1, 2, 3});
    CHECK(found.at("starts / kumiki / first") == std::vector<double>{4});
    CHECK(found.at("starts / kumiki / released").empty());
    CHECK(found.at("rows / ready / raw") == std::vector<double>{7, 8});
}

TEST_CASE("of rates more is better, so they are compared as their inverses") {
    const auto with_rates = [](double middle, unsigned seed) {
        return series_in({{"rates", {{"kumiki, cold", {{"rates", noisy(middle, seed)}}}}}});
    };
    const all_series before = with_rates(1000, 1);
    REQUIRE(before.contains("rates / kumiki, cold, inverse"));
    CHECK(only(compare(before, with_rates(800, 2), 0.05)).is == verdict::slower);
    CHECK(only(compare(before, with_rates(1200, 3), 0.05)).is == verdict::faster);
}

TEST_CASE("the suites that have kumiki alone are compared, too") {
    const auto of = [](const char* text) { return series_in(nlohmann::json::parse(text)); };
    const auto pool = of(R"({"pool": {"kumiki, warm": {"first": {"samples_us": [1, 2, 3]}}},
                             "rates": {"cold": [700, 710]}})");
    CHECK(only(compare(pool, pool, 0.05)).name == "pool / kumiki, warm / first");
    const auto size = of(R"({"kumiki": {"umbrella": {"samples_us": [8, 8, 9]}}, "binaries": {}})");
    CHECK(only(compare(size, size, 0.05)).name == "kumiki / umbrella");
    const auto server = of(R"({"server": {"4": {"httpd": {"latency": {"samples": [5]}},
        "kumiki": {"latency": {"samples": [6]}, "per_second": {"rates": [300]}}}}})");
    const auto both = compare(server, server, 0.05);
    REQUIRE(both.size() == 2);
    CHECK(both[0].name == "server / 4 / kumiki / latency");
    CHECK(both[1].name == "server / 4 / kumiki / per_second, inverse");
}

TEST_CASE("every suite's file has something to compare") {
    const char* const files[] = {
        R"({"starts": {"kumiki+net": {"first": {"samples_us": [1, 2]}}}})",
        R"({"execs": {"kumiki": {"first": {"samples_us": [1, 2]}}}})",
        R"({"pool": {"kumiki, warm+net": {"first": {"samples_us": [1, 2]}}}})",
        R"({"rates": {"kumiki, from a full pool": {"rates": [1, 2]}}})",
        R"({"rows": {"ready": {"kumiki/epoll": {"samples_ns": [1, 2]}}}})",
        R"({"a group": {"kumiki": {"samples_us": [1, 2]}}})",
        R"({"kumiki, 206 ports published": {"0 mappings are there": {"samples": [1, 2]}}})",
        R"({"to the container": {"kumiki": {"unit": "Gbit/s", "rates": [1, 2]}}})",
        R"({"levels": {"a process": {"kumiki": {"first": {"samples_us": [1, 2]}}}}})",
        R"({"together": {"64": {"kumiki": {"first": {"samples_us": [1, 2]}}}}})",
        R"({"steps": {"kumiki+net": {"mounts": {"kumiki": {"samples_us": [1, 2]}}}}})",
        R"({"podman": {"kumiki+net": {"first": {"samples_us": [1, 2]}}}})",
        R"({"server": {"16": {"kumiki": {"latency": {"samples": [1, 2]}}}}})",
        R"({"kumiki": {"umbrella": {"samples_us": [1, 2]}}, "umbrella_wall": {"samples_us": [1]}})",
        R"({"kumiki": {"headers": {"async/task.hpp": {"samples_us": [1, 2]}}}})"};
    for (const char* file : files) {
        CAPTURE(file);
        const all_series found = series_in(nlohmann::json::parse(file));
        CHECK(compare(found, found, 0.05).size() == 1);
    }
}

TEST_CASE("a run that is a fifth slower is slower, and a fifth faster is faster") {
    const all_series before{{"starts / kumiki", noisy(1000, 1)}};
    CHECK(only(compare(before, {{"starts / kumiki", noisy(1200, 2)}}, 0.05)).is == verdict::slower);
    CHECK(only(compare(before, {{"starts / kumiki", noisy(800, 3)}}, 0.05)).is == verdict::faster);
}

TEST_CASE("what the noise explains is no difference, and neither is what the margin allows") {
    const all_series before{{"kumiki", noisy(1000, 1)}};
    CHECK(only(compare(before, {{"kumiki", noisy(1000, 2)}}, 0.05)).is == verdict::same);
    CHECK(only(compare(before, {{"kumiki", noisy(1010, 3, 20)}}, 0)).is == verdict::same);
    const all_series slightly{{"kumiki", noisy(1060, 4, 4000)}};
    CHECK(only(compare(before, slightly, 0)).is == verdict::slower);
    CHECK(only(compare(before, slightly, 0.1)).is == verdict::same);
}

TEST_CASE("what slows the floor down as well is the weather") {
    const all_series before{{"starts / kumiki+net / first", noisy(1000, 1)},
                            {"starts / bare+net / first", noisy(1200, 2)}};
    const all_series busier{{"starts / kumiki+net / first", noisy(2000, 3)},
                            {"starts / bare+net / first", noisy(2400, 4)}};
    const change weather = only(compare(before, busier, 0.05));
    CHECK(weather.relative);
    CHECK(weather.is == verdict::same);
    CHECK(std::abs(weather.times.value - 1) < 0.05);
    const all_series slower{{"starts / kumiki+net / first", noisy(2400, 3)},
                            {"starts / bare+net / first", noisy(2400, 4)}};
    CHECK(only(compare(before, slower, 0.05)).is == verdict::slower);
}

TEST_CASE("a floor that is in one of the files only is not used") {
    const all_series before{{"kumiki", noisy(1000, 1)}};
    const all_series after{{"kumiki", noisy(1500, 2)}, {"raw", noisy(1, 3)}};
    const change seen = only(compare(before, after, 0.05));
    CHECK_FALSE(seen.relative);
    CHECK(seen.is == verdict::slower);
}

TEST_CASE("what is not kumiki's, or in one of the files only, is not judged") {
    const all_series before{{"crun", noisy(1000, 1)}, {"kumiki, old", noisy(1000, 2)}};
    const all_series after{{"crun", noisy(9000, 3)}, {"kumiki, new", noisy(9000, 4)}};
    CHECK(compare(before, after, 0.05).empty());
}

TEST_CASE("too few samples are compared and not judged") {
    const all_series some{{"kumiki", noisy(1000, 1)}};
    for (const std::size_t count : {0U, 1U, 4U}) {
        CAPTURE(count);
        const all_series few{{"kumiki", noisy(2000, 2, count)}};
        CHECK(only(compare(some, few, 0.05)).is == verdict::too_few_samples);
        CHECK(only(compare(few, some, 0.05)).is == verdict::too_few_samples);
        CHECK((only(compare(some, few, 0.05)).times.value > 1) == (count > 0));
    }
    const all_series enough{{"kumiki", noisy(2000, 2, 5)}};
    CHECK(only(compare(some, enough, 0.05)).is == verdict::slower);
}

TEST_CASE("the same two runs are judged alike every time") {
    const measured before{.samples = {}, .floor = {}};
    const auto old = noisy(1000, 1);
    const auto young = noisy(1040, 2);
    const ratio one = ratio_between_runs({.samples = old}, {.samples = young});
    const ratio other = ratio_between_runs({.samples = old}, {.samples = young});
    CHECK(one.low == other.low);
    CHECK(one.high == other.high);
    CHECK(one.low < one.value);
    CHECK(one.value < one.high);
    CHECK(ratio_between_runs(before, {.samples = young}).value == 0);
}
