// kumiki's side of bench_async: what a user of it would write.
#include <poll.h>
#include <sys/eventfd.h>

#include <array>
#include <cstdlib>
#include <thread>

#include <kumiki/async/scheduler.hpp>
#include <kumiki/async/scope.hpp>

#include "side.hpp"

namespace bench {
namespace {

using kumiki::scheduler;
using kumiki::scope;
using kumiki::task;

[[gnu::noinline]] task<int> ready() { co_return 1; }
[[gnu::noinline]] task<void> empty() { co_return; }

task<int> await_many(std::size_t count) {
    int sum = 0;
    for (; count > 0; --count) {
        const int one = co_await ready();
        sum += one;
    }
    co_return sum;
}

task<void> spawn_many(scheduler& io, std::size_t count) {
    scope tasks(io);
    for (; count > 0; --count) tasks.spawn(empty());
    co_await tasks.join();
}

task<void> sleep(scheduler& io, std::chrono::nanoseconds span) { co_await io.sleep_for(span); }

task<void> sleep_in_turn(scheduler& io, std::size_t count) {
    for (; count > 0; --count) co_await io.sleep_for(std::chrono::nanoseconds(0));
}

task<void> sleep_at_once(scheduler& io, std::size_t count) {
    scope tasks(io);
    for (std::size_t i = 0; i < count; ++i) tasks.spawn(sleep(io, timer_span(i)));
    co_await tasks.join();
}

task<void> ask(scheduler& io, int to, int from, std::size_t count) {
    std::array<std::byte, 1> byte{};
    for (; count > 0; --count) {
        const std::size_t sent = co_await io.write(to, byte);
        const std::size_t answered = co_await io.read(from, byte);
        if (sent + answered != 2) std::abort();
    }
}

task<void> answer(scheduler& io, int from, int to, std::size_t count) {
    std::array<std::byte, 1> byte{};
    for (; count > 0; --count) {
        const std::size_t received = co_await io.read(from, byte);
        if (received == 0) co_return;
        co_await io.write(to, byte);
    }
}

task<void> round_trip(scheduler& io, const two_pipes& over, std::size_t count) {
    scope tasks(io);
    tasks.spawn(answer(io, over.there[0].get(), over.back[1].get(), count));
    co_await ask(io, over.there[1].get(), over.back[0].get(), count);
    co_await tasks.join();
}

task<void> collect(scheduler& io, int pidfd) {
    const auto status = co_await io.wait_exit(pidfd);
    if (status.code != 0) std::abort();
}

task<void> collect_in_turn(scheduler& io, std::span<const int> pidfds) {
    for (const int pidfd : pidfds) {
        const auto status = co_await io.wait_exit(pidfd);
        if (status.code != 0) std::abort();
    }
}

task<void> collect_at_once(scheduler& io, std::span<const int> pidfds) {
    scope tasks(io);
    for (const int pidfd : pidfds) tasks.spawn(collect(io, pidfd));
    co_await tasks.join();
}

task<void> poll_once(scheduler& io, int fd) { co_await io.poll(fd, POLLIN); }

task<void> sleep_idly(scheduler& io, std::size_t count, double& bytes) {
    scope tasks(io);
    const double before = heap_in_use();
    for (std::size_t i = 0; i < count; ++i) tasks.spawn(sleep(io, std::chrono::hours(1)));
    co_await io.sleep_for(std::chrono::milliseconds(1));  // now all of them wait
    bytes = (heap_in_use() - before) / static_cast<double>(count);
    tasks.cancel();
    co_await tasks.join();
}

task<void> poll_idly(scheduler& io, std::size_t count, double& bytes) {
    const kumiki::unique_fd event(kumiki::sys::check(::eventfd(0, EFD_CLOEXEC), "eventfd"));
    scope tasks(io);
    const double before = heap_in_use();
    for (std::size_t i = 0; i < count; ++i) tasks.spawn(poll_once(io, event.get()));
    co_await io.sleep_for(std::chrono::milliseconds(1));
    bytes = (heap_in_use() - before) / static_cast<double>(count);
    ::eventfd_write(event.get(), 1);
    co_await tasks.join();
}

class kumiki_side final : public side {
  public:
    explicit kumiki_side(kumiki::io_backend backend)
        : backend_(backend), io_({.backend = backend}), echo_([this] { echo(); }) {}
    ~kumiki_side() override {
        far_.there[1].reset();
        echo_.join();
    }

    double ready_tasks(std::size_t count) override {
        const stopwatch time;
        if (std::cmp_not_equal(io_.run(await_many(count)), count)) std::abort();
        return time.nanoseconds();
    }
    double spawned_tasks(std::size_t count) override { return timed(spawn_many(io_, count)); }
    double timers_in_turn(std::size_t count) override { return timed(sleep_in_turn(io_, count)); }
    double timers_at_once(std::size_t count) override { return timed(sleep_at_once(io_, count)); }
    double round_trips(std::size_t count) override { return timed(round_trip(io_, near_, count)); }
    double round_trips_across(std::size_t count) override {
        return timed(ask(io_, far_.there[1].get(), far_.back[0].get(), count));
    }
    double children_in_turn(std::span<const int> pidfds) override {
        return timed(collect_in_turn(io_, pidfds));
    }
    double children_at_once(std::span<const int> pidfds) override {
        return timed(collect_at_once(io_, pidfds));
    }
    idle_bytes idle_tasks(std::size_t count) override {
        // A scheduler of its own: its tables have to grow to their size.
        scheduler io({.backend = backend_});
        idle_bytes result;
        io.run(sleep_idly(io, count, result.sleeping));
        scheduler other({.backend = backend_});
        other.run(poll_idly(other, count, result.polling));
        return result;
    }

  private:
    double timed(task<void> work) {
        const stopwatch time;
        io_.run(std::move(work));
        return time.nanoseconds();
    }
    void echo() {
        scheduler io({.backend = backend_});
        io.run(answer(io, far_.there[0].get(), far_.back[1].get(),
                      std::numeric_limits<std::size_t>::max()));
    }

    kumiki::io_backend backend_;
    scheduler io_;
    two_pipes near_;
    two_pipes far_;
    std::thread echo_;
};

}  // namespace

std::unique_ptr<side> make_kumiki(bool on_io_uring) {
    return std::make_unique<kumiki_side>(on_io_uring ? kumiki::io_backend::io_uring
                                                     : kumiki::io_backend::epoll);
}

}  // namespace bench
