// Who reaches a published port, cell by cell: truth_table.txt says what must be. All packets of a table
// are sent at once, each with the number of its cell in it; what arrives, and where, is compared.
#include <signal.h>
#include <sys/wait.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <fstream>
#include <map>
#include <sstream>
#include <string>
#include <vector>

#include <kumiki/network/endpoint.hpp>
#include <kumiki/network/endpoint_change.hpp>

#include "network/town.hpp"
#include "support/catch.hpp"
#include "support/netns.hpp"

using namespace kumiki;
using namespace kumiki::literals;
using namespace kumiki_test;

namespace {

const std::vector<std::string> ways_to_publish{
    "0.0.0.0", "127.0.0.1", "host", "::", "::1", "closed", "denied"};
constexpr std::size_t denied_way = 6;

/// The host's port, of each way to publish, and the container's.
std::uint16_t port_of(std::size_t way) { return static_cast<std::uint16_t>(8000 + way); }
std::uint16_t inner_port_of(std::size_t way) { return static_cast<std::uint16_t>(100 + way); }

struct cell {
    std::size_t way = 0;
    std::string from{};
    int type = SOCK_STREAM;
    bool v4 = true;
    std::string expected{};
};

std::vector<cell> read_table() {
    std::string path = __FILE__;
    path = path.substr(0, path.rfind('/') + 1) + "truth_table.txt";
    std::ifstream file(path);
    std::vector<cell> cells;
    for (std::string line; std::getline(file, line);) {
        std::istringstream words(line);
        std::string published;
        std::string from;
        if (line.starts_with("#") || !(words >> published >> from)) continue;
        const auto way = std::find(ways_to_publish.begin(), ways_to_publish.end(), published);
        for (const int type : {SOCK_STREAM, SOCK_DGRAM})
            for (const bool v4 : {true, false}) {
                cell each{.way = static_cast<std::size_t>(way - ways_to_publish.begin()),
                          .from = from,
                          .type = type,
                          .v4 = v4};
                words >> each.expected;
                cells.push_back(each);
            }
    }
    return cells;
}

std::vector<published_port> all_published() {
    std::vector<published_port> ports;
    const auto add = [&](std::size_t way, const char* address) {
        for (const protocol transport : {protocol::tcp, protocol::udp})
            ports.push_back({.transport = transport,
                             .host = {port_of(way), port_of(way)},
                             .container = {inner_port_of(way), inner_port_of(way)},
                             .address = ip_address::parse(address)});
    };
    add(0, "0.0.0.0");
    add(1, "127.0.0.1");
    add(2, "192.0.2.1");
    add(2, "2001:db8::1");
    add(3, "::");
    add(4, "::1");
    return ports;
}

/// The town with its four containers, and the servers of "a", of "d" (whose ports are denied to all) and
/// of the third host.
struct scene : town {
    node a{};
    node d{};
    node b{};
    node c{};
    std::optional<endpoint> link_a{};
    std::optional<endpoint> link_b{};
    std::optional<endpoint> link_c{};
    std::optional<endpoint> link_d{};
    std::vector<cell> cells = read_table();

    explicit scene(bool opened = true) : town(opened) {
        // A neighbour that sends to 127.0.0.1 over the wire, and a host that would take it.
        host.setting("ipv4/conf/up/route_localnet", "1");
        outside.setting("ipv4/conf/eth0/route_localnet", "1");
        netlink_batch batch;
        const int lo = find_link(outside.routes, "lo")->index;
        delete_address(batch, lo, "127.0.0.1/8"_cidr);
        delete_address(batch, lo, "::1/128"_cidr);
        outside.routes.transact(batch);
        outside.route("127.0.0.1/32"_cidr, "192.0.2.1"_ip);
        outside.route("::1/128"_cidr, "2001:db8::1"_ip);
        if (opened) connect_all();
    }
    void connect_a(attach_options options = {}) {
        options.publish = all_published();
        link_a = connect(*web, a, "a", std::move(options));
    }
    void connect_all() {
        connect_a();
        link_b = connect(*web, b, "b");
        link_c = connect(*db, c, "c");
        attach_options options{
            .ingress = deny_all(), .address = "10.88.0.99"_ip, .address6 = "fd00:88::99"_ip};
        for (const protocol transport : {protocol::tcp, protocol::udp})
            for (const char* const address : {"0.0.0.0", "::"})
                options.publish.push_back(
                    {.transport = transport,
                     .host = {port_of(denied_way), port_of(denied_way)},
                     .container = {inner_port_of(denied_way), inner_port_of(denied_way)},
                     .address = ip_address::parse(address)});
        link_d = connect(*web, d, "d", std::move(options));
    }

