// Several tasks at once, under one stop source: the engine of when_all and when_any.
//
// All have ended before join() goes on, whatever happened: no task outlives the one that made it.
#pragma once

#include <coroutine>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <type_traits>
#include <variant>

#include <kumiki/async/promise.hpp>
#include <kumiki/async/stop.hpp>
#include <kumiki/async/task.hpp>

namespace kumiki::inline v0::detail {

/// What makes a group stop those of its tasks that still run.
enum class group_stops : std::uint8_t {
    on_failure,    ///< the first that throws
    on_first_end,  ///< the first that ends
};

class task_group final : public completion {
  public:
    task_group(const promise_base& parent, group_stops when)
        : queue_(parent.queue), stop_(*parent.stop), when_(when) {}
    task_group(const task_group&) = delete;
    task_group& operator=(const task_group&) = delete;

    void start(promise_base& child) noexcept {
        child.adopt(*queue_, stop_.token(), *this);
        queue_->push_back(child);
        ++running_;
    }
    struct ends {
        task_group& of;
        bool await_ready() const noexcept { return of.running_ == 0; }
        template <kumiki_promise Promise>
        void await_suspend(std::coroutine_handle<Promise> parent) const noexcept {
            of.waiter_ = &parent.promise();
        }
        void await_resume() const noexcept {}
    };
    /// Awaits the end of all.
    ends join() noexcept { return {*this}; }
    /// The task that made the group stop the others; null when none did.
    const promise_base* decisive() const noexcept { return decisive_; }
    /// Throws what the first task that failed threw.
    void rethrow_failure() const {
        if (decisive_ != nullptr && decisive_->error) std::rethrow_exception(decisive_->error);
    }

  private:
    promise_base* awaiting() const noexcept override { return waiter_; }
    void on_finished(promise_base& child) noexcept override {
        --running_;
        if (decisive_ == nullptr && (child.error || when_ == group_stops::on_first_end)) {
            decisive_ = &child;
            stop_.request_stop();
        }
        if (running_ == 0 && waiter_ != nullptr) queue_->push_back(*waiter_);
    }

    ready_queue* queue_;
    linked_stop stop_;
    group_stops when_;
    std::size_t running_ = 0;
    const promise_base* decisive_ = nullptr;
    promise_base* waiter_ = nullptr;
};

/// What a task yields as a value: std::monostate for void.
template <class T>
struct value_of {
    using type = T;
};
template <>
struct value_of<void> {
    using type = std::monostate;
};
template <class T>
using value_of_t = typename value_of<T>::type;

template <class T>
value_of_t<T> take_value(const task<T>& of) {
    if constexpr (std::is_void_v<T>) {
        task_access::take(of);
        return {};
    } else {
        return task_access::take(of);
    }
}

}  // namespace kumiki::inline v0::detail
