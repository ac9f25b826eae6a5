#include <kumiki/async/signals.hpp>
#include <kumiki/async/timeout.hpp>

#include "async/both_backends.hpp"

using namespace kumiki;
using namespace kumiki_test;
using namespace std::chrono_literals;

namespace {

task<signal_arrival> receive(scheduler& io, signal_stream& signals, int raise) {
    co_await io.yield();
    if (raise != 0) ::pthread_kill(::pthread_self(), raise);
    auto arrived = co_await signals.next();
    co_return *arrived;
}
bool is_blocked(int signal) {
    sigset_t now;
    ::pthread_sigmask(SIG_BLOCK, nullptr, &now);
    return ::sigismember(&now, signal) == 1;
}

}  // namespace

TEST_CASE("signals arrive as values", "[signals]") {
    KUMIKI_ON_BOTH_BACKENDS(io);
    signal_stream signals(io, {SIGUSR1, SIGWINCH});
    const auto first = io.run(receive(io, signals, SIGUSR1));
    CHECK(first.signal == SIGUSR1);
    CHECK(first.sender == ::getpid());
    CHECK(io.run(receive(io, signals, SIGWINCH)).signal == SIGWINCH);
}

TEST_CASE("a signal that comes while its stream is awaited arrives", "[signals]") {
    KUMIKI_ON_BOTH_BACKENDS(io);
    signal_stream signals(io, {SIGUSR2});
    io.post([] { ::pthread_kill(::pthread_self(), SIGUSR2); });
    CHECK(io.run(receive(io, signals, 0)).signal == SIGUSR2);
}

TEST_CASE("a stream that was stopped in next goes on", "[signals]") {
    KUMIKI_ON_BOTH_BACKENDS(io);
    signal_stream signals(io, {SIGUSR1});
    CHECK(!io.run(with_timeout(io, 1ms, signals.next())).has_value());
    CHECK(io.run(receive(io, signals, SIGUSR1)).signal == SIGUSR1);
}

TEST_CASE("the mask is as before when the stream is gone", "[signals]") {
    scheduler io;
    sigset_t one;
    ::sigemptyset(&one);
    ::sigaddset(&one, SIGUSR2);
    ::pthread_sigmask(SIG_BLOCK, &one, nullptr);
    {
        const signal_stream signals(io, {SIGUSR1, SIGUSR2});
        CHECK(is_blocked(SIGUSR1));
        CHECK(is_blocked(SIGUSR2));
    }
    CHECK(!is_blocked(SIGUSR1));
    CHECK(is_blocked(SIGUSR2));
    ::pthread_sigmask(SIG_UNBLOCK, &one, nullptr);
}

TEST_CASE("what is no signal that can be received is refused, and nothing is blocked",
          "[signals]") {
    scheduler io;
    CHECK_THROWS_AS(signal_stream(io, {SIGUSR1, SIGKILL}), invalid_input);
    CHECK_THROWS_AS(signal_stream(io, {SIGUSR1, SIGSTOP}), invalid_input);
    CHECK_THROWS_AS(signal_stream(io, {SIGUSR1, 0}), invalid_input);
    CHECK_THROWS_AS(signal_stream(io, {SIGUSR1, 1000}), invalid_input);
    CHECK(!is_blocked(SIGUSR1));
}
