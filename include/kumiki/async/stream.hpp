// stream<T>: a coroutine that yields many values, one for each time that it is asked.
//
//   stream<int> count(scheduler& io) { for (int i = 0;; ++i) { co_yield i; ... } }
//   while (auto value = co_await numbers.next()) use(*value);
//
// Runs only while next() is awaited, under the token of the task that awaits it: a stop (also of a
// time limit around next()) reaches the coroutine as `cancelled`, and ends the stream with it.
// Left out: buffers between the two (the producer waits for its consumer).
#pragma once

#include <coroutine>
#include <exception>
#include <optional>
#include <utility>

#include <kumiki/async/promise.hpp>

namespace kumiki::inline v0 {

/// The consumer's end of a generating coroutine. The warning in task.hpp about lambdas holds here.
///
/// Lifetime: a stream that is destroyed before its end releases what its coroutine holds.
template <class T>
class [[nodiscard]] stream {
  public:
    class next_awaiter;
    using value_type = T;

    class promise_type final : public detail::promise_base {
      public:
        stream get_return_object() noexcept {
            const auto self = std::coroutine_handle<promise_type>::from_promise(*this);
            handle = self;
            return stream(self);
        }
        detail::final_awaiter final_suspend() const noexcept { return {}; }
        void return_void() const noexcept {}
        auto yield_value(T value) {
            value_.emplace(std::move(value));
            struct handover : std::suspend_always {
                promise_type& of;
                explicit handover(promise_type& self) noexcept : of(self) {}
                void await_suspend(std::coroutine_handle<>) const noexcept {
                    of.queue->push_front(*of.continuation);
                }
            };
            return handover(*this);
        }

      private:
        friend stream;
        friend class next_awaiter;
        std::optional<T> value_;
        bool asked_ = false;
    };

    stream() noexcept = default;
    stream(stream&& other) noexcept : handle_(std::exchange(other.handle_, nullptr)) {}
    stream& operator=(stream&& other) noexcept {
        stream old(std::exchange(handle_, std::exchange(other.handle_, nullptr)));
        return *this;
    }
    ~stream() {
        if (handle_) handle_.destroy();
    }

    class [[nodiscard]] next_awaiter {
      public:
        explicit next_awaiter(std::coroutine_handle<promise_type> of) noexcept : of_(of) {}
        bool await_ready() const noexcept { return !of_ || of_.done(); }
        template <detail::kumiki_promise Promise>
        void await_suspend(std::coroutine_handle<Promise> consumer) const noexcept {
            promise_type& promise = of_.promise();
            if (std::exchange(promise.asked_, true))
                detail::fatal("two tasks awaited the next value of one stream");
            promise.adopt(consumer.promise(), *consumer.promise().stop);
            promise.queue->push_front(promise);
        }
        std::optional<T> await_resume() const {
            if (!of_) return std::nullopt;
            promise_type& promise = of_.promise();
            promise.asked_ = false;
            if (promise.error) std::rethrow_exception(std::exchange(promise.error, nullptr));
            return std::exchange(promise.value_, std::nullopt);
        }

      private:
        std::coroutine_handle<promise_type> of_;
    };

    /// `co_await s.next()` yields the next value, or nothing when the coroutine is at its end.
    /// Errors: what the coroutine throws, once; it is at its end then.
    next_awaiter next() noexcept { return next_awaiter(handle_); }

  private:
    explicit stream(std::coroutine_handle<promise_type> handle) noexcept : handle_(handle) {}

    std::coroutine_handle<promise_type> handle_;
};

}  // namespace kumiki::inline v0
