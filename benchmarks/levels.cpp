// bench_levels: what each further piece of a container costs, kumiki beside the floor. benchmarks/run
// builds it; see docs/performance.md.
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "support/field.hpp"
#include "support/floor.hpp"
#include "support/level.hpp"
#include "support/options.hpp"
#include "support/ours.hpp"

namespace bench {
namespace {

void run(const start_options& wanted) {
    const place where(wanted.busybox, wanted.payload);
    floor_network network;
    kumiki_start ours(where);
    std::vector<std::unique_ptr<floor_start>> floors;
    std::vector<contender> field;
    for (const level each : levels) {
        floors.push_back(std::make_unique<floor_start>(
            where, each >= level::network ? &network : nullptr, each));
        field.push_back(
            {.name = "bare", .run = [floor = floors.back().get()] { return floor->run(); }});
        field.push_back({.name = "kumiki", .run = [&ours, each] { return ours.run(each); }});
    }
    warn_of_load();
    std::vector<contender*> together;
    for (contender& each : field) together.push_back(&each);
    measure(together, wanted.rounds, warm_up);

    nlohmann::json json = host();
    fmt::print(
        "\nMilliseconds: median (quartiles; minimum); ratios of medians (95 %).\n\n"
        "| level | | to the payload's first instruction | to all released |\n|---|---|---|---|\n");
    for (std::size_t i = 0; i < std::size(levels); ++i) {
        const char* name = name_of(levels[i]);
        const contender& floor = field[2 * i];
        const contender& mine = field[2 * i + 1];
        for (const contender* each : {&floor, &mine}) {
            fmt::print("| {} | {} | {} | {} |\n", name, each->name, cell(each->first),
                       cell(each->released));
            json["levels"][name][each->name] = to_json(*each);
        }
        fmt::print("| | kumiki / bare | {} | {} |\n",
                   cell(ratio_of_medians(mine.first, floor.first)),
                   cell(ratio_of_medians(mine.released, floor.released)));
    }
    wanted.write(json);
}

}  // namespace
}  // namespace bench

int main(int argc, char** argv) {
    using namespace bench;
    return main_of(argc, argv, "bench_levels", start_usage, parse_start_options, run);
}
