#include <kumiki/sys/bpf.hpp>

#include "support/catch.hpp"

using namespace kumiki;

namespace {

constexpr bool same(sock_filter a, sock_filter b) {
    return a.code == b.code && a.jt == b.jt && a.jf == b.jf && a.k == b.k;
}

}  // namespace

TEST_CASE("each instruction is what the kernel's macros make of it") {
    constexpr std::uint32_t k = 0xdeadbeef;
    CHECK(same(sys::bpf_load(4), BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 4)));
    CHECK(same(sys::bpf_and(k), BPF_STMT(BPF_ALU | BPF_AND | BPF_K, k)));
    CHECK(same(sys::bpf_jump_equal(k, 1, 2), BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, k, 1, 2)));
    CHECK(same(sys::bpf_jump_greater(k, 1, 2), BPF_JUMP(BPF_JMP | BPF_JGT | BPF_K, k, 1, 2)));
    CHECK(same(sys::bpf_jump_greater_equal(k, 1, 2), BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, k, 1, 2)));
    CHECK(same(sys::bpf_jump(k), BPF_JUMP(BPF_JMP | BPF_JA, k, 0, 0)));
    CHECK(same(sys::bpf_return(k), BPF_STMT(BPF_RET | BPF_K, k)));
    CHECK(sys::bpf_most_instructions == BPF_MAXINSNS);
}
