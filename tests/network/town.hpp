// Two networks of kumiki's on a host that routes between an outside and a third host, all in
// namespaces of the test's own; the containers are connected as a container is.
#pragma once

#include <optional>
#include <string>
#include <utility>

#include <kumiki/network/endpoint.hpp>

#include "network/lab.hpp"
#include "support/netns.hpp"
#include "support/scratch.hpp"

namespace kumiki_test {

/// outside (192.0.2.2, .3) -- host (192.0.2.1, 198.51.100.1) -- third (198.51.100.2), and IPv6 alike
/// (2001:db8::, 2001:db8:1::); networks "web" (10.88.0.0/24, fd00:88::/64) and "db" (10.89, fd00:89).
struct town {
    scratch place{};
    node outside{};
    node third{};
    node host{};
    std::optional<bridge_network> web{};
    std::optional<bridge_network> db{};

    explicit town(bool opened = true) {
        host.setting("ipv4/ip_forward", "1");
        host.setting("ipv6/conf/all/forwarding", "1");
        if (std::ifstream("/proc/sys/net/bridge/bridge-nf-call-iptables")) {
            host.setting("bridge/bridge-nf-call-iptables", "0");
            host.setting("bridge/bridge-nf-call-ip6tables", "0");
        }
        host.cable("up", outside, "eth0");
        host.cable("far", third, "eth0");
        for (const char* const each : {"192.0.2.1/24", "2001:db8::1/64"})
            host.address("up", cidr::parse(each));
        for (const char* const each : {"198.51.100.1/24", "2001:db8:1::1/64"})
            host.address("far", cidr::parse(each));
        for (const char* const each : {"192.0.2.2/24", "192.0.2.3/24", "2001:db8::2/64"})
            outside.address("eth0", cidr::parse(each));
        for (const char* const each : {"198.51.100.2/24", "2001:db8:1::2/64"})
            third.address("eth0", cidr::parse(each));
        // The neighbour knows where everybody is, and tries.
        for (const char* const to : {"10.88.0.0/15", "198.51.100.0/24"})
            outside.route(cidr::parse(to), "192.0.2.1"_ip);
        for (const char* const to : {"fd00::/8", "2001:db8:1::/64"})
            outside.route(cidr::parse(to), "2001:db8::1"_ip);
        third.route("192.0.2.0/24"_cidr, "198.51.100.1"_ip);
        third.route("2001:db8::/64"_cidr, "2001:db8:1::1"_ip);
        if (opened) open();
    }
    void open() {
        host.ns.run([&] {
            web = bridge_network::open({.name = "web",
                                        .subnet = "10.88.0.0/24"_cidr,
                                        .subnet6 = "fd00:88::/64"_cidr,
                                        .state_directory = place.path()});
            db = bridge_network::open({.name = "db",
                                       .subnet = "10.89.0.0/24"_cidr,
                                       .subnet6 = "fd00:89::/64"_cidr,
                                       .state_directory = place.path()});
        });
    }
    endpoint connect(const bridge_network& network, const node& inside, const std::string& name,
                     attach_options options = {}) const {
        return host.ns.run([&] { return reserve(network.attach(std::move(options)), name); })
            .connect(inside.ns.fd());
    }
};

}  // namespace kumiki_test
