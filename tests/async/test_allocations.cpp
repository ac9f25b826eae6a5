// What waiting costs in memory: nothing per operation, one frame per task. Counts the calls of the
// global operator new of this program, in the thread that asks for it.

#include <cstdlib>
#include <new>
#include <vector>

#include <kumiki/async/async_semaphore.hpp>
#include <kumiki/async/channel.hpp>
#include <kumiki/async/event_counter.hpp>
#include <kumiki/async/poll_stream.hpp>
#include <kumiki/async/scope.hpp>
#include <kumiki/async/stop.hpp>
#include <kumiki/async/when.hpp>

#include "async/both_backends.hpp"

namespace {

struct tally {
    bool counts = false;
    std::size_t calls = 0;
    std::size_t bytes = 0;
};
thread_local tally counted_here;

void note(std::size_t size) {
    if (!counted_here.counts) return;
    ++counted_here.calls;
    counted_here.bytes += size;
}

}  // namespace

#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define KUMIKI_TEST_SANITIZED
#endif
#endif

#ifdef KUMIKI_TEST_SANITIZED  // has operator new itself, and tells of its calls
extern "C" int __sanitizer_install_malloc_and_free_hooks(void (*)(const volatile void*,
                                                                  std::size_t),
                                                         void (*)(const volatile void*));
namespace {
const int hooked = __sanitizer_install_malloc_and_free_hooks(
    [](const volatile void*, std::size_t size) { note(size); }, [](const volatile void*) {});
}  // namespace
#else
namespace {
void* allocate(std::size_t size) {
    note(size);
    if (void* const memory = std::malloc(size > 0 ? size : 1)) return memory;
    throw std::bad_alloc();
}
}  // namespace
void* operator new(std::size_t size) { return allocate(size); }
void* operator new[](std::size_t size) { return allocate(size); }
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete[](void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }
void operator delete[](void* memory, std::size_t) noexcept { std::free(memory); }
#endif

using namespace kumiki;
using namespace kumiki_test;
using namespace std::chrono_literals;

namespace {

struct counting {
    counting() { counted_here = {.counts = true}; }
    ~counting() { counted_here.counts = false; }
    counting(const counting&) = delete;
    counting& operator=(const counting&) = delete;
    static std::size_t calls() { return counted_here.calls; }
    static std::size_t bytes() { return counted_here.bytes; }
};

constexpr int rounds = 10'000;

/// Every kind of operation, `times` times; yields how often memory was taken after the first round.
task<std::size_t> wait_in_every_way(scheduler& io, int times) {
    const auto pipe = make_pipe();
    const auto sockets = make_socket_pair();
    const event_counter counter(io);
    async_semaphore slots(io, 1);
    channel<int> numbers(io, 1);
    poll_stream events(io, counter.fd(), POLLIN);
    std::byte byte[1] = {};
    const counting all;
    std::size_t first_round = 0;
    for (int i = 0; i < times; ++i) {
        co_await io.write(pipe.second.get(), byte);
        co_await io.poll(pipe.first.get(), POLLIN);
        co_await io.read(pipe.first.get(), byte);
        co_await io.send(sockets.first.get(), byte);
        co_await io.recv(sockets.second.get(), byte);
        co_await io.sleep_for(0ns);
        co_await io.sleep_for(1us);
        co_await io.yield();
        counter.signal();
        co_await events.next();
        co_await counter.wait();
        auto permit = co_await slots.acquire();
        permit.release();
        co_await numbers.send(i);
        co_await numbers.receive();
        if (i == 0) first_round = counting::calls();
    }
    co_return counting::calls() - first_round;
}

std::vector<unique_fd> children_that_end(int count) {
    std::vector<unique_fd> pidfds;
    for (int i = 0; i < count; ++i) {
        const pid_t child = ::fork();
        REQUIRE(child >= 0);
        if (child == 0) ::_exit(7);
        pidfds.push_back(sys::open_pidfd(child));
    }
    return pidfds;
}
task<std::size_t> wait_for_children(scheduler& io, std::vector<unique_fd>& pidfds) {
    const counting all;
    for (const unique_fd& child : pidfds) {
        const auto status = co_await io.wait_exit(child.get());
        if (status.code != 7) throw std::logic_error("another code");
    }
    co_return counting::calls();
}

task<std::size_t> ping_pong(scheduler& io, int from, int to, int times) {
    std::byte byte[1] = {};
    std::size_t before = 0;
    for (int i = 0; i < times; ++i) {
        co_await io.read(from, byte);
        co_await io.write(to, byte);
        if (i == 0) before = counting::calls();
    }
    co_return counting::calls() - before;
}
task<void> ping_pongs(scheduler& io, std::size_t& allocations) {
    const auto there = make_pipe();
    const auto back = make_pipe();
    put(there.second.get(), "x");
    const counting all;
    const auto both =
        co_await when_all(ping_pong(io, there.first.get(), back.second.get(), rounds),
                          ping_pong(io, back.first.get(), there.second.get(), rounds));
    allocations = std::get<0>(both);
}

task<int> nothing() { co_return 1; }
task<std::size_t> call_tasks(int times) {
    const counting all;
    for (int i = 0; i < times; ++i) {
        const int value = co_await nothing();
        if (value != 1) throw std::logic_error("another value");
    }
    co_return counting::calls();
}

task<void> sleeper(scheduler& io) { co_await io.sleep_for(1h); }
task<void> poller(scheduler& io, int fd) { co_await io.poll(fd, POLLIN); }

task<std::size_t> bytes_of_idle_tasks(scheduler& io, std::size_t count, bool sleeping) {
    const event_counter counter(io);
    scope tasks(io);
    std::size_t bytes = 0;
    {
        const counting all;
        for (std::size_t i = 0; i < count; ++i)
            tasks.spawn(sleeping ? sleeper(io) : poller(io, counter.fd()));
        co_await io.sleep_for(1ms);  // all wait
        bytes = counting::bytes();
    }
    tasks.cancel();
    co_await tasks.join();
    co_return bytes;
}

}  // namespace

