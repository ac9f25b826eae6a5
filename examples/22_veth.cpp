// A veth pair by hand: a cable between two network namespaces, with netlink messages and nothing else.
// One of the two stands for the host, so that this machine's own network is left alone. As root:
//
//   $ ./22_veth
//   the host's end: host0, veth, up
//   the container's end: eth0, 02:00:00:00:00:02, 10.1.2.2/24
//   its way out: default via 10.1.2.1
//   a datagram from the container arrives from 10.1.2.2
//   the host's end is deleted: so is the container's
#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>

#include <cstdio>
#include <string>

#include <kumiki/netlink/address.hpp>
#include <kumiki/netlink/link.hpp>
#include <kumiki/netlink/link_info.hpp>
#include <kumiki/netlink/route.hpp>
#include <kumiki/ns/network_namespace.hpp>

using namespace kumiki;
using namespace kumiki::literals;

/// Brings the interface up with `own`; the result is its index.
static int set_up(netlink_socket& socket, const std::string& name, const cidr& own) {
    const int index = find_link(socket, name).value().index;
    netlink_batch batch;  // one message to the kernel, with several requests in it
    add_address(batch, index, own);
    set_link(batch, index, {.up = true});
    socket.transact(batch);
    return index;
}

static sockaddr_in address_of(const ip_address& address, std::uint16_t port) {
    sockaddr_in to{};
    to.sin_family = AF_INET;
    to.sin_port = htons(port);
    ::inet_pton(AF_INET, to_string(address).c_str(), &to.sin_addr);
    return to;
}

int main() try {
    const auto host = make_network_namespace();
    const auto container = make_network_namespace();
    auto outside = netlink_socket::open_in(host.get(), NETLINK_ROUTE);
    auto inside = netlink_socket::open_in(container.get(), NETLINK_ROUTE);

    // The far end is born in the container's namespace, with its name: nobody ever sees it elsewhere.
    netlink_batch batch;
    create_veth(batch, {.name = "host0",
                        .peer_name = "eth0",
                        .peer_netns = container.get(),
                        .peer_mac = mac_address::parse("02:00:00:00:00:02")});
    outside.transact(batch);
    set_up(outside, "host0", "10.1.2.1/24"_cidr);
    const int eth0 = set_up(inside, "eth0", "10.1.2.2/24"_cidr);
    netlink_batch way_out;
    add_route(way_out, default_route("10.1.2.1"_ip, eth0));
    inside.transact(way_out);

    const link_info near = find_link(outside, "host0").value();
    std::printf("the host's end: %s, %s, %s\n", near.name.c_str(), near.kind.c_str(),
                near.is_up ? "up" : "down");
    const link_info far = find_link(inside, "eth0").value();
    for (const address_info& each : list_addresses(inside, eth0))
        if (each.address.address.is_v4())
            std::printf("the container's end: %s, %s, %s\n", far.name.c_str(),
                        to_string(far.mac.value()).c_str(), to_string(each.address).c_str());
    for (const route_info& route : list_routes(inside))
        if (route.is_default()) std::printf("its way out: %s\n", to_string(route).c_str());

    // A socket belongs for good to the namespace in which it was made.
    const auto udp = [] { return unique_fd(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0)); };
    const unique_fd server = in_network_namespace(host, udp);
    const unique_fd client = in_network_namespace(container, udp);
    const sockaddr_in to = address_of("10.1.2.1"_ip, 7);
    sys::check(::bind(server.get(), reinterpret_cast<const sockaddr*>(&to), sizeof to), "bind");
    sys::check(
        ::sendto(client.get(), "ping", 4, 0, reinterpret_cast<const sockaddr*>(&to), sizeof to),
        "sendto");
    pollfd arrived{.fd = server.get(), .events = POLLIN, .revents = 0};
    ::poll(&arrived, 1, 5000);
    sockaddr_in from{};
    socklen_t size = sizeof from;
    char text[8];
    sys::check(::recvfrom(server.get(), text, sizeof text, MSG_DONTWAIT,
                          reinterpret_cast<sockaddr*>(&from), &size),
               "recvfrom");
    char name[INET_ADDRSTRLEN] = {};
    std::printf("a datagram from the container arrives from %s\n",
                ::inet_ntop(AF_INET, &from.sin_addr, name, sizeof name));

    netlink_batch end;
    delete_link(end, near.index);
    outside.transact(end);
    std::printf("the host's end is deleted: %s\n",
                find_link(inside, "eth0") ? "the container's is left" : "so is the container's");
    return 0;
} catch (const error& failure) {
    std::fprintf(stderr, "%s\n", failure.what());
    return failure.errno_value() == EPERM ? 77 : 1;
}
