// The facts about io_uring that the scheduler depends on, U1 to U21, seen from the kernel's side.
//
//   U1   close-on-exec, not in a child's memory   U1 here; "the ring's memory is not there ..."
//                                                 (test_ring)
//   U2   a child never submits                    no opcode can be reached between clone3 and
//                                                 execve: tests/checks/child, test_strace (container)
//   U3   its kernel threads are threads of ours   U3 here; "pipes in blocking mode ..." (test_ring)
//   U4   those keep old namespaces, root, rights  does not apply: only files.hpp opens by path, and
//                                                 says so; sockets are made by direct calls
//   U5   kernel files go to such a thread         U5 here; "a file of the kernel's is read"
//                                                 (test_scheduler)
//   U6   what was in flight is let go of late     U6 here; "a closed scheduler leaves no descriptor
//                                                 and no thread" (test_operation)
//   U7   close() does not end a wait              U7 here; "a descriptor number is used again ..."
//                                                 (test_epoll)
//   U8   memory until the last completion         "nothing is written into memory ...", "a frame
//                                                 that is destroyed ..." (test_operation), stress
//   U9   ids are not used again; two completions  U9 here; "an id of the table ..." (test_operation)
//   U10  overflow, multishot ends with it         "completions that do not fit ..." (test_ring), "a
//                                                 ring that is too small ..." (test_poll_stream)
//   U11  WAITID only where it is mended           "a kernel's release says ..." and all others of
//                                                 test_process, each way
//   U12  POLLPRI of kernel files                  U12 here; "poll for POLLPRI ..." (test_scheduler)
//   U13  denied in many ways                      "a denied io_uring falls back ..." (test_ring)
//   U14  probed, never known by a version         "the ring has the best flags ..." (test_ring)
//   U15  DEFER_TASKRUN: one thread waits          U15 here
//   U16  no SQPOLL                                "the ring has the best flags ..." (test_ring)
//   U17  a full queue; one refused among many     U17 here, twice; no links are made
//   U18  no iowait while it sleeps                U18 here
//   U19  memory is the creator's cgroup's         does not apply: a scheduler is made by the
//                                                 supervisor, which does not move itself
//   U20  not for a container                      U1 here; test_seccomp_profile (security)
//   U21  SIGKILL releases in the background       U21 here

#include <netinet/in.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include <algorithm>
#include <atomic>
#include <filesystem>
#include <fstream>
#include <thread>
#include <vector>

#include <kumiki/async/poll_stream.hpp>
#include <kumiki/async/scope.hpp>
#include <kumiki/async/timeout.hpp>

#include "async/both_backends.hpp"
#include "cgroup/fixture.hpp"

using namespace kumiki;
using namespace kumiki_test;
using namespace std::chrono_literals;

