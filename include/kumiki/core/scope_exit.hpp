// Runs a function when a scope is left: always (scope_exit), or only when it is left by an
// exception (scope_fail). What is undone by them must not throw.
#pragma once

#include <exception>
#include <utility>

namespace kumiki::inline v0 {

/// Calls `function` at the end of its scope unless dismissed.
template <class Function>
class [[nodiscard]] scope_exit {
  public:
    explicit scope_exit(Function function) noexcept : function_(std::move(function)) {}
    scope_exit(const scope_exit&) = delete;
    scope_exit& operator=(const scope_exit&) = delete;
    ~scope_exit() {
        if (armed_) function_();
    }
    void dismiss() noexcept { armed_ = false; }

  private:
    Function function_;
    bool armed_ = true;
};

/// Calls `function` when its scope is left by an exception that was thrown after its construction.
///
/// Not for coroutines: a frame destroyed while suspended is left without an exception. There,
/// scope_exit with dismiss() as the last statement covers failure and cancellation alike.
template <class Function>
class [[nodiscard]] scope_fail {
  public:
    explicit scope_fail(Function function) noexcept : function_(std::move(function)) {}
    scope_fail(const scope_fail&) = delete;
    scope_fail& operator=(const scope_fail&) = delete;
    ~scope_fail() {
        if (std::uncaught_exceptions() > exceptions_) function_();
    }

  private:
    Function function_;
    int exceptions_ = std::uncaught_exceptions();
};

}  // namespace kumiki::inline v0
