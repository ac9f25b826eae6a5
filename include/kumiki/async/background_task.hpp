// A task that belongs to an object: it runs beside everything else, and ends with the object, whose
// destructor cannot await it. For what an object does for itself in the background.
//
// Tasks of a program's own are a scope's (scope.hpp), which is awaited: there is no order in which
// frames that refer to each other could be destroyed.
#pragma once

#include <utility>

#include <kumiki/async/promise.hpp>
#include <kumiki/async/scheduler.hpp>
#include <kumiki/async/task.hpp>

namespace kumiki::inline v0::detail {

/// Owns one task that has no awaiter. What it throws is lost: it must handle that by itself.
///
/// Lifetime: the destructor cancels what the task waits for, waits for the kernel's last word, and
/// destroys the frame, before or after the scheduler's end; not from within the task itself.
class background_task final : private completion {
  public:
    /// Starts `work`; it first runs when the calling task waits for something. `name` is for a dump.
    background_task(scheduler& io, task<void> work, const char* name = nullptr) {
        if (!io.loop().is_on_thread())
            fatal("a task was begun on a thread that is not its scheduler's: post() it");
        promise_base& promise = task_access::promise(work);
        task_access::release(work);
        running_ = &promise;
        promise.adopt(io.loop().ready, never_stopped, *this);
        promise.name = name;
        io.loop().ready.push_back(promise);
    }
    background_task(const background_task&) = delete;
    background_task& operator=(const background_task&) = delete;
    ~background_task() {
        if (running_ != nullptr) running_->handle.destroy();
    }

  private:
    void on_finished(promise_base& ended) noexcept override {
        running_ = nullptr;
        ended.handle.destroy();
    }

    promise_base* running_ = nullptr;
};

}  // namespace kumiki::inline v0::detail
