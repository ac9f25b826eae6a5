// What every coroutine of kumiki has in its frame: whom to resume when it ends, the queue that
// resumes it, and the stop token that it was given.
//
// Ready coroutines are resumed from a queue and never from each other: symmetric transfer is no
// tail call at -O0 under g++, and a loop over tasks that are ready at once would use up the stack.
// The queue is intrusive: putting a coroutine into it allocates nothing and cannot fail.
// Left out: priorities, and moving a running task to another thread.
#pragma once

#include <concepts>
#include <coroutine>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <stop_token>
#include <utility>

namespace kumiki::inline v0 {

/// Thrown by an operation that ended because the task's stop token asked for it.
///
/// An outcome and not a failure: it is no kumiki::error, so a handler for errors cannot take it for
/// one. Let it pass, or end the work that was stopped.
class cancelled : public std::exception {
  public:
    const char* what() const noexcept override { return "kumiki: the task was cancelled"; }
};

namespace detail {

/// Ends the program because the library was used in a way that would corrupt memory; says so on
/// the standard error, as assert(3) does.
[[noreturn]] inline void fatal(const char* message) noexcept {
    std::fprintf(stderr, "kumiki: %s\n", message);
    std::abort();
}

struct ready_link {
    ready_link* previous = nullptr;
    ready_link* next = nullptr;
};

class ready_queue;
class promise_base;

/// Told, in place of an awaiting coroutine, that a task has come to its end.
class completion {
  public:
    /// May destroy the frame of `finished`. Must not resume a coroutine.
    virtual void on_finished(promise_base& finished) noexcept = 0;

  protected:
    ~completion() = default;
};

/// A token that is never stopped: what a task has when nobody gave it one.
inline const std::stop_token never_stopped;

/// The part of a promise that does not depend on the task's type.
class promise_base : public ready_link {
  public:
    promise_base() = default;
    promise_base(const promise_base&) = delete;
    promise_base& operator=(const promise_base&) = delete;
    ~promise_base() { unlink(); }

    std::suspend_always initial_suspend() const noexcept { return {}; }
    void unhandled_exception() noexcept { error = std::current_exception(); }

    /// Makes this coroutine the child of one that waits for it.
    void adopt(promise_base& parent, const std::stop_token& token) noexcept {
        queue = parent.queue;
        stop = &token;
        continuation = &parent;
    }
    /// Makes this coroutine one whose end is told to `done`.
    void adopt(ready_queue& on, const std::stop_token& token, completion& done) noexcept {
        queue = &on;
        stop = &token;
        observer = &done;
    }
    /// Takes the coroutine out of the ready queue, if it is in it.
    void unlink() noexcept {
        if (next == nullptr) return;
        previous->next = next;
        next->previous = previous;
        previous = next = nullptr;
    }

    std::coroutine_handle<> handle;
    ready_queue* queue = nullptr;
    const std::stop_token* stop = &never_stopped;  ///< lives in an ancestor, which outlives this
    promise_base* continuation = nullptr;
    completion* observer = nullptr;
    std::exception_ptr error;
    promise_base* previous_sibling = nullptr;  ///< in the scope that runs it
    promise_base* next_sibling = nullptr;
};

template <class Promise>
concept kumiki_promise = std::derived_from<Promise, promise_base>;

/// Yields the promise of the coroutine that awaits it.
struct [[nodiscard]] this_task {
    bool await_ready() const noexcept { return false; }
    template <kumiki_promise Promise>
    bool await_suspend(std::coroutine_handle<Promise> handle) noexcept {
        promise = &handle.promise();
        return false;
    }
    promise_base& await_resume() const noexcept { return *promise; }

    promise_base* promise = nullptr;
};

/// The coroutines that can go on, in the order in which they became ready.
class ready_queue {
  public:
    ready_queue() noexcept { ends_.previous = ends_.next = &ends_; }
    ready_queue(const ready_queue&) = delete;
    ready_queue& operator=(const ready_queue&) = delete;
    ~ready_queue() {
        while (!empty()) front().unlink();
    }

    bool empty() const noexcept { return ends_.next == &ends_; }
    /// After all others: woken by the kernel, a timer, another task.
    void push_back(promise_base& ready) noexcept { insert(ready, *ends_.previous); }
    /// Before all others: the flow of one task, into a child and back out of it.
    void push_front(promise_base& ready) noexcept { insert(ready, ends_); }
    /// Resumes up to `budget` coroutines; true when none is left.
    bool run(std::size_t budget) {
        for (; budget > 0 && !empty(); --budget) {
            promise_base& ready = front();
            ready.unlink();
            ready.handle.resume();
        }
        return empty();
    }

  private:
    promise_base& front() noexcept { return static_cast<promise_base&>(*ends_.next); }
    static void insert(promise_base& ready, ready_link& after) noexcept {
        ready.previous = &after;
        ready.next = after.next;
        after.next->previous = &ready;
        after.next = &ready;
    }

    ready_link ends_;
};

/// The end of a coroutine: hands on to whoever waits for it.
struct final_awaiter {
    bool await_ready() const noexcept { return false; }
    template <kumiki_promise Promise>
    void await_suspend(std::coroutine_handle<Promise> handle) const noexcept {
        promise_base& promise = handle.promise();
        if (promise.observer != nullptr)
            promise.observer->on_finished(promise);  // the frame may be gone after this
        else
            promise.queue->push_front(*promise.continuation);
    }
    void await_resume() const noexcept {}
};

}  // namespace detail
}  // namespace kumiki::inline v0
