// The engine of a scheduler: resumes what is ready, fires what is due, waits for the kernel.
//
// It sleeps in one system call without a time limit other than the first timer's, so that an idle
// scheduler is not woken. Chooses the backend, and says to the observer when io_uring is denied.
#pragma once

#include <cerrno>
#include <chrono>
#include <cstddef>
#include <memory>
#include <optional>
#include <string>

#include <kumiki/async/backend.hpp>
#include <kumiki/async/epoll.hpp>
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
        running_ = true;
        const struct reset {
            bool& flag;
            ~reset() { flag = false; }
        } at_end{running_};
        while (!done) step(done);
    }

  private:
    void step(const bool& done) {
        constexpr std::size_t burst = 256;  // resumptions between two looks at the kernel
        const bool idle = ready.run(burst);
        if (done) return;
        if (!idle) {
            if (operations.size() > 0) backend_->wait(std::chrono::nanoseconds(0));
        } else if (!remote.pending()) {
            backend_->wait(timers_.until_first());
        }
        remote.run();
        timers_.run();
    }

    timer_queue timers_;
    std::unique_ptr<backend> backend_;
    io_backend kind_ = io_backend::epoll;
    std::string fallback_reason_;
    bool running_ = false;
};

/// Notes that the task that run() was called with is at its end.
struct root final : completion {
    void on_finished(promise_base&) noexcept override { done = true; }
    bool done = false;
};

}  // namespace kumiki::inline v0::detail
