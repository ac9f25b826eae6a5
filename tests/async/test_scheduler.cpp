#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/mount.h>
#include <sys/uio.h>

#include <atomic>
#include <cstring>
#include <thread>

#include <kumiki/async/scheduler.hpp>
#include <kumiki/async/timeout.hpp>
#include <kumiki/async/when.hpp>
#include <kumiki/core/observer.hpp>

#include "async/both_backends.hpp"

using namespace kumiki;
using namespace kumiki_test;
using namespace std::chrono_literals;

namespace {

task<std::string> read_some(scheduler& io, int fd) {
    std::string text(64, '\0');
    const std::size_t count = co_await io.read(fd, writable(text));
    text.resize(count);
    co_return text;
}
task<void> write_later(scheduler& io, int fd, std::string text) {
    co_await io.yield();
    co_await write_all(io, fd, bytes_of(text));
}
task<std::string> talk(scheduler& io, int reader, int writer) {
    auto both = co_await when_all(read_some(io, reader), write_later(io, writer, "hello"));
    co_return std::get<0>(both);
}
task<int> error_of(task<std::size_t> work) {
    try {
        co_await std::move(work);
    } catch (const error& failed) {
        co_return failed.errno_value();
    }
    co_return 0;
}
template <class Operation>
task<std::size_t> as_task(Operation operation) {
    const std::size_t count = co_await std::move(operation);
    co_return count;
}
task<unsigned> poll_once(scheduler& io, int fd, unsigned events) {
    const unsigned seen = co_await io.poll(fd, events);
    co_return seen;
}
task<int> answer(scheduler& io) {
    co_await io.yield();
    co_return 42;
}

unique_fd listener(sockaddr_in& address) {
    unique_fd fd(sys::check(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), "socket"));
    address = {};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    sys::check(::bind(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof address), "bind");
    sys::check(::listen(fd.get(), 8), "listen");
    socklen_t size = sizeof address;
    sys::check(::getsockname(fd.get(), reinterpret_cast<sockaddr*>(&address), &size), "name");
    return fd;
}
task<void> connect_to(scheduler& io, int fd, sockaddr_in address) {
    co_await io.connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address);
}
task<unique_fd> accept_one(scheduler& io, int fd) {
    auto connection = co_await io.accept(fd);
    co_return connection;
}
task<std::string> echo(scheduler& io, int listening, int client, sockaddr_in address) {
    auto both = co_await when_all(accept_one(io, listening), connect_to(io, client, address));
    const unique_fd server = std::move(std::get<0>(both));
    const std::size_t sent = co_await io.send(client, bytes_of("ping"));
    std::string text(sent, '\0');
    const std::size_t got = co_await io.recv(server.get(), writable(text));
    text.resize(got);
    co_return text;
}

}  // namespace

TEST_CASE("a scheduler says which backend it has", "[scheduler]") {
    KUMIKI_ON_BOTH_BACKENDS(io);
    CHECK(io.backend() == io_backend);
    CHECK(io.fallback_reason().empty());
    CHECK(std::string(to_string(io_backend::epoll)) == "epoll");
}

TEST_CASE("run() yields the result of a function for main", "[scheduler]") {
    CHECK(kumiki::run(answer) == 42);
    CHECK(kumiki::run(answer, {.backend = io_backend::epoll}) == 42);
}

TEST_CASE("a read waits for a write, in blocking and in non-blocking mode", "[scheduler]") {
    KUMIKI_ON_BOTH_BACKENDS(io);
    const int flags = GENERATE(0, O_NONBLOCK);
    const auto pipe = make_pipe(flags);
    CHECK(io.run(talk(io, pipe.first.get(), pipe.second.get())) == "hello");
    const auto sockets = make_socket_pair();
    CHECK(io.run(talk(io, sockets.first.get(), sockets.second.get())) == "hello");
}

