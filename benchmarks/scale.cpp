// bench_scale: kumiki where it is large: a parent of much memory or many threads, many starts at a
// time, many living containers. benchmarks/run builds it; see docs/performance.md.
#include <fcntl.h>
#include <malloc.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <fstream>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <kumiki/async/scope.hpp>

#include "support/durations.hpp"
#include "support/field.hpp"
#include "support/floor.hpp"
#include "support/options.hpp"
#include "support/ours.hpp"

namespace bench {
namespace {

/// The number after `key` in a file of lines "key: N kB"; 0 when it is not there.
std::uint64_t kibibytes(const char* path, std::string_view key) {
    std::ifstream file(path);
    for (std::string line; std::getline(file, line);)
        if (line.starts_with(key)) {
            const auto digits = line.find_first_of("0123456789");
            return digits == std::string::npos ? 0 : std::stoull(line.substr(digits));
        }
    return 0;
}

/// Memory of this process that a fork would have to copy the page tables of: in small pages, all
/// written.
class ballast {
  public:
    explicit ballast(std::size_t size) : size_(size) {
        void* memory =
            ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (memory == MAP_FAILED) sys::check(-1, "mmap");
        bytes_ = static_cast<volatile char*>(memory);
        ::madvise(memory, size, MADV_NOHUGEPAGE);
        for (std::size_t at = 0; at < size; at += 4096) bytes_[at] = 1;
    }
    ballast(const ballast&) = delete;
    ballast& operator=(const ballast&) = delete;
    ~ballast() { ::munmap(const_cast<char*>(bytes_), size_); }

  private:
    std::size_t size_;
    volatile char* bytes_;
};

/// Threads that wait and do nothing else.
class idle_threads {
  public:
    explicit idle_threads(std::size_t count) {
        for (std::size_t i = 0; i < count; ++i)
            threads_.emplace_back([this] {
                std::unique_lock hold(mutex_);
                over_.wait(hold, [this] { return is_over_; });
            });
    }
    idle_threads(const idle_threads&) = delete;
    idle_threads& operator=(const idle_threads&) = delete;
    ~idle_threads() {
        {
            const std::lock_guard hold(mutex_);
            is_over_ = true;
        }
        over_.notify_all();
        for (std::thread& each : threads_) each.join();
    }

  private:
    std::mutex mutex_;
    std::condition_variable over_;
    bool is_over_ = false;
    std::vector<std::thread> threads_;
};

struct row {
    std::string name;
    using many = std::vector<durations>;
    std::shared_ptr<many> floor_steps = std::make_shared<many>();
    std::shared_ptr<many> ours_steps = std::make_shared<many>();
    contender floor;
    contender ours;

