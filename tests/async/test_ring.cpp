#include <kumiki/async/ring.hpp>

#ifdef BLOCK_SIZE
#error "a macro of <linux/fs.h> is left behind"
#endif

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include <kumiki/async/scope.hpp>
#include <kumiki/async/when.hpp>
#include <kumiki/core/observer.hpp>

#include "async/both_backends.hpp"

using namespace kumiki;
using namespace kumiki_test;
using namespace std::chrono_literals;

namespace {

/// Makes io_uring_setup(2) fail with `code` in this process, for ever.
bool deny_io_uring(int code) {
    sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_io_uring_setup, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | static_cast<unsigned>(code)),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    const sock_fprog program{.len = 4, .filter = filter};
    return ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
           ::prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
}

struct listening_observer : observer {
    std::string heard;
    void notice(std::string_view text) noexcept override { heard = text; }
};

/// 0 when all is as it should be; in a child of its own.
int fall_back(int code) {
    if (!deny_io_uring(code)) return 10;
    listening_observer ear;
    set_observer(&ear);
    try {
        const scheduler forced({.backend = io_backend::io_uring});
        return 1;
    } catch (const error& denied) {
        if (denied.errno_value() != code || denied.operation() != "set up io_uring") return 2;
    }
    if (!ear.heard.empty()) return 3;
    scheduler io;
    if (io.backend() != io_backend::epoll) return 4;
    if (io.fallback_reason().find(errno_name(code)) == std::string_view::npos) return 5;
    if (ear.heard.find(errno_name(code)) == std::string::npos) return 6;
    io.run([](scheduler& on) -> task<void> { co_await on.sleep_for(1ms); }(io));
    set_observer(nullptr);
    return 0;
}

task<void> wait_readable(scheduler& io, int fd, int& seen) {
    const unsigned events = co_await io.poll(fd, POLLIN);
    if ((events & POLLIN) != 0) ++seen;
}

task<void> pass_bytes(scheduler& io, int reader, int writer, int count) {
    const auto read_all = [](scheduler& on, int fd, int total) -> task<void> {
        std::byte byte[1];
        for (int i = 0; i < total; ++i) {
            const auto size = co_await on.read(fd, byte);
            if (size != 1) throw std::logic_error("a byte is missing");
        }
    };
    const auto write_all_slowly = [](scheduler& on, int fd, int total) -> task<void> {
        const std::byte byte[1] = {};
        for (int i = 0; i < total; ++i) {
            co_await on.write(fd, byte);
            co_await on.yield();
        }
    };
    auto both = co_await when_all(read_all(io, reader, count), write_all_slowly(io, writer, count));
    (void)both;
}

}  // namespace

TEST_CASE("pipes in blocking mode are read without a kernel thread, on old kernels too", "[ring]") {
    if (!has_io_uring()) KUMIKI_SKIP("io_uring is denied on this host");
    std::thread([] {
        scheduler io({.backend = io_backend::io_uring});
        const auto pipe = make_pipe();
        io.run(pass_bytes(io, pipe.first.get(), pipe.second.get(), 100));
        CHECK(ring_workers() == 0);
    }).join();
}

TEST_CASE("a denied io_uring falls back to epoll, and says so", "[ring]") {
    const int code = GENERATE(EPERM, ENOSYS, EACCES, ENOMEM, EMFILE);
    const pid_t child = ::fork();
    REQUIRE(child >= 0);
    if (child == 0) ::_exit(fall_back(code));
    int status = 0;
    REQUIRE(::waitpid(child, &status, 0) == child);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 10) KUMIKI_SKIP("no seccomp filter here");
    INFO(errno_name(code));
    CHECK(status == 0);
}

TEST_CASE("completions that do not fit into the ring are not lost", "[ring]") {
    if (!has_io_uring()) KUMIKI_SKIP("io_uring is denied on this host");
    scheduler io({.backend = io_backend::io_uring, .ring_entries = 1, .completion_entries = 2});
    constexpr int count = 64;
    std::vector<descriptor_pair> pipes;
    for (int i = 0; i < count; ++i) pipes.push_back(make_pipe());
    int seen = 0;
    const auto all = [](scheduler& on, std::vector<descriptor_pair>& of, int& total) -> task<void> {
        scope tasks(on);
        for (const auto& pipe : of) tasks.spawn(wait_readable(on, pipe.first.get(), total));
        co_await on.sleep_for(1ms);  // all polls are armed
        for (const auto& pipe : of) put(pipe.second.get(), "x");
        co_await tasks.join();
    };
    io.run(all(io, pipes, seen));
    CHECK(seen == count);
    CHECK(io.counters().overflowed > 0);
}

TEST_CASE("the ring has the best flags that this kernel takes", "[ring]") {
    if (!has_io_uring()) KUMIKI_SKIP("io_uring is denied on this host");
    io_uring probe{};
    const bool best = io_uring_queue_init(
                          4, &probe, IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN) == 0;
    if (best) io_uring_queue_exit(&probe);
    scheduler io({.backend = io_backend::io_uring});
    const unsigned flags = dynamic_cast<detail::ring&>(io.loop().through()).handle().setup_flags();
    CHECK(((flags & IORING_SETUP_DEFER_TASKRUN) != 0) == best);
    CHECK((flags & IORING_SETUP_SQPOLL) == 0);
}

TEST_CASE("the ring's memory is not there in a child of fork", "[ring]") {
    if (!has_io_uring()) KUMIKI_SKIP("io_uring is denied on this host");
    const auto mappings = [] {
        const unique_fd maps(::open("/proc/self/maps", O_RDONLY | O_CLOEXEC));
        std::string text;
        char part[4096];
        for (ssize_t got; (got = ::read(maps.get(), part, sizeof part)) > 0;)
            text.append(part, static_cast<std::size_t>(got));
        return text.find("io_uring") != std::string::npos;
    };
    scheduler io({.backend = io_backend::io_uring});
    CHECK(mappings());
    const pid_t child = ::fork();
    REQUIRE(child >= 0);
    if (child == 0) ::_exit(mappings() ? 1 : 0);
    int status = 0;
    REQUIRE(::waitpid(child, &status, 0) == child);
    CHECK(status == 0);
}
