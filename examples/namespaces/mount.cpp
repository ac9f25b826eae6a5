// A mount namespace: a copy of the tree of mounts, which then goes its own way, as soon as it is cut off
// from the host's propagation. Part of a series: one small program for each kind. As root:
//
//   $ ./example_namespaces_mount
//   at first, inside is another table with the same mounts: yes
//   then /tmp inside is a tmpfs of its own: yes
//   outside, that mount is not seen: yes
#include <sched.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <string>

#include <kumiki/ns/namespace_fd.hpp>

using namespace kumiki;

static std::string mounts() { return sys::read_file_at(AT_FDCWD, "/proc/self/mountinfo"); }
static auto lines(const std::string& text) { return std::count(text.begin(), text.end(), '\n'); }

// What the child does: it cannot come back, as all threads of a program share one table of mounts.
static void look_inside(const namespace_fd& outside, const std::string& before) {
    sys::check(::unshare(CLONE_NEWNS), "unshare");
    const bool is_copy =
        lines(mounts()) == lines(before) && namespace_fd::current(namespace_kind::mount) != outside;
    std::printf("at first, inside is another table with the same mounts: %s\n",
                is_copy ? "yes" : "no");
    // Without this, a mount below a shared one would appear on the host: systemd makes / shared.
    sys::check(::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr), "make mounts private");
    sys::check(::mount("kumiki-example", "/tmp", "tmpfs", 0, "size=1m"), "mount");
    const bool is_there =
        mounts().find(" /tmp rw,relatime - tmpfs kumiki-example") != std::string::npos;
    std::printf("then /tmp inside is a tmpfs of its own: %s\n", is_there ? "yes" : "no");
}

int main() try {
    if (::geteuid() != 0) {
        std::fprintf(stderr, "It takes root.\n");
        return 77;
    }
    const namespace_fd here = namespace_fd::current(namespace_kind::mount);
    const std::string before = mounts();
    const pid_t child = sys::check(::fork(), "fork");
    if (child == 0) {
        try {
            look_inside(here, before);
        } catch (const error& failure) {
            std::fprintf(stderr, "%s\n", failure.what());
        }
        std::fflush(stdout);
        ::_exit(0);
    }
    ::waitpid(child, nullptr, 0);
    const bool is_seen = mounts().find("kumiki-example") != std::string::npos;
    std::printf("outside, that mount is not seen: %s\n", is_seen ? "no" : "yes");
    return 0;
} catch (const error& failure) {
    std::fprintf(stderr, "%s\n", failure.what());
    return 1;
}
