// bench_compare: whether a run is slower than an earlier one, by the JSON of both. benchmarks/run
// --compare calls it. It ends with 3 when something is slower beyond the noise.
#include <cstdlib>
#include <exception>
#include <fstream>
#include <stdexcept>
#include <string>
#include <string_view>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "support/comparison.hpp"

namespace {

constexpr int slower_status = 3;

nlohmann::json load(const char* path) {
    std::ifstream file(path);
    if (!file) throw std::runtime_error(fmt::format("cannot read {}", path));
    return nlohmann::json::parse(file);
}

int run(const char* before_path, const char* after_path, double margin) {
    using namespace bench;
    const nlohmann::json before = load(before_path);
    const nlohmann::json after = load(after_path);
    for (const char* what : {"kernel", "processors"})
        if (before.contains(what) && after.contains(what) && before[what] != after[what])
            fmt::print(stderr, "The runs differ in {}: {} and {}.\n", what, before[what].dump(),
                       after[what].dump());
    const auto changes = compare(series_in(before), series_in(after), margin);
    fmt::print("\n| new / old, medians (99 %) | | compared as | |\n|---|---|---|---|\n");
    std::size_t slower = 0;
    for (const change& each : changes) {
        static constexpr const char* words[] = {"", "faster", "**slower**", "too few samples"};
        slower += each.is == verdict::slower ? 1 : 0;
        fmt::print("| {} | {:.2f} ({:.2f} to {:.2f}) | {} | {} |\n", each.name, each.times.value,
                   each.times.low, each.times.high, each.relative ? "times its floor" : "times",
                   words[static_cast<std::size_t>(each.is)]);
    }
    if (changes.empty()) throw std::runtime_error("the two files have no series in common");
    fmt::print("\n{} of {} slower than the noise and a margin of {:.0f} % explain.\n", slower,
               changes.size(), margin * 100);
    return slower == 0 ? 0 : slower_status;
}

}  // namespace

int main(int argc, char** argv) {
    try {
        if (argc == 3) return run(argv[1], argv[2], 0.05);
        if (argc == 5 && std::string_view(argv[1]) == "--margin")
            return run(argv[3], argv[4], std::stod(argv[2]) / 100);
        fmt::print(stderr, "bench_compare [--margin PERCENT] OLD.json NEW.json\n");
        return 2;
    } catch (const std::exception& failure) {
        fmt::print(stderr, "bench_compare: {}\n", failure.what());
        return 1;
    }
}
