#include <sys/wait.h>
#include <unistd.h>

#include <string>

#include <kumiki/container/start_calls.hpp>

#include "security/child.hpp"
#include "support/catch.hpp"

using namespace kumiki;
using detail::has_not_executed;

static_assert(has_not_executed("12 (sh) S 1 12 12 0 -1 4194368 83 0 0"));  // 0x400040
static_assert(!has_not_executed("12 (sh) S 1 12 12 0 -1 4194304 83 0 0"));
static_assert(has_not_executed("12 (a) b) (c) S 1 12 12 0 -1 64 83 0 0"));
static_assert(!has_not_executed("12 (64) S 1 64 64 64 64) S 1 12 12 0 -1 0 64 64"));
static_assert(!has_not_executed(""));
static_assert(!has_not_executed("12 (sh)"));
static_assert(!has_not_executed("12 (sh) S 1 12 12 0 -1"));
static_assert(!has_not_executed("12 (sh) S 1 12 12 0 -1 x"));

namespace {

std::string stat_of(pid_t pid) {
    return sys::read_file_at(AT_FDCWD, "/proc/" + std::to_string(pid) + "/stat");
}

}  // namespace

TEST_CASE("the kernel tells a process that has executed something from one that has not") {
    int ends[2];
    REQUIRE(::pipe2(ends, O_CLOEXEC) == 0);
    const unique_fd in(ends[0]);
    unique_fd out(ends[1]);
    CHECK_FALSE(has_not_executed(stat_of(::getpid())));
    const kumiki_test::child forked([&] {
        ::close(ends[1]);
        ::pause();
    });
    CHECK(has_not_executed(stat_of(forked.pid())));
    const kumiki_test::child executed([&] { ::execl("/bin/sleep", "sleep", "30", nullptr); });
    out.reset();
    char byte = 0;
    CHECK(::read(in.get(), &byte, 1) == 0);  // the execve has closed the other end
    CHECK_FALSE(has_not_executed(stat_of(executed.pid())));
}

TEST_CASE("a listener is fetched from another process, or the error says why not") {
    const unique_fd file(::open("/etc/passwd", O_RDONLY | O_CLOEXEC));
    const kumiki_test::child holder([] { ::pause(); });
    const unique_fd process = sys::open_pidfd(holder.pid());
    const unique_fd fetched = detail::fetch_listener(process.get(), file.get());
    CHECK(sys::status_of(fetched.get()).st_ino == sys::status_of(file.get()).st_ino);
    CHECK((::fcntl(fetched.get(), F_GETFD) & FD_CLOEXEC) != 0);
    try {
        (void)detail::fetch_listener(process.get(), 1 << 20);
        CHECK(false);
    } catch (const error& failure) {
        CHECK(failure.errno_value() == EBADF);
        CHECK(failure.object() == "the filter's listener");
    }
    const int code = kumiki_test::exit_code_of([&] {
        if (::syscall(SYS_setresuid, 1000, 1000, 1000) != 0) ::_exit(1);
        try {
            (void)detail::fetch_listener(process.get(), file.get());
        } catch (const error& failure) {
            const bool told = failure.remedy().find("CAP_SYS_PTRACE") != std::string::npos;
            ::_exit(failure.errno_value() == EPERM && told ? 42 : 2);
        }
    });
    CHECK(code == 42);
}
