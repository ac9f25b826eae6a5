// What every coroutine of kumiki has in its frame: whom to resume when it ends, the queue that
// resumes it, and the stop token that it was given.
//
// Ready coroutines are resumed from a queue. A child that is awaited is resumed at once, from within
// its parent's await, up to a depth and for as long as the turn lasts; then from the queue as well.
// Never by symmetric transfer: that is no tail call at -O0 under g++, and a loop over tasks that are
// ready at once would use up the stack. The queue is intrusive: putting a coroutine into it allocates
// nothing and cannot fail. A coroutine may move to another scheduler's queue (move.hpp); its end is
// always told where it was begun. Left out: priorities.
#pragma once

#include <concepts>
#include <coroutine>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <stop_token>
#include <utility>

#include <kumiki/async/frame_memory.hpp>
#include <kumiki/async/remote_queue.hpp>

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

class ready_queue;
class promise_base;

/// Told, in place of an awaiting coroutine, that a task has come to its end.
class completion {
  public:
    /// May destroy the frame of `finished`. Must not resume a coroutine.
    virtual void on_finished(promise_base& finished) noexcept = 0;
    /// The coroutine that waits for this; null when none does. For a dump.
    virtual promise_base* awaiting() const noexcept { return nullptr; }

  protected:
    ~completion() = default;
};

/// A token that is never stopped: what a task has when nobody gave it one.
inline const std::stop_token never_stopped;

/// The part of a promise that does not depend on the task's type.
class promise_base : public posted_work {
  public:
    promise_base() = default;
    ~promise_base() {
        if (is_listed()) unlink();
    }

    static void* operator new(std::size_t size) { return allocate_frame(size); }
    static void operator delete(void* frame, std::size_t size) noexcept { free_frame(frame, size); }

    std::suspend_always initial_suspend() const noexcept { return {}; }
    void unhandled_exception() noexcept { error = std::current_exception(); }

    /// Makes this coroutine the child of one that waits for it.
    void adopt(promise_base& parent, const std::stop_token& token) noexcept {
        queue = home = parent.queue;
        stop = &token;
        continuation = &parent;
        observer = nullptr;
    }
    /// Makes this coroutine one whose end is told to `done`.
    void adopt(ready_queue& on, const std::stop_token& token, completion& done) noexcept {
        queue = home = &on;
        stop = &token;
        continuation = nullptr;
        observer = &done;
        previous_sibling = next_sibling = nullptr;
    }
    /// Hands on to whoever waits for this coroutine, which is at its end, on that one's thread.
    inline void hand_on() noexcept;
    /// Takes the coroutine out of the queue that it is in, if any.
    inline void unlink() noexcept;

    std::coroutine_handle<> handle;
    std::exception_ptr error;
    const char* name = nullptr;  ///< for a dump

    // Set when it is adopted, which every coroutine is before it runs:
    ready_queue* queue;  ///< of the scheduler that it runs on
    ready_queue* home;  ///< of the scheduler that it was begun on
    const std::stop_token* stop;  ///< lives in an ancestor, which outlives this
    promise_base* continuation;  ///< whom to resume at the end, or null and
    completion* observer;  ///< whom to tell
    promise_base* previous_sibling;  ///< in the observer's list, if it has one
    promise_base* next_sibling;

  private:
    /// It has come to another scheduler's thread.
    inline void run_posted() noexcept override;
    inline void discard_posted() noexcept override;
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
    /// `remote`: how other threads reach this queue's.
    explicit ready_queue(remote_queue& remote) noexcept : remote_(&remote) {
        ends_.previous_ = ends_.next_ = &ends_;
    }
    ready_queue(const ready_queue&) = delete;
    ready_queue& operator=(const ready_queue&) = delete;
    ~ready_queue() {
        while (!empty()) front().unlink();
    }

