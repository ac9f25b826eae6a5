#include <stdexcept>

#include <kumiki/async/stop.hpp>
#include <kumiki/async/when.hpp>

#include "async/both_backends.hpp"

using namespace kumiki;
using namespace kumiki_test;
using namespace std::chrono_literals;

namespace {

task<int> later(scheduler& io, std::chrono::milliseconds span, int value) {
    co_await io.sleep_for(span);
    co_return value;
}
task<void> log_stop(scheduler& io, std::string& log, counted) {
    try {
        co_await never(io);
    } catch (const cancelled&) {
        log += "stopped ";
        throw;
    }
}
task<int> fails_after(scheduler& io, std::chrono::milliseconds span) {
    co_await io.sleep_for(span);
    throw std::runtime_error("failed");
}
task<void> wait_all(scheduler& io, std::string& log) {
    co_await when_all(fails_after(io, 1ms), log_stop(io, log, {}), log_stop(io, log, {}));
}
task<std::size_t> winner(scheduler& io, std::string& log, int fd) {
    std::string text(8, '\0');
    auto first =
        co_await when_any(log_stop(io, log, {}), later(io, 1ms, 5), io.read(fd, writable(text)));
    log += std::to_string(counted::alive);
    co_return first.index();
}
task<int> stop_below(scheduler& io) {
    const auto both = co_await when_all(later(io, 1ms, 1), later(io, 1ms, 2));
    co_return std::get<0>(both) + std::get<1>(both);
}

}  // namespace

TEST_CASE("when_all yields every value, nothing as monostate", "[when]") {
    KUMIKI_ON_BOTH_BACKENDS(io);
    const auto nothing = [](scheduler& on) -> task<void> { co_await on.yield(); };
    const auto values = io.run(when_all(later(io, 2ms, 1), nothing(io), later(io, 1ms, 3)));
    CHECK(std::get<0>(values) == 1);
    CHECK(std::get<1>(values) == std::monostate{});
    CHECK(std::get<2>(values) == 3);
    CHECK(io.run(stop_below(io)) == 3);
}

TEST_CASE("when_all stops and awaits the others when one fails", "[when]") {
    KUMIKI_ON_BOTH_BACKENDS(io);
    std::string log;
    CHECK_THROWS_AS(io.run(wait_all(io, log)), std::runtime_error);
    CHECK(log == "stopped stopped ");
    CHECK(counted::alive == 0);
}

TEST_CASE("when_any stops, awaits and releases the losers", "[when]") {
    KUMIKI_ON_BOTH_BACKENDS(io);
    const auto pipe = make_pipe();
    std::string log;
    CHECK(io.run(winner(io, log, pipe.first.get())) == 1);
    CHECK(log == "stopped 0");
    put(pipe.second.get(), "kept");
    char text[8];
    CHECK(::read(pipe.first.get(), text, sizeof text) == 4);
}

TEST_CASE("when_any throws what the first threw", "[when]") {
    KUMIKI_ON_BOTH_BACKENDS(io);
    CHECK_THROWS_AS(io.run(when_any(fails_after(io, 1ms), later(io, 1h, 1))), std::runtime_error);
}

TEST_CASE("vectors of tasks are awaited together", "[when]") {
    KUMIKI_ON_BOTH_BACKENDS(io);
    std::vector<task<int>> all;
    for (int i = 0; i < 100; ++i) all.push_back(later(io, 0ms, i));
    const auto values = io.run(when_all(std::move(all)));
    REQUIRE(values.size() == 100);
    CHECK(values[99] == 99);
    CHECK(io.run(when_all(std::vector<task<int>>{})).empty());

    std::vector<task<int>> some;
    some.push_back(later(io, 1h, 1));
    some.push_back(later(io, 1ms, 2));
    const auto first = io.run(when_any(std::move(some)));
    CHECK(first.index == 1);
    CHECK(first.value == 2);
    CHECK_THROWS_AS(io.run(when_any(std::vector<task<int>>{})), invalid_input);
}

TEST_CASE("a stop reaches everything that is awaited together", "[when]") {
    KUMIKI_ON_BOTH_BACKENDS(io);
    std::string log;
    std::stop_source source;
    io.post([&] { source.request_stop(); });
    CHECK_THROWS_AS(
        io.run(when_all(log_stop(io, log, {}), log_stop(io, log, {})), source.get_token()),
        cancelled);
    CHECK(log == "stopped stopped ");
}

TEST_CASE("a frame that is destroyed while it awaits a group destroys the group's tasks",
          "[when]") {
    KUMIKI_ON_BOTH_BACKENDS(io);
    std::string log;
    const auto wait = [](scheduler& on, std::string& to) -> task<void> {
        co_await when_all(log_stop(on, to, {}), log_stop(on, to, {}));
    };
    {
        const in_flight waiting(io, wait(io, log));
        CHECK(counted::alive > 0);
    }
    CHECK(counted::alive == 0);
    CHECK(io.loop().operations.size() == 0);
}