TEST_CASE("no operation takes memory", "[allocations]") {
    KUMIKI_ON_BOTH_BACKENDS(io);
    CHECK(io.run(wait_in_every_way(io, rounds)) == 0);
    std::stop_source stop;  // the token costs nothing either
    CHECK(io.run(wait_in_every_way(io, 100), stop.get_token()) == 0);
    std::size_t allocations = 1;
    io.run(ping_pongs(io, allocations));
    CHECK(allocations == 0);
}

TEST_CASE("waiting for children takes no memory", "[allocations]") {
    KUMIKI_ON_BOTH_BACKENDS(io);
    // A wait that takes memory does so each time; a list that grows, because more children than ever
    // ended at once, does so once.
    std::size_t fewest = 1;
    for (int round = 0; round < 3 && fewest != 0; ++round) {
        // Those of the first wait have the higher descriptors: lists that go by them have grown then.
        auto counted_ones = children_that_end(50);
        auto first_ones = children_that_end(5);
        (void)io.run(wait_for_children(io, first_ones));
        fewest = io.run(wait_for_children(io, counted_ones));
    }
    CHECK(fewest == 0);
}

TEST_CASE("a task takes the memory of its frame and nothing else", "[allocations]") {
    scheduler io;
    const std::size_t counted = io.run(call_tasks(rounds));
    if (detail::keeps_frames)
        CHECK(counted <= 1);  // each round uses the frame of the one before
    else
        CHECK(counted == rounds);
}

TEST_CASE("a task that waits takes less than a kibibyte", "[allocations]") {
    KUMIKI_ON_BOTH_BACKENDS(io);
    constexpr std::size_t count = 10'000;
    for (const bool sleeping : {true, false}) {
        const std::size_t bytes = io.run(bytes_of_idle_tasks(io, count, sleeping));
        INFO((sleeping ? "sleeping: " : "polling: ") << bytes / count << " bytes");
        CHECK(bytes / count <= 1024);
        CHECK(bytes / count >= 100);  // the frame is counted at all
    }
}
