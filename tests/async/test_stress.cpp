// Many tasks that start, wait, time out, fail and are stopped at random, from a fixed seed: every
// frame is destroyed exactly once, every operation is over, every result is delivered once.

#include <cstdlib>
#include <random>
#include <stdexcept>
#include <thread>

#include <kumiki/async/async_semaphore.hpp>
#include <kumiki/async/channel.hpp>
#include <kumiki/async/offload.hpp>
#include <kumiki/async/scope.hpp>
#include <kumiki/async/stream.hpp>
#include <kumiki/async/timeout.hpp>
#include <kumiki/async/when.hpp>

#include "async/both_backends.hpp"

using namespace kumiki;
using namespace kumiki_test;
using namespace std::chrono_literals;

namespace {

/// On each backend and for each of two seeds; virtual machines without KVM ask for less.
std::uint64_t operations_of_a_run() {
    const char* const given = std::getenv("KUMIKI_STRESS_OPERATIONS");
    return given != nullptr ? std::strtoull(given, nullptr, 10) : 500'000;
}

struct world {
    world(scheduler& on, unsigned seed) : io(on), random(seed) {}

    scheduler& io;
    std::mt19937 random;
    async_semaphore seats{io, 5};
    long operations = 0;
    long outcomes = 0;

    unsigned pick(unsigned below) { return static_cast<unsigned>(random() % below); }
};

task<void> ping(world& in, int reader, int writer, counted) {
    std::byte byte[1] = {std::byte{7}};
    const auto written = co_await in.io.write(writer, byte);
    if (written != 1) throw std::logic_error("short write");
    const auto read = co_await in.io.read(reader, byte);
    if (read != 1) throw std::logic_error("short read");
}
stream<unsigned> some_numbers(world& in, counted) {
    for (unsigned i = 0; i < 4; ++i) {
        if (in.pick(2) == 0) co_await in.io.sleep_for(std::chrono::microseconds(in.pick(20)));
        co_yield i;
    }
}

task<void> produce(world& in, channel<unsigned>& to, counted) {
    for (unsigned i = 0; i < 4; ++i) {
        if (in.pick(4) == 0) co_await in.io.yield();
        const auto outcome = co_await to.send(i);
        if (outcome != channel_outcome::sent) throw std::logic_error("send");
    }
    to.close();
}
task<void> consume(world& in, channel<unsigned>& from, counted) {
    unsigned expected = 0;
    for (;;) {
        const auto value = co_await from.receive();
        if (!value) break;
        if (*value != expected++) throw std::logic_error("channel");
        if (in.pick(4) == 0) co_await in.io.sleep_for(std::chrono::microseconds(in.pick(20)));
    }
    if (expected != 4) throw std::logic_error("values were lost");
}

task<void> one(world& in, int depth, counted) {
    ++in.operations;
    switch (in.pick(depth > 0 ? 11 : 5)) {
    case 0:
        co_await in.io.yield();
        break;
    case 1:
        co_await in.io.sleep_for(std::chrono::microseconds(in.pick(100)));
        break;
    case 2: {
        const auto pair = make_socket_pair();
        co_await ping(in, pair.first.get(), pair.second.get(), {});
        break;
    }
    case 3: {
        const auto pipe = make_pipe(in.pick(2) == 0 ? O_NONBLOCK : 0);
        std::byte byte[1];
        const auto limit = std::chrono::microseconds(in.pick(50));
        const auto nothing =
            co_await with_timeout(in.io, limit, in.io.read(pipe.first.get(), byte));
        if (nothing) throw std::logic_error("read from an empty pipe");
        break;
    }
    case 4:
        if (in.pick(20) == 0) {
            const unsigned value = co_await offload(in.io, [] { return 3U; });
            if (value != 3) throw std::logic_error("offload");
        }
        break;
    case 5: {
        const auto both = co_await when_all(one(in, depth - 1, {}), one(in, depth - 1, {}));
        (void)both;
        break;
    }
    case 6: {
        const auto first = co_await when_any(one(in, depth - 1, {}), one(in, depth - 1, {}));
        (void)first;
        break;
    }
    case 7: {
        stream<unsigned> source = some_numbers(in, {});
        const unsigned most = in.pick(6);
        for (unsigned i = 0; i < most; ++i) {
            const auto value = co_await source.next();
            if (value && *value != i) throw std::logic_error("stream");
        }
        break;
    }
    case 8: {
        const auto seat = co_await in.seats.acquire();
        co_await in.io.sleep_for(std::chrono::microseconds(in.pick(20)));
        if (in.pick(2) == 0) co_await in.io.yield();
        break;
    }
    case 9: {
        channel<unsigned> values(in.io, 1 + in.pick(3));
        const auto both = co_await when_all(produce(in, values, {}), consume(in, values, {}));
        (void)both;
        break;
    }
    default: {
        const auto limit = std::chrono::microseconds(in.pick(200));
        const bool ended = co_await with_timeout(in.io, limit, one(in, depth - 1, {}));
        (void)ended;
    }
    }
}

task<void> counted_one(world& in, counted) {
    try {
        co_await one(in, 3, {});
        ++in.outcomes;
    } catch (const cancelled&) {
        ++in.outcomes;
        throw;
    }
}

task<void> batch(world& in, int size) {
    co_await with_scope(in.io, [&in, size](scope& tasks) -> task<void> {
        for (int i = 0; i < size; ++i) tasks.spawn(counted_one(in, {}));
        if (in.pick(3) != 0) co_return;
        co_await in.io.sleep_for(std::chrono::microseconds(in.pick(300)));
        tasks.cancel();
    });
}

task<void> rounds(world& in, int count, int size) {
    for (int i = 0; i < count; ++i) co_await batch(in, size);
}

}  // namespace

TEST_CASE("tasks that wait, fail and are stopped at random leave nothing", "[stress]") {
    KUMIKI_ON_BOTH_BACKENDS(io);
    const unsigned seed = GENERATE(1U, 20240611U);
    CAPTURE(seed);
    world in(io, seed);
    constexpr int size = 50;
    const std::uint64_t least = operations_of_a_run();
    long count = 0;
    for (; io.counters().submitted < least; count += 20) io.run(rounds(in, 20, size));
    CHECK(in.outcomes == count * size);
    CHECK(in.operations > in.outcomes);
    CHECK(counted::alive == 0);
    const scheduler_counters counters = io.counters();
    CHECK(counters.completed == counters.submitted);
    CHECK(counters.cancelled > counters.submitted / 100);
    CHECK(counters.in_flight == 0);
    CHECK(in.seats.available() == 5);
    CHECK(!io.loop().timers().until_first().has_value());
}

TEST_CASE("stops from another thread at random leave nothing", "[stress]") {
    KUMIKI_ON_BOTH_BACKENDS(io);
    world in(io, 7);
    for (int round = 0; round < 50; ++round) {
        std::stop_source source;
        const auto delay = std::chrono::microseconds(in.pick(2000));
        std::thread other([&source, delay] {
            std::this_thread::sleep_for(delay);
            source.request_stop();
        });
        try {
            io.run(rounds(in, 5, 10), source.get_token());
        } catch (const cancelled&) {}
        other.join();
        REQUIRE(counted::alive == 0);
        REQUIRE(io.loop().operations.size() == 0);
    }
}
