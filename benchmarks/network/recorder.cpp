// The benchmark's own sendto(2) stands before the C library's: see recorder.hpp.
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <kumiki/sys/netns.hpp>

#include "network/recorder.hpp"

thread_local std::vector<bench::sent_messages>* bench::recording = nullptr;

extern "C" ssize_t sendto(int fd, const void* bytes, size_t size, int flags, const sockaddr* to,
                          socklen_t length) {
    if (bench::recording != nullptr && to != nullptr && to->sa_family == AF_NETLINK) {
        int protocol = 0;
        socklen_t room = sizeof protocol;
        ::getsockopt(fd, SOL_SOCKET, SO_PROTOCOL, &protocol, &room);
        bench::recording->push_back(
            {protocol, kumiki::sys::netns_cookie(fd), {static_cast<const char*>(bytes), size}});
    }
    return ::syscall(SYS_sendto, fd, bytes, size, flags, to, length);
}
