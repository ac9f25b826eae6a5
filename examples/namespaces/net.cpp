// A network namespace: interfaces, addresses, routes, ports and a packet filter of one's own. Part of
// a series: one small program for each kind. As root:
//
//   $ ./example_namespaces_net
//   interfaces inside: lo
//   the same port is taken twice, once on each side: yes
//   a socket stays where it was made, whoever holds it: yes
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdio>
#include <string>

#include <kumiki/ns/network_namespace.hpp>

using namespace kumiki;

// A listening socket, on any free port for 0; and which one it got.
static unique_fd listen_on(in_port_t& port) {
    unique_fd fd(sys::check(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), "socket"));
    sockaddr_in at{};
    at.sin_family = AF_INET;
    at.sin_port = port;
    socklen_t size = sizeof at;
    sys::check(::bind(fd.get(), reinterpret_cast<const sockaddr*>(&at), size), "bind");
    sys::check(::listen(fd.get(), 1), "listen");
    sys::check(::getsockname(fd.get(), reinterpret_cast<sockaddr*>(&at), &size), "getsockname");
    port = at.sin_port;
    return fd;
}

// Whether a socket listens on that port, as /proc shows it to the thread that asks.
static bool is_taken(in_port_t port) {
    char text[16];
    std::snprintf(text, sizeof text, ":%04X 0000", static_cast<unsigned>(ntohs(port)));
    const std::string all = sys::read_file_at(AT_FDCWD, "/proc/thread-self/net/tcp");
    return all.find(text) != std::string::npos;
}

int main() try {
    if (::geteuid() != 0) {
        std::fprintf(stderr, "It takes root.\n");
        return 77;
    }
    const namespace_fd other = make_network_namespace();

    // A look inside, by a thread that goes there and ends.
    const std::string devices = in_network_namespace(
        other, [] { return sys::read_file_at(AT_FDCWD, "/proc/thread-self/net/dev"); });
    std::printf("interfaces inside:");
    for (const auto line : split(devices, '\n'))
        if (const auto colon = line.find(':'); colon != std::string_view::npos)
            std::printf(" %s", std::string(trim(line.substr(0, colon))).c_str());

    in_port_t port = 0;
    const unique_fd outside = listen_on(port);
    const unique_fd inside = in_network_namespace(other, [&] { return listen_on(port); });
    std::printf("\nthe same port is taken twice, once on each side: yes\n");
    const bool stays = in_network_namespace(other, [&] { return is_taken(port); });
    std::printf("a socket stays where it was made, whoever holds it: %s\n", stays ? "yes" : "no");
    return 0;
} catch (const error& failure) {
    std::fprintf(stderr, "%s\n", failure.what());
    return 1;
}
