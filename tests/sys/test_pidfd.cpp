#include <signal.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <kumiki/sys/pidfd.hpp>

#include "support/catch.hpp"

using namespace kumiki;

namespace {

/// A child that does `what` and exits with 0.
template <class What>
pid_t child_that(What&& what) {
    const pid_t pid = ::fork();
    if (pid == 0) {
        what();
        ::_exit(0);
    }
    return pid;
}

}  // namespace

TEST_CASE("an exit status is what the child passed, and a shell's status of it") {
    const pid_t pid = child_that([] { ::_exit(7); });
    const unique_fd pidfd = sys::open_pidfd(pid);
    const auto status = sys::wait_blocking(pidfd.get());
    CHECK(status.code == 7);
    CHECK(status.signal == 0);
    CHECK_FALSE(status.core);
    CHECK(status.shell_status() == 7);
}

TEST_CASE("a signal that ended it is in the status, and 128 more in the shell's") {
    const unique_fd pidfd = sys::open_pidfd(child_that([] { ::pause(); }));
    CHECK_FALSE(sys::try_wait(pidfd.get()));
    CHECK(sys::send_signal(pidfd.get(), SIGKILL));
    const auto status = sys::wait_blocking(pidfd.get());
    CHECK(status.signal == SIGKILL);
    CHECK(status.shell_status() == 137);
}

TEST_CASE("the processor time of the child is its own") {
    const unique_fd pidfd = sys::open_pidfd(child_that([] {
        for (timespec used{}; used.tv_nsec < 30'000'000;)
            ::clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used);
    }));
    const auto status = sys::wait_blocking(pidfd.get());
    CHECK(status.user_time + status.system_time >= std::chrono::milliseconds(10));
}

TEST_CASE("a signal to a process that has ended is no error, before and after it is reaped") {
    const unique_fd pidfd = sys::open_pidfd(child_that([] {}));
    siginfo_t info{};
    REQUIRE(::waitid(static_cast<idtype_t>(3), static_cast<id_t>(pidfd.get()), &info,
                     WEXITED | WNOWAIT) == 0);
    sys::send_signal(pidfd.get(), SIGTERM);  // a zombie takes it or is gone: neither is an error
    sys::wait_blocking(pidfd.get());
    CHECK_FALSE(sys::send_signal(pidfd.get(), SIGTERM));
}

TEST_CASE("a status that was collected already is an error that says why it may be") {
    const unique_fd pidfd = sys::open_pidfd(child_that([] {}));
    sys::wait_blocking(pidfd.get());
    try {
        sys::try_wait(pidfd.get());
        FAIL("nothing was thrown");
    } catch (const error& failure) {
        CHECK(failure.errno_value() == ECHILD);
        CHECK(failure.remedy().find("SIGCHLD") != std::string::npos);
    }
}

TEST_CASE("there is no pidfd of a process that is not there, and no signal by a bad one") {
    const pid_t pid = child_that([] {});
    REQUIRE(::waitpid(pid, nullptr, 0) == pid);
    try {
        sys::open_pidfd(pid);
        FAIL("nothing was thrown");
    } catch (const error& failure) {
        CHECK(failure.errno_value() == ESRCH);
        CHECK(failure.object() == std::to_string(pid));
    }
    CHECK_THROWS_AS(sys::open_pidfd(-1), error);
    CHECK_THROWS_AS(sys::send_signal(-1, SIGTERM), error);
    const unique_fd own = sys::open_pidfd(::getpid());
    CHECK_THROWS_AS(sys::send_signal(own.get(), 4711), error);
}