namespace {

std::vector<int> open_descriptors() {
    std::vector<int> all;
    for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd"))
        all.push_back(std::stoi(entry.path().filename()));
    return all;
}

int descriptor_of(std::string_view target) {
    for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd"))
        if (std::filesystem::is_symlink(entry) &&
            std::filesystem::read_symlink(entry).string() == target)
            return std::stoi(entry.path().filename());
    return -1;
}

task<void> read_byte(scheduler& io, int fd, std::size_t& size) {
    std::byte byte[1];
    size = co_await io.read(fd, byte);
}
task<void> poll_and_count(scheduler& io, int fd, int& seen) {
    co_await io.poll(fd, POLLIN);
    ++seen;
}
task<void> poll_all(scheduler& io, int fd, int writer, int count, int& seen) {
    scope tasks(io);
    for (int i = 0; i < count; ++i) tasks.spawn(poll_and_count(io, fd, seen));
    co_await io.sleep_for(1ms);
    put(writer, "x");
    co_await tasks.join();
}
task<void> close_under_a_wait(scheduler& io, descriptor_pair& pipe, bool& ended, bool& stopped) {
    scope tasks(io);
    const auto wait = [](scheduler& on, int fd, bool& done, bool& cut) -> task<void> {
        try {
            co_await on.poll(fd, POLLIN);
            done = true;
        } catch (const cancelled&) {
            cut = true;
        }
    };
    tasks.spawn(wait(io, pipe.first.get(), ended, stopped));
    co_await io.sleep_for(1ms);
    pipe.first.reset();
    co_await io.sleep_for(5ms);
    if (ended || stopped) co_return;
    tasks.cancel();
    co_await tasks.join();
}
/// Operations that complete in the very moment in which they are cancelled.
task<void> cancel_and_complete(scheduler& io, int rounds, int& outcomes) {
    for (int i = 0; i < rounds; ++i) {
        const auto pipe = make_pipe();
        scope tasks(io);
        std::size_t size = 0;
        tasks.spawn(read_byte(io, pipe.first.get(), size));
        co_await io.yield();
        co_await io.yield();
        if (i % 2 == 0) put(pipe.second.get(), "x");
        tasks.cancel();
        if (i % 2 == 1) put(pipe.second.get(), "x");
        co_await tasks.join();
        std::byte byte[1];
        if (size == 0) {  // cancelled: then nobody has taken the byte
            const auto got = co_await with_timeout(io, 10s, io.read(pipe.first.get(), byte));
            if (got == 1U) ++outcomes;
        } else {
            ++outcomes;
        }
    }
}
int blocked_processes() {
    std::ifstream stat("/proc/stat");
    for (std::string word; stat >> word;)
        if (word == "procs_blocked") {
            int count = -1;
            stat >> count;
            return count;
        }
    return -1;
}

task<void> read_all(scheduler& io, const std::vector<unique_fd>& files, std::size_t& bytes) {
    std::vector<std::size_t> sizes(files.size());
    scope tasks(io);
    for (std::size_t i = 0; i < files.size(); ++i)
        tasks.spawn(read_byte(io, files[i].get(), sizes[i]));
    co_await tasks.join();
    for (const std::size_t size : sizes) bytes += size;
}
/// A listening socket; port 0 becomes one that is free. Without SO_REUSEADDR.
unique_fd listen_on(std::uint16_t& port) {
    unique_fd made(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_in address{.sin_family = AF_INET,
                        .sin_port = htons(port),
                        .sin_addr = {.s_addr = htonl(INADDR_LOOPBACK)},
                        .sin_zero = {}};
    socklen_t length = sizeof address;
    auto* const any = reinterpret_cast<sockaddr*>(&address);
    if (::bind(made.get(), any, length) != 0 || ::listen(made.get(), 1) != 0) return {};
    if (::getsockname(made.get(), any, &length) == 0) port = ntohs(address.sin_port);
    return made;
}
task<void> accept_one(scheduler& io, int fd) {
    const unique_fd connection = co_await io.accept(fd);
}
/// The id under which the kernel knows an operation, which is then over.
task<void> remember_id(scheduler& io, detail::poll_operation& wait, std::uint64_t& id) {
    scope tasks(io);
    const auto look = [](const detail::poll_operation& at, std::uint64_t& into) -> task<void> {
        into = at.id();
        co_return;
    };
    tasks.spawn(look(wait, id));
    co_await wait;
    co_await tasks.join();
}
/// What a poll for POLLPRI sees within `patience`; 0 for nothing.
task<unsigned> changes(scheduler& io, int fd, std::chrono::nanoseconds patience) {
    const auto seen = co_await with_timeout(io, patience, io.poll(fd, POLLPRI));
    co_return seen.value_or(0U);
}
std::optional<std::uint64_t> populated(int fd) {
    char text[256];
    const ssize_t size = ::pread(fd, text, sizeof text, 0);
    if (size < 0) return std::nullopt;
    return flat_value(std::string_view(text, static_cast<std::size_t>(size)), "populated");
}
/// A connect whose address is longer than any is refused before it is begun.
task<void> connect_in_vain(scheduler& io, int fd, int& refused) {
    static const sockaddr_storage address[8] = {};
    try {
        co_await io.connect(fd, reinterpret_cast<const sockaddr*>(address), sizeof address);
    } catch (const error& bad) {
        if (bad.errno_value() == EINVAL) ++refused;
    }
}
task<void> with_refused_ones(scheduler& io, int pipe, int socket, int& seen, int& refused) {
    scope tasks(io);
    for (int i = 0; i < 20; ++i) {
        tasks.spawn(connect_in_vain(io, socket, refused));
        tasks.spawn(poll_and_count(io, pipe, seen));
    }
    co_await tasks.join();
}

}  // namespace

TEST_CASE("U1: every descriptor of a scheduler is close-on-exec", "[facts]") {
    const auto before = open_descriptors();
    KUMIKI_ON_BOTH_BACKENDS(io);
    (void)io.pollable_fd();
    int seen = 0;
    for (const int fd : open_descriptors()) {
        if (std::find(before.begin(), before.end(), fd) != before.end()) continue;
        const int flags = ::fcntl(fd, F_GETFD);
        if (flags < 0) continue;  // of the listing itself
        CHECK((flags & FD_CLOEXEC) != 0);
        ++seen;
    }
    CHECK(seen >= 3);
}

TEST_CASE("U7: closing a descriptor does not end a wait on it, and a stop does", "[facts]") {
    if (!has_io_uring()) KUMIKI_SKIP("io_uring is denied on this host");
    scheduler io({.backend = io_backend::io_uring});
    auto pipe = make_pipe();
    bool ended = false;
    bool stopped = false;
    io.run(close_under_a_wait(io, pipe, ended, stopped));
    CHECK_FALSE(ended);
    CHECK(stopped);
    CHECK(io.counters().in_flight == 0);
}

TEST_CASE("U9: an operation that completes while it is cancelled has one outcome", "[facts]") {
    KUMIKI_ON_BOTH_BACKENDS(io);
    int outcomes = 0;
    io.run(cancel_and_complete(io, 500, outcomes));
    CHECK(outcomes == 500);
    CHECK(io.counters().in_flight == 0);
    CHECK(io.counters().submitted == io.counters().completed);
}

TEST_CASE("U17: more operations than the submission queue holds are all handed over", "[facts]") {
    if (!has_io_uring()) KUMIKI_SKIP("io_uring is denied on this host");
    scheduler io({.backend = io_backend::io_uring, .ring_entries = 1});
    const auto pipe = make_pipe();
    int seen = 0;
    io.run(poll_all(io, pipe.first.get(), pipe.second.get(), 200, seen));
    CHECK(seen == 200);
}

TEST_CASE("U15: a ring that was made on one thread is not entered on another", "[facts]") {
    if (!has_io_uring()) KUMIKI_SKIP("io_uring is denied on this host");
    scheduler io({.backend = io_backend::io_uring});
    const auto& handle = dynamic_cast<detail::ring&>(io.loop().through()).handle();
    if ((handle.setup_flags() & IORING_SETUP_DEFER_TASKRUN) == 0)
        KUMIKI_SKIP("no DEFER_TASKRUN on this kernel");
    std::thread([&io] { CHECK_THROWS_AS(io.run(io.sleep_for(1ms)), error); }).join();
    io.run(io.sleep_for(1ms));  // and it is of use still
}

TEST_CASE("U18: a scheduler that sleeps does not count as one that waits for I/O", "[facts]") {
    if (!has_io_uring()) KUMIKI_SKIP("io_uring is denied on this host");
    {
        scheduler probe({.backend = io_backend::io_uring});
        if (!dynamic_cast<detail::ring&>(probe.loop().through()).handle().is_never_iowait())
            KUMIKI_SKIP("no IORING_FEAT_NO_IOWAIT on this kernel (6.15)");
    }
    if (blocked_processes() < 0) KUMIKI_SKIP("/proc/stat does not say procs_blocked");
    constexpr int count = 64;
    std::atomic<int> sleeping = 0;
    std::vector<std::jthread> threads;
    for (int i = 0; i < count; ++i)
        threads.emplace_back([&sleeping](const std::stop_token& stop) {
            scheduler io({.backend = io_backend::io_uring});
            ++sleeping;
            try {
                io.run(never(io), stop);
            } catch (const cancelled&) {}
        });
    while (sleeping < count) std::this_thread::yield();
    int fewest = count;
    for (int i = 0; i < 50 && fewest >= count / 2; ++i) {
        std::this_thread::sleep_for(10ms);
        fewest = std::min(fewest, blocked_processes());
    }
    CHECK(fewest < count / 2);  // others on this machine may wait for their disks
}

TEST_CASE("U21: the kernel lets go of what a killed process had in flight", "[facts]") {
    const io_backend which = GENERATE(io_backend::io_uring, io_backend::epoll);
    if (which == io_backend::io_uring && !has_io_uring()) KUMIKI_SKIP("io_uring is denied");
    auto pipe = make_pipe();
    auto ready = make_pipe();
    const pid_t child = ::fork();
    REQUIRE(child >= 0);
    if (child == 0) {
        pipe.first.reset();
        scheduler io({.backend = which});
        const auto wait = [](scheduler& on, int fd, int tell) -> task<void> {
            const auto say = [](scheduler& in, int to) -> task<void> {
                co_await in.sleep_for(5ms);
                put(to, "r");
            };
            scope tasks(on);
            tasks.spawn(say(on, tell));
            co_await on.poll(fd, POLLERR);  // holds the write end
            co_await tasks.join();
        };
        io.run(wait(io, pipe.second.get(), ready.second.get()));
        ::_exit(0);
    }
    pipe.second.reset();
    ready.second.reset();
    char byte = 0;
    REQUIRE(::read(ready.first.get(), &byte, 1) == 1);
    REQUIRE(::kill(child, SIGKILL) == 0);
    int status = 0;
    REQUIRE(::waitpid(child, &status, 0) == child);
    CHECK(WIFSIGNALED(status));
    scheduler io;
    std::size_t size = 1;
    CHECK(io.run(with_timeout(io, 10s, read_byte(io, pipe.first.get(), size))));
    CHECK(size == 0);
}

TEST_CASE("U3: sockets, timers, stops and children make no kernel thread", "[facts]") {
    if (!has_io_uring()) KUMIKI_SKIP("io_uring is denied on this host");
    std::thread([] {
        scheduler io({.backend = io_backend::io_uring});
        const auto sockets = make_socket_pair();
        const auto use = [](scheduler& on, int one, int other) -> task<void> {
            std::byte byte[1] = {};
            for (int i = 0; i < 50; ++i) {
                const auto late = co_await with_timeout(on, 100us, on.recv(other, byte));
                if (late) throw std::logic_error("received what was not sent");
                co_await on.send(one, byte);
                co_await on.recv(other, byte);
                co_await on.sleep_for(10us);
            }
        };
        io.run(use(io, sockets.first.get(), sockets.second.get()));
        const pid_t child = ::fork();
        REQUIRE(child >= 0);
        if (child == 0) ::_exit(3);
        const auto pidfd = sys::open_pidfd(child);
        CHECK(io.run(io.wait_exit(pidfd.get())).code == 3);
        CHECK(ring_workers() == 0);
    }).join();
}

TEST_CASE("U5: files of the kernel's, read all at once, take one kernel thread at most",
          "[facts]") {
    if (!has_io_uring()) KUMIKI_SKIP("io_uring is denied on this host");
    std::thread([] {
        scheduler io({.backend = io_backend::io_uring});
        std::vector<unique_fd> files;
        for (int i = 0; i < 64; ++i)
            files.push_back(sys::open_at(AT_FDCWD, "/proc/self/status", O_RDONLY));
        std::size_t bytes = 0;
        io.run(read_all(io, files, bytes));
        CHECK(bytes == 64);
        CHECK(ring_workers() <= 1);
        unsigned limits[2] = {0, 0};  // of bounded and of unbounded work; 0 asks for what is set
        CHECK(io_uring_register(static_cast<unsigned>(descriptor_of("anon_inode:[io_uring]")),
                                IORING_REGISTER_IOWQ_MAX_WORKERS, limits, 2) == 0);
        CHECK(limits[0] == 1);
    }).join();
}

TEST_CASE("U6: a port is free again as soon as a wait for a connection was stopped", "[facts]") {
    KUMIKI_ON_BOTH_BACKENDS(io);
    std::uint16_t port = 0;
    for (int i = 0; i < 50; ++i) {
        unique_fd listener = listen_on(port);
        REQUIRE(listener);
        if (i % 2 == 0) {
            CHECK_FALSE(io.run(with_timeout(io, 100us, io.accept(listener.get()))));
        } else {
            const in_flight left(io, accept_one(io, listener.get()));
        }
    }
}

TEST_CASE("U9: a late completion of an operation that is over resumes nobody", "[facts]") {
    if (!has_io_uring()) KUMIKI_SKIP("io_uring is denied on this host");
    scheduler io({.backend = io_backend::io_uring});
    const auto pipe = make_pipe();
    put(pipe.second.get(), "x");
    auto first = io.poll(pipe.first.get(), POLLIN);
    std::uint64_t old = 0;
    io.run(remember_id(io, first, old));
    std::byte byte[1];
    REQUIRE(::read(pipe.first.get(), byte, 1) == 1);

    int seen = 0;
    in_flight second(io, poll_and_count(io, pipe.first.get(), seen));
    REQUIRE(io.loop().operations.size() == 1);
    const std::uint64_t now = io.loop().operations.any()->id();
    REQUIRE(now != old);
    REQUIRE(static_cast<std::uint32_t>(now) == static_cast<std::uint32_t>(old));  // its place
    auto& handle =
        const_cast<detail::ring_handle&>(dynamic_cast<detail::ring&>(io.loop().through()).handle());
    for (int i = 0; i < 3; ++i) {
        io_uring_sqe* const entry = handle.entry();
        REQUIRE(entry != nullptr);
        io_uring_prep_nop(entry);
        io_uring_sqe_set_data64(entry, old);
    }
    io.run(io.sleep_for(2ms));
    CHECK(seen == 0);
    CHECK(io.loop().operations.any()->id() == now);
    put(pipe.second.get(), "x");
    io.run(io.sleep_for(2ms));
    CHECK(seen == 1);
    CHECK(second.is_done());
}

TEST_CASE("U12: a group's file tells of each change after it was read, and of nothing else",
          "[facts]") {
    if (const auto why = missing(); !why.empty()) KUMIKI_SKIP(why);
    auto root = make_root();
    KUMIKI_ON_BOTH_BACKENDS(io);
    cgroup group = root.create("facts");
    const unique_fd file = sys::open_at(group.fd(), "cgroup.events", O_RDONLY);
    CHECK(populated(file.get()) == 0U);
    CHECK(io.run(changes(io, file.get(), 20ms)) == 0);
    {
        const child inside(group);
        REQUIRE(inside.pid() > 0);
        CHECK((io.run(changes(io, file.get(), 10s)) & (POLLPRI | POLLERR)) == (POLLPRI | POLLERR));
        CHECK(io.run(changes(io, file.get(), 20ms)) != 0);  // until it is read
        CHECK(populated(file.get()) == 1U);
        CHECK(io.run(changes(io, file.get(), 20ms)) == 0);
    }
    CHECK((io.run(changes(io, file.get(), 10s)) & POLLPRI) != 0);
    CHECK(populated(file.get()) == 0U);
    group = cgroup();
    std::byte text[16];
    try {
        io.run(io.read(file.get(), text));
        FAIL("the group is there still");
    } catch (const error& gone) {
        CHECK(gone.errno_value() == ENODEV);
    }
}

TEST_CASE("U17: a submission that is refused does not hold up those behind it", "[facts]") {
    KUMIKI_ON_BOTH_BACKENDS(io);
    const auto pipe = make_pipe();
    const auto socket = make_socket_pair();
    put(pipe.second.get(), "x");
    int seen = 0;
    int refused = 0;
    io.run(with_refused_ones(io, pipe.first.get(), socket.first.get(), seen, refused));
    CHECK(seen == 20);
    CHECK(refused == 20);
}
