#include <memory>
#include <random>
#include <thread>
#include <vector>

#include <kumiki/async/channel.hpp>
#include <kumiki/async/scope.hpp>
#include <kumiki/async/timeout.hpp>

#include "async/both_backends.hpp"

using namespace kumiki;
using namespace kumiki_test;
using namespace std::chrono_literals;

namespace {

task<void> send_numbers(channel<int>& to, int first, int count) {
    for (int i = first; i < first + count; ++i) {
        const auto outcome = co_await to.send(i);
        if (outcome != channel_outcome::sent) throw std::logic_error("not sent");
    }
}
task<void> receive_all(channel<int>& from, std::vector<int>& seen) {
    for (;;) {
        const auto value = co_await from.receive();
        if (!value) co_return;
        seen.push_back(*value);
    }
}
task<void> through(scheduler& io, std::size_t capacity, std::vector<int>& seen) {
    channel<int> numbers(io, capacity);
    scope tasks(io);
    tasks.spawn(receive_all(numbers, seen));
    co_await send_numbers(numbers, 0, 1000);
    numbers.close();
    co_await tasks.join();
}

task<channel_outcome> send_one(channel<int>& to, int value) {
    auto outcome = co_await to.send(value);
    co_return outcome;
}
task<std::optional<int>> receive_one(channel<int>& from) {
    auto value = co_await from.receive();
    co_return value;
}
task<void> note_outcome(channel<int>& to, int value, std::vector<channel_outcome>& seen) {
    const auto outcome = co_await to.send(value);
    seen.push_back(outcome);
}
task<void> note_value(channel<int>& from, std::vector<int>& seen) {
    const auto value = co_await from.receive();
    seen.push_back(value ? *value : -1);
}

/// Senders and receivers that give up at random; every value that was sent is received once.
struct market {
    explicit market(scheduler& of) : io(of), goods(of, 8) {}
    scheduler& io;
    channel<int> goods;
    std::mt19937 random{4711};
    std::vector<int> sent;
    std::vector<int> received;
    int next = 0;
};
task<void> sell(market& in, int count) {
    for (int i = 0; i < count; ++i) {
        const int value = in.next++;
        const auto limit = std::chrono::microseconds(in.random() % 60);
        const auto outcome = co_await with_timeout(in.io, limit, in.goods.send(value));
        if (outcome == channel_outcome::sent) in.sent.push_back(value);
        if (in.random() % 8 == 0) co_await in.io.yield();
    }
}
task<void> buy(market& in) {
    for (;;) {
        const auto limit = std::chrono::microseconds(in.random() % 60);
        const auto value = co_await with_timeout(in.io, limit, in.goods.receive());
        if (value && *value) in.received.push_back(**value);
        if (value && !*value) co_return;
        if (in.random() % 8 == 0) co_await in.io.yield();
    }
}
task<void> trade(market& in, int sellers, int each) {
    scope buyers(in.io);
    for (int i = 0; i < 3; ++i) buyers.spawn(buy(in));
    scope tasks(in.io);
    for (int i = 0; i < sellers; ++i) tasks.spawn(sell(in, each));
    co_await tasks.join();
    in.goods.close();
    co_await buyers.join();
}

}  // namespace

TEST_CASE("a channel hands on every value, in order", "[channel]") {
    KUMIKI_ON_BOTH_BACKENDS(io);
    const std::size_t capacity = GENERATE(1U, 7U, 2000U);
    std::vector<int> seen;
    io.run(through(io, capacity, seen));
    REQUIRE(seen.size() == 1000);
    for (int i = 0; i < 1000; ++i) REQUIRE(seen[static_cast<std::size_t>(i)] == i);
}

