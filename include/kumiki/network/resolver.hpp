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

#include <sys/socket.h>
#include <sys/uio.h>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <memory>
#include <optional>
#include <span>
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
#include <kumiki/network/dns_reply.hpp>
#include <kumiki/network/dns_stream.hpp>
#include <kumiki/network/name_server.hpp>
#include <kumiki/network/outside_names.hpp>
#include <kumiki/network/resolver_socket.hpp>
#include <kumiki/network/socket_address.hpp>

namespace kumiki::inline v0 {

namespace detail {

/// Has a datagram's question asked outside, and sends the answer back.
template <class = void>
inline task<void> pass_on_datagram(scheduler& io, name_server& resolver, int fd,
                                   socket_address from, std::vector<std::byte> message,
                                   dns_query query) {
    auto answer = co_await ask_outside(io, resolver, from.address(), SOCK_DGRAM, message, query);
    // A server may say more than it was told that the sender can take.
    if (answer.size() > std::max<std::size_t>(query.edns_size.value_or(512), 512)) {
        answer = dns_reply(message, query, dns_code::no_error).finish(512);
        answer[2] |= std::byte{0x02};  // truncated: it will ask again over TCP
    }
    send_now(fd, from, answer);
}

/// Answers datagrams for ever.
template <class = void>
inline task<void> serve_datagrams(scheduler& io, name_server& resolver, int fd, scope& tasks) {
    std::vector<std::byte> buffer(4096);
    for (;;) {
        socket_address from;
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
template <class = void>
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
template <class = void>
inline task<void> serve_stream(scheduler& io, name_server& resolver, unique_fd fd) {
    const socket_address from = socket_address::peer_of(fd.get());
    const auto place = resolver.connections.take(from.address());
    if (!place) co_return;
    try {
        co_await with_timeout(io, name_server::idle,
                              answer_stream(io, resolver, fd.get(), from.address()));
    } catch (const error&) {  // the client went away
    }
}

/// Takes connections for ever.
template <class = void>
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

template <class = void>
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
template <class = void>
inline task<void> serve_names(scheduler& io, const bridge_network& net,
                              names_options options = {}) {
    return detail::serve_with(io, std::make_unique<detail::name_server>(net, std::move(options)));
}

}  // namespace kumiki::inline v0
