// bench_start: what it costs to start a container, measured side by side in one run. benchmarks/run
// builds it and gives it what it needs; the method is described in docs/performance.md.

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <fstream>
#include <functional>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <kumiki/core/text.hpp>

#include "support/field.hpp"
#include "support/floor.hpp"
#include "support/options.hpp"
#include "support/ours.hpp"
#include "support/peers.hpp"
#include "support/pooled.hpp"

namespace bench {
namespace {

/// Both tables and their JSON.
nlohmann::json report(const std::map<std::string, contender>& field) {
    nlohmann::json json = host();
    fmt::print(
        "\n{}. Milliseconds: median (quartiles; minimum).\n\n"
        "| start | samples | to the payload's first instruction | to all released |\n"
        "|---|---|---|---|\n",
        machine(json));
    for (const char* name :
         {"bare", "kumiki", "kumiki+pool", "bwrap", "crun", "runc", "bare+net", "kumiki+net"}) {
        const auto at = field.find(name);
        if (at == field.end() || at->second.first.empty()) continue;
        const contender& each = at->second;
        fmt::print("| {} | {} | {} | {} |\n", name, each.first.size(), cell(each.first),
                   cell(each.released));
        json["starts"][name] = to_json(each);
    }
    fmt::print(
        "\nRatios of medians (95 % bootstrap interval):\n\n"
        "| ratio | to the payload's first instruction | to all released |\n|---|---|---|\n");
    static constexpr const char* pairs[][2] = {
        {"kumiki", "bare"},        {"kumiki+net", "bare+net"}, {"kumiki+net", "kumiki"},
        {"bwrap", "kumiki"},       {"crun", "kumiki"},         {"runc", "kumiki"},
        {"kumiki+pool", "kumiki"}, {"bwrap", "kumiki+pool"},   {"crun", "kumiki+pool"},
        {"runc", "kumiki+pool"},   {"bare+net", "bare"},       {"crun", "bare"}};
    for (const auto& [above, below] : pairs) {
        const auto a = field.find(above);
        const auto b = field.find(below);
        if (a == field.end() || b == field.end() || a->second.first.empty()) continue;
        report_ratio(a->second, b->second, json);
    }
    return json;
}

/// Where the floor's time goes: the median of each step.
void print_steps(floor_start& floor, std::size_t rounds) {
    std::vector<std::pair<std::string, std::vector<double>>> all;
    for (std::size_t round = 0; round < rounds && interrupted == 0; ++round) {
        floor.run();
        settle();
        const steps& stamps = floor.stamps();
        all.resize(stamps.count - 1);
        for (std::size_t i = 0; i + 1 < stamps.count; ++i) {
            all[i].first = stamps.stamps[i].name;
            all[i].second.push_back(
                static_cast<double>(stamps.stamps[i + 1].at - stamps.stamps[i].at));
        }
    }
    fmt::print(
        "\nThe floor step by step, microseconds:\n\n| step | median | minimum |\n|---|---|---|\n");
    for (const auto& [name, samples] : all) {
        const summary s = summarise(samples);
        fmt::print("| {} | {:.0f} | {:.0f} |\n", name, s.median / 1000, s.min / 1000);
    }
}

void run(const start_options& wanted) {
    const place where(wanted.busybox, wanted.payload);
    floor_network network;
    floor_start bare(where, nullptr);
    floor_start bare_net(where, &network);
    kumiki_start ours(where);
    pooled_start pooled(where, false);
    std::vector<std::unique_ptr<peer>> peers;
    std::map<std::string, contender> field;
    const auto enter = [&](const char* name, std::function<sample()> start) {
        if (wanted.wants(name)) field[name] = {.name = name, .run = std::move(start)};
    };
    const auto enter_peer = [&](const char* name, const char* program, const auto& make) {
        if (!wanted.wants(name)) return;
        if (!fs::exists(program))
            return fmt::print(stderr, "{} is not there: left out.\n", program);
        peers.push_back(std::make_unique<peer>(make(program)));
        enter(name, [one = peers.back().get()] { return one->run(); });
    };
    enter("bare", [&] { return bare.run(); });
    enter("bare+net", [&] { return bare_net.run(); });
    enter("kumiki", [&] { return ours.run(false); });
    enter("kumiki+net", [&] { return ours.run(true); });
    enter("kumiki+pool", [&] { return pooled.warm(); });
    enter_peer("crun", "/usr/bin/crun", [&](const char* program) {
        return oci_peer(where, program, "crun", wanted.preload);
    });
    enter_peer("runc", "/usr/sbin/runc", [&](const char* program) {
        return oci_peer(where, program, "runc", wanted.preload);
    });
    enter_peer("bwrap", "/usr/bin/bwrap",
               [&](const char* program) { return bwrap_peer(where, program, bare.filter()); });

    warn_of_load();
    std::vector<contender*> together;
    for (auto& [name, each] : field) together.push_back(&each);
    measure(together, wanted.rounds, warm_up);
    const nlohmann::json json = report(field);
    wanted.write(json);
    if (wanted.steps) {
        print_steps(bare_net, wanted.rounds / 2);
        fmt::print("\nThe last start of kumiki:\n\n{}", to_string(ours.line()));
    }
}

constexpr const char* usage =
    "bench_start --payload FILE [--rounds N] [--only NAME]... [--steps] [--json FILE]\n"
    "            [--busybox FILE] [--preload LIBRARY]\n"
    "NAME is bare, bare+net, kumiki, kumiki+net, kumiki+pool, crun, runc or bwrap.\n";

bool parse(int argc, char** argv, start_options& to) {
    return parse_start_options(argc, argv, to, {{"--steps", &to.steps}});
}

}  // namespace
}  // namespace bench

int main(int argc, char** argv) {
    using namespace bench;
    return main_of(argc, argv, "bench_start", usage, parse, run);
}
