#include <net/if.h>

#include <atomic>
#include <chrono>
#include <list>
#include <thread>

#include <kumiki/network/endpoint.hpp>
#include <kumiki/network/resolver.hpp>

#include "network/dns.hpp"
#include "support/catch.hpp"
#include "support/netns.hpp"
#include "support/scratch.hpp"

using namespace kumiki;
using namespace kumiki::literals;
using namespace std::chrono_literals;
using kumiki_test::dns_message;
using kumiki_test::private_netns;
using kumiki_test::question;
using kumiki_test::said;

namespace {

unique_fd talk_to(const private_netns& ns, int type, ip_address to, std::uint16_t port = 53) {
    return ns.run([&] {
        unique_fd fd(sys::check(::socket(to.is_v4() ? AF_INET : AF_INET6, type | SOCK_CLOEXEC, 0),
                                "socket"));
        const timeval limit{.tv_sec = 3, .tv_usec = 0};
        for (const int option : {SO_RCVTIMEO, SO_SNDTIMEO})
            ::setsockopt(fd.get(), SOL_SOCKET, option, &limit, sizeof limit);
        const auto [address, size] = kumiki_test::endpoint_address(to, port).to_kernel();
        (void)::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), size);
        return fd;
    });
}

/// What comes back for `asked` from port 53 of `to`; empty for nothing.
dns_message ask(const private_netns& ns, ip_address to, const dns_message& asked, int wait = 3000) {
    const auto fd = talk_to(ns, SOCK_DGRAM, to);
    (void)::send(fd.get(), asked.data(), asked.size(), MSG_NOSIGNAL);
    dns_message answer(65535);
    ssize_t size = 0;
    if (kumiki_test::wait_for(fd.get(), POLLIN, wait))
        size = ::recv(fd.get(), answer.data(), answer.size(), 0);
    answer.resize(static_cast<std::size_t>(std::max<ssize_t>(size, 0)));
    return answer;
}
std::string ask(const private_netns& ns, std::string_view name, unsigned type = 1,
                ip_address to = "10.88.0.1"_ip) {
    return said(ask(ns, to, question(name, type)));
}
/// The same over TCP.
std::string ask_tcp(const private_netns& ns, std::string_view name, unsigned type = 1) {
    const auto fd = talk_to(ns, SOCK_STREAM, "10.88.0.1"_ip);
    const auto asked = question(name, type);
    dns_message framed;
    kumiki_test::put16(framed, static_cast<unsigned>(asked.size()));
    framed.insert(framed.end(), asked.begin(), asked.end());
    // In two pieces, as a slow client would.
    (void)::send(fd.get(), framed.data(), 5, MSG_NOSIGNAL);
    std::this_thread::sleep_for(5ms);
    (void)::send(fd.get(), framed.data() + 5, framed.size() - 5, MSG_NOSIGNAL);
    dns_message answer(65535);
    if (::recv(fd.get(), answer.data(), 2, MSG_WAITALL) != 2) return "nothing";
    const std::size_t size = kumiki_test::get16(answer, 0);
    answer.resize(size);
    if (::recv(fd.get(), answer.data(), size, MSG_WAITALL) != static_cast<ssize_t>(size))
        return "half an answer";
    return said(answer);
}

/// A name server outside, that says what `answer` makes of a question; an empty one is silence.
class outside_server {
  public:
    using answer_function = dns_message (*)(const dns_message&);
    outside_server(const private_netns& ns, ip_address address, answer_function answer)
        : datagrams_(kumiki_test::serve(ns, SOCK_DGRAM, address, 53)),
          listener_(kumiki_test::serve(ns, SOCK_STREAM, address, 53)), answer_(answer),
          thread_([this](const std::stop_token& stop) { serve(stop); }) {}

    unsigned asked() const { return asked_; }

