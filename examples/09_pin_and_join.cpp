// Each kind of namespace, one after the other: made, seen to be another one, entered by a child,
// pinned to a file, found again by it, and gone. Each step asks /proc and not the library. As root:
//
//   $ ./09_pin_and_join
//   user    made, entered, pinned, unpinned
//   cgroup  made, entered, pinned, unpinned
//   ...
#include <sched.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <string>

#include <kumiki/core/scope_exit.hpp>
#include <kumiki/ns/inspect.hpp>
#include <kumiki/ns/join.hpp>
#include <kumiki/ns/make_namespace.hpp>
#include <kumiki/ns/pin.hpp>
#include <kumiki/ns/user_namespace.hpp>

using namespace kumiki;

// What the link /proc/PID/ns/NAME says: "uts:[4026531838]".
static std::string link_of(const std::string& process, std::string_view name) {
    char text[64] = {};
    const std::string path = "/proc/" + process + "/ns/" + std::string(name);
    return ::readlink(path.c_str(), text, sizeof text - 1) > 0 ? text : "";
}

static void must(bool condition, const char* what) {
    if (!condition) throw error(0, {.operation = "check", .object = what});
}

static void show(const namespace_kind_info& info, const std::string& file) {
    namespace_fd made = info.kind == namespace_kind::user
                            ? make_user_namespace({{0, 0, 1}}, {{0, 0, 1}})
                            : make_namespace(info.kind);
    const std::string expected =
        std::string(info.proc_name) + ":[" + std::to_string(made.identity().inode) + ']';
    must(link_of("self", info.proc_name) != expected, "it is another than this program's");

    const pid_t child = ::fork();  // entering is for a process with one thread
    if (child == 0) {
        try {
            made.enter();
            ::_exit(link_of("self", info.proc_name) == expected ? 0 : 1);
        } catch (const error& failure) {
            std::fprintf(stderr, "%s\n", failure.what());
            ::_exit(2);
        }
    }
    int status = 0;
    must(::waitpid(child, &status, 0) == child && status == 0, "a child is in it");

    pin(made, file);
    made = {};  // nothing but the file keeps it now
    must(describe(namespace_fd::open(file)).kind == info.kind, "the file is the namespace");
    must(unpin(file) && ::access(file.c_str(), F_OK) != 0, "the file is gone");
    std::printf("%-8smade, entered, pinned, unpinned\n", info.name.data());
}

int main() try {
    if (::geteuid() != 0) {
        std::fprintf(stderr, "It takes root.\n");
        return 77;
    }
    if (available_namespaces() != namespace_kind::all) {
        std::fprintf(stderr, "This kernel lacks a kind of namespaces.\n");
        return 77;
    }
    // Mounts of this program's own: no pin is ever seen outside. One processor makes all the mount
    // namespaces here, so that it is clear which of them is the older one.
    cpu_set_t here;
    CPU_ZERO(&here);
    CPU_SET(static_cast<std::size_t>(::sched_getcpu()), &here);
    sys::check(::sched_setaffinity(0, sizeof here, &here), "sched_setaffinity");
    sys::check(::unshare(CLONE_NEWNS), "unshare");
    sys::check(::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr), "make mounts private");

    char directory[] = "/tmp/kumiki-example.XXXXXX";
    must(::mkdtemp(directory) != nullptr, "a directory");
    const scope_exit remove([&]() noexcept { ::rmdir(directory); });
    for (const auto& info : namespace_kinds)
        if (info.kind != namespace_kind::pid) show(info, directory + std::string("/pin"));
    std::printf("%-8slives with its first process: see 02_namespaces\n", "pid");
    return 0;
} catch (const error& failure) {
    std::fprintf(stderr, "%s\n", failure.what());
    return 1;
}
