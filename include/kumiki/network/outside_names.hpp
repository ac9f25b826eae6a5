// Asking the name servers outside of a network for its containers: one after the other, for a time.
//
// Each question has a socket, so a port, and an id of its own, both at random, and what comes back is
// held against the question (RFC 5452): who cannot see it cannot answer it. The bounds are those of
// names_options and name_server. Left out: asking several servers at once; remembering who is slow.
#pragma once

#include <sys/random.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include <kumiki/async/scheduler.hpp>
#include <kumiki/async/task.hpp>
#include <kumiki/async/timeout.hpp>
#include <kumiki/core/error.hpp>
#include <kumiki/core/ip.hpp>
#include <kumiki/core/unique_fd.hpp>
#include <kumiki/network/dns_message.hpp>
#include <kumiki/network/dns_reply.hpp>
#include <kumiki/network/dns_stream.hpp>
#include <kumiki/network/name_server.hpp>
#include <kumiki/network/socket_address.hpp>
#include <kumiki/sys/check.hpp>

namespace kumiki::inline v0::detail {

inline std::uint16_t random_dns_id() {
    std::uint16_t id = 0;
    sys::check(::getrandom(&id, sizeof id, 0), "getrandom");
    return id;
}

/// What `server` answers; waits for ever. Errors: kumiki::error.
template <class = void>
inline task<std::vector<std::byte>> ask_one(scheduler& io, name_server& resolver, ip_address server,
                                            int type, std::vector<std::byte> message,
                                            dns_query query) {
    const unique_fd fd = resolver.outward_socket(type, server);
    const socket_address to(server, 53);
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
template <class = void>
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

}  // namespace kumiki::inline v0::detail
