// asio's side of bench_async: its coroutines, steady_timer and posix::stream_descriptor.
//
// Included once with asio on epoll and once with asio on io_uring, which is chosen by macros; the
// second one renames the namespace, so that both can be in one program. asio has no wait for a
// child: a pidfd is waited for until it is readable, and then waitid(2) collects the child.
#pragma once

#include <poll.h>
#include <sys/eventfd.h>

#include <array>
#include <cstdlib>
#include <limits>
#include <thread>
#include <utility>

#include "side.hpp"

#include <asio.hpp>

namespace bench {
namespace {

using asio::awaitable;
using asio::use_awaitable;
using descriptor = asio::posix::stream_descriptor;

[[gnu::noinline]] awaitable<int> ready() { co_return 1; }
[[gnu::noinline]] awaitable<void> empty() { co_return; }

/// Lets one coroutine await the end of those that were spawned: asio has no scope.
class countdown {
  public:
    countdown(asio::io_context& io, std::size_t count) : end_(io), left_(count) {
        end_.expires_at(asio::steady_timer::time_point::max());
    }
    /// A completion handler.
    auto one() {
        return [this](const std::exception_ptr& failed) {
            if (failed) std::abort();
            if (--left_ == 0) end_.cancel();
        };
    }
    awaitable<void> wait() {
        asio::error_code cancelled;
        if (left_ > 0) co_await end_.async_wait(asio::redirect_error(use_awaitable, cancelled));
    }

  private:
    asio::steady_timer end_;
    std::size_t left_;
};

awaitable<void> await_many(std::size_t count) {
    const std::size_t wanted = count;
    std::size_t sum = 0;
    for (; count > 0; --count) sum += static_cast<std::size_t>(co_await ready());
    if (sum != wanted) std::abort();
}

awaitable<void> spawn_many(asio::io_context& io, std::size_t count) {
    countdown tasks(io, count);
    for (; count > 0; --count) asio::co_spawn(io, empty(), tasks.one());
    co_await tasks.wait();
}

awaitable<void> sleep(asio::io_context& io, std::chrono::nanoseconds span) {
    asio::steady_timer timer(io, span);
    co_await timer.async_wait(use_awaitable);
}

awaitable<void> sleep_in_turn(asio::io_context& io, std::size_t count) {
    asio::steady_timer timer(io);
    for (; count > 0; --count) {
        timer.expires_after(std::chrono::nanoseconds(0));
        co_await timer.async_wait(use_awaitable);
    }
}

awaitable<void> sleep_at_once(asio::io_context& io, std::size_t count) {
    countdown tasks(io, count);
    for (std::size_t i = 0; i < count; ++i)
        asio::co_spawn(io, sleep(io, timer_span(i)), tasks.one());
    co_await tasks.wait();
}

awaitable<void> ask(descriptor& to, descriptor& from, std::size_t count) {
    std::array<char, 1> byte{};
    for (; count > 0; --count) {
        const auto sent = co_await to.async_write_some(asio::buffer(byte), use_awaitable);
        const auto answered = co_await from.async_read_some(asio::buffer(byte), use_awaitable);
        if (sent + answered != 2) std::abort();
    }
}

awaitable<void> answer(descriptor& from, descriptor& to, std::size_t count) {
    std::array<char, 1> byte{};
    for (; count > 0; --count) {
        asio::error_code failed;
        co_await from.async_read_some(asio::buffer(byte),
                                      asio::redirect_error(use_awaitable, failed));
        if (failed) co_return;  // the end of the pipe
        co_await to.async_write_some(asio::buffer(byte), use_awaitable);
    }
}

awaitable<void> collect(asio::io_context& io, int pidfd) {
    descriptor child(io, pidfd);
    co_await child.async_wait(descriptor::wait_read, use_awaitable);
    child.release();  // its owner closes it
    if (kumiki::sys::wait_blocking(pidfd).code != 0) std::abort();
}

awaitable<void> collect_in_turn(asio::io_context& io, std::span<const int> pidfds) {
    for (const int pidfd : pidfds) {
        descriptor child(io, pidfd);
        co_await child.async_wait(descriptor::wait_read, use_awaitable);
        child.release();
        if (kumiki::sys::wait_blocking(pidfd).code != 0) std::abort();
    }
}

awaitable<void> collect_at_once(asio::io_context& io, std::span<const int> pidfds) {
    countdown tasks(io, pidfds.size());
    for (const int pidfd : pidfds) asio::co_spawn(io, collect(io, pidfd), tasks.one());
    co_await tasks.wait();
}

awaitable<void> sleep_for_long(asio::steady_timer& timer) {
    asio::error_code cancelled;
    co_await timer.async_wait(asio::redirect_error(use_awaitable, cancelled));
}

awaitable<void> sleep_idly(asio::io_context& io, std::size_t count, double& bytes) {
    countdown tasks(io, count);
    std::vector<std::unique_ptr<asio::steady_timer>> timers;
    timers.reserve(count);
    const double before = heap_in_use();
    for (std::size_t i = 0; i < count; ++i) {
        timers.push_back(std::make_unique<asio::steady_timer>(io, std::chrono::hours(1)));
        asio::co_spawn(io, sleep_for_long(*timers.back()), tasks.one());
    }
    co_await sleep(io, std::chrono::milliseconds(1));
    bytes = (heap_in_use() - before) / static_cast<double>(count);
    for (const auto& each : timers) each->cancel();
    co_await tasks.wait();
}

awaitable<void> poll_once(descriptor& event) {
    co_await event.async_wait(descriptor::wait_read, use_awaitable);
}

awaitable<void> poll_idly(asio::io_context& io, std::size_t count, double& bytes) {
    descriptor event(io, kumiki::sys::check(::eventfd(0, EFD_CLOEXEC), "eventfd"));
    countdown tasks(io, count);
    const double before = heap_in_use();
    for (std::size_t i = 0; i < count; ++i) asio::co_spawn(io, poll_once(event), tasks.one());
    co_await sleep(io, std::chrono::milliseconds(1));
    bytes = (heap_in_use() - before) / static_cast<double>(count);
    ::eventfd_write(event.native_handle(), 1);
    co_await tasks.wait();
}

/// Two pipes as asio's own: it makes them non-blocking.
struct two_streams {
    explicit two_streams(two_pipes& pipes, asio::io_context& near, asio::io_context& far)
        : there_in(near, pipes.there[1].release()), there_out(far, pipes.there[0].release()),
          back_in(far, pipes.back[1].release()), back_out(near, pipes.back[0].release()) {}
    descriptor there_in;
    descriptor there_out;
    descriptor back_in;
    descriptor back_out;
};

class asio_side final : public side {
  public:
    asio_side() : echo_([this] { echo(); }) {}
    ~asio_side() override {
        far_.there_in.close();
        echo_.join();
    }

