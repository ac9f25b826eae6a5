// Processes by descriptor: a pidfd names one process for ever, a number only until it is reused.
//
// pidfd_open(2) 5.3, pidfd_send_signal(2) 5.1, waitid(P_PIDFD) 5.4. Waiting for the exit without
// blocking is the scheduler's (async/process.hpp): a pidfd is readable once the process has ended.
#pragma once

#include <signal.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <optional>

#include <kumiki/core/unique_fd.hpp>
#include <kumiki/core/units.hpp>
#include <kumiki/sys/abi.hpp>
#include <kumiki/sys/check.hpp>

namespace kumiki::inline v0::sys {

/// How a process ended, and what it used.
struct exit_status {
    int code = 0;      ///< what it passed to exit(2), when signal is 0
    int signal = 0;    ///< the signal that ended it, or 0
    bool core = false; ///< a core was dumped
    std::chrono::microseconds user_time{};
    std::chrono::microseconds system_time{};  ///< both with those of the children it waited for
    /// Resident, of the largest among them; cgroup_stats knows the sum. Of a child that shared the
    /// memory of this process up to its execve it is this process's, if that was more.
    bytes peak_memory{};

    /// The status that a shell gives: code, or 128 + signal.
    int shell_status() const noexcept { return signal != 0 ? 128 + signal : code; }
};

/// A pidfd of the process that is `pid` now. Errors: ESRCH.
inline unique_fd open_pidfd(pid_t pid) {
    return unique_fd(check(static_cast<int>(::syscall(nr_pidfd_open, pid, 0)), "pidfd_open",
                           std::to_string(pid)));
}

/// Sends `signal` to the process; false when it has already ended.
inline bool send_signal(int pidfd, int signal) {
    const long result = ::syscall(nr_pidfd_send_signal, pidfd, signal, nullptr, 0);
    if (result < 0 && errno == ESRCH) return false;
    check(result, "pidfd_send_signal");
    return true;
}

/// Collects the process's end if it has ended (waitid(2) with WNOHANG).
/// Errors: ECHILD when it is not a child of this process, or somebody else collected it.
inline std::optional<exit_status> try_wait(int pidfd, int options = WNOHANG) {
    constexpr int p_pidfd = 3;
    siginfo_t info{};
    struct rusage usage{};
    const auto wait = [&] {
        return ::syscall(SYS_waitid, p_pidfd, pidfd, &info, WEXITED | options, &usage);
    };
    check(retry(wait), [] {
        return error_context{.operation = "wait for the process",
                             .object = {},
                             .step = {},
                             .container = {},
                             .remedy = errno == ECHILD
                                           ? "Its status is lost: this program ignores SIGCHLD, or "
                                             "another part of it waits for every child."
                                           : ""};
    });
    if (info.si_pid == 0) return std::nullopt;
    const auto time = [](const timeval& t) {
        return std::chrono::seconds(t.tv_sec) + std::chrono::microseconds(t.tv_usec);
    };
    exit_status status{.user_time = time(usage.ru_utime),
                       .system_time = time(usage.ru_stime),
                       .peak_memory = {static_cast<std::uint64_t>(usage.ru_maxrss) * 1024}};
    if (info.si_code == CLD_EXITED) {
        status.code = info.si_status;
    } else {
        status.signal = info.si_status;
        status.core = info.si_code == CLD_DUMPED;
    }
    return status;
}

/// Waits for the process's end, for as long as it takes.
inline exit_status wait_blocking(int pidfd) { return *try_wait(pidfd, 0); }

}  // namespace kumiki::inline v0::sys
