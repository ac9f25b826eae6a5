// scheduler: runs coroutines on one thread and waits for the kernel on their behalf.
//
//   task<int> serve(scheduler& io) { co_await io.sleep_for(1s); co_return 0; }
//   int main() { return kumiki::run(serve); }
//
// io_uring where the host allows it, epoll where it is denied: the same interface, chosen at run
// time, visible in backend(). See the warning in task.hpp about lambdas that capture.
// Kernel: 5.4 (pidfd); io_uring is used from 5.11 on. Left out: work stealing (one scheduler per
// thread), file opening and other calls that depend on namespaces (make them directly).
#pragma once

#include <sys/socket.h>

#include <cerrno>
#include <chrono>
#include <concepts>
#include <cstddef>
#include <functional>
#include <optional>
#include <source_location>
#include <span>
#include <stop_token>
#include <string>
#include <string_view>
#include <utility>

#include <kumiki/async/dump.hpp>
#include <kumiki/async/event_loop.hpp>
#include <kumiki/async/operations.hpp>
#include <kumiki/async/process.hpp>
#include <kumiki/async/task.hpp>
#include <kumiki/async/thread_pool.hpp>

namespace kumiki::inline v0 {

/// How a scheduler is made. All defaults suit a server.
struct scheduler_options {
    io_backend backend = io_backend::automatic;
    child_wait waits_for_children = child_wait::automatic;
    unsigned ring_entries = 256;         ///< submissions that are collected before a system call
    unsigned completion_entries = 1024;  ///< more are kept by the kernel, at some cost
    unsigned offload_threads = 4;        ///< at most so many blocking calls at the same time
};

/// An event loop for tasks. Belongs to the thread that made it; only post() is for other threads.
///
/// Errors of the operations: kumiki::error with the kernel's errno; `cancelled` when the awaiting
/// task was stopped, once the kernel has let go of the memory. An operation that was done before
/// the stop yields its result.
/// Lifetime: destroying a scheduler cancels what is in flight and waits for it; the tasks are not
/// resumed, and their frames may be destroyed before or after.
class scheduler {
  public:
    /// Errors: kumiki::error when the backend that is asked for cannot be had. With `automatic` a
    /// denied io_uring is told to the observer and in fallback_reason().
    explicit scheduler(const scheduler_options& options = {})
        : loop_(options.backend, {options.ring_entries, options.completion_entries}),
          ring_waits_(detail::ring_waits_for_children(through(), options.waits_for_children)),
          pool_(options.offload_threads) {}
    scheduler(const scheduler&) = delete;
    scheduler& operator=(const scheduler&) = delete;

    /// io_uring or epoll.
    io_backend backend() const noexcept { return loop_.kind(); }
    /// Why io_uring is not used though it was not refused; empty otherwise.
    std::string_view fallback_reason() const noexcept { return loop_.fallback_reason(); }

    /// Runs `work` to its end and yields its result. The token stops it.
    /// Errors: what `work` throws; kumiki::error when called on another thread or from a task.
    template <class T>
    T run(task<T> work, const std::stop_token& stop = {}) {
        require_idle();
        detail::root root;
        auto& promise = detail::task_access::promise(work);
        promise.adopt(loop_.ready, stop, root);
        loop_.ready.push_back(promise);
        loop_.run_until(root.done);
        return detail::task_access::take(work);
    }

    /// As above for any other awaitable: `io.run(io.wait_exit(pidfd))`.
    template <class Awaitable>
    auto run(Awaitable work, const std::stop_token& stop = {}) {
        return run(detail::into_task(std::move(work)), stop);
    }

    /// Calls `function` on the scheduler's thread, soon; for any thread. It must not throw, and is
    /// not called if the scheduler ends first.
    template <std::invocable Function>
    void post(Function function) {
        loop_.remote.push(*new detail::posted_function<Function>(std::move(function)));
    }

    using where = std::source_location;

    /// Waits until one of `events` (POLLIN, POLLPRI ...) or POLLERR, POLLHUP; yields what happened.
    [[nodiscard]] detail::poll_operation poll(int fd, unsigned events,
                                              where from = where::current()) {
        return {loop_, through(), {.kind = kind::poll, .fd = fd, .flags = events}, from};
    }
    /// Reads at the file's position; yields the number of bytes, 0 at the end.
    [[nodiscard]] detail::transfer_operation read(int fd, std::span<std::byte> into,
                                                  where from = where::current()) {
        return transfer(kind::read, fd, into.data(), into.size(), 0, from);
    }
    /// Writes at the file's position; may write less than all. A broken pipe also raises SIGPIPE.
    [[nodiscard]] detail::transfer_operation write(int fd, std::span<const std::byte> data,
                                                   where from = where::current()) {
        return transfer(kind::write, fd, data.data(), data.size(), 0, from);
    }
    /// recv(2) with `flags` (MSG_PEEK, MSG_TRUNC ...).
    [[nodiscard]] detail::transfer_operation recv(int fd, std::span<std::byte> into, int flags = 0,
                                                  where from = where::current()) {
        return transfer(kind::receive, fd, into.data(), into.size(), flags, from);
    }
    /// send(2) with `flags`; never raises SIGPIPE.
    [[nodiscard]] detail::transfer_operation send(int fd, std::span<const std::byte> data,
                                                  int flags = 0, where from = where::current()) {
        return transfer(kind::send, fd, data.data(), data.size(), flags, from);
    }
    /// recvmsg(2): addresses, control messages (SCM_RIGHTS).
    [[nodiscard]] detail::transfer_operation recv_message(int fd, msghdr& into, int flags = 0,
                                                          where from = where::current()) {
        return transfer(kind::receive_message, fd, &into, 0, flags, from);
    }
    /// sendmsg(2); never raises SIGPIPE.
    [[nodiscard]] detail::transfer_operation send_message(int fd, const msghdr& message,
                                                          int flags = 0,
                                                          where from = where::current()) {
        return transfer(kind::send_message, fd, &message, 0, flags, from);
    }
    /// Yields the next connection of a listening socket, close-on-exec.
    [[nodiscard]] detail::descriptor_operation accept(int fd, where from = where::current()) {
        return {loop_, through(), {.kind = kind::accept, .fd = fd, .flags = SOCK_CLOEXEC}, from};
    }
    /// Connects a socket. `address` must live until then.
    [[nodiscard]] detail::connect_operation connect(int fd, const sockaddr* address,
                                                    socklen_t length,
                                                    where from = where::current()) {
        return {loop_,
                through(),
                {.kind = kind::connect,
                 .fd = fd,
                 .data = const_cast<sockaddr*>(address),
                 .length = length},
                from};
    }

