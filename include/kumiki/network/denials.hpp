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

#include <algorithm>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <kumiki/async/scheduler.hpp>
#include <kumiki/async/stream.hpp>
#include <kumiki/core/error.hpp>
#include <kumiki/core/ip.hpp>
#include <kumiki/core/unique_fd.hpp>
#include <kumiki/netlink/conntrack.hpp>
#include <kumiki/netlink/datagram.hpp>
#include <kumiki/netlink/link.hpp>
#include <kumiki/netlink/nflog.hpp>
#include <kumiki/netlink/nft_view.hpp>
#include <kumiki/network/bridge_network.hpp>
#include <kumiki/network/denial_rules.hpp>
#include <kumiki/network/network_state.hpp>
#include <kumiki/network/ruleset.hpp>
#include <kumiki/sys/check.hpp>
#include <kumiki/sys/netns.hpp>

namespace kumiki::inline v0 {

/// Which way a packet went, seen from the container.
enum class flow_side : std::uint8_t { out, in };

/// A packet that was dropped.
struct denial {
    std::string container{};  ///< whose it was; empty for an address that is no container's
    flow_side direction = flow_side::out;
    /// The rule: "web:out:3" is number 3 of web's egress policy, "web:in:rest" what its ingress policy
    /// has no rule for, "base:ingress:not published" one that all containers share.
    std::string rule{};
    flow_tuple packet{};  ///< a published port's destination is translated already: the container's
    std::uint8_t transport = 0;  ///< IANA number; 0: ARP
    std::string in{};  ///< the interface, or the bridge's port, that it came in by
    std::string out{};  ///< the interface that it was to leave by; empty: none was chosen yet
    std::uint64_t lost = 0;  ///< so many before it were not told: this reader was too slow
};

/// "web out 10.88.0.2:40000 to 192.0.2.1:443 protocol 6 by web:out:3".
inline std::string to_string(const denial& d) {
    const auto end = [](const ip_address& address, std::uint16_t port) {
        const std::string text = to_string(address);
        if (port == 0) return text;
        return (address.is_v4() ? text : "[" + text + "]") + ":" + std::to_string(port);
    };
    return (d.container.empty() ? "?" : d.container) +
           (d.direction == flow_side::out ? " out " : " in ") +
           end(d.packet.source, d.packet.source_port) + " to " +
           end(d.packet.destination, d.packet.destination_port) + " protocol " +
           std::to_string(d.transport) + " by " + d.rule;
}

namespace detail {

/// The containers' names by their addresses, of all processes: as the elements of egress4/6 say.
class container_names {
  public:
    container_names(netlink_socket socket, const std::string& network)
        : socket_(std::move(socket)), tables_(network) {}

    /// Reads them anew when the ruleset has changed since.
    void refresh() {
        const std::uint32_t now = nft::generation(socket_);
        if (generation_ == now) return;
        std::map<std::string, std::string> names;
        for (const ip_family family : both_families) try {
                for (nft::element_view& each :
                     nft::list_elements(socket_, tables_.inet, ruleset::egress(family).name))
                    names.insert_or_assign(std::move(each.key), std::move(each.comment));
            } catch (const error& failure) {
                if (failure.errno_value() != ENOENT) throw;  // flushed just now
            }
        names_ = std::move(names);
        generation_ = now;
    }
    std::string find(const ip_address& address) const {
        const auto found =
            names_.find(std::string(reinterpret_cast<const char*>(address.data()), address.size()));
        return found != names_.end() ? found->second : std::string();
    }

  private:
    netlink_socket socket_;
    ruleset tables_;
    std::optional<std::uint32_t> generation_;
    std::map<std::string, std::string> names_;  // key: the address's bytes
};

/// True for what says nothing of anybody's intent: each broadcast and ARP request is offered to all
/// ports and dropped before the siblings', and a container's kernel greets its link (RFC 3810, 4861)
/// of its own accord.
inline bool is_chatter(const logged_packet& packet) {
    if (!packet.head) return packet.prefix == "base:forward";
    const ip_address& to = packet.head->between.destination;
    const bool is_to_many = to.is_v4() ? to[0] >= 224 : to[0] == 0xff;
    constexpr std::uint8_t igmp = 2;
    constexpr std::uint8_t icmpv6 = 58;
    const std::uint8_t transport = packet.head->transport;
    if (packet.prefix == "base:forward") return is_to_many || transport == 0;
    return packet.prefix.starts_with("base:") && is_to_many &&
           (transport == igmp || transport == icmpv6);
}

/// The denial that a logged packet is.
inline denial make_denial(logged_packet packet, const container_names& names) {
    denial made{.rule = std::move(packet.prefix)};
    if (packet.head) {
        made.packet = packet.head->between;
        made.transport = packet.head->transport;
    }
    const std::string& rule = made.rule;
    const std::string sender = names.find(made.packet.source);
    const std::string receiver = names.find(made.packet.destination);
    // "web:out:3", ":in:rest", "base:ingress:not published"; no container is called "base:".
    const std::size_t colon = rule.find(':');
    const bool is_base = rule.starts_with("base:");
    if (is_base)
        made.direction = rule.starts_with("base:ingress") || rule.starts_with("base:guard")
                             ? flow_side::in
                             : flow_side::out;
    else if (colon != std::string::npos)
        made.direction =
            rule.compare(colon, 4, ":out") == 0 || rule.compare(colon, 8, ":rateout") == 0
                ? flow_side::out
                : flow_side::in;
    made.container = !is_base && colon != std::string::npos && colon != 0
                         ? rule.substr(0, colon)
                         : (made.direction == flow_side::in ? receiver : sender);
    if (colon == 0) made.rule.insert(0, made.container);
    return made;
}

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
inline stream<denial> watch_denials(scheduler& io, const bridge_network& network) {
    return detail::read_denials(io,
                                std::make_unique<detail::denial_reader>(network.attach().network));
}

}  // namespace kumiki::inline v0
