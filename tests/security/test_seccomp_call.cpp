#include <fcntl.h>
#include <linux/audit.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <memory>
#include <string>
#include <vector>

#include <kumiki/security/seccomp_call.hpp>

#include "security/filtered.hpp"
#include "support/catch.hpp"

using namespace kumiki;
using kumiki_test::asking_getppid;
using kumiki_test::filtered_child;

namespace {

using shared_fd = std::shared_ptr<const unique_fd>;

shared_fd listener_of(filtered_child& child) {
    return std::make_shared<const unique_fd>(std::move(child.listener));
}

/// What getppid(arguments...) returns in the child: as its exit status, errors as 100 + errno.
template <class... Arguments>
void ask(Arguments... arguments) {
    const long result = ::syscall(SYS_getppid, arguments...);
    ::_exit(static_cast<int>(result < 0 ? 100 + errno : result));
}

/// The exit status of a child that calls once, and is answered by `answer`.
template <class Answer>
int after(Answer answer) {
    filtered_child child(asking_getppid(), [] { ask(); });
    auto call = seccomp_call::receive(listener_of(child));
    REQUIRE(call);
    answer(*call);
    return child.wait();
}

}  // namespace

TEST_CASE("a call tells who calls what with which arguments") {
    filtered_child child(asking_getppid(), [] { ask(1L, 2UL << 40, -3L, 4L, 5L, 6L); });
    auto call = seccomp_call::receive(listener_of(child));
    REQUIRE(call);
    CHECK(call->pid() == child.pid());
    CHECK(call->name() == "getppid");
    CHECK(call->number() == SYS_getppid);
    CHECK(call->architecture() == detail::seccomp_architecture);
    CHECK(call->argument(0) == 1);
    CHECK(call->argument(1) == 2UL << 40);
    CHECK(call->argument(2) == ~std::uint64_t{0} - 2);
    CHECK(call->argument(5) == 6);
    CHECK(call->instruction_pointer() != 0);
    CHECK(call->still_valid());
    CHECK(call->value(0));
    CHECK_FALSE(call->still_valid());
}

TEST_CASE("each answer is what the caller's call returns") {
    CHECK(after([](seccomp_call& call) { CHECK(call.value(42)); }) == 42);
    CHECK(after([](seccomp_call& call) { CHECK(call.value(-EDOM)); }) == 100 + EDOM);
    CHECK(after([](seccomp_call& call) { CHECK(call.deny(ENOENT)); }) == 100 + ENOENT);
    CHECK(after([](seccomp_call& call) { CHECK(call.allow()); }) ==
          static_cast<int>(::getpid() & 0xff));
    // The kernel takes any errno from 1 to 4095.
    for (const int bad : {0, -1, 4096})
        CHECK(after([&](seccomp_call& call) {
                  CHECK_THROWS_AS(call.deny(bad), invalid_input);
                  call.value(7);
              }) == 7);
}

TEST_CASE("a call that is dropped, moved over or forgotten is denied") {
    CHECK(after([](seccomp_call& call) { const seccomp_call dropped(std::move(call)); }) ==
          100 + EPERM);
    filtered_child one(asking_getppid(), [] { ask(); });
    filtered_child two(asking_getppid(), [] { ask(); });
    auto call = seccomp_call::receive(listener_of(one));
    auto other = seccomp_call::receive(listener_of(two));
    REQUIRE((call && other));
    *call = std::move(*other);
    CHECK(one.wait() == 100 + EPERM);
    CHECK(call->value(5));
    CHECK(two.wait() == 5);
}

TEST_CASE("a call is answered once") {
    CHECK(after([](seccomp_call& call) {
              CHECK(call.value(3));
              CHECK_FALSE(call.value(4));
              CHECK_FALSE(call.deny(EPERM));
              CHECK_FALSE(call.allow());
              CHECK_FALSE(call.inject(0));
              CHECK_FALSE(call.replace(0, 0));
          }) == 3);
}

TEST_CASE("a descriptor is injected with its flags, under the number that the call returns") {
    const bool atomic = GENERATE(true, false);
    const unsigned flags = GENERATE(0U, unsigned{O_CLOEXEC});
    CAPTURE(atomic, flags);
    const unique_fd file(::memfd_create("text", 0));
    REQUIRE(::write(file.get(), "text", 4) == 4);
    filtered_child child(asking_getppid(), [&] {
        const int fd = static_cast<int>(::syscall(SYS_getppid));
        if (fd < 3) ::_exit(1);
        if (::fcntl(fd, F_GETFD) != (flags == 0 ? 0 : FD_CLOEXEC)) ::_exit(2);
        char text[4] = {};
        if (::pread(fd, text, 4, 0) != 4 || std::string(text, 4) != "text") ::_exit(3);
        ::_exit(fd);
    });
    auto call = seccomp_call::receive(listener_of(child));
    REQUIRE(call);
    CHECK_THROWS_AS(call->inject(file.get(), 0x4), invalid_input);
    CHECK_THROWS_AS(call->inject(-1), error);
    CHECK(call->still_valid());
    const auto number =
        atomic ? call->inject(file.get(), flags) : call->inject_in_two_steps(file.get(), flags);
    CHECK(number.value_or(0) >= 3);
    CHECK(child.wait() == number);
    CHECK_FALSE(call->value(0));
}

