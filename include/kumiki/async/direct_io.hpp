// Requests as direct system calls that do not wait: what the epoll backend does in place of the
// ring, and the ring where its own way would take a kernel thread.
//
// Works on descriptors in blocking mode: RWF_NOWAIT where the file knows it (a pipe since 6.4),
// else after poll(2) said that the call will not wait. Kernel: preadv2(2) with RWF_NOWAIT, 4.14.
// Left out: two readers of one pipe in blocking mode, one of which may take what the other saw.
#pragma once

#include <fcntl.h>
#include <poll.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <cstddef>
#include <optional>

#include <kumiki/async/backend.hpp>
#include <kumiki/core/unique_fd.hpp>
#include <kumiki/sys/check.hpp>

namespace kumiki::inline v0::detail {

inline constexpr std::size_t most_at_once = 0x7ffff000;  // MAX_RW_COUNT

/// What poll(2) says at once: events, nothing, or a negative errno value.
inline std::optional<int> ready_now(int fd, unsigned events) noexcept {
    pollfd polled{.fd = fd, .events = static_cast<short>(events), .revents = 0};
    const int count = sys::retry([&] { return ::poll(&polled, 1, 0); });
    if (count < 0) return -errno;
    if ((polled.revents & POLLNVAL) != 0) return -EBADF;
    if (count == 0) return std::nullopt;
    return polled.revents;
}

/// The result of `call`, nothing when it would wait, or a negative errno value.
template <class Call>
std::optional<int> done_now(Call call) noexcept {
    const auto result = sys::retry(call);
    if (result >= 0) return static_cast<int>(result);
    if (errno == EAGAIN) return std::nullopt;
    return -errno;
}

/// A read or a write, as far as it goes without waiting; nothing when it would wait.
inline std::optional<int> transfer_now(const request& asked) noexcept {
    const iovec part{.iov_base = asked.data, .iov_len = std::min(asked.length, most_at_once)};
    const bool reads = asked.kind == request_kind::read;
    const auto now = done_now([&] {
        return reads ? ::preadv2(asked.fd, &part, 1, -1, RWF_NOWAIT)
                     : ::pwritev2(asked.fd, &part, 1, -1, RWF_NOWAIT);
    });
    if (!now || (*now != -EOPNOTSUPP && *now != -EINVAL && *now != -ENOSYS)) return now;
    // This file has no RWF_NOWAIT: do what poll(2) says can be done.
    const auto seen = ready_now(asked.fd, reads ? POLLIN : POLLOUT);
    if (!seen || *seen < 0) return seen;
    return done_now([&] {
        return reads ? ::read(asked.fd, part.iov_base, part.iov_len)
                     // A pipe that is writable has room for PIPE_BUF bytes, and not for more.
                     : ::write(asked.fd, part.iov_base,
                               std::min<std::size_t>(part.iov_len, PIPE_BUF));
    });
}

/// A read or a write that waits: for regular files, whose disk is all that it can wait for.
inline int transfer_waiting(const request& asked) noexcept {
    const auto result = sys::retry([&] {
        return asked.kind == request_kind::read ? ::read(asked.fd, asked.data, asked.length)
                                                : ::write(asked.fd, asked.data, asked.length);
    });
    return result < 0 ? -errno : static_cast<int>(result);
}

/// Whether this kernel reads pipes without waiting (6.4). Where it does not, io_uring gives the
/// read of a pipe in blocking mode to a kernel thread, though data is there.
inline bool pipes_know_nowait() noexcept {
    int ends[2];
    if (::pipe2(ends, O_CLOEXEC) != 0) return true;
    const unique_fd from(ends[0]);
    const unique_fd to(ends[1]);
    char byte = 0;
    const iovec part{.iov_base = &byte, .iov_len = 1};
    return ::preadv2(from.get(), &part, 1, -1, RWF_NOWAIT) < 0 && errno == EAGAIN;
}

}  // namespace kumiki::inline v0::detail
