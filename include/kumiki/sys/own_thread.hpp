// A call on a thread that exists for that one call: for what a thread cannot take back afterwards,
// like having changed its namespace.
//
// The thread takes no signals (it starts with all of them blocked), so no handler of the host
// program runs in the wrong place. The caller waits for it, at once or after work of its own.
#pragma once

#include <pthread.h>
#include <signal.h>

#include <concepts>
#include <exception>
#include <optional>
#include <system_error>
#include <thread>
#include <type_traits>
#include <utility>

#include <kumiki/core/error.hpp>
#include <kumiki/core/scope_exit.hpp>

namespace kumiki::inline v0::sys {

namespace detail {

/// A thread that takes no signals. One function for all calls: a thread of a function of its own is
/// a template of many. Errors: EAGAIN when none can be started.
inline std::thread start_without_signals(void (*run)(void*), void* of) {
    sigset_t all;
    sigset_t before;
    ::sigfillset(&all);
    ::pthread_sigmask(SIG_SETMASK, &all, &before);  // a thread inherits its maker's mask
    const scope_exit restore([&]() noexcept { ::pthread_sigmask(SIG_SETMASK, &before, nullptr); });
    try {
        return std::thread(run, of);
    } catch (const std::system_error& refused) {
        throw error(refused.code().value(), {.operation = "start a thread"});
    }
}

}  // namespace detail

/// A call that goes on beside its maker's own work. Neither copied nor moved: the thread knows its place.
///
/// thread_local values are not the maker's. Lifetime: the destructor waits for the call's end.
template <std::invocable Function>
class own_thread {
  public:
    using result_type = std::invoke_result_t<Function>;
    static_assert(!std::is_reference_v<result_type>, "return a value or nothing");

    /// Begins the call. Errors: EAGAIN when no thread can be started.
    explicit own_thread(Function function)
        : function_(std::move(function)),
          thread_(detail::start_without_signals(
              [](void* self) { static_cast<own_thread*>(self)->run(); }, this)) {}
    own_thread(const own_thread&) = delete;
    own_thread& operator=(const own_thread&) = delete;
    ~own_thread() {
        if (thread_.joinable()) thread_.join();
    }

    /// Waits for the call and returns what it returned, or throws what it threw. To be called once.
    result_type get() {
        thread_.join();
        if (failure_) std::rethrow_exception(failure_);
        if constexpr (!std::is_void_v<result_type>) return std::move(*result_);
    }

  private:
    void run() noexcept {
        try {
            if constexpr (std::is_void_v<result_type>)
                function_();
            else
                result_.emplace(function_());
        } catch (...) {
            failure_ = std::current_exception();
        }
    }

    Function function_;
    std::exception_ptr failure_;
    std::conditional_t<std::is_void_v<result_type>, bool, std::optional<result_type>> result_{};
    std::thread thread_;
};

/// Runs `function` on a new thread and returns what it returns, or throws what it throws.
///
/// thread_local values are not the caller's. Errors: EAGAIN when no thread can be started.
template <std::invocable Function>
std::invoke_result_t<Function> on_own_thread(Function&& function) {
    own_thread thread(
        [&]() -> std::invoke_result_t<Function> { return std::forward<Function>(function)(); });
    return thread.get();
}

}  // namespace kumiki::inline v0::sys