    bool empty() const noexcept { return ends_.next_ == &ends_; }
    /// After all others: woken by the kernel, a timer, another task.
    void push_back(promise_base& ready) noexcept { insert(ready, *ends_.previous_); }
    /// Before all others: the flow of one task, into a child and back out of it.
    void push_front(promise_base& ready) noexcept { insert(ready, ends_); }
    /// Puts it into this queue from the thread of another one.
    void push_from_afar(promise_base& moved) noexcept { remote_->push(moved); }
    remote_queue& remote() noexcept { return *remote_; }
    /// Resumes up to `budget` coroutines; true when none is left.
    bool run(std::size_t budget) {
        deepest_ = stack_pointer() - most_stack;
        resumed_ += budget;
        for (left_ = budget; left_ > 0 && !empty();) {
            promise_base& ready = front();
            take_out(ready);
            --left_;
            ready.handle.resume();
        }
        resumed_ -= std::exchange(left_, 0);
        return empty();
    }
    /// The flow of the task that runs now into `child`: resumes it right away, or from the queue.
    /// True when it has come to its end; else that is told to its continuation.
    bool run_child(promise_base& child) {
        if (left_ == 0) {
            push_back(child);  // it is the others' turn
            return false;
        }
        if (stack_pointer() < deepest_) {
            push_front(child);
            return false;
        }
        promise_base* const outer = std::exchange(running_child_, &child);
        --left_;
        child.handle.resume();
        return std::exchange(running_child_, outer) == nullptr;
    }
    /// For a coroutine at its end: true when the run_child() that began it learns of that itself.
    bool ends_within(const promise_base& ended) noexcept {
        if (running_child_ != &ended) return false;
        running_child_ = nullptr;
        return true;
    }
    /// How many times a coroutine was resumed.
    std::uint64_t resumed() const noexcept { return resumed_ - left_; }
    /// Calls `use` with each, in order.
    template <class Use>
    void for_each(Use use) const {
        for (const posted_work* at = ends_.next_; at != &ends_; at = at->next_)
            use(static_cast<const promise_base&>(*at));
    }
    /// Takes it out of the ready queue that it is in, if any.
    static void take_out(posted_work& ready) noexcept {
        if (ready.next_ == nullptr) return;
        ready.previous_->next_ = ready.next_;
        ready.next_->previous_ = ready.previous_;
        ready.previous_ = ready.next_ = nullptr;
    }

  private:
    struct sentinel final : posted_work {
        void run_posted() noexcept override {}
        void discard_posted() noexcept override {}
    };

    static constexpr std::uintptr_t most_stack = 16384;  // bytes, for awaits within awaits

    promise_base& front() noexcept { return static_cast<promise_base&>(*ends_.next_); }
    static std::uintptr_t stack_pointer() noexcept {
        return reinterpret_cast<std::uintptr_t>(__builtin_frame_address(0));
    }
    static void insert(promise_base& ready, posted_work& after) noexcept {
        ready.previous_ = &after;
        ready.next_ = after.next_;
        after.next_->previous_ = &ready;
        after.next_ = &ready;
    }

    sentinel ends_;
    remote_queue* remote_;
    std::uint64_t resumed_ = 0;  // at the end of this turn, if none is left of it
    std::size_t left_ = 0;  // of this turn's resumptions
    std::uintptr_t deepest_ = 0;  // where the stack of this turn is long enough
    promise_base* running_child_ = nullptr;  // the innermost that has neither ended nor waited
};

inline void promise_base::hand_on() noexcept {
    if (queue != home) {
        queue = home;
        queue->push_from_afar(*this);  // run_posted() there comes back here
    } else if (observer != nullptr) {
        observer->on_finished(*this);  // the frame may be gone after this
    } else {
        queue->push_front(*continuation);
    }
}
inline void promise_base::unlink() noexcept {
    if (is_queued())
        queue->remote().remove(*this);
    else
        ready_queue::take_out(*this);
}
inline void promise_base::run_posted() noexcept {
    if (handle.done())
        hand_on();
    else
        queue->push_back(*this);
}
inline void promise_base::discard_posted() noexcept {
    // The scheduler that it was to move to has ended: the task goes on where it was begun, and
    // the await of the move says so.
    if (queue == home) return;
    queue = home;
    queue->push_from_afar(*this);
}

/// The end of a coroutine.
struct final_awaiter {
    bool await_ready() const noexcept { return false; }
    template <kumiki_promise Promise>
    void await_suspend(std::coroutine_handle<Promise> handle) const noexcept {
        promise_base& ended = handle.promise();
        if (!ended.queue->ends_within(ended)) ended.hand_on();
    }
    void await_resume() const noexcept {}
};

}  // namespace detail
}  // namespace kumiki::inline v0
