// The epoll backend, for hosts that deny io_uring: the same requests as non-blocking system calls,
// and an epoll instance that says when to repeat one.
//
// Works on descriptors in blocking mode too: calls are made with MSG_DONTWAIT or RWF_NOWAIT, or
// after poll(2) said that they will not wait. Regular files, which epoll refuses with EPERM, are
// read and written directly. Registrations are one-shot and are removed with the last operation.
// Kernel: 5.11 for timeouts finer than a millisecond (epoll_pwait2), 2.6.27 otherwise.
// Left out: a descriptor that is closed while an operation waits on it (cancel first).
#pragma once

#include <fcntl.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <climits>
#include <cstdint>
#include <optional>
#include <vector>

#include <kumiki/async/backend.hpp>
#include <kumiki/async/direct_io.hpp>
#include <kumiki/core/unique_fd.hpp>
#include <kumiki/sys/check.hpp>

namespace kumiki::inline v0::detail {

class epoll final : public backend {
  public:
    explicit epoll(loop_core& loop)
        : loop_(loop),
          epoll_(sys::check(::epoll_create1(EPOLL_CLOEXEC), "create an epoll instance")) {
        epoll_event event{.events = EPOLLIN, .data = {.fd = loop_.remote.fd()}};
        sys::check(::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, loop_.remote.fd(), &event),
                   "watch an eventfd");
    }

    bool supports(request_kind kind) const noexcept override {
        return kind != request_kind::wait_child && kind != request_kind::open;
    }

    void start(io_operation& of) override {
        if (const auto result = attempt(of.asked)) return of.complete(*result);
        const auto fd = static_cast<std::size_t>(of.asked.fd);  // not negative: attempt() saw to it
        if (fd >= waiting_.size()) waiting_.resize(fd + 1, nullptr);
        of.next_on_fd = waiting_[fd];
        waiting_[fd] = &of;
        if (const int failed = arm(of.asked.fd)) {
            unlink(of);
            of.complete(failed == EPERM && can_wait(of.asked) ? transfer_waiting(of.asked)
                                                              : -failed);
        }
    }

