#include <random>
#include <thread>
#include <vector>

#include <kumiki/async/async_mutex.hpp>
#include <kumiki/async/async_semaphore.hpp>
#include <kumiki/async/scope.hpp>
#include <kumiki/async/timeout.hpp>

#include "async/both_backends.hpp"

using namespace kumiki;
using namespace kumiki_test;
using namespace std::chrono_literals;

namespace {

struct meter {
    int inside = 0;
    int most = 0;
    std::vector<int> order;
};

task<void> enter(scheduler& io, async_semaphore& slots, meter& seen, int number) {
    auto permit = co_await slots.acquire();
    seen.order.push_back(number);
    seen.most = std::max(seen.most, ++seen.inside);
    const struct leave {
        int& inside;
        ~leave() { --inside; }
    } at_end{seen.inside};
    co_await io.sleep_for(100us);
}

task<void> enter_all(scheduler& io, async_semaphore& slots, meter& seen, int count) {
    scope tasks(io);
    for (int i = 0; i < count; ++i) tasks.spawn(enter(io, slots, seen, i));
    co_await tasks.join();
}

task<void> enter_or_give_up(scheduler& io, async_semaphore& slots, meter& seen, int number,
                            std::chrono::microseconds limit) {
    co_await with_timeout(io, limit, enter(io, slots, seen, number));
}

task<void> many_with_limits(scheduler& io, async_semaphore& slots, meter& seen, unsigned seed) {
    std::mt19937 random(seed);
    scope tasks(io);
    for (int i = 0; i < 2000; ++i) {
        tasks.spawn(
            enter_or_give_up(io, slots, seen, i, std::chrono::microseconds(random() % 20000)));
        if (i % 100 == 0) co_await io.yield();
    }
    co_await tasks.join();
}

task<void> hold(scheduler& io, async_mutex& door, counted) {
    auto lock = co_await door.lock();
    co_await never(io);
}

task<void> add_slowly(scheduler& io, async_mutex& door, int& number) {
    auto lock = co_await door.lock();
    const int before = number;
    co_await io.yield();
    number = before + 1;
}

task<void> add_from_many(scheduler& io, async_mutex& door, int& number) {
    scope tasks(io);
    for (int i = 0; i < 1000; ++i) tasks.spawn(add_slowly(io, door, number));
    co_await tasks.join();
}

}  // namespace

TEST_CASE("a semaphore lets in as many as it has permits, in the order in which they came",
          "[async_semaphore]") {
    KUMIKI_ON_BOTH_BACKENDS(io);
    async_semaphore slots(io, 3);
    meter seen;
    io.run(enter_all(io, slots, seen, 20));
    CHECK(seen.most == 3);
    REQUIRE(seen.order.size() == 20);
    CHECK(std::is_sorted(seen.order.begin(), seen.order.end()));
    CHECK(slots.available() == 3);
}

TEST_CASE("a permit is moved, and given back once", "[async_semaphore]") {
    scheduler io;
    async_semaphore slots(io, 1);
    auto first = slots.try_acquire();
    REQUIRE(first);
    CHECK_FALSE(slots.try_acquire());
    async_semaphore::permit second = std::move(*first);
    CHECK_FALSE(static_cast<bool>(*first));
    first.reset();
    CHECK(slots.available() == 0);
    second.release();
    second.release();
    CHECK(slots.available() == 1);
    slots.release();
    CHECK(slots.available() == 2);
}

TEST_CASE("no permit is lost when waits are stopped at random", "[async_semaphore]") {
    KUMIKI_ON_BOTH_BACKENDS(io);
    async_semaphore slots(io, 4);
    meter seen;
    io.run(many_with_limits(io, slots, seen, 99));
    CHECK(slots.available() == 4);
    CHECK(seen.most == 4);
    CHECK(seen.order.size() < 2000);
    CHECK(io.counters().in_flight == 0);
}

TEST_CASE("a stop from another thread ends a wait for a permit", "[async_semaphore]") {
    KUMIKI_ON_BOTH_BACKENDS(io);
    async_semaphore slots(io, 1);
    const auto held = slots.try_acquire();
    meter seen;
    std::stop_source source;
    std::thread other([&source] {
        std::this_thread::sleep_for(1ms);
        source.request_stop();
    });
    CHECK_THROWS_AS(io.run(enter(io, slots, seen, 0), source.get_token()), cancelled);
    other.join();
    CHECK(seen.order.empty());
    CHECK(slots.available() == 0);
}

TEST_CASE("a permit goes to the next when the task that it was for dies first",
          "[async_semaphore]") {
    KUMIKI_ON_BOTH_BACKENDS(io);
    async_semaphore slots(io, 1);
    meter seen;
    auto held = slots.try_acquire();
    {
        in_flight first(io, enter(io, slots, seen, 1));
        held->release();  // the first is woken, and destroyed before it is resumed
    }
    CHECK(seen.order.empty());
    CHECK(slots.available() == 1);
}

TEST_CASE("a mutex keeps tasks out of each other's way across awaits", "[async_mutex]") {
    KUMIKI_ON_BOTH_BACKENDS(io);
    async_mutex door(io);
    int number = 0;
    io.run(add_from_many(io, door, number));
    CHECK(number == 1000);
    CHECK_FALSE(door.is_locked());
}

TEST_CASE("a task that is stopped or destroyed opens the mutex that it holds", "[async_mutex]") {
    KUMIKI_ON_BOTH_BACKENDS(io);
    async_mutex door(io);
    {
        in_flight holder(io, hold(io, door, {}));
        CHECK(door.is_locked());
        CHECK_FALSE(door.try_lock());
        in_flight waiting(io, hold(io, door, {}));
        CHECK(io.dump().find("lock a mutex") != std::string::npos);
    }
    CHECK(counted::alive == 0);
    CHECK_FALSE(door.is_locked());
    const auto lock = door.try_lock();
    CHECK(lock);
}
