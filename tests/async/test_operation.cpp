#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstring>
#include <memory>
#include <thread>

#include <kumiki/async/offload.hpp>
#include <kumiki/async/operation.hpp>
#include <kumiki/async/when.hpp>

#include "async/both_backends.hpp"

using namespace kumiki;
using namespace kumiki_test;
using namespace std::chrono_literals;

namespace {

task<void> read_into(scheduler& io, int fd, std::string& text, counted) {
    const std::size_t count = co_await io.read(fd, writable(text));
    text.resize(count);
}
task<void> recv_into(scheduler& io, int fd, std::string& text, counted) {
    const std::size_t count = co_await io.recv(fd, writable(text));
    text.resize(count);
}
task<void> sleep_long(scheduler& io, counted) { co_await io.sleep_for(1h); }
task<void> offload_slow(scheduler& io, std::atomic<bool>& begun, std::atomic<int>& calls, counted) {
    co_await offload(io, [&] {
        begun = true;
        begun.notify_one();
        std::this_thread::sleep_for(20ms);
        ++calls;
    });
}
task<void> nested(task<void> inner, counted) { co_await std::move(inner); }

}  // namespace

TEST_CASE("an id of the table is not used again", "[operation]") {
    detail::operation_table table;
    scheduler io;
    auto some = io.poll(0, POLLIN);
    const auto first = table.insert(some);
    CHECK(table.find(first) == &some);
    table.erase(first);
    CHECK(table.find(first) == nullptr);
    const auto second = table.insert(some);
    CHECK(second != first);
    CHECK(second >> 32 != 0);
    CHECK(static_cast<std::uint32_t>(second) == static_cast<std::uint32_t>(first));
    CHECK(table.find(~std::uint64_t{0}) == nullptr);
    CHECK(table.find(0) == nullptr);
}

TEST_CASE("a frame that is destroyed in an operation takes it back from the kernel",
          "[operation]") {
    KUMIKI_ON_BOTH_BACKENDS(io);
    const auto pipe = make_pipe(GENERATE(0, O_NONBLOCK));
    const auto sockets = make_socket_pair();
    std::string text(16, '.');
    {
        const in_flight reading(io, read_into(io, pipe.first.get(), text, {}));
        const in_flight receiving(io, nested(recv_into(io, sockets.first.get(), text, {}), {}));
        const in_flight sleeping(io, sleep_long(io, {}));
        CHECK(counted::alive == 4);
        CHECK(io.loop().operations.size() == 3);
    }
    CHECK(counted::alive == 0);
    CHECK(io.loop().operations.size() == 0);
    put(pipe.second.get(), "later");
    put(sockets.second.get(), "later");
    CHECK(text == std::string(16, '.'));
}

TEST_CASE("nothing is written into memory that was given up", "[operation]") {
    KUMIKI_ON_BOTH_BACKENDS(io);
    const auto pipe = make_pipe();
    std::string text(16, '.');
    { const in_flight reading(io, read_into(io, pipe.first.get(), text, {})); }
    put(pipe.second.get(), "later");
    const auto pass = [](scheduler& on) -> task<void> { co_await on.sleep_for(2ms); };
    io.run(pass(io));
    CHECK(text == std::string(16, '.'));
    char left[8] = {};
    CHECK(::read(pipe.first.get(), left, sizeof left) == 5);
}

TEST_CASE("a frame that is destroyed in an offloaded call waits for the call", "[operation]") {
    KUMIKI_ON_BOTH_BACKENDS(io);
    std::atomic<bool> begun = false;
    std::atomic<int> calls = 0;
    {
        const in_flight calling(io, offload_slow(io, begun, calls, {}));
        begun.wait(false);  // one that has not begun yet is taken back instead
    }
    CHECK(calls == 1);
    CHECK(counted::alive == 0);
}

TEST_CASE("a scheduler that ends first cancels what is in flight", "[operation]") {
    const auto backend = GENERATE(io_backend::io_uring, io_backend::epoll);
    if (backend == io_backend::io_uring && !has_io_uring()) KUMIKI_SKIP("io_uring is denied");
    const auto pipe = make_pipe();
    std::string text(16, '.');
    auto io = std::make_unique<scheduler>(scheduler_options{.backend = backend});
    std::stop_source source;
    {
        const in_flight reading(*io, read_into(*io, pipe.first.get(), text, {}),
                                source.get_token());
        const in_flight sleeping(*io, sleep_long(*io, {}));
        io.reset();
        put(pipe.second.get(), "later");
        CHECK(text == std::string(16, '.'));
        CHECK(counted::alive == 2);
        source.request_stop();
    }
    CHECK(counted::alive == 0);
}

TEST_CASE("a closed scheduler leaves no descriptor and no thread", "[operation]") {
    const auto count = [](const char* of) {
        int entries = 0;
        const unique_fd directory(::open(of, O_RDONLY | O_DIRECTORY | O_CLOEXEC));
        alignas(8) char buffer[4096];
        for (long got;
             (got = ::syscall(SYS_getdents64, directory.get(), buffer, sizeof buffer)) > 0;)
            for (long at = 0; at < got; ++entries) {
                unsigned short size = 0;
                std::memcpy(&size, buffer + at + 16, sizeof size);
                at += size;
            }
        return entries;
    };
    const int fds = count("/proc/self/fd");
    // io_uring's own threads come and go by themselves (test_io_uring_facts.cpp counts those).
    const auto count_threads = [] {
        int threads = 0;
        for (const auto& each : std::filesystem::directory_iterator("/proc/self/task")) {
            std::string name;
            std::getline(std::ifstream(each.path() / "comm"), name);
            if (!name.starts_with("iou-wrk")) ++threads;
        }
        return threads;
    };
    const int threads = count_threads();
    {
        KUMIKI_ON_BOTH_BACKENDS(io);
        std::atomic<int> calls = 0;
        std::atomic<bool> begun = false;
        io.run(offload_slow(io, begun, calls, {}));
    }
    CHECK(count("/proc/self/fd") == fds);
    // Who joins a thread is told before /proc forgets it.
    for (int tries = 0; tries < 500 && count_threads() != threads; ++tries) ::usleep(10'000);
    CHECK(count_threads() == threads);
}

TEST_CASE("misuse ends the program with a message", "[operation]") {
    CHECK(dies([] {
              scheduler io;
              auto once = [](scheduler& on) -> task<void> { co_await on.yield(); };
              const auto twice = [](task<void> work) -> task<void> {
                  co_await std::move(work);
                  co_await std::move(work);
              };
              io.run(twice(once(io)));
          }).find("awaited before") != std::string::npos);
    CHECK(dies([] {
              scheduler first;
              scheduler second;
              const auto foreign = [](scheduler& on) -> task<void> { co_await on.sleep_for(1ms); };
              first.run(foreign(second));
          }).find("scheduler") != std::string::npos);
    CHECK(dies([] {
              scheduler first;
              std::thread([&first] {
                  scheduler second;
                  const auto foreign = [](scheduler& on) -> task<void> {
                      co_await on.sleep_for(1ms);
                  };
                  second.run(foreign(first));
              }).join();
          }).find("thread") != std::string::npos);
}
