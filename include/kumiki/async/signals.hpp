// signal_stream: signals as values, through signalfd(2).
//
// The library never touches signal handling on its own: making one of these is how a program asks
// for it. It blocks its signals in the calling thread for as long as it lives, and unblocks those
// that were not blocked before. A signal for the process goes to any thread that does not block it:
// make the stream first in main, so that later threads inherit the mask.
// Kernel: signalfd4(2), 2.6.27. Standard signals of one kind that wait together arrive as one.
#pragma once

#include <signal.h>
#include <sys/signalfd.h>

#include <cstddef>
#include <initializer_list>
#include <optional>
#include <span>
#include <string>
#include <utility>

#include <kumiki/async/scheduler.hpp>
#include <kumiki/async/task.hpp>
#include <kumiki/core/error.hpp>
#include <kumiki/core/unique_fd.hpp>
#include <kumiki/sys/check.hpp>

namespace kumiki::inline v0 {

/// A signal that has arrived.
struct signal_arrival {
    int signal = 0;  ///< SIGINT ...
    pid_t sender = 0;  ///< the process that sent it; 0 for the kernel
    int value = 0;  ///< what sigqueue(3) sent with it
};

/// Receives `signals` in place of their handlers. Made, used and destroyed on one thread.
///
/// Errors: invalid_input for a number that is no signal, and for SIGKILL and SIGSTOP.
class signal_stream {
  public:
    signal_stream(scheduler& io, std::initializer_list<int> signals) : io_(&io) {
        sigset_t wanted;
        ::sigemptyset(&wanted);
        for (const int signal : signals)
            if (signal == SIGKILL || signal == SIGSTOP || ::sigaddset(&wanted, signal) < 0)
                throw invalid_input("signal", std::to_string(signal),
                                    "It must be one that a process can receive.");
        fd_.reset(
            sys::check(::signalfd(-1, &wanted, SFD_CLOEXEC | SFD_NONBLOCK), "create a signalfd"));
        sigset_t before;
        ::pthread_sigmask(SIG_BLOCK, &wanted, &before);
        ::sigemptyset(&unblock_);
        for (const int signal : signals)
            if (::sigismember(&before, signal) == 0) ::sigaddset(&unblock_, signal);
    }
    signal_stream(const signal_stream&) = delete;
    signal_stream& operator=(const signal_stream&) = delete;
    ~signal_stream() { ::pthread_sigmask(SIG_UNBLOCK, &unblock_, nullptr); }

    /// The next signal. Always a value: optional so that it is used like any stream.
    template <class = void>
    [[nodiscard]] task<std::optional<signal_arrival>> next() {
        signalfd_siginfo info{};
        const std::size_t size =
            co_await io_->read(fd_.get(), std::as_writable_bytes(std::span(&info, 1)));
        if (size != sizeof info) co_return std::nullopt;
        co_return signal_arrival{.signal = static_cast<int>(info.ssi_signo),
                                 .sender = static_cast<pid_t>(info.ssi_pid),
                                 .value = info.ssi_int};
    }

  private:
    scheduler* io_;
    unique_fd fd_;
    sigset_t unblock_{};
};

}  // namespace kumiki::inline v0
