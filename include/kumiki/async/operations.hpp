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
#include <utility>

#include <kumiki/async/event_loop.hpp>
#include <kumiki/core/unique_fd.hpp>

namespace kumiki::inline v0::detail {

/// Yields the events that have happened (POLLIN, POLLHUP ...).
class [[nodiscard]] poll_operation : public io_operation {
  public:
    using io_operation::io_operation;
    unsigned await_resume() { return static_cast<unsigned>(take_checked()); }
};

/// Yields a number of bytes.
class [[nodiscard]] transfer_operation : public io_operation {
  public:
    using io_operation::io_operation;
    std::size_t await_resume() { return static_cast<std::size_t>(take_checked()); }
};

/// Yields a new descriptor: a connection, an open file.
class [[nodiscard]] descriptor_operation : public io_operation {
  public:
    using io_operation::io_operation;
    descriptor_operation(descriptor_operation&&) = default;
    ~descriptor_operation() {
        abandon();
        if (const int fd = raw_result(); completed_unseen_ && fd >= 0) unique_fd{fd}.reset();
    }
    unique_fd await_resume() {
        completed_unseen_ = false;
        return unique_fd(take_checked());
    }

  private:
    bool completed_unseen_ = true;
};

/// Yields nothing: the connection is there.
class [[nodiscard]] connect_operation : public io_operation {
  public:
    using io_operation::io_operation;
    void await_resume() { take_checked(); }
};

/// Closes a descriptor, come what may: a stop does not keep it open.
class [[nodiscard]] close_operation : public io_operation {
  public:
    close_operation(loop_core& loop, backend& through, unique_fd fd, std::source_location where)
        : io_operation(loop, through, {.kind = request_kind::close, .fd = fd.get()}, where),
          fd_(std::move(fd)) {}
    close_operation(close_operation&&) = default;
    ~close_operation() { abandon(); }
    void await_resume() {
        if (fd_.get() >= 0) return fd_.reset();  // the task was stopped before
        take_checked();
    }

  private:
    void begin() override {
        io_operation::begin();
        static_cast<void>(fd_.release());
    }
    void cancel() noexcept override {}

    unique_fd fd_;
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
    const char* what() const noexcept override { return "sleep"; }

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