  private:
    void serve(const std::stop_token& stop) {
        while (!stop.stop_requested()) {
            if (kumiki_test::wait_for(datagrams_.get(), POLLIN, 10)) {
                sockaddr_storage from{};
                socklen_t size = sizeof from;
                dns_message message(4096);
                const auto got = ::recvfrom(datagrams_.get(), message.data(), message.size(), 0,
                                            reinterpret_cast<sockaddr*>(&from), &size);
                message.resize(static_cast<std::size_t>(std::max<ssize_t>(got, 0)));
                ++asked_;
                const auto reply = answer_(message);
                if (!reply.empty())
                    (void)::sendto(datagrams_.get(), reply.data(), reply.size(), 0,
                                   reinterpret_cast<sockaddr*>(&from), size);
            }
            const unique_fd client(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
            if (!client) continue;
            dns_message length(2);
            if (::recv(client.get(), length.data(), 2, MSG_WAITALL) != 2) continue;
            dns_message message(kumiki_test::get16(length, 0));
            if (::recv(client.get(), message.data(), message.size(), MSG_WAITALL) < 0) continue;
            ++asked_;
            // Over TCP it has the whole: 40 addresses.
            const auto reply =
                kumiki_test::answer_to(message, 0, std::vector<ip_address>(40, "198.51.100.2"_ip));
            dns_message framed;
            kumiki_test::put16(framed, static_cast<unsigned>(reply.size()));
            framed.insert(framed.end(), reply.begin(), reply.end());
            (void)::send(client.get(), framed.data(), framed.size(), MSG_NOSIGNAL);
        }
    }

    unique_fd datagrams_;
    unique_fd listener_;
    answer_function answer_;
    std::atomic<unsigned> asked_ = 0;
    std::jthread thread_;
};

dns_message answer_all(const dns_message& asked) {
    return kumiki_test::answer_to(asked, 0, {"198.51.100.1"_ip});
}
dns_message keep_silent(const dns_message&) { return {}; }

/// A host with networks of containers, and an outside with name servers.
struct resolver_site {
    kumiki_test::scratch place;
    private_netns host;
    private_netns outside;
    bridge_network net = open("shop", "10.88.0.0/24"_cidr, "fd00:88::/64"_cidr);
    std::list<private_netns> insides = {};
    std::list<endpoint> links = {};
    std::list<std::jthread> servers = {};
    io_backend backend = io_backend::automatic;