TEST_CASE("write_all writes more than a pipe holds", "[scheduler]") {
    KUMIKI_ON_BOTH_BACKENDS(io);
    const auto pipe = make_pipe(GENERATE(0, O_NONBLOCK));
    constexpr std::size_t size = 300'000;
    const auto drain = [](scheduler& on, int fd) -> task<std::size_t> {
        std::size_t total = 0;
        while (total < size) {
            const std::string part = co_await read_some(on, fd);
            total += part.size();
        }
        co_return total;
    };
    const auto both = [](scheduler& on, task<std::size_t> a, task<void> b) -> task<std::size_t> {
        (void)on;
        auto done = co_await when_all(std::move(a), std::move(b));
        co_return std::get<0>(done);
    };
    CHECK(io.run(both(io, drain(io, pipe.first.get()),
                      write_later(io, pipe.second.get(), std::string(size, 'x')))) == size);
}

TEST_CASE("a regular file is read and written", "[scheduler]") {
    KUMIKI_ON_BOTH_BACKENDS(io);
    char name[] = "/tmp/kumiki-test-XXXXXX";
    const unique_fd file(sys::check(::mkostemp(name, O_CLOEXEC), "mkostemp"));
    ::unlink(name);
    io.run(write_all(io, file.get(), bytes_of("on disk")));
    REQUIRE(::lseek(file.get(), 0, SEEK_SET) == 0);
    CHECK(io.run(read_some(io, file.get())) == "on disk");
    CHECK(io.run(read_some(io, file.get())).empty());
}

TEST_CASE("a file of the kernel's is read", "[scheduler]") {
    KUMIKI_ON_BOTH_BACKENDS(io);
    const unique_fd file(
        sys::check(::open("/proc/self/comm", O_RDONLY | O_CLOEXEC), "open", "/proc/self/comm"));
    CHECK(io.run(read_some(io, file.get())).ends_with("\n"));
}

TEST_CASE("a connection is made, accepted and used", "[scheduler]") {
    KUMIKI_ON_BOTH_BACKENDS(io);
    sockaddr_in address{};
    const unique_fd listening = listener(address);
    const unique_fd client(sys::check(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), "socket"));
    CHECK(io.run(echo(io, listening.get(), client.get(), address)) == "ping");
    CHECK((::fcntl(client.get(), F_GETFL) & O_NONBLOCK) == 0);
}

TEST_CASE("a refused connection is an error with its errno", "[scheduler]") {
    KUMIKI_ON_BOTH_BACKENDS(io);
    sockaddr_in address{};
    listener(address).reset();
    const unique_fd client(sys::check(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), "socket"));
    try {
        io.run(connect_to(io, client.get(), address));
        FAIL("connected");
    } catch (const error& refused) {
        CHECK(refused.errno_value() == ECONNREFUSED);
        CHECK(refused.operation() == "connect");
    }
}

TEST_CASE("a descriptor is passed in a message", "[scheduler]") {
    KUMIKI_ON_BOTH_BACKENDS(io);
    const auto sockets = make_socket_pair();
    char byte = 'x';
    iovec part{&byte, 1};
    alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
    msghdr message{};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    message.msg_control = control;
    message.msg_controllen = sizeof control;
    cmsghdr* const header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(int));
    const int sent = sockets.first.get();
    std::memcpy(CMSG_DATA(header), &sent, sizeof sent);
    CHECK(io.run(as_task(io.send_message(sockets.first.get(), message))) == 1);
    std::memset(control, 0, sizeof control);
    CHECK(io.run(as_task(io.recv_message(sockets.second.get(), message, MSG_CMSG_CLOEXEC))) == 1);
    int received = -1;
    std::memcpy(&received, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof received);
    const unique_fd owned(received);
    CHECK(::fcntl(owned.get(), F_GETFD) == FD_CLOEXEC);
}

