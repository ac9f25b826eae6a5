// with_timeout: an awaitable with a time limit. Limits nest: the inner one cannot outlast the outer.
#pragma once

#include <chrono>
#include <optional>
#include <stop_token>
#include <type_traits>
#include <utility>

#include <kumiki/async/scheduler.hpp>
#include <kumiki/async/stop.hpp>
#include <kumiki/async/task.hpp>
#include <kumiki/async/timer_queue.hpp>

namespace kumiki::inline v0 {
namespace detail {

/// A stop source that time stops too.
class deadline final : private timer {
  public:
    deadline(timer_queue& timers, const std::stop_token& above, std::chrono::nanoseconds limit)
        : timers_(timers), stop_(above) {
        timers_.insert(*this, deadline_after(clock::now(), limit));
    }
    ~deadline() { timers_.erase(*this); }
    const std::stop_token& token() const noexcept { return stop_.token(); }
    bool has_passed() const noexcept { return has_passed_; }

  private:
    void on_time() noexcept override {
        has_passed_ = true;
        stop_.request_stop();
    }

    timer_queue& timers_;
    linked_stop stop_;
    bool has_passed_ = false;
};

template <class T>
struct timed {
    using type = std::optional<T>;
};
template <>
struct timed<void> {
    using type = bool;
};

template <class T>
task<typename timed<T>::type> limit_time(scheduler& io, std::chrono::nanoseconds limit,
                                         task<T> work) {
    promise_base& self = co_await this_task{};
    if (self.queue != &io.loop().ready)
        fatal("a time limit of one scheduler was set in a task of another");
    const std::stop_token& above = *self.stop;
    deadline until(io.loop().timers(), above, limit);
    task_awaiter<T> running(task_access::release(work), &until.token());
    try {
        if constexpr (std::is_void_v<T>) {
            co_await running;
            co_return true;
        } else {
            typename timed<T>::type value(co_await running);
            co_return value;
        }
    } catch (const cancelled&) {
        if (!until.has_passed() || above.stop_requested()) throw;
    }
    co_return typename timed<T>::type{};
}

}  // namespace detail

/// Awaits `work` for at most `limit`, then stops it and awaits its end. Yields its value, or nothing
/// when the time was up; for void true, or false when the time was up.
///
/// A result that was there before the stop reached the work is yielded, also after the limit.
/// Errors: what `work` throws; `cancelled` when the awaiting task was stopped.
template <class Awaitable>
[[nodiscard]] task<typename detail::timed<detail::await_result_t<Awaitable>>::type> with_timeout(
    scheduler& io, std::chrono::nanoseconds limit, Awaitable work) {
    return detail::limit_time(io, limit, detail::into_task(std::move(work)));
}

}  // namespace kumiki::inline v0
