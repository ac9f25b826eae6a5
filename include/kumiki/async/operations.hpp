// The awaitables of a scheduler, one small type for each: they turn a request's result into the
// value that a caller wants. A scheduler's member functions make them.
//
// Lifetime: what a pointer or span refers to must live until the await is over, and so must the
// descriptor: it is not closed while an operation waits on it.
#pragma once

#include <poll.h>

#include <chrono>
#include <coroutine>
#include <cstddef>
#include <cstdint>
#include <source_location>

#include <kumiki/async/event_loop.hpp>
#include <kumiki/core/unique_fd.hpp>

namespace kumiki::inline v0::detail {

/// Yields the events that have happened (POLLIN, POLLHUP ...).
class [[nodiscard]] poll_operation : public io_operation {
  public:
    using io_operation::io_operation;
    unsigned await_resume() { return static_cast<unsigned>(take_checked("poll")); }
};

/// Yields a number of bytes.
class [[nodiscard]] transfer_operation : public io_operation {
  public:
    using io_operation::io_operation;
    std::size_t await_resume() { return static_cast<std::size_t>(take_checked(name())); }

  private:
    const char* name() const noexcept {
        switch (asked.kind) {
        case request_kind::read:
            return "read";
        case request_kind::write:
            return "write";
        case request_kind::receive:
        case request_kind::receive_message:
            return "receive";
        default:
            return "send";
        }
    }
};

/// Yields the connection.
class [[nodiscard]] accept_operation : public io_operation {
  public:
    using io_operation::io_operation;
    accept_operation(accept_operation&&) = default;
    ~accept_operation() {
        abandon();
        if (const int fd = raw_result(); completed_unseen_ && fd >= 0) unique_fd{fd}.reset();
    }
    unique_fd await_resume() {
        completed_unseen_ = false;
        return unique_fd(take_checked("accept"));
    }

  private:
    bool completed_unseen_ = true;
};

/// Yields nothing: the connection is there.
class [[nodiscard]] connect_operation : public io_operation {
  public:
    using io_operation::io_operation;
    void await_resume() { take_checked("connect"); }
};

/// Waits for the end of a child on io_uring; yields 0 or a negative errno value.
class [[nodiscard]] wait_child_operation : public io_operation {
  public:
    using io_operation::io_operation;
    int await_resume() { return take_result(); }
};

/// Waits for a point in time. Costs no system call.
class [[nodiscard]] sleep_operation : public operation, private timer {
  public:
    sleep_operation(event_loop& loop, clock::time_point until, std::source_location where) noexcept
        : operation(loop, where), until_(until) {}
    sleep_operation(sleep_operation&& other) noexcept
        : operation(std::move(other)), until_(other.until_) {}
    ~sleep_operation() { abandon(); }
    void await_resume() { take_result(); }

  private:
    event_loop& events() noexcept { return static_cast<event_loop&>(loop()); }
    void begin() override { events().timers().insert(*this, until_); }
    void cancel() noexcept override {
        events().timers().erase(*this);
        finish(-ECANCELED);
    }
    void drain() noexcept override {}  // cancel() ends it at once
    void on_time() noexcept override { finish(0); }

    clock::time_point until_;
};

/// Lets the other ready tasks go first, and the kernel's completions too.
struct [[nodiscard]] yield_awaiter {
    bool await_ready() const noexcept { return false; }
    template <kumiki_promise Promise>
    void await_suspend(std::coroutine_handle<Promise> handle) const noexcept {
        handle.promise().queue->push_back(handle.promise());
    }
    void await_resume() const noexcept {}
};

}  // namespace kumiki::inline v0::detail
