// poll_stream: the events of one descriptor, again and again, with one submission.
//
//   poll_stream events(io, fd, POLLIN);
//   for (;;) { auto seen = co_await events.next(); ... read until EAGAIN ... }
//
// IORING_POLL_ADD_MULTI (5.13) where there is one; a poll for each next() on epoll and before. What
// happens between two calls of next() is kept. Read all that is there before asking again: an event
// is told when it happens, and may or may not be told again while it lasts.
#pragma once

#include <poll.h>

#include <cerrno>
#include <optional>
#include <source_location>
#include <string>
#include <utility>

#include <kumiki/async/scheduler.hpp>
#include <kumiki/async/wait_list.hpp>
#include <kumiki/core/error.hpp>

namespace kumiki::inline v0 {

/// Belongs to one scheduler, has one consumer. The descriptor must stay open for its life.
class poll_stream {
  public:
    /// Waits for `events` (POLLIN, POLLPRI ...), POLLERR and POLLHUP, from the first next() on.
    poll_stream(scheduler& io, int fd, unsigned events,
                std::source_location from = std::source_location::current())
        : watch_(*this, io, fd, events, from) {}
    poll_stream(const poll_stream&) = delete;
    poll_stream& operator=(const poll_stream&) = delete;

    class [[nodiscard]] next_awaiter : public detail::wait_operation {
      public:
        next_awaiter(poll_stream& of, std::source_location from) noexcept
            : wait_operation(of.watch_.on(), of.waiting_, from), of_(&of) {}
        bool await_ready() const {
            of_->arm();
            return of_->has_news();
        }
        unsigned await_resume() {
            if (!of_->has_news()) take_result();
            return of_->take();
        }
        const char* what() const noexcept override { return "poll"; }
        int descriptor() const noexcept override { return of_->watch_.asked.fd; }

      private:
        poll_stream* of_;
    };
    /// Yields what has happened since the last call, at once or when it happens.
    /// Errors: kumiki::error with EBADF for a descriptor that is not open, EPERM on epoll for one
    /// that cannot be polled; `cancelled`.
    next_awaiter next(std::source_location from = std::source_location::current()) noexcept {
        return {*this, from};
    }

  private:
    friend class next_awaiter;

    class watch final : public detail::io_operation {
      public:
        watch(poll_stream& of, scheduler& io, int fd, unsigned events, std::source_location from)
            : io_operation(io.loop(), io.loop().through(),
                           {.kind = detail::request_kind::poll_many, .fd = fd, .flags = events},
                           from),
              of_(&of) {}
        ~watch() { abandon(); }
        void launch() { operation::launch(); }
        void progress(int result) noexcept override { of_->note(result); }
        void complete(int result) noexcept override {
            finish(result);
            of_->note(result);
        }
        detail::loop_core& on() const noexcept { return loop(); }

      private:
        poll_stream* of_;
    };

    void arm() {
        if (!watch_.in_flight() && !has_news()) watch_.launch();
    }
    bool has_news() const noexcept { return seen_ != 0 || failure_ != 0; }
    void note(int result) noexcept {
        if (result >= 0)
            seen_ |= static_cast<unsigned>(result);
        else
            failure_ = -result;
        waiting_.wake_one();
    }
    unsigned take() {
        if (const int failure = std::exchange(failure_, 0))
            throw error(failure, {.operation = "poll",
                                  .object = "descriptor " + std::to_string(watch_.asked.fd)});
        return std::exchange(seen_, 0U);
    }

    unsigned seen_ = 0;
    int failure_ = 0;
    detail::wait_list waiting_;
    watch watch_;  // last: its end must find the others
};

}  // namespace kumiki::inline v0
