// The resolver of a network: its containers find each other by name, and others by the host's servers.
//
//   auto net = bridge_network::open({.name = "shop", ..., .names = name_service::on});
//   tasks.spawn(serve_names(io, net));      // for as long as containers are to be answered
//
// UDP and TCP on port 53 of the host's addresses in the network, for what comes in by its bridge. Each
// process that has the network open may serve it (SO_REUSEPORT); each knows all containers, for their
// names stand in the kernel (name_table.hpp). What is asked for outside has a port and an id of its own,
// both at random, and is given up after a time. Kernel: 5.7 (SO_BINDTODEVICE for more than root).
// Left out: a cache; DNS over TLS; names of the host's own /etc/hosts.
#pragma once

#include <sys/random.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <kumiki/async/scheduler.hpp>
#include <kumiki/async/scope.hpp>
#include <kumiki/async/task.hpp>
#include <kumiki/async/timeout.hpp>
#include <kumiki/core/error.hpp>
#include <kumiki/core/ip.hpp>
#include <kumiki/core/unique_fd.hpp>
#include <kumiki/network/bridge_network.hpp>
#include <kumiki/network/dns_message.hpp>
#include <kumiki/network/host_resolver.hpp>
#include <kumiki/network/name_answers.hpp>
#include <kumiki/network/resolver_socket.hpp>
#include <kumiki/sys/check.hpp>
#include <kumiki/sys/netns.hpp>

namespace kumiki::inline v0 {

/// How a network's resolver asks outside.
struct names_options {
    /// The servers that are asked, in this order; unset: those of the host's resolv.conf; empty:
    /// nothing is asked for outside.
    std::optional<std::vector<ip_address>> forward_to = {};
    /// After which a question that no server answered has failed.
    std::chrono::milliseconds timeout{2000};
};

namespace detail {

/// What a resolver holds. Its tasks share it; it outlives them.
class name_server {
  public:
    static constexpr unsigned most_asked = 256;  // questions that are outside at a time
    static constexpr unsigned most_asked_by_one = 32;  // of one container
    static constexpr unsigned most_connections = 64;
    static constexpr unsigned most_connections_of_one = 8;
    static constexpr std::chrono::seconds idle{10};

    name_server(const bridge_network& net, names_options wanted)
        : options(std::move(wanted)), network_(net.attach().network),
          netns_(sys::network_namespace_of(network_->route.fd())),
          names_(netlink_socket::open_in(netns_.get(), NETLINK_NETFILTER), net.name()) {
        const bridge_options& own = network_->options;
        if (own.names == name_service::off)
            throw invalid_input("network with names", own.name, "Its names are off.");
        if (options.timeout.count() <= 0)
            throw invalid_input("timeout", std::to_string(options.timeout.count()) + " ms",
                                "A server takes some milliseconds at least.");
        zone.domain = lower_case(own.domain);
        zone.subnets.push_back(own.subnet);
        if (own.subnet6) zone.subnets.push_back(*own.subnet6);
        if (!options.forward_to)
            options.forward_to =
                parse_resolv_conf(host_resolv_conf(loopback_servers::kept), loopback_servers::kept)
                    .nameservers;
        std::erase_if(*options.forward_to, [this](const ip_address& server) {
            return std::any_of(zone.subnets.begin(), zone.subnets.end(),
                               [&](const cidr& each) { return gateway_of(each) == server; });
        });
        sys::in_network_namespace(netns_.get(), [&] {
            for (const cidr& subnet : zone.subnets)
                for (const int type : {SOCK_DGRAM, SOCK_STREAM})
                    (type == SOCK_DGRAM ? datagrams : listeners)
                        .push_back(
                            bind_name_socket(type, gateway_of(subnet), network_->bridge_name()));
        });
        is_here_ =
            sys::netns_cookie(
                unique_fd(sys::check(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), "socket"))
                    .get()) == network_->route.netns_cookie();
    }

    /// The answer of its own; nothing when the question is for outside.
    std::optional<std::vector<std::byte>> answer(std::span<const std::byte> message,
                                                 const dns_query& query, const ip_address& sender,
                                                 std::size_t limit) {
        auto own = own_answer(zone, names_.now(), message, query, sender, limit);
        if (!own && options.forward_to->empty())
            own = dns_reply(message, query, dns_code::refused).finish(limit);
        return own;
    }
    /// A socket for one question to `server`; a new thread makes it when this one is elsewhere.
    unique_fd outward_socket(int type, const ip_address& server) const {
        const auto make = [&] {
            return unique_fd(sys::check(
                ::socket(server.is_v4() ? AF_INET : AF_INET6, type | SOCK_CLOEXEC, 0), "socket"));
        };
        return is_here_ ? make() : sys::in_network_namespace(netns_.get(), make);
    }

