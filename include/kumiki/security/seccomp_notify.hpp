// Filters whose rules ask another process (seccomp_action::notify()): how they are installed, and how
// the listener gets from the process that is filtered to the one that answers.
//
// The kernel gives the listener to whoever installs the filter, who needs a system call to hand it on
// and is filtered already. So such a program is two filters: one that only asks, with the listener,
// and behind the handing over one with all the rest. Together they answer as the whole would: of
// several filters the strictest answer counts, and where the one asks the other allows.
// Kernel: SECCOMP_FILTER_FLAG_NEW_LISTENER 5.0; WAIT_KILLABLE_RECV 5.19. seccomp_unotify(2).
#pragma once

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <set>
#include <utility>
#include <vector>

#include <kumiki/core/error.hpp>
#include <kumiki/core/unique_fd.hpp>
#include <kumiki/security/seccomp.hpp>
#include <kumiki/security/seccomp_compiler.hpp>

namespace kumiki::inline v0 {

namespace detail {

/// The flags of seccomp(2) for a filter with a listener. Where the kernel has it, a call whose
/// notification was read waits on through signals that are not deadly: it is not made twice.
inline unsigned long seccomp_listener_flags() noexcept {
    static const bool killable = [] {
        // Flags are looked at before the program: EFAULT for its address says that they are known.
        const long result = ::syscall(
            SYS_seccomp, SECCOMP_SET_MODE_FILTER,
            SECCOMP_FILTER_FLAG_NEW_LISTENER | SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV, nullptr);
        return result < 0 && errno == EFAULT;
    }();
    return SECCOMP_FILTER_FLAG_NEW_LISTENER |
           (killable ? SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV : 0);
}

/// The part of `program` that asks; it allows everything else.
inline seccomp_program only_notifying(const seccomp_program& program) {
    std::vector<sock_filter> code(program.instructions().begin(), program.instructions().end());
    for (sock_filter& each : code)
        if (BPF_CLASS(each.code) == BPF_RET && !answers_notify(each))
            each = sys::bpf_return(SECCOMP_RET_ALLOW);
    return seccomp_program(std::move(code));
}

/// The rest: where the other part asks, it allows.
inline seccomp_program without_notifying(const seccomp_program& program) {
    std::vector<sock_filter> code(program.instructions().begin(), program.instructions().end());
    for (sock_filter& each : code)
        if (answers_notify(each)) each = sys::bpf_return(SECCOMP_RET_ALLOW);
    return seccomp_program(std::move(code));
}

/// Whether an instruction jumps by A; nothing when that depends on what is not known here.
constexpr std::optional<bool> is_taken(const sock_filter& jump,
                                       std::optional<std::uint32_t> a) noexcept {
    if (!a || BPF_SRC(jump.code) != BPF_K) return std::nullopt;
    switch (BPF_OP(jump.code)) {
    case BPF_JEQ:
        return *a == jump.k;
    case BPF_JGT:
        return *a > jump.k;
    case BPF_JGE:
        return *a >= jump.k;
    case BPF_JSET:
        return (*a & jump.k) != 0;
    default:
        return std::nullopt;
    }
}

/// A after an instruction that is no jump, where it is the same for all arguments of a call.
constexpr std::optional<std::uint32_t> next_a(const sock_filter& instruction,
                                              std::optional<std::uint32_t> a, int number) noexcept {
    switch (BPF_CLASS(instruction.code)) {
    case BPF_LD:
        if (instruction.code == (BPF_LD | BPF_IMM)) return instruction.k;
        if (instruction.code != (BPF_LD | BPF_W | BPF_ABS)) return std::nullopt;
        if (instruction.k == offsetof(seccomp_data, nr)) return static_cast<std::uint32_t>(number);
        if (instruction.k == offsetof(seccomp_data, arch)) return seccomp_architecture;
        return std::nullopt;
    case BPF_ALU:
        if (instruction.code == (BPF_ALU | BPF_AND | BPF_K) && a) return *a & instruction.k;
        return std::nullopt;
    case BPF_MISC:
        return BPF_MISCOP(instruction.code) == BPF_TAX ? a : std::nullopt;
    default:
        return a;
    }
}

/// Whether call `number` of this machine's own ABI can meet notify(), whatever its arguments are.
/// For a program that is too winding to follow the answer is yes.
inline bool may_notify(const seccomp_program& program, int number) {
    constexpr std::size_t most = 1 << 16;
    using place = std::pair<std::size_t, std::optional<std::uint32_t>>;
    const auto code = program.instructions();
    std::set<place> seen;
    std::vector<place> open{{0, std::nullopt}};
    while (!open.empty()) {
        const auto [at, a] = open.back();
        open.pop_back();
        if (at >= code.size() || !seen.insert({at, a}).second) continue;
        if (seen.size() > most) return true;
        const sock_filter& here = code[at];
        if (BPF_CLASS(here.code) == BPF_RET) {
            if (answers_notify(here)) return true;
        } else if (BPF_CLASS(here.code) != BPF_JMP) {
            open.emplace_back(at + 1, next_a(here, a, number));
        } else if (BPF_OP(here.code) == BPF_JA) {
            open.emplace_back(at + 1 + here.k, a);
        } else {
            const auto taken = is_taken(here, a);
            if (taken.value_or(true)) open.emplace_back(at + 1 + here.jt, a);
            if (!taken.value_or(false)) open.emplace_back(at + 1 + here.jf, a);
        }
    }
    return false;
}

/// By which call a process hands its listener over that cannot be stopped by its own filter.
enum class listener_handover : std::uint8_t {
    sent,  ///< sendmsg(2) with SCM_RIGHTS
    fetched,  ///< a byte by write(2); the other side takes it by pidfd_getfd(2)
};

/// Errors: invalid_input when both calls may have to wait, for nobody could answer them yet.
inline listener_handover choose_handover(const seccomp_program& program) {
    const seccomp_program asking = only_notifying(program);
    if (!may_notify(asking, SYS_sendmsg)) return listener_handover::sent;
    if (!may_notify(asking, SYS_write)) return listener_handover::fetched;
    throw invalid_input("seccomp filter", "notify sendmsg and write",
                        "The filtered process hands its listener over by one of the two, before "
                        "anybody can answer it: have no notify rule for the one or the other.");
}

}  // namespace detail

/// Installs `program` on the calling thread as install_seccomp() does, and yields its listener, which
/// is closed on execve: hand it to the process that answers (SCM_RIGHTS), for this one cannot.
///
/// Lifetime: once the last copy of the listener is closed, calls that ask or wait fail with ENOSYS.
/// Errors: as install_seccomp(); EBUSY when a filter in force here has a listener.
inline unique_fd install_seccomp_listener(const seccomp_program& program) {
    return unique_fd(detail::set_seccomp_filter(program, detail::seccomp_listener_flags()));
}

}  // namespace kumiki::inline v0
