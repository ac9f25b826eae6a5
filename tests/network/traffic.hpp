// Packets by the thousand between the nodes of a lab, each with a number in it, and who got them.
#pragma once

#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <chrono>
#include <cstdint>
#include <cstring>
#include <map>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <kumiki/network/packet.hpp>

#include "network/lab.hpp"

namespace kumiki_test {

/// Who gets a packet.
enum class place : std::uint8_t { nowhere, outside, host, a, b, c };

using octets = std::vector<std::uint8_t>;

inline void append(octets& into, std::initializer_list<unsigned> more) {
    for (const unsigned each : more) into.push_back(static_cast<std::uint8_t>(each));
}
inline void append(octets& into, const ip_address& address) {
    into.insert(into.end(), address.data(), address.data() + address.size());
}
inline void append_number(octets& into, std::uint32_t number) {
    append(into, {number >> 24, number >> 16 & 0xff, number >> 8 & 0xff, number & 0xff});
}

/// The internet checksum of `data` (RFC 1071), where a sum of 0 is written as all ones.
inline unsigned internet_sum(const octets& data) {
    std::uint32_t sum = 0;
    for (std::size_t i = 0; i < data.size(); i += 2)
        sum += static_cast<std::uint32_t>(data[i] << 8 | (i + 1 < data.size() ? data[i + 1] : 0));
    while (sum >> 16 != 0) sum = (sum & 0xffff) + (sum >> 16);
    sum = ~sum & 0xffff;
    return sum == 0 ? 0xffff : sum;
}

inline constexpr char mark_of_test[] = "kumiki #";

/// A packet with a valid checksum that carries `number`: TCP (a SYN), UDP, an echo request, or bare.
inline octets numbered_packet(const packet& p, std::uint32_t number) {
    octets body;
    std::size_t sum_at = 0;
    const unsigned from = p.source_port;
    const unsigned to = p.destination_port;
    const bool v4 = p.source.is_v4();
    if (p.transport == IPPROTO_TCP) {
        append(body, {from >> 8, from & 0xff, to >> 8, to & 0xff});
        append(body, {0, 0, 0, 1, 0, 0, 0, 0, 0x50, 0x02, 0x10, 0, 0, 0, 0, 0});
        sum_at = 16;
    } else if (p.transport == IPPROTO_UDP) {
        append(body, {from >> 8, from & 0xff, to >> 8, to & 0xff, 0, 8 + 12, 0, 0});
        sum_at = 6;
    } else if (p.is_icmp()) {
        append(body, {v4 ? 8U : 128U, 0, 0, 0, from >> 8, from & 0xff, 0, 1});
        sum_at = 2;
    }
    for (const char c : std::string(mark_of_test)) body.push_back(static_cast<std::uint8_t>(c));
    append_number(body, number);
    const auto size = static_cast<unsigned>(body.size());
    octets pseudo;
    if (!(v4 && p.is_icmp())) {
        append(pseudo, p.source);
        append(pseudo, p.destination);
        append(pseudo, {0, p.transport, size >> 8, size & 0xff});
    }
    pseudo.insert(pseudo.end(), body.begin(), body.end());
    if (sum_at != 0) {
        const unsigned sum = internet_sum(pseudo);
        body[sum_at] = static_cast<std::uint8_t>(sum >> 8);
        body[sum_at + 1] = static_cast<std::uint8_t>(sum & 0xff);
    }
    octets whole;
    if (v4) {
        append(whole,
               {0x45, 0, (size + 20) >> 8, (size + 20) & 0xff, 0, 0, 0, 0, 64, p.transport, 0, 0});
        append(whole, p.source);
        append(whole, p.destination);
        const unsigned sum = internet_sum(whole);
        whole[10] = static_cast<std::uint8_t>(sum >> 8);
        whole[11] = static_cast<std::uint8_t>(sum & 0xff);
    } else {
        append(whole, {0x60, 0, 0, 0, size >> 8, size & 0xff, p.transport, 64});
        append(whole, p.source);
        append(whole, p.destination);
    }
    whole.insert(whole.end(), body.begin(), body.end());
    return whole;
}

/// Sends and collects numbered packets in a lab.
class traffic_meter {
  public:
    explicit traffic_meter(lab& net) : net_(net) {
        for (const auto& [where, which] : nodes()) {
            const node& at = *which;
            at.ns.run([&, here = where] {
                if (here == place::host) {
                    for (const int number :
                         {int{IPPROTO_UDP}, int{IPPROTO_TCP}, int{IPPROTO_ICMP}, 253})
                        listen(here, raw_socket(AF_INET, number), false);
                    for (const int number :
                         {int{IPPROTO_UDP}, int{IPPROTO_TCP}, int{IPPROTO_ICMPV6}, 253})
                        listen(here, raw_socket(AF_INET6, number), false);
                    raw4_ = raw_socket(AF_INET, IPPROTO_RAW);
                    raw6_ = raw_socket(AF_INET6, IPPROTO_RAW);
                    return;
                }
                unique_fd fd(sys::check(
                    ::socket(AF_PACKET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), "socket"));
                sockaddr_ll all{};
                all.sll_family = AF_PACKET;
                all.sll_protocol = htons(ETH_P_ALL);
                all.sll_ifindex = static_cast<int>(::if_nametoindex("eth0"));
                sys::check(::bind(fd.get(), reinterpret_cast<sockaddr*>(&all), sizeof all), "bind");
                listen(here, std::move(fd), true);
            });
        }
        gateways_[place::outside] = mac_of("up");
        gateways_[place::a] = gateways_[place::b] = mac_of("km-web");
        gateways_[place::c] = mac_of("km-db");
        // Until all neighbours know each other.
        for (const ip_family family : {ip_family::v4, ip_family::v6})
            REQUIRE(wait_for_ends(family));
    }

