// event_counter: an eventfd(2) that tasks wait for, and that anybody may count up: other threads,
// signal handlers, other processes that were given the descriptor, the kernel (KVM, vhost, cgroup
// v1).
//
//   event_counter work(io);
//   std::thread([&] { work.signal(); }) ...
//   auto count = co_await work.wait();      // how often, since the last time
//
// Kernel: 2.6.27, EFD_SEMAPHORE 2.6.30. Within one scheduler async_event and async_semaphore cost
// no system call.
#pragma once

#include <sys/eventfd.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <source_location>
#include <string>
#include <utility>

#include <kumiki/async/operations.hpp>
#include <kumiki/async/scheduler.hpp>
#include <kumiki/core/error.hpp>
#include <kumiki/core/unique_fd.hpp>
#include <kumiki/sys/check.hpp>

namespace kumiki::inline v0 {

/// What a wait takes from an event_counter.
enum class counter_mode : std::uint8_t {
    all,         ///< the whole count, which is zero then
    one_by_one,  ///< one (EFD_SEMAPHORE)
};

/// A counter of the kernel's. wait() on the scheduler's thread, signal() anywhere.
///
/// Errors: EMFILE, ENFILE. Lifetime: must outlive the tasks that wait for it.
class event_counter {
  public:
    explicit event_counter(scheduler& io, counter_mode mode = counter_mode::all)
        : io_(&io), fd_(sys::check(::eventfd(0, flags(mode)), "create an eventfd")) {}

    /// Counts up by `count`, which wakes a task that waits. Safe in a signal handler while it
    /// does not fail.
    /// Errors: invalid_input for 2^64 - 1; EAGAIN when the counter is full (at 2^64 - 2).
    void signal(std::uint64_t count = 1) const {
        if (::write(fd_.get(), &count, sizeof count) == sizeof count) return;
        const int code = errno;
        if (code == EINVAL) throw invalid_input("count", std::to_string(count), "It is too large.");
        throw error(code, {.operation = "count up an eventfd"});
    }

    class [[nodiscard]] wait_awaiter : public detail::io_operation {
      public:
        wait_awaiter(const event_counter& of, std::source_location where) noexcept
            : io_operation(of.io_->loop(), of.io_->loop().through(),
                           {.kind = detail::request_kind::read, .fd = of.fd_.get()}, where) {}
        wait_awaiter(wait_awaiter&&) noexcept = default;
        ~wait_awaiter() { abandon(); }
        std::uint64_t await_resume() {
            take_checked();
            return count_;
        }
        const char* what() const noexcept override { return "wait for a counter"; }

      private:
        void begin() override {
            asked.data = &count_;  // here it does not move any more
            asked.length = sizeof count_;
            io_operation::begin();
        }

        std::uint64_t count_ = 0;
    };
    /// Yields the count, or 1 in the mode one_by_one, as soon as it is not zero. Of several tasks
    /// that wait one gets it.
    /// Errors: `cancelled`; nothing is taken from the counter then.
    wait_awaiter wait(std::source_location where = std::source_location::current()) const noexcept {
        return {*this, where};
    }

    /// For others to count up: write(2) of 8 bytes. Owned by this.
    int fd() const noexcept { return fd_.get(); }

  private:
    static int flags(counter_mode mode) noexcept {
        return EFD_CLOEXEC | EFD_NONBLOCK | (mode == counter_mode::one_by_one ? EFD_SEMAPHORE : 0);
    }

    scheduler* io_;
    unique_fd fd_;
};

}  // namespace kumiki::inline v0
