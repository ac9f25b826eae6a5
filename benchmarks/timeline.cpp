// bench_timeline: where the time of a start goes. Each of kumiki's spans beside the floor's steps for
// the same work, the medians of many starts as a table and as a trace, how much of the time the spans
// stand for, and what the timeline itself costs. benchmarks/run builds it; see docs/performance.md.
#include <sys/syscall.h>
#include <unistd.h>

#include <fstream>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "support/durations.hpp"
#include "support/field.hpp"
#include "support/floor.hpp"
#include "support/options.hpp"
#include "support/ours.hpp"
#include "timeline/beside.hpp"
#define BENCH_VARIANT with_timeline
#include "timeline/one_start.hpp"

std::function<double()> starter_without_timeline(const std::string& rootfs);

namespace bench {
namespace {

/// One configuration, with a network or without: starts of both, in turn.
struct observed {
    std::vector<durations> ours, floors;
    std::vector<kumiki::timeline> lines;
    std::vector<double> covered_percent;
    std::vector<double> start_us;

    void add(kumiki_start& start, bool networked) {
        const sample whole = start.run(networked);
        ours.push_back(durations_of(start, whole));
        lines.push_back(start.line());
        const auto [called, returned] = start.call();
        const auto told = kumiki::covered(start.line(), static_cast<std::int64_t>(called),
                                          static_cast<std::int64_t>(returned));
        start_us.push_back(static_cast<double>(returned - called) / 1000);
        covered_percent.push_back(static_cast<double>(told) / (start_us.back() * 10));
    }
    void add(floor_start& floor) {
        const sample whole = floor.run();
        floors.push_back(durations_of(floor, whole));
    }
};

/// Round by round, what the named steps took together. Empty when none of them is there.
std::vector<double> together(std::span<const durations> rounds,
                             const std::vector<std::string_view>& names) {
    std::vector<double> sums;
    for (const durations& round : rounds) {
        double sum = 0;
        bool any = false;
        for (const std::string_view name : names)
            if (const auto at = round.find(name); at != round.end()) {
                sum += at->second;
                any = true;
            }
        if (any) sums.push_back(sum);
    }
    return sums;
}

nlohmann::json print_beside(const std::string& name, const observed& seen) {
    nlohmann::json json;
    fmt::print(
        "\n{}, microseconds, medians of {} starts:\n\n"
        "| | kumiki | the floor | kumiki / floor (95 %) |\n|---|---|---|---|\n",
        name, seen.ours.size());
    for (const beside& row : rows_beside()) {
        const auto ours = together(seen.ours, row.ours);
        const auto floor = together(seen.floors, row.floors);
        const auto median = [](const std::vector<double>& samples) {
            return samples.empty() ? std::string()
                                   : fmt::format("{:.0f}", summarise(samples).median);
        };
        const std::string quotient =
            ours.empty() || floor.empty() ? std::string() : cell(ratio_of_medians(ours, floor));
        if (ours.empty() && floor.empty()) continue;
        fmt::print("| {} | {} | {} | {} |\n", row.what, median(ours), median(floor), quotient);
        if (!ours.empty()) json[row.what]["kumiki"] = to_json(ours);
        if (!floor.empty()) json[row.what]["bare"] = to_json(floor);
    }
    return json;
}

nlohmann::json print_median(const std::string& name, const observed& seen) {
    const kumiki::timeline middle = kumiki::timeline::median(seen.lines);
    const summary share = summarise(seen.covered_percent);
    fmt::print("\n{}, the medians of {} starts:\n\n{}", name, seen.lines.size(), to_string(middle));
    fmt::print(
        "The spans stand for {:.1f} % of the time from the call of start() to its return (median;"
        " quartiles {:.1f} to {:.1f}, least {:.1f}).\n",
        share.median, share.lower_quartile, share.upper_quartile, share.min);
    nlohmann::json json{{"starts", seen.lines.size()},
                        {"covered_percent", share.median},
                        {"spans", nlohmann::json::array()}};
    for (const kumiki::timeline_span& span : middle.spans())
        json["spans"].push_back(
            {{"name", span.name},
             {"who", span.track == kumiki::timeline_track::child ? "child" : "supervisor"},
             {"at_us", static_cast<double>(span.begin) / 1000},
             {"took_us", static_cast<double>(span.end - span.begin) / 1000}});
    return json;
}

template <class Function>
double nanoseconds_of(Function&& function) {
    constexpr int times = 200'000;
    const std::uint64_t before = now();
    for (int i = 0; i < times; ++i) function();
    return static_cast<double>(now() - before) / times;
}

/// Starts with the timeline and without it, in turn; and the cost of its clock readings by themselves.
nlohmann::json print_overhead(const place& where, const kumiki::timeline& like, double start_us,
                              std::size_t rounds) {
    const auto with = with_timeline::starter(where.rootfs());
    const auto without = starter_without_timeline(where.rootfs());
    std::vector<double> on;
    std::vector<double> off;
    for (std::size_t round = 0; round < warm_up + rounds && interrupted == 0; ++round) {
        for (int turn = 0; turn < 2; ++turn) {
            const bool first = (turn == 0) == (round % 2 == 0);
            const double took = first ? with() : without();
            settle();
            if (round >= warm_up) (first ? on : off).push_back(took);
        }
    }
    const ratio times = ratio_of_medians(on, off);
    double child = 0;
    double supervisor = 3;  // the origin, the execve, and that the child is taken over
    for (const kumiki::timeline_span& span : like.spans())
        (span.track == kumiki::timeline_track::child ? child : supervisor) += 1;
    const double counted_us = (supervisor * nanoseconds_of([] { (void)kumiki::timeline::now(); }) +
                               child * nanoseconds_of([] {
                                   timespec at;
                                   ::syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &at);
                               })) /
                              1000;
    fmt::print(
        "\nWith the timeline / without it, {} starts of each: {} (95 %). Its {:.0f} readings of "
        "the "
        "clock take {:.2f} us, {:.2f} % of a start.\n",
        on.size(), cell(times), child + supervisor, counted_us, counted_us / start_us * 100);
    return {{"with", to_json(on)},
            {"without", to_json(off)},
            {"ratio", to_json(times)},
            {"clock_us", counted_us},
            {"clock_percent", counted_us / start_us * 100}};
}

void run(const start_options& wanted) {
    const place where(wanted.busybox, wanted.payload);
    floor_network network;
    floor_start bare(where, nullptr);
    floor_start bare_net(where, &network);
    kumiki_start ours(where);
    warn_of_load();
    observed alone;
    observed networked;
    for (std::size_t round = 0; round < warm_up + wanted.rounds && interrupted == 0; ++round) {
        if (round == warm_up) alone = networked = {};
        alone.add(ours, false);
        settle();
        alone.add(bare);
        settle();
        networked.add(ours, true);
        settle();
        networked.add(bare_net);
        settle();
    }
    nlohmann::json json = host();
    for (const auto& [name, seen] :
         {std::pair<const char*, const observed&>{"kumiki", alone}, {"kumiki+net", networked}}) {
        json["steps"][name] = print_beside(name, seen);
        json["timelines"][name] = print_median(name, seen);
    }
    json["overhead"] = print_overhead(where, alone.lines.back(), summarise(alone.start_us).median,
                                      wanted.rounds * 3);
    if (!wanted.trace.empty())
        std::ofstream(wanted.trace) << kumiki::timeline::median(networked.lines).to_chrome_trace();
    wanted.write(json);
}

bool parse(int argc, char** argv, start_options& to) {
    return parse_start_options(argc, argv, to, {{"--trace", &to.trace}});
}

}  // namespace
}  // namespace bench

int main(int argc, char** argv) {
    using namespace bench;
    return main_of(argc, argv, "bench_timeline", start_usage, parse, run);
}
