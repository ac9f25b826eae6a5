// offload(io, call): a blocking call on another thread, awaited like any other operation.
//
// Cancellation takes a call out of the line; one that was begun is waited for, and its result is
// yielded: a system call cannot be taken back. Lambdas with captures are welcome here, for the call
// is no coroutine.
#pragma once

#include <cerrno>
#include <concepts>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <optional>
#include <source_location>
#include <type_traits>
#include <utility>
#include <variant>

#include <kumiki/async/operation.hpp>
#include <kumiki/async/scheduler.hpp>
#include <kumiki/async/thread_pool.hpp>

namespace kumiki::inline v0 {
namespace detail {

template <class Function>
class [[nodiscard]] offload_operation : public operation, private pool_job {
  public:
    using result_type = std::invoke_result_t<Function>;

    offload_operation(loop_core& loop, thread_pool& pool, Function function,
                      std::source_location where)
        : operation(loop, where), pool_(&pool), function_(std::move(function)) {}
    offload_operation(offload_operation&& other)
        : operation(std::move(other)), pool_(other.pool_), function_(std::move(other.function_)) {}
    ~offload_operation() { abandon(); }

    const char* what() const noexcept override { return "an offloaded call"; }
    result_type await_resume() {
        take_result();
        if (failed_) std::rethrow_exception(std::move(failed_));
        if constexpr (!std::is_void_v<result_type>) return std::move(*value_);
    }

  private:
    struct landing final : posted_work {
        explicit landing(offload_operation& op) noexcept : of(op) {}
        void run_posted() noexcept override {
            // The call's thread may not be out of work() yet, and the operation is gone after this.
            { const std::lock_guard lock(of.mutex_); }
            of.finish(0);
        }
        void discard_posted() noexcept override {}
        offload_operation& of;
    };

    void begin() override { pool_->push(*this); }
    void cancel() noexcept override {
        if (pool_->remove(*this)) finish(-ECANCELED);
    }
    /// The call was begun: waits for its end on this thread.
    void drain() noexcept override {
        if (!in_flight()) return;
        {
            std::unique_lock lock(mutex_);
            ended_.wait(lock, [this] { return done_; });
        }
        loop().remote.remove(landing_);
        finish(0);
    }
    void work() noexcept override {
        try {
            if constexpr (std::is_void_v<result_type>)
                function_();
            else
                value_.emplace(function_());
        } catch (...) {
            failed_ = std::current_exception();
        }
        const std::lock_guard lock(mutex_);  // nobody goes on before this is over
        loop().remote.push(landing_);
        done_ = true;
        ended_.notify_one();
    }

    using stored =
        std::conditional_t<std::is_void_v<result_type>, std::monostate, std::optional<result_type>>;
    thread_pool* pool_;
    Function function_;
    stored value_{};
    std::exception_ptr failed_;
    landing landing_{*this};
    std::mutex mutex_;
    std::condition_variable ended_;
    bool done_ = false;
};

}  // namespace detail

/// Runs `call` on a thread of the scheduler's pool and yields what it returns or throws.
template <std::invocable Function>
[[nodiscard]] auto offload(scheduler& io, Function call,
                           std::source_location where = std::source_location::current()) {
    return detail::offload_operation<Function>(io.loop(), io.pool(), std::move(call), where);
}

}  // namespace kumiki::inline v0
