// A pid namespace: the first process in it is number 1, and when that ends the kernel kills the rest.
// From outside they are there as well, with other numbers. One small program for each kind. As root:
//
//   $ ./example_namespaces_pid
//   numbers of the first process: 1 more, which is 1
//   numbers of the second one:    1 more, which is 2
//   after the end of number 1, the second has ended by signal 9
#include <sched.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <string>
#include <vector>

#include <kumiki/ns/namespace_fd.hpp>

using namespace kumiki;

// The process's number in each pid namespace, this program's first: the line NSpid of its status.
static std::vector<std::string> numbers_of(pid_t process) {
    const std::string all =
        sys::read_file_at(AT_FDCWD, "/proc/" + std::to_string(process) + "/status");
    const auto from = all.find("NSpid:\t") + 7;
    const std::string line = all.substr(from, all.find('\n', from) - from);
    std::vector<std::string> found;
    for (const auto number : split(line, '\t')) found.emplace_back(number);
    return found;
}

static pid_t start_child() {
    const pid_t child = sys::check(::fork(), "fork");
    if (child == 0)
        for (;;) ::pause();
    return child;
}

int main() try {
    if (::geteuid() != 0) {
        std::fprintf(stderr, "It takes root.\n");
        return 77;
    }
    // This program stays in its own pid namespace: only the children are born in the new one.
    const std::size_t own = numbers_of(::getpid()).size();
    sys::check(::unshare(CLONE_NEWPID), "unshare");
    const pid_t first = start_child();
    const pid_t second = start_child();
    const auto show = [&](const char* which, pid_t process) {
        const auto numbers = numbers_of(process);
        std::printf("numbers of the %s %zu more, which is %s\n", which, numbers.size() - own,
                    numbers.back().c_str());
    };
    show("first process:", first);
    show("second one:   ", second);

    int status = 0;
    ::kill(first, SIGKILL);
    ::waitpid(second, &status, 0);  // nobody has sent it a signal but the kernel
    ::waitpid(first, nullptr, 0);
    std::printf("after the end of number 1, the second has ended by signal %d\n", WTERMSIG(status));
    return 0;
} catch (const error& failure) {
    std::fprintf(stderr, "%s\n", failure.what());
    return 1;
}
