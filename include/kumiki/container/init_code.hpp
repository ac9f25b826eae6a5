// The code of the init (init.hpp): position-independent, without a libc, between two labels of its own
// section. What it is to execute stands right before it.
//
// Kernel: 5.9 (close_range). Left out: other machines than x86-64.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace kumiki::inline v0::detail {

/// What the code finds right before itself, in this layout.
struct init_words {
    std::uint64_t paths = 0;  ///< null-terminated list of where the command may be
    std::uint64_t arguments = 0;  ///< the payload's
    std::int64_t control = -1;  ///< the control socket
    std::int64_t terminal = 0;  ///< whether 0 becomes the payload's controlling terminal
};
static_assert(sizeof(init_words) == 32);

#if defined(__x86_64__) && !defined(__ILP32__)
inline constexpr bool has_init = true;

/// rbx: the words; rbp: the payload; r13: the control socket; r14: the environment. All signals are
/// blocked when it begins. 0(%rsp) is the errno of the payload's execve, written by the payload: up
/// to that the two share their memory (CLONE_VM | CLONE_VFORK).
inline std::span<const std::byte> init_code() noexcept {
    const std::byte* begin = nullptr;
    const std::byte* end = nullptr;
    asm(".pushsection .text.kumiki_init, \"ax\", @progbits\n"
        "771: mov (%%rsp), %%rax\n\t"  // argc
        "lea 16(%%rsp, %%rax, 8), %%r14\n\t"
        "lea 771b-32(%%rip), %%rbx\n\t"
        "mov 16(%%rbx), %%r13\n\t"
        "sub $64, %%rsp\n\t"
        "mov $157, %%eax\n\t"  // prctl(PR_SET_NAME, "init")
        "mov $15, %%edi\n\t"
        "lea 773f(%%rip), %%rsi\n\t"
        "syscall\n\t"
        "mov $72, %%eax\n\t"  // fcntl(control, F_SETFD, FD_CLOEXEC)
        "mov %%r13, %%rdi\n\t"
        "mov $2, %%esi\n\t"
        "mov $1, %%edx\n\t"
        "syscall\n\t"
        "movq $0, (%%rsp)\n\t"
        "mov $56, %%eax\n\t"  // clone(CLONE_VM | CLONE_VFORK | SIGCHLD)
        "mov $0x4111, %%edi\n\t"
        "xor %%esi, %%esi\n\t"
        "xor %%edx, %%edx\n\t"
        "xor %%r10d, %%r10d\n\t"
        "xor %%r8d, %%r8d\n\t"
        "syscall\n\t"
        "test %%rax, %%rax\n\t"
        "jnz 6f\n\t"

        "mov $112, %%eax\n\t"  // in the payload: setsid()
        "syscall\n\t"
        "cmpq $0, 24(%%rbx)\n\t"
        "je 1f\n\t"
        "mov $16, %%eax\n\t"  // ioctl(0, TIOCSCTTY, 0)
        "xor %%edi, %%edi\n\t"
        "mov $0x540e, %%esi\n\t"
        "xor %%edx, %%edx\n\t"
        "syscall\n"
        "1: mov $157, %%eax\n\t"  // prctl(PR_SET_PDEATHSIG, SIGKILL)
        "mov $1, %%edi\n\t"
        "mov $9, %%esi\n\t"
        "syscall\n\t"
        "movq $0, 8(%%rsp)\n\t"
        "mov $14, %%eax\n\t"  // rt_sigprocmask(SIG_SETMASK, none)
        "mov $2, %%edi\n\t"
        "lea 8(%%rsp), %%rsi\n\t"
        "xor %%edx, %%edx\n\t"
        "mov $8, %%r10d\n\t"
        "syscall\n\t"
        "mov (%%rbx), %%r12\n\t"
        "mov $-2, %%r15\n"  // ENOENT, until a path says more: as child_exec()
        "2: mov (%%r12), %%rdi\n\t"
        "test %%rdi, %%rdi\n\t"
        "jz 5f\n\t"
        "mov $59, %%eax\n\t"  // execve
        "mov 8(%%rbx), %%rsi\n\t"
        "mov %%r14, %%rdx\n\t"
        "syscall\n\t"
        "add $8, %%r12\n\t"
        "cmp $-2, %%rax\n\t"
        "je 2b\n\t"
        "cmp $-20, %%rax\n\t"  // ENOTDIR
        "je 2b\n\t"
        "mov %%rax, %%r15\n\t"
        "cmp $-13, %%rax\n\t"  // EACCES
        "je 2b\n"
        "5: neg %%r15\n\t"
        "mov %%r15, (%%rsp)\n\t"
        "mov $125, %%edi\n\t"
        "jmp 13f\n"

        "6: mov %%rax, %%rbp\n\t"  // in the init, the payload executed or not
        "test %%rax, %%rax\n\t"
        "jns 7f\n\t"
        "neg %%rax\n\t"
        "mov %%rax, (%%rsp)\n"
        "7: mov (%%rsp), %%eax\n\t"
        "movb $120, 16(%%rsp)\n\t"  // 'x'
        "mov %%al, 17(%%rsp)\n\t"
        "mov $2, %%edx\n\t"
        "call 14f\n\t"
        "mov $125, %%edi\n\t"
        "cmpb $0, 17(%%rsp)\n\t"
        "jne 13f\n\t"
        "mov $436, %%eax\n\t"  // close_range(0, 2, 0): they are the payload's alone
        "xor %%edi, %%edi\n\t"
        "mov $2, %%esi\n\t"
        "xor %%edx, %%edx\n\t"
        "syscall\n\t"
        "movq $-1, 8(%%rsp)\n"
        "8: mov $128, %%eax\n\t"  // rt_sigtimedwait(all)
        "lea 8(%%rsp), %%rdi\n\t"
        "xor %%esi, %%esi\n\t"
        "xor %%edx, %%edx\n\t"
        "mov $8, %%r10d\n\t"
        "syscall\n\t"
        "test %%eax, %%eax\n\t"
        "jle 8b\n\t"
        "cmp $17, %%eax\n\t"  // SIGCHLD
        "je 9f\n\t"
        "mov %%eax, %%esi\n\t"
        "mov %%ebp, %%edi\n\t"
        "mov $62, %%eax\n\t"  // kill
        "syscall\n\t"
        "jmp 8b\n"
        "9: mov $61, %%eax\n\t"  // wait4(-1, &status, WNOHANG | __WALL)
        "mov $-1, %%rdi\n\t"
        "lea 16(%%rsp), %%rsi\n\t"
        "mov $0x40000001, %%edx\n\t"
        "xor %%r10d, %%r10d\n\t"
        "syscall\n\t"
        "test %%eax, %%eax\n\t"
        "jle 8b\n\t"
        "cmp %%ebp, %%eax\n\t"
        "jne 9b\n\t"
        "mov $4, %%edx\n\t"
        "call 14f\n\t"
        "movzbl 17(%%rsp), %%edi\n\t"  // the exit status, or 128 and the signal
        "mov 16(%%rsp), %%eax\n\t"
        "and $127, %%eax\n\t"
        "jz 13f\n\t"
        "lea 128(%%rax), %%edi\n"
        "13: mov $231, %%eax\n\t"  // exit_group
        "syscall\n"
        "14: mov $1, %%eax\n\t"  // write(control, 16(%rsp) of the caller, edx): SIGPIPE is blocked
        "mov %%r13, %%rdi\n\t"
        "lea 24(%%rsp), %%rsi\n\t"
        "syscall\n\t"
        "ret\n"
        "773: .asciz \"init\"\n"
        "772:\n\t"
        ".popsection\n\t"
        "lea 771b(%%rip), %0\n\t"
        "lea 772b(%%rip), %1"
        : "=r"(begin), "=r"(end));
    return {begin, end};
}
#else
inline constexpr bool has_init = false;

inline std::span<const std::byte> init_code() noexcept { return {}; }
#endif

}  // namespace kumiki::inline v0::detail
