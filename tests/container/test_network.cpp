// A container with a network of its own, from end to end: a host, an outside, packets.
#include <functional>
#include <string>
#include <thread>

#include <kumiki/container/container.hpp>
#include <kumiki/netlink/address.hpp>
#include <kumiki/netlink/link.hpp>
#include <kumiki/netlink/link_kinds.hpp>
#include <kumiki/network/bridge_network.hpp>
#include <kumiki/network/resolver.hpp>

#include "container/support.hpp"
#include "support/busybox.hpp"
#include "support/catch.hpp"
#include "support/leaks.hpp"
#include "support/netns.hpp"
#include "support/scratch.hpp"

using namespace kumiki;
using namespace kumiki::literals;
using namespace std::chrono_literals;
using kumiki_test::private_netns;

namespace {

/// A host with a network of containers, and an outside with two clients' addresses.
struct site {
    kumiki_test::busybox_root root;
    kumiki_test::scratch place;
    private_netns host;
    private_netns outside;

    site() {
        kumiki_test::write_text(root.path() + "/www/index.html", "a page\n");
        bring_loopback_up(host.fd());
        host.run([&] {
            auto route = netlink_socket::open(NETLINK_ROUTE);
            netlink_batch batch;
            create_veth(batch, {.name = "up0", .peer_name = "out0", .peer_netns = outside.fd()});
            route.transact(batch);
        });
        give(host, "up0", {"192.0.2.1/24"_cidr, "2001:db8::1/64"_cidr});
        give(outside, "out0", {"192.0.2.7/24"_cidr, "192.0.2.66/24"_cidr, "2001:db8::7/64"_cidr});
    }

    static void give(const private_netns& ns, const char* name, std::vector<cidr> addresses) {
        ns.run([&] {
            auto route = netlink_socket::open(NETLINK_ROUTE);
            netlink_batch batch;
            const int index = static_cast<int>(::if_nametoindex(name));
            for (const cidr& address : addresses) add_address(batch, index, address);
            set_link(batch, index, {.up = true});
            route.transact(batch);
        });
    }

    bridge_network open() {
        return bridge_network::open({.name = "web",
                                     .subnet = "10.88.0.0/24"_cidr,
                                     .subnet6 = "fd00:88::/64"_cidr,
                                     .state_directory = place.path()});
    }
    container_spec spec(std::string script) {
        return kumiki_test::shell_spec(root, std::move(script));
    }