    resolver_site() {
        bring_loopback_up(host.fd());
        netlink_batch batch;
        create_veth(batch, {.name = "up0", .peer_name = "out0", .peer_netns = outside.fd()});
        netlink_socket::open_in(host.fd(), NETLINK_ROUTE).transact(batch);
        give(host, "up0", {"192.0.2.1/24"_cidr});
        give(outside, "out0", {"192.0.2.53/24"_cidr, "192.0.2.54/24"_cidr, "192.0.2.55/24"_cidr});
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
    bridge_network open(std::string name, cidr subnet, std::optional<cidr> subnet6 = {},
                        name_service names = name_service::on) const {
        return host.run([&] {
            return bridge_network::open({.name = std::move(name),
                                         .subnet = subnet,
                                         .subnet6 = subnet6,
                                         .names = names,
                                         .domain = names == name_service::on ? "shop.internal" : "",
                                         .state_directory = place.path()});
        });
    }
    const private_netns& add(const bridge_network& to, std::string name,
                             attach_options options = {}) {
        insides.emplace_back();
        links.push_back(host.run([&] { return reserve(to.attach(std::move(options)), name); })
                            .connect(insides.back().fd()));
        return insides.back();
    }
    const private_netns& add(std::string name, attach_options options = {}) {
        return add(net, std::move(name), std::move(options));
    }
    /// Serves on a thread that is in the host's namespace, or elsewhere.
    void serve(const bridge_network& what, names_options options = {.forward_to = {{}}},
               bool elsewhere = false) {
        std::atomic<bool> ready = false;
        servers.emplace_back([&, options](const std::stop_token& stop) {
            if (!elsewhere) ::setns(host.fd(), CLONE_NEWNET);
            scheduler io({.backend = backend});
            auto work = serve_names(io, what, options);
            ready = true;
            try {
                io.run(std::move(work), stop);
            } catch (const cancelled&) {}
        });
        while (!ready) std::this_thread::sleep_for(1ms);
    }
    void serve(names_options options = {.forward_to = {{}}}) { serve(net, std::move(options)); }
};

names_options forward_to(std::vector<ip_address> servers,
                         std::chrono::milliseconds timeout = 2000ms) {
    return {.forward_to = std::move(servers), .timeout = timeout};
}

}  // namespace

TEST_CASE("Containers find each other by name over UDP and TCP, in both families") {
    NEEDS_NETNS;
    resolver_site here;
    const auto& web = here.add("web", {.address = "10.88.0.7"_ip});
    here.add("db", {.address = "10.88.0.9"_ip, .aliases = {"postgres", "store"}});
    here.backend = GENERATE(io_backend::automatic, io_backend::epoll);
    here.serve();
    CHECK(ask(web, "db") == "10.88.0.9");
    CHECK(ask(web, "db", 28) == "fd00:88::9");
    CHECK(ask(web, "postgres.shop.internal") == "10.88.0.9");
    CHECK(ask(web, "db", 1, "fd00:88::1"_ip) == "10.88.0.9");
    CHECK(ask_tcp(web, "store") == "10.88.0.9");
    CHECK(ask(web, "nobody") == "NXDOMAIN");
    CHECK(ask(web, "9.0.88.10.in-addr.arpa", 12) == "db.shop.internal");
    // A container's end is the end of its names; a later one of that name has its own address.
    here.links.back().disconnect();
    CHECK(ask(web, "db") == "NXDOMAIN");
    here.add("db", {.address = "10.88.0.11"_ip});
    CHECK(ask(web, "db") == "10.88.0.11");
}

TEST_CASE("Another process that has the network open knows and answers the same") {
    NEEDS_NETNS;
    resolver_site here;
    const auto& web = here.add("web");
    // Each opening has its own sockets, tables and thread: what two processes share is the kernel.
    const auto again = here.open("shop", "10.88.0.0/24"_cidr, "fd00:88::/64"_cidr);
    here.add(again, "db", {.address = "10.88.0.9"_ip});
    here.serve(here.net);
    here.serve(again, {.forward_to = {{}}}, true);
    for (int i = 0; i < 50; ++i) REQUIRE(ask(web, "db") == "10.88.0.9");
    here.servers.pop_front();  // the other one takes over what it was asked for
    for (int i = 0; i < 50; ++i) REQUIRE(ask(web, "db") == "10.88.0.9");
}

TEST_CASE("Many with one name are all told, cut short over UDP and whole over TCP") {
    NEEDS_NETNS;
    resolver_site here;
    for (int i = 0; i < 40; ++i) here.add("worker-" + std::to_string(i), {.aliases = {"worker"}});
    here.serve();
    const auto& asker = here.insides.front();
    const auto count = [](const std::string& text) { return split(text, ' ').size(); };
    const auto udp = ask(asker, "worker");
    CHECK(udp.starts_with("TC "));
    CHECK(count(udp) > 20);
    CHECK(count(ask_tcp(asker, "worker")) == 40);
    CHECK(count(said(ask(asker, "10.88.0.1"_ip, question("worker", 1, 1, 4096)))) == 40);
}

TEST_CASE("What is no container's name is asked for outside, over UDP and TCP") {
    NEEDS_NETNS;
    resolver_site here;
    const outside_server server(here.outside, "192.0.2.53"_ip, answer_all);
    const auto& web = here.add("web");
    const bool elsewhere = GENERATE(false, true);
    here.backend = GENERATE(io_backend::automatic, io_backend::epoll);
    here.serve(here.net, forward_to({"192.0.2.53"_ip}), elsewhere);
    CHECK(ask(web, "example.org") == "198.51.100.1");
    CHECK(server.asked() == 1);
    CHECK(split(ask_tcp(web, "example.org"), ' ').size() == 40);
    CHECK(server.asked() == 2);
    CHECK(ask(web, "wpad") == "NXDOMAIN");
    CHECK(ask(web, "secret.shop.internal") == "NXDOMAIN");
    CHECK(server.asked() == 2);
    const auto answer = ask(web, "10.88.0.1"_ip, question("example.org", 1, 0xbeef));
    CHECK(kumiki_test::get16(answer, 0) == 0xbeef);
}

TEST_CASE("A server that is silent, away or of no help is passed over in time") {
    NEEDS_NETNS;
    resolver_site here;
    const outside_server silent(here.outside, "192.0.2.54"_ip, keep_silent);
    const outside_server broken(here.outside, "192.0.2.55"_ip, [](const dns_message& asked) {
        return kumiki_test::answer_to(asked, 2, {});
    });
    const outside_server good(here.outside, "192.0.2.53"_ip, answer_all);
    const auto& web = here.add("web");
    const auto took = [&](std::vector<ip_address> servers, const char* wanted) {
        here.serve(forward_to(std::move(servers), 600ms));
        const auto start = std::chrono::steady_clock::now();
        CHECK(ask(web, "example.org") == wanted);
        const auto span = std::chrono::steady_clock::now() - start;
        here.servers.clear();
        return span;
    };
    const auto unanswered = took({"192.0.2.54"_ip}, "SERVFAIL");
    CHECK(unanswered >= 500ms);
    CHECK(unanswered < 2500ms);
    CHECK(took({"192.0.2.54"_ip, "192.0.2.53"_ip}, "198.51.100.1") >= 250ms);
    CHECK(took({"192.0.2.55"_ip, "192.0.2.53"_ip}, "198.51.100.1") < 2500ms);
    CHECK(took({"192.0.2.55"_ip}, "SERVFAIL") < 2500ms);
    CHECK(took({"127.0.0.1"_ip, "192.0.2.53"_ip}, "198.51.100.1") < 2500ms);  // nobody there
    CHECK(took({"203.0.113.1"_ip, "192.0.2.53"_ip}, "198.51.100.1") < 2500ms);  // no route
}

TEST_CASE("An answer with another id or to another question is not believed") {
    NEEDS_NETNS;
    resolver_site here;
    const outside_server liar(here.outside, "192.0.2.53"_ip, [](const dns_message& asked) {
        auto other = question("bank.example", 1, kumiki_test::get16(asked, 0));
        if (kumiki_test::said(kumiki_test::answer_to(asked, 0, {})).empty())
            other[1] = static_cast<std::byte>(std::to_integer<unsigned>(other[1]) ^ 1U);
        return kumiki_test::answer_to(other, 0, {"198.51.100.66"_ip});
    });
    const outside_server guesser(here.outside, "192.0.2.54"_ip, [](const dns_message& asked) {
        auto guessed = asked;
        guessed[0] ^= std::byte{0x40};
        return kumiki_test::answer_to(guessed, 0, {"198.51.100.66"_ip});
    });
    const auto& web = here.add("web");
    for (const auto server : {"192.0.2.53"_ip, "192.0.2.54"_ip}) {
        here.serve(forward_to({server}, 300ms));
        CHECK(ask(web, "example.org") == "SERVFAIL");
        here.servers.clear();
    }
    CHECK(liar.asked() == 1);
    CHECK(guesser.asked() == 1);
}

TEST_CASE("A container that reaches nothing gets nothing out in the names that it asks for") {
    NEEDS_NETNS;
    resolver_site here;
    const outside_server server(here.outside, "192.0.2.53"_ip, answer_all);
    const auto& closed = here.add("closed", {.egress = deny_all()});
    const auto& asks = here.add("asks", {.egress = deny_all().allow(here.net.gateway(), udp(53))});
    here.serve(forward_to({"192.0.2.53"_ip}));
    CHECK(ask(closed, "asks") != "nothing");
    CHECK(ask(closed, "key-4711.evil.example") == "REFUSED");
    CHECK(ask_tcp(closed, "key-4711.evil.example") == "REFUSED");
    CHECK(server.asked() == 0);
    CHECK(ask(asks, "example.org") == "198.51.100.1");
}

TEST_CASE("Two networks do not see each other's names, and outside is told none") {
    NEEDS_NETNS;
    resolver_site here;
    const auto other = here.open("bank", "10.99.0.0/24"_cidr);
    const auto& web = here.add("web");
    const auto& vault = here.add(other, "vault");
    here.serve(here.net);
    here.serve(other);
    CHECK(ask(web, "vault") == "NXDOMAIN");
    CHECK(ask(vault, "vault", 1, "10.99.0.1"_ip) == "10.99.0.2");
    CHECK(ask(vault, "web", 1, "10.99.0.1"_ip) == "NXDOMAIN");
    const auto asked = question("web", 1);
    CHECK(ask(web, "10.99.0.1"_ip, asked, 300).empty());
    here.outside.run([&] {
        netlink_batch way;
        add_route(way, {.destination = "10.88.0.0/24"_cidr,
                        .gateway = "192.0.2.1"_ip,
                        .link = static_cast<int>(::if_nametoindex("out0"))});
        netlink_socket::open(NETLINK_ROUTE).transact(way);
    });
    CHECK(ask(here.outside, "10.88.0.1"_ip, asked, 300).empty());
}

TEST_CASE("A network whose names are off refuses to serve them, and lets nobody ask") {
    NEEDS_NETNS;
    resolver_site here;
    const auto quiet = here.open("quiet", "10.99.0.0/24"_cidr, {}, name_service::off);
    scheduler io;
    CHECK_THROWS_AS(serve_names(io, quiet), invalid_input);
    CHECK_THROWS_AS(quiet.attach({.aliases = {"db"}}), invalid_input);
    CHECK_THROWS_AS(here.net.attach({.aliases = {"d b"}}), invalid_input);
    const auto listener = kumiki_test::serve(here.host, SOCK_DGRAM, "10.99.0.1"_ip, 53);
    const auto& box = here.add(quiet, "box");
    CHECK_FALSE(kumiki_test::reaches(box, SOCK_DGRAM, "10.99.0.1"_ip, 53, listener, 300));
    // With names, port 53 is all of the host that is reached.
    const auto ssh = kumiki_test::serve(here.host, SOCK_STREAM, "10.88.0.1"_ip, 22);
    CHECK_FALSE(kumiki_test::reaches(here.add("web"), SOCK_STREAM, "10.88.0.1"_ip, 22, ssh, 300));
}

TEST_CASE("Port 53 in other hands is an error with their name") {
    NEEDS_NETNS;
    resolver_site here;
    const auto holder = kumiki_test::serve(here.host, SOCK_DGRAM, "0.0.0.0"_ip, 53);
    scheduler io;
    std::string text;
    try {
        (void)serve_names(io, here.net);
    } catch (const error& failure) {
        CHECK(failure.errno_value() == EADDRINUSE);
        text = failure.what();
    }
    INFO(text);
    CHECK(text.find("10.88.0.1 port 53") != std::string::npos);
    CHECK(text.find("(pid " + std::to_string(::getpid()) + ")") != std::string::npos);
}

TEST_CASE("Hostile messages and clients that never finish do not keep others from an answer") {
    NEEDS_NETNS;
    resolver_site here;
    const outside_server silent(here.outside, "192.0.2.54"_ip, keep_silent);
    const auto& evil = here.add("evil");
    const auto& web = here.add("web", {.address = "10.88.0.7"_ip});
    here.serve(forward_to({"192.0.2.54"_ip}, 5000ms));
    const auto flood = talk_to(evil, SOCK_DGRAM, "10.88.0.1"_ip);
    for (unsigned i = 0; i < 2000; ++i) {
        auto message = question("x" + std::to_string(i) + ".example", 1, i);
        for (unsigned spoiled = i % 4; spoiled != 0; --spoiled)
            message[(i * 7 + spoiled) % message.size()] = std::byte(static_cast<std::uint8_t>(i));
        (void)::send(flood.get(), message.data(), message.size(), MSG_DONTWAIT);
    }
    std::list<unique_fd> slow;
    for (int i = 0; i < 100; ++i) {
        slow.push_back(talk_to(evil, SOCK_STREAM, "10.88.0.1"_ip));
        (void)::send(slow.back().get(), "\xff", 1, MSG_NOSIGNAL);
    }
    CHECK(ask(web, "web") == "10.88.0.7");
    CHECK(ask_tcp(web, "web") == "10.88.0.7");
    CHECK(silent.asked() <= 32);
}
