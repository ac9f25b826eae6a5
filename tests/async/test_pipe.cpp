#include <fcntl.h>
#include <signal.h>

#include <string>

#include <kumiki/async/pipe.hpp>
#include <kumiki/async/scope.hpp>
#include <kumiki/async/timeout.hpp>
#include <kumiki/async/when.hpp>

#include "async/both_backends.hpp"

using namespace kumiki;
using namespace kumiki_test;
using namespace std::chrono_literals;

namespace {

struct both_ends {
    pipe_reader from;
    pipe_writer to;

    explicit both_ends(scheduler& io) {
        int ends[2];
        if (::pipe2(ends, O_CLOEXEC) != 0) throw std::runtime_error("pipe2");
        from = pipe_reader(io, unique_fd(ends[0]));
        to = pipe_writer(io, unique_fd(ends[1]));
    }
};

std::string pattern(std::size_t size) {
    std::string text(size, 0);
    for (std::size_t i = 0; i < size; ++i) text[i] = static_cast<char>('a' + i * 7 % 23);
    return text;
}

task<std::string> read_all(pipe_reader& from, std::size_t piece) {
    std::string text;
    std::string buffer(piece, 0);
    for (;;) {
        const auto size = co_await from.read(std::as_writable_bytes(std::span(buffer)));
        if (size == 0) co_return text;
        text.append(buffer, 0, size);
    }
}

task<bool> write_and_close(pipe_writer& to, std::string_view text) {
    const bool taken = co_await to.write(text);
    to.close();
    co_return taken;
}

task<bool> write_once(pipe_writer& to, std::string_view text) {
    const bool taken = co_await to.write(text);
    co_return taken;
}

task<std::size_t> read_once(pipe_reader& from) {
    std::byte buffer[64];
    const auto size = co_await from.read(buffer);
    co_return size;
}

/// The disposition and the mask of SIGPIPE during the object's life, as most programs have them.
struct deadly_sigpipe {
    struct sigaction before{};
    sigset_t mask{};
    deadly_sigpipe() {
        struct sigaction deadly{};
        deadly.sa_handler = SIG_DFL;
        ::sigaction(SIGPIPE, &deadly, &before);
        sigset_t broken;
        ::sigemptyset(&broken);
        ::sigaddset(&broken, SIGPIPE);
        ::pthread_sigmask(SIG_UNBLOCK, &broken, &mask);
    }
    ~deadly_sigpipe() {
        ::pthread_sigmask(SIG_SETMASK, &mask, nullptr);
        ::sigaction(SIGPIPE, &before, nullptr);
    }
};

bool is_sigpipe_pending() {
    sigset_t waiting;
    ::sigpending(&waiting);
    return ::sigismember(&waiting, SIGPIPE) == 1;
}

}  // namespace

TEST_CASE("what is written to a pipe comes out of it, however large", "[pipe]") {
    KUMIKI_ON_BOTH_BACKENDS(io);
    const std::string sent = pattern(GENERATE(0U, 1U, 65536U, 65537U, 3000000U));
    both_ends ends(io);
    const auto got = io.run(when_all(read_all(ends.from, 10000), write_and_close(ends.to, sent)));
    CHECK(std::get<0>(got) == sent);
    CHECK(std::get<1>(got));
    CHECK_FALSE(static_cast<bool>(ends.to));
}

TEST_CASE("writing to a pipe that nobody reads yields false and raises no signal", "[pipe]") {
    KUMIKI_ON_BOTH_BACKENDS(io);
    const deadly_sigpipe as_usual;
    both_ends ends(io);
    ends.from.close();
    for (int i = 0; i < 3; ++i) CHECK_FALSE(io.run(write_once(ends.to, "text")));
    CHECK_FALSE(is_sigpipe_pending());
}

TEST_CASE("a reader that goes while the writer waits for room ends the write", "[pipe]") {
    KUMIKI_ON_BOTH_BACKENDS(io);
    const deadly_sigpipe as_usual;
    both_ends ends(io);
    const std::string much = pattern(1000000);
    const auto leave = [](scheduler& loop, pipe_reader& from) -> task<void> {
        co_await loop.sleep_for(20ms);
        from.close();
    };
    const auto got = io.run(when_all(write_once(ends.to, much), leave(io, ends.from)));
    CHECK_FALSE(std::get<0>(got));
    CHECK_FALSE(is_sigpipe_pending());
}

TEST_CASE("a SIGPIPE that waited before a write still waits after it", "[pipe]") {
    scheduler io;
    const deadly_sigpipe as_usual;
    sigset_t broken;
    ::sigemptyset(&broken);
    ::sigaddset(&broken, SIGPIPE);
    ::pthread_sigmask(SIG_BLOCK, &broken, nullptr);
    ::raise(SIGPIPE);
    both_ends ends(io);
    ends.from.close();
    CHECK_FALSE(io.run(write_once(ends.to, "text")));
    CHECK(is_sigpipe_pending());
    int taken = 0;
    ::sigwait(&broken, &taken);
    CHECK(taken == SIGPIPE);
}

TEST_CASE("reads and writes of pipes that wait can be stopped, and lose nothing", "[pipe]") {
    KUMIKI_ON_BOTH_BACKENDS(io);
    both_ends ends(io);
    CHECK_FALSE(io.run(with_timeout(io, 20ms, read_once(ends.from))));
    CHECK(io.run(write_once(ends.to, "kept")));
    CHECK(io.run(read_once(ends.from)) == 4);
    const std::string much = pattern(100000);
    CHECK_FALSE(io.run(with_timeout(io, 20ms, write_once(ends.to, much))));
    CHECK(ends.from.available() == 65536);
    ends.to.close();
    CHECK(io.run(read_all(ends.from, 100000)) == much.substr(0, 65536));
}

TEST_CASE("what is in a pipe can be looked at and taken without waiting", "[pipe]") {
    scheduler io;
    both_ends ends(io);
    std::byte buffer[16];
    CHECK(ends.from.available() == 0);
    CHECK_FALSE(ends.from.try_read(buffer));
    CHECK(io.run(write_once(ends.to, "abc")));
    CHECK(ends.from.available() == 3);
    CHECK(ends.from.try_read(buffer) == 3U);
    ends.to.close();
    CHECK(ends.from.try_read(buffer) == 0U);
}

TEST_CASE("a pipe that never runs dry leaves others their turn, and can be stopped", "[pipe]") {
    KUMIKI_ON_BOTH_BACKENDS(io);
    both_ends ends(io);
    const auto fill = [](pipe_writer& to) -> task<void> {
        const std::string piece = pattern(65536);
        for (;;) co_await to.write(piece);
    };
    const auto drain = [](pipe_reader& from) -> task<void> {
        std::byte buffer[512];
        for (;;) co_await from.read(buffer);
    };
    CHECK_FALSE(io.run(with_timeout(io, 50ms, when_all(fill(ends.to), drain(ends.from)))));
}
