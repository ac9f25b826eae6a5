#include <signal.h>

#include <atomic>
#include <memory>
#include <stdexcept>
#include <thread>

#include <kumiki/async/offload.hpp>
#include <kumiki/async/scope.hpp>
#include <kumiki/async/timeout.hpp>
#include <kumiki/async/when.hpp>

#include "async/both_backends.hpp"

using namespace kumiki;
using namespace kumiki_test;
using namespace std::chrono_literals;

namespace {

template <class Function>
task<std::invoke_result_t<Function>> call(scheduler& io, Function function) {
    co_return co_await offload(io, std::move(function));
}

task<void> store(task<int> from, int& to) { to = co_await std::move(from); }

task<void> stop_once_begun(scheduler& io, task<void> work, const std::atomic<bool>& begun,
                           std::atomic<bool>& may_end) {
    scope tasks(io);
    tasks.spawn(std::move(work));
    while (!begun) co_await io.sleep_for(1ms);
    tasks.cancel();
    may_end = true;
    co_await tasks.join();
}

}  // namespace

TEST_CASE("a call runs on another thread and its result comes back", "[offload]") {
    KUMIKI_ON_BOTH_BACKENDS(io);
    const auto here = std::this_thread::get_id();
    CHECK(io.run(call(io, [] { return std::this_thread::get_id(); })) != here);
    const auto pointer = io.run(call(io, [] { return std::make_unique<int>(4); }));
    CHECK(*pointer == 4);
    bool ran = false;
    io.run(call(io, [&ran] { ran = true; }));
    CHECK(ran);
}

TEST_CASE("an exception of a call is thrown from the await", "[offload]") {
    KUMIKI_ON_BOTH_BACKENDS(io);
    CHECK_THROWS_AS(io.run(call(io, []() -> int { throw std::runtime_error("failed"); })),
                    std::runtime_error);
}

TEST_CASE("no more calls run at once than there are threads", "[offload]") {
    scheduler io({.offload_threads = 2});
    std::atomic<int> running = 0;
    std::atomic<int> most = 0;
    std::vector<task<void>> calls;
    const auto work = [&] {
        const int now = ++running;
        for (int seen = most; now > seen && !most.compare_exchange_weak(seen, now);) {}
        std::this_thread::sleep_for(2ms);
        --running;
    };
    for (int i = 0; i < 20; ++i) calls.push_back(call(io, work));
    io.run(when_all(std::move(calls)));
    CHECK(running == 0);
    CHECK(most <= 2);
    CHECK(most >= 1);
}

TEST_CASE("a call that was begun is awaited though it is stopped", "[offload]") {
    KUMIKI_ON_BOTH_BACKENDS(io);
    std::atomic<bool> begun = false;
    std::atomic<bool> may_end = false;
    std::atomic<bool> ended = false;
    const auto slow = [&] {
        begun = true;
        while (!may_end) std::this_thread::sleep_for(1ms);
        ended = true;
        return 7;
    };
    int value = 0;
    io.run(stop_once_begun(io, store(call(io, slow), value), begun, may_end));
    CHECK(ended);
    CHECK(value == 7);
}

TEST_CASE("a call in line is not made once it is stopped", "[offload]") {
    scheduler io({.offload_threads = 1});
    std::atomic<int> calls = 0;
    std::atomic<bool> go = false;
    const auto block = [&] {
        while (!go) std::this_thread::sleep_for(1ms);
        ++calls;
    };
    const auto impatient = [](scheduler& on, std::atomic<int>& count,
                              std::atomic<bool>& release) -> task<bool> {
        const bool made = co_await with_timeout(on, 10ms, call(on, [&count] { ++count; }));
        release = true;
        co_return made;
    };
    const auto both = io.run(when_all(call(io, block), impatient(io, calls, go)));
    CHECK(!std::get<1>(both));
    CHECK(calls == 1);
}

TEST_CASE("the threads of the pool take no signals", "[offload]") {
    scheduler io;
    const bool blocked = io.run(call(io, [] {
        sigset_t now;
        ::pthread_sigmask(SIG_BLOCK, nullptr, &now);
        return ::sigismember(&now, SIGINT) == 1 && ::sigismember(&now, SIGCHLD) == 1;
    }));
    CHECK(blocked);
    sigset_t mine;
    ::pthread_sigmask(SIG_BLOCK, nullptr, &mine);
    CHECK(::sigismember(&mine, SIGINT) == 0);
}
