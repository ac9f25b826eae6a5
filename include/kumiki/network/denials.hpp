// What a network's rules denied, packet by packet, as a stream: who, to whom, and by which rule.
//
//   auto denied = watch_denials(io, net);
//   while (auto each = co_await denied.next()) tell(each->container, to_string(*each));
//
// Each rule that drops counts, and sends the head of the packet to the network's group of NFLOG
// (nflog.hpp): those of all containers, also of other processes. The counters have them all; a reader
// that is too slow is told how many it missed.
// Kernel: as bridge_network.hpp, with nfnetlink_log. Left out: packets that others' rules dropped.
#pragma once

#include <poll.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <kumiki/async/scheduler.hpp>
#include <kumiki/async/stream.hpp>
#include <kumiki/core/error.hpp>
#include <kumiki/core/unique_fd.hpp>
#include <kumiki/netlink/datagram.hpp>
#include <kumiki/netlink/link.hpp>
#include <kumiki/netlink/message.hpp>
#include <kumiki/netlink/nflog.hpp>
#include <kumiki/netlink/socket.hpp>
#include <kumiki/netlink/view.hpp>
#include <kumiki/network/bridge_network.hpp>
#include <kumiki/network/container_names.hpp>
#include <kumiki/network/denial.hpp>
#include <kumiki/network/denial_rules.hpp>
#include <kumiki/network/network_state.hpp>
#include <kumiki/network/ruleset.hpp>
#include <kumiki/sys/netns.hpp>

namespace kumiki::inline v0 {

namespace detail {

/// The state behind watch_denials().
class denial_reader {
  public:
    explicit denial_reader(const std::shared_ptr<network_state>& network)
        : network_(network), netns_(sys::network_namespace_of(network->route.fd())),
          log_(netlink_socket::open_in(netns_.get(), NETLINK_NETFILTER)),
          routes_(netlink_socket::open_in(netns_.get(), NETLINK_ROUTE)),
          names_(netlink_socket::open_in(netns_.get(), NETLINK_NETFILTER), network->options.name) {
        const int room = 2 << 20;
        if (::setsockopt(log_.fd(), SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof room) != 0)
            ::setsockopt(log_.fd(), SOL_SOCKET, SO_RCVBUF, &room, sizeof room);
        const std::uint16_t group = denial_group(ruleset(network->options.name).inet.name);
        netlink_batch bind;
        bind_nflog(bind, group);
        try {
            log_.transact(bind);
        } catch (const error& failure) {
            // EPERM is also the kernel's word for a group that is another socket's.
            if (failure.errno_value() == EBUSY || failure.errno_value() == EPERM)
                throw error(EBUSY,
                            {.operation = failure.operation(),
                             .object = failure.object(),
                             .remedy = "Another reader has the network's denials already, in "
                                       "this process or another."});
            if (failure.errno_value() == EOPNOTSUPP)
                throw unsupported(EOPNOTSUPP, {.operation = "watch denials of network",
                                               .object = network->options.name,
                                               .remedy = "This kernel lacks nfnetlink_log "
                                                         "(CONFIG_NETFILTER_NETLINK_LOG)."});
            throw;
        }
    }

    int fd() const noexcept { return log_.fd(); }

    /// What is there now, 64 datagrams at most; nothing when there is nothing.
    std::vector<denial> look() {
        std::vector<logged_packet> packets;
        for (int i = 0; i < 64; ++i) {
            const auto part = receive_netlink(log_.fd(), buffer_);
            if (!part.is_there) break;
            for (auto rest = part.bytes; const auto message = next_message(rest);)
                if (auto packet = parse_logged_packet(*message))
                    packets.push_back(std::move(*packet));
        }
        std::vector<denial> news;
        if (packets.empty()) return news;
        names_.refresh();
        std::map<std::uint32_t, std::string> links{{0, ""}};
        const auto link = [&](std::uint32_t index) {
            const auto [at, is_new] = links.try_emplace(index);
            if (is_new)
                if (const auto found = find_link(routes_, static_cast<int>(index)))
                    at->second = found->name;
            return at->second;
        };
        for (logged_packet& packet : packets) {
            lost_ += packet.number - next_;
            next_ = packet.number + 1;
            if (is_chatter(packet)) continue;
            const std::uint32_t in = packet.in;
            const std::uint32_t out = packet.out;
            denial made = make_denial(std::move(packet), names_);
            made.lost = std::exchange(lost_, 0);
            made.in = link(in);
            made.out = link(out);
            news.push_back(std::move(made));
        }
        return news;
    }

  private:
    std::shared_ptr<network_state> network_;  // stays open while it is watched
    unique_fd netns_;
    netlink_socket log_;
    netlink_socket routes_;
    container_names names_;
    std::vector<std::byte> buffer_;
    std::uint32_t next_ = 0;
    std::uint64_t lost_ = 0;  // not told yet
};

template <class = void>
inline stream<denial> read_denials(scheduler& io, std::unique_ptr<denial_reader> reader) {
    for (;;) {
        std::vector<denial> news = reader->look();
        for (denial& each : news) co_yield std::move(each);
        if (news.empty()) co_await io.poll(reader->fd(), POLLIN);
    }
}

}  // namespace detail

/// The packets that the rules of `network` drop from now on, of all its containers.
///
/// Errors: EBUSY when there is another reader; `unsupported` when the kernel lacks NFLOG; EPERM
/// without CAP_NET_ADMIN. Lifetime: the network stays open while the stream lives.
template <class = void>
inline stream<denial> watch_denials(scheduler& io, const bridge_network& network) {
    return detail::read_denials(io,
                                std::make_unique<detail::denial_reader>(network.attach().network));
}

}  // namespace kumiki::inline v0
