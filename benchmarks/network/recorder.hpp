// The netlink messages that the library sends, as they are, to be sent again without it.
#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

namespace bench {

/// What went out in one sendto(2).
struct sent_messages {
    int protocol = 0;  ///< of the netlink socket
    std::uint64_t netns = 0;  ///< the cookie of the socket's network namespace
    std::string bytes{};
};

/// Where the calling thread's netlink messages are written down; null: nowhere.
extern thread_local std::vector<sent_messages>* recording;

/// What `function` sends on this thread.
template <class Function>
std::vector<sent_messages> record(Function&& function) {
    std::vector<sent_messages> all;
    recording = &all;
    function();
    recording = nullptr;
    return all;
}

}  // namespace bench
