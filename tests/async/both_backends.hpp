// What the tests of async/ share: every test that waits runs on both backends.
#pragma once

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstddef>
#include <filesystem>
#include <fstream>
#include <span>
#include <stop_token>
#include <string>
#include <string_view>
#include <utility>

#include <kumiki/async/scheduler.hpp>
#include <kumiki/core/unique_fd.hpp>
#include <kumiki/sys/check.hpp>

#include "support/catch.hpp"

namespace kumiki_test {

/// True when this host lets us have an io_uring.
inline bool has_io_uring() {
    try {
        kumiki::scheduler probe({.backend = kumiki::io_backend::io_uring});
        return true;
    } catch (const kumiki::error&) {
        return false;
    }
}

struct descriptor_pair {
    kumiki::unique_fd first;
    kumiki::unique_fd second;
};

/// A pipe: first is the end to read from.
inline descriptor_pair make_pipe(int flags = 0) {
    int fds[2];
    kumiki::sys::check(::pipe2(fds, O_CLOEXEC | flags), "pipe");
    return {kumiki::unique_fd(fds[0]), kumiki::unique_fd(fds[1])};
}

inline descriptor_pair make_socket_pair(int type = SOCK_STREAM) {
    int fds[2];
    kumiki::sys::check(::socketpair(AF_UNIX, type | SOCK_CLOEXEC, 0, fds), "socketpair");
    return {kumiki::unique_fd(fds[0]), kumiki::unique_fd(fds[1])};
}

inline std::span<const std::byte> bytes_of(std::string_view text) {
    return std::as_bytes(std::span(text));
}
inline std::span<std::byte> writable(std::string& text) {
    return std::as_writable_bytes(std::span(text));
}
inline void put(int fd, std::string_view text) {
    REQUIRE(::write(fd, text.data(), text.size()) == static_cast<ssize_t>(text.size()));
}

/// The kernel threads that io_uring has made for the calling thread. They outlive the ring for some
/// seconds: a test that wants to see none runs on a thread of its own.
inline std::ptrdiff_t ring_workers() {
    const std::string wanted = "iou-wrk-" + std::to_string(::gettid());
    const std::filesystem::directory_iterator threads("/proc/self/task");
    return std::count_if(begin(threads), end(threads), [&](const auto& thread) {
        std::string name;
        std::getline(std::ifstream(thread.path() / "comm"), name);
        return name == wanted;
    });
}

/// Waits until it is stopped.
inline kumiki::task<void> never(kumiki::scheduler& io) {
    co_await io.sleep_for(std::chrono::hours(24));
}

/// Counts objects, to see that each frame is destroyed exactly once.
struct counted {
    static inline int alive = 0;
    counted() { ++alive; }
    counted(const counted&) = delete;
    counted(counted&&) noexcept { ++alive; }
    ~counted() { --alive; }
};

/// A task that has been started and that nobody awaits, as a scheduler that ends leaves it.
class in_flight final : private kumiki::detail::completion {
  public:
    in_flight(kumiki::scheduler& io, kumiki::task<void> work, const std::stop_token& stop = {})
        : work_(std::move(work)), stop_(stop) {
        auto& promise = kumiki::detail::task_access::promise(work_);
        promise.adopt(io.loop().ready, stop_, *this);
        io.loop().ready.push_back(promise);
        io.run(pass(io));
    }
    bool is_done() const { return done_; }

  private:
    static kumiki::task<void> pass(kumiki::scheduler& io) {
        co_await io.sleep_for(std::chrono::milliseconds(2));  // what was started is submitted
    }
    void on_finished(kumiki::detail::promise_base&) noexcept override { done_ = true; }

    kumiki::task<void> work_;
    std::stop_token stop_;
    bool done_ = false;
};

/// Runs `misuse` in a child of its own; the message with which it was ended.
template <class Misuse>
std::string dies(Misuse misuse) {
    const auto pipe = make_pipe();
    const pid_t child = ::fork();
    REQUIRE(child >= 0);
    if (child == 0) {
        ::signal(SIGABRT, SIG_DFL);
        ::dup2(pipe.second.get(), STDERR_FILENO);
        misuse();
        ::_exit(0);
    }
    int status = 0;
    REQUIRE(::waitpid(child, &status, 0) == child);
    CHECK(WIFSIGNALED(status));
    std::string text(4096, '\0');
    ::fcntl(pipe.first.get(), F_SETFL, O_NONBLOCK);
    const auto got = ::read(pipe.first.get(), text.data(), text.size());
    text.resize(got > 0 ? static_cast<std::size_t>(got) : 0);
    return text;
}

}  // namespace kumiki_test

/// Declares `io`, a scheduler of each backend in turn; skips where io_uring is denied.
#define KUMIKI_ON_BOTH_BACKENDS(io)                                                                \
    const auto io##_backend = GENERATE(kumiki::io_backend::io_uring, kumiki::io_backend::epoll);   \
    if (io##_backend == kumiki::io_backend::io_uring && !kumiki_test::has_io_uring())              \
        KUMIKI_SKIP("io_uring is denied on this host");                                            \
    INFO("backend " << kumiki::to_string(io##_backend));                                           \
    kumiki::scheduler io({.backend = io##_backend})