TEST_CASE("a descriptor of the caller is replaced while the call waits") {
    const unique_fd file(::memfd_create("text", MFD_CLOEXEC));
    const unique_fd null(::open("/dev/null", O_RDONLY | O_CLOEXEC));
    filtered_child child(asking_getppid(), [&] {
        ::syscall(SYS_getppid, null.get());
        struct stat one{};
        struct stat two{};
        ::fstat(null.get(), &one);
        ::fstat(file.get(), &two);
        ::_exit(one.st_ino == two.st_ino && one.st_dev == two.st_dev ? 42 : 1);
    });
    auto call = seccomp_call::receive(listener_of(child));
    REQUIRE(call);
    CHECK(call->replace(static_cast<int>(call->argument(0)), file.get()));
    CHECK(call->still_valid());
    try {
        call->replace(1 << 30, file.get());
        CHECK(false);
    } catch (const error& failure) {
        CHECK(failure.errno_value() == EBADF);
    }
    CHECK(call->value(0));
    CHECK(child.wait() == 42);
}

TEST_CASE("a caller who may have no more descriptors still waits for another answer") {
    filtered_child child(asking_getppid(), [] {
        const rlimit none{3, 3};
        ::setrlimit(RLIMIT_NOFILE, &none);
        ask();
    });
    auto call = seccomp_call::receive(listener_of(child));
    REQUIRE(call);
    try {
        call->inject(0);
        CHECK(false);
    } catch (const error& failure) {
        CHECK(failure.errno_value() == EMFILE);
    }
    CHECK(call->deny(EMFILE));
    CHECK(child.wait() == 100 + EMFILE);
}

TEST_CASE("the caller's memory is read within bounds") {
    // Two pages, the second of which is not there: a text up to the very end, and one over it.
    constexpr std::size_t page = 4096;
    char* const pages = static_cast<char*>(
        ::mmap(nullptr, 2 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    REQUIRE(pages != MAP_FAILED);
    REQUIRE(::munmap(pages + page, page) == 0);
    filtered_child child(asking_getppid(), [&] {
        std::memset(pages, 'x', page);
        std::memcpy(pages, "to/a/file", 10);
        std::memcpy(pages + page - 4, "end", 4);
        ::syscall(SYS_getppid);
        pages[page - 1] = 'x';
        ask();
    });
    const auto listener = listener_of(child);
    const auto at = reinterpret_cast<std::uint64_t>(pages);
    auto call = seccomp_call::receive(listener);
    REQUIRE(call);
    CHECK(call->read_text(at) == "to/a/file");
    CHECK(call->read_text(at, 10) == "to/a/file");
    CHECK_FALSE(call->read_text(at, 9));
    CHECK_FALSE(call->read_text(at, 0));
    CHECK(call->read_text(at + page - 4) == "end");
    CHECK(call->read_text(at + page - 1) == "");
    CHECK_FALSE(call->read_text(0));
    CHECK_FALSE(call->read_text(at + page));
    CHECK_FALSE(call->read_text(~std::uint64_t{0}));
    CHECK(call->read_text(at + 10, 2 * page).value_or("").size() == page - 10 - 1);
    std::vector<std::byte> bytes(page);
    CHECK(call->read_memory(at, bytes));
    CHECK(bytes[3] == std::byte{'a'});
    CHECK_FALSE(call->read_memory(at + 1, bytes));  // one byte of it is not there
    CHECK(call->value(0));
    CHECK_FALSE(call->read_text(at));  // it does not wait any more
    CHECK_FALSE(call->read_memory(at, bytes));
    call = seccomp_call::receive(listener);
    REQUIRE(call);
    CHECK_FALSE(call->read_text(at + page - 4));  // without an end
    CHECK(call->value(9));
    CHECK(child.wait() == 9);
    ::munmap(pages, page);
}

TEST_CASE("a caller who was killed leaves a call that nothing can be done with") {
    filtered_child child(asking_getppid(), [] { ask(); });
    const auto listener = listener_of(child);
    auto call = seccomp_call::receive(listener);
    REQUIRE(call);
    ::kill(child.pid(), SIGKILL);
    CHECK(child.wait() == 128 + SIGKILL);
    CHECK_FALSE(call->still_valid());
    CHECK_FALSE(call->allow());
    pollfd seen{.fd = listener->get(), .events = POLLIN, .revents = 0};
    CHECK(::poll(&seen, 1, 1000) == 1);
    CHECK(seen.revents == POLLHUP);
}

TEST_CASE("a call that was killed before it was taken is no call") {
    filtered_child child(asking_getppid(), [] { ask(); });
    const auto listener = listener_of(child);
    pollfd seen{.fd = listener->get(), .events = POLLIN, .revents = 0};
    REQUIRE(::poll(&seen, 1, 5000) == 1);
    ::kill(child.pid(), SIGKILL);
    child.wait();
    CHECK_FALSE(seccomp_call::receive(listener));
}

TEST_CASE("a call whose notification was read is not interrupted by a signal that is handled") {
    if ((detail::seccomp_listener_flags() & SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV) == 0)
        KUMIKI_SKIP("the kernel has no SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV (5.19)");
    filtered_child child(asking_getppid(), [] {
        struct sigaction action{};
        action.sa_handler = [](int) {};  // without SA_RESTART: EINTR
        ::sigaction(SIGUSR1, &action, nullptr);
        ask();
    });
    auto call = seccomp_call::receive(listener_of(child));
    REQUIRE(call);
    for (int i = 0; i < 20; ++i) {
        ::kill(child.pid(), SIGUSR1);
        ::usleep(1000);
    }
    CHECK(call->still_valid());
    CHECK(call->value(8));
    CHECK(child.wait() == 8);
}
