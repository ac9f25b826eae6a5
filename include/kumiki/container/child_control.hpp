// How the child speaks to its supervisor: single bytes and descriptors over the control socket, each
// wait with a limit.
//
// Raw system calls on prepared data, as all of the child's side (child.hpp).
#pragma once

#include <linux/time_types.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include <cerrno>
#include <cstdint>

#include <kumiki/container/child_paths.hpp>
#include <kumiki/sys/raw.hpp>

namespace kumiki::inline v0::detail {

/// Waits up to `milliseconds` for something to read. The supervisor's end being closed ends the
/// wait, too.
KUMIKI_CHILD_SIDE inline long child_await(long fd, long milliseconds) noexcept {
    pollfd wanted;
    wanted.fd = static_cast<int>(fd);
    wanted.events = POLLIN;
    wanted.revents = 0;
    __kernel_timespec limit;
    limit.tv_sec = milliseconds / 1000;
    limit.tv_nsec = milliseconds % 1000 * 1000000;
    const long ready = sys::raw_syscall(SYS_ppoll, raw_address(&wanted), 1, raw_address(&limit), 0,
                                        sizeof(std::uint64_t));
    if (ready < 0) return ready;
    return ready == 0 ? -ETIMEDOUT : 0;
}

KUMIKI_CHILD_SIDE inline long child_await_byte(long fd, long milliseconds) noexcept {
    const long waited = child_await(fd, milliseconds);
    if (waited < 0) return waited;
    char byte;
    const long got = sys::raw_syscall(SYS_read, fd, raw_address(&byte), 1);
    if (got < 0) return got;
    return got == 1 ? 0 : -ECANCELED;
}

/// A cmsghdr with one descriptor behind it.
struct child_control_message {
    std::size_t length;
    int level;
    int type;
    int fd;
};

/// Receives a descriptor, sent with one byte.
KUMIKI_CHILD_SIDE inline long child_receive_slot(long from, long milliseconds) noexcept {
    const long waited = child_await(from, milliseconds);
    if (waited < 0) return waited;
    char byte;
    iovec data;
    data.iov_base = &byte;
    data.iov_len = 1;
    child_control_message control;
    control.length = 0;
    msghdr message;
    message.msg_name = nullptr;
    message.msg_namelen = 0;
    message.msg_iov = &data;
    message.msg_iovlen = 1;
    message.msg_control = &control;
    message.msg_controllen = sizeof control;
    message.msg_flags = 0;
    const long got = sys::raw_syscall(SYS_recvmsg, from, raw_address(&message), MSG_CMSG_CLOEXEC);
    if (got < 0) return got;
    if (got != 1 || control.length == 0) return -ECANCELED;
    return control.fd;
}

/// Sends the descriptor `fd` over the socket `to`, with the byte that says what it is.
KUMIKI_CHILD_SIDE inline long child_send_slot(long to, long fd, long what) noexcept {
    char byte = static_cast<char>(what);
    iovec data;
    data.iov_base = &byte;
    data.iov_len = 1;
    child_control_message control;
    control.length = offsetof(child_control_message, fd) + sizeof(int);
    control.level = SOL_SOCKET;
    control.type = SCM_RIGHTS;
    control.fd = static_cast<int>(fd);
    msghdr message;
    message.msg_name = nullptr;
    message.msg_namelen = 0;
    message.msg_iov = &data;
    message.msg_iovlen = 1;
    message.msg_control = &control;
    message.msg_controllen = sizeof control;
    message.msg_flags = 0;
    const long sent = sys::raw_syscall(SYS_sendmsg, to, raw_address(&message), MSG_NOSIGNAL);
    return sent < 0 ? sent : 0;
}

}  // namespace kumiki::inline v0::detail