TEST_CASE("operations on what is no open descriptor fail with EBADF", "[scheduler]") {
    KUMIKI_ON_BOTH_BACKENDS(io);
    std::string text(8, '\0');
    const int bad = GENERATE(-1, 1'000'000);
    CHECK(io.run(error_of(as_task(io.read(bad, writable(text))))) == EBADF);
    CHECK(io.run(error_of(as_task(io.write(bad, bytes_of("x"))))) == EBADF);
    CHECK(io.run(error_of(as_task(io.recv(bad, writable(text))))) == EBADF);
    CHECK(io.run(error_of(as_task(io.send(bad, bytes_of("x"))))) == EBADF);
    CHECK(io.run(error_of(as_task(io.poll(bad, POLLIN)))) == EBADF);
    CHECK_THROWS_AS(io.run(accept_one(io, bad)), error);
    CHECK_THROWS_AS(io.run(connect_to(io, bad, {})), error);
}

TEST_CASE("a send to a closed peer fails with EPIPE and no signal", "[scheduler]") {
    KUMIKI_ON_BOTH_BACKENDS(io);
    auto sockets = make_socket_pair();
    sockets.second.reset();
    CHECK(io.run(error_of(as_task(io.send(sockets.first.get(), bytes_of("x"))))) == EPIPE);
}

TEST_CASE("an error names the operation, the descriptor and the caller", "[scheduler]") {
    KUMIKI_ON_BOTH_BACKENDS(io);
    try {
        io.run(poll_once(io, -1, POLLIN));
        FAIL("no error");
    } catch (const error& failed) {
        CHECK(failed.operation() == "poll");
        CHECK(failed.object() == "descriptor -1");
        CHECK(std::string(failed.where().file_name()).ends_with("test_scheduler.cpp"));
    }
}

TEST_CASE("poll yields what is there, also a hangup that was not asked for", "[scheduler]") {
    KUMIKI_ON_BOTH_BACKENDS(io);
    auto pipe = make_pipe();
    CHECK(io.run(poll_once(io, pipe.second.get(), POLLOUT)) == POLLOUT);
    put(pipe.second.get(), "x");
    CHECK((io.run(poll_once(io, pipe.first.get(), POLLIN)) & POLLIN) != 0);
    pipe.second.reset();
    CHECK((io.run(poll_once(io, pipe.first.get(), POLLPRI)) & POLLHUP) != 0);
}

TEST_CASE("two operations wait on one descriptor", "[scheduler]") {
    KUMIKI_ON_BOTH_BACKENDS(io);
    const auto sockets = make_socket_pair();
    const auto all = [](scheduler& on, int a, int b) -> task<std::string> {
        auto seen = co_await when_all(read_some(on, a), poll_once(on, a, POLLIN),
                                      poll_once(on, a, POLLOUT), write_later(on, b, "both"));
        co_return std::get<0>(seen);
    };
    CHECK(io.run(all(io, sockets.first.get(), sockets.second.get())) == "both");
}

TEST_CASE("poll for POLLPRI sees a change of a file of the kernel's", "[scheduler]") {
    KUMIKI_ON_BOTH_BACKENDS(io);
    unique_fd mounts;
    std::atomic<bool> change = false;
    std::atomic<bool> made = false;
    // The thread has a mount namespace of its own, which is gone with it.
    std::thread other([&] {
        if (::unshare(CLONE_NEWNS | CLONE_FS) == 0 &&
            ::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0) {
            mounts.reset(::open("/proc/thread-self/mounts", O_RDONLY | O_CLOEXEC));
            made = true;
        }
        made.notify_all();
        io.post([&] {
            change = true;
            change.notify_all();
        });
        if (!made) return;
        change.wait(false);
        ::mount("none", "/tmp", "tmpfs", 0, nullptr);
    });
    const auto watch = [](scheduler& on, const unique_fd& file,
                          const std::atomic<bool>& go) -> task<unsigned> {
        while (!go) co_await on.sleep_for(1ms);
        if (!file) co_return 0;
        const unsigned seen = co_await on.poll(file.get(), POLLPRI);
        co_return seen;
    };
    const unsigned seen = io.run(watch(io, mounts, change));
    other.join();
    if (!mounts) KUMIKI_SKIP("no mount namespace can be made here");
    CHECK((seen & POLLPRI) != 0);
}