    row(std::string of, floor_start& bare, kumiki_start& kumiki)
        : name(std::move(of)), floor{.name = "bare",
                                     .run =
                                         [&bare, to = floor_steps] {
                                             const sample one = bare.run();
                                             to->push_back(durations_of(bare, one));
                                             return one;
                                         }},
          ours{.name = "kumiki", .run = [&kumiki, to = ours_steps] {
                   const sample one = kumiki.run(false);
                   to->push_back(durations_of(kumiki, one));
                   return one;
               }} {}
    void measure(std::size_t rounds) {
        constexpr std::size_t settling = 5;  // the caches are full of other things
        bench::measure({&floor, &ours}, rounds, settling);
    }
};

constexpr std::size_t blocks = 4;

void print(const char* title, const std::vector<row>& rows, nlohmann::json& json) {
    fmt::print(
        "\n{}: milliseconds, median (quartiles; minimum).\n\n"
        "| | | samples | to the payload's first instruction | to all released |\n"
        "|---|---|---|---|---|\n",
        title);
    for (const row& each : rows)
        for (const contender* who : {&each.floor, &each.ours}) {
            fmt::print("| {} | {} | {} | {} | {} |\n", each.name, who->name, who->first.size(),
                       cell(who->first), cell(who->released));
            json[each.name][who->name] = to_json(*who);
        }
    for (std::size_t i = 1; i < rows.size(); ++i)
        fmt::print("| {} / {} | kumiki | | {} | {} |\n", rows[i].name, rows[0].name,
                   cell(ratio_of_medians(rows[i].ours.first, rows[0].ours.first)),
                   cell(ratio_of_medians(rows[i].ours.released, rows[0].ours.released)));
}

/// The steps whose medians differ most between the first row and the last.
void print_growth(const std::vector<row>& rows, nlohmann::json& json) {
    constexpr double least_us = 10;
    fmt::print(
        "\nSteps that take longer; microseconds, medians.\n\n"
        "| | | {} | {} | more |\n|---|---|---|---|---|\n",
        rows.front().name, rows.back().name);
    for (const bool is_ours : {false, true}) {
        const auto medians = [&](const row& of) {
            return medians_of(is_ours ? *of.ours_steps : *of.floor_steps);
        };
        const char* who = is_ours ? "kumiki" : "bare";
        const durations before = medians(rows.front());
        for (const auto& [name, after] : medians(rows.back())) {
            const auto at = before.find(name);
            if (at == before.end() || after - at->second < least_us) continue;
            fmt::print("| {} | {} | {:.0f} | {:.0f} | {:.0f} |\n", who, name, at->second, after,
                       after - at->second);
            json[who][name] = {{"before_us", at->second}, {"after_us", after}};
        }
    }
}

/// In blocks, so that all sizes meet the same weather.
nlohmann::json measure_parents(floor_start& bare, kumiki_start& ours, std::size_t rounds) {
    struct parent {
        const char* name;
        std::size_t bytes;
    };
    static constexpr parent sizes[] = {{"10 MiB", std::size_t{10} << 20},
                                       {"1 GiB", std::size_t{1} << 30},
                                       {"8 GiB", std::size_t{8} << 30}};
    std::vector<parent> possible;
    for (const parent& each : sizes) {
        constexpr std::uint64_t spare = std::uint64_t{2} << 20;  // KiB that others keep
        if (each.bytes / 1024 + spare < kibibytes("/proc/meminfo", "MemAvailable"))
            possible.push_back(each);
        else
            fmt::print("A parent of {} does not fit into the memory that is free here.\n",
                       each.name);
    }
    std::vector<row> rows;
    for (const parent& each : possible) rows.emplace_back(each.name, bare, ours);
    for (std::size_t block = 0; block < blocks && interrupted == 0; ++block)
        for (std::size_t i = 0; i < rows.size(); ++i) {
            const ballast weight(possible[i].bytes);
            rows[i].measure(std::max<std::size_t>(rounds / blocks, 5));
        }
    nlohmann::json json;
    print("From a parent of so much memory, all of it written", rows, json);
    return json;
}

nlohmann::json measure_threads(floor_start& bare, kumiki_start& ours, std::size_t rounds) {
    static constexpr std::size_t counts[] = {1, 16, 64};
    std::vector<row> rows;
    for (const std::size_t each : counts)
        rows.emplace_back(fmt::format("{} thread{}", each, each == 1 ? "" : "s"), bare, ours);
    for (std::size_t block = 0; block < blocks && interrupted == 0; ++block)
        for (std::size_t i = 0; i < rows.size(); ++i) {
            const idle_threads others(counts[i] - 1);
            rows[i].measure(std::max<std::size_t>(rounds / blocks, 5));
        }
    nlohmann::json json;
    print("From a parent of so many threads (kumiki's own two are not counted)", rows, json);
    return json;
}

/// `start` is when it was asked for, its wait for its turn included.
kumiki::task<void> start_one(kumiki_start& ours, std::uint64_t start, std::vector<sample>& to) {
    stamp_pipe output;
    {
        kumiki::container_spec spec = ours.spec({"/bin/payload"}, output.write_end());
        auto box = co_await kumiki::container::start(ours.io(), std::move(spec));
        auto result = co_await box.wait();
        (void)result;
    }
    const std::uint64_t end = now();
    // Written before it ended: nobody waits here.
    to.push_back({.first = static_cast<double>(output.wait() - start) / 1000,
                  .released = static_cast<double>(end - start) / 1000});
}
kumiki::task<void> start_together(kumiki_start& ours, std::size_t count, std::vector<sample>& to) {
    kumiki::scope all(ours.io());
    const std::uint64_t before = now();
    for (std::size_t i = 0; i < count; ++i) all.spawn(start_one(ours, before, to));
    co_await all.join();
}

nlohmann::json measure_together(kumiki_start& ours, std::size_t rounds) {
    static constexpr std::size_t counts[] = {1, 2, 4, 8, 16, 32, 64};
    constexpr std::size_t count = std::size(counts);
    std::array<std::vector<sample>, count> samples;
    std::array<std::vector<double>, count> wall_us;
    const std::size_t times = std::max<std::size_t>(rounds / 10, 3);
    for (std::size_t round = 0; round <= times && interrupted == 0; ++round)
        for (std::size_t i = 0; i < count; ++i) {
            // The fewer at a time, the more often: each count has its 64.
            for (std::size_t done = 0; done < 64; done += counts[i]) {
                std::vector<sample> some;
                const std::uint64_t before = now();
                ours.io().run(start_together(ours, counts[i], some));
                const auto took = static_cast<double>(now() - before) / 1000;
                if (round == 0) continue;  // not counted
                samples[i].insert(samples[i].end(), some.begin(), some.end());
                wall_us[i].push_back(took);
            }
            settle();
        }
    nlohmann::json json;
    fmt::print(
        "\nStarts at a time, one scheduler on one thread; milliseconds.\n\n"
        "| at a time | containers a second, all released | samples | first instruction: median | "
        "99 % | all released: median | 99 % |\n|---|---|---|---|---|---|---|\n");
    for (std::size_t i = 0; i < count; ++i) {
        contender all{.name = "kumiki", .run = {}};
        for (const sample& each : samples[i]) {
            all.first.push_back(each.first);
            all.released.push_back(each.released);
        }
        if (all.first.empty()) continue;
        const auto p99 = [](std::vector<double> of) {
            std::ranges::sort(of);
            return quantile(of, 0.99);
        };
        const double rate =
            static_cast<double>(counts[i]) / summarise(wall_us[i]).median * 1'000'000;
        fmt::print("| {} | {:.0f} | {} | {:.2f} | {:.2f} | {:.2f} | {:.2f} |\n", counts[i], rate,
                   all.first.size(), summarise(all.first).median / 1000, p99(all.first) / 1000,
                   summarise(all.released).median / 1000, p99(all.released) / 1000);
        auto& to = json[std::to_string(counts[i])]["kumiki"];
        to = to_json(all);
        to["first"]["p99_us"] = p99(all.first);
        to["released"]["p99_us"] = p99(all.released);
        to["per_second"] = rate;
    }
    return json;
}

/// Containers that run and do nothing.
class population {
  public:
    population(kumiki_start& ours, int output) : ours_(&ours), output_(output) {}
    void grow_to(std::size_t count) {
        while (all_.size() < count && interrupted == 0) ours_->io().run(add(this));
    }
    /// Ends all, one after the other: microseconds of each, from the kill to all released.
    void end_all(std::vector<double>& teardown_us) {
        while (!all_.empty()) {
            const std::uint64_t before = now();
            ours_->io().run(end_last(this));
            teardown_us.push_back(static_cast<double>(now() - before) / 1000);
        }
    }
    std::size_t size() const noexcept { return all_.size(); }

