// bench_pool: a start from a pool beside one from nothing, and how many containers a second come of each.
// benchmarks/run pool builds it and gives it what it needs; the method: docs/performance.md.
#include <algorithm>
#include <cstdio>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "support/field.hpp"
#include "support/options.hpp"
#include "support/pooled.hpp"

namespace bench {
namespace {

/// One way of making many.
struct rate_row {
    const char* name;
    bool networked;
    std::optional<std::size_t> ready;
    std::size_t makers = 2;
    std::vector<double> rates{};
};

nlohmann::json report(std::map<std::string, contender>& field) {
    nlohmann::json json = host();
    fmt::print(
        "\n{}. Milliseconds: median (quartiles; minimum).\n\n"
        "| start | samples | to the payload's first instruction | to all released |\n"
        "|---|---|---|---|\n",
        machine(json));
    for (auto& [name, each] : field) {
        if (each.first.empty()) continue;
        fmt::print("| {} | {} | {} | {} |\n", name, each.first.size(), cell(each.first),
                   cell(each.released));
        json["pool"]["kumiki, " + name] = to_json(each);  // the name is what --compare looks for
    }
    fmt::print("\n| ratio of medians (95 %) | first instruction | all released |\n|---|---|---|\n");
    for (const auto& [above, below] : {std::pair{"warm", "cold"}, {"warm+net", "cold+net"}}) {
        if (!field.contains(above) || !field.contains(below)) continue;
        report_ratio(field[above], field[below], json);
    }
    return json;
}

void run(const start_options& wanted) {
    const place where(wanted.busybox, wanted.payload);
    pooled_start alone(where, false);
    pooled_start connected(where, true);
    std::map<std::string, contender> field;
    const auto enter = [&](const char* name, std::function<sample()> start) {
        if (wanted.wants(name)) field[name] = {.name = name, .run = std::move(start)};
    };
    enter("cold", [&] { return alone.cold(); });
    enter("warm", [&] { return alone.warm(); });
    enter("cold+net", [&] { return connected.cold(); });
    enter("warm+net", [&] { return connected.warm(); });
    warn_of_load();
    std::vector<contender*> together;
    for (auto& [name, each] : field) together.push_back(&each);
    measure(together, wanted.rounds, warm_up);
    nlohmann::json json = report(field);

    if (wanted.wants("rate")) {
        constexpr std::size_t burst = 256;
        rate_row rows[] = {{"cold", false, std::nullopt},
                           {"from a full pool", false, burst},
                           {"from a pool of 16 that is filled meanwhile", false, 16},
                           {"cold+net", true, std::nullopt},
                           {"from a full pool, with network", true, burst}};
        const std::size_t turns = std::max<std::size_t>(wanted.rounds / 30, 3);
        for (std::size_t turn = 0; turn < turns && interrupted == 0; ++turn)
            for (rate_row& row : rows) {
                pooled_start& of = row.networked ? connected : alone;
                row.rates.push_back(of.rate(burst, 16, row.ready, row.makers));
                settle();
            }
        fmt::print(
            "\nContainers a second, {} of them, 16 at a time, started, ended and released:\n\n"
            "| | median (quartiles) |\n|---|---|\n",
            burst);
        for (const rate_row& row : rows) {
            if (row.rates.empty()) continue;
            const summary s = summarise(row.rates);
            fmt::print("| {} | {:.0f} ({:.0f} to {:.0f}) |\n", row.name, s.median, s.lower_quartile,
                       s.upper_quartile);
            json["rates"][fmt::format("kumiki, {}", row.name)]["rates"] = row.rates;
        }
    }
    wanted.write(json);
}

constexpr const char* usage =
    "bench_pool --payload FILE [--rounds N] [--only NAME]... [--json FILE] [--busybox FILE]\n"
    "NAME is cold, warm, cold+net, warm+net or rate.\n";

}  // namespace
}  // namespace bench

int main(int argc, char** argv) {
    using namespace bench;
    return main_of(argc, argv, "bench_pool", usage, parse_start_options, run);
}
