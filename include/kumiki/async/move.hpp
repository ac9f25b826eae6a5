// Tasks on several schedulers: one scheduler per thread, and tasks that move between them.
//
//   co_await move_to(other);                          // from here on, this task runs on `other`
//   auto size = co_await schedule_on(other, count(other));    // runs there, goes on here
//
// A move is the coroutine's own: whoever awaits it goes on where it was, on its own thread. The
// stop token goes along. Operations, scopes and locks of a scheduler are used on its thread only.
// Left out: schedulers that share their work.
#pragma once

#include <coroutine>
#include <utility>

#include <kumiki/async/scheduler.hpp>
#include <kumiki/async/task.hpp>

namespace kumiki::inline v0 {
namespace detail {

class [[nodiscard]] move_awaiter {
  public:
    explicit move_awaiter(event_loop& to) noexcept : to_(&to) {}
    bool await_ready() const noexcept { return false; }
    template <kumiki_promise Promise>
    bool await_suspend(std::coroutine_handle<Promise> handle) noexcept {
        task_ = &handle.promise();
        if (task_->queue == &to_->ready) return false;
        ready_queue& queue = to_->ready;
        task_->queue = &queue;
        queue.push_from_afar(*task_);  // it may have run there, and be gone, when this returns
        return true;
    }
    void await_resume() const {
        if (task_->queue != &to_->ready) throw cancelled();
    }

  private:
    event_loop* to_;
    promise_base* task_ = nullptr;
};

}  // namespace detail

/// The awaiting task goes on on the thread of `other`, with what is ready there. Nothing is done
/// when it is there already. A stop does not keep a task from moving, so that it can move back to
/// clean up.
///
/// Errors: `cancelled` when `other` ends before the task has arrived: it goes on where it was begun.
/// Lifetime: `other` must run until the task has ended or moved on; the scheduler where the task
/// was begun must outlive it.
inline detail::move_awaiter move_to(scheduler& other) noexcept {
    return detail::move_awaiter(other.loop());
}

/// Runs `work` on `other`; its awaiter goes on on its own scheduler with the result.
/// Errors: what `work` throws; `cancelled` when `other` ends before `work` has begun.
template <class T>
[[nodiscard]] task<T> schedule_on(scheduler& other, task<T> work) {
    co_await move_to(other);
    co_return co_await std::move(work);
}

}  // namespace kumiki::inline v0
