#include <signal.h>

#include <vector>

#include <kumiki/async/process.hpp>
#include <kumiki/async/timeout.hpp>
#include <kumiki/async/when.hpp>

#include "async/both_backends.hpp"

using namespace kumiki;
using namespace kumiki_test;
using namespace std::chrono_literals;

namespace {

struct way {
    io_backend backend;
    child_wait wait;
    const char* name;
};

bool can(const way& one) {
    if (one.backend == io_backend::epoll) return true;
    if (!has_io_uring()) return false;
    if (one.wait != child_wait::waitid) return true;
    scheduler io({.backend = one.backend});
    return io.loop().through().supports(detail::request_kind::wait_child);
}

unique_fd child_that(int code, int signal = 0, std::chrono::milliseconds after = 0ms) {
    const pid_t child = ::fork();
    REQUIRE(child >= 0);
    if (child == 0) {
        ::usleep(static_cast<unsigned>(after.count() * 1000));
        if (signal != 0) {
            ::signal(signal, SIG_DFL);
            ::raise(signal);
        }
        ::_exit(code);
    }
    return sys::open_pidfd(child);
}

task<sys::exit_status> wait_for(scheduler& io, int pidfd) {
    auto status = co_await io.wait_exit(pidfd);
    co_return status;
}

}  // namespace

#define KUMIKI_EACH_WAY(io)                                                                        \
    const auto io##_way = GENERATE(way{io_backend::io_uring, child_wait::waitid, "waitid"},        \
                                   way{io_backend::io_uring, child_wait::poll, "io_uring poll"},   \
                                   way{io_backend::io_uring, child_wait::automatic, "automatic"},  \
                                   way{io_backend::epoll, child_wait::automatic, "epoll"});        \
    INFO(io##_way.name);                                                                           \
    if (!can(io##_way)) KUMIKI_SKIP(std::string("not on this kernel: ") + io##_way.name);          \
    scheduler io({.backend = io##_way.backend, .waits_for_children = io##_way.wait})

TEST_CASE("a child's exit status and time are there when it ends", "[process]") {
    KUMIKI_EACH_WAY(io);
    const auto after = GENERATE(0ms, 10ms);
    const unique_fd child = child_that(42, 0, after);
    const auto status = io.run(io.wait_exit(child.get()));
    CHECK(status.code == 42);
    CHECK(status.signal == 0);
    CHECK(status.user_time + status.system_time < 5s);
}

TEST_CASE("a child that a signal ended is told apart", "[process]") {
    KUMIKI_EACH_WAY(io);
    const unique_fd child = child_that(0, SIGTERM, 5ms);
    const auto status = io.run(io.wait_exit(child.get()));
    CHECK(status.signal == SIGTERM);
    CHECK(status.shell_status() == 128 + SIGTERM);
}

TEST_CASE("many children are waited for, each result is delivered once", "[process]") {
    KUMIKI_EACH_WAY(io);
    std::vector<unique_fd> children;
    std::vector<task<sys::exit_status>> waits;
    for (int i = 0; i < 100; ++i) children.push_back(child_that(i));
    for (const auto& child : children) waits.push_back(wait_for(io, child.get()));
    const auto statuses = io.run(when_all(std::move(waits)));
    REQUIRE(statuses.size() == 100);
    for (int i = 0; i < 100; ++i) CHECK(statuses[static_cast<std::size_t>(i)].code == i);
}

TEST_CASE("a wait that is stopped leaves the child to be waited for", "[process]") {
    KUMIKI_EACH_WAY(io);
    const unique_fd child = child_that(3, 0, 60ms);
    CHECK(!io.run(with_timeout(io, 5ms, io.wait_exit(child.get()))).has_value());
    CHECK(io.run(io.wait_exit(child.get())).code == 3);
}

TEST_CASE("a status that somebody else collected is an error that says so", "[process]") {
    KUMIKI_EACH_WAY(io);
    const unique_fd child = child_that(1);
    sys::wait_blocking(child.get());
    try {
        io.run(io.wait_exit(child.get()));
        FAIL("no error");
    } catch (const error& lost) {
        CHECK(lost.errno_value() == ECHILD);
    }
}

TEST_CASE("what is no pidfd is refused", "[process]") {
    KUMIKI_EACH_WAY(io);
    const auto pipe = make_pipe();
    put(pipe.second.get(), "x");
    CHECK_THROWS_AS(io.run(io.wait_exit(pipe.first.get())), error);
    CHECK_THROWS_AS(io.run(io.wait_exit(-1)), error);
}

TEST_CASE("a kernel's release says whether its own wait is sound", "[process]") {
    CHECK(!detail::waitid_is_sound("6.1.0-18-amd64"));
    CHECK(!detail::waitid_is_sound("6.17.9"));
    CHECK(detail::waitid_is_sound("6.18.44-generic"));
    CHECK(detail::waitid_is_sound("6.18-rc1"));
    CHECK(detail::waitid_is_sound("7.0.1"));
    CHECK(!detail::waitid_is_sound("unknown"));
    CHECK(!detail::waitid_is_sound(""));
}