TEST_CASE("a full channel does what it was told to", "[channel]") {
    scheduler io;
    SECTION("drops the oldest") {
        channel<int> c(io, 2, channel_overflow::drop_oldest);
        CHECK(io.run(send_one(c, 1)) == channel_outcome::sent);
        CHECK(io.run(send_one(c, 2)) == channel_outcome::sent);
        CHECK(io.run(send_one(c, 3)) == channel_outcome::displaced);
        CHECK(c.dropped() == 1);
        CHECK(c.try_receive() == 2);
        CHECK(c.try_receive() == 3);
        CHECK_FALSE(c.try_receive());
    }
    SECTION("drops the newest") {
        channel<int> c(io, 1, channel_overflow::drop_newest);
        CHECK(c.try_send(1) == channel_outcome::sent);
        CHECK(io.run(send_one(c, 2)) == channel_outcome::dropped);
        CHECK(c.dropped() == 1);
        CHECK(c.try_receive() == 1);
    }
    SECTION("fails") {
        channel<int> c(io, 1, channel_overflow::fail);
        CHECK(c.try_send(1) == channel_outcome::sent);
        CHECK(io.run(send_one(c, 2)) == channel_outcome::full);
        CHECK(c.dropped() == 0);
        CHECK(c.size() == 1);
    }
    SECTION("waits") {
        channel<int> c(io, 1);
        CHECK(c.try_send(1) == channel_outcome::sent);
        CHECK(c.try_send(2) == channel_outcome::full);
        std::vector<channel_outcome> seen;
        in_flight sender(io, note_outcome(c, 3, seen));
        CHECK(seen.empty());
        CHECK(io.dump().find("send to a channel") != std::string::npos);
        CHECK(c.try_receive() == 1);
        CHECK(c.size() == 1);
        CHECK(io.run(receive_one(c)) == 3);
        CHECK(seen == std::vector{channel_outcome::sent});
        CHECK(sender.is_done());
    }
    CHECK_THROWS_AS((channel<int>(io, 0)), invalid_input);
}

TEST_CASE("closing a channel tells senders and receivers, and leaves what is in it", "[channel]") {
    KUMIKI_ON_BOTH_BACKENDS(io);
    channel<int> c(io, 1);
    CHECK(c.try_send(1) == channel_outcome::sent);
    std::vector<channel_outcome> outcomes;
    in_flight sender(io, note_outcome(c, 2, outcomes));
    c.close();
    CHECK(c.is_closed());
    CHECK(io.run(send_one(c, 3)) == channel_outcome::closed);
    CHECK(outcomes == std::vector{channel_outcome::closed});
    CHECK(io.run(receive_one(c)) == 1);
    CHECK_FALSE(io.run(receive_one(c)));

    channel<int> empty(io, 1);
    std::vector<int> seen;
    in_flight first(io, note_value(empty, seen));
    in_flight second(io, note_value(empty, seen));
    empty.close();
    io.run(io.sleep_for(1ms));
    CHECK(seen == std::vector{-1, -1});
}

TEST_CASE("values that cannot be copied go through a channel", "[channel]") {
    scheduler io;
    channel<std::unique_ptr<int>> c(io, 2);
    auto value = std::make_unique<int>(5);
    CHECK(c.try_send(std::move(value)) == channel_outcome::sent);
    CHECK(value == nullptr);
    CHECK(c.try_send(std::make_unique<int>(6)) == channel_outcome::sent);
    value = std::make_unique<int>(7);
    CHECK(c.try_send(std::move(value)) == channel_outcome::full);
    REQUIRE(value != nullptr);
    CHECK(*value == 7);
    const auto first = c.try_receive();
    REQUIRE(first);
    CHECK(**first == 5);
}

TEST_CASE("a value goes to the next when the task that it was for dies first", "[channel]") {
    KUMIKI_ON_BOTH_BACKENDS(io);
    channel<int> c(io, 4);
    std::vector<int> seen;
    std::optional<in_flight> first(std::in_place, io, note_value(c, seen));
    in_flight second(io, note_value(c, seen));
    CHECK(c.try_send(1) == channel_outcome::sent);  // wakes the first
    CHECK_FALSE(c.try_receive());                   // it is spoken for
    first.reset();                                  // destroyed before it is resumed
    io.run(io.sleep_for(1ms));
    CHECK(seen == std::vector{1});
    CHECK(c.size() == 0);
}

TEST_CASE("no value is lost or doubled when senders and receivers give up at random", "[channel]") {
    KUMIKI_ON_BOTH_BACKENDS(io);
    market in(io);
    io.run(trade(in, 4, 5000));
    CHECK(in.next == 20000);
    CHECK(in.received.size() > 1000);
    std::sort(in.sent.begin(), in.sent.end());
    std::sort(in.received.begin(), in.received.end());
    CHECK(in.sent == in.received);
    CHECK(io.counters().in_flight == 0);
}

TEST_CASE("a stop from another thread ends a receive, and the value goes elsewhere", "[channel]") {
    KUMIKI_ON_BOTH_BACKENDS(io);
    channel<int> c(io, 1);
    for (int round = 0; round < 100; ++round) {
        std::stop_source source;
        std::thread other([&source] { source.request_stop(); });
        try {
            io.run(receive_one(c), source.get_token());
            FAIL("there is nothing to receive");
        } catch (const cancelled&) {}
        other.join();
        REQUIRE(c.try_send(round + 0) == channel_outcome::sent);
        REQUIRE(io.run(receive_one(c)) == round);
    }
}
