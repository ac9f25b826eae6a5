// The child's side of a start: a small interpreter that carries out the plan's steps by raw system
// calls, in memory that it may share with the program that started it.
//
// No libc, no allocation, no lock, no exception, no stack protector, no sanitizer: nothing here
// calls anything but the functions of this header and sys/raw.hpp. It leaves what went wrong in the
// report and ends by _exit.
#pragma once

#include <fcntl.h>
#include <linux/time_types.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include <kumiki/container/child_control.hpp>
#include <kumiki/container/child_paths.hpp>
#include <kumiki/container/step.hpp>
#include <kumiki/sys/raw.hpp>

namespace kumiki::inline v0::detail {

KUMIKI_CHILD_SIDE inline std::int64_t child_clock() noexcept {
    __kernel_timespec now;
    sys::raw_syscall(SYS_clock_gettime, 1 /* CLOCK_MONOTONIC */, raw_address(&now));
    return now.tv_sec * 1000000000LL + now.tv_nsec;
}

/// Closes all descriptors from 3 on that are not among the `count` ascending `kept` ones.
KUMIKI_CHILD_SIDE inline long child_close_others(const int* kept, long count) noexcept {
    long first = 3;
    for (long i = 0; i <= count; ++i) {
        const long last = i < count ? static_cast<long>(kept[i]) - 1 : 0xffffffffL;
        if (first <= last) {
            const long result = sys::raw_syscall(sys::nr_close_range, first, last, 0);
            if (result < 0) return result;
        }
        if (i < count) first = static_cast<long>(kept[i]) + 1;
    }
    return 0;
}

/// execve of each candidate in turn; returns the error that says most. A candidate that exists but
/// may not be executed outweighs those that are missing, as with execvp(3).
KUMIKI_CHILD_SIDE inline long child_exec(const exec_candidates* command) noexcept {
    long result = -ENOENT;
    for (const char* const* path = command->paths; *path != nullptr; ++path) {
        const long failed =
            sys::raw_syscall(SYS_execve, raw_address(*path), raw_address(command->arguments),
                             raw_address(command->environment));
        if (failed == -EACCES) {
            result = failed;
        } else if (failed != -ENOENT && failed != -ENOTDIR) {
            return failed;
        }
    }
    return result;
}

/// A process that has entered a pid namespace is not in it, but its children are: one goes on, as
/// another child of the supervisor, which finds its number at `number`.
KUMIKI_CHILD_SIDE inline long child_hand_on(long number) noexcept {
    const long pid = sys::raw_syscall(
        SYS_clone, static_cast<long>(sys::clone_parent | sys::clone_parent_settid) | SIGCHLD, 0,
        number, 0, 0);
    if (pid <= 0) return pid;
    for (;;) sys::raw_syscall(SYS_exit_group, 0);
}

KUMIKI_CHILD_SIDE inline long child_carry_out(const step* s, const long* slots) noexcept {
    long a[6];
    for (int i = 0; i < 6; ++i)
        a[i] = (s->slots >> i & 1) != 0 ? slots[s->arguments[i]] : s->arguments[i];
    switch (s->kind) {
    case step_kind::call:
        return sys::raw_syscall(s->number, a[0], a[1], a[2], a[3], a[4], a[5]);
    case step_kind::close_others:
        return child_close_others(reinterpret_cast<const int*>(a[0]), a[1]);
    case step_kind::make_path:
        return child_make_path(a[0], reinterpret_cast<const path_walk*>(a[1]));
    case step_kind::await_byte:
        return child_await_byte(a[0], a[1]);
    case step_kind::receive_slot:
        return child_receive_slot(a[0], a[1]);
    case step_kind::send_slot:
        return child_send_slot(a[0], a[1], a[2]);
    case step_kind::hand_on:
        return child_hand_on(a[0]);
    case step_kind::inspect:
        return child_inspect(reinterpret_cast<const char* const*>(a[0]));
    case step_kind::allow_path:
        return child_allow_path(a[0], reinterpret_cast<const allowed_path*>(a[1]));
    case step_kind::verify_text:
        return child_verify_text(a[0], reinterpret_cast<const char*>(a[1]), a[2]);
    case step_kind::exec:
        return child_exec(reinterpret_cast<const exec_candidates*>(a[0]));
    }
    return -ENOSYS;
}

/// Where the child begins: carries out a child_program and does not return.
KUMIKI_CHILD_SIDE inline void child_main(void* argument) noexcept {
    const auto* program = static_cast<const child_program*>(argument);
    child_report* report = program->report;
    report->began = child_clock();
    for (std::size_t i = 0; i < program->count; ++i) {
        const step* s = &program->steps[i];
        if (i != 0 && program->steps[i - 1].in != s->in)
            report->phase_end[static_cast<std::size_t>(program->steps[i - 1].in)] = child_clock();
        report->step = static_cast<std::int32_t>(i);
        const long result = child_carry_out(s, report->slots);
        if (result < 0) {
            if (result != -s->tolerated) {
                report->error = static_cast<std::int32_t>(-result);
                break;
            }
            i += s->skip;
        } else if (s->result != no_slot) {
            report->slots[s->result] = result;
        }
    }
    for (;;) sys::raw_syscall(SYS_exit_group, child_failed_status);
}

}  // namespace kumiki::inline v0::detail
