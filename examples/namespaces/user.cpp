// A user namespace: ids of one's own, and all capabilities, over what belongs to the namespace alone.
// Part of a series: one small program for each kind. As root:
//
//   $ ./example_namespaces_user
//   /proc/self/uid_map inside: 0 100000 65536
//   inside it is user 0 with CAP_SYS_ADMIN: yes
//   may it change the host's name: EPERM
//   outside it is user 100000
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <string>

#include <kumiki/ns/user_namespace.hpp>
#include <kumiki/security/process_status.hpp>

using namespace kumiki;

static std::string read_proc(const std::string& process, const char* file) {
    return sys::read_file_at(AT_FDCWD, "/proc/" + process + '/' + file);
}

// What the child does: users are the whole process's, so a thread could not do it alone.
static void look_inside(const namespace_fd& ids) {
    ids.enter();
    sys::check(::setgid(0), "setgid");
    sys::check(::setuid(0), "setuid");
    std::string map;
    const std::string text = read_proc("self", "uid_map");
    for (const auto number : split(trim(text), ' '))
        if (!number.empty()) map += ' ' + std::string(number);
    std::printf("/proc/self/uid_map inside:%s\n", map.c_str());
    const auto now = parse_process_status(read_proc("self", "status"));
    const bool is_root =
        ::getuid() == 0 && now.capabilities.effective.contains(capability::sys_admin);
    std::printf("inside it is user 0 with CAP_SYS_ADMIN: %s\n", is_root ? "yes" : "no");
    const int result = ::sethostname("inside", 6);  // of a uts namespace that is not its own
    std::printf("may it change the host's name: %s\n",
                result == 0 ? "yes" : errno_name(errno).c_str());
    std::fflush(stdout);
}

int main() try {
    if (::geteuid() != 0) {
        std::fprintf(stderr, "It takes root.\n");
        return 77;
    }
    const namespace_fd ids = make_user_namespace({{0, 100000, 65536}}, {{0, 100000, 65536}});
    int ends[2];
    sys::check(::pipe2(ends, O_CLOEXEC), "pipe2");
    const unique_fd in(ends[0]);
    unique_fd out(ends[1]);
    const pid_t child = sys::check(::fork(), "fork");
    if (child == 0) {
        try {
            look_inside(ids);
            out.reset();  // it has said what it had to say
            for (;;) ::pause();
        } catch (const error& failure) {
            std::fprintf(stderr, "%s\n", failure.what());
            ::_exit(1);
        }
    }
    out.reset();
    sys::read_all(in.get(), "pipe");
    const std::string status = read_proc(std::to_string(child), "status");
    const auto uid = status.find("Uid:\t") + 5;
    std::printf("outside it is user %s\n",
                status.substr(uid, status.find('\t', uid) - uid).c_str());
    ::kill(child, SIGKILL);
    ::waitpid(child, nullptr, 0);
    return 0;
} catch (const error& failure) {
    std::fprintf(stderr, "%s\n", failure.what());
    return 1;
}