    names_options options;
    name_zone zone = {};
    std::vector<unique_fd> datagrams = {};
    std::vector<unique_fd> listeners = {};
    name_quota asked{most_asked, most_asked_by_one};
    name_quota connections{most_connections, most_connections_of_one};

  private:
    std::shared_ptr<network_state> network_;
    unique_fd netns_;
    name_reader names_;
    bool is_here_ = false;
};

inline std::uint16_t random_dns_id() {
    std::uint16_t id = 0;
    sys::check(::getrandom(&id, sizeof id, 0), "getrandom");
    return id;
}

/// Reads exactly so much; false at the end of the stream.
inline task<bool> read_exactly(scheduler& io, int fd, std::span<std::byte> into) {
    while (!into.empty()) {
        const std::size_t size = co_await io.recv(fd, into);
        if (size == 0) co_return false;
        into = into.subspan(size);
    }
    co_return true;
}

/// One message of a stream: its length in two bytes, and itself; nothing at the end.
inline task<std::optional<std::vector<std::byte>>> read_dns_message(scheduler& io, int fd) {
    std::array<std::byte, 2> length{};
    const bool begun = co_await read_exactly(io, fd, length);
    if (!begun) co_return std::nullopt;
    std::vector<std::byte> message(*dns_number(length, 0));
    const bool whole = co_await read_exactly(io, fd, message);
    if (!whole) co_return std::nullopt;
    co_return message;
}

/// The same the other way; never more than 65535 bytes.
inline task<void> send_dns_message(scheduler& io, int fd, std::vector<std::byte> message) {
    const auto size = static_cast<std::uint16_t>(message.size());
    std::vector<std::byte> bytes(2);
    set_dns_id(bytes, size);
    bytes.insert(bytes.end(), message.begin(), message.end());
    for (std::span<const std::byte> rest = bytes; !rest.empty();) {
        const std::size_t sent = co_await io.send(fd, rest);
        rest = rest.subspan(sent);
    }
}

/// What `server` answers; waits for ever. Errors: kumiki::error.
inline task<std::vector<std::byte>> ask_one(scheduler& io, name_server& resolver, ip_address server,
                                            int type, std::vector<std::byte> message,
                                            dns_query query) {
    const unique_fd fd = resolver.outward_socket(type, server);
    const name_address to(server, 53);
    co_await io.connect(fd.get(), to.get(), to.size());
    const std::uint16_t id = random_dns_id();
    set_dns_id(message, id);
    if (type == SOCK_STREAM)
        co_await send_dns_message(io, fd.get(), message);
    else
        co_await io.send(fd.get(), message);
    std::vector<std::byte> answer;
    while (!answers(answer, id, query)) {
        if (type == SOCK_STREAM) {
            auto next = co_await read_dns_message(io, fd.get());
            if (!next)
                throw error(ECONNRESET,
                            {.operation = "ask name server", .object = to_string(server)});
            answer = std::move(*next);
        } else {
            answer.resize(65535);
            const std::size_t size = co_await io.recv(fd.get(), answer);
            answer.resize(size);
        }
    }
    set_dns_id(answer, query.id);
    co_return answer;
}

/// What the servers outside answer, one after the other until one has; or that they failed.
inline task<std::vector<std::byte>> ask_outside(scheduler& io, name_server& resolver,
                                                ip_address sender, int type,
                                                std::vector<std::byte> message, dns_query query) {
    auto failed = dns_reply(message, query, dns_code::server_failure).finish(512);
    const auto place = resolver.asked.take(sender);
    if (!place) co_return failed;
    const std::vector<ip_address> servers = *resolver.options.forward_to;
    const auto share = resolver.options.timeout / static_cast<long>(servers.size());
    for (const ip_address& server : servers) {
        try {
            auto got = co_await with_timeout(io, share,
                                             ask_one(io, resolver, server, type, message, query));
            if (!got) continue;
            const dns_code code = code_of(*got);
            if (code == dns_code::no_error || code == dns_code::no_such_name)
                co_return std::move(*got);
            failed = std::move(*got);  // another one may know better
        } catch (const error&) {  // it is not there, or this process has no descriptor left
        }
    }
    co_return failed;
}

/// Has a datagram's question asked outside, and sends the answer back.
inline task<void> pass_on_datagram(scheduler& io, name_server& resolver, int fd, name_address from,
                                   std::vector<std::byte> message, dns_query query) {
    auto answer = co_await ask_outside(io, resolver, from.address(), SOCK_DGRAM, message, query);
    // A server may say more than it was told that the sender can take.
    if (answer.size() > std::max<std::size_t>(query.edns_size.value_or(512), 512)) {
        answer = dns_reply(message, query, dns_code::no_error).finish(512);
        answer[2] |= std::byte{0x02};  // truncated: it will ask again over TCP
    }
    send_now(fd, from, answer);
}

/// Answers datagrams for ever.
inline task<void> serve_datagrams(scheduler& io, name_server& resolver, int fd, scope& tasks) {
    std::vector<std::byte> buffer(4096);
    for (;;) {
        name_address from;
        iovec part{.iov_base = buffer.data(), .iov_len = buffer.size()};
        msghdr into = from.message(part);
        const std::size_t size = co_await io.recv_message(fd, into);
        if ((into.msg_flags & MSG_TRUNC) != 0) continue;
        const auto message = std::span<const std::byte>(buffer).first(size);
        auto query = parse_dns_query(message);
        if (!query) continue;
        try {
            const auto own =
                resolver.answer(message, *query, from.address(), dns_reply::limit_for(*query));
            if (own)
                send_now(fd, from, *own);
            else
                tasks.spawn("names: ask outside",
                            pass_on_datagram(io, resolver, fd, from,
                                             {message.begin(), message.end()}, std::move(*query)));
        } catch (const error&) {  // the kernel would not tell the names
            send_now(fd, from, dns_reply(message, *query, dns_code::server_failure).finish(512));
        }
    }
}

/// Answers the questions of one connection until it ends.
inline task<void> answer_stream(scheduler& io, name_server& resolver, int fd, ip_address sender) {
    for (;;) {
        auto message = co_await read_dns_message(io, fd);
        if (!message) co_return;
        const auto query = parse_dns_query(*message);
        if (!query) co_return;
        constexpr std::size_t most = 65535;
        auto own = resolver.answer(*message, *query, sender, most);
        if (!own) {
            auto got = co_await ask_outside(io, resolver, sender, SOCK_STREAM, *message, *query);
            own = std::move(got);
        }
        co_await send_dns_message(io, fd, std::move(*own));
    }
}

/// As above, for as long as a connection may take.
inline task<void> serve_stream(scheduler& io, name_server& resolver, unique_fd fd) {
    const name_address from = name_address::peer_of(fd.get());
    const auto place = resolver.connections.take(from.address());
    if (!place) co_return;
    try {
        co_await with_timeout(io, name_server::idle,
                              answer_stream(io, resolver, fd.get(), from.address()));
    } catch (const error&) {  // the client went away
    }
}

/// Takes connections for ever.
inline task<void> serve_streams(scheduler& io, name_server& resolver, int fd, scope& tasks) {
    for (;;) {
        bool rest = false;
        try {
            unique_fd client = co_await io.accept(fd);
            tasks.spawn("names: connection", serve_stream(io, resolver, std::move(client)));
        } catch (const error&) {  // a client that went away, or no descriptor is left
            rest = true;
        }
        if (rest) co_await io.sleep_for(std::chrono::milliseconds(10));
    }
}

inline task<void> serve_with(scheduler& io, std::unique_ptr<name_server> resolver) {
    name_server& shared = *resolver;
    co_await with_scope(io, [&](scope& tasks) -> task<void> {
        for (const unique_fd& each : shared.datagrams)
            tasks.spawn("names: datagrams", serve_datagrams(io, shared, each.get(), tasks));
        for (const unique_fd& each : shared.listeners)
            tasks.spawn("names: connections", serve_streams(io, shared, each.get(), tasks));
        co_return;
    });
}

}  // namespace detail

/// Answers the containers of `net`, until it is stopped. The sockets are there when this returns: what
/// is asked before the task runs is answered then. It keeps the network open.
///
/// A container whose egress policy denies it UDP port 53 of the gateway is told its siblings' names and
/// nothing from outside.
/// Errors: at once: invalid_input when the network's names are off; EADDRINUSE, with the holder, when
/// another program has port 53; kumiki::error. From the task: kumiki::error of the sockets; `cancelled`.
inline task<void> serve_names(scheduler& io, const bridge_network& net,
                              names_options options = {}) {
    return detail::serve_with(io, std::make_unique<detail::name_server>(net, std::move(options)));
}

}  // namespace kumiki::inline v0
