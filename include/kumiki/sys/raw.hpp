// System calls without a libc: inline assembly on x86-64 and aarch64, for the code that runs
// between clone3 and execve and may share its memory, its errno and its stack protector's canary
// with the program that started it.
//
// The result is the kernel's: a negative errno value on failure. Nothing here is instrumented by a
// sanitizer, and nothing may be called from these functions but each other.
#pragma once

#include <unistd.h>

#include <cerrno>

#include <kumiki/sys/abi.hpp>

#if defined(__clang__)
#define KUMIKI_CHILD_SIDE                                                                          \
    __attribute__((no_sanitize("address", "undefined", "thread", "memory"), no_stack_protector,    \
                   noinline))
#else
#define KUMIKI_CHILD_SIDE                                                                          \
    __attribute__((no_sanitize("address", "undefined", "thread"), optimize("no-stack-protector"),  \
                   noinline))
#endif

namespace kumiki::inline v0::sys {

/// Tells the processor that this thread spins: its core is the sibling's meanwhile.
inline void pause() noexcept {
#if defined(__x86_64__) || defined(__i386__)
    asm volatile("pause" ::: "memory");
#elif defined(__aarch64__)
    asm volatile("isb" ::: "memory");  // yield does nothing on most
#else
    asm volatile("" ::: "memory");
#endif
}

#if defined(__x86_64__) && !defined(__ILP32__)
/// True where the child can run on a stack of its own in shared memory (clone_on_stack()).
inline constexpr bool has_own_stack_clone = true;

KUMIKI_CHILD_SIDE inline long raw_syscall(long number, long a0 = 0, long a1 = 0, long a2 = 0,
                                          long a3 = 0, long a4 = 0, long a5 = 0) noexcept {
    long result;
    register long r10 asm("r10") = a3;
    register long r8 asm("r8") = a4;
    register long r9 asm("r9") = a5;
    asm volatile("syscall"
                 : "=a"(result)
                 : "0"(number), "D"(a0), "S"(a1), "d"(a2), "r"(r10), "r"(r8), "r"(r9)
                 : "rcx", "r11", "memory");
    return result;
}

/// clone3 with a stack of the child's own, on which it calls `entry(argument)`; returns the
/// child's pid to the caller. `entry` must not return.
inline long clone_on_stack(const clone_arguments& request, void (*entry)(void*),
                           void* argument) noexcept {
    long result;
    register auto r8 asm("r8") = entry;
    asm volatile(
        "syscall\n\t"
        "test %%rax, %%rax\n\t"
        "jnz 1f\n\t"
        "xor %%ebp, %%ebp\n\t"  // the outermost frame: unwinders stop here
        "mov %%rdx, %%rdi\n\t"
        "call *%%r8\n\t"
        "hlt\n"
        "1:"
        : "=a"(result)
        : "0"(nr_clone3), "D"(&request), "S"(sizeof request), "d"(argument), "r"(r8)
        : "rcx", "r11", "memory");
    return result;
}
#elif defined(__aarch64__)
inline constexpr bool has_own_stack_clone = true;

KUMIKI_CHILD_SIDE inline long raw_syscall(long number, long a0 = 0, long a1 = 0, long a2 = 0,
                                          long a3 = 0, long a4 = 0, long a5 = 0) noexcept {
    register long x8 asm("x8") = number;
    register long x0 asm("x0") = a0;
    register long x1 asm("x1") = a1;
    register long x2 asm("x2") = a2;
    register long x3 asm("x3") = a3;
    register long x4 asm("x4") = a4;
    register long x5 asm("x5") = a5;
    asm volatile("svc #0"
                 : "+r"(x0)
                 : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5)
                 : "memory");
    return x0;
}

inline long clone_on_stack(const clone_arguments& request, void (*entry)(void*),
                           void* argument) noexcept {
    register long x8 asm("x8") = nr_clone3;
    register auto x0 asm("x0") = reinterpret_cast<long>(&request);
    register long x1 asm("x1") = sizeof request;
    register auto x2 asm("x2") = argument;
    register auto x3 asm("x3") = entry;
    asm volatile(
        "svc #0\n\t"
        "cbnz x0, 1f\n\t"
        "mov x29, xzr\n\t"
        "mov x30, xzr\n\t"
        "mov x0, x2\n\t"
        "blr x3\n\t"
        "brk #0\n"
        "1:"
        : "+r"(x0)
        : "r"(x8), "r"(x1), "r"(x2), "r"(x3)
        : "memory");
    return x0;
}
#else
inline constexpr bool has_own_stack_clone = false;

/// Elsewhere through the libc: its errno is touched, so children get memory of their own.
inline long raw_syscall(long number, long a0 = 0, long a1 = 0, long a2 = 0, long a3 = 0,
                        long a4 = 0, long a5 = 0) noexcept {
    const long result = ::syscall(number, a0, a1, a2, a3, a4, a5);
    return result < 0 ? -errno : result;
}

inline long clone_on_stack(const clone_arguments&, void (*)(void*), void*) noexcept {
    return -ENOSYS;
}
#endif

/// clone3 with memory of the child's own (a copy, as fork makes), which calls `entry(argument)`.
/// `entry` must not return.
KUMIKI_CHILD_SIDE inline long clone_copied(const clone_arguments& request, void (*entry)(void*),
                                           void* argument) noexcept {
    const long result = raw_syscall(nr_clone3, reinterpret_cast<long>(&request), sizeof request);
    if (result == 0) entry(argument);
    return result;
}

}  // namespace kumiki::inline v0::sys
