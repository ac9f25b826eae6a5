// What the tests of control groups share: a place of their own in the hierarchy, which is cleared
// also when the test program dies, and processes that are born in a group and wait there.
#pragma once

#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <string>
#include <utility>

#include <kumiki/cgroup/root.hpp>
#include <kumiki/sys/pidfd.hpp>
#include <kumiki/sys/raw.hpp>

namespace kumiki_test {

/// The name of this test program's group: no other program's.
inline const std::string& group_name() {
    static const std::string name = "kumiki-test-" + std::to_string(::getpid());
    return name;
}

/// A process that outlives a test program which crashed, just long enough to remove its groups.
class guard {
  public:
    explicit guard(std::string path) {
        const kumiki::unique_fd tested = kumiki::sys::open_pidfd(::getpid());
        if (::fork() != 0) return;
        ::setsid();
        for (int fd = 0; fd < 3; ++fd) ::close(fd);
        pollfd ended{.fd = tested.get(), .events = POLLIN, .revents = 0};
        while (::poll(&ended, 1, -1) < 1) {}
        try {
            kumiki::cgroup::open(std::move(path)).destroy();
        } catch (...) {
            // Not there: as it should be.
        }
        ::_exit(0);
    }
};

/// A root for the groups of one test; it watches over itself from its first use on.
inline kumiki::cgroup_root make_root() {
    auto root = kumiki::cgroup_root::open(group_name());
    static const guard watch(root.group().path());
    return root;
}

/// Why this host cannot have groups with these controllers; empty when it can.
inline std::string missing(kumiki::controllers needed = kumiki::controllers::none) {
    try {
        const auto root = make_root();
        const auto lacking = needed & ~root.available();
        if (lacking == kumiki::controllers::none) return {};
        return root.hierarchy().explain_missing(lacking);
    } catch (const kumiki::unsupported& none) {
        return none.what();
    }
}

/// Runs `entry(argument)` in a child that is born in the group; ended and collected with it.
class child {
  public:
    using entry_type = void (*)(void*);
    explicit child(const kumiki::cgroup& group, entry_type entry = wait_for_signal,
                   void* argument = nullptr) {
        int pidfd = -1;
        const kumiki::sys::clone_arguments request{
            .flags = kumiki::sys::clone_pidfd | kumiki::sys::clone_into_cgroup,
            .pidfd = reinterpret_cast<std::uint64_t>(&pidfd),
            .exit_signal = SIGCHLD,
            .cgroup = static_cast<std::uint64_t>(group.fd())};
        pid_ = static_cast<pid_t>(kumiki::sys::clone_copied(request, entry, argument));
        pidfd_.reset(pidfd);
    }
    child(const child&) = delete;
    child& operator=(const child&) = delete;
    ~child() {
        if (!pidfd_) return;
        ::kill(pid_, SIGKILL);
        ::waitpid(pid_, nullptr, 0);
    }
    /// The process number, or minus the errno value of a clone that was refused.
    pid_t pid() const { return pid_; }
    int pidfd() const { return pidfd_.get(); }
    /// Collects the child's end, for which it waits at most ten seconds: then it is killed.
    kumiki::sys::exit_status wait() {
        pollfd ended{.fd = pidfd_.get(), .events = POLLIN, .revents = 0};
        if (::poll(&ended, 1, 10'000) != 1) ::kill(pid_, SIGKILL);
        const auto status = kumiki::sys::wait_blocking(pidfd_.get());
        pidfd_.reset();
        return status;
    }

    static void wait_for_signal(void*) {
        ::prctl(PR_SET_PDEATHSIG, SIGKILL);
        for (;;) ::pause();
    }

  private:
    pid_t pid_ = -1;
    kumiki::unique_fd pidfd_;
};

/// The v2 group of a process as /proc shows it.
inline std::string group_of(pid_t pid) {
    const std::string text =
        kumiki::sys::read_file_at(AT_FDCWD, "/proc/" + std::to_string(pid) + "/cgroup");
    for (std::string_view rest = text; const auto line = kumiki::next_field(rest, '\n');)
        if (line->starts_with("0::")) return std::string(line->substr(3));
    return {};
}

/// True when `path` is a directory.
inline bool exists(const std::string& path) { return ::access(path.c_str(), F_OK) == 0; }

/// Asks `condition` again and again, for at most five seconds.
template <class Condition>
bool eventually(Condition condition) {
    for (int round = 0; round < 5000; ++round) {
        if (condition()) return true;
        ::poll(nullptr, 0, 1);
    }
    return false;
}

}  // namespace kumiki_test

/// Skips the test that runs where cgroup v2 has not the controllers of `set`.
#define NEED(set)                                                                                  \
    if (const auto why = ::kumiki_test::missing(set); !why.empty()) KUMIKI_SKIP(why)
/// Skips it where no groups can be made.
#define NEED_GROUPS() NEED(::kumiki::controllers::none)
/// And runs it on each backend, with `io` as its scheduler.
#define NEED_GROUPS_AND_SCHEDULER(io)                                                              \
    NEED_GROUPS();                                                                                 \
    KUMIKI_ON_BOTH_BACKENDS(io)
