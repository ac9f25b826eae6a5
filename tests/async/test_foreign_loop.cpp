// A scheduler that is driven by an event loop which is not its own.

#include <poll.h>

#include <atomic>
#include <thread>
#include <vector>

#include <kumiki/async/async_event.hpp>
#include <kumiki/async/offload.hpp>
#include <kumiki/async/scope.hpp>
#include <kumiki/async/timeout.hpp>

#include "async/both_backends.hpp"

using namespace kumiki;
using namespace kumiki_test;
using namespace std::chrono_literals;

namespace {

/// How many of `fds` are readable within `limit`.
int wait_for(std::vector<pollfd>& fds, std::chrono::milliseconds limit) {
    return ::poll(fds.data(), fds.size(), static_cast<int>(limit.count()));
}
bool is_readable(int fd, std::chrono::milliseconds limit = 0ms) {
    std::vector<pollfd> fds{{.fd = fd, .events = POLLIN, .revents = 0}};
    return wait_for(fds, limit) == 1;
}
/// Drives `io` until the tasks are done; false when nothing happens for long.
bool drive(scheduler& io, scope& tasks) {
    const int fd = io.pollable_fd();
    io.run_ready();
    while (tasks.running() > 0) {
        if (!is_readable(fd, 10s)) return false;
        io.run_ready();
    }
    return true;
}

task<void> echo(scheduler& io, int from, int to, int count) {
    for (int i = 0; i < count; ++i) {
        std::byte byte[1];
        const auto got = co_await io.read(from, byte);
        if (got != 1) throw std::logic_error("short read");
        co_await io.write(to, byte);
    }
}
task<void> kick(scheduler& io, int fd) {
    const std::byte byte[1] = {};
    co_await io.write(fd, byte);
}
task<void> sleep_some(scheduler& io, int times) {
    for (int i = 0; i < times; ++i) co_await io.sleep_for(100us);
}
task<void> call_away(scheduler& io, int times) {
    for (int i = 0; i < times; ++i) {
        const int seen = co_await offload(io, [] { return 3; });
        if (seen != 3) throw std::logic_error("offload");
    }
}
task<void> limit_a_sleep(scheduler& io) {
    const bool done = co_await with_timeout(io, 1ms, io.sleep_for(1h));
    if (done) throw std::logic_error("slept for an hour");
}

}  // namespace

TEST_CASE("a foreign loop drives everything that a scheduler does", "[foreign_loop]") {
    KUMIKI_ON_BOTH_BACKENDS(io);
    const auto there = make_pipe();
    const auto back = make_pipe();
    scope tasks(io);
    tasks.spawn(echo(io, there.first.get(), back.second.get(), 500));
    tasks.spawn(echo(io, back.first.get(), there.second.get(), 499));
    tasks.spawn(kick(io, there.second.get()));
    tasks.spawn(sleep_some(io, 20));
    tasks.spawn(call_away(io, 20));
    tasks.spawn(limit_a_sleep(io));
    CHECK(drive(io, tasks));
    io.run(tasks.join());  // throws what a task has thrown
    CHECK(io.counters().in_flight == 0);
}

