#include <sys/stat.h>

#include <atomic>
#include <thread>

#include <kumiki/async/files.hpp>
#include <kumiki/async/timeout.hpp>

#include "async/both_backends.hpp"
#include "support/scratch.hpp"

using namespace kumiki;
using namespace kumiki_test;
using namespace std::chrono_literals;

namespace {

task<int> open_and_close(scheduler& io, std::string path, int flags, mode_t mode) {
    unique_fd file = co_await open_at(io, AT_FDCWD, path, flags, mode);
    const int number = file.get();
    if ((::fcntl(number, F_GETFD) & FD_CLOEXEC) == 0) throw std::logic_error("is inherited");
    co_await io.close(std::move(file));
    co_return number;
}
task<void> close_it(scheduler& io, unique_fd file) { co_await io.close(std::move(file)); }
task<void> close_though_stopped(scheduler& io, unique_fd file, std::stop_source& stop) {
    stop.request_stop();
    co_await io.close(std::move(file));
    co_await io.sleep_for(1h);
}
task<bool> opens_within(scheduler& io, std::string path, std::chrono::milliseconds limit) {
    const auto file = co_await with_timeout(io, limit, open_at(io, AT_FDCWD, path, O_RDONLY));
    co_return file.has_value();
}
bool is_open(int fd) { return ::fcntl(fd, F_GETFD) >= 0; }

}  // namespace

TEST_CASE("a file is opened, made, and closed", "[files]") {
    KUMIKI_ON_BOTH_BACKENDS(io);
    const scratch place;
    const std::string path = place.path() + "/file";
    CHECK_FALSE(is_open(io.run(open_and_close(io, path, O_WRONLY | O_CREAT | O_EXCL, 0600))));
    struct stat seen{};
    REQUIRE(::stat(path.c_str(), &seen) == 0);
    CHECK((seen.st_mode & 0777) == 0600);
    CHECK_FALSE(is_open(io.run(open_and_close(io, path, O_RDONLY, 0))));
    for (const auto& [flags, code] : {std::pair(O_WRONLY | O_CREAT | O_EXCL, EEXIST),
                                      std::pair(O_RDONLY | O_DIRECTORY, ENOTDIR)}) {
        try {
            io.run(open_and_close(io, path, flags, 0600));
            FAIL("it cannot be opened so");
        } catch (const error& refused) {
            CHECK(refused.errno_value() == code);
            CHECK(refused.object() == path);
        }
    }
}

TEST_CASE("a file is opened relative to a directory", "[files]") {
    KUMIKI_ON_BOTH_BACKENDS(io);
    const unique_fd proc(::open("/proc", O_PATH | O_DIRECTORY | O_CLOEXEC));
    CHECK(io.run(open_at(io, proc.get(), "version", O_RDONLY)).get() > 2);
    CHECK_THROWS_AS(io.run(open_at(io, proc.get(), "not there", O_RDONLY)), error);
    CHECK_THROWS_AS(io.run(open_at(io, 9999, "version", O_RDONLY)), error);
}

TEST_CASE("a FIFO in non-blocking mode is opened at once on each backend", "[files]") {
    KUMIKI_ON_BOTH_BACKENDS(io);
    const scratch place;
    const std::string path = place.path() + "/fifo";
    REQUIRE(::mkfifo(path.c_str(), 0600) == 0);
    const unique_fd end = io.run(open_at(io, AT_FDCWD, path, O_RDONLY | O_NONBLOCK));
    CHECK((::fcntl(end.get(), F_GETFL) & O_NONBLOCK) != 0);
    try {
        io.run(open_at(io, AT_FDCWD, path + "/none", O_WRONLY | O_NONBLOCK));
        FAIL("a FIFO is no directory");
    } catch (const error& refused) {
        CHECK(refused.errno_value() == ENOTDIR);
    }
}

TEST_CASE("an open that is stopped leaves no descriptor", "[files]") {
    KUMIKI_ON_BOTH_BACKENDS(io);
    const scratch place;
    const std::string path = place.path() + "/fifo";
    REQUIRE(::mkfifo(path.c_str(), 0600) == 0);
    const auto before = names_in("/proc/self/fd").size();
    std::atomic<bool> done = false;
    std::thread other([&path, &done] {  // lets an open that waits for the other end go on
        std::this_thread::sleep_for(10ms);
        const unique_fd end(::open(path.c_str(), O_RDWR | O_CLOEXEC));
        while (!done) std::this_thread::sleep_for(1ms);
    });
    for (int i = 0; i < 20; ++i) {
        std::stop_source stop;
        stop.request_stop();
        CHECK_THROWS_AS(io.run(open_and_close(io, path, O_RDONLY, 0), stop.get_token()), cancelled);
        (void)io.run(opens_within(io, path, 1ms));  // either outcome is fine
    }
    done = true;
    other.join();
    CHECK(names_in("/proc/self/fd").size() <= before + 1);  // the pool's own, at most
    CHECK(io.counters().in_flight == 0);
}

TEST_CASE("a descriptor is closed though the task is stopped", "[files]") {
    KUMIKI_ON_BOTH_BACKENDS(io);
    auto pipe = make_pipe();
    const int number = pipe.first.get();
    std::stop_source stop;
    CHECK_THROWS_AS(io.run(close_though_stopped(io, std::move(pipe.first), stop), stop.get_token()),
                    cancelled);
    CHECK_FALSE(is_open(number));
    const int second = pipe.second.get();
    {
        auto unused = close_it(io, std::move(pipe.second));  // never run
        CHECK(is_open(second));
    }
    CHECK_FALSE(is_open(second));
}

TEST_CASE("closing what is not open is an error", "[files]") {
    KUMIKI_ON_BOTH_BACKENDS(io);
    try {
        io.run(close_it(io, unique_fd(9999)));
        FAIL("it is not open");
    } catch (const error& refused) {
        CHECK(refused.errno_value() == EBADF);
    }
}
