// Namespaces: what makes a process see its own host name, process numbers and network.
//
// Starts one child in new namespaces, compares its links in /proc/PID/ns with this program's, and
// gives the child's user namespace its id maps. Run as root:
//
//   $ ./02_namespaces
//   kind    this program  the child     same?
//   user    4026531837    4026532561    no
//   ...
//   user ids inside:      0     100000      65536
//   interfaces inside: lo
#include <signal.h>
#include <sys/syscall.h>

#include <cstdio>
#include <string>

#include <kumiki/core/scope_exit.hpp>
#include <kumiki/ns/id_map.hpp>
#include <kumiki/ns/namespace_fd.hpp>
#include <kumiki/ns/network_namespace.hpp>
#include <kumiki/sys/pidfd.hpp>
#include <kumiki/sys/raw.hpp>

using namespace kumiki;

static void sleep_for_ever(void*) {
    for (;;) sys::raw_syscall(SYS_pause);
}

int main() try {
    // clone3(2): the kinds are its flags, and the pidfd names the child for ever.
    const auto kinds = namespace_kind::all & ~namespace_kind::time;
    int fd = -1;
    const long pid = sys::clone_copied({.flags = clone_flags(kinds) | sys::clone_pidfd,
                                        .pidfd = reinterpret_cast<std::uint64_t>(&fd),
                                        .exit_signal = SIGCHLD},
                                       sleep_for_ever, nullptr);
    if (pid < 0)
        throw error(
            static_cast<int>(-pid),
            {.operation = "clone3", .remedy = namespace_remedy(static_cast<int>(-pid), kinds)});
    const unique_fd child(fd);
    const scope_exit end([&]() noexcept {
        ::kill(static_cast<pid_t>(pid), SIGKILL);
        sys::wait_blocking(child.get());
    });

    std::printf("%-8s%-14s%-14s%s\n", "kind", "this program", "the child", "same?");
    for (const auto& info : namespace_kinds) {
        const auto here = namespace_fd::current(info.kind);
        const auto there = namespace_fd::of_pidfd(child.get(), info.kind);
        std::printf("%-8s%-14lu%-14lu%s\n", info.name.data(), here.identity().inode,
                    there.identity().inode, here == there ? "yes" : "no");
    }

    // Root inside is user 100000 outside: a file of the host's root is nobody's to it.
    write_id_maps(static_cast<pid_t>(pid), {{0, 100000, 65536}}, {{0, 100000, 65536}});
    const std::string proc = "/proc/" + std::to_string(pid);
    std::printf("user ids inside: %s", sys::read_file_at(AT_FDCWD, proc + "/uid_map").c_str());

    // A look inside, by a thread that goes there and ends.
    const auto net = namespace_fd::of_pidfd(child.get(), namespace_kind::net);
    const auto devices = in_network_namespace(
        net, [] { return sys::read_file_at(AT_FDCWD, "/proc/thread-self/net/dev"); });
    std::printf("interfaces inside:");
    for (const auto line : split(devices, '\n'))
        if (const auto colon = line.find(':'); colon != std::string_view::npos)
            std::printf(" %s", std::string(trim(line.substr(0, colon))).c_str());
    std::printf("\n");
    return 0;
} catch (const error& failure) {
    std::fprintf(stderr, "%s\n", failure.what());
    return 1;
}