TEST_CASE("the descriptor is quiet when nothing happens, and tells what does", "[foreign_loop]") {
    KUMIKI_ON_BOTH_BACKENDS(io);
    const int fd = io.pollable_fd();
    CHECK((::fcntl(fd, F_GETFD) & FD_CLOEXEC) != 0);
    async_event event(io);
    scope tasks(io);
    const auto pipe = make_pipe();
    const auto wait_and_set = [](scheduler& on, int from, async_event& of) -> task<void> {
        std::byte byte[1];
        co_await on.read(from, byte);
        of.set();
    };
    tasks.spawn(wait_and_set(io, pipe.first.get(), event));
    tasks.spawn(never(io));
    io.run_ready();
    int spurious = 0;
    while (is_readable(fd, 200ms)) {
        io.run_ready();
        ++spurious;
    }
    CHECK(spurious <= 2);  // of what had just been submitted
    const auto resumed = io.counters().resumed;
    CHECK_FALSE(io.run_ready());
    CHECK(io.counters().resumed == resumed);
    CHECK_FALSE(is_readable(fd));

    SECTION("data") {
        put(pipe.second.get(), "x");
        CHECK(is_readable(fd, 10s));
        while (!event.is_set() && is_readable(fd, 10s)) io.run_ready();
        CHECK(event.is_set());
    }
    SECTION("a function from another thread") {
        bool called = false;
        std::thread([&] { io.post([&called] { called = true; }); }).join();
        CHECK(is_readable(fd, 10s));
        while (!called && is_readable(fd, 10s)) io.run_ready();
        CHECK(called);
    }
    SECTION("a timer that comes before the first") {
        tasks.spawn(sleep_some(io, 1));
        CHECK(io.run_ready());
        while (tasks.running() == 3 && is_readable(fd, 10s)) io.run_ready();
        CHECK(tasks.running() == 2);
    }
    tasks.cancel();
    CHECK(drive(io, tasks));
}

TEST_CASE("run_once waits for as long as it is told, and for what happens", "[foreign_loop]") {
    KUMIKI_ON_BOTH_BACKENDS(io);
    scope tasks(io);
    const auto before = std::chrono::steady_clock::now();
    io.run_once(5ms);
    CHECK(std::chrono::steady_clock::now() - before >= 5ms);
    tasks.spawn(sleep_some(io, 3));
    int turns = 0;
    for (; tasks.running() > 0; ++turns) io.run_once();
    CHECK(turns <= 8);
    CHECK(turns >= 2);
    io.run_once(0ms);

    // A function from another thread is something that happens, though no task goes on.
    bool called = false;
    std::thread other([&] { io.post([&called] { called = true; }); });
    io.run_once();
    other.join();
    CHECK(called);
}

TEST_CASE("one foreign loop drives two schedulers", "[foreign_loop]") {
    KUMIKI_ON_BOTH_BACKENDS(io);
    scheduler second({.backend = io_backend});
    const auto there = make_pipe();
    const auto back = make_pipe();
    scope tasks(io);
    scope others(second);
    tasks.spawn(echo(io, there.first.get(), back.second.get(), 200));
    others.spawn(echo(second, back.first.get(), there.second.get(), 199));
    others.spawn(kick(second, there.second.get()));
    std::vector<pollfd> fds{{.fd = io.pollable_fd(), .events = POLLIN, .revents = 0},
                            {.fd = second.pollable_fd(), .events = POLLIN, .revents = 0}};
    while (tasks.running() + others.running() > 0) {
        REQUIRE(wait_for(fds, 10s) > 0);
        if (fds[0].revents != 0) io.run_ready();
        if (fds[1].revents != 0) second.run_ready();
    }
    io.run(tasks.join());
    second.run(others.join());
}

TEST_CASE("many ready tasks do not keep the foreign loop waiting for ever", "[foreign_loop]") {
    KUMIKI_ON_BOTH_BACKENDS(io);
    const auto spin = [](scheduler& on, const bool& done) -> task<void> {
        while (!done) co_await on.yield();
    };
    bool done = false;
    scope tasks(io);
    const int fd = io.pollable_fd();
    tasks.spawn(spin(io, done));
    CHECK(io.run_ready());  // comes back though the task is ready for ever
    CHECK(is_readable(fd, 10s));  // and says that there is more to do
    done = true;
    CHECK(drive(io, tasks));
}

TEST_CASE("a scheduler that runs is not driven from within or from another thread",
          "[foreign_loop]") {
    scheduler io;
    const auto nested = [](scheduler& on) -> task<void> {
        on.run_ready();
        co_return;
    };
    try {
        io.run(nested(io));
        FAIL("it was running");
    } catch (const error& refused) {
        CHECK(refused.errno_value() == EDEADLK);
    }
    std::thread([&io] { CHECK_THROWS_AS(io.run_once(), error); }).join();
}