    const node& owner(std::size_t way) const { return way == denied_way ? d : a; }
    const node& sender(const cell& each) const {
        if (each.from.starts_with("host-")) return host;
        if (each.from == "itself") return owner(each.way);
        if (each.from == "sibling") return b;
        return each.from == "other-network" ? c : outside;
    }
    ip_address target(const cell& each, const std::vector<ip_address>& own) const {
        if (each.from.ends_with("-loopback")) return each.v4 ? "127.0.0.1"_ip : "::1"_ip;
        if (each.from == "outside-direct" && each.way == denied_way)
            return each.v4 ? "10.88.0.99"_ip : "fd00:88::99"_ip;
        if (each.from == "outside-direct") return own[each.v4 ? 0 : 1];
        if (each.from == "transit") return each.v4 ? "198.51.100.2"_ip : "2001:db8:1::2"_ip;
        return each.v4 ? "192.0.2.1"_ip : "2001:db8::1"_ip;
    }

    /// Where the packet of each cell arrives.
    std::map<std::uint32_t, std::string> arrivals(const std::vector<ip_address>& own) const {
        struct listener {
            unique_fd socket;
            int type;
            const char* where;
        };
        std::vector<listener> listeners;
        for (const int type : {SOCK_STREAM, SOCK_DGRAM})
            for (std::size_t way = 0; way < ways_to_publish.size(); ++way) {
                listeners.push_back(
                    {serve(owner(way).ns, type, "::"_ip, inner_port_of(way)), type, "yes"});
                listeners.push_back({serve(third.ns, type, "::"_ip, port_of(way)), type, "third"});
            }
        std::vector<std::pair<std::uint32_t, unique_fd>> clients;
        for (std::uint32_t i = 0; i < cells.size(); ++i) {
            const cell& each = cells[i];
            sender(each).ns.run([&] {
                unique_fd fd(sys::check(::socket(each.v4 ? AF_INET : AF_INET6,
                                                 each.type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0),
                                        "socket"));
                const auto port =
                    each.from == "outside-direct" ? inner_port_of(each.way) : port_of(each.way);
                const auto [to, size] = endpoint_address(target(each, own), port).to_kernel();
                (void)::connect(fd.get(), reinterpret_cast<const sockaddr*>(&to), size);
                clients.emplace_back(i, std::move(fd));
            });
        }
        std::map<std::uint32_t, std::string> arrived;
        std::vector<std::pair<unique_fd, const char*>> streams;
        const auto take = [&](int fd, const char* where) {
            std::uint32_t number = 0;
            if (::recv(fd, &number, sizeof number, MSG_DONTWAIT) == sizeof number)
                arrived[number] += where;
        };
        const auto wanted = static_cast<std::size_t>(std::count_if(
            cells.begin(), cells.end(), [](const cell& each) { return each.expected != "-"; }));
        const auto begun = std::chrono::steady_clock::now();
        for (int silent = 0; silent < 30;) {
            for (auto& [number, fd] : clients) {
                if (!fd) continue;
                const auto sent = ::send(fd.get(), &number, sizeof number, MSG_NOSIGNAL);
                // A stream that is not connected yet is tried again.
                if (cells[number].type == SOCK_DGRAM || sent > 0) kept_.push_back(std::move(fd));
            }
            for (const listener& each : listeners) {
                if (each.type == SOCK_DGRAM) {
                    for (int i = 0; i < 16; ++i) take(each.socket.get(), each.where);
                    continue;
                }
                unique_fd stream(::accept4(each.socket.get(), nullptr, nullptr, SOCK_CLOEXEC));
                if (stream) streams.emplace_back(std::move(stream), each.where);
            }
            for (const auto& [stream, where] : streams) take(stream.get(), where);
            std::this_thread::sleep_for(std::chrono::milliseconds(10));
            const bool complete =
                arrived.size() >= wanted ||
                std::chrono::steady_clock::now() - begun > std::chrono::seconds(5);
            silent = complete ? silent + 1 : 0;
        }
        kept_.clear();
        return arrived;
    }
    void check(const char* situation, const std::vector<ip_address>& own) const {
        REQUIRE(cells.size() == 252);
        const auto arrived = arrivals(own);
        int wrong = 0;
        for (std::uint32_t i = 0; i < cells.size(); ++i) {
            const cell& each = cells[i];
            const auto found = arrived.find(i);
            const std::string got = found == arrived.end() ? "-" : found->second;
            if (got == each.expected) continue;
            ++wrong;
            UNSCOPED_INFO(ways_to_publish[each.way]
                          << " from " << each.from << (each.type == SOCK_STREAM ? " tcp" : " udp")
                          << (each.v4 ? "4" : "6") << ": " << got << ", not " << each.expected);
        }
        INFO(situation);
        CHECK(wrong == 0);
    }

