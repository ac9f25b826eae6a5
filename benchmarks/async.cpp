// bench_async: what the scheduler costs per operation, beside raw liburing and asio, in one run.
// benchmarks/run async builds it; the method is described in docs/performance.md.
#include <sys/utsname.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <filesystem>
#include <fstream>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <kumiki/core/text.hpp>

#include "async/side.hpp"
#include "support/options.hpp"
#include "support/statistics.hpp"

namespace bench {
namespace {

struct options : suite_options {
    std::vector<std::string> sides = {};

    bool wants_side(std::string_view name) const {
        return sides.empty() || std::ranges::find(sides, name) != sides.end();
    }
};

constexpr std::size_t warm_up = 3;
constexpr std::size_t idle_tasks = 100'000;
constexpr double most_idle_bytes = 1024;

/// One kind of work. `measure` does `count` of it.
struct row {
    const char* name;
    const char* what;
    std::size_t count;
    double (*measure)(side& by, std::size_t count);
};

constexpr row rows[] = {
    {"ready", "co_await of a ready task", 10'000,
     [](side& by, std::size_t count) { return by.ready_tasks(count); }},
    {"spawn", "spawn and join of an empty task", 2'000,
     [](side& by, std::size_t count) { return by.spawned_tasks(count); }},
    {"timer", "timer that is due, in turn", 1'000,
     [](side& by, std::size_t count) { return by.timers_in_turn(count); }},
    {"timers", "timer of a task, 1,000 at once", 1'000,
     [](side& by, std::size_t count) { return by.timers_at_once(count); }},
    {"pipe", "round trip over two pipes, one thread", 500,
     [](side& by, std::size_t count) { return by.round_trips(count); }},
    {"pipe-across", "round trip over two pipes, two threads", 200,
     [](side& by, std::size_t count) { return by.round_trips_across(count); }},
    {"child", "wait for a child by its pidfd, in turn", 50,
     [](side& by, std::size_t count) {
         const ended_children children(count);
         return by.children_in_turn(children.pidfds());
     }},
    {"children", "wait for a child by its pidfd, 50 at once", 50,
     [](side& by, std::size_t count) {
         const ended_children children(count);
         return by.children_at_once(children.pidfds());
     }},
};

struct contender {
    const char* name;
    std::unique_ptr<side> does;
    std::map<std::string, std::vector<double>> samples{};  // by row: nanoseconds of one
};

/// The ratios of each row that are of interest: the first over the second.
constexpr const char* pairs[][2] = {
    {"kumiki", "raw"}, {"kumiki", "asio"}, {"kumiki", "asio/io_uring"}, {"kumiki/epoll", "asio"}};

std::vector<contender> enter(const options& wanted) {
    std::vector<contender> field;
    const auto add = [&](const char* name, auto make) {
        if (!wanted.wants_side(name)) return;
        try {
            field.push_back({name, make()});
        } catch (const std::exception& failure) {
            fmt::print(stderr, "{} is left out: {}\n", name, failure.what());
        }
    };
    add("raw", make_raw);
    add("kumiki", [] { return make_kumiki(true); });
    add("kumiki/epoll", [] { return make_kumiki(false); });
#ifdef BENCH_HAS_ASIO
    add("asio", make_asio);
    add("asio/io_uring", make_asio_on_io_uring);
#else
    fmt::print(stderr, "asio is left out: asio.hpp (libasio-dev) was not there at build time.\n");
#endif
    return field;
}

/// Interleaved: in each round all sides do each row in an order of its own.
void measure(std::vector<contender>& field, const options& wanted) {
    std::mt19937_64 random(1);
    std::vector<contender*> order;
    for (contender& each : field) order.push_back(&each);
    for (std::size_t round = 0; round < warm_up + wanted.rounds; ++round) {
        for (const row& each : rows) {
            if (!wanted.wants(each.name)) continue;
            std::ranges::shuffle(order, random);
            for (contender* who : order) {
                const double all = each.measure(*who->does, each.count);
                if (round >= warm_up)
                    who->samples[each.name].push_back(all / static_cast<double>(each.count));
            }
        }
    }
}

std::string cell(std::span<const double> samples) {
    if (samples.empty()) return "";
    const summary s = summarise(samples);
    return fmt::format("{:.0f} ({:.0f} to {:.0f})", s.median, s.lower_quartile, s.upper_quartile);
}

std::string cell(const ratio& r) {
    return fmt::format("{}{:.2f} ({:.2f} to {:.2f})",
                       r.differs() ? "" : "no difference shown: ", r.value, r.low, r.high);
}

nlohmann::json to_json(std::span<const double> samples) {
    const summary s = summarise(samples);
    return {{"median_ns", s.median},
            {"lower_quartile_ns", s.lower_quartile},
            {"upper_quartile_ns", s.upper_quartile},
            {"min_ns", s.min},
            {"samples_ns", std::vector<double>(samples.begin(), samples.end())}};
}

nlohmann::json to_json(const ratio& r) {
    return {{"ratio", r.value}, {"low_95", r.low}, {"high_95", r.high}, {"differs", r.differs()}};
}

const contender* find(const std::vector<contender>& field, std::string_view name) {
    const auto at =
        std::ranges::find_if(field, [&](const contender& each) { return each.name == name; });
    return at == field.end() ? nullptr : &*at;
}

/// Both tables and their JSON.
nlohmann::json report(const std::vector<contender>& field, const options& wanted) {
    utsname system{};
    ::uname(&system);
    const unsigned processors = std::thread::hardware_concurrency();
    nlohmann::json json{{"kernel", system.release}, {"processors", processors}, {"unit", "ns"}};
    fmt::print(
        "\nLinux {}, {} processors, {} rounds. Nanoseconds for one: median (quartiles).\n\n|",
        system.release, processors, wanted.rounds);
    for (const contender& each : field) fmt::print(" | {}", each.name);
    fmt::print(" |\n|---|");
    for (std::size_t i = 0; i < field.size(); ++i) fmt::print("---|");
    fmt::print("\n");
    for (const row& each : rows) {
        if (!wanted.wants(each.name)) continue;
        fmt::print("| {}", each.what);
        for (const contender& who : field) {
            const auto& samples = who.samples.at(each.name);
            fmt::print(" | {}", cell(samples));
            json["rows"][each.name][who.name] = to_json(samples);
        }
        fmt::print(" |\n");
    }
    fmt::print("\nRatios of medians (95 % bootstrap interval):\n\n|");
    std::string line = "|---|";
    for (const auto& [above, below] : pairs) {
        if (find(field, above) == nullptr || find(field, below) == nullptr) continue;
        fmt::print(" | {} / {}", above, below);
        line += "---|";
    }
    fmt::print(" |\n{}\n", line);
    for (const row& each : rows) {
        if (!wanted.wants(each.name)) continue;
        fmt::print("| {}", each.what);
        for (const auto& [above, below] : pairs) {
            const contender* const a = find(field, above);
            const contender* const b = find(field, below);
            if (a == nullptr || b == nullptr) continue;
            const ratio r = ratio_of_medians(a->samples.at(each.name), b->samples.at(each.name));
            fmt::print(" | {}", cell(r));
            json["ratios"][each.name][fmt::format("{} / {}", above, below)] = to_json(r);
        }
        fmt::print(" |\n");
    }
    return json;
}

/// What a task that waits takes of the heap.
nlohmann::json report_idle_tasks(std::vector<contender>& field) {
    nlohmann::json json;
    fmt::print(
        "\nHeap bytes for each of {} tasks that wait:\n\n| | in a sleep | in a poll "
        "|\n|---|---|---|\n",
        idle_tasks);
    for (contender& who : field) {
        if (std::string_view(who.name) == "raw") continue;  // has no tasks
        const idle_bytes bytes = who.does->idle_tasks(idle_tasks);
        const bool is_ours = std::string_view(who.name).starts_with("kumiki");
        const auto remark = [&](double count) {
            return is_ours && count > most_idle_bytes ? " (more than 1 KiB)" : "";
        };
        fmt::print("| {} | {:.0f}{} | {:.0f}{} |\n", who.name, bytes.sleeping,
                   remark(bytes.sleeping), bytes.polling, remark(bytes.polling));
        json[who.name] = {{"sleep", bytes.sleeping}, {"poll", bytes.polling}};
    }
    return json;
}

/// Says so when others keep the processors busy.
void warn_of_load() {
    double load = 0;
    if (::getloadavg(&load, 1) == 1 && load > 0.5)
        fmt::print(stderr, "The load average is {:.1f}: other programs are running.\n", load);
}

void run(const options& wanted) {
    std::vector<contender> field = enter(wanted);
    warn_of_load();
    measure(field, wanted);
    nlohmann::json json = report(field, wanted);
    if (wanted.wants("memory")) json["idle_task_bytes"] = report_idle_tasks(field);
    wanted.write(json);
}

constexpr const char* usage =
    "bench_async [--rounds N] [--only ROW]... [--side NAME]... [--json FILE]\n"
    "ROW is ready, spawn, timer, timers, pipe, pipe-across, child, children or memory.\n"
    "NAME is raw, kumiki, kumiki/epoll, asio or asio/io_uring.\n";

bool parse(int argc, char** argv, options& to) {
    return parse_options(argc, argv, to, {{"--side", &to.sides}});
}

}  // namespace
}  // namespace bench

int main(int argc, char** argv) {
    bench::options wanted;
    try {
        if (!bench::parse(argc, argv, wanted)) {
            fmt::print(stderr, "{}", bench::usage);
            return 2;
        }
        bench::run(wanted);
        return 0;
    } catch (const std::exception& failure) {
        fmt::print(stderr, "bench_async: {}\n", failure.what());
        return 1;
    }
}
