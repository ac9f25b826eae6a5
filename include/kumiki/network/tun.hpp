// A network interface whose other end is a program: it reads what the interface sends, and writes
// what the interface is to receive.
//
// /dev/net/tun, TUNSETIFF (the kernel's tuntap documentation); Linux 5.10 has all of it, where the
// module tun is there. The interface can be in another network namespace than the program.
// Left out: several queues, offloads, interfaces that outlive their program.
#pragma once

#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <sys/ioctl.h>

#include <cerrno>
#include <cstdint>
#include <string>
#include <utility>

#include <kumiki/core/error.hpp>
#include <kumiki/core/unique_fd.hpp>
#include <kumiki/netlink/mac.hpp>
#include <kumiki/sys/check.hpp>
#include <kumiki/sys/netns.hpp>

namespace kumiki::inline v0 {

/// What passes between the interface and the program.
enum class tun_kind : std::uint8_t {
    packets,  ///< IP packets ("tun")
    frames,   ///< Ethernet frames ("tap")
};

/// The program's end of an interface. The interface goes when this is destroyed.
class tun_device {
  public:
    /// Makes the interface `name` in the network namespace behind `netns_fd`; it is down and has no
    /// address (link.hpp, address.hpp). The descriptor does not block.
    ///
    /// Errors: EBUSY when the name is taken; EPERM without CAP_NET_ADMIN in the namespace's owner;
    /// unsupported (ENOENT, ENODEV) without /dev/net/tun or the module.
    static tun_device open_in(int netns_fd, const std::string& name,
                              tun_kind kind = tun_kind::packets) {
        return sys::in_network_namespace(netns_fd, [&] { return open(name, kind); });
    }
    /// As open_in(), in the calling thread's network namespace.
    static tun_device open(const std::string& name, tun_kind kind = tun_kind::packets) {
        constexpr const char* path = "/dev/net/tun";
        const int fd = sys::retry([&] { return ::open(path, O_RDWR | O_CLOEXEC | O_NONBLOCK); });
        if (fd < 0 && (errno == ENOENT || errno == ENODEV))
            throw unsupported(errno, {.operation = "open",
                                      .object = path,
                                      .remedy = "It needs the kernel's module tun, and the device "
                                                "(mknod /dev/net/tun c 10 200)."});
        unique_fd device(sys::check(fd, "open", path));
        ifreq request{};
        require_link_name(name).copy(request.ifr_name, sizeof request.ifr_name - 1);
        request.ifr_flags = static_cast<short>((kind == tun_kind::packets ? IFF_TUN : IFF_TAP) |
                                               IFF_NO_PI | IFF_TUN_EXCL);
        sys::check(::ioctl(device.get(), TUNSETIFF, &request), "create tun device", name);
        return tun_device(std::move(device), name);
    }

    /// Each read(2) gives one packet or frame, and each write(2) takes one.
    int fd() const noexcept { return device_.get(); }
    const std::string& name() const noexcept { return name_; }
    unique_fd release() noexcept { return std::move(device_); }

  private:
    tun_device(unique_fd device, std::string name) noexcept
        : device_(std::move(device)), name_(std::move(name)) {}

    unique_fd device_;
    std::string name_;
};

}  // namespace kumiki::inline v0
