// A netlink socket: batches of requests in one sendmsg(2), their acknowledgements, and dumps.
//
// netlink(7), with extended acknowledgements, capped acknowledgements and strict checking of dump
// requests (Linux 4.20); netns_cookie() wants 5.14. NETLINK_ROUTE and NETLINK_NETFILTER carry a
// request out inside sendmsg(2) and queue the answer before it returns: so these are plain
// functions that never wait for an answer, and no coroutines.
// Left out: multicast groups, which are what waits (multicast.hpp).
#pragma once

#include <linux/netlink.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <kumiki/core/error.hpp>
#include <kumiki/core/unique_fd.hpp>
#include <kumiki/netlink/datagram.hpp>
#include <kumiki/netlink/message.hpp>
#include <kumiki/netlink/view.hpp>
#include <kumiki/sys/check.hpp>
#include <kumiki/sys/netns.hpp>

namespace kumiki::inline v0 {

/// A netlink socket of one protocol in one network namespace.
///
/// Kernel: a socket stays in the namespace in which it was made, whatever its thread does.
class netlink_socket {
  public:
    /// Opens one in the calling thread's network namespace; `protocol` is NETLINK_ROUTE ...
    static netlink_socket open(int protocol) {
        netlink_socket made(
            unique_fd(sys::check(::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, protocol),
                                 "open netlink socket", "protocol " + std::to_string(protocol))));
        for (const int option : {NETLINK_EXT_ACK, NETLINK_CAP_ACK, NETLINK_GET_STRICT_CHK})
            made.set_option(SOL_NETLINK, option, 1);
        return made;
    }
    /// Opens one in the network namespace behind `netns_fd`, on a thread that lives for this alone.
    static netlink_socket open_in(int netns_fd, int protocol) {
        return sys::in_network_namespace(netns_fd, [protocol] { return open(protocol); });
    }
    /// Takes over a socket made elsewhere (its options are left as they are).
    explicit netlink_socket(unique_fd fd) noexcept : fd_(std::move(fd)) {}

    int fd() const noexcept { return fd_.get(); }
    unique_fd release() noexcept { return std::move(fd_); }
    /// The number of the socket's network namespace, unique until the next boot.
    std::uint64_t netns_cookie() const { return sys::netns_cookie(fd_.get()); }

    /// The number by which the kernel knows the socket in its namespace: what it tells others of a
    /// change has the number of who made it. 0 before the first request.
    std::uint32_t port_id() const {
        sockaddr_nl own{};
        socklen_t size = sizeof own;
        sys::check(::getsockname(fd_.get(), reinterpret_cast<sockaddr*>(&own), &size),
                   "read netlink socket's number");
        return own.nl_pid;
    }

    /// Sends the batch and returns what was refused, in the order of the kernel's answers. Messages
    /// that come as answers (to RTM_GETLINK ...) go to `on_reply(index, netlink_message)`.
    ///
    /// Errors: kumiki::error when the batch could not be sent, or an acknowledgement that was asked
    /// for did not come. NETLINK_ROUTE goes on behind a refused request; nftables undoes them all.
    template <std::invocable<std::size_t, const netlink_message&> OnReply>
    std::vector<netlink_failure> submit(netlink_batch& batch, OnReply&& on_reply) {
        std::vector<netlink_failure> failures;
        if (batch.empty()) return failures;
        const std::uint32_t first = next_sequence_;
        next_sequence_ += static_cast<std::uint32_t>(batch.count());
        std::vector<bool> waiting = batch.number(first);
        std::size_t missing = 0;
        for (const bool acknowledged : waiting) missing += acknowledged ? 1 : 0;
        make_room(batch.bytes().size(), batch.count());
        send(batch);
        bool lost = false;
        // To the end of the queue: a late refusal (of a commit) is not left for the next batch.
        for (;;) {
            const auto part = detail::receive_netlink(fd_.get(), buffer_);
            lost = lost || part.lost;
            if (!part.is_there) break;
            for (auto rest = part.bytes; const auto message = next_message(rest);) {
                const std::size_t index = message->header.nlmsg_seq - first;
                if (index >= waiting.size() || message->type() == NLMSG_NOOP) continue;
                if (message->type() != NLMSG_ERROR) {
                    if (message->type() >= NLMSG_MIN_TYPE) on_reply(index, *message);
                    continue;
                }
                if (waiting[index]) --missing;
                waiting[index] = false;
                const auto code = detail::read_structure<std::int32_t>(message->payload);
                if (!code || *code > 0) detail::malformed_netlink("error message", index);
                if (*code != 0)
                    failures.push_back({index, -*code, detail::explain_refusal(*message, batch)});
            }
        }
        // What failed in a transaction may end it before the rest was looked at.
        if (missing != 0 && failures.empty())
            fail(lost ? ENOBUFS : EPROTO, "receive netlink acknowledgements",
                 batch.note(0).operation, std::to_string(missing) + " of them did not come.");
        return failures;
    }
    std::vector<netlink_failure> submit(netlink_batch& batch) {
        return submit(batch, [](std::size_t, const netlink_message&) {});
    }

