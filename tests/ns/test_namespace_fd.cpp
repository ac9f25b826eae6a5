#include <sched.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <string>
#include <thread>

#include <kumiki/ns/namespace_fd.hpp>
#include <kumiki/sys/own_thread.hpp>
#include <kumiki/sys/raw.hpp>

#include "ns/support.hpp"
#include "support/catch.hpp"

using namespace kumiki;
using kumiki_test::link_of;

namespace {

/// A paused child in new namespaces of the given kinds.
class child {
  public:
    explicit child(namespace_kind kinds) {
        int pidfd = -1;
        const sys::clone_arguments request{.flags = clone_flags(kinds) | sys::clone_pidfd,
                                           .pidfd = reinterpret_cast<std::uint64_t>(&pidfd),
                                           .exit_signal = SIGCHLD};
        pid_ = static_cast<pid_t>(sys::clone_copied(
            request,
            [](void*) {
                for (;;) sys::raw_syscall(SYS_pause);
            },
            nullptr));
        pidfd_.reset(pidfd);
    }
    child(const child&) = delete;
    child& operator=(const child&) = delete;
    ~child() { end(); }
    void end() {
        if (pid_ <= 0) return;
        ::kill(pid_, SIGKILL);
        ::waitpid(pid_, nullptr, 0);
        pid_ = -1;
    }
    pid_t pid() const { return pid_; }
    int pidfd() const { return pidfd_.get(); }

  private:
    pid_t pid_ = -1;
    unique_fd pidfd_;
};

}  // namespace

TEST_CASE("a child's new namespaces differ from one's own, by every way of opening them") {
    if (::geteuid() != 0) KUMIKI_SKIP("new namespaces take root");
    // A kernel can be built without some of them: user-mode Linux has no time namespaces.
    namespace_kind there = namespace_kind::none;
    for (const auto& info : namespace_kinds)
        if (!link_of(::getpid(), info.proc_name).empty()) there |= info.kind;
    const child other(there & ~(namespace_kind::user | namespace_kind::pid));
    REQUIRE(other.pid() > 0);
    for (const auto& info : namespace_kinds) {
        if (!has(there, info.kind)) continue;
        CAPTURE(info.name);
        const auto mine = namespace_fd::current(info.kind);
        const auto by_pid = namespace_fd::of_process(other.pid(), info.kind);
        const auto by_pidfd = namespace_fd::of_pidfd(other.pidfd(), info.kind);
        const auto by_path = namespace_fd::open("/proc/" + std::to_string(other.pid()) + "/ns/" +
                                                std::string(info.proc_name));
        CHECK(by_pid == by_pidfd);
        CHECK(by_pid == by_path);
        CHECK(by_pid == by_pid.duplicate());
        CHECK(by_pid.kind() == info.kind);
        const bool shared = info.kind == namespace_kind::user || info.kind == namespace_kind::pid;
        CHECK((mine == by_pid) == shared);
        CHECK(link_of(other.pid(), info.proc_name) ==
              std::string(info.proc_name) + ":[" + std::to_string(by_pid.identity().inode) + ']');
    }
}

TEST_CASE("a namespace outlives its last process in a handle, and can be entered") {
    if (::geteuid() != 0) KUMIKI_SKIP("new namespaces take root");
    child other(namespace_kind::uts);
    REQUIRE(other.pid() > 0);
    const auto held = namespace_fd::of_pidfd(other.pidfd(), namespace_kind::uts);
    other.end();
    const auto inside = sys::on_own_thread([&] {
        held.enter();
        return namespace_fd::current(namespace_kind::uts) == held;
    });
    CHECK(inside);
    CHECK_FALSE(namespace_fd::current(namespace_kind::uts) == held);
}

TEST_CASE("a namespace knows its owner and, where kinds are nested, its parent") {
    if (::geteuid() != 0) KUMIKI_SKIP("new namespaces take root");
    const child other(namespace_kind::user | namespace_kind::pid | namespace_kind::net);
    REQUIRE(other.pid() > 0);
    const auto user = namespace_fd::of_pidfd(other.pidfd(), namespace_kind::user);
    const auto net = namespace_fd::of_pidfd(other.pidfd(), namespace_kind::net);
    const auto pid = namespace_fd::of_pidfd(other.pidfd(), namespace_kind::pid);
    REQUIRE(net.owner());
    CHECK(*net.owner() == user);
    REQUIRE(user.parent());
    CHECK(*user.parent() == namespace_fd::current(namespace_kind::user));
    REQUIRE(pid.parent());
    CHECK(*pid.parent() == namespace_fd::current(namespace_kind::pid));
    CHECK(user.owner_uid() == ::geteuid());
    CHECK_THROWS_AS(net.parent(), error);
    CHECK_THROWS_AS(net.owner_uid(), error);
}

TEST_CASE("what is no namespace is refused") {
    CHECK_THROWS_AS(namespace_fd::open("/proc/self/status"), invalid_input);
    CHECK_THROWS_AS(namespace_fd::open("/nowhere"), error);
    CHECK_THROWS_AS(namespace_fd::open(std::string("/proc\0/x", 8)), invalid_input);
    CHECK_THROWS_AS(namespace_fd(unique_fd()), invalid_input);
    CHECK_THROWS_AS(namespace_fd(sys::open_at(AT_FDCWD, "/dev/null", O_RDONLY)), invalid_input);
    CHECK_THROWS_AS(namespace_fd::current(namespace_kind::none), invalid_input);
    CHECK_THROWS_AS(namespace_fd::current(namespace_kind::net | namespace_kind::pid),
                    invalid_input);
    const auto file = sys::open_at(AT_FDCWD, "/dev/null", O_RDONLY);
    CHECK_THROWS_AS(namespace_fd::of_pidfd(file.get(), namespace_kind::net), invalid_input);
    CHECK_THROWS_AS(namespace_fd::of_pidfd(-1, namespace_kind::net), error);
}

TEST_CASE("the namespace of a process that has ended is not there, by number and by pidfd") {
    const pid_t pid = ::fork();
    REQUIRE(pid >= 0);
    if (pid == 0) ::_exit(0);
    const unique_fd pidfd = sys::open_pidfd(pid);
    siginfo_t info{};
    REQUIRE(::waitid(P_PID, static_cast<id_t>(pid), &info, WEXITED | WNOWAIT) == 0);
    const auto code = [&](auto&& open) {
        try {
            open();
        } catch (const error& failure) {
            return failure.errno_value();
        }
        return 0;
    };
    const auto by_pidfd = [&] { return namespace_fd::of_pidfd(pidfd.get(), namespace_kind::net); };
    CHECK(code(by_pidfd) == ESRCH);  // a zombie
    ::waitpid(pid, nullptr, 0);
    CHECK(code(by_pidfd) == ESRCH);
    CHECK(code([&] { return namespace_fd::of_process(0x7ffffff0, namespace_kind::net); }) ==
          ENOENT);
}

TEST_CASE("a mount namespace cannot be entered from a program with several threads") {
    if (::geteuid() != 0) KUMIKI_SKIP("entering a namespace takes root");
    const auto mine = namespace_fd::current(namespace_kind::mount);
    try {
        // The thread shares its root and working directory with the others.
        sys::on_own_thread([&] { mine.enter(); });
        FAIL("no error");
    } catch (const error& failure) {
        CHECK(failure.errno_value() == EINVAL);
        CHECK(failure.object() == "mount");
        CHECK(failure.remedy().find("single thread") != std::string::npos);
    }
}
