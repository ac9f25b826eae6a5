// seccomp_listener: the calls of filtered processes that wait for an answer, one after the other.
//
//   while (auto call = co_await calls.next()) {
//       if (call->name() == "mount") call->deny(EROFS);
//       else call->allow();
//   }
//
// Kernel: 5.9 (the listener tells of the end of the last filtered process; before 6.11 only once that
// was reaped, so a process can be named whose end is the end).
#pragma once

#include <poll.h>
#include <sys/epoll.h>

#include <memory>
#include <optional>
#include <utility>

#include <kumiki/async/scheduler.hpp>
#include <kumiki/async/task.hpp>
#include <kumiki/core/unique_fd.hpp>
#include <kumiki/security/seccomp_call.hpp>
#include <kumiki/sys/check.hpp>

namespace kumiki::inline v0 {

/// The answering side of a filter with notify rules. Move-only, but not while next() is awaited.
///
/// Lifetime: while it exists, calls wait for next(). When it is gone or at its end, and with it every
/// seccomp_call that it gave out, they fail with ENOSYS. The scheduler must outlive it.
class seccomp_listener {
  public:
    /// `listener` is from install_seccomp_listener(), and nobody else reads from it. With a pidfd
    /// `process`, the end of that process is the end, though others may have its filter.
    /// `received`: a call that was taken already, to be the first.
    seccomp_listener(scheduler& io, unique_fd listener, unique_fd process = {},
                     std::optional<seccomp_call> received = {})
        : io_(&io), listener_(std::make_shared<const unique_fd>(std::move(listener))),
          process_(std::move(process)), received_(std::move(received)),
          both_(sys::check(::epoll_create1(EPOLL_CLOEXEC), "watch", "a seccomp listener")) {
        watch(listener_->get());
        if (process_) watch(process_.get());
    }

    /// The next call; nothing when no process can make one any more. Several tasks may wait for it:
    /// each gets calls of its own.
    /// Errors: `cancelled`; no call is lost by that.
    template <class = void>
    task<std::optional<seccomp_call>> next() {
        std::optional<seccomp_call> found;
        while (!look(found)) co_await io_->poll(both_.get(), POLLIN);
        co_return found;
    }

  private:
    void watch(int fd) const {
        epoll_event event{.events = EPOLLIN, .data = {.fd = fd}};
        sys::check(::epoll_ctl(both_.get(), EPOLL_CTL_ADD, fd, &event), "watch",
                   "a seccomp listener");
    }
    /// False when it is not known yet: neither a call nor the end.
    bool look(std::optional<seccomp_call>& found) {
        if (received_) {
            found = std::exchange(received_, std::nullopt);
            return true;
        }
        while (listener_) {
            pollfd seen[2] = {{.fd = listener_->get(), .events = POLLIN, .revents = 0},
                              {.fd = process_.get(), .events = POLLIN, .revents = 0}};
            sys::check(sys::retry([&] { return ::poll(seen, 2, 0); }), "poll");
            if ((seen[0].revents & POLLIN) != 0) {
                found = seccomp_call::receive(listener_);
                if (found) return true;
            } else if (seen[0].revents != 0 || seen[1].revents != 0) {
                listener_.reset();
            } else {
                return false;
            }
        }
        return true;
    }

    scheduler* io_;
    std::shared_ptr<const unique_fd> listener_;  // none: at its end
    unique_fd process_;
    std::optional<seccomp_call> received_;
    unique_fd both_;
};

}  // namespace kumiki::inline v0
