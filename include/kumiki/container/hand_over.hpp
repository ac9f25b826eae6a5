// How a container that is ready gets its command, and what came of it.
#pragma once

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdint>
#include <string>
#include <utility>

#include <kumiki/async/scheduler.hpp>
#include <kumiki/async/task.hpp>
#include <kumiki/container/process_spec.hpp>
#include <kumiki/container/start_error.hpp>
#include <kumiki/container/stdio.hpp>
#include <kumiki/container/waiter.hpp>
#include <kumiki/core/unique_fd.hpp>

namespace kumiki::inline v0::detail {

/// What becomes 0, 1 and 2 of a command, and the supervisor's ends of the pipes among them.
struct handed_stdio {
    std::array<int, 3> files{-1, -1, -1};  ///< -1: the container's own /dev/null, or its terminal
    std::array<unique_fd, 3> lent{};  ///< ends of pipes; not needed once they were sent
    std::array<unique_fd, 3> pipes{};  ///< the supervisor's ends

    /// Errors: EBADF for a descriptor that is not open.
    static handed_stdio of(const process_spec& process) {
        handed_stdio made;
        if (process.terminal) return made;
        for (std::size_t target = 0; target < 3; ++target) {
            const stdio& each = process.stdio[target];
            if (each.from() == stdio::source::merge) made.files[target] = made.files[1];
            if (each.from() == stdio::source::pipe) made.make_pipe(target);
            if (each.from() != stdio::source::descriptor) continue;
            sys::check(::fcntl(each.descriptor(), F_GETFD), [&] {
                return error_context{.operation = "hand over",
                                     .object = "the container's standard descriptor " +
                                               std::to_string(each.descriptor()),
                                     .step = name_of(phase::session),
                                     .remedy = "It must be open."};
            });
            made.files[target] = each.descriptor();
        }
        return made;
    }

  private:
    void make_pipe(std::size_t target) {
        int ends[2];
        sys::check(::pipe2(ends, O_CLOEXEC), "make", "a pipe");
        unique_fd from(ends[0]);
        unique_fd to(ends[1]);
        if (target == 0) std::swap(from, to);
        files[target] = to.get();
        lent[target] = std::move(to);
        pipes[target] = std::move(from);
    }
};

/// What became of a command that was handed over.
enum class handing : std::uint8_t {
    executed,
    lost,  ///< what waited had ended before it had the command
    refused,  ///< what waited could not take it: `code` says why
    late,  ///< nothing was heard of it in time
    not_executed,  ///< no candidate could be executed
};
struct handing_result {
    handing what = handing::lost;
    int code = 0;
};

/// Reads what the waiter at the other end of `control` says until it has executed its command, or
/// will not.
template <class = void>
inline task<handing_result> await_execve(scheduler& io, int control) {
    handing_result seen;
    bool was_taken = false;
    bool failed = false;
    for (;;) {
        unsigned char byte = 0;
        const auto size = ::recv(control, &byte, 1, MSG_DONTWAIT);
        if (size < 0 && errno == EINTR) continue;
        if (size < 0 && errno == EAGAIN) {
            co_await io.poll(control, POLLIN);
            continue;
        }
        if (size <= 0) {
            if (was_taken) seen.what = handing::executed;
            co_return seen;
        }
        if (failed) {
            seen.what = was_taken ? handing::not_executed : handing::refused;
            seen.code = byte;
            co_return seen;
        }
        was_taken |= byte == 'r';
        failed = byte == 'x';
    }
}

/// The error of a command that a container was handed and that was not executed.
inline start_error error_of_handing(const handing_result& seen, const std::string& command,
                                    const std::string& container) {
    if (seen.what == handing::not_executed)
        return start_error(seen.code,
                           {.operation = "execute",
                            .object = command,
                            .step = name_of(phase::exec),
                            .container = container,
                            .remedy = remedy_of(phase::exec, seen.code, command)},
                           seen.code == ENOENT || seen.code == ENOTDIR ? 127 : 126);
    const auto remedy = [&]() -> std::string {
        if (seen.what == handing::lost) return "What waited there for it was ended from outside.";
        if (seen.what == handing::late)
            return "It took longer than the spec's start_limit: what waits there may be frozen or "
                   "stopped.";
        return "What waits there needs four descriptors beside its own (RLIMIT_NOFILE), and room "
               "for the command (RLIMIT_AS).";
    };
    return start_error(seen.code,
                       {.operation = "hand a command to",
                        .object = container,
                        .step = name_of(phase::exec),
                        .container = container,
                        .remedy = remedy()},
                       125);
}

}  // namespace kumiki::inline v0::detail
