// How seccomp_filter becomes classic BPF: a binary tree over the calls' numbers, at whose leaves the
// rules of one call follow each other.
//
// Not for users: they write seccomp_filter (seccomp.hpp). The conditions compare 64-bit arguments
// on a machine of 32 bits, so each is up to six instructions.
#pragma once

#include <linux/seccomp.h>

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include <kumiki/security/seccomp_rule.hpp>
#include <kumiki/security/syscall_table.hpp>
#include <kumiki/sys/bpf.hpp>

namespace kumiki::inline v0 {

namespace detail {

/// One rule of a filter: `action` for call `number` when all of `when` hold.
struct seccomp_rule {
    int number = 0;
    seccomp_action action = seccomp_action::kill_process();
    std::vector<argument_condition> when{};
};

/// The calls from `first` up to the next segment's: the rules of one call, then `action`.
struct seccomp_segment {
    std::uint32_t first = 0;
    seccomp_action action = seccomp_action::kill_process();
    std::span<const seccomp_rule> rules{};
};

/// What the kernel says in seccomp_data::arch for a call of the ABI that is compiled for.
inline constexpr std::uint32_t seccomp_architecture = audit_number(native_architecture);
/// From here on numbers are those of the x32 ABI (nowhere else in use).
inline constexpr std::uint32_t x32_bit = 0x40000000;

inline constexpr std::size_t most_conditions = 16;

/// Writes a program from its end to its start: jumps only go forward, so that way every target is
/// there before the jump to it. Answers are shared, which keeps the program short: the kernel's
/// translation to machine code costs the start of a container 0.2 us an instruction.
class seccomp_writer {
  public:
    /// An instruction by its distance from the program's end.
    using label = std::size_t;

    /// Where the tree over `parts` begins; it expects the call's number in A.
    label tree(std::span<const seccomp_segment> parts) {
        if (parts.size() == 1) return segment(parts.front());
        const auto upper = parts.subspan(parts.size() / 2);
        const label above = tree(upper);
        const label below = tree(parts.first(parts.size() / 2));
        return branch(sys::bpf_jump_greater_equal(upper.front().first, 0, 0), above, below);
    }
    /// Puts `next` in front of what begins at `target`.
    label before(label target, sock_filter next) {
        if (target + 1 != code_.size())
            put(sys::bpf_jump(static_cast<std::uint32_t>(code_.size() - 1 - target)));
        return put(next);
    }
    /// Jumps to `yes` or `no` by the test of `jump`.
    label branch(sock_filter jump, label yes, label no) {
        yes = within_reach(yes, 254);  // the next line may put one instruction more between
        no = within_reach(no, 255);
        jump.jt = static_cast<std::uint8_t>(code_.size() - 1 - yes);
        jump.jf = static_cast<std::uint8_t>(code_.size() - 1 - no);
        return put(jump);
    }
    label answer(seccomp_action action) {
        for (const auto& [value, at] : answers_)
            if (value == action.value()) return at;
        answers_.emplace_back(action.value(), code_.size());
        return put(sys::bpf_return(action.value()));
    }
    std::vector<sock_filter> finish() && {
        std::ranges::reverse(code_);
        return std::move(code_);
    }

  private:
    label put(sock_filter instruction) {
        code_.push_back(instruction);
        return code_.size() - 1;
    }
    /// `target`, or a stand-in near enough for a conditional jump (8 bits).
    label within_reach(label target, std::size_t most) {
        if (code_.size() - 1 - target <= most) return target;
        if (BPF_CLASS(code_[target].code) != BPF_RET)
            return put(sys::bpf_jump(static_cast<std::uint32_t>(code_.size() - 1 - target)));
        for (auto& [value, at] : answers_)  // a copy costs no more than a jump, and others use it
            if (value == code_[target].k) return at = put(code_[target]);
        return target;  // not reached: every return is in answers_
    }
    label segment(const seccomp_segment& part) {
        label next = answer(part.action);
        for (std::size_t i = part.rules.size(); i-- > 0;) {
            label holds = answer(part.rules[i].action);
            const auto& when = part.rules[i].when;
            for (std::size_t c = when.size(); c-- > 0;) holds = condition(when[c], holds, next);
            next = holds;
        }
        return next;
    }
    /// BPF compares 32 bits at a time: the upper halves decide unless they are equal.
    label condition(const argument_condition& c, label yes, label no) {
        using enum argument_test;
        const auto high = static_cast<std::uint32_t>(c.value >> 32);
        const auto low = static_cast<std::uint32_t>(c.value & 0xffffffff);
        if (c.test == not_equal || c.test == less || c.test == less_equal) std::swap(yes, no);
        label next;  // from here on only ==, >= and >
        if (c.test == equal || c.test == not_equal)
            next = branch(sys::bpf_jump_equal(low, 0, 0), yes, no);
        else if (c.test == greater || c.test == less_equal)
            next = branch(sys::bpf_jump_greater(low, 0, 0), yes, no);
        else
            next = branch(sys::bpf_jump_greater_equal(low, 0, 0), yes, no);
        next = load(c, next, false);
        if (c.mask >> 32 == 0 && high == 0) return next;
        next = branch(sys::bpf_jump_equal(high, 0, 0), next, no);
        if (c.test != equal && c.test != not_equal)
            next = branch(sys::bpf_jump_greater(high, 0, 0), yes, next);
        return load(c, next, true);
    }
    label load(const argument_condition& c, label next, bool upper) {
        const bool second = upper == (std::endian::native == std::endian::little);
        const auto mask = static_cast<std::uint32_t>(upper ? c.mask >> 32 : c.mask & 0xffffffff);
        if (mask != 0xffffffff) next = before(next, sys::bpf_and(mask));
        return before(
            next, sys::bpf_load(static_cast<std::uint32_t>(
                      offsetof(seccomp_data, args) + std::size_t{8} * c.index + (second ? 4 : 0))));
    }

    std::vector<sock_filter> code_;  // the last instruction first
    std::vector<std::pair<std::uint32_t, label>> answers_;  // the copy of each that is nearest
};

}  // namespace detail

}  // namespace kumiki::inline v0
