// Runs code in a forked child that does things to itself, and tells what became of it.
#pragma once

#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <stdexcept>
#include <string>

#include <kumiki/core/scope_exit.hpp>
#include <kumiki/core/unique_fd.hpp>
#include <kumiki/security/process_status.hpp>

namespace kumiki_test {

/// A forked child: killed and reaped at the end of its scope, and by the kernel with its parent.
class child {
  public:
    template <class Function>
    explicit child(Function&& function) {
        pid_ = ::fork();
        if (pid_ < 0) throw std::runtime_error("fork");
        if (pid_ == 0) {
            ::prctl(PR_SET_PDEATHSIG, SIGKILL);
            ::alarm(30);
            function();
            ::_exit(0);
        }
    }
    child(const child&) = delete;
    child& operator=(const child&) = delete;
    ~child() {
        if (pid_ <= 0) return;
        ::kill(pid_, SIGKILL);
        wait();
    }
    pid_t pid() const { return pid_; }
    /// The wait status (WIFEXITED...).
    int wait() {
        int status = 0;
        while (::waitpid(pid_, &status, 0) < 0 && errno == EINTR) {}
        pid_ = -1;
        return status;
    }

  private:
    pid_t pid_ = -1;
};

/// The exit status of a child that runs `function`; 128 + the signal that ended it.
template <class Function>
int exit_code_of(Function&& function) {
    child process(function);
    const int status = process.wait();
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

/// What the kernel shows of a child that has run `function`, read from outside.
template <class Function>
kumiki::process_status status_after(Function&& function) {
    int ends[2];
    if (::pipe(ends) != 0) throw std::runtime_error("pipe");
    const kumiki::unique_fd out(ends[0]);
    kumiki::unique_fd in(ends[1]);
    child process([&] {
        function();
        const char done = '.';
        if (::write(in.get(), &done, 1) != 1) ::_exit(101);
        for (;;) ::pause();
    });
    in.reset();
    char done = 0;
    if (::read(out.get(), &done, 1) != 1) {
        const int status = process.wait();
        throw std::runtime_error("the child ended early: status " + std::to_string(status));
    }
    const auto status = kumiki::read_process_status(process.pid());
    if (!status) throw std::runtime_error("the child is gone");
    return *status;
}

}  // namespace kumiki_test