  private:
    static kumiki::task<void> add(population* self) {
        kumiki::container_spec spec =
            self->ours_->spec({"/bin/busybox", "sleep", "100000"}, self->output_);
        auto box = co_await kumiki::container::start(self->ours_->io(), std::move(spec));
        self->all_.push_back(std::move(box));
    }
    static kumiki::task<void> end_last(population* self) {
        kumiki::container last = std::move(self->all_.back());
        self->all_.pop_back();
        auto result = co_await last.stop(std::chrono::nanoseconds(0));
        (void)result;
    }

    kumiki_start* ours_;
    int output_;
    std::vector<kumiki::container> all_;
};

nlohmann::json measure_alive(floor_start& bare, kumiki_start& ours, std::size_t rounds) {
    static constexpr std::size_t counts[] = {0, 100, 1000};
    rlimit files{};
    ::getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    ::setrlimit(RLIMIT_NOFILE, &files);
    const unique_fd nowhere = sys::open_at(AT_FDCWD, "/dev/null", O_WRONLY);
    std::vector<row> rows;
    for (const std::size_t each : counts) rows.emplace_back(std::to_string(each), bare, ours);
    std::vector<double> teardown_us;
    double heap_each = 0;
    double private_each = 0;
    double descriptors_each = 0;
    const auto descriptors = [] {
        return static_cast<double>(
            std::distance(fs::directory_iterator("/proc/self/fd"), fs::directory_iterator()));
    };
    constexpr std::size_t times = 2;  // to start a thousand takes its seconds
    for (std::size_t block = 0; block < times && interrupted == 0; ++block) {
        population alive(ours, nowhere.get());
        double heap = 0;
        double unshared = 0;
        double open = 0;
        for (std::size_t i = 0; i < std::size(counts) && interrupted == 0; ++i) {
            alive.grow_to(counts[i]);
            rows[i].measure(std::max<std::size_t>(rounds / times, 5));
            if (i == 0) {
                heap = static_cast<double>(::mallinfo2().uordblks);
                unshared = static_cast<double>(
                    kibibytes("/proc/self/smaps_rollup", "Private_Dirty") * 1024);
                open = descriptors();
            }
        }
        if (block == 0 && alive.size() == counts[2]) {  // later there is room left in the heap
            const auto count = static_cast<double>(alive.size());
            heap_each = (static_cast<double>(::mallinfo2().uordblks) - heap) / count;
            private_each =
                (static_cast<double>(kibibytes("/proc/self/smaps_rollup", "Private_Dirty") * 1024) -
                 unshared) /
                count;
            descriptors_each = (descriptors() - open) / count;
        }
        alive.end_all(teardown_us);
    }
    nlohmann::json json;
    print("Beside so many living containers", rows, json["alive"]);
    print_growth(rows, json["growth"]);
    const summary down = summarise(teardown_us);
    fmt::print(
        "\nThe supervisor holds {:.0f} bytes of heap ({:.0f} of private memory) and {:.1f} "
        "descriptors for each of {} living containers.\n"
        "From the kill of a living one to all released: {:.2f} ms (quartiles {:.2f} to {:.2f}).\n",
        heap_each, private_each, descriptors_each, counts[2], down.median / 1000,
        down.lower_quartile / 1000, down.upper_quartile / 1000);
    json["teardown"] = {{"kumiki", to_json(teardown_us)}};
    json["memory"] = {{"heap_bytes_each", heap_each},
                      {"private_bytes_each", private_each},
                      {"descriptors_each", descriptors_each}};
    return json;
}

void run(const start_options& wanted) {
    const place where(wanted.busybox, wanted.payload);
    floor_start bare(where, nullptr);
    kumiki_start ours(where);
    warn_of_load();
    nlohmann::json json = host();
    // First, for the others leave a heap behind in which there is room for a thousand.
    if (wanted.wants("alive")) json.update(measure_alive(bare, ours, wanted.rounds));
    if (wanted.wants("parents")) json["parents"] = measure_parents(bare, ours, wanted.rounds);
    if (wanted.wants("threads")) json["threads"] = measure_threads(bare, ours, wanted.rounds);
    if (wanted.wants("together")) json["together"] = measure_together(ours, wanted.rounds);
    wanted.write(json);
}

bool parse(int argc, char** argv, start_options& to) { return parse_start_options(argc, argv, to); }

}  // namespace
}  // namespace bench

int main(int argc, char** argv) {
    using namespace bench;
    return main_of(argc, argv, "bench_scale", start_usage, parse, run);
}
