// The system calls that a child makes between its filter and its execve, when a notify rule of that
// filter stops them: they are the start's own, and let through.
//
// The one that decides must never take a call of the payload for the start's. While a call waits, its
// caller stands still; so the call is the start's if its caller is the child and the kernel says that
// it has executed nothing yet (PF_FORKNOEXEC, the 1 in the column F of ps(1)). That the control socket
// is still open proves nothing: another process may hold a copy for a moment.
#pragma once

#include <poll.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include <kumiki/async/scheduler.hpp>
#include <kumiki/core/error.hpp>
#include <kumiki/core/text.hpp>
#include <kumiki/core/unique_fd.hpp>
#include <kumiki/security/seccomp_call.hpp>
#include <kumiki/security/seccomp_listener.hpp>
#include <kumiki/sys/abi.hpp>
#include <kumiki/sys/check.hpp>
#include <kumiki/sys/file.hpp>

namespace kumiki::inline v0::detail {

/// Whether the text of a /proc/PID/stat is that of a process that has not executed anything.
constexpr bool has_not_executed(std::string_view stat) noexcept {
    constexpr unsigned pf_forknoexec = 0x40;
    const auto name_end = stat.rfind(')');  // the name may have any character
    if (name_end == std::string_view::npos || name_end + 2 > stat.size()) return false;
    stat.remove_prefix(name_end + 2);
    for (int field = 3; field < 9; ++field) next_field(stat, ' ');
    const auto flags = next_field(stat, ' ');
    return flags && (parse_number<unsigned>(*flags).value_or(0) & pf_forknoexec) != 0;
}

/// The descriptor `number` of another process. Errors: EPERM without the right to look into it.
inline unique_fd fetch_listener(int pidfd, int number) {
    return unique_fd(
        sys::check(static_cast<int>(::syscall(sys::nr_pidfd_getfd, pidfd, number, 0)), [] {
            return error_context{.operation = "fetch",
                                 .object = "the filter's listener",
                                 .step = "seccomp",
                                 .remedy = errno == EPERM
                                               ? "It takes CAP_SYS_PTRACE. Without a notify rule "
                                                 "for sendmsg the listener is sent."
                                               : ""};
        }));
}

/// Has the listener of a start, and answers until the child has executed its command.
class start_calls {
  public:
    /// From here on fd() is readable when `control` is, or when a call waits.
    void take(unique_fd listener, int control) {
        listener_ = std::make_shared<const unique_fd>(std::move(listener));
        both_.reset(sys::check(::epoll_create1(EPOLL_CLOEXEC), "watch", "a start"));
        watch(EPOLL_CTL_ADD, control);
        watch(EPOLL_CTL_ADD, listener_->get());
        answering_ = true;
    }
    /// What to wait on; `control` while there is no listener.
    int fd(int control) const noexcept { return both_ ? both_.get() : control; }

    /// Lets a call through that waits, if it is the child's own; a call of the payload is kept.
    void answer(pid_t child) {
        if (!answering_) return;
        pollfd seen{.fd = listener_->get(), .events = POLLIN, .revents = 0};
        sys::check(sys::retry([&] { return ::poll(&seen, 1, 0); }), "poll");
        if (seen.revents == 0) return;
        std::optional<seccomp_call> call;
        if ((seen.revents & POLLIN) != 0) {
            call = seccomp_call::receive(listener_);
            if (!call) return;
            const auto stat =
                sys::try_read_file_at(AT_FDCWD, "/proc/" + std::to_string(child) + "/stat");
            if (call->pid() == child && stat && has_not_executed(*stat)) {
                call->allow();
                return;
            }
        }
        first_ = std::move(call);
        answering_ = false;  // the start has nothing more to ask
        watch(EPOLL_CTL_DEL, listener_->get());
    }

    /// Gives the listener on, for the calls of the running process `pidfd`; null without one.
    std::unique_ptr<seccomp_listener> finish(scheduler& io, int pidfd) {
        if (!listener_) return nullptr;
        const auto copy = [](int fd) {
            return unique_fd(sys::check(::fcntl(fd, F_DUPFD_CLOEXEC, 3), "duplicate",
                                        "a descriptor of the container"));
        };
        both_.reset();
        auto made = std::make_unique<seccomp_listener>(io, copy(listener_->get()), copy(pidfd),
                                                       std::exchange(first_, std::nullopt));
        listener_.reset();
        return made;
    }

  private:
    void watch(int operation, int fd) const {
        epoll_event event{.events = EPOLLIN, .data = {.fd = fd}};
        sys::check(::epoll_ctl(both_.get(), operation, fd, &event), "watch", "a start");
    }

    std::shared_ptr<const unique_fd> listener_;
    std::optional<seccomp_call> first_;
    unique_fd both_;
    bool answering_ = false;
};

}  // namespace kumiki::inline v0::detail
