// A bridge and NAT by hand: two containers on a switch, and their way to a world that knows the host
// alone. Three namespaces stand for the containers and the world, a fourth for the host, so that
// this machine's own network is left alone. bridge_network does all of this, and more. As root:
//
//   $ ./23_nat
//   the world hears a container: nothing
//   with forwarding alone: nothing
//   with masquerade: from 192.0.2.1, the host
//   the other one too: from 192.0.2.1, the host
//   without masquerade: nothing
#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>

#include <cstdio>
#include <string>

#include <kumiki/netlink/address.hpp>
#include <kumiki/netlink/link.hpp>
#include <kumiki/netlink/nft_action.hpp>
#include <kumiki/netlink/nft_match.hpp>
#include <kumiki/netlink/nftables.hpp>
#include <kumiki/netlink/route.hpp>
#include <kumiki/ns/network_namespace.hpp>

using namespace kumiki;
using namespace kumiki::literals;

/// A namespace and a socket to the kernel about its network.
struct place {
    namespace_fd ns = make_network_namespace();
    netlink_socket socket = netlink_socket::open_in(ns.get(), NETLINK_ROUTE);
};

static void set_up(place& at, const std::string& name, const cidr& own) {
    const int index = find_link(at.socket, name).value().index;
    netlink_batch batch;
    add_address(batch, index, own);
    set_link(batch, index, {.up = true});
    at.socket.transact(batch);
}

/// Plugs a container's cable into the bridge, and gives it an address and a way out.
static void plug_in(place& host, place& container, const std::string& port, const cidr& own) {
    netlink_batch batch;
    create_veth(batch, {.name = port,
                        .peer_name = "eth0",
                        .peer_netns = container.ns.get(),
                        .master = find_link(host.socket, "br0").value().index});
    set_link(batch, port, {.up = true});
    host.socket.transact(batch);
    set_up(container, "eth0", own);
    netlink_batch way_out;
    add_route(way_out, default_route(own.network().plus(1)));
    container.socket.transact(way_out);
}

/// Whom the world hears when the container sends it a datagram.
static std::string heard(const place& world, const place& container) {
    const auto udp = [] { return unique_fd(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0)); };
    const unique_fd server = in_network_namespace(world.ns, udp);
    const unique_fd client = in_network_namespace(container.ns, udp);
    sockaddr_in to{};
    to.sin_family = AF_INET;
    to.sin_port = htons(7);
    ::inet_pton(AF_INET, "192.0.2.9", &to.sin_addr);
    sys::check(::bind(server.get(), reinterpret_cast<const sockaddr*>(&to), sizeof to), "bind");
    for (int tries = 0; tries < 5;
         ++tries) {  // a cable that was just plugged in may lose the first
        (void)::sendto(client.get(), "ping", 4, 0, reinterpret_cast<const sockaddr*>(&to),
                       sizeof to);
        pollfd arrived{.fd = server.get(), .events = POLLIN, .revents = 0};
        ::poll(&arrived, 1, 200);
        sockaddr_in from{};
        socklen_t size = sizeof from;
        char text[8];
        if (::recvfrom(server.get(), text, sizeof text, MSG_DONTWAIT,
                       reinterpret_cast<sockaddr*>(&from), &size) < 0)
            continue;
        char name[INET_ADDRSTRLEN] = {};
        const std::string who = ::inet_ntop(AF_INET, &from.sin_addr, name, sizeof name);
        return "from " + who + (who == "192.0.2.1" ? ", the host" : "");
    }
    return "nothing";
}

int main() try {
    place host;
    place world;
    place one;
    place two;
    netlink_batch make;
    create_bridge(make, {.name = "br0"});
    create_veth(make, {.name = "up0", .peer_name = "eth0", .peer_netns = world.ns.get()});
    host.socket.transact(make);
    set_up(host, "br0", "10.1.2.1/24"_cidr);
    set_up(host, "up0", "192.0.2.1/24"_cidr);
    set_up(world, "eth0", "192.0.2.9/24"_cidr);
    plug_in(host, one, "port1", "10.1.2.2/24"_cidr);
    plug_in(host, two, "port2", "10.1.2.3/24"_cidr);
    const auto forward = [&](std::uint32_t on) {
        netlink_batch batch;
        for (const char* name : {"br0", "up0"})
            set_link(batch, name, {.ipv4 = {{ipv4_setting::forwarding, on}}});
        host.socket.transact(batch);
    };
    forward(0);  // a new namespace can have the setting of the first one
    std::printf("the world hears a container: %s\n", heard(world, one).c_str());

    // The host becomes a router between these two interfaces: the packet would go out, with a source
    // that the world has no way back to. A world that looks for one (rp_filter) throws it away.
    forward(1);
    netlink_batch strict;
    set_link(strict, "eth0", {.ipv4 = {{ipv4_setting::rp_filter, 1}}});
    world.socket.transact(strict);
    std::printf("with forwarding alone: %s\n", heard(world, one).c_str());

    // One table of our own, with one rule: what comes from the containers leaves as if it were ours.
    const nft::table table{.family = nft::family::inet, .name = "nat-example"};
    auto filter = netlink_socket::open_in(host.ns.get(), NETLINK_NETFILTER);
    nft::batch masquerade;
    masquerade.add_table(table);
    masquerade.add_chain(
        table, "out",
        nft::hook{.type = "nat", .point = nft::hook_point::postrouting, .priority = 100});
    masquerade.add_rule(table, "out", "containers", nft::from("10.1.2.0/24"_cidr),
                        nft::output_is("up0"), nft::masquerade{});
    masquerade.commit(filter);
    std::printf("with masquerade: %s\n", heard(world, one).c_str());
    std::printf("the other one too: %s\n", heard(world, two).c_str());

    nft::batch end;
    end.delete_table(table);
    end.commit(filter);
    std::printf("without masquerade: %s\n", heard(world, two).c_str());
    return 0;
} catch (const error& failure) {
    std::fprintf(stderr, "%s\n", failure.what());
    return failure.errno_value() == EPERM ? 77 : 1;
}
