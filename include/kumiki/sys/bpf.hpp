// Classic BPF instructions as constexpr functions: the machine of seccomp(2) filters and of socket
// filters (SO_ATTACH_FILTER). One accumulator A, 32 bits wide; jumps go forward only, by the number
// of instructions to skip.
//
// Only what kumiki's filters are made of: load, and, jump, return. No index register, scratch
// memory or packet-relative loads, and no eBPF. Kernel: seccomp filters 3.5.
#pragma once

#include <linux/filter.h>

#include <cstddef>
#include <cstdint>

namespace kumiki::inline v0::sys {

namespace detail {

constexpr sock_filter bpf_jump_if(unsigned test, std::uint32_t value, std::uint8_t if_true,
                                  std::uint8_t if_false) noexcept {
    return {static_cast<std::uint16_t>(BPF_JMP | BPF_K | test), if_true, if_false, value};
}

}  // namespace detail

/// A = the 32-bit word at `offset` of the data (seccomp_data: in the machine's byte order).
constexpr sock_filter bpf_load(std::uint32_t offset) noexcept {
    return {BPF_LD | BPF_W | BPF_ABS, 0, 0, offset};
}

/// A = A & `mask`.
constexpr sock_filter bpf_and(std::uint32_t mask) noexcept {
    return {BPF_ALU | BPF_AND | BPF_K, 0, 0, mask};
}

/// Skips `if_true` instructions when A == `value`, else `if_false`.
constexpr sock_filter bpf_jump_equal(std::uint32_t value, std::uint8_t if_true,
                                     std::uint8_t if_false) noexcept {
    return detail::bpf_jump_if(BPF_JEQ, value, if_true, if_false);
}

/// Skips `if_true` instructions when A > `value` (unsigned), else `if_false`.
constexpr sock_filter bpf_jump_greater(std::uint32_t value, std::uint8_t if_true,
                                       std::uint8_t if_false) noexcept {
    return detail::bpf_jump_if(BPF_JGT, value, if_true, if_false);
}

/// Skips `if_true` instructions when A >= `value` (unsigned), else `if_false`.
constexpr sock_filter bpf_jump_greater_equal(std::uint32_t value, std::uint8_t if_true,
                                             std::uint8_t if_false) noexcept {
    return detail::bpf_jump_if(BPF_JGE, value, if_true, if_false);
}

/// Skips `count` instructions: the only jump that reaches further than 255.
constexpr sock_filter bpf_jump(std::uint32_t count) noexcept {
    return {BPF_JMP | BPF_JA, 0, 0, count};
}

/// Ends the program with `value`: for seccomp an action (SECCOMP_RET_*).
constexpr sock_filter bpf_return(std::uint32_t value) noexcept {
    return {BPF_RET | BPF_K, 0, 0, value};
}

/// The most instructions that a program may have (BPF_MAXINSNS).
inline constexpr std::size_t bpf_most_instructions = 4096;

}  // namespace kumiki::inline v0::sys
