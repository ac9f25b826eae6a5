// A forked process that filters itself with a program that asks, and gives its listener to the test.
#pragma once

#include <sys/prctl.h>
#include <sys/socket.h>

#include <cstring>
#include <stdexcept>
#include <utility>

#include <kumiki/core/unique_fd.hpp>
#include <kumiki/security/seccomp_notify.hpp>

#include "security/child.hpp"

namespace kumiki_test {

namespace detail {

inline void send_fd(int to, int fd) {
    char byte = 'l';
    alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
    iovec data{&byte, 1};
    msghdr message{};
    message.msg_iov = &data;
    message.msg_iovlen = 1;
    message.msg_control = control;
    message.msg_controllen = sizeof control;
    cmsghdr* head = CMSG_FIRSTHDR(&message);
    *head = {.cmsg_len = CMSG_LEN(sizeof fd), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS};
    std::memcpy(CMSG_DATA(head), &fd, sizeof fd);
    if (::sendmsg(to, &message, 0) != 1) ::_exit(103);
}

inline kumiki::unique_fd receive_fd(int from) {
    char byte = 0;
    alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
    iovec data{&byte, 1};
    msghdr message{};
    message.msg_iov = &data;
    message.msg_iovlen = 1;
    message.msg_control = control;
    message.msg_controllen = sizeof control;
    if (::recvmsg(from, &message, MSG_CMSG_CLOEXEC) != 1 || CMSG_FIRSTHDR(&message) == nullptr)
        throw std::runtime_error("no listener came");
    int fd = -1;
    std::memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof fd);
    return kumiki::unique_fd(fd);
}

}  // namespace detail

/// The child runs `function`, filtered; `listener` is the test's.
class filtered_child {
  public:
    template <class Function>
    filtered_child(const kumiki::seccomp_program& program, Function function)
        : ends_(make_ends()), child_([&] {
              ends_.first.reset();
              ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
              {
                  const auto installed = kumiki::install_seccomp_listener(program);
                  detail::send_fd(ends_.second.get(), installed.get());
              }
              ends_.second.reset();
              function();
          }) {
        ends_.second.reset();
        listener = detail::receive_fd(ends_.first.get());
    }
    pid_t pid() const { return child_.pid(); }
    /// Its exit status, or 128 + the signal that ended it.
    int wait() {
        const int status = child_.wait();
        return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    }

    kumiki::unique_fd listener;

  private:
    using ends = std::pair<kumiki::unique_fd, kumiki::unique_fd>;
    static ends make_ends() {
        int fds[2];
        if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) != 0)
            throw std::runtime_error("socketpair");
        return {kumiki::unique_fd(fds[0]), kumiki::unique_fd(fds[1])};
    }

    ends ends_;
    child child_;
};

/// A filter that asks about getppid(), which nothing else here calls.
inline kumiki::seccomp_program asking_getppid() {
    return kumiki::seccomp_filter(kumiki::seccomp_action::allow())
        .on("getppid", kumiki::seccomp_action::notify())
        .compile();
}

}  // namespace kumiki_test
