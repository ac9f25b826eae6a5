#include <vector>

#include <kumiki/async/async_event.hpp>
#include <kumiki/async/scope.hpp>
#include <kumiki/async/timeout.hpp>

#include "async/both_backends.hpp"

using namespace kumiki;
using namespace kumiki_test;
using namespace std::chrono_literals;

namespace {

task<void> wait_and_note(async_event& event, std::vector<int>& order, int number) {
    co_await event.wait();
    order.push_back(number);
}

task<void> set_after_three(scheduler& io, std::vector<int>& order) {
    async_event event(io);
    scope tasks(io);
    for (int i = 0; i < 3; ++i) tasks.spawn(wait_and_note(event, order, i));
    co_await io.yield();
    order.push_back(-1);
    event.set();
    event.reset();  // those three go on all the same
    co_await tasks.join();
    tasks.spawn(wait_and_note(event, order, 3));
    co_await io.yield();
    order.push_back(-2);
    event.set();
    co_await tasks.join();
    co_await event.wait();  // at once
}

task<void> time_out(scheduler& io, async_event& event, bool& in_time) {
    in_time = co_await with_timeout(io, 1ms, event.wait());
}

}  // namespace

TEST_CASE("setting an event lets all go on that wait for it", "[async_event]") {
    KUMIKI_ON_BOTH_BACKENDS(io);
    std::vector<int> order;
    io.run(set_after_three(io, order));
    CHECK(order == std::vector{-1, 0, 1, 2, -2, 3});
    CHECK(io.counters().in_flight == 0);
}

TEST_CASE("a wait for an event can be stopped, and the event goes on to be of use",
          "[async_event]") {
    KUMIKI_ON_BOTH_BACKENDS(io);
    async_event event(io);
    bool in_time = true;
    io.run(time_out(io, event, in_time));
    CHECK_FALSE(in_time);
    CHECK_FALSE(event.is_set());
    event.set();
    io.run(time_out(io, event, in_time));
    CHECK(in_time);
}

TEST_CASE("a scheduler that ends takes those that wait for an event along", "[async_event]") {
    for (const io_backend which : {io_backend::io_uring, io_backend::epoll}) {
        if (which == io_backend::io_uring && !has_io_uring()) continue;
        std::optional<scheduler> io;
        io.emplace(scheduler_options{.backend = which});
        async_event event(*io);
        std::vector<int> order;
        in_flight waiting(*io, wait_and_note(event, order, 1));
        CHECK(io->counters().in_flight == 1);
        CHECK(io->dump().find("wait for an event") != std::string::npos);
        io.reset();
        event.set();
        CHECK(order.empty());
        CHECK_FALSE(waiting.is_done());
    }
}
