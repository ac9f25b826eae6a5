// The processes that entered a running container, and who reaps them.
//
// The first process of a pid namespace cannot end before each process in it has been reaped, also
// those that came from outside: a supervisor that waits for the container and not for what it
// started there would wait for ever (zap_pid_ns_processes in kernel/pid_namespace.c). So the wait for
// the container watches all of them, through one epoll descriptor that can gain new ones meanwhile.
#pragma once

#include <poll.h>
#include <sys/epoll.h>

#include <cerrno>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include <kumiki/async/scheduler.hpp>
#include <kumiki/async/task.hpp>
#include <kumiki/core/observer.hpp>
#include <kumiki/core/unique_fd.hpp>
#include <kumiki/sys/check.hpp>
#include <kumiki/sys/pidfd.hpp>

namespace kumiki::inline v0::detail {

/// A process that entered a container; shared by its handle and by its container.
struct entered_process {
    pid_t pid = 0;
    unique_fd pidfd{};
    std::optional<sys::exit_status> status{};  ///< set once it has been reaped

    /// Reaps it if it has ended, or, with options 0, waits for its end.
    void reap(int options = WNOHANG) {
        if (!status) status = sys::try_wait(pidfd.get(), options);
    }
    void kill_and_reap() noexcept {
        if (!pidfd || status) return;
        release_quietly([&] {
            sys::send_signal(pidfd.get(), SIGKILL);
            reap(0);
        });
    }
};

/// All processes of one container that this process has to reap.
class process_reaper {
  public:
    void add(std::shared_ptr<entered_process> process) {
        watch(process->pidfd.get());
        entered_.push_back(std::move(process));
    }
    /// Reaps those that have ended.
    void reap() {
        std::erase_if(entered_, [&](const auto& each) {
            each->reap();
            if (each->status) ::epoll_ctl(poll_.get(), EPOLL_CTL_DEL, each->pidfd.get(), nullptr);
            return each->status.has_value();
        });
    }
    /// Kills and reaps all of them: before the first process is waited for without a scheduler.
    void kill() noexcept {
        for (const auto& each : entered_) each->kill_and_reap();
        entered_.clear();
    }
    /// Waits for the end of the container's first process, and reaps whatever ends before it.
    template <class = void>
    task<sys::exit_status> wait_first(scheduler& io, int pidfd) {
        watch(pidfd);
        for (;;) {
            reap();
            if (auto status = sys::try_wait(pidfd)) co_return *status;
            co_await io.poll(poll_.get(), POLLIN);
        }
    }

  private:
    void watch(int pidfd) {
        if (!poll_) poll_.reset(sys::check(::epoll_create1(EPOLL_CLOEXEC), "watch", "processes"));
        epoll_event event{.events = EPOLLIN, .data = {.fd = pidfd}};
        const int added = ::epoll_ctl(poll_.get(), EPOLL_CTL_ADD, pidfd, &event);
        if (added < 0 && errno != EEXIST) sys::check(added, "watch", "a process");
    }

    unique_fd poll_;
    std::vector<std::shared_ptr<entered_process>> entered_;
};

}  // namespace kumiki::inline v0::detail
