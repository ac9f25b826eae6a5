// The code of what waits in a container of a pool (waiter.hpp): position-independent, without a libc,
// between two labels of its own section. The number of its control socket stands right before it.
//
// Left out: other machines than x86-64.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace kumiki::inline v0::detail {

/// What the code finds right before itself, in this layout.
struct waiter_words {
    std::int64_t control = -1;
};
static_assert(sizeof(waiter_words) == 8);

/// What it is handed as a file, which it maps at command_base: where its standard descriptors come
/// from, and the addresses of the lists for execve.
struct command_words {
    std::int64_t sources[3] = {-1, -1, -1};  ///< which of the descriptors that came; -1: as it is
    std::uint64_t paths = 0;
    std::uint64_t arguments = 0;
    std::uint64_t environment = 0;
};
static_assert(sizeof(command_words) == 48);

/// Above the waiter, and above where the kernel puts the end of its heap (up to 1 GiB further); below
/// everything else.
inline constexpr std::uint64_t command_base = 0x50000000;

#if defined(__x86_64__) && !defined(__ILP32__)
inline constexpr bool has_waiter = true;

/// r13: the control socket; r12: the command's words. On the stack: a msghdr, its iovec at 64, the
/// file's size at 80, the control message at 96 with the descriptors at 112.
inline std::span<const std::byte> waiter_code() noexcept {
    const std::byte* begin = nullptr;
    const std::byte* end = nullptr;
    asm(".pushsection .text.kumiki_waiter, \"ax\", @progbits\n"
        "781: mov 781b-8(%%rip), %%r13\n\t"
        "sub $128, %%rsp\n\t"
        "mov $157, %%eax\n\t"  // prctl(PR_SET_NAME, "ready")
        "mov $15, %%edi\n\t"
        "lea 783f(%%rip), %%rsi\n\t"
        "syscall\n\t"
        "mov $72, %%eax\n\t"  // fcntl(control, F_SETFD, FD_CLOEXEC)
        "mov %%r13, %%rdi\n\t"
        "mov $2, %%esi\n\t"
        "mov $1, %%edx\n\t"
        "syscall\n\t"
        // The calls that it will need, each with what must make it fail: 95 (EOPNOTSUPP) when one
        // fails otherwise, for the filter does not let it.
        "mov $95, %%ebp\n\t"
        "mov $47, %%eax\n\t"  // recvmsg(control, nullptr, 0): EFAULT
        "mov %%r13, %%rdi\n\t"
        "xor %%esi, %%esi\n\t"
        "xor %%edx, %%edx\n\t"
        "syscall\n\t"
        "cmp $-14, %%rax\n\t"
        "jne 12f\n\t"
        "mov $9, %%eax\n\t"  // mmap(nullptr, 0, 0, 0, 0, 0): EINVAL
        "xor %%edi, %%edi\n\t"
        "xor %%r10d, %%r10d\n\t"
        "xor %%r8d, %%r8d\n\t"
        "xor %%r9d, %%r9d\n\t"
        "syscall\n\t"
        "cmp $-22, %%rax\n\t"
        "jne 12f\n\t"
        "mov $292, %%eax\n\t"  // dup3(0, 0, 0): EINVAL
        "syscall\n\t"
        "cmp $-22, %%rax\n\t"
        "jne 12f\n\t"
        "mov $59, %%eax\n\t"  // execve(nullptr, nullptr, nullptr): EFAULT
        "syscall\n\t"
        "cmp $-14, %%rax\n\t"
        "jne 12f\n\t"
        "movw $0x0078, (%%rsp)\n\t"  // 'x', 0: it waits
        "mov $2, %%edx\n\t"
        "call 14f\n"

        "1: movq $0, (%%rsp)\n\t"
        "movq $0, 8(%%rsp)\n\t"
        "lea 64(%%rsp), %%rax\n\t"
        "mov %%rax, 16(%%rsp)\n\t"
        "movq $1, 24(%%rsp)\n\t"
        "lea 96(%%rsp), %%rax\n\t"
        "mov %%rax, 32(%%rsp)\n\t"
        "movq $32, 40(%%rsp)\n\t"
        "movq $0, 48(%%rsp)\n\t"
        "lea 80(%%rsp), %%rax\n\t"
        "mov %%rax, 64(%%rsp)\n\t"
        "movq $8, 72(%%rsp)\n\t"
        "movq $0, 96(%%rsp)\n\t"
        "mov $47, %%eax\n\t"  // recvmsg(control, message, MSG_CMSG_CLOEXEC)
        "mov %%r13, %%rdi\n\t"
        "mov %%rsp, %%rsi\n\t"
        "mov $0x40000000, %%edx\n\t"
        "syscall\n\t"
        "cmp $-4, %%rax\n\t"  // EINTR
        "je 1b\n\t"
        "cmp $8, %%rax\n\t"
        "jne 13f\n\t"
        "mov $24, %%ebp\n\t"  // EMFILE
        "cmpq $32, 96(%%rsp)\n\t"  // four descriptors
        "jne 12f\n\t"

        "mov $9, %%eax\n\t"  // mmap(command_base, size, PROT_READ, MAP_PRIVATE | MAP_FIXED, file, 0)
        "mov $0x50000000, %%edi\n\t"
        "mov 80(%%rsp), %%rsi\n\t"
        "mov $1, %%edx\n\t"
        "mov $0x12, %%r10d\n\t"
        "movslq 112(%%rsp), %%r8\n\t"
        "xor %%r9d, %%r9d\n\t"
        "syscall\n\t"
        "mov %%eax, %%ebp\n\t"
        "neg %%ebp\n\t"
        "mov $0x50000000, %%r12d\n\t"
        "cmp %%r12, %%rax\n\t"
        "jne 12f\n\t"

        "xor %%r14d, %%r14d\n"
        "2: mov (%%r12, %%r14, 8), %%rax\n\t"
        "test %%rax, %%rax\n\t"
        "js 3f\n\t"
        "mov 112(%%rsp, %%rax, 4), %%edi\n\t"
        "mov %%r14d, %%esi\n\t"
        "xor %%edx, %%edx\n\t"
        "mov $292, %%eax\n\t"  // dup3
        "syscall\n\t"
        "mov %%eax, %%ebp\n\t"
        "neg %%ebp\n\t"
        "test %%rax, %%rax\n\t"
        "js 12f\n"
        "3: inc %%r14d\n\t"
        "cmp $3, %%r14d\n\t"
        "jne 2b\n\t"

        "movb $114, (%%rsp)\n\t"  // 'r': it has all of it
        "mov $1, %%edx\n\t"
        "call 14f\n\t"
        "cmp $1, %%rax\n\t"  // nobody has heard it: the command may be given to another
        "jne 13f\n\t"
        "mov $2, %%ebp\n\t"  // ENOENT, until a path says more: as child_exec()
        "mov 24(%%r12), %%r15\n"
        "4: mov (%%r15), %%rdi\n\t"
        "test %%rdi, %%rdi\n\t"
        "jz 12f\n\t"
        "mov $59, %%eax\n\t"  // execve
        "mov 32(%%r12), %%rsi\n\t"
        "mov 40(%%r12), %%rdx\n\t"
        "syscall\n\t"
        "add $8, %%r15\n\t"
        "cmp $-2, %%rax\n\t"
        "je 4b\n\t"
        "cmp $-20, %%rax\n\t"  // ENOTDIR
        "je 4b\n\t"
        "mov %%eax, %%ebp\n\t"
        "neg %%ebp\n\t"
        "cmp $-13, %%rax\n\t"  // EACCES
        "je 4b\n"

        "12: movb $120, (%%rsp)\n\t"  // 'x' and errno
        "mov %%bpl, 1(%%rsp)\n\t"
        "mov $2, %%edx\n\t"
        "call 14f\n"
        "13: mov $231, %%eax\n\t"  // exit_group
        "mov $125, %%edi\n\t"
        "syscall\n"
        "14: mov $1, %%eax\n\t"  // write(control, (%rsp) of the caller, edx)
        "mov %%r13, %%rdi\n\t"
        "lea 8(%%rsp), %%rsi\n\t"
        "syscall\n\t"
        "ret\n"
        "783: .asciz \"ready\"\n"
        "782:\n\t"
        ".popsection\n\t"
        "lea 781b(%%rip), %0\n\t"
        "lea 782b(%%rip), %1"
        : "=r"(begin), "=r"(end));
    return {begin, end};
}
#else
inline constexpr bool has_waiter = false;

inline std::span<const std::byte> waiter_code() noexcept { return {}; }
#endif

}  // namespace kumiki::inline v0::detail
