// Where errno is read: on the line after the call, in one place.
//
//   const int fd = sys::check(::openat(...), {.operation = "open", .object = path});
//
// check() turns -1 into a kumiki::error; retry() repeats a call that a signal interrupted.
#pragma once

#include <cerrno>
#include <concepts>
#include <source_location>
#include <string>
#include <utility>

#include <kumiki/core/error.hpp>

namespace kumiki::inline v0::sys {

/// `result` of a system call, or a kumiki::error built from errno when it is negative.
///
/// The context is made by `describe`, a callable that returns error_context, and only on failure,
/// so that the text of an error costs nothing on the good path.
template <std::signed_integral Result, std::invocable Describe>
Result check(Result result, Describe&& describe,
             std::source_location where = std::source_location::current()) {
    if (result >= 0) [[likely]]
        return result;
    const int code = errno;
    throw error(code, std::forward<Describe>(describe)(), where);
}

/// As above with the context's two usual parts given directly.
template <std::signed_integral Result>
Result check(Result result, const char* operation, std::string_view object = {},
             std::source_location where = std::source_location::current()) {
    if (result >= 0) [[likely]]
        return result;
    const int code = errno;
    throw error(code,
                {.operation = operation,
                 .object = std::string(object),
                 .step = {},
                 .container = {},
                 .remedy = {}},
                where);
}

/// Repeats `call` while it fails with EINTR.
template <std::invocable Call>
auto retry(Call&& call) {
    for (;;) {
        const auto result = call();
        if (result >= 0 || errno != EINTR) return result;
    }
}

}  // namespace kumiki::inline v0::sys
