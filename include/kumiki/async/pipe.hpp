// The ends of a pipe as objects that wait: one reads, one writes, both close themselves.
//
// Both work in non-blocking mode and by direct calls once poll says that they can go on, so a stop
// never finds data on its way. A pipe that nobody reads any more is an answer and no signal: the
// SIGPIPE of a write is blocked and taken back on the thread that writes. Source: pipe(7),
// sigtimedwait(2). Left out: splice(2), more than one task at an end at the same time.
#pragma once

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <ctime>
#include <optional>
#include <span>
#include <string_view>
#include <utility>

#include <kumiki/async/scheduler.hpp>
#include <kumiki/async/task.hpp>
#include <kumiki/core/unique_fd.hpp>
#include <kumiki/sys/check.hpp>

namespace kumiki::inline v0 {

namespace detail {

inline void make_nonblocking(int fd) {
    const int flags = sys::check(::fcntl(fd, F_GETFL), "look at", "a pipe");
    sys::check(::fcntl(fd, F_SETFL, flags | O_NONBLOCK), "prepare", "a pipe");
}

/// write(2) whose EPIPE is not also a signal. One that was waiting before is left as it was.
inline ssize_t write_without_signal(int fd, const void* data, std::size_t size) noexcept {
    sigset_t broken;
    sigset_t before;
    sigset_t waiting;
    ::sigemptyset(&broken);
    ::sigaddset(&broken, SIGPIPE);
    ::pthread_sigmask(SIG_BLOCK, &broken, &before);
    ::sigpending(&waiting);
    const ssize_t written = ::write(fd, data, size);
    const int failed = errno;
    if (written < 0 && failed == EPIPE && ::sigismember(&waiting, SIGPIPE) == 0) {
        const timespec at_once{};
        sys::retry([&] { return ::sigtimedwait(&broken, nullptr, &at_once); });
    }
    ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
    errno = failed;
    return written;
}

}  // namespace detail

/// The end of a pipe from which data comes. Move-only; the scheduler must outlive it.
class pipe_reader {
  public:
    pipe_reader() = default;  ///< none
    /// Takes over `end` and makes it non-blocking.
    pipe_reader(scheduler& io, unique_fd end) : io_(&io), end_(std::move(end)) {
        detail::make_nonblocking(end_.get());
    }

    explicit operator bool() const noexcept { return static_cast<bool>(end_); }
    int get() const noexcept { return end_.get(); }
    void close() noexcept { end_.reset(); }
    [[nodiscard]] unique_fd release() noexcept { return std::move(end_); }

    /// Waits until something is there and reads it; yields its size, 0 at the end: when all who
    /// could write have closed it. Lifetime: `into` and the open end, up to the end of the await.
    template <class = void>
    task<std::size_t> read(std::span<std::byte> into) const {
        return read_from(*io_, end_.get(), into);
    }
    /// What is there now, without waiting: nothing when there is none, 0 at the end.
    std::optional<std::size_t> try_read(std::span<std::byte> into) const {
        const auto size = sys::retry([&] { return ::read(end_.get(), into.data(), into.size()); });
        if (size < 0 && errno == EAGAIN) return std::nullopt;
        return static_cast<std::size_t>(sys::check(size, "read", "a pipe"));
    }
    /// How many bytes are there now.
    std::size_t available() const {
        int size = 0;
        sys::check(::ioctl(end_.get(), FIONREAD, &size), "look at", "a pipe");
        return static_cast<std::size_t>(size);
    }

  private:
    template <class = void>
    static task<std::size_t> read_from(scheduler& io, int fd, std::span<std::byte> into) {
        for (;;) {
            // Waited for also when it is there already: others have their turn, and a stop is seen.
            co_await io.poll(fd, POLLIN);
            const auto size = ::read(fd, into.data(), into.size());
            if (size < 0 && (errno == EAGAIN || errno == EINTR)) continue;
            co_return static_cast<std::size_t>(sys::check(size, "read", "a pipe"));
        }
    }

    scheduler* io_ = nullptr;
    unique_fd end_;
};

/// The end of a pipe into which data goes. Move-only; the scheduler must outlive it.
class pipe_writer {
  public:
    pipe_writer() = default;  ///< none
    /// Takes over `end` and makes it non-blocking.
    pipe_writer(scheduler& io, unique_fd end) : io_(&io), end_(std::move(end)) {
        detail::make_nonblocking(end_.get());
    }

    explicit operator bool() const noexcept { return static_cast<bool>(end_); }
    int get() const noexcept { return end_.get(); }
    /// Whoever reads comes to the end.
    void close() noexcept { end_.reset(); }
    [[nodiscard]] unique_fd release() noexcept { return std::move(end_); }

    /// Writes all of `data`, as room comes; yields false when nobody reads any more. Lifetime:
    /// `data` and the open end, up to the end of the await.
    template <class = void>
    task<bool> write(std::span<const std::byte> data) const {
        return write_to(*io_, end_.get(), data);
    }
    template <class = void>
    task<bool> write(std::string_view text) const {
        return write(std::as_bytes(std::span(text.data(), text.size())));
    }

  private:
    template <class = void>
    static task<bool> write_to(scheduler& io, int fd, std::span<const std::byte> data) {
        while (!data.empty()) {
            co_await io.poll(fd, POLLOUT);
            const auto size = detail::write_without_signal(fd, data.data(), data.size());
            if (size < 0 && (errno == EAGAIN || errno == EINTR)) continue;
            if (size < 0 && errno == EPIPE) co_return false;
            data = data.subspan(static_cast<std::size_t>(sys::check(size, "write", "to a pipe")));
        }
        co_return true;
    }

    scheduler* io_ = nullptr;
    unique_fd end_;
};

}  // namespace kumiki::inline v0
