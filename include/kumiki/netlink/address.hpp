// Addresses of network interfaces over rtnetlink: requests for a batch, and the list.
//
// rtnetlink(7): RTM_NEWADDR, RTM_DELADDR, RTM_GETADDR (filtered by interface: Linux 5.0). IPv6
// addresses are added without duplicate address detection, which would keep them unusable for one
// to two seconds: who calls knows that they are free (leases.hpp).
// Left out: lifetimes, labels, anycast.
#pragma once

#include <linux/rtnetlink.h>

#include <cstdint>
#include <optional>
#include <vector>

#include <kumiki/core/flags.hpp>
#include <kumiki/core/ip.hpp>
#include <kumiki/netlink/link.hpp>
#include <kumiki/netlink/message.hpp>
#include <kumiki/netlink/socket.hpp>
#include <kumiki/netlink/view.hpp>

namespace kumiki::inline v0 {

/// Whether the kernel makes a route to an address's whole network.
enum class prefix_route : std::uint8_t {
    yes,
    no,  ///< what is in the network is reached by the other routes only
};

/// An address of an interface, as the kernel shows it.
struct address_info {
    int link = 0;
    cidr address = {};
    std::uint32_t flags = 0;  ///< IFA_F_* of <linux/if_addr.h>

    bool is_tentative() const noexcept { return (flags & IFA_F_TENTATIVE) != 0; }
};

namespace detail {

constexpr std::uint8_t to_kernel(ip_family family) noexcept {
    return family == ip_family::v4 ? AF_INET : AF_INET6;
}

inline void put_address(netlink_batch& batch, std::uint16_t type, unsigned flags, int link,
                        const cidr& address, const char* operation) {
    ifaddrmsg header{};
    header.ifa_family = to_kernel(address.address.family());
    header.ifa_prefixlen = address.prefix;
    header.ifa_index = static_cast<std::uint32_t>(link);
    batch.add(type, flags, header,
              {operation, to_string(address) + " of interface " + std::to_string(link)});
    batch.address(IFA_LOCAL, address.address);
    batch.address(IFA_ADDRESS, address.address);
}

}  // namespace detail

/// Requests an address for the interface with index `link`. Errors: EEXIST, ENODEV; EACCES where
/// IPv6 is disabled on the interface.
inline void add_address(netlink_batch& batch, int link, const cidr& address,
                        prefix_route route = prefix_route::yes) {
    detail::put_address(batch, RTM_NEWADDR, detail::create_flags, link, address, "add address");
    const bool v4 = address.address.is_v4();
    // A broadcast address where there is room for one, as `ip address add ADDRESS brd +` does it.
    if (v4 && address.prefix < 31) batch.address(IFA_BROADCAST, address.last());
    const std::uint32_t flags =
        (v4 ? 0 : IFA_F_NODAD) | (route == prefix_route::no ? IFA_F_NOPREFIXROUTE : 0U);
    if (flags != 0) batch.u32(IFA_FLAGS, flags);
}

/// Requests the removal of an address. Errors: EADDRNOTAVAIL, ENODEV.
inline void delete_address(netlink_batch& batch, int link, const cidr& address) {
    detail::put_address(batch, RTM_DELADDR, NLM_F_ACK, link, address, "delete address");
}

/// An RTM_NEWADDR message as a value; nothing for families other than IPv4 and IPv6.
/// Errors: EBADMSG.
inline std::optional<address_info> parse_address(const netlink_message& message) {
    const auto header = message.family_header<ifaddrmsg>();
    if (header.ifa_family != AF_INET && header.ifa_family != AF_INET6) return std::nullopt;
    address_info info;
    info.link = static_cast<int>(header.ifa_index);
    info.flags = header.ifa_flags;
    std::optional<ip_address> local;
    for (const netlink_attribute& part : message.attributes<ifaddrmsg>()) {
        if (part.type() == IFA_LOCAL) local = part.address();
        // On a point-to-point link IFA_ADDRESS is the other side's, and IFA_LOCAL ours.
        if (part.type() == IFA_ADDRESS && !local) local = part.address();
        if (part.type() == IFA_FLAGS) info.flags = part.u32();
    }
    if (!local) return std::nullopt;
    info.address = {.address = *local, .prefix = header.ifa_prefixlen};
    return info;
}

/// The addresses of the interface with index `link`, or of all (0). Errors: ENODEV.
inline std::vector<address_info> list_addresses(netlink_socket& socket, int link = 0) {
    netlink_batch batch;
    ifaddrmsg header{};
    header.ifa_index = static_cast<std::uint32_t>(link);
    batch.add(RTM_GETADDR, NLM_F_DUMP, header, {"list addresses"});
    return socket.dump(batch, parse_address);
}

}  // namespace kumiki::inline v0