    /// What a client gets from http://to:port/, or nothing.
    std::string fetch(const private_netns& from, ip_address to, std::uint16_t port,
                      std::optional<ip_address> source = {}, int milliseconds = 3000) {
        return from.run([&]() -> std::string {
            const unique_fd fd(::socket(to.is_v4() ? AF_INET : AF_INET6,
                                        SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
            if (source) {
                const auto [own, size] = kumiki_test::endpoint_address(*source, 0).to_kernel();
                sys::check(::bind(fd.get(), reinterpret_cast<const sockaddr*>(&own), size), "bind");
            }
            const auto [peer, size] = kumiki_test::endpoint_address(to, port).to_kernel();
            ::connect(fd.get(), reinterpret_cast<const sockaddr*>(&peer), size);
            if (!kumiki_test::wait_for(fd.get(), POLLOUT, milliseconds)) return "";
            const char request[] = "GET / HTTP/1.0\r\n\r\n";
            if (::send(fd.get(), request, sizeof request - 1, MSG_NOSIGNAL) < 0) return "";
            std::string answer;
            char text[1024];
            while (kumiki_test::wait_for(fd.get(), POLLIN, milliseconds)) {
                const auto n = ::recv(fd.get(), text, sizeof text, 0);
                if (n <= 0) break;
                answer.append(text, static_cast<std::size_t>(n));
            }
            const auto body = answer.find("\r\n\r\n");
            return body == std::string::npos ? "" : answer.substr(body + 4);
        });
    }
};

const std::string serve_script =
    "httpd -p 80 -h /www; while ! wget -q -O /dev/null http://127.0.0.1/ 2>/dev/null; do sleep "
    "0.01; done; "
    "echo ready; sleep 1000";

/// Starts a server, waits until it serves, and gives it to `use` on the host with what it said.
using use_server = std::function<void(container&, const std::string&)>;
task<void> telling(scheduler& io, container_spec spec, use_server use) {
    kumiki_test::pipe_pair pipe;
    spec.process.stdio[1] = pipe.out.get();
    auto box = co_await container::start(io, std::move(spec));
    pipe.out.reset();
    std::string told;
    while (!told.ends_with("ready\n")) {
        std::byte buffer[1024];
        auto size = co_await io.read(pipe.in.get(), buffer);
        INFO(told);
        REQUIRE(size > 0);
        told.append(reinterpret_cast<const char*>(buffer), size);
    }
    use(box, told);
}
task<void> serving(scheduler& io, container_spec spec, kumiki_test::use_container use) {
    use_server told = [use = std::move(use)](container& box, const std::string& text) {
        CHECK(text == "ready\n");
        use(box);
    };
    co_await telling(io, std::move(spec), std::move(told));
}

std::vector<std::string> bridges_and_veths(const private_netns& ns) {
    auto socket = netlink_socket::open_in(ns.fd(), NETLINK_ROUTE);
    std::vector<std::string> names;
    for (const auto& link : list_links(socket)) names.push_back(link.name);
    return names;
}

/// The deletion of interfaces ends a little after the containers.
std::vector<std::string> settled_links(const private_netns& ns,
                                       const std::vector<std::string>& wanted) {
    for (int i = 0;; ++i) {
        auto links = bridges_and_veths(ns);
        if (links == wanted || i == 200) return links;
        std::this_thread::sleep_for(10ms);
    }
}

}  // namespace

TEST_CASE(
    "a published port answers from outside in both families, and a denied client gets nothing") {
    NEEDS_NETNS;
    site here;
    const auto before = bridges_and_veths(here.host);
    here.host.run([&] {
        const auto net = here.open();
        scheduler io;
        auto spec = here.spec(serve_script);
        spec.network =
            net.attach({.publish = {tcp(8080, 80)}, .ingress = allow_all().deny("192.0.2.66"_ip)});
        io.run(serving(io, std::move(spec), [&](container& box) {
            CHECK(here.fetch(here.outside, "192.0.2.1"_ip, 8080, "192.0.2.7"_ip) == "a page\n");
            CHECK(here.fetch(here.outside, "2001:db8::1"_ip, 8080) == "a page\n");
            CHECK(here.fetch(here.outside, "192.0.2.1"_ip, 8080, "192.0.2.66"_ip, 300).empty());
            CHECK(here.fetch(here.host, "127.0.0.1"_ip, 8080) == "a page\n");
            CHECK(here.fetch(here.host, "192.0.2.1"_ip, 8080) == "a page\n");
            CHECK(here.fetch(here.outside, "192.0.2.1"_ip, 80, {}, 300).empty());
            REQUIRE(box.network() != nullptr);
            CHECK(box.network()->addresses().size() == 2);
        }));
    });
    CHECK(bridges_and_veths(here.host) == before);
}

TEST_CASE("a container finds its address, its route and its own name inside") {
    NEEDS_NETNS;
    site here;
    here.host.run([&] {
        const auto net = here.open();
        auto spec = here.spec("ip -o -4 addr show eth0; ip route; ip -6 route; cat /etc/hosts");
        spec.name = "named";
        spec.network = net.attach({.address = "10.88.0.9"_ip});
        const auto seen = kumiki_test::run_shell(std::move(spec));
        CHECK(seen.output.find("10.88.0.9") != std::string::npos);
        CHECK(seen.output.find("default via 10.88.0.1 dev eth0") != std::string::npos);
        CHECK(seen.output.find("default via fd00:88::1 dev eth0") != std::string::npos);
        CHECK(seen.output.find("10.88.0.9\tnamed") != std::string::npos);
    });
}

TEST_CASE("the spec's lines stand in the hosts file, and its resolver in resolv.conf") {
    const kumiki_test::busybox_root root;
    auto spec = kumiki_test::shell_spec(
        root, "cat /etc/hosts /etc/resolv.conf; busybox ping -c 1 -W 1 self");
    spec.hosts = {{"192.0.2.9"_ip, "ledger"}, {"127.0.0.9"_ip, "self"}};
    spec.resolver = {
        .nameservers = {"192.0.2.53"_ip}, .search = {"shop.example"}, .options = {"ndots:1"}};
    const auto seen = kumiki_test::run_shell(std::move(spec));
    INFO(seen.output);
    CHECK(seen.output.find("192.0.2.9\tledger\n") != std::string::npos);
    CHECK(seen.output.find("search shop.example\nnameserver 192.0.2.53\noptions ndots:1\n") !=
          std::string::npos);
    CHECK(seen.output.find("PING self (127.0.0.9)") != std::string::npos);
}

TEST_CASE("containers of a network with names look each other up as programs do") {
    NEEDS_NETNS;
    site here;
    here.host.run([&] {
        const auto net = bridge_network::open({.name = "web",
                                               .subnet = "10.88.0.0/24"_cidr,
                                               .subnet6 = "fd00:88::/64"_cidr,
                                               .names = name_service::on,
                                               .domain = "shop.internal",
                                               .state_directory = here.place.path()});
        auto server = here.spec(serve_script);
        server.name = "front-" + server.name;
        server.network =
            net.attach({.publish = {tcp(8080, 80)}, .address = "10.88.0.9"_ip, .aliases = {"db"}});
        auto client = here.spec(
            "cat /etc/resolv.conf; nslookup -type=a db; nslookup -type=aaaa db.shop.internal; "
            "nslookup -type=a nobody");
        client.network = net.attach({.egress = deny_all().allow("10.88.0.0/24"_cidr)});
        kumiki_test::outcome seen;
        scheduler io;
        io.run(with_scope(io, [&](scope& tasks) -> task<void> {
            tasks.spawn(serve_names(io, net, {.forward_to = {{}}}));
            kumiki_test::pipe_pair pipe;
            server.process.stdio[1] = pipe.out.get();
            auto box = co_await container::start(io, std::move(server));
            pipe.out.reset();
            std::byte buffer[16];
            co_await io.read(pipe.in.get(), buffer);
            auto outcome = co_await kumiki_test::start_and_read(io, std::move(client));
            seen = std::move(outcome);
            tasks.cancel();
        }));
        INFO(seen.output);
        const auto says = [&](const char* text) {
            return seen.output.find(text) != std::string::npos;
        };
        CHECK(seen.output.starts_with("search shop.internal\nnameserver 10.88.0.1\n"));
        CHECK(says("Name:\tdb.shop.internal\nAddress: 10.88.0.9\n"));
        CHECK(says("Name:\tdb.shop.internal\nAddress: fd00:88::9\n"));
        CHECK(says("NXDOMAIN"));
    });
}

TEST_CASE("a container with its egress denied reaches nothing, with its first packet too") {
    NEEDS_NETNS;
    site here;
    const auto server = kumiki_test::serve(here.outside, SOCK_STREAM, "192.0.2.7"_ip, 5000);
    here.host.run([&] {
        const auto net = here.open();
        const auto send_one = [&](policy egress) {
            auto spec = here.spec("nc 192.0.2.7 5000 < /etc/passwd & sleep 0.5");
            spec.network = net.attach({.egress = std::move(egress)});
            kumiki_test::run_shell(std::move(spec));
            return static_cast<bool>(unique_fd(::accept(server.get(), nullptr, nullptr)));
        };
        CHECK_FALSE(send_one(deny_all()));
        CHECK(send_one(allow_all()));
        CHECK_FALSE(send_one(allow_all().deny("192.0.2.0/24"_cidr)));
        CHECK(send_one(deny_all().allow("192.0.2.7"_ip, tcp(5000))));
    });
}

TEST_CASE("a start that fails after the network was built leaves nothing of it") {
    NEEDS_NETNS;
    site here;
    here.host.run([&] {
        const auto net = here.open();
        const auto before = bridges_and_veths(here.host);
        scheduler io;
        for (int i = 0; i < 5; ++i) {
            auto spec = here.spec("exit 0");
            spec.process.args = {"no-such-command"};
            spec.network = net.attach({.publish = {tcp(8080, 80)}, .address = "10.88.0.7"_ip});
            CHECK_THROWS_AS(io.run(kumiki_test::start_and_wait(io, std::move(spec))), start_error);
        }
        CHECK(settled_links(here.host, before) == before);
    });
}

TEST_CASE("a published port that is taken is refused by name before there is a process") {
    NEEDS_NETNS;
    site here;
    const auto holder = kumiki_test::serve(here.host, SOCK_STREAM, "192.0.2.1"_ip, 8080);
    here.host.run([&] {
        const auto net = here.open();
        scheduler io;
        auto spec = here.spec("exit 0");
        spec.network = net.attach({.publish = {tcp(8080, 80)}});
        try {
            io.run(kumiki_test::start_and_wait(io, std::move(spec)));
            FAIL("the port was taken twice");
        } catch (const error& failure) {
            INFO(failure.what());
            CHECK(failure.errno_value() == EADDRINUSE);
            CHECK(std::string(failure.what()).find("8080") != std::string::npos);
        }
    });
}

TEST_CASE("a container without a network has devices of the host's, which come home at its end") {
    NEEDS_NETNS;
    const bool has_users = GENERATE(false, true);
    const bool parent_goes = GENERATE(false, true);
    CAPTURE(has_users, parent_goes);
    site here;
    here.host.run([&] {
        auto route = netlink_socket::open(NETLINK_ROUTE);
        netlink_batch make;
        create_macvlan(make, {.name = "mv0", .parent = find_link(route, "up0")->index});
        route.transact(make);
        scheduler io;
        auto spec = here.spec("ip -o -4 addr show eth0; ip route; cat /etc/hosts; " + serve_script);
        if (has_users) spec.user_namespace = kumiki_test::mapped_ids();
        const std::string name = spec.name;
        spec.network = moved_devices{{{.link = "mv0",
                                       .inside = {.name = "eth0",
                                                  .addresses = {"192.0.2.40/24"_cidr},
                                                  .gateway = "192.0.2.7"_ip}}}};
        io.run(telling(io, std::move(spec), [&](container& box, const std::string& told) {
            CHECK(box.network() == nullptr);
            CHECK(told.find("192.0.2.40/24") != std::string::npos);
            CHECK(told.find("default via 192.0.2.7 dev eth0") != std::string::npos);
            CHECK(told.find("192.0.2.40\t" + name) != std::string::npos);
            CHECK(here.fetch(here.outside, "192.0.2.40"_ip, 80) == "a page\n");
            CHECK_FALSE(find_link(route, "mv0"));
            if (!parent_goes) return;
            netlink_batch gone;
            delete_link(gone, "up0");
            route.transact(gone);
        }));
        const auto home = find_link(route, "mv0");
        CHECK(home.has_value() == !parent_goes);
        if (home) CHECK_FALSE(home->is_up);
    });
}

TEST_CASE("a start with a device that is not there fails, and brings the others home") {
    NEEDS_NETNS;
    site here;
    here.host.run([&] {
        auto route = netlink_socket::open(NETLINK_ROUTE);
        scheduler io;
        auto spec = here.spec("exit 0");
        spec.network = moved_devices{{{.link = "up0"}, {.link = "nowhere0"}}};
        try {
            io.run(kumiki_test::start_and_wait(io, spec));
            FAIL("there is no such device");
        } catch (const error& failure) {
            CHECK(failure.errno_value() == ENODEV);
            CHECK(failure.object().find("nowhere0") != std::string::npos);
        }
        const auto home = find_link(route, "up0");
        REQUIRE(home);
        CHECK(home->is_up);
        CHECK(list_addresses(route, home->index).size() >= 2);
        spec.network = moved_devices{{{.link = "a/b"}}};
        CHECK_THROWS_AS(spec.validate(), invalid_input);
    });
}

TEST_CASE("200 starts with a network and a published port leave nothing") {
    NEEDS_NETNS;
    site here;
    here.host.run([&] {
        const auto net = here.open();
        scheduler io;
        const auto once = [&] {
            auto spec = here.spec("exit 0");
            spec.process.args = {"/bin/true"};
            spec.network = net.attach({.publish = {tcp(8080, 80), udp(5353, 53)}});
            return io.run(kumiki_test::start_and_wait(io, std::move(spec))).exit_code();
        };
        REQUIRE(once() == 0);
        const std::vector<std::string> links{"lo", "up0", "km-web"};
        CHECK(settled_links(here.host, links) == links);
        const auto before = kumiki_test::holdings::now();
        for (int i = 0; i < 200; ++i) REQUIRE(once() == 0);
        CHECK(settled_links(here.host, links) == links);
        KUMIKI_CHECK_NOTHING_LEFT(before);
    });
}
