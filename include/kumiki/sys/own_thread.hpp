// A call on a thread that exists for that one call: for what a thread cannot take back afterwards,
// like having changed its namespace.
//
// The thread takes no signals (it starts with all of them blocked), so no handler of the host
// program runs in the wrong place. The caller waits for it.
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

/// Runs `function` on a new thread and returns what it returns, or throws what it throws.
///
/// thread_local values are not the caller's. Errors: EAGAIN when no thread can be started.
template <std::invocable Function>
std::invoke_result_t<Function> on_own_thread(Function&& function) {
    using result_type = std::invoke_result_t<Function>;
    static_assert(!std::is_reference_v<result_type>, "return a value or nothing");
    std::exception_ptr failure;
    std::conditional_t<std::is_void_v<result_type>, bool, std::optional<result_type>> result{};
    const auto body = [&]() noexcept {
        try {
            if constexpr (std::is_void_v<result_type>)
                std::forward<Function>(function)();
            else
                result.emplace(std::forward<Function>(function)());
        } catch (...) {
            failure = std::current_exception();
        }
    };
    {
        sigset_t all;
        sigset_t before;
        ::sigfillset(&all);
        ::pthread_sigmask(SIG_SETMASK, &all, &before);  // a thread inherits its maker's mask
        const scope_exit restore(
            [&]() noexcept { ::pthread_sigmask(SIG_SETMASK, &before, nullptr); });
        std::thread thread;
        try {
            thread = std::thread(body);
        } catch (const std::system_error& refused) {
            throw error(refused.code().value(), {.operation = "start a thread"});
        }
        thread.join();
    }
    if (failure) std::rethrow_exception(failure);
    if constexpr (!std::is_void_v<result_type>) return std::move(*result);
}

}  // namespace kumiki::inline v0::sys
