#include <array>
#include <atomic>
#include <memory>
#include <optional>
#include <random>
#include <stdexcept>
#include <thread>
#include <vector>

#include <kumiki/async/event_counter.hpp>
#include <kumiki/async/move.hpp>
#include <kumiki/async/scope.hpp>
#include <kumiki/async/stop.hpp>
#include <kumiki/async/timeout.hpp>
#include <kumiki/async/when.hpp>

#include "async/both_backends.hpp"

using namespace kumiki;
using namespace kumiki_test;
using namespace std::chrono_literals;

namespace {

/// A thread with a scheduler that runs until this is destroyed.
class other_thread {
  public:
    explicit other_thread(io_backend backend)
        : thread_([this, backend](const std::stop_token& stop) {
              scheduler io({.backend = backend});
              io_ = &io;
              try {
                  io.run(never(io), stop);
              } catch (const cancelled&) {}
          }) {
        while (io_.load() == nullptr) std::this_thread::yield();
    }
    scheduler& io() { return *io_.load(); }
    std::thread::id id() const { return thread_.get_id(); }

  private:
    std::atomic<scheduler*> io_ = nullptr;
    std::jthread thread_;
};

using places = std::vector<std::thread::id>;

task<int> there(scheduler& io, places& seen, counted) {
    seen.push_back(std::this_thread::get_id());
    co_await io.sleep_for(1ms);
    seen.push_back(std::this_thread::get_id());
    co_return 5;
}
task<int> there_and_fail(scheduler& io) {
    co_await io.yield();
    throw std::runtime_error("over there");
}
task<int> ask(scheduler& other, places& seen) {
    seen.push_back(std::this_thread::get_id());
    const int value = co_await schedule_on(other, there(other, seen, {}));
    seen.push_back(std::this_thread::get_id());
    co_return value;
}

/// Ends on `other`, having begun here.
task<int> stay_there(scheduler& other, places& seen, counted) {
    co_await move_to(other);
    co_await move_to(other);  // nothing to do
    co_await other.sleep_for(100us);
    seen.push_back(std::this_thread::get_id());
    co_return 1;
}
task<void> in_every_way(scheduler& io, scheduler& other, places& seen) {
    const auto here = std::this_thread::get_id();
    const auto require_here = [here] {
        if (std::this_thread::get_id() != here) throw std::logic_error("not back home");
    };
    const int one = co_await stay_there(other, seen, {});
    require_here();
    const auto both = co_await when_all(stay_there(other, seen, {}), stay_there(other, seen, {}));
    require_here();
    const auto first = co_await when_any(stay_there(other, seen, {}), never(io));
    require_here();
    const auto timely = co_await with_timeout(io, 10s, stay_there(other, seen, {}));
    require_here();
    const auto late = co_await with_timeout(io, 2ms, schedule_on(other, never(other)));
    require_here();
    if (one != 1 || std::get<0>(both) != 1 || first.index() != 0 || !timely || late)
        throw std::logic_error("a result is wrong");
}

task<void> there_and_back(scheduler& io, scheduler& other, int count) {
    const auto here = std::this_thread::get_id();
    for (int i = 0; i < count; ++i) {
        co_await move_to(other);
        if (std::this_thread::get_id() == here) throw std::logic_error("did not move");
        co_await move_to(io);
        if (std::this_thread::get_id() != here) throw std::logic_error("did not come back");
    }
}

task<void> wander(std::array<scheduler*, 2> schedulers, unsigned seed, counted) {
    std::mt19937 random(seed);
    for (;;) {
        scheduler& io = *schedulers[random() % 2];
        co_await move_to(io);
        co_await io.sleep_for(std::chrono::microseconds(random() % 50));
    }
}
task<void> spawn_wanderers(scheduler& io, scheduler& other, int count) {
    co_await with_scope(io, [&io, &other, count](scope& tasks) -> task<void> {
        for (int i = 0; i < count; ++i)
            tasks.spawn(wander({&io, &other}, static_cast<unsigned>(i), {}));
        co_await never(io);
    });
}

/// Moves to a scheduler that ends before the task has arrived.
task<void> move_and_note(scheduler& other, bool& was_cancelled, counted) {
    try {
        co_await move_to(other);
    } catch (const cancelled&) {
        was_cancelled = true;
    }
}

task<void> cleanup_at_home(scheduler& io, scheduler& other, std::thread::id& where) {
    bool stopped = false;
    try {
        co_await move_to(other);
        co_await never(other);
    } catch (const cancelled&) {
        stopped = true;
    }
    if (!stopped) co_return;
    co_await move_to(io);  // though the task is stopped
    where = std::this_thread::get_id();
}

}  // namespace

