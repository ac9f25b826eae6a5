// An ipc namespace: System V shared memory, semaphores and message queues of one's own, and POSIX
// message queues. Part of a series: one small program for each kind. As root:
//
//   $ ./example_namespaces_ipc
//   inside, /proc/sysvipc/shm lists it: yes
//   outside, its key is found: no
#include <sys/shm.h>
#include <unistd.h>

#include <cstdio>
#include <string>

#include <kumiki/ns/make_namespace.hpp>

using namespace kumiki;

constexpr key_t key = 0x6b756d69;

// Whether /proc shows a segment of this key to the thread that asks: the first column, in decimal.
static bool is_listed() {
    const std::string all = sys::read_file_at(AT_FDCWD, "/proc/sysvipc/shm");
    return all.find(std::to_string(key) + ' ') != std::string::npos;
}

int main() try {
    if (::geteuid() != 0) {
        std::fprintf(stderr, "It takes root.\n");
        return 77;
    }
    const namespace_fd other = make_namespace(namespace_kind::ipc);

    // Namespaces are per thread: this one enters and ends, and the program stays where it was.
    const bool inside = sys::on_own_thread([&] {
        other.enter();
        sys::check(::shmget(key, 4096, IPC_CREAT | IPC_EXCL | 0600), "shmget");
        return is_listed();
    });
    const bool outside = is_listed() || ::shmget(key, 0, 0) >= 0;
    std::printf("inside, /proc/sysvipc/shm lists it: %s\n", inside ? "yes" : "no");
    std::printf("outside, its key is found: %s\n", outside ? "yes" : "no");
    return 0;  // the segment goes with its namespace, and that with its last handle
} catch (const error& failure) {
    std::fprintf(stderr, "%s\n", failure.what());
    return 1;
}
