#include <sys/eventfd.h>

#include <vector>

#include <kumiki/async/poll_stream.hpp>
#include <kumiki/async/scope.hpp>
#include <kumiki/async/timeout.hpp>

#include "async/both_backends.hpp"
#include "support/scratch.hpp"

using namespace kumiki;
using namespace kumiki_test;
using namespace std::chrono_literals;

namespace {

task<unsigned> next_of(poll_stream& events) {
    auto seen = co_await events.next();
    co_return seen;
}
task<bool> has_more(scheduler& io, poll_stream& events) {
    const auto seen = co_await with_timeout(io, 2ms, events.next());
    co_return seen.has_value();
}
std::size_t drain(int fd) {
    std::size_t total = 0;
    char text[256];
    for (ssize_t got; (got = ::read(fd, text, sizeof text)) > 0;)
        total += static_cast<std::size_t>(got);
    return total;
}

/// Reads what `count` bytes come to, written one by one.
task<void> read_bytes(scheduler& io, int fd, std::size_t count, std::size_t& total) {
    poll_stream events(io, fd, POLLIN);
    while (total < count) {
        co_await events.next();
        total += drain(fd);
    }
}
task<void> write_bytes(scheduler& io, int fd, std::size_t count) {
    for (std::size_t i = 0; i < count; ++i) {
        put(fd, "x");
        if (i % 3 == 0) co_await io.yield();
    }
}
task<void> many_events(scheduler& io, int pipes, std::size_t count, std::size_t& total) {
    std::vector<descriptor_pair> ends;
    for (int i = 0; i < pipes; ++i) ends.push_back(make_pipe(O_NONBLOCK));
    std::vector<std::size_t> totals(static_cast<std::size_t>(pipes));
    scope tasks(io);
    for (std::size_t i = 0; i < ends.size(); ++i) {
        tasks.spawn(read_bytes(io, ends[i].first.get(), count, totals[i]));
        tasks.spawn(write_bytes(io, ends[i].second.get(), count));
    }
    co_await tasks.join();
    for (const std::size_t each : totals) total += each;
}

}  // namespace

TEST_CASE("events between two looks are kept", "[poll_stream]") {
    KUMIKI_ON_BOTH_BACKENDS(io);
    const auto pipe = make_pipe(O_NONBLOCK);
    poll_stream events(io, pipe.first.get(), POLLIN);
    put(pipe.second.get(), "a");
    CHECK((io.run(next_of(events)) & POLLIN) != 0);
    CHECK(drain(pipe.first.get()) == 1);
    CHECK_FALSE(io.run(has_more(io, events)));  // and a wait that is stopped breaks nothing
    put(pipe.second.get(), "b");
    io.run(io.sleep_for(1ms));  // nobody waits for it
    CHECK((io.run(next_of(events)) & POLLIN) != 0);
    CHECK(drain(pipe.first.get()) == 1);
}

TEST_CASE("a hangup is an event, a closed descriptor an error", "[poll_stream]") {
    KUMIKI_ON_BOTH_BACKENDS(io);
    auto pipe = make_pipe(O_NONBLOCK);
    poll_stream events(io, pipe.first.get(), POLLIN);
    pipe.second.reset();
    CHECK((io.run(next_of(events)) & POLLHUP) != 0);
    poll_stream bad(io, 9999, POLLIN);
    for (int i = 0; i < 2; ++i) {
        try {
            io.run(next_of(bad));
            FAIL("the descriptor is not open");
        } catch (const error& refused) {
            CHECK(refused.errno_value() == EBADF);
        }
    }
}

TEST_CASE("a stream of events that ends while it is armed leaves nothing", "[poll_stream]") {
    KUMIKI_ON_BOTH_BACKENDS(io);
    const auto pipe = make_pipe(O_NONBLOCK);
    for (int i = 0; i < 100; ++i) {
        poll_stream events(io, pipe.first.get(), POLLIN);
        REQUIRE_FALSE(io.run(has_more(io, events)));
    }
    CHECK(io.counters().in_flight == 0);
    poll_stream waiting(io, pipe.first.get(), POLLIN);
    in_flight task_that_waits(io,
                              [](poll_stream& of) -> task<void> { co_await of.next(); }(waiting));
    CHECK(io.dump().find("poll on " + std::to_string(pipe.first.get())) != std::string::npos);
}

TEST_CASE("a ring that is too small for the events loses none", "[poll_stream]") {
    const io_backend which = GENERATE(io_backend::io_uring, io_backend::epoll);
    if (which == io_backend::io_uring && !has_io_uring()) KUMIKI_SKIP("io_uring is denied");
    scheduler io({.backend = which, .ring_entries = 1, .completion_entries = 2});
    std::size_t total = 0;
    io.run(many_events(io, 32, 100, total));
    CHECK(total == 3200);
    if (which == io_backend::io_uring) CHECK(io.counters().overflowed > 0);
}

TEST_CASE("one submission serves many events where the kernel has it", "[poll_stream]") {
    if (!has_io_uring()) KUMIKI_SKIP("io_uring is denied on this host");
    scheduler io({.backend = io_backend::io_uring});
    const unique_fd counter(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    poll_stream events(io, counter.get(), POLLIN);
    const std::uint64_t one = 1;
    for (int i = 0; i < 1000; ++i) {
        REQUIRE(::write(counter.get(), &one, sizeof one) == sizeof one);
        REQUIRE((io.run(next_of(events)) & POLLIN) != 0);
        drain(counter.get());
    }
    const auto before = io.counters().submitted;
    CHECK(before <= 1001);  // of the watch, and of each wait that was not served at once
}
