// Opening files without stopping the scheduler: on a slow disk, over the network, by automount.
//
// IORING_OP_OPENAT where the ring has it, a thread of the pool elsewhere. Both open in the root
// directory and the mount namespace of the thread that made the scheduler, with its credentials: a
// thread that has changed one of these since must open files itself. Files of cgroups, of /proc and
// on a warm disk are opened sooner by a direct call (sys/file.hpp). Source: openat(2),
// io_uring_enter(2). Left out: openat2(2).
#pragma once

#include <fcntl.h>
#include <sys/stat.h>

#include <cerrno>
#include <cstddef>
#include <source_location>
#include <string>
#include <utility>

#include <kumiki/async/offload.hpp>
#include <kumiki/async/operations.hpp>
#include <kumiki/async/scheduler.hpp>
#include <kumiki/async/task.hpp>
#include <kumiki/core/error.hpp>
#include <kumiki/core/unique_fd.hpp>
#include <kumiki/sys/check.hpp>

namespace kumiki::inline v0 {

/// Opens `path`, close-on-exec, relative to the directory `at` (AT_FDCWD: the current one); a file
/// that O_CREAT makes has `mode` without the umask.
///
/// A FIFO should be opened with O_NONBLOCK, and polled: a ring opens it without waiting for the
/// other end, a thread of the pool waits for that, and cannot be stopped.
///
/// Errors: kumiki::error with openat(2)'s errno, which names the path; `cancelled`: nothing is left
/// open then. A call that was begun on a thread of the pool is waited for.
template <class = void>
inline task<unique_fd> open_at(scheduler& io, int at, std::string path, int flags, mode_t mode = 0,
                               std::source_location where = std::source_location::current()) {
    const auto refuse = [&](int code) {
        return error(code, {.operation = "open", .object = path}, where);
    };
    detail::backend& through = io.loop().through();
    // A worker of the kernel's that waits for a FIFO's other end is interrupted also when nobody stops it.
    while (through.supports(detail::request_kind::open)) {
        detail::descriptor_operation opened(io.loop(), through,
                                            {.kind = detail::request_kind::open,
                                             .fd = at,
                                             .flags = static_cast<unsigned>(flags | O_CLOEXEC),
                                             .data = path.data(),
                                             .length = mode},
                                            where);
        int failed = 0;
        try {
            unique_fd fd = co_await opened;
            co_return fd;
        } catch (const error& failure) {
            failed = failure.errno_value();
        }
        if (failed != EINTR) throw refuse(failed);
    }
    struct answer {
        unique_fd fd;
        int failed;
    };
    const auto call = [&path, at, flags, mode] {
        const int fd =
            sys::retry([&] { return ::openat(at, path.c_str(), flags | O_CLOEXEC, mode); });
        return answer{unique_fd(fd), fd < 0 ? errno : 0};
    };
    answer opened = co_await offload(io, call, where);
    if (opened.failed != 0) throw refuse(opened.failed);
    co_return std::move(opened.fd);
}

}  // namespace kumiki::inline v0
