#include <pthread.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstddef>
#include <future>
#include <memory>
#include <stdexcept>
#include <thread>

#include <kumiki/sys/own_thread.hpp>

#include "support/catch.hpp"

using namespace kumiki;

TEST_CASE("a call on its own thread gives back its value or its exception") {
    const auto here = std::this_thread::get_id();
    CHECK(sys::on_own_thread([] { return std::this_thread::get_id(); }) != here);
    CHECK(*sys::on_own_thread([] { return std::make_unique<int>(7); }) == 7);
    bool called = false;
    sys::on_own_thread([&] { called = true; });
    CHECK(called);
    CHECK_THROWS_AS(sys::on_own_thread([] { throw std::out_of_range("x"); }), std::out_of_range);
    CHECK_THROWS_AS(sys::on_own_thread([]() -> int { throw std::out_of_range("x"); }),
                    std::out_of_range);
}

TEST_CASE("a call that was begun goes on beside its maker, and is waited for") {
    std::promise<int> given;
    {
        sys::own_thread call([&] { return given.get_future().get() + 1; });
        given.set_value(6);  // on_own_thread() would not come here
        CHECK(call.get() == 7);
    }
    std::atomic<bool> ended{false};
    {
        const sys::own_thread call([&] {
            std::this_thread::sleep_for(std::chrono::milliseconds(20));
            ended = true;
        });
    }
    CHECK(ended);
    sys::own_thread failing([] { throw std::out_of_range("x"); });
    CHECK_THROWS_AS(failing.get(), std::out_of_range);
}

TEST_CASE("the thread takes no signals, and the caller's mask is as before") {
    sigset_t before;
    sigset_t after;
    ::pthread_sigmask(SIG_SETMASK, nullptr, &before);
    const bool blocked = sys::on_own_thread([] {
        sigset_t inside;
        ::pthread_sigmask(SIG_SETMASK, nullptr, &inside);
        return ::sigismember(&inside, SIGINT) == 1 && ::sigismember(&inside, SIGTERM) == 1;
    });
    CHECK(blocked);
    ::pthread_sigmask(SIG_SETMASK, nullptr, &after);
    for (int signal = 1; signal < 32; ++signal)
        CHECK(::sigismember(&before, signal) == ::sigismember(&after, signal));
}

TEST_CASE("where no thread can be started, that is the error") {
    // In a child whose threads want a stack of 64 TiB.
    const pid_t child = ::fork();
    REQUIRE(child >= 0);
    if (child == 0) {
        int status = 1;
        pthread_attr_t large;
        ::pthread_attr_init(&large);
        if (::pthread_attr_setstacksize(&large, std::size_t{1} << 46) == 0 &&
            ::pthread_setattr_default_np(&large) == 0) {
            try {
                sys::on_own_thread([] {});
            } catch (const error& failure) {
                status = failure.errno_value() == EAGAIN && failure.operation() == "start a thread"
                             ? 0
                             : 2;
            }
        }
        ::_exit(status);
    }
    int status = 0;
    REQUIRE(::waitpid(child, &status, 0) == child);
    CHECK(WEXITSTATUS(status) == 0);
}
