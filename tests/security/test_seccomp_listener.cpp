#include <chrono>
#include <string>
#include <vector>

#include <kumiki/async/scope.hpp>
#include <kumiki/async/timeout.hpp>
#include <kumiki/async/when.hpp>
#include <kumiki/security/seccomp_listener.hpp>
#include <kumiki/sys/pidfd.hpp>

#include "async/both_backends.hpp"
#include "security/filtered.hpp"
#include "support/catch.hpp"

using namespace kumiki;
using namespace std::chrono_literals;
using kumiki_test::asking_getppid;
using kumiki_test::filtered_child;

namespace {

/// Answers getppid(n) with n + 1, up to the end; yields how often.
task<int> serve(seccomp_listener& calls) {
    int answered = 0;
    for (;;) {
        auto call = co_await calls.next();
        if (!call) co_return answered;
        call->value(static_cast<std::int64_t>(call->argument(0)) + 1);
        ++answered;
    }
}

/// Calls `count` times, and ends with 42 when each answer was right.
void call_often(int count) {
    for (int i = 0; i < count; ++i)
        if (::syscall(SYS_getppid, i) != i + 1) ::_exit(1);
    ::_exit(42);
}

}  // namespace

TEST_CASE("calls come one after the other, up to the end of the last filtered process") {
    KUMIKI_ON_BOTH_BACKENDS(io);
    filtered_child child(asking_getppid(), [] { call_often(500); });
    const auto process = sys::open_pidfd(child.pid());
    seccomp_listener calls(io, std::move(child.listener), sys::open_pidfd(child.pid()));
    CHECK(io.run(serve(calls)) == 500);
    CHECK(io.run(serve(calls)) == 0);  // and stays at its end
    CHECK(child.wait() == 42);
}

TEST_CASE("the end is told without naming a process once all are reaped") {
    KUMIKI_ON_BOTH_BACKENDS(io);
    filtered_child child(asking_getppid(), [] { ::_exit(0); });
    seccomp_listener calls(io, std::move(child.listener));
    CHECK(child.wait() == 0);
    CHECK(io.run(serve(calls)) == 0);
}

TEST_CASE("several tasks share the calls of several processes") {
    KUMIKI_ON_BOTH_BACKENDS(io);
    filtered_child child(asking_getppid(), [] {
        std::vector<pid_t> others;
        for (int i = 0; i < 4; ++i) {
            others.push_back(::fork());
            if (others.back() == 0) call_often(100);
        }
        for (const pid_t each : others) {
            int status = 0;
            ::waitpid(each, &status, 0);
            if (!WIFEXITED(status) || WEXITSTATUS(status) != 42) ::_exit(1);
        }
        ::_exit(42);
    });
    seccomp_listener calls(io, std::move(child.listener), sys::open_pidfd(child.pid()));
    const auto counts = io.run([](seccomp_listener& of) -> task<std::vector<int>> {
        std::vector<task<int>> tasks;
        for (int i = 0; i < 3; ++i) tasks.push_back(serve(of));
        auto all = co_await when_all(std::move(tasks));
        co_return all;
    }(calls));
    CHECK(counts[0] + counts[1] + counts[2] == 400);
    CHECK(child.wait() == 42);
}

TEST_CASE("a stop ends the wait and loses no call") {
    KUMIKI_ON_BOTH_BACKENDS(io);
    int ends[2];
    REQUIRE(::pipe(ends) == 0);
    const unique_fd in(ends[0]);
    unique_fd out(ends[1]);
    filtered_child child(asking_getppid(), [&] {
        out.reset();
        char byte = 0;
        (void)!::read(in.get(), &byte, 1);
        call_often(1);
    });
    seccomp_listener calls(io, std::move(child.listener), sys::open_pidfd(child.pid()));
    CHECK_FALSE(io.run(with_timeout(io, 10ms, calls.next())));
    std::stop_source stop;
    stop.request_stop();
    CHECK_THROWS_AS(io.run(serve(calls), stop.get_token()), cancelled);
    out.reset();
    CHECK(io.run(serve(calls)) == 1);
    CHECK(child.wait() == 42);
}

TEST_CASE("with the end of the named process the others' calls fail") {
    KUMIKI_ON_BOTH_BACKENDS(io);
    int ends[2];
    REQUIRE(::pipe(ends) == 0);
    const unique_fd in(ends[0]);
    unique_fd out(ends[1]);
    filtered_child child(asking_getppid(), [&] {
        if (::fork() == 0) {  // the test's subreaper is init: this one has 30 s by its alarm
            ::alarm(30);
            ::usleep(100'000);
            const char result = ::syscall(SYS_getppid, 1) == -1 ? static_cast<char>(errno) : 0;
            (void)!::write(out.get(), &result, 1);
            ::_exit(0);
        }
        ::_exit(42);
    });
    out.reset();
    seccomp_listener calls(io, std::move(child.listener), sys::open_pidfd(child.pid()));
    CHECK(io.run(serve(calls)) == 0);
    CHECK(child.wait() == 42);
    char result = 0;
    CHECK(::read(in.get(), &result, 1) == 1);
    CHECK(result == ENOSYS);
}

TEST_CASE("calls fail at once when the listener is destroyed") {
    KUMIKI_ON_BOTH_BACKENDS(io);
    filtered_child child(asking_getppid(), [] {
        ::_exit(::syscall(SYS_getppid, 0) == -1 && errno == ENOSYS ? 42 : 1);
    });
    {
        seccomp_listener calls(io, std::move(child.listener));
        pollfd none{};
        ::poll(&none, 0, 20);  // the call waits by then, most likely
    }
    CHECK(child.wait() == 42);
}

TEST_CASE("a call that was received before is the first") {
    KUMIKI_ON_BOTH_BACKENDS(io);
    filtered_child child(asking_getppid(), [] { call_often(3); });
    auto shared = std::make_shared<const unique_fd>(::fcntl(child.listener.get(), F_DUPFD, 3));
    auto first = seccomp_call::receive(shared);
    REQUIRE(first);
    shared.reset();
    seccomp_listener calls(io, std::move(child.listener), sys::open_pidfd(child.pid()),
                           std::move(first));
    CHECK(io.run(serve(calls)) == 3);
    CHECK(child.wait() == 42);
}
