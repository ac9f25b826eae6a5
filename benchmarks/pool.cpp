// bench_pool: a start from a pool beside one from nothing, and how many containers a second come of each.
// benchmarks/run pool builds it and gives it what it needs; the method: docs/performance.md.
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <kumiki/async/when.hpp>
#include <kumiki/container/pool.hpp>
#include <kumiki/core/text.hpp>
#include <kumiki/network/bridge_network.hpp>

#include "support/field.hpp"
#include "support/options.hpp"
#include "support/ours.hpp"

namespace bench {
namespace {

using kumiki::container;
using kumiki::container_pool;
using kumiki::stdio;
using kumiki::task;
using namespace kumiki::literals;

/// The container of the other benchmarks (support/ours.hpp), which writes when it began.
class starter {
  public:
    starter(const place& where, bool networked)
        : spec_(kumiki_start(where).spec({"/bin/payload"}, stdio::null())) {
        spec_.process.stdio.fill(stdio::null());
        if (!networked) return;
        network_.emplace(
            kumiki::bridge_network::open({.name = "bench",
                                          .subnet = "10.78.0.0/16"_cidr,
                                          .subnet6 = "fd00:78::/64"_cidr,
                                          .state_directory = where.directory() + "/state"}));
        // A port that the kernel picks: each container has its own.
        spec_.network =
            network_->attach({.publish = {{.container = {80, 80}}}, .egress = kumiki::deny_all()});
    }

    sample cold() { return io_.run(once(this, nullptr)); }
    /// From a pool that is full.
    sample warm() {
        make_pool(4);
        io_.run(pool_->filled());
        return io_.run(once(this, &*pool_));
    }

    /// Containers a second, `at_once` at a time, everything included: started, ended, released.
    /// `pool`: how many are ready before the clock runs; none: cold ones.
    double rate(std::size_t count, std::size_t at_once, std::optional<std::size_t> pool,
                std::size_t makers) {
        pool_.reset();
        if (pool) {
            make_pool(*pool, makers);
            io_.run(pool_->filled());
        }
        left_ = count;
        const std::uint64_t start = now();
        std::vector<task<void>> workers;
        for (std::size_t i = 0; i < at_once; ++i)
            workers.push_back(work(this, pool ? &*pool_ : nullptr));
        io_.run(all(std::move(workers)));
        const auto took = static_cast<double>(now() - start) / 1e9;
        pool_.reset();
        return static_cast<double>(count) / took;
    }

  private:
    void make_pool(std::size_t ready, std::size_t makers = 2) {
        if (!pool_)
            pool_.emplace(io_, spec_, kumiki::pool_options{.ready = ready, .at_once = makers});
    }

    static task<sample> once(starter* self, container_pool* pool) {
        stamp_pipe output;
        const std::uint64_t start = now();
        std::uint64_t first = 0;
        {
            std::optional<container> box;
            if (pool != nullptr) {
                kumiki::command_changes changes;
                changes.stdio = {stdio::null(), output.write_end(), stdio::null()};
                auto started = co_await pool->start(std::move(changes));
                box.emplace(std::move(started));
            } else {
                kumiki::container_spec spec = self->spec_;
                spec.process.stdio = {stdio::null(), output.write_end(), stdio::null()};
                auto started = co_await container::start(self->io_, std::move(spec));
                box.emplace(std::move(started));
            }
            first = output.wait();
            co_await ended(*box);
        }
        const std::uint64_t end = now();
        co_return sample{.first = static_cast<double>(first - start) / 1000,
                         .released = static_cast<double>(end - start) / 1000};
    }
    static task<void> ended(container& box) {
        auto result = co_await box.wait();
        if (result.exit_code() != 0)
            throw kumiki::error(
                0, {.operation = "run", .object = "the payload", .remedy = "It must end with 0."});
    }
    static task<void> work(starter* self, container_pool* pool) {
        while (self->left_ > 0 && interrupted == 0) {
            --self->left_;
            if (pool != nullptr) {
                auto box = co_await pool->start();
                co_await ended(box);
            } else {
                auto box = co_await container::start(self->io_, self->spec_);
                co_await ended(box);
            }
        }
    }
    static task<void> all(std::vector<task<void>> workers) {
        co_await kumiki::when_all(std::move(workers));
    }

    kumiki::scheduler io_;
    std::optional<kumiki::bridge_network> network_;
    kumiki::container_spec spec_;
    std::optional<container_pool> pool_;
    std::size_t left_ = 0;
};

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
        "\nLinux {}, {} processors. Milliseconds: median (quartiles; minimum).\n\n"
        "| start | samples | to the payload's first instruction | to all released |\n"
        "|---|---|---|---|\n",
        json["kernel"].get<std::string>(), json["processors"].get<unsigned>());
    for (auto& [name, each] : field) {
        if (each.first.empty()) continue;
        fmt::print("| {} | {} | {} | {} |\n", name, each.first.size(), cell(each.first),
                   cell(each.released));
        json["pool"][name] = to_json(each);
    }
    fmt::print("\n| ratio of medians (95 %) | first instruction | all released |\n|---|---|---|\n");
    for (const auto& [above, below] : {std::pair{"warm", "cold"}, {"warm+net", "cold+net"}}) {
        if (!field.contains(above) || !field.contains(below)) continue;
        const ratio first = ratio_of_medians(field[above].first, field[below].first);
        const ratio released = ratio_of_medians(field[above].released, field[below].released);
        fmt::print("| {} / {} | {} | {} |\n", above, below, cell(first), cell(released));
        json["ratios"][fmt::format("{} / {}", above, below)] = {{"first", to_json(first)},
                                                                {"released", to_json(released)}};
    }
    return json;
}

void run(const start_options& wanted) {
    const place where(wanted.busybox, wanted.payload);
    starter alone(where, false);
    starter connected(where, true);
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
                starter& of = row.networked ? connected : alone;
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
            json["rates"][row.name] = row.rates;
        }
    }
    wanted.write(json);
}

constexpr const char* usage =
    "bench_pool --payload FILE [--rounds N] [--only NAME]... [--json FILE] [--busybox FILE]\n"
    "NAME is cold, warm, cold+net, warm+net or rate.\n";

bool parse(int argc, char** argv, start_options& to) { return parse_start_options(argc, argv, to); }

}  // namespace
}  // namespace bench

int main(int argc, char** argv) {
    using namespace bench;
    return main_of(argc, argv, "bench_pool", usage, parse, run);
}
