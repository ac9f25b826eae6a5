// Bytes and descriptors over a socket of the unix domain, in one message.
//
// sendmsg(2), SCM_RIGHTS (unix(7)). Left out: receiving them, which has its own needs in each place.
#pragma once

#include <sys/socket.h>
#include <sys/types.h>

#include <array>
#include <cstddef>
#include <cstring>

namespace kumiki::inline v0::sys {

/// Sends `size` bytes and copies of `descriptors`, which stay the caller's. Raises no SIGPIPE.
/// Returns what sendmsg(2) does: the bytes that were sent, or -1 with errno (EPIPE or ECONNRESET
/// when the other end is closed). For threads that may not throw or allocate as well.
template <std::size_t count>
ssize_t send_descriptors(int socket, const void* data, std::size_t size,
                         const std::array<int, count>& descriptors) noexcept {
    iovec bytes{const_cast<void*>(data), size};
    alignas(cmsghdr) char room[CMSG_SPACE(sizeof descriptors)] = {};
    msghdr message{};
    message.msg_iov = &bytes;
    message.msg_iovlen = 1;
    message.msg_control = room;
    message.msg_controllen = sizeof room;
    cmsghdr* const head = CMSG_FIRSTHDR(&message);
    head->cmsg_level = SOL_SOCKET;
    head->cmsg_type = SCM_RIGHTS;
    head->cmsg_len = CMSG_LEN(sizeof descriptors);
    std::memcpy(CMSG_DATA(head), descriptors.data(), sizeof descriptors);
    return ::sendmsg(socket, &message, MSG_NOSIGNAL);
}

}  // namespace kumiki::inline v0::sys