    /// Sends packet `number` from a node, by its interface to the host.
    void send(place from, const packet& p, std::uint32_t number) {
        const octets bytes = numbered_packet(p, number);
        const bool v4 = p.source.is_v4();
        if (from == place::host) {
            const auto [to, size] = endpoint_address(p.destination, 0).to_kernel();
            // What the host itself has no way for is dropped with an error: as good as silence.
            (void)::sendto(v4 ? raw4_.get() : raw6_.get(), bytes.data(), bytes.size(), 0,
                           reinterpret_cast<const sockaddr*>(&to), size);
            return;
        }
        sockaddr_ll to{};
        to.sll_family = AF_PACKET;
        to.sll_protocol = htons(v4 ? ETH_P_IP : ETH_P_IPV6);
        to.sll_ifindex = links_.at(from);
        to.sll_halen = 6;
        std::memcpy(to.sll_addr, gateways_.at(from).octets.data(), 6);
        sys::check(::sendto(packet_sockets_.at(from), bytes.data(), bytes.size(), 0,
                            reinterpret_cast<const sockaddr*>(&to), sizeof to),
                   "send packet");
    }
    /// Who got which of the numbers since the last call, all packets having had the time to arrive;
    /// those that are `expected` and late are waited for.
    std::map<std::uint32_t, std::set<place>> collect(
        const std::map<std::uint32_t, place>& expected) {
        REQUIRE(wait_for_ends(ip_family::v4));
        REQUIRE(wait_for_ends(ip_family::v6));
        const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(2);
        for (const auto& [number, where] : expected)
            while (where != place::nowhere && !arrived_[number].contains(where) &&
                   std::chrono::steady_clock::now() < deadline) {
                std::this_thread::sleep_for(std::chrono::milliseconds(1));
                drain();
            }
        return std::exchange(arrived_, {});
    }

  private:
    struct listener {
        place where;
        unique_fd fd;
        bool is_packet_socket;
    };