TEST_CASE("work is done on another scheduler and its result comes home", "[move]") {
    KUMIKI_ON_BOTH_BACKENDS(io);
    other_thread other(io_backend);
    places seen;
    CHECK(io.run(ask(other.io(), seen)) == 5);
    const auto here = std::this_thread::get_id();
    CHECK(seen == places{here, other.id(), other.id(), here});
    CHECK_THROWS_WITH(io.run(schedule_on(other.io(), there_and_fail(other.io()))), "over there");
    CHECK(counted::alive == 0);
}

TEST_CASE("whoever awaits a task that moved goes on where it was", "[move]") {
    KUMIKI_ON_BOTH_BACKENDS(io);
    other_thread other(io_backend);
    places seen;
    io.run(in_every_way(io, other.io(), seen));
    CHECK(seen == places(5, other.id()));
    CHECK(counted::alive == 0);
}

TEST_CASE("a task moves ten thousand times", "[move]") {
    KUMIKI_ON_BOTH_BACKENDS(io);
    other_thread other(io_backend);
    io.run(there_and_back(io, other.io(), 10'000));
    CHECK(io.counters().in_flight == 0);
}

TEST_CASE("tasks that wander between schedulers are stopped from a third thread", "[move]") {
    KUMIKI_ON_BOTH_BACKENDS(io);
    other_thread other(io_backend);
    for (unsigned round = 0; round < 20; ++round) {
        std::stop_source source;
        std::thread third([&source, round] {
            std::this_thread::sleep_for(std::chrono::microseconds(round * 200));
            source.request_stop();
        });
        CHECK_THROWS_AS(io.run(spawn_wanderers(io, other.io(), 20), source.get_token()), cancelled);
        third.join();
        REQUIRE(counted::alive == 0);
        REQUIRE(io.counters().in_flight == 0);
    }
}

TEST_CASE("a task that was to move to a scheduler that ends goes on at home", "[move]") {
    KUMIKI_ON_BOTH_BACKENDS(io);
    auto other = std::make_unique<scheduler>(scheduler_options{.backend = io_backend});
    bool was_cancelled = false;
    in_flight moving(io, move_and_note(*other, was_cancelled, {}));
    CHECK_FALSE(moving.is_done());
    other.reset();
    io.run(io.sleep_for(1ms));
    CHECK(moving.is_done());
    CHECK(was_cancelled);
}

TEST_CASE("a task that is stopped can move home to clean up", "[move]") {
    KUMIKI_ON_BOTH_BACKENDS(io);
    other_thread other(io_backend);
    std::stop_source source;
    std::thread third([&source] {
        std::this_thread::sleep_for(2ms);
        source.request_stop();
    });
    std::thread::id where;
    io.run(cleanup_at_home(io, other.io(), where), source.get_token());
    third.join();
    CHECK(where == std::this_thread::get_id());
}

TEST_CASE("what belongs to another scheduler is refused with a message", "[move]") {
    const auto time_limit = [](scheduler& second) -> task<void> {
        co_await with_timeout(second, 1ms, second.yield());
    };
    CHECK(dies([&time_limit] {
              scheduler first;
              scheduler second;
              first.run(time_limit(second));
          }).find("time limit") != std::string::npos);
    CHECK(dies([] {
              scheduler io;
              scope tasks(io);
              std::thread([&] { tasks.spawn(never(io)); }).join();
          }).find("spawned on a thread") != std::string::npos);
}
