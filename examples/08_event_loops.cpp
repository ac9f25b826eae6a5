// A scheduler inside a program that has an event loop of its own, and a second one on a thread: the
// foreign loop waits on one descriptor, a task moves to the other thread and its answer comes back.
//
// Expected output:
//   worker: 21 on the other thread
//   main: 42 on the main thread
//   ticker: cancelled after 3 ticks
//   the foreign loop is done
#include <poll.h>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <stop_token>
#include <thread>

#include <kumiki/async/move.hpp>
#include <kumiki/async/scheduler.hpp>
#include <kumiki/async/scope.hpp>
#include <kumiki/async/stop.hpp>

using namespace kumiki;
using namespace std::chrono_literals;

namespace {

const auto main_thread = std::this_thread::get_id();

const char* here() {
    return std::this_thread::get_id() == main_thread ? "on the main thread" : "on the other thread";
}

task<int> half_the_answer(scheduler& io) {
    co_await io.sleep_for(5ms);
    std::printf("worker: 21 %s\n", here());
    co_return 21;
}

task<void> ask(scheduler& other, std::stop_source& done) {
    const int half = co_await schedule_on(other, half_the_answer(other));
    std::printf("main: %d %s\n", 2 * half, here());
    done.request_stop();
}

task<void> tick(scheduler& io, int& ticks) {
    for (; ticks < 3; ++ticks) co_await io.sleep_for(1ms);
    try {
        co_await io.sleep_for(1h);
    } catch (const cancelled&) {
        std::printf("ticker: cancelled after %d ticks\n", ticks);
        throw;
    }
}

task<void> until_stopped(scheduler& io) { co_await io.sleep_for(24h); }

/// A thread with a scheduler, which runs until it is stopped.
class worker {
  public:
    worker() : thread_([this](const std::stop_token& stop) { work(stop); }) {
        while (io_.load() == nullptr) std::this_thread::yield();
    }
    scheduler& io() { return *io_.load(); }

  private:
    void work(const std::stop_token& stop) {
        scheduler io;
        io_ = &io;
        try {
            io.run(until_stopped(io), stop);
        } catch (const cancelled&) {}
    }

    std::atomic<scheduler*> io_ = nullptr;
    std::jthread thread_;
};

}  // namespace

int main() {
    worker other;
    scheduler io;
    std::stop_source done;
    scope tasks(io, done.get_token());
    int ticks = 0;
    tasks.spawn("ticker", tick(io, ticks));
    tasks.spawn("ask", ask(other.io(), done));
    std::fputs(io.dump().c_str(), stderr);

    // The foreign loop. A real one waits for other things in the same call.
    pollfd waited{.fd = io.pollable_fd(), .events = POLLIN, .revents = 0};
    while (tasks.running() > 0) {
        if (::poll(&waited, 1, -1) > 0) io.run_ready();
    }
    std::puts("the foreign loop is done");
}