    std::vector<std::pair<place, const node*>> nodes() const {
        return {{place::outside, &net_.outside},
                {place::host, &net_.host},
                {place::a, &net_.a},
                {place::b, &net_.b},
                {place::c, &net_.c}};
    }
    static unique_fd raw_socket(int family, int number) {
        unique_fd fd(sys::check(::socket(family, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, number),
                                "socket"));
        return fd;
    }
    void listen(place where, unique_fd fd, bool is_packet_socket) {
        const int room = 64 << 20;
        sys::check(::setsockopt(fd.get(), SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof room),
                   "make room");
        if (is_packet_socket) {
            const int on = 1;
            sys::check(
                ::setsockopt(fd.get(), SOL_PACKET, 23 /* PACKET_IGNORE_OUTGOING */, &on, sizeof on),
                "ignore outgoing packets");
            packet_sockets_[where] = fd.get();
            links_[where] = static_cast<int>(::if_nametoindex("eth0"));
        }
        listeners_.push_back({where, std::move(fd), is_packet_socket});
    }
    mac_address mac_of(const std::string& link) {
        const auto found = find_link(net_.host.routes, link);
        REQUIRE(found);
        REQUIRE(found->mac);
        return *found->mac;
    }
    void drain() {
        std::uint8_t bytes[2048];
        for (const listener& each : listeners_)
            for (;;) {
                const auto got = ::recv(each.fd.get(), bytes, sizeof bytes, 0);
                if (got <= 0) break;
                note(each, std::string_view(reinterpret_cast<const char*>(bytes),
                                            static_cast<std::size_t>(got)));
            }
    }
    void note(const listener& by, std::string_view bytes) {
        const auto at = bytes.find(mark_of_test);
        const std::size_t behind = at + sizeof mark_of_test - 1;
        if (at == std::string_view::npos || bytes.size() < behind + 4) return;
        // What stands before the mark: no error that quotes a packet, and no echo.
        const auto octet = [&](std::size_t i) { return static_cast<std::uint8_t>(bytes[i]); };
        const bool v4 = octet(0) >> 4 == 4;
        if (by.is_packet_socket) {
            const unsigned number = octet(v4 ? 9 : 6);
            const std::size_t head = v4 ? 20 : 40;
            if (number == IPPROTO_ICMP && octet(head) != 8) return;
            if (number == IPPROTO_ICMPV6 && octet(head) != 128) return;
        } else if (at == 8 || at == 28) {
            // An echo request or a datagram; of the former the first octet is its type.
            if (at == 28 && octet(9) == IPPROTO_ICMP && octet(20) != 8) return;
            if (at == 8 && octet(0) == 129) return;
        } else if (at > 40) {
            return;
        }
        std::uint32_t number = 0;
        for (std::size_t i = 0; i < 4; ++i) number = number << 8 | octet(behind + i);
        if (number >= first_end)
            ends_.insert({by.where, number});
        else
            arrived_[number].insert(by.where);
    }
    // The host may speak to everybody: what was sent before has arrived, or will not.
    bool wait_for_ends(ip_family family) {
        const bool v4 = family == ip_family::v4;
        const std::pair<place, const char*> to[] = {
            {place::outside, v4 ? "192.0.2.2" : "2001:db8::2"},
            {place::a, v4 ? "10.88.0.2" : "fd00:88::2"},
            {place::b, v4 ? "10.88.0.3" : "fd00:88::3"},
            {place::c, v4 ? "10.89.0.2" : "fd00:89::2"},
            {place::host, v4 ? "192.0.2.1" : "2001:db8::1"}};
        const std::uint32_t number = first_end + ++ends_sent_;
        for (int attempt = 0; attempt < 50; ++attempt) {
            bool all = true;
            for (const auto& [where, address] : to)
                if (!ends_.contains({where, number})) {
                    all = false;
                    send(place::host,
                         {.source = ip_address::parse(v4 ? "192.0.2.1" : "2001:db8::1"),
                          .destination = ip_address::parse(address),
                          .transport = IPPROTO_UDP,
                          .source_port = 9,
                          .destination_port = 9},
                         number);
                }
            if (all) break;
            for (int wait = 0; wait < 20 && ends_.size() % std::size(to) != 0; ++wait) {
                drain();
                std::this_thread::sleep_for(std::chrono::milliseconds(1));
            }
            drain();
        }
        bool all = true;
        for (const auto& [where, address] : to) all = all && ends_.contains({where, number});
        ends_.clear();
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
        drain();
        ends_.clear();
        return all;
    }

    static constexpr std::uint32_t first_end = 0xf0000000;
    lab& net_;
    std::vector<listener> listeners_;
    std::map<place, int> packet_sockets_;
    std::map<place, int> links_;
    std::map<place, mac_address> gateways_;
    unique_fd raw4_;
    unique_fd raw6_;
    std::map<std::uint32_t, std::set<place>> arrived_;
    std::set<std::pair<place, std::uint32_t>> ends_;
    std::uint32_t ends_sent_ = 0;
};

}  // namespace kumiki_test
