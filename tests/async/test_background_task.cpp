#include <optional>
#include <vector>

#include <kumiki/async/async_event.hpp>
#include <kumiki/async/background_task.hpp>
#include <kumiki/async/offload.hpp>
#include <kumiki/async/timeout.hpp>

#include "async/both_backends.hpp"

using namespace kumiki;
using namespace kumiki_test;
using namespace std::chrono_literals;

namespace {

/// Says when it has gone.
struct mark {
    explicit mark(int& of) : gone(&of) {}
    mark(const mark&) = delete;
    mark& operator=(const mark&) = delete;
    ~mark() { ++*gone; }
    int* gone;
};

task<void> wait_for_ever(scheduler& io, int& begun, int& gone) {
    const mark here(gone);
    ++begun;
    co_await never(io);
}
task<void> wait_within(scheduler& io, int& begun, int& gone) {
    const mark here(gone);
    co_await with_timeout(io, 1h, wait_for_ever(io, begun, gone));
}
task<void> read_for_ever(scheduler& io, int fd, int& gone) {
    const mark here(gone);
    std::string text(8, '\0');
    co_await io.read(fd, writable(text));
}
task<void> end_at_once(int& gone) {
    const mark here(gone);
    co_return;
}
task<void> turns(scheduler& io, int count) {
    for (int i = 0; i < count; ++i) co_await io.yield();
}

}  // namespace

TEST_CASE("a background task runs while others wait, and goes with its owner") {
    KUMIKI_ON_BOTH_BACKENDS(io);
    int begun = 0;
    int gone = 0;
    {
        detail::background_task owned(io, wait_for_ever(io, begun, gone));
        CHECK(begun == 0);
        io.run(turns(io, 2));
        CHECK(begun == 1);
        CHECK(gone == 0);
    }
    CHECK(gone == 1);
    io.run(turns(io, 2));  // nothing of it is resumed any more
    CHECK(gone == 1);
}

TEST_CASE("a background task that has not begun, or has ended, goes as well") {
    KUMIKI_ON_BOTH_BACKENDS(io);
    int begun = 0;
    int gone = 0;
    { detail::background_task unbegun(io, wait_for_ever(io, begun, gone)); }
    CHECK(begun == 0);
    detail::background_task ended(io, end_at_once(gone));
    io.run(turns(io, 2));
    CHECK(gone == 1);
}

TEST_CASE("what a background task has given to the kernel is taken back before it goes") {
    KUMIKI_ON_BOTH_BACKENDS(io);
    int gone = 0;
    const auto pipe = make_pipe();
    {
        detail::background_task reading(io, read_for_ever(io, pipe.first.get(), gone));
        io.run(turns(io, 2));
    }
    CHECK(gone == 1);
    put(pipe.second.get(), "abc");
    io.run(turns(io, 2));
    std::string text(8, '\0');
    CHECK(io.run(io.read(pipe.first.get(), writable(text))) == 3);
}

TEST_CASE("a background task may go after its scheduler, also within a time limit") {
    int begun = 0;
    int gone = 0;
    std::optional<scheduler> io(std::in_place);
    {
        detail::background_task waiting(*io, wait_within(*io, begun, gone));
        io->run(turns(*io, 3));
        CHECK(begun == 1);
        io.reset();
        CHECK(gone == 0);
    }
    CHECK(gone == 2);
}
