// Seccomp filters: rules by system call, compiled here to classic BPF (no libseccomp).
//
// A filter first looks at the architecture: the same number is another call in the 32-bit ABI, so a
// foreign one kills. Then the number finds its rule through a binary tree; numbers without a name
// in syscall_table.hpp, x32 ones included, are answered apart (ENOSYS by default: programs then
// fall back, as on an older kernel). Kernel: 3.5; seccomp(2) 3.17; 5.11 keeps the answer for calls
// that are allowed whatever their arguments, which then cost nothing. Rules that ask another process
// (notify()) need more than a filter: seccomp_notify.hpp.
#pragma once

#include <linux/seccomp.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <kumiki/core/error.hpp>
#include <kumiki/security/seccomp_compiler.hpp>
#include <kumiki/security/seccomp_rule.hpp>
#include <kumiki/security/syscall_table.hpp>
#include <kumiki/sys/bpf.hpp>
#include <kumiki/sys/check.hpp>

namespace kumiki::inline v0 {

namespace detail {

/// True for an instruction that ends the program with notify().
constexpr bool answers_notify(const sock_filter& instruction) noexcept {
    return instruction.code == (BPF_RET | BPF_K) &&
           (instruction.k & SECCOMP_RET_ACTION_FULL) == SECCOMP_RET_USER_NOTIF;
}

}  // namespace detail

/// A compiled filter: from seccomp_filter::compile(), or instructions of the caller's own, which the
/// kernel checks when they are installed.
class seccomp_program {
  public:
    /// Errors: invalid_input when there are none or more than 4096 (the kernel's limit).
    explicit seccomp_program(std::vector<sock_filter> instructions)
        : instructions_(std::move(instructions)) {
        if (instructions_.empty() || instructions_.size() > sys::bpf_most_instructions)
            throw invalid_input("seccomp program",
                                std::to_string(instructions_.size()) + " instructions",
                                "The kernel takes from 1 to 4096.");
    }
    std::span<const sock_filter> instructions() const noexcept { return instructions_; }
    /// What seccomp(SECCOMP_SET_MODE_FILTER) takes; the kernel does not write to it.
    /// Lifetime: points into this object.
    sock_fprog view() const noexcept {
        return {static_cast<unsigned short>(instructions_.size()),
                const_cast<sock_filter*>(instructions_.data())};
    }

    /// True when it has an instruction that answers with notify(). One that computes its answer
    /// (BPF_RET | BPF_A) is not looked into: as without a listener, such a call fails with ENOSYS.
    bool notifies() const noexcept {
        return std::ranges::any_of(instructions_, detail::answers_notify);
    }

  private:
    std::vector<sock_filter> instructions_;
};

/// Rules by system call. Those of one call are tried in the order in which they were given, and the
/// first whose conditions all hold decides; where none does, the filter's `otherwise`.
class seccomp_filter {
  public:
    /// `otherwise` is for calls of the table, `unknown` for numbers that are not in it, `foreign`
    /// for calls through another ABI than that of the architecture `of`.
    explicit seccomp_filter(seccomp_action otherwise,
                            seccomp_action unknown = seccomp_action::fail(ENOSYS),
                            seccomp_action foreign = seccomp_action::kill_process(),
                            architecture of = native_architecture)
        : otherwise_(otherwise), unknown_(unknown), foreign_(foreign), of_(of) {}

    /// Adds a rule for call `number`. Errors: invalid_input for a number that is not from 0 to
    /// 4095, an argument index above 5, more than 16 conditions.
    seccomp_filter& on(int number, seccomp_action action,
                       std::vector<argument_condition> when = {}) {
        if (number < 0 || number > 4095)
            throw invalid_input("system call", std::to_string(number),
                                "Its number must be from 0 to 4095.");
        if (when.size() > detail::most_conditions)
            throw invalid_input("seccomp rule", std::to_string(when.size()) + " conditions",
                                "One rule takes at most 16.");
        for (const auto& condition : when) (void)arg(condition.index);
        rules_.insert(std::ranges::upper_bound(rules_, number, {}, &detail::seccomp_rule::number),
                      {number, action, std::move(when)});
        return *this;
    }
    /// Adds a rule for the call `name`. Errors: as above, and for a name not in the table.
    seccomp_filter& on(std::string_view name, seccomp_action action,
                       std::vector<argument_condition> when = {}) {
        return on(syscall_number(name, of_), action, std::move(when));
    }

