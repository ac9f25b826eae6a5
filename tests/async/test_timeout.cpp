#include <stdexcept>

#include <kumiki/async/timeout.hpp>

#include "async/both_backends.hpp"

using namespace kumiki;
using namespace kumiki_test;
using namespace std::chrono_literals;

namespace {

task<int> later(scheduler& io, std::chrono::nanoseconds span) {
    co_await io.sleep_for(span);
    co_return 9;
}
task<std::optional<std::size_t>> read_within(scheduler& io, int fd,
                                             std::chrono::milliseconds limit) {
    std::string text(8, '\0');
    auto count = co_await with_timeout(io, limit, io.read(fd, writable(text)));
    co_return count;
}
task<std::string> inner_limit(scheduler& io, std::chrono::milliseconds limit) {
    const bool ended = co_await with_timeout(io, limit, never(io));
    co_return ended ? "ended" : "inner";
}
task<std::string> nested(scheduler& io, std::chrono::milliseconds outer,
                         std::chrono::milliseconds inner) {
    const auto text = co_await with_timeout(io, outer, inner_limit(io, inner));
    co_return text.value_or("outer");
}

}  // namespace

TEST_CASE("what ends in time yields its value", "[timeout]") {
    KUMIKI_ON_BOTH_BACKENDS(io);
    CHECK(io.run(with_timeout(io, 1h, later(io, 1ms))) == 9);
    CHECK(io.run(with_timeout(io, 1h, io.sleep_for(1ms))));
    const auto pipe = make_pipe();
    put(pipe.second.get(), "abc");
    CHECK(io.run(read_within(io, pipe.first.get(), 1s)) == 3U);
}

TEST_CASE("what does not end in time yields nothing", "[timeout]") {
    KUMIKI_ON_BOTH_BACKENDS(io);
    CHECK(!io.run(with_timeout(io, 1ms, later(io, 1h))).has_value());
    CHECK(!io.run(with_timeout(io, -1ms, never(io))));
    const auto pipe = make_pipe();
    CHECK(!io.run(read_within(io, pipe.first.get(), 1ms)).has_value());
    put(pipe.second.get(), "abc");
    char text[8];
    CHECK(::read(pipe.first.get(), text, sizeof text) == 3);
}

TEST_CASE("time limits nest", "[timeout]") {
    KUMIKI_ON_BOTH_BACKENDS(io);
    CHECK(io.run(nested(io, 1h, 1ms)) == "inner");
    CHECK(io.run(nested(io, 1ms, 1h)) == "outer");
}

TEST_CASE("a stop is no timeout, and a failure is none", "[timeout]") {
    KUMIKI_ON_BOTH_BACKENDS(io);
    std::stop_source source;
    io.post([&] { source.request_stop(); });
    CHECK_THROWS_AS(io.run(with_timeout(io, 1h, never(io)), source.get_token()), cancelled);
    const auto fail = [](scheduler& on) -> task<void> {
        co_await on.yield();
        throw std::runtime_error("failed");
    };
    CHECK_THROWS_AS(io.run(with_timeout(io, 1h, fail(io))), std::runtime_error);
}

TEST_CASE("the longest time there is does not overflow", "[timeout]") {
    KUMIKI_ON_BOTH_BACKENDS(io);
    CHECK(io.run(with_timeout(io, std::chrono::nanoseconds::max(), later(io, 1ms))) == 9);
}
