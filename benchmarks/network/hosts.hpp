// Hosts with a container behind a published port and with many more mappings beside it: kumiki's, and one
// of iptables rules.
#pragma once

#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include <kumiki/network/endpoint.hpp>

#include "network/place.hpp"
#include "network/program.hpp"

namespace bench {

/// A namespace as a host: a client outside is at 192.0.2.9, the host at 192.0.2.1.
struct host_namespaces {
    explicit host_namespaces(const std::string& name)
        : host("host-" + name), client("client-" + name), inside("inside-" + name) {
        network_place::set_up_loopback(host.fd());
        connect(host, "up0", kumiki::cidr::parse("192.0.2.1/24"), client,
                kumiki::cidr::parse("192.0.2.9/24"));
    }
    netns host;
    netns client;
    netns inside;
};

/// kumiki's network "many", with `mappings` of other containers in its maps. The tables are filled by a
/// second handle, since no host has so many free ports; in the kernel it is the same.
class kumiki_host {
  public:
    kumiki_host(const network_place& where, const std::string& name, std::size_t mappings)
        : namespaces_(name), network_(make(where)), others_(fill(mappings)) {}

    const host_namespaces& namespaces() const noexcept { return namespaces_; }
    /// A container that is connected until the returned object goes.
    kumiki::endpoint connect(const netns& inside, std::vector<kumiki::published_port> publish) {
        const visit here(namespaces_.host.fd());
        return kumiki::reserve(network_.attach({.publish = std::move(publish)}), "box")
            .connect(inside.fd());
    }
    /// Waits for what is left of those that are gone.
    void drain() { network_.attach().network->remover->drain(); }
    kumiki::firewall& rules() noexcept { return others_; }
    const kumiki::bridge_network& network() const noexcept { return network_; }

  private:
    kumiki::bridge_network make(const network_place& where) const {
        const visit here(namespaces_.host.fd());
        return kumiki::bridge_network::open({.name = "many",
                                             .subnet = kumiki::cidr::parse("10.64.0.0/16"),
                                             .subnet6 = kumiki::cidr::parse("fd00:64::/64"),
                                             .state_directory = where.state()});
    }
    kumiki::firewall fill(std::size_t mappings) const {
        auto rules = kumiki::firewall::open_in(
            namespaces_.host.fd(), {.network = "many",
                                    .bridge = "km-many",
                                    .subnets = {network_.subnet(), network_.subnet6().value()}});
        // 100 containers, or one; a third of them on all addresses of the host, the others on one.
        const std::size_t containers = mappings >= 1000 ? 100 : 1;
        const auto each = mappings / containers;
        for (std::size_t i = 0; i < containers && each != 0; ++i) {
            const auto first = static_cast<std::uint16_t>(10000 + i % 34 * each);
            const auto last = static_cast<std::uint16_t>(first + each - 1);
            kumiki::published_port ports{.host = {first, last}, .container = {first, last}};
            if (i >= 34)
                ports.address = kumiki::ip_address::parse(fmt::format("198.51.100.{}", 1 + i / 34));
            rules.connect({.container = fmt::format("other-{}", i),
                           .port = fmt::format("other{}", i),
                           .addresses = {network_.subnet().network().plus(1000 + i)},
                           .publish = {ports}});
        }
        return rules;
    }

    host_namespaces namespaces_;
    kumiki::bridge_network network_;
    kumiki::firewall others_;
};

/// A client outside that connects to the host's port 8080, which leads to 80 in the container.
class client_and_server {
  public:
    client_and_server(const host_namespaces& of, kumiki::ip_address server) : client_(&of.client) {
        const visit here(of.inside.fd());
        server_.reset(sys::check(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), "socket"));
        const sockaddr_in address = to_kernel(server, 80);
        sys::check(
            ::bind(server_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address),
            "bind");
        sys::check(::listen(server_.get(), 64), "listen");
    }
    /// Microseconds until connect(2) returns, of `count` connections in turn.
    double time_connections(int count) const {
        const visit there(client_->fd());
        const sockaddr_in to = to_kernel(kumiki::ip_address::parse("192.0.2.1"), 8080);
        double sum = 0;
        for (int i = 0; i < count; ++i) {
            const unique_fd out(
                sys::check(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), "socket"));
            const linger reset{.l_onoff = 1, .l_linger = 0};  // leaves no port in TIME_WAIT
            ::setsockopt(out.get(), SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
            const std::uint64_t start = now();
            sys::check(::connect(out.get(), reinterpret_cast<const sockaddr*>(&to), sizeof to),
                       "connect");
            sum += static_cast<double>(now() - start) / 1000;
            const unique_fd in(
                sys::check(::accept4(server_.get(), nullptr, nullptr, SOCK_CLOEXEC), "accept"));
        }
        return sum / count;
    }

  private:
    static sockaddr_in to_kernel(kumiki::ip_address address, std::uint16_t port) {
        sockaddr_in made{};
        made.sin_family = AF_INET;
        made.sin_port = htons(port);
        std::memcpy(&made.sin_addr, address.data(), sizeof made.sin_addr);
        return made;
    }

    const netns* client_;
    unique_fd server_;
};

/// A host without kumiki: the container is on a plain bridge, and the client's packets are routed to it.
class plain_host {
  public:
    explicit plain_host(const std::string& name) : namespaces_(name) {
        plug_in_plainly(namespaces_.host, kumiki::cidr::parse("10.64.0.1/16"), namespaces_.inside,
                        kumiki::cidr::parse("10.64.0.2/16"));
        auto client = kumiki::netlink_socket::open_in(namespaces_.client.fd(), NETLINK_ROUTE);
        kumiki::netlink_batch route;
        kumiki::add_route(route,
                          kumiki::default_route(kumiki::ip_address::parse("192.0.2.1"),
                                                kumiki::find_link(client, "eth0").value().index));
        client.transact(route);
        const visit here(namespaces_.host.fd());
        sys::write_file_at(AT_FDCWD, "/proc/sys/net/ipv4/ip_forward", "1");
    }
    const host_namespaces& namespaces() const noexcept { return namespaces_; }

    /// What any firewall with a memory needs, and no more: two rules that let known flows pass.
    void track_connections() const {
        const visit here(namespaces_.host.fd());
        run_program({"nft", "-f", "-"}, R"(table inet plain {
    chain forward { type filter hook forward priority filter; ct state established accept; }
    chain input { type filter hook input priority filter; ct state established accept; }
}
)");
    }
    /// A rule of iptables for each of `mappings`; that of port 8080 is the last of them.
    void publish_by_iptables(std::size_t mappings) const {
        std::string rules =
            "*nat\n:BENCH - [0:0]\n"
            "-A PREROUTING -m addrtype --dst-type LOCAL -j BENCH\n";
        for (std::size_t i = 1; i < mappings; ++i)
            rules +=
                fmt::format("-A BENCH -p tcp --dport {} -j DNAT --to-destination 10.64.{}.2:80\n",
                            10000 + i, 1 + i / 250);
        rules += "-A BENCH -p tcp --dport 8080 -j DNAT --to-destination 10.64.0.2:80\nCOMMIT\n";
        const visit here(namespaces_.host.fd());
        run_program({"iptables-restore"}, rules);
    }

  private:
    host_namespaces namespaces_;
};

}  // namespace bench
