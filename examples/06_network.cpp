// A bridge network and what may pass through it, without a container: one network namespace stands for the
// host, so that this machine's own is left alone, and a second one for a container. As root:
//
//   $ ./06_network
//   the container is 10.88.0.2, reached by km2x2
//   127.0.0.1:8080 of the host leads to it: hello
//   so does the port that the kernel picked: hello
//   a port that is not published: ECONNREFUSED
//   no second container gets 0.0.0.0:8090/tcp: It is in use by shop
//   from the container to the host: ETIMEDOUT
#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/socket.h>

#include <cstdio>
#include <string>
#include <thread>

#include <kumiki/network/endpoint.hpp>
#include <kumiki/ns/network_namespace.hpp>

using namespace kumiki;
using namespace kumiki::literals;

static unique_fd tcp_socket() {
    return unique_fd(sys::check(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), "socket"));
}

static sockaddr_in address_of(const std::string& host, std::uint16_t port) {
    sockaddr_in to{};
    to.sin_family = AF_INET;
    to.sin_port = htons(port);
    ::inet_pton(AF_INET, host.c_str(), &to.sin_addr);
    return to;
}

static void listen_on(const unique_fd& server, std::uint16_t port) {
    const sockaddr_in any = address_of("0.0.0.0", port);
    sys::check(::bind(server.get(), reinterpret_cast<const sockaddr*>(&any), sizeof any), "bind");
    sys::check(::listen(server.get(), 8), "listen");
}

/// What a client hears from there within a second, or why it does not.
static std::string ask(const std::string& host, std::uint16_t port) {
    const unique_fd client = tcp_socket();
    const timeval second{.tv_sec = 1, .tv_usec = 0};
    ::setsockopt(client.get(), SOL_SOCKET, SO_SNDTIMEO, &second, sizeof second);
    const sockaddr_in to = address_of(host, port);
    if (::connect(client.get(), reinterpret_cast<const sockaddr*>(&to), sizeof to) != 0)
        return errno_name(errno == EINPROGRESS ? ETIMEDOUT : errno);
    char text[16] = {};
    pollfd answer{.fd = client.get(), .events = POLLIN, .revents = 0};
    ::poll(&answer, 1, 1000);
    return ::recv(client.get(), text, sizeof text - 1, MSG_DONTWAIT) > 0 ? text : "nothing";
}

int main() try {
    sys::check(::unshare(CLONE_NEWNET), "unshare");  // from here on, "the host"
    bring_loopback_up(namespace_fd::current(namespace_kind::net).get());
    const auto inside = make_network_namespace();

    // Leases and ports first: they can be refused, and then nothing else has been done.
    auto net = bridge_network::open({.name = "guide", .subnet = "10.88.0.0/24"_cidr});
    auto reserved =
        reserve(net.attach({.publish = {tcp(8080, 80), tcp(0, 80)}, .egress = deny_all()}), "box");
    // Rules, the veth pair, addresses, routes. All of it goes with the endpoint.
    const endpoint link = std::move(reserved).connect(inside.get());
    std::printf("the container is %s, reached by %s\n", to_string(link.addresses().front()).c_str(),
                link.host_link().c_str());

    // A server inside: a socket belongs for good to the namespace in which it was made.
    const unique_fd server = in_network_namespace(inside, tcp_socket);
    listen_on(server, 80);
    const timeval second{.tv_sec = 1, .tv_usec = 0};
    ::setsockopt(server.get(), SOL_SOCKET, SO_RCVTIMEO, &second, sizeof second);  // of accept
    const auto answering = std::jthread([&] {
        for (int client_count = 0; client_count < 2; ++client_count) {
            const unique_fd client(::accept4(server.get(), nullptr, nullptr, SOCK_CLOEXEC));
            ::send(client.get(), "hello", 5, MSG_NOSIGNAL);
        }
    });

    std::printf("127.0.0.1:8080 of the host leads to it: %s\n", ask("127.0.0.1", 8080).c_str());
    const std::uint16_t picked = link.published().back().host.first;
    std::printf("so does the port that the kernel picked: %s\n", ask("127.0.0.1", picked).c_str());
    std::printf("a port that is not published: %s\n", ask("127.0.0.1", 8081).c_str());

    // A port that somebody has: this program, under another name.
    ::prctl(PR_SET_NAME, "shop");
    const unique_fd shop = tcp_socket();
    listen_on(shop, 8090);
    try {
        reserve(net.attach({.publish = {tcp(8090, 80)}}), "second");
    } catch (const error& refused) {  // EADDRINUSE; the remedy goes on: " (pid 4711)."
        std::printf("no second container gets %s: %s\n", refused.object().c_str(),
                    refused.remedy().substr(0, refused.remedy().find(" (")).c_str());
    }

    const auto out =
        in_network_namespace(inside, [&] { return ask(to_string(net.gateway()), 22); });
    std::printf("from the container to the host: %s\n", out.c_str());
    return 0;
} catch (const error& failure) {
    std::fprintf(stderr, "%s\n", failure.what());
    return failure.errno_value() == EPERM ? 77 : 1;
}