TEST_CASE("sleeping tasks wake in the order of their times", "[scheduler]") {
    KUMIKI_ON_BOTH_BACKENDS(io);
    const auto sleeper = [](scheduler& on, std::chrono::milliseconds span, int id,
                            std::string& log) -> task<void> {
        co_await on.sleep_for(span);
        log += std::to_string(id);
    };
    std::string log;
    const auto start = std::chrono::steady_clock::now();
    io.run(when_all(sleeper(io, 30ms, 3, log), sleeper(io, 10ms, 1, log), sleeper(io, 20ms, 2, log),
                    sleeper(io, -5ms, 0, log)));
    CHECK(log == "0123");
    CHECK(std::chrono::steady_clock::now() - start >= 30ms);
}

TEST_CASE("a function is posted from another thread", "[scheduler]") {
    KUMIKI_ON_BOTH_BACKENDS(io);
    int calls = 0;
    std::thread other([&] {
        for (int i = 0; i < 1000; ++i) io.post([&calls] { ++calls; });
    });
    const auto wait = [](scheduler& on, const int& count) -> task<void> {
        while (count < 1000) co_await on.sleep_for(1ms);
    };
    io.run(wait(io, calls));
    other.join();
    CHECK(calls == 1000);
}

TEST_CASE("a posted function that is not called any more is released", "[scheduler]") {
    const auto held = std::make_shared<int>(1);
    {
        scheduler io;
        io.post([held] {});
        CHECK(held.use_count() == 2);
    }
    CHECK(held.use_count() == 1);
}

TEST_CASE("a scheduler refuses a nested run and a run on another thread", "[scheduler]") {
    KUMIKI_ON_BOTH_BACKENDS(io);
    const auto nested = [](scheduler& on) -> task<int> { co_return on.run(answer(on)); };
    CHECK_THROWS_AS(io.run(nested(io)), error);
    bool refused = false;
    std::thread([&] {
        try {
            io.run(answer(io));
        } catch (const error&) {
            refused = true;
        }
    }).join();
    CHECK(refused);
    CHECK(io.run(answer(io)) == 42);
}

TEST_CASE("tasks take turns though they are always ready", "[scheduler]") {
    KUMIKI_ON_BOTH_BACKENDS(io);
    const auto pipe = make_pipe();
    const auto spin = [](scheduler& on, const std::atomic<bool>& stop) -> task<int> {
        int turns = 0;
        for (; !stop; ++turns) co_await on.yield();
        co_return turns;
    };
    const auto end = [](scheduler& on, int reader, int writer,
                        std::atomic<bool>& stop) -> task<void> {
        co_await write_later(on, writer, "x");
        const std::string text = co_await read_some(on, reader);
        stop = text == "x";
    };
    std::atomic<bool> stop = false;
    io.run(when_all(spin(io, stop), end(io, pipe.first.get(), pipe.second.get(), stop)));
    CHECK(stop);
}

TEST_CASE("an idle scheduler is not woken", "[scheduler]") {
    KUMIKI_ON_BOTH_BACKENDS(io);
    const auto switches = [] {
        rusage used{};
        ::getrusage(RUSAGE_THREAD, &used);
        return used.ru_nvcsw;
    };
    const auto pipe = make_pipe();
    const auto idle = [](scheduler& on, int fd) -> task<bool> {
        auto text = co_await with_timeout(on, 300ms, read_some(on, fd));
        co_return text.has_value();
    };
    const auto before = switches();
    CHECK(!io.run(idle(io, pipe.first.get())));
    CHECK(switches() - before <= 20);  // one sleep and some noise; a poll each 10 ms would be 30
}
