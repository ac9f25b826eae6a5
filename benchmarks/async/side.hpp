// What bench_async measures, as an interface: each side does the same work with its own means.
//
// A side is made once, and its event loop lives as long as it does: what is measured is the work and
// not the set-up. Each function does `count` of one thing and returns the nanoseconds of it all.
#pragma once

#include <fcntl.h>
#include <malloc.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include <kumiki/core/unique_fd.hpp>
#include <kumiki/sys/check.hpp>
#include <kumiki/sys/pidfd.hpp>

namespace bench {

/// Heap bytes of an idle task that waits. Memory of the kernel is not in it.
struct idle_bytes {
    double sleeping = 0;
    double polling = 0;
};

class side {
  public:
    side() = default;
    side(const side&) = delete;
    side& operator=(const side&) = delete;
    virtual ~side() = default;

    /// One task awaits tasks that are done at once, one after another.
    virtual double ready_tasks(std::size_t count) = 0;
    /// One task starts empty ones beside itself, then awaits the end of all.
    virtual double spawned_tasks(std::size_t count) = 0;
    /// One task waits for timers that are due at once, one after another.
    virtual double timers_in_turn(std::size_t count) = 0;
    /// `count` tasks wait for a timer of timer_span(n) each, at the same time.
    virtual double timers_at_once(std::size_t count) = 0;
    /// Two tasks of one loop hand each other a byte through two pipes.
    virtual double round_trips(std::size_t count) = 0;
    /// The same with a task of another thread, which has a loop of its own.
    virtual double round_trips_across(std::size_t count) = 0;
    /// One task collects children that have ended, one after another.
    virtual double children_in_turn(std::span<const int> pidfds) = 0;
    /// A task for each collects children that have ended.
    virtual double children_at_once(std::span<const int> pidfds) = 0;
    /// Tasks that sleep for an hour, then tasks that poll one eventfd.
    virtual idle_bytes idle_tasks(std::size_t count) = 0;
};

/// Up to a microsecond, in no order.
constexpr std::chrono::nanoseconds timer_span(std::size_t n) noexcept {
    return std::chrono::nanoseconds(n * 7919 % 1000);
}

class stopwatch {
  public:
    double nanoseconds() const noexcept { return now() - start_; }

  private:
    static double now() noexcept {
        timespec time{};
        ::clock_gettime(CLOCK_MONOTONIC, &time);
        return static_cast<double>(time.tv_sec) * 1e9 + static_cast<double>(time.tv_nsec);
    }
    double start_ = now();
};

/// There and back.
struct two_pipes {
    two_pipes() {
        for (auto* ends : {&there, &back}) {
            int fds[2];
            kumiki::sys::check(::pipe2(fds, O_CLOEXEC), "pipe");
            (*ends)[0] = kumiki::unique_fd(fds[0]);
            (*ends)[1] = kumiki::unique_fd(fds[1]);
        }
    }
    kumiki::unique_fd there[2];  ///< to read from, to write to
    kumiki::unique_fd back[2];
};

/// A process that has ended. Alone in its function, because of what vfork(2) does to variables.
[[gnu::noinline]] inline pid_t ended_child() {
    const pid_t child = ::vfork();
    if (child == 0) ::_exit(0);
    return child;
}

/// Children of this process that have ended and are not collected yet.
class ended_children {
  public:
    explicit ended_children(std::size_t count) {
        for (; count > 0; --count) {
            const pid_t child = kumiki::sys::check(ended_child(), "vfork");
            owners_.push_back(kumiki::sys::open_pidfd(child));
            pidfds_.push_back(owners_.back().get());
        }
    }
    std::span<const int> pidfds() const noexcept { return pidfds_; }

  private:
    std::vector<kumiki::unique_fd> owners_;
    std::vector<int> pidfds_;
};

/// What malloc has given out.
inline double heap_in_use() noexcept {
    const auto info = ::mallinfo2();
    return static_cast<double>(info.uordblks + info.hblkhd);
}

std::unique_ptr<side> make_raw();
std::unique_ptr<side> make_kumiki(bool on_io_uring);
std::unique_ptr<side> make_asio();
std::unique_ptr<side> make_asio_on_io_uring();

}  // namespace bench
