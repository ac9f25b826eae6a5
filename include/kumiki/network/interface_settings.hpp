// Settings of one interface in a network namespace: the files below /proc/sys/net/ipv4/conf and
// /proc/sys/net/ipv6/conf, and whether the kernel may leave checksums to the hardware.
//
// ip-sysctl (the kernel's documentation), ethtool ioctls; Linux 5.10 has all of it. The files are
// those of the caller's own /proc, seen from a thread inside of the namespace.
// Left out: the settings of a whole namespace (container_spec has them), other offloads.
#pragma once

#include <fcntl.h>
#include <linux/ethtool.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <cstdint>
#include <string>
#include <vector>

#include <kumiki/core/error.hpp>
#include <kumiki/core/ip.hpp>
#include <kumiki/core/unique_fd.hpp>
#include <kumiki/netlink/mac.hpp>
#include <kumiki/sys/check.hpp>
#include <kumiki/sys/file.hpp>
#include <kumiki/sys/netns.hpp>

namespace kumiki::inline v0 {

/// A setting of an interface: {ip_family::v4, "rp_filter", "1"}.
struct interface_setting {
    ip_family family = ip_family::v4;
    std::string key = {};
    std::string value = {};
};

/// Who computes the checksums of the packets that an interface sends. Between the two ends of a
/// veth pair nobody does, and the kernel knows; but a program that reads packets raw (a DHCP
/// client, a tunnel in user space) sees them as broken.
enum class checksums : std::uint8_t { left_out, computed };

/// Errors: invalid_input unless the setting names a file of an interface.
inline void require_setting(const interface_setting& setting) {
    bool good = !setting.key.empty();
    for (const char c : setting.key)
        good = good && ((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_');
    if (!good)
        throw invalid_input("interface setting", setting.key,
                            "It must be a file below /proc/sys/net/ipv4/conf/all, or ipv6's.");
}

/// Writes settings of the interface `link` in the namespace behind `netns_fd`.
/// Errors: invalid_input; kumiki::error ENOENT for a setting that this kernel does not have, EINVAL
/// for a value that it refuses; those before it were written.
inline void write_settings(int netns_fd, const std::string& link,
                           const std::vector<interface_setting>& settings) {
    for (const interface_setting& each : settings) require_setting(each);
    if (settings.empty()) return;
    sys::in_network_namespace(netns_fd, [&] {
        for (const interface_setting& each : settings)
            sys::write_file_at(AT_FDCWD,
                               std::string("/proc/sys/net/") +
                                   (each.family == ip_family::v4 ? "ipv4" : "ipv6") + "/conf/" +
                                   require_link_name(link) + "/" + each.key,
                               each.value);
    });
}

/// Sets who computes the checksums of what `link` in the namespace behind `netns_fd` sends.
/// Errors: ENODEV; EOPNOTSUPP for an interface that cannot do otherwise.
inline void set_checksums(int netns_fd, const std::string& link, checksums wanted) {
    sys::in_network_namespace(netns_fd, [&] {
        const unique_fd socket(
            sys::check(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), "open socket"));
        ethtool_value value{.cmd = ETHTOOL_STXCSUM,
                            .data = wanted == checksums::left_out ? 1U : 0U};
        ifreq request{};
        require_link_name(link).copy(request.ifr_name, sizeof request.ifr_name - 1);
        request.ifr_data = reinterpret_cast<char*>(&value);
        sys::check(::ioctl(socket.get(), SIOCETHTOOL, &request), "set checksum offload", link);
    });
}

}  // namespace kumiki::inline v0
