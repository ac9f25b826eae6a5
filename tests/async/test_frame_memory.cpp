#include <algorithm>
#include <thread>
#include <vector>

#include <kumiki/async/frame_memory.hpp>
#include <kumiki/async/scheduler.hpp>
#include <kumiki/async/when.hpp>

#include "async/both_backends.hpp"

using namespace kumiki;
using namespace kumiki::detail;
using namespace kumiki_test;

namespace {

std::vector<void*> allocate(std::size_t count, std::size_t size) {
    std::vector<void*> frames(count);
    for (void*& frame : frames) frame = allocate_frame(size);
    return frames;
}
void free(const std::vector<void*>& frames, std::size_t size) {
    for (void* const frame : frames) free_frame(frame, size);
}

task<std::size_t> depth_of(std::size_t left) {
    if (left == 0) co_return 0;
    const std::size_t below = co_await depth_of(left - 1);
    co_return below + 1;
}
task<void> nothing_at_all() { co_return; }
task<void> call_until(const bool& done) {
    while (!done) co_await nothing_at_all();
}
task<void> set_later(scheduler& io, bool& done) {
    co_await io.sleep_for(std::chrono::milliseconds(2));
    done = true;
}
task<void> call_beside_a_timer(scheduler& io) {
    bool done = false;
    co_await when_all(call_until(done), set_later(io, done));
}

}  // namespace

TEST_CASE("frames that were freed last are given out first", "[frame_memory]") {
    if (!keeps_frames) KUMIKI_SKIP("with a sanitizer every frame comes from the heap");
    std::thread([] {  // whose cache is empty
        free(allocate(1, 200), 200);  // opens the cache
        const auto first = allocate(6, 200);
        free(first, 200);
        auto second = allocate(6, 199);  // the same size, rounded up
        std::reverse(second.begin(), second.begin() + 4);
        CHECK(std::equal(second.begin(), second.begin() + 4, first.begin(), first.begin() + 4));
        free(second, 199);
    })
        .join();
}

TEST_CASE("a frame is freed on another thread than it was made on, or after that one's end",
          "[frame_memory]") {
    std::vector<void*> frames;
    std::thread([&] { frames = allocate(100, 100); }).join();
    free(frames, 100);
    std::thread([&] { frames = allocate(100, 100); }).join();
    std::thread([&] { free(frames, 100); }).join();
    const auto large = allocate(3, 100'000);
    free(large, 100'000);
}

TEST_CASE("tasks await tasks to any depth", "[frame_memory]") {
    KUMIKI_ON_BOTH_BACKENDS(io);
    CHECK(io.run(depth_of(50'000)) == 50'000);
}

TEST_CASE("a task that only calls others keeps neither timers nor tasks waiting",
          "[frame_memory]") {
    KUMIKI_ON_BOTH_BACKENDS(io);
    io.run(call_beside_a_timer(io));
    CHECK(io.counters().resumed > 256);
}
