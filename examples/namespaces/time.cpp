// A time namespace: offsets of the monotonic and the boot clock, so that a container that is moved to
// another machine sees them go on. The wall clock is everybody's. One program for each kind. As root:
//
//   $ ./example_namespaces_time
//   /proc/uptime inside is ahead by 48 hours
//   the monotonic clock inside is ahead by 24 hours
//   outside, the clocks have not moved: yes
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cstdio>
#include <string>

#include <kumiki/ns/inspect.hpp>
#include <kumiki/ns/make_namespace.hpp>

using namespace kumiki;

struct clocks {
    long uptime = 0;
    long monotonic = 0;
};

static clocks read_clocks() {
    timespec now{};
    ::clock_gettime(CLOCK_MONOTONIC, &now);
    const std::string text = sys::read_file_at(AT_FDCWD, "/proc/uptime");
    return {parse_number<long>(std::string_view(text).substr(0, text.find('.'))).value_or(0),
            now.tv_sec};
}

int main() try {
    if (::geteuid() != 0 || !has(available_namespaces(), namespace_kind::time)) {
        std::fprintf(stderr, "It takes root, and a kernel with time namespaces.\n");
        return 77;
    }
    using std::chrono::hours;
    const auto other = make_time_namespace({.monotonic = hours(24), .boottime = hours(48)});

    // Entered by a child: like users and mounts, the clocks are the whole process's.
    const clocks before = read_clocks();
    const pid_t child = sys::check(::fork(), "fork");
    if (child == 0) {
        try {
            other.enter();
            const clocks inside = read_clocks();
            // In whole hours: between the two looks some time has passed.
            std::printf("/proc/uptime inside is ahead by %ld hours\n",
                        (inside.uptime - before.uptime) / 3600);
            std::printf("the monotonic clock inside is ahead by %ld hours\n",
                        (inside.monotonic - before.monotonic) / 3600);
            std::fflush(stdout);
            ::_exit(0);
        } catch (const error& failure) {
            std::fprintf(stderr, "%s\n", failure.what());
            ::_exit(1);
        }
    }
    int status = 0;
    ::waitpid(child, &status, 0);
    const bool same = read_clocks().uptime - before.uptime < 60;
    std::printf("outside, the clocks have not moved: %s\n", same ? "yes" : "no");
    return status == 0 ? 0 : 1;
} catch (const error& failure) {
    std::fprintf(stderr, "%s\n", failure.what());
    return 1;
}
