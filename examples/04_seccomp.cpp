// Seccomp: which system calls a process may make, decided by a program that the kernel runs before
// each of them. This builds a filter, looks at what it was compiled to, and lets a forked child put
// it on itself. A filter is for good: nothing takes it away again, and execve keeps it.
//
//   getppid()                      works
//   mkdir("/tmp/kumiki")           EPERM (Operation not permitted)
//   socket(AF_INET, SOCK_STREAM)   works
//   socket(AF_INET, SOCK_RAW)      EACCES (Permission denied)
//   system call 100000             ENOSYS (Function not implemented)
//   then reboot()                  killed by SIGSYS
#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <cstdio>
#include <cstring>

#include <kumiki/security/seccomp.hpp>

using namespace kumiki;

static void show(const char* call, long result) {
    const int code = errno;
    const std::string answer =
        result >= 0 ? "works" : errno_name(code) + " (" + std::strerror(code) + ")";
    std::printf("%-30s %s\n", call, answer.c_str());
    std::fflush(stdout);
}

int main() try {
    const auto filter =
        seccomp_filter(seccomp_action::allow())  // what no rule is about
            .on("mkdirat", seccomp_action::fail(EPERM))
            .on("reboot", seccomp_action::kill_process())
            // The lowest four bits are the type; flags like SOCK_CLOEXEC are above.
            .on("socket", seccomp_action::fail(EACCES), {(arg(1) & 0xf) == SOCK_RAW})
            .compile();

    const pid_t child = ::fork();
    sys::check(child, "fork");
    if (child == 0) {
        ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);  // or any user could fool a setuid program
        install_seccomp(filter);
        show("getppid()", ::getppid());
        show("mkdir(\"/tmp/kumiki\")", ::mkdirat(AT_FDCWD, "/tmp/kumiki", 0700));
        show("socket(AF_INET, SOCK_STREAM)", ::socket(AF_INET, SOCK_STREAM, 0));
        show("socket(AF_INET, SOCK_RAW)", ::socket(AF_INET, SOCK_RAW | SOCK_CLOEXEC, 1));
        show("system call 100000", ::syscall(100'000));
        ::syscall(SYS_reboot, 0, 0, 0, nullptr);  // wrong magic numbers: harmless without a filter
        ::_exit(1);
    }
    int status = 0;
    sys::check(::waitpid(child, &status, 0), "waitpid");
    const bool killed = WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS;
    std::printf("%-30s %s\n", "then reboot()", killed ? "killed by SIGSYS" : "NOT killed");
    return killed ? 0 : 1;
} catch (const error& failure) {
    std::fprintf(stderr, "%s\n", failure.what());
    return 125;
}
