// The words of a seccomp rule: what the kernel does with a system call (seccomp_action), and when,
// by its arguments (argument_condition). seccomp.hpp puts them together and compiles them.
//
// Kernel: SECCOMP_RET_* of linux/seccomp.h; killing the process and logging are 4.14, asking another
// process 5.0. Left out: SECCOMP_RET_KILL_THREAD (a process with a dead thread hangs) and TRACE.
#pragma once

#include <linux/seccomp.h>

#include <cstdint>
#include <string>

#include <kumiki/core/error.hpp>

namespace kumiki::inline v0 {

/// What the kernel does with a call.
class seccomp_action {
  public:
    static constexpr seccomp_action allow() noexcept { return seccomp_action(SECCOMP_RET_ALLOW); }
    /// The call is not made and returns `code` as its errno. Errors: invalid_input above 4095.
    static constexpr seccomp_action fail(int code) {
        if (code < 0 || code > 4095)
            throw invalid_input("errno", std::to_string(code), "It must be from 0 to 4095.");
        return seccomp_action(SECCOMP_RET_ERRNO | static_cast<std::uint32_t>(code));
    }
    /// The process dies as if by SIGSYS.
    static constexpr seccomp_action kill_process() noexcept {
        return seccomp_action(SECCOMP_RET_KILL_PROCESS);
    }
    /// The thread gets SIGSYS, which it can handle; the call is not made.
    static constexpr seccomp_action trap() noexcept { return seccomp_action(SECCOMP_RET_TRAP); }
    /// The call is made, and the kernel writes it to the audit log.
    static constexpr seccomp_action log() noexcept { return seccomp_action(SECCOMP_RET_LOG); }
    /// The call waits for the answer of whoever holds the filter's listener (seccomp_listener.hpp);
    /// without one it fails with ENOSYS. Stricter than allow() and log(), and no more: where another
    /// filter of the process fails the call, nobody is asked.
    static constexpr seccomp_action notify() noexcept {
        return seccomp_action(SECCOMP_RET_USER_NOTIF);
    }

    /// The value that the filter returns.
    constexpr std::uint32_t value() const noexcept { return value_; }
    friend constexpr bool operator==(seccomp_action, seccomp_action) noexcept = default;

  private:
    constexpr explicit seccomp_action(std::uint32_t value) noexcept : value_(value) {}
    std::uint32_t value_;
};

/// How an argument is compared.
enum class argument_test : std::uint8_t {
    equal,
    not_equal,
    less,
    less_equal,
    greater,
    greater_equal
};

/// (argument & mask) compared with value, all of them unsigned and 64 bits wide.
struct argument_condition {
    unsigned index = 0;
    std::uint64_t mask = ~std::uint64_t{0};
    argument_test test = argument_test::equal;
    std::uint64_t value = 0;

    friend constexpr bool operator==(const argument_condition&,
                                     const argument_condition&) = default;
};

/// A call's argument in an expression: `arg(0) == AF_ALG`, `(arg(1) & 0xffffffff) == TIOCSTI`.
/// The kernel reads an `int` from the lower half only: compare such arguments under a mask, or the
/// upper half of the register is a way around the rule. Pointers are not followed.
struct syscall_argument {
    unsigned index = 0;
    std::uint64_t mask = ~std::uint64_t{0};

    constexpr syscall_argument operator&(std::uint64_t bits) const noexcept {
        return {index, mask & bits};
    }
    constexpr argument_condition operator==(std::uint64_t value) const noexcept {
        return {index, mask, argument_test::equal, value};
    }
    constexpr argument_condition operator!=(std::uint64_t value) const noexcept {
        return {index, mask, argument_test::not_equal, value};
    }
    constexpr argument_condition operator<(std::uint64_t value) const noexcept {
        return {index, mask, argument_test::less, value};
    }
    constexpr argument_condition operator<=(std::uint64_t value) const noexcept {
        return {index, mask, argument_test::less_equal, value};
    }
    constexpr argument_condition operator>(std::uint64_t value) const noexcept {
        return {index, mask, argument_test::greater, value};
    }
    constexpr argument_condition operator>=(std::uint64_t value) const noexcept {
        return {index, mask, argument_test::greater_equal, value};
    }
};

/// Argument `index`, 0 to 5. Errors: invalid_input.
constexpr syscall_argument arg(unsigned index) {
    if (index > 5)
        throw invalid_input("argument index", std::to_string(index), "It must be from 0 to 5.");
    return {.index = index};
}

}  // namespace kumiki::inline v0
