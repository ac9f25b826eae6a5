// The address of a socket, as socket(7) wants and gives it: an ip_address and a port.
//
// ip(7), ipv6(7). Left out: other families, zones and flow labels of IPv6.
#pragma once

#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include <kumiki/core/ip.hpp>
#include <kumiki/sys/check.hpp>

namespace kumiki::inline v0::detail {

/// A socket address of either family.
class socket_address {
  public:
    socket_address() = default;
    socket_address(const ip_address& address, std::uint16_t port) noexcept {
        if (address.is_v4()) {
            sockaddr_in to{};
            to.sin_family = AF_INET;
            to.sin_port = htons(port);
            std::memcpy(&to.sin_addr, address.data(), sizeof to.sin_addr);
            store(to);
        } else {
            sockaddr_in6 to{};
            to.sin6_family = AF_INET6;
            to.sin6_port = htons(port);
            std::memcpy(&to.sin6_addr, address.data(), sizeof to.sin6_addr);
            store(to);
        }
    }
    /// What a socket is bound to. Errors: kumiki::error.
    static socket_address own_of(int fd) {
        socket_address own;
        sys::check(::getsockname(fd, own.place(), &own.size_), "getsockname");
        return own;
    }
    /// Whom a connection is with; 0.0.0.0 when that is over.
    static socket_address peer_of(int fd) noexcept {
        socket_address peer;
        if (::getpeername(fd, peer.place(), &peer.size_) != 0) return {};
        return peer;
    }

    const sockaddr* get() const noexcept { return reinterpret_cast<const sockaddr*>(&storage_); }
    socklen_t size() const noexcept { return size_; }
    /// A message whose sender is put here. It refers to this object and to `part`.
    msghdr message(iovec& part) noexcept {
        size_ = sizeof storage_;
        msghdr into{};
        into.msg_name = &storage_;
        into.msg_namelen = size_;
        into.msg_iov = &part;
        into.msg_iovlen = 1;
        return into;
    }
    ip_address address() const noexcept {
        if (storage_.ss_family == AF_INET6) {
            std::array<std::uint8_t, 16> raw{};
            copy_from(offsetof(sockaddr_in6, sin6_addr), raw);
            return ip_address(raw);
        }
        std::array<std::uint8_t, 4> raw{};
        copy_from(offsetof(sockaddr_in, sin_addr), raw);
        return ip_address(raw);
    }
    /// In host byte order.
    std::uint16_t port() const noexcept {
        // At the same place in both families.
        static_assert(offsetof(sockaddr_in, sin_port) == offsetof(sockaddr_in6, sin6_port));
        in_port_t port = 0;
        copy_from(offsetof(sockaddr_in6, sin6_port), port);
        return ntohs(port);
    }

  private:
    sockaddr* place() noexcept { return reinterpret_cast<sockaddr*>(&storage_); }
    template <class Address>
    void store(const Address& address) noexcept {
        static_assert(sizeof address <= sizeof(sockaddr_storage));
        std::memcpy(&storage_, &address, sizeof address);
        size_ = sizeof address;
    }
    template <class Part>
    void copy_from(std::size_t at, Part& part) const noexcept {
        std::memcpy(&part, reinterpret_cast<const std::byte*>(&storage_) + at, sizeof part);
    }

    sockaddr_storage storage_{};
    socklen_t size_ = sizeof(sockaddr_storage);
};

}  // namespace kumiki::inline v0::detail