    double ready_tasks(std::size_t count) override { return timed(await_many(count)); }
    double spawned_tasks(std::size_t count) override { return timed(spawn_many(io_, count)); }
    double timers_in_turn(std::size_t count) override { return timed(sleep_in_turn(io_, count)); }
    double timers_at_once(std::size_t count) override { return timed(sleep_at_once(io_, count)); }
    double round_trips(std::size_t count) override {
        const stopwatch time;
        asio::co_spawn(io_, answer(near_.there_out, near_.back_in, count), asio::detached);
        spawn(ask(near_.there_in, near_.back_out, count));
        run();
        return time.nanoseconds();
    }
    double round_trips_across(std::size_t count) override {
        return timed(ask(far_.there_in, far_.back_out, count));
    }
    double children_in_turn(std::span<const int> pidfds) override {
        return timed(collect_in_turn(io_, pidfds));
    }
    double children_at_once(std::span<const int> pidfds) override {
        return timed(collect_at_once(io_, pidfds));
    }
    idle_bytes idle_tasks(std::size_t count) override {
        idle_bytes result;
        asio::io_context io(1);
        const auto on = [&](awaitable<void> work) {
            asio::co_spawn(io, std::move(work), [](const std::exception_ptr& failed) {
                if (failed) std::abort();
            });
            io.restart();
            io.run();
        };
        on(sleep_idly(io, count, result.sleeping));
        on(poll_idly(io, count, result.polling));
        return result;
    }

  private:
    void spawn(awaitable<void> work) {
        asio::co_spawn(io_, std::move(work), [](const std::exception_ptr& failed) {
            if (failed) std::abort();
        });
    }
    void run() {
        io_.restart();
        io_.run();
    }
    double timed(awaitable<void> work) {
        const stopwatch time;
        spawn(std::move(work));
        run();
        return time.nanoseconds();
    }
    void echo() {
        asio::co_spawn(
            far_io_, answer(far_.there_out, far_.back_in, std::numeric_limits<std::size_t>::max()),
            asio::detached);
        far_io_.run();
    }

    asio::io_context io_{1};  // one thread runs it
    asio::io_context far_io_{1};
    two_pipes near_pipes_;
    two_pipes far_pipes_;
    two_streams near_{near_pipes_, io_, io_};
    two_streams far_{far_pipes_, io_, far_io_};
    std::thread echo_;
};

}  // namespace
}  // namespace bench