    void cancel(io_operation& of) noexcept override {
        unlink(of);
        if (waiting_[static_cast<std::size_t>(of.asked.fd)] == nullptr)
            ::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, of.asked.fd, nullptr);
        of.finish(-ECANCELED);
    }

    void wait(std::optional<std::chrono::nanoseconds> limit) override {
        std::array<epoll_event, 64> events;
        const int count = collect(events, limit);
        for (int i = 0; i < count; ++i) {
            const epoll_event& event = events[static_cast<std::size_t>(i)];
            if (event.data.fd != loop_.remote.fd()) dispatch(event.data.fd, event.events);
        }
    }

    int pollable_fd() override { return epoll_.get(); }
    bool has_news() noexcept override { return false; }  // its descriptor stays readable

  private:
    static unsigned interest(const request& asked) noexcept {
        switch (asked.kind) {
        case request_kind::poll:
        case request_kind::poll_many:
            return asked.flags;
        case request_kind::write:
        case request_kind::send:
        case request_kind::send_message:
        case request_kind::connect:
            return EPOLLOUT;
        default:
            return EPOLLIN;
        }
    }
    static bool is_poll(const request& asked) noexcept {
        return asked.kind == request_kind::poll || asked.kind == request_kind::poll_many;
    }
    static bool can_wait(const request& asked) noexcept {
        return asked.kind == request_kind::read || asked.kind == request_kind::write;
    }

    int collect(std::array<epoll_event, 64>& events,
                std::optional<std::chrono::nanoseconds> limit) {
        constexpr auto size = static_cast<int>(std::tuple_size_v<std::array<epoll_event, 64>>);
        int count = -1;
        if (limit && limit->count() > 0 && has_pwait2_) {
            const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(*limit);
            const timespec span{.tv_sec = seconds.count(), .tv_nsec = (*limit - seconds).count()};
            count = ::epoll_pwait2(epoll_.get(), events.data(), size, &span, nullptr);
            // Older kernels lack it, and older seccomp filters of container engines deny it.
            if (count < 0 && (errno == ENOSYS || errno == EPERM)) has_pwait2_ = false;
        }
        if (!limit || limit->count() <= 0 || !has_pwait2_) {
            using milliseconds = std::chrono::milliseconds;
            const auto most =
                std::chrono::duration_cast<std::chrono::nanoseconds>(milliseconds(INT_MAX));
            const int span =
                !limit ? -1
                       : static_cast<int>(
                             std::chrono::ceil<milliseconds>(std::clamp(*limit, {}, most)).count());
            count = ::epoll_wait(epoll_.get(), events.data(), size, span);
        }
        if (count < 0 && errno == EINTR) return 0;
        return sys::check(count, "wait for epoll");
    }

    void dispatch(int fd, unsigned events) noexcept {
        io_operation* waiting = std::exchange(waiting_[static_cast<std::size_t>(fd)], nullptr);
        io_operation* kept = nullptr;
        while (waiting != nullptr) {
            io_operation& of = *std::exchange(waiting, waiting->next_on_fd);
            const unsigned seen = events & (interest(of.asked) | EPOLLERR | EPOLLHUP);
            std::optional<int> result;
            if (seen != 0)  // what epoll saw may be gone at a second look (PSI), so it counts
                result = is_poll(of.asked) ? static_cast<int>(seen) : attempt(of.asked);
            if (result) {
                of.complete(*result);
            } else {
                of.next_on_fd = kept;
                kept = &of;
            }
        }
        waiting_[static_cast<std::size_t>(fd)] = kept;
        if (kept == nullptr) return;
        if (const int failed = arm(fd))
            while (kept != nullptr) {
                io_operation& of = *std::exchange(kept, kept->next_on_fd);
                unlink(of);
                of.complete(-failed);
            }
    }

    /// Registers `fd` for what its operations wait for. Returns an errno value, 0 on success.
    int arm(int fd) noexcept {
        epoll_event event{.events = EPOLLONESHOT, .data = {.fd = fd}};
        for (const io_operation* of = waiting_[static_cast<std::size_t>(fd)]; of != nullptr;
             of = of->next_on_fd)
            event.events |= interest(of->asked);
        if (::epoll_ctl(epoll_.get(), EPOLL_CTL_MOD, fd, &event) == 0) return 0;
        if (errno == ENOENT && ::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event) == 0) return 0;
        return errno;
    }
    void unlink(io_operation& of) noexcept {
        io_operation** at = &waiting_[static_cast<std::size_t>(of.asked.fd)];
        while (*at != nullptr && *at != &of) at = &(*at)->next_on_fd;
        if (*at == &of) *at = of.next_on_fd;
    }

    /// The request without waiting: a result, or nothing when it would wait.
    static std::optional<int> attempt(request& asked) noexcept {
        if (asked.fd < 0) return -EBADF;
        const int flags = static_cast<int>(asked.flags) | MSG_DONTWAIT;
        auto* const message = static_cast<msghdr*>(asked.data);
        switch (asked.kind) {
        case request_kind::poll:
        case request_kind::poll_many:
            return ready_now(asked.fd, asked.flags);
        case request_kind::read:
        case request_kind::write:
            return transfer_now(asked);
        case request_kind::receive:
            return done_now([&] { return ::recv(asked.fd, asked.data, asked.length, flags); });
        case request_kind::send:
            return done_now(
                [&] { return ::send(asked.fd, asked.data, asked.length, flags | MSG_NOSIGNAL); });
        case request_kind::receive_message:
            return done_now([&] { return ::recvmsg(asked.fd, message, flags); });
        case request_kind::send_message:
            return done_now([&] { return ::sendmsg(asked.fd, message, flags | MSG_NOSIGNAL); });
        case request_kind::accept:
            if (const auto seen = ready_now(asked.fd, POLLIN); !seen || *seen < 0) return seen;
            return done_now([&] {
                return ::accept4(asked.fd, nullptr, nullptr, static_cast<int>(asked.flags));
            });
        case request_kind::connect:
            return connect(asked);
        case request_kind::close:
            return ::close(asked.fd) < 0 && errno != EINTR ? -errno : 0;
        case request_kind::open:  // may wait: see open_at()
        case request_kind::wait_child:
            break;
        }
        return -EOPNOTSUPP;
    }

    static std::optional<int> connect(request& asked) noexcept {
        if (asked.stage == request_stage::polled) {
            if (const auto seen = ready_now(asked.fd, POLLOUT); !seen || *seen < 0) return seen;
            int failed = 0;
            socklen_t size = sizeof failed;
            if (::getsockopt(asked.fd, SOL_SOCKET, SO_ERROR, &failed, &size) < 0) return -errno;
            return -failed;
        }
        const int mode = ::fcntl(asked.fd, F_GETFL);
        if (mode < 0) return -errno;
        if ((mode & O_NONBLOCK) == 0) ::fcntl(asked.fd, F_SETFL, mode | O_NONBLOCK);
        const int result = ::connect(asked.fd, static_cast<const sockaddr*>(asked.data),
                                     static_cast<socklen_t>(asked.length));
        const int failed = result < 0 ? errno : 0;
        if ((mode & O_NONBLOCK) == 0) ::fcntl(asked.fd, F_SETFL, mode);
        if (failed == 0) return 0;
        if (failed != EINPROGRESS && failed != EINTR) return -failed;
        asked.stage = request_stage::polled;
        return std::nullopt;
    }

    loop_core& loop_;
    unique_fd epoll_;
    std::vector<io_operation*> waiting_;  // by descriptor
    bool has_pwait2_ = true;
};

}  // namespace kumiki::inline v0::detail
