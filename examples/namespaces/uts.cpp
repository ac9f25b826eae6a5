// A uts namespace: a host name of one's own. Part of a series: one small program for each kind. As root:
//
//   $ ./example_namespaces_uts
//   inside, the name is: inside
//   outside, it has not changed: yes
//   the thread was in another uts namespace: yes
#include <unistd.h>

#include <cstdio>
#include <string>

#include <kumiki/ns/make_namespace.hpp>

using namespace kumiki;

// What /proc shows to the thread that asks.
static std::string host_name() { return sys::read_file_at(AT_FDCWD, "/proc/sys/kernel/hostname"); }

int main() try {
    if (::geteuid() != 0) {
        std::fprintf(stderr, "It takes root.\n");
        return 77;
    }
    const std::string before = host_name();
    const namespace_fd other = make_namespace(namespace_kind::uts);

    // Namespaces are per thread: this one enters and ends, and the program stays where it was.
    bool was_elsewhere = false;
    const std::string inside = sys::on_own_thread([&] {
        other.enter();
        sys::check(::sethostname("inside", 6), "sethostname");
        was_elsewhere = namespace_fd::current(namespace_kind::uts) == other;
        return host_name();
    });
    std::printf("inside, the name is: %s", inside.c_str());
    std::printf("outside, it has not changed: %s\n", host_name() == before ? "yes" : "no");
    const bool is_other = namespace_fd::current(namespace_kind::uts) != other;
    std::printf("the thread was in another uts namespace: %s\n",
                was_elsewhere && is_other ? "yes" : "no");
    return 0;
} catch (const error& failure) {
    std::fprintf(stderr, "%s\n", failure.what());
    return 1;
}
