// Stopping tasks: std::stop_token, handed down from each task to the tasks that it awaits.
//
// A stop that was asked for reaches the operation in flight at the leaf, which ends with
// `cancelled` once the kernel has let go of it; an operation that was completed first yields its
// result, and the next one is cancelled. Cleaning up with coroutines after a stop needs shield().
#pragma once

#include <optional>
#include <stop_token>
#include <utility>

#include <kumiki/async/promise.hpp>
#include <kumiki/async/task.hpp>

namespace kumiki::inline v0 {

namespace detail {

struct [[nodiscard]] stop_token_awaiter : this_task {
    const std::stop_token& await_resume() const noexcept { return *promise->stop; }
};

struct forward_stop {
    std::stop_source* to;
    void operator()() const noexcept { to->request_stop(); }
};

/// A stop source that is stopped by its owner or by the token above it, whichever comes first.
class linked_stop {
  public:
    explicit linked_stop(const std::stop_token& above) : token_(source_.get_token()) {
        if (above.stop_possible()) link_.emplace(above, forward_stop{&source_});
    }
    linked_stop(const linked_stop&) = delete;
    linked_stop& operator=(const linked_stop&) = delete;
    void request_stop() noexcept { source_.request_stop(); }
    const std::stop_token& token() const noexcept { return token_; }

  private:
    std::stop_source source_;
    std::stop_token token_;
    std::optional<std::stop_callback<forward_stop>> link_;
};

}  // namespace detail

/// `auto stop = co_await current_stop_token();` yields the token of the task that asks.
inline detail::stop_token_awaiter current_stop_token() noexcept { return {}; }

/// `co_await shield(work)` runs `work` to its end though the task that awaits it has been stopped:
/// for the release of resources.
template <class T>
[[nodiscard]] detail::task_awaiter<T> shield(task<T> work) noexcept {
    return detail::task_awaiter<T>(detail::task_access::release(work), &detail::never_stopped);
}

}  // namespace kumiki::inline v0
