// The loopback interface of a new network namespace, up: by one ioctl, which a child's plan carries out
// (encode_namespaces.hpp) or the thread that makes the namespace (netns_maker.hpp). There is no netlink
// conversation for one flag; IPv6's ::1 comes with it.
//
// netdevice(7), SIOCSIFFLAGS.
#pragma once

#include <net/if.h>

#include <cstring>

namespace kumiki::inline v0::detail {

/// What SIOCSIFFLAGS takes.
inline ifreq loopback_up() noexcept {
    ifreq request{};
    std::memcpy(request.ifr_name, "lo", 3);
    request.ifr_flags = IFF_UP;
    return request;
}

}  // namespace kumiki::inline v0::detail
