// The engine of a scheduler: resumes what is ready, fires what is due, waits for the kernel.
//
// It sleeps in one system call without a time limit other than the first timer's, so that an idle
// scheduler is not woken. Chooses the backend, and says to the observer when io_uring is denied.
#pragma once

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include <kumiki/async/backend.hpp>
#include <kumiki/async/epoll.hpp>
#include <kumiki/async/loop_fd.hpp>
#include <kumiki/async/operation.hpp>
#include <kumiki/async/ring.hpp>
#include <kumiki/async/timer_queue.hpp>
#include <kumiki/core/observer.hpp>

namespace kumiki::inline v0::detail {

class event_loop : public loop_core {
  public:
    event_loop(io_backend wanted, ring_size size) {
        if (wanted != io_backend::epoll) {
            try {
                backend_ = std::make_unique<ring>(*this, size);
                kind_ = io_backend::io_uring;
                return;
            } catch (const error& denied) {
                if (wanted == io_backend::io_uring) throw;
                fallback_reason_ = denied.what();
            }
            report_notice("the scheduler uses epoll: " + fallback_reason_);
        }
        backend_ = std::make_unique<epoll>(*this);
        kind_ = io_backend::epoll;
    }
    /// Cancels what is still in flight and waits for its end; its tasks are not resumed.
    ~event_loop() {
        while (operation* const left = operations.any()) left->abandon();
    }

    backend& through() noexcept { return *backend_; }
    io_backend kind() const noexcept { return kind_; }
    const std::string& fallback_reason() const noexcept { return fallback_reason_; }
    bool is_running() const noexcept { return running_; }
    timer_queue& timers() noexcept { return timers_; }

    /// Works until `done`.
    void run_until(const bool& done) {
        const running_guard guard(*this);
        while (!done) {
            constexpr std::size_t burst = 256;  // resumptions between two looks at the kernel
            const bool idle = ready.run(burst);
            if (done) return;
            if (!idle) {
                if (operations.size() > 0) backend_->wait(std::chrono::nanoseconds(0));
            } else if (!remote.pending()) {
                sleep(timers_.until_first());
            }
            remote.run();
            timers_.run();
        }
    }
    /// Works until nothing is ready any more, or for a while; never sleeps. True when something
    /// was done.
    bool run_ready() {
        const running_guard guard(*this);
        const std::uint64_t before = ready.resumed();
        bool was_asked = false;
        for (int turns = 64; turns > 0; --turns) {
            ready.run(256);
            was_asked |= remote.run();
            timers_.run();
            backend_->wait(std::chrono::nanoseconds(0));  // hands over what was asked for, too
            if (ready.empty() && !remote.pending() && !backend_->has_news()) break;
        }
        if (outside_)
            outside_->expect(timers_.first(),
                             !ready.empty() || remote.pending() || backend_->has_news());
        return was_asked || ready.resumed() != before;
    }
    /// As run_ready(), after a sleep of at most `limit` when nothing was ready. The kernel may end a
    /// wait for nothing; that is no end of this one.
    void run_once(std::optional<std::chrono::nanoseconds> limit) {
        constexpr std::chrono::nanoseconds none(0);
        const auto last = limit ? deadline_after(clock::now(), *limit) : clock::time_point::max();
        while (!run_ready()) {
            const std::chrono::nanoseconds left = std::max(last - clock::now(), none);
            if (limit && left == none) return;
            const running_guard guard(*this);
            const auto first = timers_.until_first();
            sleep(!limit ? first : first ? std::min(*first, left) : left);
        }
    }
    /// A descriptor for foreign loops; made at the first call.
    int pollable_fd() {
        if (!outside_) {
            outside_ = std::make_unique<loop_fd>(backend_->pollable_fd(), remote.fd());
            run_ready();
        }
        return outside_->fd();
    }

  private:
    struct running_guard {
        explicit running_guard(event_loop& loop) : of(loop) { of.running_ = true; }
        running_guard(const running_guard&) = delete;
        ~running_guard() { of.running_ = false; }
        event_loop& of;
    };
    void sleep(std::optional<std::chrono::nanoseconds> limit) {
        if (!limit || limit->count() > 0) ++waits;
        backend_->wait(limit);
    }

    timer_queue timers_;
    std::unique_ptr<backend> backend_;
    io_backend kind_ = io_backend::epoll;
    std::string fallback_reason_;
    std::unique_ptr<loop_fd> outside_;
    bool running_ = false;
};

/// Notes that the task that run() was called with is at its end.
struct root final : completion {
    void on_finished(promise_base&) noexcept override { done = true; }
    bool done = false;
};

}  // namespace kumiki::inline v0::detail