    /// As on(), but tried before the rules that the call has so far: opens what they refuse.
    seccomp_filter& on_first(std::string_view name, seccomp_action action,
                             std::vector<argument_condition> when = {}) {
        const int number = syscall_number(name, of_);
        on(number, action, std::move(when));
        const auto rules =
            std::ranges::equal_range(rules_, number, {}, &detail::seccomp_rule::number);
        std::rotate(rules.begin(), rules.end() - 1, rules.end());
        return *this;
    }

    /// The filter as BPF. Errors: invalid_input when it needs more than 4096 instructions.
    seccomp_program compile() const {
        detail::seccomp_writer code;
        const auto number =
            code.before(code.tree(segments()), sys::bpf_load(offsetof(seccomp_data, nr)));
        const auto native = code.branch(sys::bpf_jump_equal(audit_number(of_), 0, 0), number,
                                        code.answer(foreign_));
        code.before(native, sys::bpf_load(offsetof(seccomp_data, arch)));
        return seccomp_program(std::move(code).finish());
    }

  private:
    std::vector<detail::seccomp_segment> segments() const {
        std::vector<detail::seccomp_segment> parts;
        std::span<const detail::seccomp_rule> sorted(rules_);
        const auto add = [&](std::uint32_t first, seccomp_action action,
                             std::span<const detail::seccomp_rule> rules = {}) {
            if (rules.empty() && !parts.empty() && parts.back().rules.empty() &&
                parts.back().action == action)
                return;
            parts.push_back({first, action, rules});
        };
        const int last =
            std::max(detail::newest_syscall, sorted.empty() ? 0 : sorted.back().number);
        for (int number = 0; number <= last; ++number) {
            std::size_t count = 0;
            while (count < sorted.size() && sorted[count].number == number) ++count;
            const auto rules = sorted.first(count);
            sorted = sorted.subspan(count);
            const auto final =
                std::ranges::find_if(rules, [](const auto& rule) { return rule.when.empty(); });
            const seccomp_action action = final != rules.end()            ? final->action
                                          : is_known_syscall(number, of_) ? otherwise_
                                                                          : unknown_;
            add(static_cast<std::uint32_t>(number), action, {rules.begin(), final});
        }
        add(static_cast<std::uint32_t>(last) + 1, unknown_);
        add(detail::x32_bit, seccomp_action::fail(ENOSYS));
        return parts;
    }

    seccomp_action otherwise_;
    seccomp_action unknown_;
    seccomp_action foreign_;
    architecture of_;
    std::vector<detail::seccomp_rule> rules_;  // by number, those of one call in the order given
};

namespace detail {

/// What to do when the kernel does not take a filter; empty when there is nothing special to say.
inline std::string seccomp_remedy(int code) {
    if (code == EINVAL)
        return "The kernel does not take these instructions: one is not for seccomp, a jump or a "
               "load "
               "leads outside, or the last one does not return.";
    if (code == ENOMEM) return "All filters of a process have at most 32768 instructions together.";
    if (code == EBUSY)
        return "A filter with a listener is in force here already, and a process has at most one.";
    return "It needs no_new_privs (PR_SET_NO_NEW_PRIVS) or CAP_SYS_ADMIN, and "
           "CONFIG_SECCOMP_FILTER.";
}

/// seccomp(2). Yields the listener where `flags` ask for one.
inline int set_seccomp_filter(const seccomp_program& program, unsigned long flags) {
    const sock_fprog view = program.view();
    return static_cast<int>(
        sys::check(::syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &view), [] {
            return error_context{.operation = "install",
                                 .object = "seccomp filter",
                                 .step = {},
                                 .container = {},
                                 .remedy = seccomp_remedy(errno)};
        }));
}

}  // namespace detail

/// Installs `program` on the calling thread, for good, and on every process that it makes. Its
/// notify rules fail with ENOSYS: install_seccomp_listener() is for them.
/// Errors: kumiki::error; EACCES without no_new_privs and without CAP_SYS_ADMIN, EINVAL for
/// instructions that the kernel does not take.
inline void install_seccomp(const seccomp_program& program) {
    detail::set_seccomp_filter(program, 0);
}

}  // namespace kumiki::inline v0
