// Seccomp filters: rules by system call, compiled here to classic BPF (no libseccomp).
//
// A filter first looks at the architecture: the same number is another call in the 32-bit ABI, so a
// foreign one kills. Then the number finds its rule through a binary tree; numbers without a name
// in syscall_table.hpp, x32 ones included, are answered apart (ENOSYS by default: programs then
// fall back, as on an older kernel). Kernel: 3.5; seccomp(2) 3.17; 5.11 keeps the answer for calls
// that are allowed whatever their arguments, which then cost nothing. No user notification yet.
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

/// A compiled filter: from seccomp_filter::compile(), or instructions of the caller's own.
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

  private:
    std::vector<sock_filter> instructions_;
};

/// Rules by system call. Those of one call are tried in the order in which they were given, and the
/// first whose conditions all hold decides; where none does, the filter's `otherwise`.
class seccomp_filter {
  public:
    /// `otherwise` is for calls of the table, `unknown` for numbers that are not in it, `foreign`
    /// for calls through another architecture's ABI.
    explicit seccomp_filter(seccomp_action otherwise,
                            seccomp_action unknown = seccomp_action::fail(ENOSYS),
                            seccomp_action foreign = seccomp_action::kill_process())
        : otherwise_(otherwise), unknown_(unknown), foreign_(foreign) {}

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
        return on(syscall_number(name), action, std::move(when));
    }

    /// The filter as BPF. Errors: invalid_input when it needs more than 4096 instructions.
    seccomp_program compile() const {
        detail::seccomp_writer code;
        const auto number =
            code.before(code.tree(segments()), sys::bpf_load(offsetof(seccomp_data, nr)));
        const auto native = code.branch(sys::bpf_jump_equal(detail::seccomp_architecture, 0, 0),
                                        number, code.answer(foreign_));
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
            const seccomp_action action = final != rules.end()       ? final->action
                                          : is_known_syscall(number) ? otherwise_
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
    std::vector<detail::seccomp_rule> rules_;  // by number, those of one call in the order given
};

/// Installs `program` on the calling thread, for good, and on every process that it makes.
/// Errors: kumiki::error; EACCES without no_new_privs and without CAP_SYS_ADMIN.
inline void install_seccomp(const seccomp_program& program) {
    const sock_fprog view = program.view();
    sys::check(::syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &view), [] {
        return error_context{.operation = "install",
                             .object = "seccomp filter",
                             .step = {},
                             .container = {},
                             .remedy =
                                 "It needs no_new_privs (PR_SET_NO_NEW_PRIVS) or "
                                 "CAP_SYS_ADMIN, and CONFIG_SECCOMP_FILTER."};
    });
}

}  // namespace kumiki::inline v0
