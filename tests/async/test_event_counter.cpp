#include <thread>

#include <kumiki/async/event_counter.hpp>
#include <kumiki/async/timeout.hpp>

#include "async/both_backends.hpp"

using namespace kumiki;
using namespace kumiki_test;
using namespace std::chrono_literals;

namespace {

task<std::uint64_t> wait_for(const event_counter& counter) {
    auto count = co_await counter.wait();
    co_return count;
}
task<std::uint64_t> sum_up(const event_counter& counter, std::uint64_t until) {
    std::uint64_t sum = 0;
    while (sum < until) {
        const auto count = co_await counter.wait();
        sum += count;
    }
    co_return sum;
}
task<bool> counted_within(scheduler& io, const event_counter& counter) {
    const auto count = co_await with_timeout(io, 2ms, counter.wait());
    co_return count.has_value();
}

}  // namespace

TEST_CASE("a counter yields what was counted since the last time", "[event_counter]") {
    KUMIKI_ON_BOTH_BACKENDS(io);
    const event_counter counter(io);
    counter.signal();
    counter.signal(41);
    CHECK(io.run(wait_for(counter)) == 42);
    CHECK_FALSE(io.run(counted_within(io, counter)));
    counter.signal(0);
    CHECK_FALSE(io.run(counted_within(io, counter)));
    counter.signal(7);
    CHECK(io.run(wait_for(counter)) == 7);
}

TEST_CASE("a counter can give its count one by one", "[event_counter]") {
    KUMIKI_ON_BOTH_BACKENDS(io);
    const event_counter counter(io, counter_mode::one_by_one);
    counter.signal(2);
    CHECK(io.run(wait_for(counter)) == 1);
    CHECK(io.run(wait_for(counter)) == 1);
    CHECK_FALSE(io.run(counted_within(io, counter)));
}

TEST_CASE("other threads count up", "[event_counter]") {
    KUMIKI_ON_BOTH_BACKENDS(io);
    const event_counter counter(io);
    const auto count = [&counter] {
        for (int i = 0; i < 1000; ++i) counter.signal();
    };
    std::thread first(count);
    std::thread second(count);
    CHECK(io.run(sum_up(counter, 2000)) == 2000);
    first.join();
    second.join();
    CHECK((::fcntl(counter.fd(), F_GETFD) & FD_CLOEXEC) != 0);
}

TEST_CASE("a counter refuses what it cannot count", "[event_counter]") {
    scheduler io;
    const event_counter counter(io);
    CHECK_THROWS_AS(counter.signal(~std::uint64_t{0}), invalid_input);
    counter.signal(~std::uint64_t{0} - 1);
    try {
        counter.signal();
        FAIL("it is full");
    } catch (const error& full) {
        CHECK(full.errno_value() == EAGAIN);
    }
    CHECK(io.run(wait_for(counter)) == ~std::uint64_t{0} - 1);
}
