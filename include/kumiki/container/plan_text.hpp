// A plan as text, a line a step, in the manner of strace(1): for people, and for the test that holds
// what a child does against what its plan says.
#pragma once

#include <sys/syscall.h>

#include <array>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <kumiki/container/plan.hpp>
#include <kumiki/sys/abi.hpp>

namespace kumiki::inline v0 {

namespace detail {

/// Names of the calls that plans are made of.
inline constexpr auto plan_calls =
    std::to_array<std::pair<long, std::string_view>>({{SYS_capset, "capset"},
                                                      {SYS_chdir, "chdir"},
                                                      {SYS_close, "close"},
                                                      {SYS_dup3, "dup3"},
                                                      {SYS_exit_group, "exit_group"},
                                                      {SYS_fchdir, "fchdir"},
                                                      {SYS_fchown, "fchown"},
                                                      {SYS_fchownat, "fchownat"},
                                                      {SYS_ioctl, "ioctl"},
                                                      {SYS_ioprio_set, "ioprio_set"},
                                                      {SYS_keyctl, "keyctl"},
                                                      {SYS_mkdirat, "mkdirat"},
                                                      {SYS_mknodat, "mknodat"},
                                                      {SYS_mount, "mount"},
                                                      {SYS_openat, "openat"},
                                                      {SYS_personality, "personality"},
                                                      {SYS_pivot_root, "pivot_root"},
                                                      {SYS_prctl, "prctl"},
                                                      {SYS_prlimit64, "prlimit64"},
                                                      {SYS_rt_sigaction, "rt_sigaction"},
                                                      {SYS_rt_sigprocmask, "rt_sigprocmask"},
                                                      {SYS_sched_setaffinity, "sched_setaffinity"},
                                                      {SYS_sched_setattr, "sched_setattr"},
                                                      {SYS_seccomp, "seccomp"},
                                                      {SYS_sendto, "sendto"},
                                                      {SYS_setgroups, "setgroups"},
                                                      {SYS_setns, "setns"},
                                                      {SYS_sethostname, "sethostname"},
                                                      {SYS_setpriority, "setpriority"},
                                                      {SYS_setresgid, "setresgid"},
                                                      {SYS_setresuid, "setresuid"},
                                                      {SYS_setsid, "setsid"},
                                                      {SYS_socket, "socket"},
                                                      {SYS_symlinkat, "symlinkat"},
                                                      {SYS_umask, "umask"},
                                                      {SYS_umount2, "umount2"},
                                                      {SYS_unshare, "unshare"},
                                                      {SYS_write, "write"},
                                                      {sys::nr_fsconfig, "fsconfig"},
                                                      {sys::nr_fsmount, "fsmount"},
                                                      {sys::nr_fsopen, "fsopen"},
                                                      {sys::nr_mount_setattr, "mount_setattr"},
                                                      {sys::nr_move_mount, "move_mount"},
                                                      {sys::nr_openat2, "openat2"},
                                                      {sys::nr_open_tree, "open_tree"}});

}  // namespace detail

/// The name of the call that a step makes first (a special step: the one that it is made of).
inline std::string_view call_name(const step& s) {
    switch (s.kind) {
    case step_kind::call:
        break;
    case step_kind::close_others:
        return "close_range";
    case step_kind::make_path:
        return "openat2";
    case step_kind::await_byte:
        return "ppoll";
    case step_kind::receive_slot:
        return "ppoll";
    case step_kind::send_slot:
        return "sendmsg";
    case step_kind::hand_on:
        return "clone";
    case step_kind::inspect:
        return "openat2";
    case step_kind::exec:
        return "execve";
    }
    for (const auto& [number, name] : detail::plan_calls)
        if (number == s.number) return name;
    return "syscall";
}

/// One step: `dev: mknodat($9, "null", 8630, 259)  # null`. `$9` is the result of an earlier step.
inline std::string to_string(const plan& from, std::size_t index) {
    const step& s = from.steps().at(index);
    std::string text = std::string(name_of(s.in)) + ": " + std::string(call_name(s)) + "(";
    std::size_t count = 6;
    while (count > 0 && s.arguments[count - 1] == 0 && (s.slots >> (count - 1) & 1) == 0) --count;
    for (std::size_t i = 0; i < count; ++i) {
        if (i != 0) text += ", ";
        switch (from.shape_of(index, i)) {
        case operand::shape::number:
            text += std::to_string(s.arguments[i]);
            break;
        case operand::shape::address:
            text += "&";
            break;
        case operand::shape::slot:
            text += "$" + std::to_string(s.arguments[i]);
            break;
        case operand::shape::text:
            text += '"' + std::string(reinterpret_cast<const char*>(s.arguments[i])) + '"';
            break;
        }
    }
    text += ")";
    if (s.result != no_slot) text += " -> $" + std::to_string(s.result);
    return text + "  # " + std::string(from.shown(index));
}

/// All steps, a line each.
inline std::string to_string(const plan& from) {
    std::string text;
    for (std::size_t i = 0; i < from.size(); ++i) text += to_string(from, i) + "\n";
    return text;
}

}  // namespace kumiki::inline v0
