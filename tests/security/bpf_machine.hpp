// A plain machine for classic BPF as seccomp runs it: the witness for what the compiler emits.
// It refuses what the kernel's checker would refuse, and counts the instructions that it ran.
#pragma once

#include <linux/filter.h>
#include <linux/seccomp.h>

#include <cstring>
#include <span>
#include <stdexcept>

namespace kumiki_test {

struct bpf_result {
    std::uint32_t value = 0;
    unsigned steps = 0;
};

inline bpf_result run_bpf(std::span<const sock_filter> code, const seccomp_data& data) {
    bpf_result result;
    std::uint32_t a = 0;
    for (std::size_t pc = 0;; ++pc) {
        if (pc >= code.size()) throw std::logic_error("ran past the end");
        const sock_filter& i = code[pc];
        ++result.steps;
        switch (i.code) {
        case BPF_LD | BPF_W | BPF_ABS:
            if (i.k % 4 != 0 || i.k >= sizeof data) throw std::logic_error("load outside");
            std::memcpy(&a, reinterpret_cast<const char*>(&data) + i.k, sizeof a);
            break;
        case BPF_ALU | BPF_AND | BPF_K:
            a &= i.k;
            break;
        case BPF_JMP | BPF_JA:
            pc += i.k;
            break;
        case BPF_JMP | BPF_JEQ | BPF_K:
            pc += a == i.k ? i.jt : i.jf;
            break;
        case BPF_JMP | BPF_JGT | BPF_K:
            pc += a > i.k ? i.jt : i.jf;
            break;
        case BPF_JMP | BPF_JGE | BPF_K:
            pc += a >= i.k ? i.jt : i.jf;
            break;
        case BPF_RET | BPF_K:
            result.value = i.k;
            return result;
        default:
            throw std::logic_error("instruction that seccomp does not know");
        }
    }
}

}  // namespace kumiki_test
