// A host with two networks in namespaces of the test's own, a neighbour outside, and packets between
// them that arrive or do not.
#pragma once

#include <fstream>
#include <optional>
#include <string>

#include <kumiki/netlink/address.hpp>
#include <kumiki/netlink/link.hpp>
#include <kumiki/netlink/route.hpp>
#include <kumiki/network/firewall.hpp>
#include <kumiki/network/loopback_route.hpp>
#include <kumiki/sys/file.hpp>

#include "support/catch.hpp"
#include "support/netns.hpp"
#include "support/witness.hpp"

namespace kumiki_test {

using namespace kumiki;
using namespace kumiki::literals;

inline constexpr int tcp_type = SOCK_STREAM;
inline constexpr int udp_type = SOCK_DGRAM;
/// How long a packet that must not arrive is waited for.
inline constexpr int silence = 100;

/// A namespace with the means to configure it.
struct node {
    private_netns ns{};
    netlink_socket routes = netlink_socket::open_in(ns.fd(), NETLINK_ROUTE);

    node() {
        // A bridge whose link-local address is tentative yet cannot ask for its neighbours.
        for (const char* const which : {"all", "default"})
            setting("ipv6/conf/" + std::string(which) + "/accept_dad", "0");
        set("lo", {.up = true});
    }
    void set(const std::string& link, const link_change& change) {
        netlink_batch batch;
        set_link(batch, link, change);
        routes.transact(batch);
    }
    void address(const std::string& link, const cidr& own) {
        netlink_batch batch;
        add_address(batch, find_link(routes, link)->index, own);
        routes.transact(batch);
    }
    void route(const cidr& to, const ip_address& via) {
        netlink_batch batch;
        add_route(batch, {.destination = to, .gateway = via});
        routes.transact(batch);
    }
    void setting(const std::string& key, const std::string& value) const {
        ns.run([&] {
            sys::write_file_at(AT_FDCWD, "/proc/sys/net/" + key, value);
            return 0;
        });
    }
    /// A veth pair to `other`; this side is up.
    void cable(const std::string& name, node& other, const std::string& other_name,
               std::optional<mac_address> other_mac = {}) {
        netlink_batch batch;
        create_veth(batch, {.name = name,
                            .peer_name = other_name,
                            .peer_netns = other.ns.fd(),
                            .peer_mac = other_mac});
        set_link(batch, name, {.up = true});
        routes.transact(batch);
        other.set(other_name, {.up = true});
    }
};

/// outside (192.0.2.2 and .3) -- host (192.0.2.1) -- two bridges with containers:
/// km-web (10.88.0.0/24, fd00:88::/64): a, b; km-db (10.89.0.0/24, fd00:89::/64): c.
struct lab {
    node outside{};
    node host{};
    node a{};
    node b{};
    node c{};

    explicit lab(const char* bridged_packets_are_filtered = "0") {
        host.setting("ipv4/ip_forward", "1");
        host.setting("ipv6/conf/all/forwarding", "1");
        std::ifstream bridge_filter("/proc/sys/net/bridge/bridge-nf-call-iptables");
        if (bridge_filter) {
            host.setting("bridge/bridge-nf-call-iptables", bridged_packets_are_filtered);
            host.setting("bridge/bridge-nf-call-ip6tables", bridged_packets_are_filtered);
        }
        host.cable("up", outside, "eth0");
        host.address("up", "192.0.2.1/24"_cidr);
        host.address("up", "2001:db8::1/64"_cidr);
        for (const char* const each : {"192.0.2.2/24", "192.0.2.3/24", "2001:db8::2/64"})
            outside.address("eth0", cidr::parse(each));
        // The neighbour knows where the containers are, and tries.
        outside.route("10.88.0.0/16"_cidr, "192.0.2.1"_ip);
        outside.route("10.89.0.0/16"_cidr, "192.0.2.1"_ip);
        outside.route("fd00::/8"_cidr, "2001:db8::1"_ip);
        outside.setting("ipv4/conf/eth0/rp_filter", "0");
        bridge("km-web", "10.88.0.1/24"_cidr, "fd00:88::1/64"_cidr);
        bridge("km-db", "10.89.0.1/24"_cidr, "fd00:89::1/64"_cidr);
        container(a, "km-a", "km-web", "10.88.0.2/24"_cidr, "fd00:88::2/64"_cidr);
        container(b, "km-b", "km-web", "10.88.0.3/24"_cidr, "fd00:88::3/64"_cidr);
        container(c, "km-c", "km-db", "10.89.0.2/24"_cidr, "fd00:89::2/64"_cidr);
    }

