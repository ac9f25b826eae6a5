// One datagram of a netlink socket, whole: what a short buffer cuts off would be lost.
//
// recv(2) with MSG_PEEK and MSG_TRUNC tells the true size first (netlink(7)). What does not come from
// the kernel is dropped. Left out: what the messages in it mean (view.hpp).
#pragma once

#include <linux/netlink.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <span>
#include <vector>

#include <kumiki/sys/check.hpp>

namespace kumiki::inline v0::detail {

/// What was taken out of a netlink socket's queue.
struct netlink_datagram {
    bool is_there = false;  ///< false: the queue is empty
    bool lost = false;  ///< the queue was full: of what should have come behind it, some is lost
    std::span<const std::byte> bytes = {};
};

/// Takes the next datagram of the kernel's out of the queue, without waiting. Its bytes are in
/// `buffer`, which grows as needed. Errors: kumiki::error.
inline netlink_datagram receive_netlink(int fd, std::vector<std::byte>& buffer) {
    netlink_datagram result;
    for (;;) {
        sockaddr_nl sender{};
        iovec part{.iov_base = nullptr, .iov_len = 0};
        msghdr into{};
        into.msg_iov = &part;
        into.msg_iovlen = 1;
        // ENOBUFS comes instead of a datagram that is there. It may come at every second look: each
        // look goes on with a dump, and that may fail for want of room. So it is no end.
        const auto next = [&](int flags) {
            for (;;) {
                const ssize_t size = sys::retry(
                    [&] { return ::recvmsg(fd, &into, flags | MSG_DONTWAIT | MSG_TRUNC); });
                if (size >= 0 || errno != ENOBUFS) return size;
                result.lost = true;
            }
        };
        ssize_t size = next(MSG_PEEK);
        if (size >= 0) {
            if (buffer.size() < static_cast<std::size_t>(size) || buffer.empty())
                buffer.resize(std::max<std::size_t>(static_cast<std::size_t>(size), 32768));
            part = {.iov_base = buffer.data(), .iov_len = buffer.size()};
            into.msg_name = &sender;
            into.msg_namelen = sizeof sender;
            size = next(0);
        }
        if (size < 0 && errno == EAGAIN) return result;
        sys::check(size, "receive netlink message");
        if (into.msg_namelen != sizeof sender || sender.nl_pid != 0) continue;
        result.is_there = true;
        result.bytes = std::span(buffer).first(static_cast<std::size_t>(size));
        return result;
    }
}

}  // namespace kumiki::inline v0::detail