    /// Closes `fd`, also when the task is stopped already. Nothing may wait on it.
    /// Errors: what close(2) says of data that could not be written (EIO, ENOSPC, EDQUOT).
    [[nodiscard]] detail::close_operation close(unique_fd fd, where from = where::current()) {
        return {loop_, through(), std::move(fd), from};
    }

    /// Waits for `span`; not at all when it is negative.
    [[nodiscard]] detail::sleep_operation sleep_for(std::chrono::nanoseconds span,
                                                    where from = where::current()) {
        return {loop_, detail::deadline_after(detail::clock::now(), span), from};
    }
    /// Waits until `time`.
    [[nodiscard]] detail::sleep_operation sleep_until(std::chrono::steady_clock::time_point time,
                                                      where from = where::current()) {
        return {loop_, time, from};
    }
    /// Lets the other tasks and the kernel have their turn.
    [[nodiscard]] detail::yield_awaiter yield() const noexcept { return {}; }

    /// Waits for the end of a child of this process and collects it. A stop leaves it running.
    /// Errors: ECHILD once it has ended, when it is no child of this process or somebody else has
    /// collected it; EINVAL or EBADF for a descriptor that is no pidfd.
    [[nodiscard]] detail::exit_operation wait_exit(int pidfd, where from = where::current()) {
        return {loop_, ring_waits_, pidfd, from};
    }

    /// For foreign event loops: resumes what is ready, and looks at the kernel without waiting.
    /// True when something was done. Errors: as run().
    bool run_ready() {
        require_idle();
        return loop_.run_ready();
    }
    /// As run_ready(); when nothing is ready it first waits for `limit` at most, without one for
    /// as long as it takes.
    void run_once(std::optional<std::chrono::nanoseconds> limit = std::nullopt) {
        require_idle();
        loop_.run_once(limit);
    }
    /// A descriptor that is readable when run_ready() has something to do, timers included. Call
    /// run_ready() after anything else that was done with the scheduler. Lives as long as this.
    int pollable_fd() {
        require_idle();
        return loop_.pollable_fd();
    }

    /// What was done so far.
    scheduler_counters counters() const noexcept { return detail::count(loop_); }
    /// What each task waits for, a line each. For people.
    std::string dump() const { return detail::dump(loop_); }

    /// The engine, for the library's own awaitables.
    detail::event_loop& loop() noexcept { return loop_; }
    detail::thread_pool& pool() noexcept { return pool_; }

  private:
    using kind = detail::request_kind;

    detail::backend& through() noexcept { return loop_.through(); }
    detail::transfer_operation transfer(kind what, int fd, const void* data, std::size_t length,
                                        int flags, where from) {
        return {loop_,
                through(),
                {.kind = what,
                 .fd = fd,
                 .flags = static_cast<unsigned>(flags),
                 .data = const_cast<void*>(data),
                 .length = length},
                from};
    }
    void require_idle() const {
        const bool foreign = !loop_.is_on_thread();
        if (!foreign && !loop_.is_running()) return;
        throw error(EDEADLK, {.operation = "run a task",
                              .remedy = foreign ? "A scheduler belongs to the thread that made it."
                                                : "The scheduler is running: await the task."});
    }

    detail::event_loop loop_;
    bool ring_waits_;
    detail::thread_pool pool_;
};

/// For main: makes a scheduler, runs `work(io)` on it and yields its result.
template <std::invocable<scheduler&> Work>
auto run(Work work, const scheduler_options& options = {}) {
    scheduler io(options);
    return io.run(std::invoke(work, io));
}

/// Writes all of `data`. Into a pipe or socket whose other end has gone it raises SIGPIPE, as write()
/// does; into a socket, a loop over send() never does. Lifetime: `data` must live until the task's end.
template <class = void>
inline task<void> write_all(scheduler& io, int fd, std::span<const std::byte> data) {
    while (!data.empty()) {
        const std::size_t written = co_await io.write(fd, data);
        data = data.subspan(written);
    }
}

}  // namespace kumiki::inline v0
