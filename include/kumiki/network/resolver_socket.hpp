// The sockets of a network's resolver, and how much each who asks may ask at a time.
//
// socket(7), udp(7), tcp(7). A socket that is bound to the bridge hears nothing from elsewhere, whoever
// else may have a way to the host's address in the network.
#pragma once

#include <netinet/in.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <utility>

#include <kumiki/core/error.hpp>
#include <kumiki/core/ip.hpp>
#include <kumiki/core/unique_fd.hpp>
#include <kumiki/network/port_holder.hpp>
#include <kumiki/network/socket_address.hpp>
#include <kumiki/sys/check.hpp>

namespace kumiki::inline v0::detail {

/// Sends a datagram if that can be done at once; one that is lost is asked for again.
inline void send_now(int fd, const socket_address& to,
                     std::span<const std::byte> message) noexcept {
    (void)::sendto(fd, message.data(), message.size(), MSG_DONTWAIT | MSG_NOSIGNAL, to.get(),
                   to.size());
}

/// A socket on port 53 of `address`, for what comes in by the interface `bridge`, in the calling
/// thread's network namespace. Errors: kumiki::error; EADDRINUSE with the holder.
inline unique_fd bind_name_socket(int type, const ip_address& address, const std::string& bridge) {
    const std::string object = to_string(address) + " port 53";
    unique_fd fd(sys::check(::socket(address.is_v4() ? AF_INET : AF_INET6, type | SOCK_CLOEXEC, 0),
                            "socket", object));
    const auto set = [&](int level, int option, const void* value, std::size_t size) {
        sys::check(::setsockopt(fd.get(), level, option, value, static_cast<socklen_t>(size)),
                   "set socket option", object);
    };
    const int on = 1;
    set(SOL_SOCKET, SO_REUSEPORT, &on, sizeof on);
    // Not for datagrams: there it would let any other program that says the same share the port.
    if (type == SOCK_STREAM) set(SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    set(SOL_SOCKET, SO_BINDTODEVICE, bridge.c_str(), bridge.size());
    if (address.is_v6()) set(IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on);
    const socket_address own(address, 53);
    if (::bind(fd.get(), own.get(), own.size()) != 0) {
        const int code = errno;
        const auto holder =
            code == EADDRINUSE
                ? port_holder(type == SOCK_DGRAM ? protocol::udp : protocol::tcp, address, 53)
                : std::nullopt;
        throw error(code, {.operation = "serve names on",
                           .object = object,
                           .step = {},
                           .container = {},
                           .remedy = holder ? *holder + " has it." : std::string()});
    }
    if (type == SOCK_STREAM) sys::check(::listen(fd.get(), 64), "listen", object);
    return fd;
}

/// How much may be under way at a time, in all and for one address.
class name_quota {
  public:
    name_quota(unsigned most, unsigned most_of_one) noexcept
        : most_(most), most_of_one_(most_of_one) {}
    name_quota(const name_quota&) = delete;
    name_quota& operator=(const name_quota&) = delete;

    /// One of the places; it is given back when this goes.
    class place {
      public:
        place(name_quota& of, const ip_address& who) noexcept : of_(&of), who_(who) {}
        place(place&& other) noexcept : of_(std::exchange(other.of_, nullptr)), who_(other.who_) {}
        place& operator=(place&&) = delete;
        ~place() {
            if (of_ != nullptr) of_->give_back(who_);
        }

      private:
        name_quota* of_;
        ip_address who_;
    };
    /// Nothing when all are taken.
    std::optional<place> take(const ip_address& who) {
        if (all_ >= most_) return std::nullopt;
        unsigned& own = taken_[who];
        if (own >= most_of_one_) return std::nullopt;
        ++all_;
        ++own;
        return std::optional<place>(std::in_place, *this, who);
    }

  private:
    void give_back(const ip_address& who) noexcept {
        --all_;
        const auto found = taken_.find(who);
        if (found != taken_.end() && --found->second == 0) taken_.erase(found);
    }

    std::map<ip_address, unsigned> taken_;
    unsigned all_ = 0;
    unsigned most_;
    unsigned most_of_one_;
};

}  // namespace kumiki::inline v0::detail