  private:
    mutable std::vector<unique_fd> kept_{};
};

}  // namespace

TEST_CASE("Each cell of the truth table holds, and again after a foreign flush") {
    NEEDS_NETNS;
    scene net;
    net.check("fresh", net.link_a->addresses());
    output_of(net.host, "nft flush ruleset");
    for (auto* link : {&net.link_a, &net.link_b, &net.link_c, &net.link_d}) (*link)->update({});
    net.check("after a flush", net.link_a->addresses());
}

TEST_CASE("Without its rules a container is reached by what the table denies") {
    NEEDS_NETNS;
    const scene net;
    output_of(net.host, "nft flush ruleset");
    const auto arrived = net.arrivals(net.link_a->addresses());
    for (std::uint32_t i = 0; i < net.cells.size(); ++i)
        if (net.cells[i].from == "outside-direct") CHECK(arrived.contains(i));
}

TEST_CASE("What the table denies by the policy is reached when the policy is another") {
    NEEDS_NETNS;
    scene net;
    net.link_d->update({.ingress = allow_all()});
    const auto arrived = net.arrivals(net.link_a->addresses());
    for (std::uint32_t i = 0; i < net.cells.size(); ++i) {
        const cell& each = net.cells[i];
        if (each.way != denied_way || each.from == "transit") continue;
        CAPTURE(each.from, each.type, each.v4);
        // By its own address, and by 127.0.0.1 over the wire, nobody reaches it whatever it allows.
        const bool is_meant = !each.from.starts_with("outside-");
        CHECK(arrived.contains(i) == is_meant);
    }
}

TEST_CASE("Each cell holds for a container that comes again with another address") {
    NEEDS_NETNS;
    scene net;
    net.link_a->disconnect();
    net.connect_a({.address = "10.88.0.77"_ip, .address6 = "fd00:88::77"_ip});
    net.check("restarted", net.link_a->addresses());
}

TEST_CASE("Each cell holds after a hundred times of publishing and taking back") {
    NEEDS_NETNS;
    scene net;
    for (int i = 0; i < 100; ++i) {
        net.link_a->update({.publish = std::vector<published_port>{}});
        net.link_a->update({.publish = all_published()});
    }
    net.check("after 100 changes", net.link_a->addresses());
}

TEST_CASE(
    "Each cell holds when the process behind it was killed, and when another comes after it") {
    NEEDS_NETNS;
    scene net(false);
    int ready[2];
    REQUIRE(::pipe2(ready, O_CLOEXEC) == 0);
    const pid_t child = ::fork();
    if (child == 0) {
        try {
            net.open();
            net.connect_all();
            (void)!::write(ready[1], "x", 1);
            for (;;) ::pause();
        } catch (...) {
            ::_exit(1);
        }
    }
    REQUIRE(child > 0);
    ::close(ready[1]);
    char byte = 0;
    CHECK(::read(ready[0], &byte, 1) == 1);
    ::close(ready[0]);
    ::kill(child, SIGKILL);
    REQUIRE(::waitpid(child, nullptr, 0) == child);
    net.check("killed", {"10.88.0.2"_ip, "fd00:88::2"_ip});
    net.open();
    net.connect_all();
    net.check("opened after it", net.link_a->addresses());
}
