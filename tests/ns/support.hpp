// What the tests of namespaces share: code in a child of its own, and a namespace of each kind.
#pragma once

#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <optional>
#include <string>
#include <vector>

#include <kumiki/core/unique_fd.hpp>
#include <kumiki/ns/inspect.hpp>
#include <kumiki/ns/make_namespace.hpp>
#include <kumiki/ns/user_namespace.hpp>
#include <kumiki/sys/raw.hpp>

namespace kumiki_test {

using namespace kumiki;

/// Runs `function` in a fork, which has one thread; "" when it returns, else what it threw.
template <class Function>
std::string in_child(Function&& function) {
    int ends[2];
    sys::check(::pipe2(ends, O_CLOEXEC), "pipe2");
    const unique_fd in(ends[0]);
    unique_fd out(ends[1]);
    const pid_t child = ::fork();
    sys::check(child, "fork");
    if (child == 0) {
        std::string text;
        try {
            function();
        } catch (const std::exception& failure) {
            text = failure.what();
        }
        (void)!::write(out.get(), text.data(), text.size());
        ::_exit(text.empty() ? 0 : 1);
    }
    out.reset();
    std::string text = sys::read_all(in.get(), "pipe");
    int status = 0;
    ::waitpid(child, &status, 0);
    if (text.empty() && status != 0) text = "ended with status " + std::to_string(status);
    return text;
}

inline void require(bool condition, const char* what) {
    if (!condition) throw std::runtime_error(what);
}

/// The link of /proc/PID/ns as text; empty when it cannot be read.
inline std::string link_of(pid_t pid, std::string_view name) {
    char text[64] = {};
    const std::string path = "/proc/" + std::to_string(pid) + "/ns/" + std::string(name);
    return ::readlink(path.c_str(), text, sizeof text - 1) > 0 ? text : "";
}

/// A child that pauses, in new namespaces of `kinds`, from the time at which `first` has returned.
class paused_child {
  public:
    template <class Function>
    explicit paused_child(namespace_kind kinds, Function first) {
        int ends[2];
        sys::check(::pipe2(ends, O_CLOEXEC), "pipe2");
        const unique_fd in(ends[0]);
        unique_fd out(ends[1]);
        int pidfd = -1;
        sys::clone_arguments request{.flags = clone_flags(kinds) | sys::clone_pidfd,
                                     .pidfd = reinterpret_cast<std::uint64_t>(&pidfd),
                                     .exit_signal = SIGCHLD};
        const long pid = ::syscall(sys::nr_clone3, &request, sizeof request);
        sys::check(pid, "clone3");
        if (pid == 0) {
            std::string text = "+";
            try {
                first();
            } catch (const std::exception& failure) {
                text = failure.what();
            }
            (void)!::write(out.get(), text.data(), text.size());
            for (;;) ::pause();
        }
        pid_ = static_cast<pid_t>(pid);
        pidfd_.reset(pidfd);
        char text[512];
        const auto size = ::read(in.get(), text, sizeof text);
        failure_.assign(text, size > 0 ? static_cast<std::size_t>(size) : 0);
        if (failure_ == "+") failure_.clear();
    }
    explicit paused_child(namespace_kind kinds) : paused_child(kinds, [] {}) {}
    paused_child(const paused_child&) = delete;
    paused_child& operator=(const paused_child&) = delete;
    ~paused_child() {
        ::kill(pid_, SIGKILL);
        ::waitpid(pid_, nullptr, 0);
    }
    pid_t pid() const { return pid_; }
    int pidfd() const { return pidfd_.get(); }
    const std::string& failure() const { return failure_; }

  private:
    pid_t pid_ = -1;
    unique_fd pidfd_;
    std::string failure_;
};

/// A new namespace of any kind, and the process that it takes to keep it where it takes one.
struct fresh_namespace {
    std::optional<paused_child> keeper{};
    namespace_fd handle{};

    explicit fresh_namespace(namespace_kind kind) {
        if (kind == namespace_kind::pid) {
            keeper.emplace(kind);
            handle = namespace_fd::of_pidfd(keeper->pidfd(), kind);
        } else if (kind == namespace_kind::user) {
            handle = make_user_namespace({{0, 0, 65536}}, {{0, 0, 65536}});
        } else {
            handle = make_namespace(kind);
        }
    }
};

/// The link that tells where setns has led to: for pid it is that of the children.
inline std::string joined_link(const namespace_kind_info& info) {
    return std::string(info.proc_name) + (info.kind == namespace_kind::pid ? "_for_children" : "");
}

inline std::string shown(const namespace_kind_info& info, const namespace_fd& which) {
    return std::string(info.proc_name) + ":[" + std::to_string(which.identity().inode) + ']';
}

}  // namespace kumiki_test
