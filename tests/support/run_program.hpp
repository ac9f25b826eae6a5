// Another program, run to its end.
#pragma once

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <unistd.h>

#include <string>
#include <vector>

#include <kumiki/core/unique_fd.hpp>
#include <kumiki/sys/pidfd.hpp>

namespace kumiki_test {

/// Runs `arguments` to its end, for a minute at most; its output goes to `output`.
inline int run_program(std::vector<std::string> arguments, const std::string& output) {
    std::vector<char*> argv;
    for (std::string& argument : arguments) argv.push_back(argument.data());
    argv.push_back(nullptr);
    posix_spawn_file_actions_t actions;
    ::posix_spawn_file_actions_init(&actions);
    ::posix_spawn_file_actions_addopen(&actions, 1, output.c_str(), O_WRONLY | O_CREAT | O_TRUNC,
                                       0644);
    ::posix_spawn_file_actions_adddup2(&actions, 1, 2);
    pid_t pid = 0;
    const int failed = ::posix_spawnp(&pid, argv[0], &actions, nullptr, argv.data(), environ);
    ::posix_spawn_file_actions_destroy(&actions);
    if (failed != 0) return 127;
    const kumiki::unique_fd pidfd = kumiki::sys::open_pidfd(pid);
    pollfd ended{.fd = pidfd.get(), .events = POLLIN, .revents = 0};
    if (::poll(&ended, 1, 60000) != 1) kumiki::sys::send_signal(pidfd.get(), SIGKILL);
    return kumiki::sys::wait_blocking(pidfd.get()).shell_status();
}

}  // namespace kumiki_test