    /// As submit(), but throws the first failure with the note of its request.
    template <std::invocable<std::size_t, const netlink_message&> OnReply>
    void transact(netlink_batch& batch, OnReply&& on_reply) {
        const auto failures = submit(batch, std::forward<OnReply>(on_reply));
        if (!failures.empty()) throw to_error(batch, failures.front());
    }
    void transact(netlink_batch& batch) {
        transact(batch, [](std::size_t, const netlink_message&) {});
    }

    /// Carries out a dump: `request` is one message with NLM_F_DUMP; each answer that `parse` turns
    /// into a value (it returns an optional) is in the result.
    ///
    /// A dump that was disturbed by a change (NLM_F_DUMP_INTR), or lost a part, is begun again, ten
    /// times at most. Errors: kumiki::error EINTR after that, or what the kernel refused it with.
    template <std::invocable<const netlink_message&> Parse>
    auto dump(netlink_batch& request, Parse&& parse) {
        using value = typename std::invoke_result_t<Parse, const netlink_message&>::value_type;
        std::vector<value> values;
        for (int attempt = 0; attempt < 10; ++attempt) {
            values.clear();
            const bool whole = dump_once(request, [&](const netlink_message& message) {
                if (auto parsed = parse(message)) values.push_back(std::move(*parsed));
            });
            if (whole) return values;
        }
        fail(EINTR, request.note(0).operation, request.note(0).object,
             "The table changed during each of ten attempts to read it.");
    }

  private:
    [[noreturn]] static void fail(int code, std::string operation, std::string object,
                                  std::string remedy) {
        throw error(code, {.operation = std::move(operation),
                           .object = std::move(object),
                           .step = {},
                           .container = {},
                           .remedy = std::move(remedy)});
    }
    void set_option(int level, int option, int value) {
        sys::check(::setsockopt(fd_.get(), level, option, &value, sizeof value),
                   "set netlink socket option", std::to_string(option));
    }
    // Both buffers start at about 200 KiB; an acknowledgement is charged with less than 1 KiB.
    void make_room(std::size_t size, std::size_t answers) {
        const auto grow = [this](std::size_t need, std::size_t& have, int forced, int plain) {
            if (need <= have) return;
            const int value = static_cast<int>(std::min<std::size_t>(need, 1U << 30));
            if (::setsockopt(fd_.get(), SOL_SOCKET, forced, &value, sizeof value) != 0)
                set_option(SOL_SOCKET, plain, value);
            have = need;
        };
        grow(size + 4096, send_room_, SO_SNDBUFFORCE, SO_SNDBUF);
        grow(answers * 1024 + 65536, receive_room_, SO_RCVBUFFORCE, SO_RCVBUF);
    }
    void send(const netlink_batch& batch) {
        sockaddr_nl kernel{};
        kernel.nl_family = AF_NETLINK;
        const auto bytes = batch.bytes();
        sys::check(sys::retry([&] {
                       return ::sendto(fd_.get(), bytes.data(), bytes.size(), 0,
                                       reinterpret_cast<const sockaddr*>(&kernel), sizeof kernel);
                   }),
                   batch.note(0).operation, batch.note(0).object);
    }
    // False when it has to be begun again.
    template <class OnMessage>
    bool dump_once(netlink_batch& request, OnMessage&& on_message) {
        const std::uint32_t sequence = next_sequence_++;
        request.number(sequence);
        send(request);
        for (bool whole = true;;) {
            const auto part = detail::receive_netlink(fd_.get(), buffer_);
            if (part.lost) whole = false;
            if (!part.is_there) {
                if (!whole) return false;
                fail(EPROTO, request.note(0).operation, request.note(0).object,
                     "The kernel's answer has no end.");
            }
            for (auto rest = part.bytes; const auto message = next_message(rest);) {
                if (message->header.nlmsg_seq != sequence) continue;
                if ((message->header.nlmsg_flags & NLM_F_DUMP_INTR) != 0) whole = false;
                if (message->type() != NLMSG_DONE && message->type() != NLMSG_ERROR) {
                    if (message->type() >= NLMSG_MIN_TYPE) on_message(*message);
                    continue;
                }
                const auto code = detail::read_structure<std::int32_t>(message->payload);
                if (code && *code < 0)
                    throw to_error(request,
                                   {0, -*code, detail::explain_refusal(*message, request)});
                return whole;
            }
        }
    }
    unique_fd fd_;
    std::vector<std::byte> buffer_;
    std::uint32_t next_sequence_ = 1;
    std::size_t send_room_ = 131072;
    std::size_t receive_room_ = 131072;
};

}  // namespace kumiki::inline v0
