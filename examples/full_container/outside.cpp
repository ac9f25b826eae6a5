#include <linux/netlink.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>

#include <cstring>
#include <utility>

#include <kumiki/core/unique_fd.hpp>
#include <kumiki/netlink/address.hpp>
#include <kumiki/netlink/link.hpp>
#include <kumiki/netlink/socket.hpp>
#include <kumiki/ns/network_namespace.hpp>
#include <kumiki/sys/check.hpp>

#include "outside.hpp"

namespace example {
namespace {

using namespace kumiki;

std::pair<sockaddr_storage, socklen_t> to_kernel(const ip_address& address, std::uint16_t port) {
    sockaddr_storage storage{};
    if (address.is_v4()) {
        auto& v4 = reinterpret_cast<sockaddr_in&>(storage);
        v4.sin_family = AF_INET;
        v4.sin_port = htons(port);
        std::memcpy(&v4.sin_addr, address.data(), 4);
        return {storage, sizeof v4};
    }
    auto& v6 = reinterpret_cast<sockaddr_in6&>(storage);
    v6.sin6_family = AF_INET6;
    v6.sin6_port = htons(port);
    std::memcpy(&v6.sin6_addr, address.data(), 16);
    return {storage, sizeof v6};
}

unique_fd bound_socket(const ip_address& address, std::uint16_t port, int flags) {
    unique_fd fd(sys::check(
        ::socket(address.is_v4() ? AF_INET : AF_INET6, SOCK_STREAM | SOCK_CLOEXEC | flags, 0),
        "open socket"));
    if (address.is_unspecified()) return fd;
    const auto [from, size] = to_kernel(address, port);
    sys::check(::bind(fd.get(), reinterpret_cast<const sockaddr*>(&from), size), "bind",
               to_string(address));
    return fd;
}

bool ready(int fd, short events, int milliseconds) {
    pollfd one{.fd = fd, .events = events, .revents = 0};
    return sys::retry([&] { return ::poll(&one, 1, milliseconds); }) == 1;
}

void add_addresses(netlink_socket& socket, const char* name, const std::vector<cidr>& addresses) {
    const auto link = find_link(socket, name);
    netlink_batch batch;
    set_link(batch, name, {.up = true});
    for (const cidr& each : addresses) add_address(batch, link.value().index, each);
    socket.transact(batch);
}

}  // namespace

answer http_get(const ip_address& source, const ip_address& server, std::uint16_t port,
                int milliseconds) {
    const unique_fd fd = bound_socket(source, 0, SOCK_NONBLOCK);
    const auto [to, size] = to_kernel(server, port);
    const auto reason = [](int code) { return answer{.why = std::strerror(code)}; };
    if (::connect(fd.get(), reinterpret_cast<const sockaddr*>(&to), size) != 0 &&
        errno != EINPROGRESS)
        return reason(errno);
    if (!ready(fd.get(), POLLOUT, milliseconds))
        return {.why = "no answer in " + std::to_string(milliseconds) + " ms"};
    int failed = 0;
    socklen_t failed_size = sizeof failed;
    sys::check(::getsockopt(fd.get(), SOL_SOCKET, SO_ERROR, &failed, &failed_size), "getsockopt");
    if (failed != 0) return reason(failed);

    const std::string request = "GET / HTTP/1.0\r\n\r\n";
    if (::send(fd.get(), request.data(), request.size(), MSG_NOSIGNAL) < 0) return reason(errno);
    std::string text;
    for (char buffer[4096]; ready(fd.get(), POLLIN, milliseconds);) {
        const auto n = ::recv(fd.get(), buffer, sizeof buffer, 0);
        if (n <= 0) break;
        text.append(buffer, static_cast<std::size_t>(n));
    }
    answer got{.connected = true};
    if (const auto end = text.find("\r\n\r\n"); end != std::string::npos)
        got.body = text.substr(end + 4);
    got.why = text.substr(0, text.find('\r'));
    if (const auto blank = got.why.find(' '); blank != std::string::npos)
        got.why.erase(0, blank + 1);
    return got;
}

outside_world::outside_world(const std::vector<cidr>& host, const std::vector<cidr>& clients)
    : netns_(make_network_namespace()) {
    netlink_socket here = netlink_socket::open(NETLINK_ROUTE);
    netlink_batch batch;
    create_veth(batch, {.name = "uplink", .peer_name = "client", .peer_netns = netns_.get()});
    here.transact(batch);
    add_addresses(here, "uplink", host);
    netlink_socket there = netlink_socket::open_in(netns_.get(), NETLINK_ROUTE);
    add_addresses(there, "client", clients);
}

answer outside_world::get(const ip_address& source, const ip_address& server, std::uint16_t port,
                          int milliseconds) const {
    return in_network_namespace(netns_,
                                [&] { return http_get(source, server, port, milliseconds); });
}

unique_fd outside_world::listen(const ip_address& address, std::uint16_t port) const {
    return in_network_namespace(netns_, [&] {
        unique_fd fd = bound_socket(address, port, SOCK_NONBLOCK);
        sys::check(::listen(fd.get(), 16), "listen");
        return fd;
    });
}

void bring_up_loopback() {
    netlink_socket here = netlink_socket::open(NETLINK_ROUTE);
    netlink_batch batch;
    set_link(batch, "lo", {.up = true});
    here.transact(batch);
}

}  // namespace example
