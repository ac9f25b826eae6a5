#include <kumiki/async/dump.hpp>
#include <kumiki/async/scope.hpp>
#include <kumiki/async/timeout.hpp>
#include <kumiki/async/when.hpp>

#include "async/both_backends.hpp"

using namespace kumiki;
using namespace kumiki_test;
using namespace std::chrono_literals;

namespace {

task<void> read_one(scheduler& io, int fd) {
    std::byte byte[1];
    co_await io.read(fd, byte);
}
task<void> connection(scheduler& io, int fd) {
    co_await named("read the request", read_one(io, fd));
}
task<void> server(scheduler& io, int fd, std::string& text) {
    scope tasks(io);
    tasks.spawn("connection", connection(io, fd));
    tasks.spawn("ticker", never(io));
    co_await io.sleep_for(1ms);
    const auto look = [](scheduler& on, scope& at, std::string& into) -> task<void> {
        co_await on.sleep_for(1ms);
        into = on.dump();
        at.cancel();
    };
    co_await when_all(named("joiner", tasks.join()), look(io, tasks, text));
}
bool contains(const std::string& text, const std::string& part) {
    return text.find(part) != std::string::npos;
}

}  // namespace

TEST_CASE("a dump names the tasks, what they wait for, and those that wait for them", "[dump]") {
    KUMIKI_ON_BOTH_BACKENDS(io);
    const auto pipe = make_pipe();
    std::string text;
    io.run(named("server", server(io, pipe.first.get(), text)));
    INFO(text);
    CHECK(contains(text, std::string("scheduler on ") + to_string(io_backend)));
    CHECK(contains(text, "read the request < connection < joiner < server: read on " +
                             std::to_string(pipe.first.get()) + " (test_dump.cpp:"));
    CHECK(contains(text, "ticker < joiner < server: sleep ("));
    CHECK_FALSE(contains(text, "being cancelled"));
}

TEST_CASE("a task that is ready is in the dump", "[dump]") {
    scheduler io;
    scope tasks(io);
    tasks.spawn("soon", [](scheduler& on) -> task<void> { co_await on.yield(); }(io));
    CHECK(contains(io.dump(), "soon: ready\n"));
    tasks.spawn([](scheduler& on) -> task<void> { co_await on.yield(); }(io));
    CHECK(contains(io.dump(), "(unnamed): ready\n"));
    io.run(tasks.join());
    CHECK_FALSE(contains(io.dump(), "ready"));
}

TEST_CASE("the counters add up", "[dump]") {
    KUMIKI_ON_BOTH_BACKENDS(io);
    const auto before = io.counters();
    CHECK(before.submitted == 0);
    const auto pipe = make_pipe();
    {
        in_flight waiting(io, read_one(io, pipe.first.get()));
        const auto during = io.counters();
        CHECK(during.in_flight == 1);
        CHECK(during.submitted == during.completed + during.in_flight);
        CHECK(during.cancelled == 0);
        CHECK(during.resumed >= 3);
        CHECK(during.sleeps >= 1);
    }
    const auto after = io.counters();
    CHECK(after.in_flight == 0);
    CHECK(after.submitted == after.completed);
    CHECK(after.cancelled == 1);
    CHECK_FALSE(io.run(with_timeout(io, 1ms, never(io))));
    CHECK(io.counters().cancelled == 2);
    CHECK(io.counters().overflowed == 0);
}
