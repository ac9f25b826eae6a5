// task<T>: a coroutine that yields one T to the one that awaits it.
//
// READ THIS FIRST. A lambda with captures must not be a coroutine: the captures live in the lambda
// object, which is gone when the coroutine is resumed. Write a function, and pass what it needs as
// parameters, by value unless the task is awaited in the expression that makes it.
// Name what an await yields before you use it: `auto n = co_await io.read(fd, buffer);`.
//
// In a header, let it be a template: g++ 12 emits an inline coroutine wherever its header is seen.
//
// Lazy: it starts when it is awaited, and ends before its awaiter goes on. Left out: detached
// tasks (see scope.hpp), tasks that are awaited twice.
#pragma once

#include <concepts>
#include <coroutine>
#include <exception>
#include <memory>
#include <optional>
#include <stop_token>
#include <type_traits>
#include <utility>

#include <kumiki/async/promise.hpp>

namespace kumiki::inline v0 {

template <class T = void>
class task;

namespace detail {

struct task_access;

template <class T>
class task_promise final : public promise_base {
  public:
    task<T> get_return_object() noexcept;
    final_awaiter final_suspend() const noexcept { return {}; }

    template <class U = T>
        requires std::constructible_from<T, U>
    void return_value(U&& value) noexcept(std::is_nothrow_constructible_v<T, U>) {
        if constexpr (std::is_reference_v<T>)
            value_ = std::addressof(value);
        else
            value_.emplace(std::forward<U>(value));
    }
    T take() {
        if (error) std::rethrow_exception(std::move(error));
        if constexpr (std::is_reference_v<T>)
            return static_cast<T>(*value_);
        else
            return std::move(*value_);
    }

  private:
    std::conditional_t<std::is_reference_v<T>, std::remove_reference_t<T>*, std::optional<T>>
        value_{};
};

template <>
class task_promise<void> final : public promise_base {
  public:
    inline task<void> get_return_object() noexcept;
    final_awaiter final_suspend() const noexcept { return {}; }
    void return_void() const noexcept {}
    void take() {
        if (error) std::rethrow_exception(std::move(error));
    }
};

/// Runs a task as the child of the coroutine that awaits this, and owns its frame.
template <class T>
class [[nodiscard]] task_awaiter {
  public:
    /// `stop`: the child's token; null for the parent's.
    explicit task_awaiter(std::coroutine_handle<task_promise<T>> child,
                          const std::stop_token* stop = nullptr) noexcept
        : child_(child), stop_(stop) {
        if (!child_) fatal("a task was awaited that is empty, moved from, or was awaited before");
    }
    task_awaiter(task_awaiter&& other) noexcept
        : child_(std::exchange(other.child_, nullptr)), stop_(other.stop_) {}
    task_awaiter& operator=(task_awaiter&&) = delete;
    ~task_awaiter() {
        if (child_) child_.destroy();
    }

    bool await_ready() const noexcept { return false; }
    template <kumiki_promise Promise>
    bool await_suspend(std::coroutine_handle<Promise> parent) {
        promise_base& above = parent.promise();
        child_.promise().adopt(above, stop_ != nullptr ? *stop_ : *above.stop);
        return !above.queue->run_child(child_.promise());
    }
    T await_resume() { return child_.promise().take(); }

  private:
    std::coroutine_handle<task_promise<T>> child_;
    const std::stop_token* stop_;
};

}  // namespace detail

/// A coroutine that was made and has not run yet. Awaiting it runs it: `co_await std::move(t)`.
///
/// Errors: what the coroutine threw is thrown from the await; `cancelled` when it was stopped.
/// Lifetime: destroying a task that has not been awaited runs nothing of it.
template <class T>
class [[nodiscard]] task {
  public:
    using value_type = T;
    using promise_type = detail::task_promise<T>;

    task() noexcept = default;
    task(task&& other) noexcept : handle_(std::exchange(other.handle_, nullptr)) {}
    task& operator=(task&& other) noexcept {
        task old(std::exchange(handle_, std::exchange(other.handle_, nullptr)));
        return *this;
    }
    ~task() {
        if (handle_) handle_.destroy();
    }

    /// True when there is a coroutine to await.
    explicit operator bool() const noexcept { return static_cast<bool>(handle_); }
    auto operator co_await() && noexcept {
        return detail::task_awaiter<T>(std::exchange(handle_, nullptr));
    }

  private:
    friend promise_type;
    friend detail::task_access;
    template <class U>
    friend task<U> named(const char* name, task<U> work) noexcept;
    explicit task(std::coroutine_handle<promise_type> handle) noexcept : handle_(handle) {}

    std::coroutine_handle<promise_type> handle_;
};

/// `work` with a name, for scheduler::dump(). Lifetime: `name` must outlive the task.
template <class T>
[[nodiscard]] task<T> named(const char* name, task<T> work) noexcept {
    if (work.handle_) work.handle_.promise().name = name;
    return work;
}

namespace detail {

/// For what runs tasks otherwise than by awaiting them.
struct task_access {
    template <class T>
    static task_promise<T>& promise(const task<T>& of) noexcept {
        if (!of.handle_)
            fatal("a task was started that is empty, moved from, or was awaited before");
        return of.handle_.promise();
    }
    template <class T>
    static std::coroutine_handle<task_promise<T>> release(task<T>& of) noexcept {
        return std::exchange(of.handle_, nullptr);
    }
    /// What the task, which is at its end, yielded or threw.
    template <class T>
    static T take(const task<T>& of) {
        return of.handle_.promise().take();
    }
};

/// What awaiting an `Awaitable` yields.
template <class Awaitable>
struct await_result {
    using type = decltype(std::declval<Awaitable&>().await_resume());
};
template <class T>
struct await_result<task<T>> {
    using type = T;
};
template <class Awaitable>
using await_result_t = typename await_result<Awaitable>::type;

/// A task as it is, and any other awaitable as one.
template <class T>
task<T> into_task(task<T> work) noexcept {
    return work;
}
template <class Awaitable>
task<await_result_t<Awaitable>> into_task(Awaitable work) {
    co_return co_await std::move(work);
}

template <class T>
task<T> task_promise<T>::get_return_object() noexcept {
    const auto self = std::coroutine_handle<task_promise>::from_promise(*this);
    handle = self;
    return task<T>(self);
}

inline task<void> task_promise<void>::get_return_object() noexcept {
    const auto self = std::coroutine_handle<task_promise>::from_promise(*this);
    handle = self;
    return task<void>(self);
}

}  // namespace detail
}  // namespace kumiki::inline v0
