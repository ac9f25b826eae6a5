// async_event: something that happens once, for as many tasks as wait for it.
//
//   async_event ready(io);
//   co_await ready.wait();      // in any number of tasks
//   ready.set();                // all of them go on, and later ones do not wait
//
// Manual reset, as Windows and asyncio have it. For one scheduler: another thread posts the set()
// (scheduler::post), or uses event_counter. A wait lies in the frame of its coroutine and needs no
// memory of its own.
#pragma once

#include <coroutine>
#include <source_location>

#include <kumiki/async/scheduler.hpp>
#include <kumiki/async/wait_list.hpp>

namespace kumiki::inline v0 {

/// A flag that tasks wait for. Used on its scheduler's thread.
///
/// Lifetime: must outlive the tasks that wait for it; the program ends with a message otherwise.
class async_event {
  public:
    explicit async_event(scheduler& io) noexcept : loop_(&io.loop()) {}
    async_event(const async_event&) = delete;
    async_event& operator=(const async_event&) = delete;

    /// Lets all go on that wait, and those that come later, until reset().
    void set() noexcept {
        is_set_ = true;
        waiting_.wake_all();
    }
    /// Those that come from now on wait. Who was woken by set() goes on all the same.
    void reset() noexcept { is_set_ = false; }
    bool is_set() const noexcept { return is_set_; }

    class [[nodiscard]] wait_awaiter : public detail::wait_operation {
      public:
        wait_awaiter(async_event& of, std::source_location where) noexcept
            : wait_operation(*of.loop_, of.waiting_, where), of_(&of) {}
        bool await_ready() const noexcept { return of_->is_set_; }
        void await_resume() {
            if (was_begun()) take_result();
        }
        const char* what() const noexcept override { return "wait for an event"; }

      private:
        async_event* of_;
    };

    /// `co_await e.wait()` goes on at once when the event is set, else when it happens.
    /// Errors: `cancelled` when the task is stopped while it waits.
    wait_awaiter wait(std::source_location where = std::source_location::current()) noexcept {
        return {*this, where};
    }

  private:
    detail::loop_core* loop_;
    detail::wait_list waiting_;
    bool is_set_ = false;
};

}  // namespace kumiki::inline v0
