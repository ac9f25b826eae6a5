// A scheduler's descriptor for foreign event loops (asio, Qt, GLib): readable when it has work.
//
// An epoll instance over the backend's descriptor (an eventfd that the ring writes, or the epoll
// instance) and a timerfd for the first deadline, which the backend is not told in advance.
// Kernel: timerfd_create(2) 2.6.25; IORING_REGISTER_EVENTFD 5.2.
#pragma once

#include <sys/epoll.h>
#include <sys/timerfd.h>

#include <chrono>
#include <cstdint>
#include <optional>

#include <kumiki/async/timer_queue.hpp>
#include <kumiki/core/unique_fd.hpp>
#include <kumiki/sys/check.hpp>

namespace kumiki::inline v0::detail {

class loop_fd {
  public:
    /// `backend`: what the scheduler itself waits on; `remote`: what other threads wake it by, also
    /// watched here because a kernel (6.18) tells the ring's eventfd of a wake-up that comes by
    /// another eventfd once and not again. Both must outlive this.
    loop_fd(int backend, int remote)
        : any_(sys::check(::epoll_create1(EPOLL_CLOEXEC), "create an epoll instance")),
          timer_(sys::check(::timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK),
                            "create a timerfd")) {
        add(backend);
        add(remote);
        add(timer_.get());
    }

    int fd() const noexcept { return any_.get(); }
    /// From now on readable at `first`; at once when there is `work` left.
    void expect(std::optional<clock::time_point> first, bool work) {
        if (work) first = clock::time_point{};
        if (first == expected_) return;
        expected_ = first;
        itimerspec when{};  // all zero: never
        if (first) {
            const auto since = first->time_since_epoch();
            const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(since);
            when.it_value.tv_sec = seconds.count();
            when.it_value.tv_nsec = std::chrono::nanoseconds(since - seconds).count();
            if (since.count() <= 0) when.it_value = {.tv_sec = 0, .tv_nsec = 1};
        }
        sys::check(::timerfd_settime(timer_.get(), TFD_TIMER_ABSTIME, &when, nullptr),
                   "set a timerfd");
    }

  private:
    void add(int fd) const {
        epoll_event event{.events = EPOLLIN, .data = {}};
        sys::check(::epoll_ctl(any_.get(), EPOLL_CTL_ADD, fd, &event), "watch a descriptor");
    }

    unique_fd any_;
    unique_fd timer_;
    std::optional<clock::time_point> expected_;
};

}  // namespace kumiki::inline v0::detail
