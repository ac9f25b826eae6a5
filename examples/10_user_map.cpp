// The user map: whose ids outside stand behind those inside. Leases a range of ids that no other
// container has, makes a user namespace of it, and asks the kernel who its root is. As root:
//
//   $ ./10_user_map
//   two leases, from 100000 and from 165536
//   inside it is user 0, outside user 100000
//   invalid id range '5:200000:10': Its ids inside overlap those of 0:100000:10.
#include <signal.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <string>

#include <kumiki/core/scope_exit.hpp>
#include <kumiki/ns/id_pool.hpp>
#include <kumiki/ns/user_namespace.hpp>

using namespace kumiki;

int main() try {
    if (::geteuid() != 0) {
        std::fprintf(stderr, "It takes root.\n");
        return 77;
    }
    char directory[] = "/tmp/kumiki-example.XXXXXX";
    if (::mkdtemp(directory) == nullptr) return 1;
    const std::string leases = directory + std::string("/ids");
    const scope_exit remove([&]() noexcept {
        ::unlink(leases.c_str());
        ::rmdir(directory);
    });

    // A lease is a lock on a byte of the file: it ends with this process, however that ends.
    id_pool pool({.first = 100000, .count = 655360}, 65536, AT_FDCWD, leases);
    const id_lease one = pool.lease();
    const id_lease two = pool.lease();
    std::printf("two leases, from %u and from %u\n", one.ids().first, two.ids().first);

    // A child enters the namespace; its status as the kernel shows it here names the user outside.
    const namespace_fd ids = make_user_namespace(one.map(), one.map());
    int ends[2];
    sys::check(::pipe2(ends, O_CLOEXEC), "pipe2");
    unique_fd in(ends[0]);
    unique_fd out(ends[1]);
    const pid_t child = ::fork();
    if (child == 0) {
        try {
            in.reset();
            ids.enter();
            ::syscall(SYS_setresgid, 0, 0, 0);
            ::syscall(SYS_setresuid, 0, 0, 0);
            const std::string inside = std::to_string(::getuid());
            (void)!::write(out.get(), inside.data(), inside.size());
            out.reset();
            ::pause();
        } catch (...) {}
        ::_exit(1);
    }
    out.reset();
    const std::string inside = sys::read_all(in.get(), "pipe");
    const std::string status =
        sys::read_file_at(AT_FDCWD, "/proc/" + std::to_string(child) + "/status");
    ::kill(child, SIGKILL);
    ::waitpid(child, nullptr, 0);
    const auto uid = status.find("Uid:\t");
    std::printf("inside it is user %s, outside user %s\n", inside.c_str(),
                status.substr(uid + 5, status.find('\t', uid + 5) - uid - 5).c_str());

    try {
        const id_map overlapping{{0, 100000, 10}, {5, 200000, 10}};
    } catch (const invalid_input& refused) {
        std::printf("%s\n", refused.what());
    }
    return 0;
} catch (const error& failure) {
    std::fprintf(stderr, "%s\n", failure.what());
    return 1;
}
