// A live log of what a network's rules deny: each dropped packet comes with its container and the rule that
// dropped it. One network namespace stands for the host, so that this machine's own is left alone, and
// a second one for a container that may ask one name server and nothing else. As root:
//
//   web out 10.88.0.2:40000 to 192.0.2.1:443 protocol 6 by web:out:rest
//   web out 10.88.0.2:40000 to 192.0.2.66:53 protocol 17 by web:out:0
//   web out 10.88.0.2:40000 to 10.88.0.1:22 protocol 6 by base:host:the host is not a peer
//   three denied, the question to the name server was not
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sched.h>
#include <sys/socket.h>
#include <unistd.h>

#include <fmt/format.h>

#include <kumiki/async/timeout.hpp>
#include <kumiki/network/denial.hpp>
#include <kumiki/network/denials.hpp>
#include <kumiki/network/endpoint.hpp>
#include <kumiki/ns/network_namespace.hpp>

using namespace kumiki;
using namespace kumiki::literals;
using namespace std::chrono_literals;

// Sends one packet, from port 40000, and does not wait for an answer.
static void knock(int type, const char* host, std::uint16_t port) {
    const unique_fd client(
        sys::check(::socket(AF_INET, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), "socket"));
    sockaddr_in own{};
    own.sin_family = AF_INET;
    own.sin_port = htons(40000);
    sys::check(::bind(client.get(), reinterpret_cast<const sockaddr*>(&own), sizeof own), "bind");
    sockaddr_in to{};
    to.sin_family = AF_INET;
    to.sin_port = htons(port);
    ::inet_pton(AF_INET, host, &to.sin_addr);
    (void)::connect(client.get(), reinterpret_cast<const sockaddr*>(&to), sizeof to);
    if (type == SOCK_DGRAM) (void)::send(client.get(), "who is there?", 13, 0);
}

static task<int> follow(scheduler& io, bridge_network net, const namespace_fd& inside) {
    auto denied = watch_denials(io, net);  // from here on nothing is missed
    in_network_namespace(inside, [] {
        knock(SOCK_STREAM, "192.0.2.1", 443);
        knock(SOCK_DGRAM, "192.0.2.66", 53);
        knock(SOCK_DGRAM, "192.0.2.53", 53);
        knock(SOCK_STREAM, "10.88.0.1", 22);
    });
    int count = 0;
    for (;;) {
        auto next = co_await with_timeout(io, 300ms, denied.next());
        if (!next) break;
        if (!*next) break;
        fmt::print("{}\n", to_string(**next));
        ++count;
    }
    fmt::print("{} denied, the question to the name server was not\n",
               count == 3 ? "three" : "not three");
    co_return count == 3 ? 0 : 1;
}

int main() try {
    if (::geteuid() != 0) {
        fmt::print(stderr, "It takes root.\n");
        return 77;
    }
    sys::check(::unshare(CLONE_NEWNET), "unshare");  // from here on, "the host"
    bring_loopback_up(namespace_fd::current(namespace_kind::net).get());
    {  // a way out that leads nowhere
        auto routes = netlink_socket::open(NETLINK_ROUTE);
        netlink_batch batch;
        create_veth(batch, {.name = "out", .peer_name = "nowhere"});
        set_link(batch, "out", {.up = true});
        set_link(batch, "nowhere", {.up = true});
        routes.transact(batch);
        netlink_batch address;
        add_address(address, find_link(routes, "out")->index, "192.0.2.254/24"_cidr);
        routes.transact(address);
    }
    const auto inside = make_network_namespace();
    auto net = bridge_network::open({.name = "log", .subnet = "10.88.0.0/24"_cidr});
    auto reserved = reserve(
        net.attach(
            {.egress = deny_all().deny("192.0.2.66"_ip).allow("192.0.2.0/24"_cidr, udp(53))}),
        "web");
    const endpoint link = std::move(reserved).connect(inside.get());
    return kumiki::run([&](scheduler& io) { return follow(io, net, inside); });
} catch (const error& failure) {
    fmt::print(stderr, "{}\n", failure.what());
    return 1;
}