    void bridge(const std::string& name, const cidr& v4, const cidr& v6) {
        netlink_batch batch;
        create_bridge(batch, {.name = name});
        set_link(batch, name,
                 {.up = true,
                  .ipv4 = {{ipv4_setting::route_localnet, 1}, {ipv4_setting::send_redirects, 0}}});
        host.routes.transact(batch);
        host.address(name, v4);
        host.address(name, v6);
        netlink_batch loopback;
        add_loopback_route(loopback, find_link(host.routes, name)->index);
        host.routes.transact(loopback);
    }
    void container(node& inside, const std::string& port, const std::string& bridge_name,
                   const cidr& v4, const cidr& v6) {
        host.cable(port, inside, "eth0", mac_address::from(v4.address));
        host.set(port, {.master = find_link(host.routes, bridge_name)->index});
        host.set(port, {.hairpin = true});
        for (const cidr& own : {v4, v6}) {
            inside.address("eth0", own);
            inside.route(cidr{own.address.masked(0), 0}, own.network().plus(1));
        }
    }
    firewall web() const {
        return firewall::open_in(host.ns.fd(),
                                 {.network = "web",
                                  .bridge = "km-web",
                                  .subnets = {"10.88.0.0/24"_cidr, "fd00:88::/64"_cidr}});
    }
    firewall db() const {
        return firewall::open_in(host.ns.fd(),
                                 {.network = "db",
                                  .bridge = "km-db",
                                  .subnets = {"10.89.0.0/24"_cidr, "fd00:89::/64"_cidr}});
    }
};

inline firewall_rules rules_of_a() {
    return {.container = "a",
            .port = "km-a",
            .addresses = {"10.88.0.2"_ip, "fd00:88::2"_ip},
            .publish = {tcp(8080, 80), udp(5353, 53)}};
}
inline firewall_rules rules_of_b() {
    return {.container = "b", .port = "km-b", .addresses = {"10.88.0.3"_ip, "fd00:88::3"_ip}};
}
inline firewall_rules rules_of_c() {
    return {.container = "c", .port = "km-c", .addresses = {"10.89.0.2"_ip, "fd00:89::2"_ip}};
}

/// What a program prints in a namespace.
inline std::string output_of(const node& in, const std::string& command) {
    return witness(in.ns, command);
}
inline std::string nft_says(const node& in) { return output_of(in, "nft -nn -a list ruleset"); }

/// Sends to `to`, from a chosen address, and tells whom the server sees; nothing when it sees none.
inline std::optional<endpoint_address> reaches(const node& from, int type, ip_address to,
                                               std::uint16_t port, const unique_fd& server,
                                               int milliseconds = 3000,
                                               std::optional<endpoint_address> bound = {}) {
    if (!bound) return reaches(from.ns, type, to, port, server, milliseconds);
    const unique_fd client = from.ns.run([&] {
        unique_fd fd(sys::check(
            ::socket(to.is_v4() ? AF_INET : AF_INET6, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0),
            "socket"));
        const int on = 1;
        ::setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
        const auto [own, own_size] = bound->to_kernel();
        sys::check(::bind(fd.get(), reinterpret_cast<const sockaddr*>(&own), own_size), "bind");
        const auto [address, size] = endpoint_address(to, port).to_kernel();
        if (::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), size) == 0 &&
            type == SOCK_DGRAM)
            (void)::send(fd.get(), "ping", 4, 0);
        return fd;
    });
    if (!wait_for(server.get(), POLLIN, milliseconds)) return std::nullopt;
    sockaddr_storage seen{};
    socklen_t size = sizeof seen;
    if (type == SOCK_DGRAM) {
        char bytes[16];
        sys::check(::recvfrom(server.get(), bytes, sizeof bytes, 0,
                              reinterpret_cast<sockaddr*>(&seen), &size),
                   "receive");
        return endpoint_address(seen);
    }
    const unique_fd connection(
        sys::check(::accept4(server.get(), reinterpret_cast<sockaddr*>(&seen), &size, SOCK_CLOEXEC),
                   "accept"));
    return endpoint_address(seen);
}

inline bool is_silent(const node& from, int type, ip_address to, std::uint16_t port,
                      const unique_fd& server) {
    return !reaches(from, type, to, port, server, silence);
}

/// Sends an ICMP echo request and tells whether the answer comes.
inline bool pings(const node& from, ip_address to) {
    const unique_fd fd = from.ns.run([] {
        return unique_fd(sys::check(::socket(AF_INET, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_ICMP),
                                    "open ICMP socket"));
    });
    const unsigned char request[8] = {8, 0, 0xf7, 0xff};  // type, code, checksum
    const auto [address, size] = endpoint_address(to, 0).to_kernel();
    sys::check(::sendto(fd.get(), request, sizeof request, 0,
                        reinterpret_cast<const sockaddr*>(&address), size),
               "send echo request");
    for (;;) {
        if (!wait_for(fd.get(), POLLIN, silence)) return false;
        unsigned char answer[128];
        const auto got = ::recv(fd.get(), answer, sizeof answer, 0);
        if (got >= 28 && answer[20] == 0) return true;  // behind the IP header: echo reply
    }
}

}  // namespace kumiki_test
