// async_mutex: one task at a time, across awaits.
//
//   async_mutex door(io);
//   { auto lock = co_await door.lock(); ... co_await ...; }    // open again at the end of the block
//
// Tasks of one scheduler run one at a time anyhow: a mutex is needed only where a task awaits
// something in the middle of what must not be interrupted. First come, first served. Not recursive:
// a task that locks twice waits for itself, and scheduler::dump() shows it.
#pragma once

#include <optional>
#include <source_location>

#include <kumiki/async/async_semaphore.hpp>
#include <kumiki/async/scheduler.hpp>

namespace kumiki::inline v0 {

/// A lock that tasks wait for. Used on its scheduler's thread.
///
/// Lifetime: must outlive its guards and the tasks that wait.
class async_mutex {
  public:
    /// Holds the lock; its end unlocks, on the scheduler's thread.
    using guard = async_semaphore::permit;

    explicit async_mutex(scheduler& io) noexcept : one_(io, 1) {}

    /// `auto lock = co_await m.lock();` yields the guard, at once or when it is this task's turn.
    /// Errors: `cancelled` when the task is stopped while it waits.
    async_semaphore::acquire_awaiter lock(
        std::source_location where = std::source_location::current()) noexcept {
        return {one_, "lock a mutex", where};
    }
    /// The guard, when nobody holds the lock.
    std::optional<guard> try_lock() noexcept { return one_.try_acquire(); }
    bool is_locked() const noexcept { return one_.available() == 0; }

  private:
    async_semaphore one_;
};

}  // namespace kumiki::inline v0
