#include <sys/wait.h>

#include <stdexcept>

#include <kumiki/async/scope.hpp>

#include "async/both_backends.hpp"

using namespace kumiki;
using namespace kumiki_test;
using namespace std::chrono_literals;

namespace {

task<void> count_up(scheduler& io, int& count, counted) {
    co_await io.sleep_for(1ms);
    ++count;
}
task<void> fail(scheduler& io) {
    co_await io.yield();
    throw std::runtime_error("failed");
}
task<void> wait_long(scheduler& io, std::string& log, counted) {
    try {
        co_await never(io);
    } catch (const cancelled&) {
        log += "stopped ";
        throw;
    }
}

}  // namespace

TEST_CASE("a scope runs what is spawned, and join waits for it", "[scope]") {
    KUMIKI_ON_BOTH_BACKENDS(io);
    const auto work = [](scheduler& on, int& count) -> task<std::size_t> {
        scope tasks(on);
        for (int i = 0; i < 100; ++i) tasks.spawn(count_up(on, count, {}));
        const std::size_t running = tasks.running();
        co_await tasks.join();
        co_await tasks.join();
        co_return running;
    };
    int count = 0;
    CHECK(io.run(work(io, count)) == 100);
    CHECK(count == 100);
    CHECK(counted::alive == 0);
}

TEST_CASE("a task that fails stops the others, and join throws its exception", "[scope]") {
    KUMIKI_ON_BOTH_BACKENDS(io);
    const auto work = [](scheduler& on, std::string& log) -> task<void> {
        scope tasks(on);
        tasks.spawn(wait_long(on, log, {}));
        tasks.spawn(fail(on));
        co_await tasks.join();
    };
    std::string log;
    CHECK_THROWS_AS(io.run(work(io, log)), std::runtime_error);
    CHECK(log == "stopped ");
    CHECK(counted::alive == 0);
}

TEST_CASE("cancel stops the tasks, and is no failure", "[scope]") {
    KUMIKI_ON_BOTH_BACKENDS(io);
    const auto work = [](scheduler& on, std::string& log) -> task<void> {
        scope tasks(on);
        tasks.spawn(wait_long(on, log, {}));
        co_await on.sleep_for(1ms);
        tasks.cancel();
        tasks.spawn(wait_long(on, log, {}));
        co_await tasks.join();
    };
    std::string log;
    io.run(work(io, log));
    CHECK(log == "stopped stopped ");
}

TEST_CASE("a stop of the joining task stops the tasks and is seen by it", "[scope]") {
    KUMIKI_ON_BOTH_BACKENDS(io);
    const auto work = [](scheduler& on, std::string& log) -> task<void> {
        scope tasks(on);
        tasks.spawn(wait_long(on, log, {}));
        co_await tasks.join();
    };
    std::string log;
    std::stop_source source;
    io.post([&] { source.request_stop(); });
    CHECK_THROWS_AS(io.run(work(io, log), source.get_token()), cancelled);
    CHECK(log == "stopped ");
}

TEST_CASE("with_scope awaits its tasks though the body fails", "[scope]") {
    KUMIKI_ON_BOTH_BACKENDS(io);
    std::string log;
    CHECK_THROWS_AS(io.run(with_scope(io,
                                      [&](scope& tasks) -> task<void> {
                                          tasks.spawn(wait_long(io, log, {}));
                                          co_await io.sleep_for(1ms);
                                          throw std::runtime_error("body");
                                      })),
                    std::runtime_error);
    CHECK(log == "stopped ");
    CHECK(counted::alive == 0);
}

TEST_CASE("with_scope stops its body when a task fails", "[scope]") {
    KUMIKI_ON_BOTH_BACKENDS(io);
    CHECK_THROWS_AS(io.run(with_scope(io,
                                      [&](scope& tasks) -> task<void> {
                                          tasks.spawn(fail(io));
                                          co_await never(io);
                                      })),
                    std::runtime_error);
}

TEST_CASE("with_scope is stopped from above", "[scope]") {
    KUMIKI_ON_BOTH_BACKENDS(io);
    std::string log;
    std::stop_source source;
    io.post([&] { source.request_stop(); });
    CHECK_THROWS_AS(io.run(with_scope(io,
                                      [&](scope& tasks) -> task<void> {
                                          tasks.spawn(wait_long(io, log, {}));
                                          co_await never(io);
                                      }),
                           source.get_token()),
                    cancelled);
    CHECK(log == "stopped ");
}

TEST_CASE("a frame that is destroyed in join destroys the tasks", "[scope]") {
    KUMIKI_ON_BOTH_BACKENDS(io);
    std::string log;
    const auto work = [](scheduler& on, std::string& to) -> task<void> {
        scope tasks(on);
        tasks.spawn(wait_long(on, to, {}));
        co_await tasks.join();
    };
    { const in_flight joining(io, work(io, log)); }
    CHECK(counted::alive == 0);
}

TEST_CASE("a scope that dies with running tasks ends the program", "[scope]") {
    const auto careless = [](scheduler& on) -> task<void> {
        scope tasks(on);
        tasks.spawn(never(on));
        co_await on.sleep_for(1ms);
    };
    CHECK(dies([&careless] {
              scheduler io;
              io.run(careless(io));
          }).find("join") != std::string::npos);
}
