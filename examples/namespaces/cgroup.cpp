// A cgroup namespace: the group that one is in when it is made becomes the root of what one sees. It
// hides where a container is; it limits nothing. Part of a series: one small program for each kind. As root:
//
//   $ ./example_namespaces_cgroup
//   seen from outside: /kumiki-example/box
//   seen from inside:  /
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <string>

#include <kumiki/cgroup/root.hpp>
#include <kumiki/ns/make_namespace.hpp>

using namespace kumiki;

// The group of a process: the line of cgroup v2 in its /proc/PID/cgroup.
static std::string group_of(const std::string& process) {
    const std::string all = sys::read_file_at(AT_FDCWD, "/proc/" + process + "/cgroup");
    const auto line = all.find("0::") + 3;
    return all.substr(line, all.find('\n', line) - line);
}

int main() try {
    if (::geteuid() != 0) {
        std::fprintf(stderr, "It takes root.\n");
        return 77;
    }
    auto root = cgroup_root::open("kumiki-example");
    auto box = root.create("box");

    // A child that moves to the group first, and then makes the namespace: the order matters.
    int ends[2];
    sys::check(::pipe2(ends, O_CLOEXEC), "pipe2");
    const unique_fd in(ends[0]);
    unique_fd out(ends[1]);
    const pid_t child = sys::check(::fork(), "fork");
    if (child == 0) {
        try {
            box.attach(::getpid());
            make_namespace(namespace_kind::cgroup).enter();
            const std::string seen = group_of("self") + '\n';
            (void)!::write(out.get(), seen.data(), seen.size());
            ::pause();
        } catch (const error& failure) {
            std::fprintf(stderr, "%s\n", failure.what());
        }
        ::_exit(1);  // no handle is released twice
    }
    out.reset();
    char inside[256] = {};
    const bool said = ::read(in.get(), inside, sizeof inside - 1) > 0;
    const std::string outside = group_of(std::to_string(child));
    ::kill(child, SIGKILL);
    ::waitpid(child, nullptr, 0);
    if (!said) return 1;
    std::printf("seen from outside: %s\nseen from inside:  %s", outside.c_str(), inside);
    return 0;  // the group goes with its handle
} catch (const error& failure) {
    std::fprintf(stderr, "%s\n", failure.what());
    return 1;
}
