// Ethernet frames as a hostile container would write them: whatever source it likes in each layer.
#pragma once

#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <sys/socket.h>

#include <cstdint>
#include <initializer_list>
#include <span>
#include <string>
#include <vector>

#include <kumiki/core/ip.hpp>
#include <kumiki/core/unique_fd.hpp>
#include <kumiki/netlink/mac.hpp>
#include <kumiki/sys/check.hpp>

#include "support/netns.hpp"

namespace kumiki_test {

using byte_string = std::vector<std::uint8_t>;

inline void put(byte_string& into, std::initializer_list<unsigned> octets) {
    for (const unsigned each : octets) into.push_back(static_cast<std::uint8_t>(each));
}
inline void put(byte_string& into, const kumiki::mac_address& mac) {
    into.insert(into.end(), mac.octets.begin(), mac.octets.end());
}
inline void put(byte_string& into, const kumiki::ip_address& address) {
    into.insert(into.end(), address.data(), address.data() + address.size());
}
inline void put(byte_string& into, const byte_string& more) {
    into.insert(into.end(), more.begin(), more.end());
}

/// The internet checksum of `data` (RFC 1071).
inline std::uint16_t checksum(const byte_string& data) {
    std::uint32_t sum = 0;
    for (std::size_t i = 0; i < data.size(); i += 2)
        sum += static_cast<std::uint32_t>(data[i] << 8 | (i + 1 < data.size() ? data[i + 1] : 0));
    while (sum >> 16 != 0) sum = (sum & 0xffff) + (sum >> 16);
    return static_cast<std::uint16_t>(~sum);
}

inline byte_string ethernet(const kumiki::mac_address& to, const kumiki::mac_address& from,
                            unsigned type, const byte_string& payload) {
    byte_string frame;
    put(frame, to);
    put(frame, from);
    put(frame, {type >> 8, type & 0xff});
    put(frame, payload);
    if (frame.size() < 60) frame.resize(60);
    return frame;
}

/// An IPv4 packet with a UDP datagram of four octets.
inline byte_string udp_packet(const kumiki::ip_address& from, const kumiki::ip_address& to,
                              unsigned port) {
    byte_string packet;
    put(packet, {0x45, 0, 0, 32, 0, 0, 0, 0, 64, 17, 0, 0});
    put(packet, from);
    put(packet, to);
    const unsigned sum = checksum(packet);
    packet[10] = static_cast<std::uint8_t>(sum >> 8);
    packet[11] = static_cast<std::uint8_t>(sum & 0xff);
    put(packet, {0x9c, 0x40, port >> 8, port & 0xff, 0, 12, 0, 0, 'p', 'i', 'n', 'g'});
    return packet;
}

/// An ARP answer: "`address` is at `mac`", told to `to`.
inline byte_string arp_answer(const kumiki::mac_address& mac, const kumiki::ip_address& address,
                              const kumiki::mac_address& to_mac, const kumiki::ip_address& to) {
    byte_string packet;
    put(packet, {0, 1, 8, 0, 6, 4, 0, 2});
    put(packet, mac);
    put(packet, address);
    put(packet, to_mac);
    put(packet, to);
    return packet;
}

/// An IPv6 packet with an ICMPv6 message, whose checksum is filled in.
inline byte_string icmp6_packet(const kumiki::ip_address& from, const kumiki::ip_address& to,
                                byte_string message, unsigned hop_limit = 255) {
    byte_string pseudo;
    put(pseudo, from);
    put(pseudo, to);
    const auto size = static_cast<unsigned>(message.size());
    put(pseudo, {0, 0, size >> 8, size & 0xff, 0, 0, 0, 58});
    put(pseudo, message);
    const unsigned sum = checksum(pseudo);
    message[2] = static_cast<std::uint8_t>(sum >> 8);
    message[3] = static_cast<std::uint8_t>(sum & 0xff);
    byte_string packet;
    put(packet, {0x60, 0, 0, 0, size >> 8, size & 0xff, 58, hop_limit});
    put(packet, from);
    put(packet, to);
    put(packet, message);
    return packet;
}

/// A neighbour advertisement that overrides: "`target` is at `mac`".
inline byte_string advertisement(const kumiki::ip_address& target, const kumiki::mac_address& mac) {
    byte_string message;
    put(message, {136, 0, 0, 0, 0x60, 0, 0, 0});
    put(message, target);
    put(message, {2, 1});
    put(message, mac);
    return message;
}

/// A neighbour or router solicitation from who is at `mac`.
inline byte_string solicitation(const kumiki::ip_address& target, const kumiki::mac_address& mac) {
    byte_string message;
    put(message, {135, 0, 0, 0, 0, 0, 0, 0});
    put(message, target);
    put(message, {1, 1});
    put(message, mac);
    return message;
}
inline byte_string router_solicitation(const kumiki::mac_address& mac) {
    byte_string message;
    put(message, {133, 0, 0, 0, 0, 0, 0, 0, 1, 1});
    put(message, mac);
    return message;
}

/// Sends a frame by the interface `link` of `ns`.
inline void send_frame(const private_netns& ns, const std::string& link, const byte_string& frame) {
    ns.run([&] {
        const kumiki::unique_fd fd(
            kumiki::sys::check(::socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0), "packet socket"));
        sockaddr_ll to{};
        to.sll_family = AF_PACKET;
        to.sll_ifindex = static_cast<int>(::if_nametoindex(link.c_str()));
        kumiki::sys::check(::sendto(fd.get(), frame.data(), frame.size(), 0,
                                    reinterpret_cast<const sockaddr*>(&to), sizeof to),
                           "send frame", link);
    });
}

}  // namespace kumiki_test
