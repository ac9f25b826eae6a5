// Private network namespaces for tests, and packets that arrive in them or do not.
//
// A namespace here is held by a descriptor alone: it and all in it vanish with the test process,
// however that ends. Sockets are made inside on a short-lived thread and used from the test's own.
#pragma once

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <sched.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstring>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <utility>

#include <kumiki/core/ip.hpp>
#include <kumiki/core/unique_fd.hpp>
#include <kumiki/sys/check.hpp>
#include <kumiki/sys/netns.hpp>

namespace kumiki_test {

/// A network namespace of the test's own; everything in it is down.
class private_netns {
  public:
    private_netns() {
        std::exception_ptr failure;
        std::thread([&] {
            try {
                kumiki::sys::check(::unshare(CLONE_NEWNET), "unshare network namespace");
                fd_.reset(kumiki::sys::check(
                    ::open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC), "open namespace"));
            } catch (...) {
                failure = std::current_exception();
            }
        }).join();
        if (failure) std::rethrow_exception(failure);
    }
    int fd() const { return fd_.get(); }
    /// Runs `function` on a thread inside; what it throws (a failed REQUIRE too) comes out here.
    template <class Function>
    auto run(Function&& function) const {
        return kumiki::sys::in_network_namespace(fd_.get(), std::forward<Function>(function));
    }

  private:
    kumiki::unique_fd fd_;
};

/// True when network namespaces can be made here.
inline bool can_make_netns() {
    try {
        const private_netns probe;
        return true;
    } catch (const kumiki::error&) {
        return false;
    }
}

/// A socket address of either family.
struct endpoint_address {
    kumiki::ip_address address{};
    std::uint16_t port = 0;

    endpoint_address() = default;
    endpoint_address(kumiki::ip_address a, std::uint16_t p) : address(a), port(p) {}
    explicit endpoint_address(const sockaddr_storage& from) {
        if (from.ss_family == AF_INET) {
            const auto& v4 = reinterpret_cast<const sockaddr_in&>(from);
            std::array<std::uint8_t, 4> raw{};
            std::memcpy(raw.data(), &v4.sin_addr, 4);
            address = kumiki::ip_address(raw);
            port = ntohs(v4.sin_port);
        } else {
            const auto& v6 = reinterpret_cast<const sockaddr_in6&>(from);
            std::array<std::uint8_t, 16> raw{};
            std::memcpy(raw.data(), &v6.sin6_addr, 16);
            address = kumiki::ip_address(raw);
            port = ntohs(v6.sin6_port);
        }
    }
    std::pair<sockaddr_storage, socklen_t> to_kernel() const {
        sockaddr_storage to{};
        if (address.is_v4()) {
            auto& v4 = reinterpret_cast<sockaddr_in&>(to);
            v4.sin_family = AF_INET;
            v4.sin_port = htons(port);
            std::memcpy(&v4.sin_addr, address.data(), 4);
            return {to, sizeof v4};
        }
        auto& v6 = reinterpret_cast<sockaddr_in6&>(to);
        v6.sin6_family = AF_INET6;
        v6.sin6_port = htons(port);
        std::memcpy(&v6.sin6_addr, address.data(), 16);
        return {to, sizeof v6};
    }
};

inline bool wait_for(int fd, short events, int milliseconds) {
    pollfd one{.fd = fd, .events = events, .revents = 0};
    return kumiki::sys::retry([&] { return ::poll(&one, 1, milliseconds); }) == 1;
}

/// A bound socket in `ns`: SOCK_STREAM ones listen, SOCK_DGRAM ones receive.
inline kumiki::unique_fd serve(const private_netns& ns, int type, kumiki::ip_address address,
                               std::uint16_t port) {
    return ns.run([&] {
        kumiki::unique_fd fd(kumiki::sys::check(
            ::socket(address.is_v4() ? AF_INET : AF_INET6, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0),
            "socket"));
        const int on = 1;
        ::setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
        const auto [to, size] = endpoint_address(address, port).to_kernel();
        kumiki::sys::check(::bind(fd.get(), reinterpret_cast<const sockaddr*>(&to), size), "bind",
                           kumiki::to_string(address));
        if (type == SOCK_STREAM) kumiki::sys::check(::listen(fd.get(), 16), "listen");
        return fd;
    });
}

/// Sends from `ns` to `to` (a connection for SOCK_STREAM, a datagram for SOCK_DGRAM) and tells whom
/// the `server` socket sees as the sender; nothing when nothing arrives within the time.
inline std::optional<endpoint_address> reaches(const private_netns& ns, int type,
                                               kumiki::ip_address to, std::uint16_t port,
                                               const kumiki::unique_fd& server,
                                               int milliseconds = 2000) {
    const kumiki::unique_fd client = ns.run([&] {
        kumiki::unique_fd fd(kumiki::sys::check(
            ::socket(to.is_v4() ? AF_INET : AF_INET6, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0),
            "socket"));
        const auto [address, size] = endpoint_address(to, port).to_kernel();
        // A refusal is an answer: the server's side is what is looked at.
        if (::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), size) == 0 &&
            type == SOCK_DGRAM)
            (void)::send(fd.get(), "ping", 4, 0);
        return fd;
    });
    if (!wait_for(server.get(), POLLIN, milliseconds)) return std::nullopt;
    sockaddr_storage from{};
    socklen_t size = sizeof from;
    if (type == SOCK_DGRAM) {
        char bytes[16];
        kumiki::sys::check(::recvfrom(server.get(), bytes, sizeof bytes, 0,
                                      reinterpret_cast<sockaddr*>(&from), &size),
                           "receive");
        return endpoint_address(from);
    }
    const kumiki::unique_fd connection(kumiki::sys::check(
        ::accept4(server.get(), reinterpret_cast<sockaddr*>(&from), &size, SOCK_CLOEXEC),
        "accept"));
    // Both ways: the three-way handshake was finished on the client's side too.
    if (!wait_for(client.get(), POLLOUT, milliseconds)) return std::nullopt;
    int failed = 0;
    socklen_t failed_size = sizeof failed;
    ::getsockopt(client.get(), SOL_SOCKET, SO_ERROR, &failed, &failed_size);
    if (failed != 0) return std::nullopt;
    return endpoint_address(from);
}

}  // namespace kumiki_test

/// Skips the test that runs where network namespaces cannot be made.
#define NEEDS_NETNS                                                                                \
    if (!::kumiki_test::can_make_netns()) KUMIKI_SKIP("network namespaces cannot be made here")
