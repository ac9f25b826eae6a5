// What the kernel tells of its own accord: the messages of netlink's multicast groups, as a stream.
//
//   auto links = netlink_subscription::open(NETLINK_ROUTE, {RTNLGRP_LINK});
//   auto events = std::move(links).events(io, [](const netlink_message& m) { ... });
//   while (auto event = co_await events.next())
//       if (!*event) read_all_anew();     // some were lost
//
// netlink(7): NETLINK_ADD_MEMBERSHIP. The kernel keeps what is not read in a queue of limited size and
// drops what does not fit (ENOBUFS): then the truth is in a dump alone.
// Left out: the groups of every namespace at once (NETLINK_LISTEN_ALL_NSID).
#pragma once

#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <initializer_list>
#include <optional>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <kumiki/async/scheduler.hpp>
#include <kumiki/async/stream.hpp>
#include <kumiki/core/unique_fd.hpp>
#include <kumiki/netlink/datagram.hpp>
#include <kumiki/netlink/socket.hpp>
#include <kumiki/netlink/view.hpp>
#include <kumiki/sys/check.hpp>
#include <kumiki/sys/netns.hpp>

namespace kumiki::inline v0 {

/// A member of multicast groups of one protocol in one network namespace. Move-only.
///
/// From open() on nothing is missed: read the state after it, and then the events.
class netlink_subscription {
  public:
    /// How much the kernel keeps for a reader that is busy; a message of a link takes about 2 KiB.
    static constexpr std::size_t default_room = std::size_t{4} << 20;

    /// Joins `groups` (RTNLGRP_LINK, NFNLGRP_NFTABLES ...) in the calling thread's network
    /// namespace. Errors: kumiki::error, EPERM for a group that takes CAP_NET_ADMIN.
    static netlink_subscription open(int protocol, std::span<const unsigned> groups,
                                     std::size_t room = default_room) {
        netlink_subscription made(netlink_socket::open(protocol).release());
        const int fd = made.fd_.get();
        const int size = static_cast<int>(std::min<std::size_t>(room / 2, 1U << 29));  // doubled
        if (::setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof size) != 0)
            sys::check(::setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof size),
                       "set netlink receive buffer", std::to_string(room));
        sockaddr_nl own{};  // the kernel leaves out who has no number yet
        own.nl_family = AF_NETLINK;
        sys::check(::bind(fd, reinterpret_cast<const sockaddr*>(&own), sizeof own),
                   "bind netlink socket", "protocol " + std::to_string(protocol));
        for (const unsigned group : groups)
            sys::check(::setsockopt(fd, SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, &group, sizeof group),
                       "join netlink group", std::to_string(group));
        return made;
    }
    static netlink_subscription open(int protocol, std::initializer_list<unsigned> groups,
                                     std::size_t room = default_room) {
        return open(protocol, std::span(groups.begin(), groups.size()), room);
    }
    /// As open(), in the network namespace behind `netns_fd`.
    static netlink_subscription open_in(int netns_fd, int protocol,
                                        std::initializer_list<unsigned> groups,
                                        std::size_t room = default_room) {
        return sys::in_network_namespace(netns_fd, [&] { return open(protocol, groups, room); });
    }

    /// Readable when there is something to take.
    int fd() const noexcept { return fd_.get(); }

    /// Takes one datagram out of the queue without waiting, and gives `on_message` each message in
    /// it. False when the queue is empty. With `lost` set, some were lost, and what the kernel told
    /// before them was dropped: all that comes is newer. Errors: kumiki::error, EBADMSG.
    template <std::invocable<const netlink_message&> OnMessage>
    bool take(OnMessage&& on_message, bool& lost) {
        auto part = detail::receive_netlink(fd_.get(), buffer_);
        lost = part.lost;
        // What was queued before the loss is of a state that is past.
        while (lost && part.is_there) part = detail::receive_netlink(fd_.get(), buffer_);
        if (!part.is_there) return lost;
        for (auto rest = part.bytes; const auto message = next_message(rest);)
            if (message->type() >= NLMSG_MIN_TYPE) on_message(*message);
        return true;
    }

    /// The messages that `parse` makes a value of (it returns an optional), one after the other. An
    /// event without a value says that some were lost: what is known has to be read anew.
    /// Errors: what `parse` throws; kumiki::error; `cancelled`, and no message is lost by that.
    template <std::invocable<const netlink_message&> Parse>
    auto events(scheduler& io, Parse parse) && {
        return stream_of(io, std::move(*this), std::move(parse));
    }

  private:
    explicit netlink_subscription(unique_fd fd) noexcept : fd_(std::move(fd)) {}

    template <class Parse>
    static stream<std::invoke_result_t<Parse, const netlink_message&>> stream_of(
        scheduler& io, netlink_subscription from, Parse parse) {
        using event = std::invoke_result_t<Parse, const netlink_message&>;
        std::vector<event> news;
        for (;;) {
            bool lost = false;
            const bool some = from.take(
                [&](const netlink_message& message) {
                    if (event parsed = parse(message)) news.push_back(std::move(parsed));
                },
                lost);
            if (lost) news.emplace_back();
            for (event& each : news) co_yield std::move(each);
            news.clear();
            if (!some) co_await io.poll(from.fd(), POLLIN);
        }
    }

    unique_fd fd_;
    std::vector<std::byte> buffer_;
};

}  // namespace kumiki::inline v0
