#include <stdexcept>

#include <kumiki/async/stream.hpp>
#include <kumiki/async/timeout.hpp>
#include <kumiki/async/when.hpp>

#include "async/both_backends.hpp"

using namespace kumiki;
using namespace kumiki_test;
using namespace std::chrono_literals;

namespace {

stream<int> numbers(scheduler& io, int count, counted) {
    for (int i = 0; i < count; ++i) {
        if (i % 2 == 1) co_await io.sleep_for(1us);
        co_yield i;
    }
}
stream<std::unique_ptr<int>> fails(scheduler& io) {
    co_yield std::make_unique<int>(1);
    co_await io.yield();
    throw std::runtime_error("failed");
}
stream<int> waits(scheduler& io) {
    co_await never(io);
    co_yield 1;
}
task<int> sum(scheduler& io, int count) {
    stream<int> source = numbers(io, count, {});
    int total = 0;
    while (auto value = co_await source.next()) total += *value;
    const auto after = co_await source.next();
    co_return after ? -1 : total;
}
task<int> first_two(scheduler& io) {
    stream<int> source = numbers(io, 100, {});
    const auto one = co_await source.next();
    const auto two = co_await source.next();
    co_return *one + *two;
}

}  // namespace

TEST_CASE("a stream yields its values and then nothing", "[stream]") {
    KUMIKI_ON_BOTH_BACKENDS(io);
    CHECK(io.run(sum(io, 100)) == 4950);
    CHECK(io.run(sum(io, 0)) == 0);
    CHECK(counted::alive == 0);
}

TEST_CASE("a stream that is destroyed early releases what it holds", "[stream]") {
    KUMIKI_ON_BOTH_BACKENDS(io);
    CHECK(io.run(first_two(io)) == 1);
    CHECK(counted::alive == 0);
}

TEST_CASE("a stream's exception comes out of next, once", "[stream]") {
    KUMIKI_ON_BOTH_BACKENDS(io);
    const auto use = [](scheduler& on) -> task<std::string> {
        auto source = fails(on);
        std::string log;
        const auto first = co_await source.next();
        log += std::to_string(**first);
        try {
            co_await source.next();
        } catch (const std::runtime_error&) {
            log += " failed";
        }
        const auto last = co_await source.next();
        co_return log + (last ? " more" : " end");
    };
    CHECK(io.run(use(io)) == "1 failed end");
}

TEST_CASE("a time limit around next ends a stream", "[stream]") {
    KUMIKI_ON_BOTH_BACKENDS(io);
    const auto use = [](scheduler& on) -> task<bool> {
        auto source = waits(on);
        const auto value = co_await with_timeout(on, 1ms, source.next());
        if (value) co_return false;
        const auto after = co_await source.next();
        co_return !after.has_value();
    };
    CHECK(io.run(use(io)));
}

TEST_CASE("an empty stream is at its end", "[stream]") {
    scheduler io;
    const auto use = []() -> task<bool> {
        stream<int> none;
        const auto value = co_await none.next();
        co_return value.has_value();
    };
    CHECK(!io.run(use()));
}

TEST_CASE("100,000 values that are ready at once do not use up the stack", "[stream]") {
    scheduler io;
    const auto source = [](int count) -> stream<int> {
        for (int i = 0; i < count; ++i) co_yield 1;
    };
    const auto use = [](stream<int> from) -> task<int> {
        int total = 0;
        while (auto value = co_await from.next()) total += *value;
        co_return total;
    };
    CHECK(io.run(use(source(100'000))) == 100'000);
}
