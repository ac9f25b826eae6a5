// async_semaphore: at most so many tasks at a time.
//
//   async_semaphore slots(io, 8);
//   { auto permit = co_await slots.acquire(); ... }    // given back at the end of the block
//
// First come, first served: nobody overtakes those who wait. For one scheduler. A wait lies in the
// frame of its coroutine and needs no memory of its own. Left out: several permits at once, which
// would make one task wait for ever behind many small ones or the other way round.
#pragma once

#include <coroutine>
#include <cstddef>
#include <optional>
#include <source_location>
#include <utility>

#include <kumiki/async/scheduler.hpp>
#include <kumiki/async/wait_list.hpp>

namespace kumiki::inline v0 {

/// Permits that tasks wait for. Used on its scheduler's thread.
///
/// Lifetime: must outlive its permits and the tasks that wait.
class async_semaphore {
  public:
    async_semaphore(scheduler& io, std::size_t permits) noexcept
        : loop_(&io.loop()), available_(permits) {}
    async_semaphore(const async_semaphore&) = delete;
    async_semaphore& operator=(const async_semaphore&) = delete;

    /// One permit, given back by the destructor.
    class [[nodiscard]] permit {
      public:
        permit() noexcept = default;
        permit(permit&& other) noexcept : of_(std::exchange(other.of_, nullptr)) {}
        permit& operator=(permit&& other) noexcept {
            permit old(std::exchange(of_, std::exchange(other.of_, nullptr)));
            return *this;
        }
        ~permit() { release(); }
        /// Gives it back now.
        void release() noexcept {
            if (of_ != nullptr) std::exchange(of_, nullptr)->release();
        }
        /// True when there is one to give back.
        explicit operator bool() const noexcept { return of_ != nullptr; }

      private:
        friend async_semaphore;
        explicit permit(async_semaphore* of) noexcept : of_(of) {}
        async_semaphore* of_ = nullptr;
    };

    class [[nodiscard]] acquire_awaiter : public detail::wait_operation {
      public:
        acquire_awaiter(async_semaphore& of, const char* what, std::source_location where) noexcept
            : wait_operation(*of.loop_, of.waiting_, where), of_(&of), what_(what) {}
        acquire_awaiter(acquire_awaiter&&) noexcept = default;
        ~acquire_awaiter() {
            abandon();
            if (was_woken() && !taken_) of_->release();  // the frame died before it was resumed
        }
        bool await_ready() noexcept { return of_->take_one(); }
        permit await_resume() {
            if (was_begun()) take_result();
            taken_ = true;
            return permit(of_);
        }
        const char* what() const noexcept override { return what_; }

      private:
        async_semaphore* of_;
        const char* what_;
        bool taken_ = false;
    };

    /// `co_await s.acquire()` yields a permit, at once or when it is this task's turn.
    /// Errors: `cancelled` when the task is stopped while it waits.
    acquire_awaiter acquire(std::source_location where = std::source_location::current()) noexcept {
        return {*this, "acquire a semaphore", where};
    }
    /// A permit when there is one that nobody waits for.
    std::optional<permit> try_acquire() noexcept {
        if (!take_one()) return std::nullopt;
        return permit(this);
    }
    /// Adds a permit, as the end of a permit does.
    void release() noexcept {
        if (!waiting_.wake_one()) ++available_;
    }
    /// How many could be acquired without waiting.
    std::size_t available() const noexcept { return available_; }

  private:
    friend class async_mutex;
    bool take_one() noexcept {
        if (available_ == 0) return false;  // never above zero while somebody waits
        --available_;
        return true;
    }

    detail::loop_core* loop_;
    detail::wait_list waiting_;
    std::size_t available_;
};

}  // namespace kumiki::inline v0
