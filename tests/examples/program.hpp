// Runs the full_container program, or another one, and tells what it said and how it ended; alone or on a terminal.
//
// A program that hangs is killed after a generous while.
#pragma once

#include <fcntl.h>
#include <poll.h>
#include <pty.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>
#include <utmp.h>

#include <chrono>
#include <cstdlib>
#include <functional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <kumiki/core/unique_fd.hpp>
#include <kumiki/sys/check.hpp>

namespace kumiki_test {

inline constexpr std::chrono::seconds patience{30};

/// How a program ended.
struct ending {
    int status = -1;  ///< exit status; 1000 plus the signal that killed it
    std::string out{};
    std::string err{};
};

/// What the child does after the fork, before it becomes the program.
using preparation = std::function<void()>;

/// A running program, whose standard descriptors are pipes, or one end of a terminal.
class program {
  public:
    enum class on { pipes, terminal };

    explicit program(std::vector<std::string> arguments, on what = on::pipes,
                     const preparation& prepare = {}, const char* path = KUMIKI_FULL_CONTAINER) {
        using kumiki::sys::check;
        int in[2] = {-1, -1};
        int out[2] = {-1, -1};
        int err[2] = {-1, -1};
        if (what == on::terminal) {
            winsize size{.ws_row = 24, .ws_col = 80, .ws_xpixel = 0, .ws_ypixel = 0};
            int slave = -1;
            int master = -1;
            check(::openpty(&master, &slave, nullptr, nullptr, &size), "openpty");
            master_.reset(master);
            slave_.reset(slave);
            ::fcntl(master, F_SETFD, FD_CLOEXEC);
        } else {
            check(::pipe2(in, O_CLOEXEC), "pipe");
            check(::pipe2(out, O_CLOEXEC), "pipe");
        }
        check(::pipe2(err, O_CLOEXEC), "pipe");
        std::vector<char*> argv;
        arguments.insert(arguments.begin(), path);
        for (std::string& each : arguments) argv.push_back(each.data());
        argv.push_back(nullptr);

        pid_ = check(::fork(), "fork");
        started_as_ = pid_;
        if (pid_ == 0) {
            if (what == on::terminal) {
                if (::login_tty(slave_.release()) != 0) ::_exit(99);
            } else {
                ::dup2(in[0], 0);
                ::dup2(out[1], 1);
            }
            ::dup2(err[1], 2);
            if (prepare) prepare();
            ::execv(argv[0], argv.data());
            ::_exit(96);
        }
        input_.reset(in[1]);
        kumiki::unique_fd(in[0]).reset();
        output_.reset(out[0]);
        kumiki::unique_fd(out[1]).reset();
        error_.reset(err[0]);
        kumiki::unique_fd(err[1]).reset();
    }
    program(const program&) = delete;
    program& operator=(const program&) = delete;
    ~program() {
        if (pid_ <= 0) return;
        ::kill(pid_, SIGKILL);
        ::waitpid(pid_, nullptr, 0);
    }

    /// Its process number, also after its end.
    pid_t started_as() const { return started_as_; }
    int terminal() const { return master_.get(); }
    /// The terminal's other end, to look at its settings.
    int slave() const { return slave_.get(); }

    void write(std::string_view text) {
        const int fd = master_ ? master_.get() : input_.get();
        kumiki::sys::check(::write(fd, text.data(), text.size()), "write to the program");
    }
    void close_input() { input_.reset(); }
    void signal(int number) const { ::kill(pid_, number); }

    /// Reads until stdout (or the terminal) has shown `text`; false when it did not in time.
    bool shows(std::string_view text) { return read_until(said_.out, text); }
    /// The same of stderr.
    bool complains(std::string_view text) { return read_until(said_.err, text); }
    const std::string& output() const { return said_.out; }

    /// All that it said, and how it ended.
    ending wait() {
        input_.reset();
        read_until(said_.out, {});
        int status = 0;
        const auto end = std::chrono::steady_clock::now() + patience;
        while (::waitpid(pid_, &status, WNOHANG) == 0) {
            if (std::chrono::steady_clock::now() > end) ::kill(pid_, SIGKILL);
            ::usleep(10'000);
        }
        pid_ = -1;
        said_.status = WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
        return said_;
    }

  private:
    /// Reads both streams until `where` has `text`, or until both have ended.
    bool read_until(const std::string& where, std::string_view text) {
        const auto end = std::chrono::steady_clock::now() + patience;
        for (;;) {
            if (!text.empty() && where.find(text) != std::string::npos) return true;
            const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(
                end - std::chrono::steady_clock::now());
            pollfd both[2] = {
                {.fd = master_ ? master_.get() : output_.get(), .events = POLLIN, .revents = 0},
                {.fd = error_.get(), .events = POLLIN, .revents = 0}};
            if (both[0].fd < 0 && both[1].fd < 0) return false;
            if (left.count() <= 0) return false;
            // With our own slave open a master never ends: the program's stderr tells of its end.
            if (master_ && both[1].fd < 0) {
                if (::poll(both, 1, 50) <= 0) return false;
            } else if (::poll(both, 2, static_cast<int>(left.count())) <= 0) {
                return false;
            }
            take(both[0], master_ ? master_ : output_, said_.out);
            take(both[1], error_, said_.err);
        }
    }
    static void take(const pollfd& ready, kumiki::unique_fd& from, std::string& into) {
        if (ready.fd < 0 || ready.revents == 0) return;
        char buffer[4096];
        const auto n = ::read(ready.fd, buffer, sizeof buffer);
        if (n > 0)
            into.append(buffer, static_cast<std::size_t>(n));
        else
            from.reset();
    }

    pid_t pid_ = -1;
    pid_t started_as_ = -1;
    kumiki::unique_fd input_;
    kumiki::unique_fd output_;
    kumiki::unique_fd error_;
    kumiki::unique_fd master_;
    kumiki::unique_fd slave_;
    ending said_;
};

inline ending run_program(std::vector<std::string> arguments, const preparation& prepare = {}) {
    program running(std::move(arguments), program::on::pipes, prepare);
    return running.wait();
}

}  // namespace kumiki_test
