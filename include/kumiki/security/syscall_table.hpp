// The names and numbers of the system calls of the architecture that is compiled for (x86-64 or
// aarch64), as a table that is searched at compile time or at run time.
//
// The numbers come from the kernel's headers, so a call that this architecture lacks is not in the
// table; those newer than the oldest supported headers (6.1) are given by number, which above 424
// is the same everywhere. The newest known are those of 6.17: seccomp.hpp treats what is not in the
// table as unknown. No 32-bit calls: their ABI has numbers of its own, which no filter here lets in.
#pragma once

#include <asm/unistd.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <optional>
#include <string_view>

#include <kumiki/core/error.hpp>
#include <kumiki/core/text.hpp>

#if !(defined(__x86_64__) && !defined(__ILP32__)) && !(defined(__aarch64__) && defined(__LP64__))
#error "kumiki's seccomp filters know x86-64 and aarch64 only"
#endif

namespace kumiki::inline v0 {

namespace detail {

struct syscall_entry {
    std::string_view name;
    int number = -1;  // -1: not on this architecture
};

/// What the preprocessor made of __NR_name: a number, or the name itself where there is no such
/// macro. This asks "#ifdef" in an expression.
constexpr int expanded_number(std::string_view text, int otherwise) noexcept {
    return parse_number<int>(text).value_or(otherwise);
}

#define KUMIKI_TEXT_OF(tokens) #tokens
#define KUMIKI_TEXT(tokens) KUMIKI_TEXT_OF(tokens)
#define KUMIKI_NEW(name, number)                                                                   \
    syscall_entry { #name, expanded_number(KUMIKI_TEXT(__NR_##name), number) }
#define KUMIKI_CALL(name) KUMIKI_NEW(name, -1)
#ifdef __x86_64__
#define KUMIKI_X86(name, number) KUMIKI_NEW(name, number)
#else
#define KUMIKI_X86(name, number) KUMIKI_NEW(name, -1)
#endif

// clang-format off
/// Sorted by name, for the binary search.
inline constexpr auto syscall_table = std::to_array<syscall_entry>({
    KUMIKI_CALL(_sysctl), KUMIKI_CALL(accept), KUMIKI_CALL(accept4), KUMIKI_CALL(access),
    KUMIKI_CALL(acct), KUMIKI_CALL(add_key), KUMIKI_CALL(adjtimex), KUMIKI_CALL(afs_syscall),
    KUMIKI_CALL(alarm), KUMIKI_CALL(arch_prctl), KUMIKI_CALL(bind), KUMIKI_CALL(bpf),
    KUMIKI_CALL(brk), KUMIKI_NEW(cachestat, 451), KUMIKI_CALL(capget), KUMIKI_CALL(capset),
    KUMIKI_CALL(chdir), KUMIKI_CALL(chmod), KUMIKI_CALL(chown), KUMIKI_CALL(chroot),
    KUMIKI_CALL(clock_adjtime), KUMIKI_CALL(clock_getres), KUMIKI_CALL(clock_gettime),
    KUMIKI_CALL(clock_nanosleep), KUMIKI_CALL(clock_settime), KUMIKI_CALL(clone),
    KUMIKI_CALL(clone3), KUMIKI_CALL(close), KUMIKI_CALL(close_range), KUMIKI_CALL(connect),
    KUMIKI_CALL(copy_file_range), KUMIKI_CALL(creat), KUMIKI_CALL(create_module),
    KUMIKI_CALL(delete_module), KUMIKI_CALL(dup), KUMIKI_CALL(dup2), KUMIKI_CALL(dup3),
    KUMIKI_CALL(epoll_create), KUMIKI_CALL(epoll_create1), KUMIKI_CALL(epoll_ctl),
    KUMIKI_CALL(epoll_ctl_old), KUMIKI_CALL(epoll_pwait), KUMIKI_CALL(epoll_pwait2),
    KUMIKI_CALL(epoll_wait), KUMIKI_CALL(epoll_wait_old), KUMIKI_CALL(eventfd),
    KUMIKI_CALL(eventfd2), KUMIKI_CALL(execve), KUMIKI_CALL(execveat), KUMIKI_CALL(exit),
    KUMIKI_CALL(exit_group), KUMIKI_CALL(faccessat), KUMIKI_CALL(faccessat2),
    KUMIKI_CALL(fadvise64), KUMIKI_CALL(fallocate), KUMIKI_CALL(fanotify_init),
    KUMIKI_CALL(fanotify_mark), KUMIKI_CALL(fchdir), KUMIKI_CALL(fchmod), KUMIKI_CALL(fchmodat),
    KUMIKI_NEW(fchmodat2, 452), KUMIKI_CALL(fchown), KUMIKI_CALL(fchownat), KUMIKI_CALL(fcntl),
    KUMIKI_CALL(fdatasync), KUMIKI_CALL(fgetxattr), KUMIKI_NEW(file_getattr, 468),
    KUMIKI_NEW(file_setattr, 469), KUMIKI_CALL(finit_module), KUMIKI_CALL(flistxattr),
    KUMIKI_CALL(flock), KUMIKI_CALL(fork), KUMIKI_CALL(fremovexattr), KUMIKI_CALL(fsconfig),
    KUMIKI_CALL(fsetxattr), KUMIKI_CALL(fsmount), KUMIKI_CALL(fsopen), KUMIKI_CALL(fspick),
    KUMIKI_CALL(fstat), KUMIKI_CALL(fstatfs), KUMIKI_CALL(fsync), KUMIKI_CALL(ftruncate),
    KUMIKI_CALL(futex), KUMIKI_NEW(futex_requeue, 456), KUMIKI_NEW(futex_wait, 455),
    KUMIKI_CALL(futex_waitv), KUMIKI_NEW(futex_wake, 454), KUMIKI_CALL(futimesat),
    KUMIKI_CALL(get_kernel_syms), KUMIKI_CALL(get_mempolicy), KUMIKI_CALL(get_robust_list),
    KUMIKI_CALL(get_thread_area), KUMIKI_CALL(getcpu), KUMIKI_CALL(getcwd), KUMIKI_CALL(getdents),
    KUMIKI_CALL(getdents64), KUMIKI_CALL(getegid), KUMIKI_CALL(geteuid), KUMIKI_CALL(getgid),
    KUMIKI_CALL(getgroups), KUMIKI_CALL(getitimer), KUMIKI_CALL(getpeername), KUMIKI_CALL(getpgid),
    KUMIKI_CALL(getpgrp), KUMIKI_CALL(getpid), KUMIKI_CALL(getpmsg), KUMIKI_CALL(getppid),
    KUMIKI_CALL(getpriority), KUMIKI_CALL(getrandom), KUMIKI_CALL(getresgid),
    KUMIKI_CALL(getresuid), KUMIKI_CALL(getrlimit), KUMIKI_CALL(getrusage), KUMIKI_CALL(getsid),
    KUMIKI_CALL(getsockname), KUMIKI_CALL(getsockopt), KUMIKI_CALL(gettid),
    KUMIKI_CALL(gettimeofday), KUMIKI_CALL(getuid), KUMIKI_CALL(getxattr),
    KUMIKI_NEW(getxattrat, 464), KUMIKI_CALL(init_module), KUMIKI_CALL(inotify_add_watch),
    KUMIKI_CALL(inotify_init), KUMIKI_CALL(inotify_init1), KUMIKI_CALL(inotify_rm_watch),
    KUMIKI_CALL(io_cancel), KUMIKI_CALL(io_destroy), KUMIKI_CALL(io_getevents),
    KUMIKI_CALL(io_pgetevents), KUMIKI_CALL(io_setup), KUMIKI_CALL(io_submit),
    KUMIKI_CALL(io_uring_enter), KUMIKI_CALL(io_uring_register), KUMIKI_CALL(io_uring_setup),
    KUMIKI_CALL(ioctl), KUMIKI_CALL(ioperm), KUMIKI_CALL(iopl), KUMIKI_CALL(ioprio_get),
    KUMIKI_CALL(ioprio_set), KUMIKI_CALL(kcmp), KUMIKI_CALL(kexec_file_load),
    KUMIKI_CALL(kexec_load), KUMIKI_CALL(keyctl), KUMIKI_CALL(kill), KUMIKI_CALL(landlock_add_rule),
    KUMIKI_CALL(landlock_create_ruleset), KUMIKI_CALL(landlock_restrict_self), KUMIKI_CALL(lchown),
    KUMIKI_CALL(lgetxattr), KUMIKI_CALL(link), KUMIKI_CALL(linkat), KUMIKI_CALL(listen),
    KUMIKI_NEW(listmount, 458), KUMIKI_CALL(listxattr), KUMIKI_NEW(listxattrat, 465),
    KUMIKI_CALL(llistxattr), KUMIKI_CALL(lookup_dcookie), KUMIKI_CALL(lremovexattr),
    KUMIKI_CALL(lseek), KUMIKI_CALL(lsetxattr), KUMIKI_NEW(lsm_get_self_attr, 459),
    KUMIKI_NEW(lsm_list_modules, 461), KUMIKI_NEW(lsm_set_self_attr, 460), KUMIKI_CALL(lstat),
    KUMIKI_CALL(madvise), KUMIKI_NEW(map_shadow_stack, 453), KUMIKI_CALL(mbind),
    KUMIKI_CALL(membarrier), KUMIKI_CALL(memfd_create), KUMIKI_CALL(memfd_secret),
    KUMIKI_CALL(migrate_pages), KUMIKI_CALL(mincore), KUMIKI_CALL(mkdir), KUMIKI_CALL(mkdirat),
    KUMIKI_CALL(mknod), KUMIKI_CALL(mknodat), KUMIKI_CALL(mlock), KUMIKI_CALL(mlock2),
    KUMIKI_CALL(mlockall), KUMIKI_CALL(mmap), KUMIKI_CALL(modify_ldt), KUMIKI_CALL(mount),
    KUMIKI_CALL(mount_setattr), KUMIKI_CALL(move_mount), KUMIKI_CALL(move_pages),
    KUMIKI_CALL(mprotect), KUMIKI_CALL(mq_getsetattr), KUMIKI_CALL(mq_notify), KUMIKI_CALL(mq_open),
    KUMIKI_CALL(mq_timedreceive), KUMIKI_CALL(mq_timedsend), KUMIKI_CALL(mq_unlink),
    KUMIKI_CALL(mremap), KUMIKI_NEW(mseal, 462), KUMIKI_CALL(msgctl), KUMIKI_CALL(msgget),
    KUMIKI_CALL(msgrcv), KUMIKI_CALL(msgsnd), KUMIKI_CALL(msync), KUMIKI_CALL(munlock),
    KUMIKI_CALL(munlockall), KUMIKI_CALL(munmap), KUMIKI_CALL(name_to_handle_at),
    KUMIKI_CALL(nanosleep), KUMIKI_CALL(newfstatat), KUMIKI_CALL(nfsservctl), KUMIKI_CALL(open),
    KUMIKI_CALL(open_by_handle_at), KUMIKI_CALL(open_tree), KUMIKI_NEW(open_tree_attr, 467),
    KUMIKI_CALL(openat), KUMIKI_CALL(openat2), KUMIKI_CALL(pause), KUMIKI_CALL(perf_event_open),
    KUMIKI_CALL(personality), KUMIKI_CALL(pidfd_getfd), KUMIKI_CALL(pidfd_open),
    KUMIKI_CALL(pidfd_send_signal), KUMIKI_CALL(pipe), KUMIKI_CALL(pipe2), KUMIKI_CALL(pivot_root),
    KUMIKI_CALL(pkey_alloc), KUMIKI_CALL(pkey_free), KUMIKI_CALL(pkey_mprotect), KUMIKI_CALL(poll),
    KUMIKI_CALL(ppoll), KUMIKI_CALL(prctl), KUMIKI_CALL(pread64), KUMIKI_CALL(preadv),
    KUMIKI_CALL(preadv2), KUMIKI_CALL(prlimit64), KUMIKI_CALL(process_madvise),
    KUMIKI_CALL(process_mrelease), KUMIKI_CALL(process_vm_readv), KUMIKI_CALL(process_vm_writev),
    KUMIKI_CALL(pselect6), KUMIKI_CALL(ptrace), KUMIKI_CALL(putpmsg), KUMIKI_CALL(pwrite64),
    KUMIKI_CALL(pwritev), KUMIKI_CALL(pwritev2), KUMIKI_CALL(query_module), KUMIKI_CALL(quotactl),
    KUMIKI_CALL(quotactl_fd), KUMIKI_CALL(read), KUMIKI_CALL(readahead), KUMIKI_CALL(readlink),
    KUMIKI_CALL(readlinkat), KUMIKI_CALL(readv), KUMIKI_CALL(reboot), KUMIKI_CALL(recvfrom),
    KUMIKI_CALL(recvmmsg), KUMIKI_CALL(recvmsg), KUMIKI_CALL(remap_file_pages),
    KUMIKI_CALL(removexattr), KUMIKI_NEW(removexattrat, 466), KUMIKI_CALL(rename),
    KUMIKI_CALL(renameat), KUMIKI_CALL(renameat2), KUMIKI_CALL(request_key),
    KUMIKI_CALL(restart_syscall), KUMIKI_CALL(rmdir), KUMIKI_CALL(rseq), KUMIKI_CALL(rt_sigaction),
    KUMIKI_CALL(rt_sigpending), KUMIKI_CALL(rt_sigprocmask), KUMIKI_CALL(rt_sigqueueinfo),
    KUMIKI_CALL(rt_sigreturn), KUMIKI_CALL(rt_sigsuspend), KUMIKI_CALL(rt_sigtimedwait),
    KUMIKI_CALL(rt_tgsigqueueinfo), KUMIKI_CALL(sched_get_priority_max),
    KUMIKI_CALL(sched_get_priority_min), KUMIKI_CALL(sched_getaffinity), KUMIKI_CALL(sched_getattr),
    KUMIKI_CALL(sched_getparam), KUMIKI_CALL(sched_getscheduler),
    KUMIKI_CALL(sched_rr_get_interval), KUMIKI_CALL(sched_setaffinity), KUMIKI_CALL(sched_setattr),
    KUMIKI_CALL(sched_setparam), KUMIKI_CALL(sched_setscheduler), KUMIKI_CALL(sched_yield),
    KUMIKI_CALL(seccomp), KUMIKI_CALL(security), KUMIKI_CALL(select), KUMIKI_CALL(semctl),
    KUMIKI_CALL(semget), KUMIKI_CALL(semop), KUMIKI_CALL(semtimedop), KUMIKI_CALL(sendfile),
    KUMIKI_CALL(sendmmsg), KUMIKI_CALL(sendmsg), KUMIKI_CALL(sendto), KUMIKI_CALL(set_mempolicy),
    KUMIKI_CALL(set_mempolicy_home_node), KUMIKI_CALL(set_robust_list),
    KUMIKI_CALL(set_thread_area), KUMIKI_CALL(set_tid_address), KUMIKI_CALL(setdomainname),
    KUMIKI_CALL(setfsgid), KUMIKI_CALL(setfsuid), KUMIKI_CALL(setgid), KUMIKI_CALL(setgroups),
    KUMIKI_CALL(sethostname), KUMIKI_CALL(setitimer), KUMIKI_CALL(setns), KUMIKI_CALL(setpgid),
    KUMIKI_CALL(setpriority), KUMIKI_CALL(setregid), KUMIKI_CALL(setresgid), KUMIKI_CALL(setresuid),
    KUMIKI_CALL(setreuid), KUMIKI_CALL(setrlimit), KUMIKI_CALL(setsid), KUMIKI_CALL(setsockopt),
    KUMIKI_CALL(settimeofday), KUMIKI_CALL(setuid), KUMIKI_CALL(setxattr),
    KUMIKI_NEW(setxattrat, 463), KUMIKI_CALL(shmat), KUMIKI_CALL(shmctl), KUMIKI_CALL(shmdt),
    KUMIKI_CALL(shmget), KUMIKI_CALL(shutdown), KUMIKI_CALL(sigaltstack), KUMIKI_CALL(signalfd),
    KUMIKI_CALL(signalfd4), KUMIKI_CALL(socket), KUMIKI_CALL(socketpair), KUMIKI_CALL(splice),
    KUMIKI_CALL(stat), KUMIKI_CALL(statfs), KUMIKI_NEW(statmount, 457), KUMIKI_CALL(statx),
    KUMIKI_CALL(swapoff), KUMIKI_CALL(swapon), KUMIKI_CALL(symlink), KUMIKI_CALL(symlinkat),
    KUMIKI_CALL(sync), KUMIKI_CALL(sync_file_range), KUMIKI_CALL(sync_file_range2),
    KUMIKI_CALL(syncfs), KUMIKI_CALL(sysfs), KUMIKI_CALL(sysinfo), KUMIKI_CALL(syslog),
    KUMIKI_CALL(tee), KUMIKI_CALL(tgkill), KUMIKI_CALL(time), KUMIKI_CALL(timer_create),
    KUMIKI_CALL(timer_delete), KUMIKI_CALL(timer_getoverrun), KUMIKI_CALL(timer_gettime),
    KUMIKI_CALL(timer_settime), KUMIKI_CALL(timerfd_create), KUMIKI_CALL(timerfd_gettime),
    KUMIKI_CALL(timerfd_settime), KUMIKI_CALL(times), KUMIKI_CALL(tkill), KUMIKI_CALL(truncate),
    KUMIKI_CALL(tuxcall), KUMIKI_CALL(umask), KUMIKI_CALL(umount2), KUMIKI_CALL(uname),
    KUMIKI_CALL(unlink), KUMIKI_CALL(unlinkat), KUMIKI_CALL(unshare), KUMIKI_X86(uprobe, 336),
    KUMIKI_X86(uretprobe, 335), KUMIKI_CALL(uselib), KUMIKI_CALL(userfaultfd), KUMIKI_CALL(ustat),
    KUMIKI_CALL(utime), KUMIKI_CALL(utimensat), KUMIKI_CALL(utimes), KUMIKI_CALL(vfork),
    KUMIKI_CALL(vhangup), KUMIKI_CALL(vmsplice), KUMIKI_CALL(vserver), KUMIKI_CALL(wait4),
    KUMIKI_CALL(waitid), KUMIKI_CALL(write), KUMIKI_CALL(writev),
});
// clang-format on

#undef KUMIKI_X86
#undef KUMIKI_CALL
#undef KUMIKI_NEW
#undef KUMIKI_TEXT
#undef KUMIKI_TEXT_OF

static_assert(std::ranges::is_sorted(syscall_table, {}, &syscall_entry::name));

inline constexpr int newest_syscall =
    std::ranges::max_element(syscall_table, {}, &syscall_entry::number)->number;

/// One flag a number, up to the newest: true when the table names it.
inline constexpr auto known_syscalls = [] {
    std::array<bool, static_cast<std::size_t>(newest_syscall) + 1> known{};
    for (const auto& entry : syscall_table)
        if (entry.number >= 0) known[static_cast<std::size_t>(entry.number)] = true;
    return known;
}();

}  // namespace detail

/// The number of the system call `name` here; nothing when this architecture does not have it (or
/// nobody has: see is_syscall_name()).
constexpr std::optional<int> find_syscall(std::string_view name) noexcept {
    const auto at =
        std::ranges::lower_bound(detail::syscall_table, name, {}, &detail::syscall_entry::name);
    if (at == detail::syscall_table.end() || at->name != name || at->number < 0)
        return std::nullopt;
    return at->number;
}

/// True when some architecture that kumiki knows has a system call of this name.
constexpr bool is_syscall_name(std::string_view name) noexcept {
    return std::ranges::binary_search(detail::syscall_table, name, {},
                                      &detail::syscall_entry::name);
}

/// As find_syscall(). Errors: invalid_input that names the call.
constexpr int syscall_number(std::string_view name) {
    const auto number = find_syscall(name);
    if (!number)
        throw invalid_input("system call", name,
                            is_syscall_name(name) ? "This architecture does not have it."
                                                  : "No system call of this name is known.");
    return *number;
}

/// The name of system call `number`; empty when it is not known.
constexpr std::string_view syscall_name(int number) noexcept {
    for (const auto& entry : detail::syscall_table)
        if (entry.number == number && number >= 0) return entry.name;
    return {};
}

/// True when `number` has a name here.
constexpr bool is_known_syscall(int number) noexcept {
    return number >= 0 && number <= detail::newest_syscall &&
           detail::known_syscalls[static_cast<std::size_t>(number)];
}

}  // namespace kumiki::inline v0
