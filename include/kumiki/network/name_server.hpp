// What a network's resolver holds while it serves: its sockets, the names, the servers outside.
//
// It answers from its own, or says that a question is for somebody outside; what waits is elsewhere
// (outside_names.hpp, resolver.hpp). Its sockets live in the network's namespace whatever the thread's.
// Kernel: as resolver.hpp.
#pragma once

#include <sys/socket.h>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <kumiki/core/error.hpp>
#include <kumiki/core/ip.hpp>
#include <kumiki/core/unique_fd.hpp>
#include <kumiki/netlink/socket.hpp>
#include <kumiki/network/bridge_network.hpp>
#include <kumiki/network/bridge_options.hpp>
#include <kumiki/network/dns_message.hpp>
#include <kumiki/network/dns_reply.hpp>
#include <kumiki/network/host_resolver.hpp>
#include <kumiki/network/name_answers.hpp>
#include <kumiki/network/name_table.hpp>
#include <kumiki/network/network_state.hpp>
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

}  // namespace detail

}  // namespace kumiki::inline v0
