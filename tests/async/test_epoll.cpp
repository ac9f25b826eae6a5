#include <kumiki/async/epoll.hpp>
#include <kumiki/async/stop.hpp>
#include <kumiki/async/timeout.hpp>
#include <kumiki/async/when.hpp>

#include "async/both_backends.hpp"

using namespace kumiki;
using namespace kumiki_test;
using namespace std::chrono_literals;

namespace {

task<std::size_t> read_one_byte(scheduler& io, int fd) {
    std::byte one[1];
    const std::size_t count = co_await io.read(fd, one);
    co_return count;
}
task<void> put_later(scheduler& io, int fd, std::string_view text) {
    co_await io.sleep_for(1ms);
    co_await write_all(io, fd, bytes_of(text));
}

}  // namespace

TEST_CASE("two readers of one pipe are both served", "[epoll]") {
    KUMIKI_ON_BOTH_BACKENDS(io);
    const auto pipe = make_pipe(O_NONBLOCK);
    const auto counts =
        io.run(when_all(read_one_byte(io, pipe.first.get()), read_one_byte(io, pipe.first.get()),
                        put_later(io, pipe.second.get(), "ab")));
    CHECK(std::get<0>(counts) == 1);
    CHECK(std::get<1>(counts) == 1);
}

TEST_CASE("a descriptor number is used again for another file", "[epoll]") {
    KUMIKI_ON_BOTH_BACKENDS(io);
    for (int round = 0; round < 20; ++round) {
        const auto pipe = make_pipe(O_NONBLOCK);  // the same two numbers each time
        if (round % 2 == 0) {
            CHECK(!io.run(with_timeout(io, 1ms, read_one_byte(io, pipe.first.get()))).has_value());
        } else {
            const auto counts = io.run(when_all(read_one_byte(io, pipe.first.get()),
                                                put_later(io, pipe.second.get(), "a")));
            CHECK(std::get<0>(counts) == 1);
        }
    }
}

TEST_CASE("one waits on in a descriptor on which another was stopped", "[epoll]") {
    KUMIKI_ON_BOTH_BACKENDS(io);
    const auto pipe = make_pipe();
    const auto counts = io.run(when_all(read_one_byte(io, pipe.first.get()),
                                        with_timeout(io, 1ms, io.poll(pipe.first.get(), POLLPRI)),
                                        put_later(io, pipe.second.get(), "a")));
    CHECK(std::get<0>(counts) == 1);
    CHECK(!std::get<1>(counts).has_value());
}

TEST_CASE("the end of a stream is seen by who waits for it", "[epoll]") {
    KUMIKI_ON_BOTH_BACKENDS(io);
    auto pipe = make_pipe(GENERATE(0, O_NONBLOCK));
    const auto close_later = [](scheduler& on, unique_fd end) -> task<void> {
        co_await on.sleep_for(1ms);
        end.reset();
    };
    const auto counts = io.run(
        when_all(read_one_byte(io, pipe.first.get()), close_later(io, std::move(pipe.second))));
    CHECK(std::get<0>(counts) == 0);
}
