// scope: tasks that run beside the one that spawned them, and cannot outlive it.
//
//   co_await with_scope(io, [&](scope& tasks) -> task<void> { ... tasks.spawn(work(io)); ... });
//
// with_scope awaits the tasks also when its body throws. A bare scope must be joined on every path:
// one that is destroyed with running tasks ends the program with a message, for they would use what
// is gone. (The captures in the example are sound: with_scope keeps the lambda until its end.)
#pragma once

#include <concepts>
#include <coroutine>
#include <cstddef>
#include <exception>
#include <functional>
#include <optional>
#include <stop_token>
#include <utility>

#include <kumiki/async/scheduler.hpp>
#include <kumiki/async/stop.hpp>
#include <kumiki/async/task.hpp>

namespace kumiki::inline v0 {

/// Owns tasks that run on one scheduler. Used on its thread.
///
/// When one fails the others are stopped, and join() throws its exception. A task that ends with
/// `cancelled` has not failed.
class scope final : private detail::completion {
  public:
    /// A scope whose tasks are stopped by cancel(), and by a stop that reaches a join().
    explicit scope(scheduler& io) : scope(io, detail::never_stopped) {}
    /// A scope whose tasks are also stopped by `above`.
    scope(scheduler& io, const std::stop_token& above) : loop_(&io.loop()), stop_(above) {}
    scope(const scope&) = delete;
    scope& operator=(const scope&) = delete;
    ~scope() {
        // Whoever is awaiting a join is being destroyed with the scope, and so are the tasks.
        if (first_ != nullptr && waiter_ == nullptr)
            detail::fatal("a scope was destroyed with running tasks: co_await its join() first");
        while (first_ != nullptr) {
            detail::promise_base& child = *first_;
            remove(child);
            child.handle.destroy();
        }
    }

    /// As below, with a name for scheduler::dump(), which must outlive the task.
    void spawn(const char* name, task<void> work) { spawn(named(name, std::move(work))); }
    /// Starts `work`; it first runs when the calling task waits for something.
    void spawn(task<void> work) {
        if (!loop_->is_on_thread())
            detail::fatal("a task was spawned on a thread that is not its scope's: post() it");
        detail::promise_base& child = detail::task_access::promise(work);
        detail::task_access::release(work);
        child.adopt(loop_->ready, stop_.token(), *this);
        child.next_sibling = first_;
        if (first_ != nullptr) first_->previous_sibling = &child;
        first_ = &child;
        ++running_;
        loop_->ready.push_back(child);
    }
    /// Stops the tasks, and those that are spawned later.
    void cancel() noexcept { stop_.request_stop(); }
    /// The number of tasks that have not ended.
    std::size_t running() const noexcept { return running_; }
    const std::stop_token& token() const noexcept { return stop_.token(); }

    /// Awaits the end of all tasks. A stop of the awaiting task stops them.
    /// Errors: what the first that failed threw; else `cancelled` when the awaiting task is stopped.
    template <class = void>
    task<void> join() {
        detail::promise_base& self = co_await detail::this_task{};
        const std::stop_token& above = *self.stop;
        {
            const std::stop_callback link(above, stop_children{this});
            co_await ends{*this};
        }
        if (failure_) std::rethrow_exception(std::exchange(failure_, nullptr));
        if (above.stop_requested()) throw cancelled();
    }

  private:
    struct stop_children {
        scope* of;
        void operator()() const noexcept { of->cancel(); }
    };
    struct ends {
        scope& of;
        bool await_ready() const noexcept { return of.running_ == 0; }
        template <detail::kumiki_promise Promise>
        void await_suspend(std::coroutine_handle<Promise> task) const noexcept {
            if (of.waiter_ != nullptr) detail::fatal("a scope was joined twice at the same time");
            of.waiter_ = &task.promise();
        }
        void await_resume() const noexcept {}
    };

    detail::promise_base* awaiting() const noexcept override { return waiter_; }
    void on_finished(detail::promise_base& child) noexcept override {
        if (child.error && !failure_ && !is_cancelled(child.error)) {
            failure_ = child.error;
            cancel();
        }
        remove(child);
        child.handle.destroy();
        if (running_ == 0 && waiter_ != nullptr)
            loop_->ready.push_back(*std::exchange(waiter_, nullptr));
    }
    static bool is_cancelled(const std::exception_ptr& thrown) noexcept {
        try {
            std::rethrow_exception(thrown);
        } catch (const cancelled&) {
            return true;
        } catch (...) {
            return false;
        }
    }
    void remove(detail::promise_base& child) noexcept {
        (child.previous_sibling != nullptr ? child.previous_sibling->next_sibling : first_) =
            child.next_sibling;
        if (child.next_sibling != nullptr)
            child.next_sibling->previous_sibling = child.previous_sibling;
        --running_;
    }

    detail::loop_core* loop_;
    detail::linked_stop stop_;
    std::size_t running_ = 0;
    detail::promise_base* first_ = nullptr;
    detail::promise_base* waiter_ = nullptr;
    std::exception_ptr failure_;
};

/// Awaits `body(tasks)` and then all tasks that it spawned. When the body or a task fails, or the
/// awaiting task is stopped, the rest is stopped and awaited.
///
/// Errors: the body's exception, else that of the first task that failed.
template <std::invocable<scope&> Body>
task<void> with_scope(scheduler& io, Body body) {
    detail::promise_base& self = co_await detail::this_task{};
    scope tasks(io, *self.stop);
    std::exception_ptr failure;
    bool stopped = false;
    try {
        task<void> inner = std::invoke(body, tasks);
        detail::task_awaiter<void> running(detail::task_access::release(inner), &tasks.token());
        co_await running;
    } catch (const cancelled&) {
        stopped = true;
    } catch (...) {
        failure = std::current_exception();
    }
    if (stopped || failure) tasks.cancel();
    try {
        co_await tasks.join();
    } catch (...) {
        if (!failure) failure = std::current_exception();
    }
    if (failure) std::rethrow_exception(failure);
    if (stopped) throw cancelled();
}

}  // namespace kumiki::inline v0
