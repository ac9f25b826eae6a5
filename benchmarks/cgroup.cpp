// bench_cgroup: what control groups cost: one made, limited and removed; a snapshot of its counters; the
// time until an event is known; ten thousand of them watched. benchmarks/run builds it; see
// docs/performance.md.
#include <unistd.h>

#include <fstream>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <kumiki/core/text.hpp>

#include "cgroup/calls.hpp"
#include "cgroup/many.hpp"
#include "cgroup/place.hpp"
#include "cgroup/watchers.hpp"
#include "support/options.hpp"

namespace bench {
namespace {

struct options : suite_options {
    std::size_t groups = 10'000;
};

double percentile(const std::vector<double>& samples, double q) {
    std::vector<double> sorted(samples);
    std::ranges::sort(sorted);
    return sorted.empty() ? 0 : quantile(sorted, q);
}

/// Which way round a ratio is shown.
enum class ratios : std::uint8_t { kumiki_to_it, it_to_kumiki };

/// A table of one thing, and the ratios of kumiki's and the others' medians.
void report(const std::string& title, const std::vector<series>& field, ratios shown,
            nlohmann::json& json) {
    const bool is_ours_above = shown == ratios::kumiki_to_it;
    constexpr std::string_view of = "kumiki";
    fmt::print("\n| {} | samples | median (quartiles) | 99 % are below | {} (95 %) |\n", title,
               is_ours_above ? "kumiki / it" : "it / kumiki");
    fmt::print("|---|---|---|---|---|\n");
    const auto ours = std::ranges::find(field, of, &series::name);
    for (const series& each : field) {
        const summary s = summarise(each.samples);
        const double high = percentile(each.samples, 0.99);
        const bool is_other = ours != field.end() && each.name != of;
        const ratio r = !is_other       ? ratio{}
                        : is_ours_above ? ratio_of_medians(ours->samples, each.samples)
                                        : ratio_of_medians(each.samples, ours->samples);
        fmt::print("| {} | {} | {:.1f} ({:.1f} to {:.1f}) | {:.1f} | {} |\n", each.name, s.count,
                   s.median, s.lower_quartile, s.upper_quartile, high, is_other ? cell(r) : "");
        auto& row = json[title][each.name];
        row = to_json(each.samples);
        row["p99_us"] = high;
        if (is_other) row["ratio"] = to_json(r);
    }
}

void report(const many_result& seen, std::size_t wanted, nlohmann::json& json) {
    fmt::print(
        "\n{} groups watched by one thread: {:.2f} descriptors and {:.0f} bytes of heap each.\n",
        seen.groups, seen.descriptors_each, seen.heap_each);
    if (seen.groups < wanted)
        fmt::print("(RLIMIT_NOFILE does not let this process have more than that.)\n");
    fmt::print(
        "Idle for {:.0f} s: {} voluntary context switches, {} times on a processor, {} ns there.\n"
        "Then {} of {} groups that were frozen were told.\n",
        seen.seconds, seen.switches, seen.runs, seen.processor_ns, seen.told, seen.caused);
    json["many"] = {{"groups", seen.groups},
                    {"descriptors_each", seen.descriptors_each},
                    {"heap_bytes_each", seen.heap_each},
                    {"idle_seconds", seen.seconds},
                    {"voluntary_context_switches", seen.switches},
                    {"runs", seen.runs},
                    {"processor_ns", seen.processor_ns},
                    {"caused", seen.caused},
                    {"told", seen.told}};
}

void run(const options& wanted) {
    auto root = kumiki::cgroup_root::open("kumiki-bench-" + std::to_string(::getpid()));
    nlohmann::json json = host();
    warn_of_load();
    std::string names;
    for (const auto& setting : kumiki::settings_of(limits_for(root)))
        names += (names.empty() ? "" : ", ") + setting.key;
    fmt::print("\n{}, {} rounds. Microseconds. The limits are {}.\n", machine(json), wanted.rounds,
               names);
    json["limits"] = names;
    const auto timed = [&](const std::string& title, std::vector<series> field, ratios shown) {
        measure(field, wanted.rounds);
        report(title, field, shown, json);
    };
    if (wanted.wants("create"))
        timed("a group made, limited and removed", creations(root), ratios::kumiki_to_it);
    if (wanted.wants("snapshot")) {
        const auto group = root.create("snapshot", limits_for(root));
        const inmate process(group);
        const auto files = files_of_stats(group);
        std::vector<unique_fd> open;
        timed(fmt::format("a snapshot, files: {}", files.size()), snapshots(group, files, open),
              ratios::kumiki_to_it);
    }
    if (wanted.wants("freeze") || wanted.wants("end")) {
        watchers all(root);
        if (wanted.wants("freeze"))
            timed("cgroup.freeze written, until it is known", all.timed(time_of_freeze),
                  ratios::it_to_kumiki);
        if (wanted.wants("end"))
            timed("the last process exits, until it is known", all.timed(time_of_end),
                  ratios::it_to_kumiki);
    }
    if (wanted.wants("many") && interrupted == 0)
        report(watch_many(root.group(), wanted.groups, 3), wanted.groups, json);
    wanted.write(json);
}

constexpr const char* usage =
    "bench_cgroup [--rounds N] [--only NAME]... [--groups N] [--json FILE]\n"
    "NAME is create, snapshot, freeze, end or many.\n";

bool parse(int argc, char** argv, options& to) {
    return parse_options(argc, argv, to, {{"--groups", &to.groups}}) && to.rounds > 1;
}

}  // namespace
}  // namespace bench

int main(int argc, char** argv) {
    return bench::main_of(argc, argv, "bench_cgroup", bench::usage, bench::parse, bench::run);
}
