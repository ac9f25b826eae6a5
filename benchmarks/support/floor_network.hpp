// The floor of a container's network: the netlink messages of one bridge port, its addresses and
// routes, and one published port as an element of an nftables map, each built ahead and sent as it is.
//
// The bridge, the table, its map and the rule that looks in it are made once, as a network is opened
// once for many containers. Two messages name an object by a number that is known beforehand: in a
// new network namespace the first link after lo has index 2, and the child is process 1 of its own.
#pragma once

#include <arpa/inet.h>
#include <linux/if_addr.h>
#include <linux/if_link.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <linux/veth.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <string>
#include <vector>

#include "place.hpp"

namespace bench {

/// Waits for `count` acknowledgements; -1 and errno for the first refusal. No allocation.
inline long collect_answers(int socket, unsigned count) noexcept {
    alignas(nlmsghdr) char answer[8192];
    for (unsigned seen = 0; seen < count;) {
        const ssize_t got = ::recv(socket, answer, sizeof answer, 0);
        if (got < 0) return -1;
        auto left = static_cast<unsigned>(got);
        for (auto* at = reinterpret_cast<nlmsghdr*>(answer); NLMSG_OK(at, left);
             at = NLMSG_NEXT(at, left)) {
            if (at->nlmsg_type != NLMSG_ERROR) continue;
            const int code = static_cast<nlmsgerr*>(NLMSG_DATA(at))->error;
            if (code != 0) {
                errno = -code;
                return -1;
            }
            ++seen;
        }
    }
    return 0;
}

/// Netlink messages, one after the other in one buffer.
class messages {
  public:
    template <class Head>
    messages& begin(unsigned type, unsigned flags, const Head& head) {
        start_ = bytes_.size();
        const bool wanted = (flags & NLM_F_ACK) != 0;
        answers_ += wanted ? 1 : 0;
        put(nlmsghdr{.nlmsg_len = 0,
                     .nlmsg_type = static_cast<std::uint16_t>(type),
                     .nlmsg_flags = static_cast<std::uint16_t>(flags | NLM_F_REQUEST),
                     .nlmsg_seq = answers_,
                     .nlmsg_pid = 0});
        return put(head);
    }
    template <class Value>
    messages& add(unsigned type, const Value& value) {
        open(type);
        put(value);
        return close();
    }
    messages& add(unsigned type, const char* text) {
        open(type);
        bytes_.insert(bytes_.end(), text, text + std::strlen(text) + 1);
        return close();
    }
    messages& open(unsigned type) {
        nests_.push_back(bytes_.size());
        return put(nlattr{.nla_len = 0, .nla_type = static_cast<std::uint16_t>(type)});
    }
    messages& nest(unsigned type) { return open(type | NLA_F_NESTED); }
    messages& close() {
        const auto length = static_cast<std::uint16_t>(bytes_.size() - nests_.back());
        std::memcpy(bytes_.data() + nests_.back(), &length, sizeof length);
        nests_.pop_back();
        return finish();
    }
    template <class Value>
    messages& put(const Value& value) {
        const auto* raw = reinterpret_cast<const char*>(&value);
        bytes_.insert(bytes_.end(), raw, raw + sizeof value);
        return finish();
    }

    /// Sends all and collects the answers; -1 and errno for the first refusal. No allocation.
    long exchange(int socket) const noexcept {
        if (::send(socket, bytes_.data(), bytes_.size(), 0) < 0) return -1;
        return collect_answers(socket, answers_);
    }

  private:
    /// Pads to four bytes and brings the current message's length up to date.
    messages& finish() {
        bytes_.resize(NLMSG_ALIGN(bytes_.size()));
        const auto length = static_cast<std::uint32_t>(bytes_.size() - start_);
        std::memcpy(bytes_.data() + start_, &length, sizeof length);
        return *this;
    }

    std::vector<char> bytes_;
    std::vector<std::size_t> nests_;
    std::size_t start_ = 0;
    std::uint32_t answers_ = 0;
};

/// One bridge in the benchmark's network namespace, and the port of one container at a time.
class floor_network {
  public:
    floor_network() : route_(open_socket(NETLINK_ROUTE)), filter_(open_socket(NETLINK_NETFILTER)) {
        messages bridge;
        bridge.begin(RTM_NEWLINK, create, link_up())
            .add(IFLA_IFNAME, bridge_name)
            .nest(IFLA_LINKINFO)
            .add(IFLA_INFO_KIND, "bridge")
            .close();
        sys::check(bridge.exchange(route_.get()), "make the floor's bridge");
        bridge_ = ::if_nametoindex(bridge_name);
        messages gateway;
        address(gateway, bridge_, AF_INET, "10.77.0.1", 24);
        address(gateway, bridge_, AF_INET6, "fd00:77::1", 64);
        sys::check(gateway.exchange(route_.get()), "address the floor's bridge");

        inside_.begin(RTM_NEWLINK, NLM_F_ACK, link_up(1));
        inside_.begin(RTM_NEWLINK, NLM_F_ACK, link_up(2));
        address(inside_, 2, AF_INET, "10.77.0.2", 24);
        address(inside_, 2, AF_INET6, "fd00:77::2", 64);
        default_route(inside_, AF_INET, "10.77.0.1");
        default_route(inside_, AF_INET6, "fd00:77::1");
        make_table();
        element(publish_, NFT_MSG_NEWSETELEM, NLM_F_CREATE);
        element(unpublish_, NFT_MSG_DELSETELEM, 0);
    }

    /// Chooses the next port's name, which must not be that of one that is still on its way out, and
    /// the network namespace that it leads to: the caller's of add_link() is that of process 1.
    void next_port(std::optional<std::uint32_t> netns_fd = {}) {
        ++ports_;
        const std::string name = port_name();
        // One queue: the default is one for each possible processor, and each costs.
        constexpr std::uint32_t queues = 1;
        link_ = {};
        link_.begin(RTM_NEWLINK, create, link_up())
            .add(IFLA_IFNAME, name.c_str())
            .add(IFLA_MASTER, bridge_)
            .add(IFLA_NUM_TX_QUEUES, queues)
            .add(IFLA_NUM_RX_QUEUES, queues)
            .nest(IFLA_LINKINFO)
            .add(IFLA_INFO_KIND, "veth")
            .nest(IFLA_INFO_DATA)
            .nest(VETH_INFO_PEER)
            .put(ifinfomsg{})
            .add(IFLA_IFNAME, "eth0")
            .add(IFLA_NUM_TX_QUEUES, queues)
            .add(IFLA_NUM_RX_QUEUES, queues)
            .add(netns_fd ? IFLA_NET_NS_FD : IFLA_NET_NS_PID, netns_fd.value_or(1))
            .close()
            .close()
            .close();
    }

    /// The veth pair with its peer in the caller's network namespace. Called by process 1 there.
    long add_link() const noexcept { return link_.exchange(route_.get()); }
    /// lo up, addresses and routes, in the caller's network namespace.
    long configure_inside() const noexcept {
        const int socket = ::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
        if (socket < 0) return -1;
        const long result = inside_.exchange(socket);
        ::close(socket);
        return result;
    }
    /// The name of the port's end in the host's namespace.
    std::string port_name() const { return "floor" + std::to_string(ports_); }
    long publish() const noexcept { return publish_.exchange(filter_.get()); }
    /// Takes the element out. The link goes with the network namespace of the dead process, in the
    /// kernel's time: to ask for its removal takes 14 ms and more, for rtnetlink answers such a
    /// request after an rcu_barrier.
    long remove() const noexcept { return unpublish_.exchange(filter_.get()); }

  private:
    static constexpr const char* bridge_name = "floor0";
    static constexpr const char* table_name = "floor";
    static constexpr unsigned create = NLM_F_CREATE | NLM_F_EXCL | NLM_F_ACK;

    static ifinfomsg link_up(int index = 0) {
        ifinfomsg link{};
        link.ifi_index = index;
        link.ifi_flags = link.ifi_change = IFF_UP;
        return link;
    }
    struct ip {
        std::uint8_t bytes[16] = {};
        ip(int family, const char* text) { ::inet_pton(family, text, bytes); }
    };
    static void add_ip(messages& to, unsigned type, int family, const char* text) {
        const ip parsed(family, text);
        in_addr v4;
        std::memcpy(&v4, parsed.bytes, sizeof v4);
        family == AF_INET ? to.add(type, v4) : to.add(type, parsed);
    }
    static void address(messages& to, unsigned link, int family, const char* text, int prefix) {
        to.begin(RTM_NEWADDR, create,
                 ifaddrmsg{.ifa_family = static_cast<std::uint8_t>(family),
                           .ifa_prefixlen = static_cast<std::uint8_t>(prefix),
                           .ifa_flags = IFA_F_NODAD,
                           .ifa_scope = 0,
                           .ifa_index = link});
        add_ip(to, IFA_LOCAL, family, text);
        add_ip(to, IFA_ADDRESS, family, text);
    }
    static void default_route(messages& to, int family, const char* gateway) {
        rtmsg route{};
        route.rtm_family = static_cast<std::uint8_t>(family);
        route.rtm_table = RT_TABLE_MAIN;
        route.rtm_protocol = RTPROT_STATIC;
        route.rtm_scope = RT_SCOPE_UNIVERSE;
        route.rtm_type = RTN_UNICAST;
        to.begin(RTM_NEWROUTE, create, route);
        add_ip(to, RTA_GATEWAY, family, gateway);
    }

    static std::uint32_t be(std::uint32_t value) { return htonl(value); }
    static nfgenmsg family(std::uint8_t of, std::uint16_t resource = 0) {
        return {.nfgen_family = of, .version = NFNETLINK_V0, .res_id = htons(resource)};
    }
    static messages& table_message(messages& to, unsigned type, unsigned flags) {
        return to.begin(NFNL_SUBSYS_NFTABLES << 8 | type, flags | NLM_F_ACK, family(NFPROTO_IPV4));
    }
    template <class Fill>
    static void transaction(messages& to, const Fill& fill) {
        to.begin(NFNL_MSG_BATCH_BEGIN, 0, family(AF_UNSPEC, NFNL_SUBSYS_NFTABLES));
        fill();
        to.begin(NFNL_MSG_BATCH_END, 0, family(AF_UNSPEC, NFNL_SUBSYS_NFTABLES));
    }
    /// (address, protocol, port) of the host -> (address, port) of the container: 8080 -> 80.
    static void element(messages& to, unsigned type, unsigned flags) {
        const std::uint32_t key[] = {inet_addr("10.77.0.1"), IPPROTO_TCP, htons(8080)};
        const std::uint32_t data[] = {inet_addr("10.77.0.2"), htons(80)};
        transaction(to, [&] {
            table_message(to, type, flags)
                .add(NFTA_SET_ELEM_LIST_TABLE, table_name)
                .add(NFTA_SET_ELEM_LIST_SET, "ports")
                .nest(NFTA_SET_ELEM_LIST_ELEMENTS)
                .nest(NFTA_LIST_ELEM)
                .nest(NFTA_SET_ELEM_KEY)
                .add(NFTA_DATA_VALUE, key)
                .close()
                .nest(NFTA_SET_ELEM_DATA)
                .add(NFTA_DATA_VALUE, data)
                .close()
                .close()
                .close();
        });
    }
    static messages& expression(messages& to, const char* name) {
        return to.nest(NFTA_LIST_ELEM).add(NFTA_EXPR_NAME, name).nest(NFTA_EXPR_DATA);
    }
    static void load(messages& to, unsigned base, unsigned offset, unsigned size, unsigned into) {
        expression(to, "payload")
            .add(NFTA_PAYLOAD_DREG, be(into))
            .add(NFTA_PAYLOAD_BASE, be(base))
            .add(NFTA_PAYLOAD_OFFSET, be(offset))
            .add(NFTA_PAYLOAD_LEN, be(size))
            .close()
            .close();
    }
    /// table ip floor: one map, and in prerouting "dnat to what the map says".
    void make_table() const {
        constexpr unsigned concatenation = 7U << 12 | 12U << 6 | 13U;  // only nft(8) reads these
        constexpr std::uint32_t first = NFT_REG32_00;
        messages to;
        transaction(to, [&] {
            table_message(to, NFT_MSG_NEWTABLE, NLM_F_CREATE).add(NFTA_TABLE_NAME, table_name);
            table_message(to, NFT_MSG_NEWSET, NLM_F_CREATE)
                .add(NFTA_SET_TABLE, table_name)
                .add(NFTA_SET_NAME, "ports")
                .add(NFTA_SET_FLAGS, be(NFT_SET_MAP))
                .add(NFTA_SET_KEY_TYPE, be(concatenation))
                .add(NFTA_SET_KEY_LEN, be(12))
                .add(NFTA_SET_DATA_TYPE, be(7U << 6 | 13U))
                .add(NFTA_SET_DATA_LEN, be(8))
                .add(NFTA_SET_ID, be(1));
            table_message(to, NFT_MSG_NEWCHAIN, NLM_F_CREATE)
                .add(NFTA_CHAIN_TABLE, table_name)
                .add(NFTA_CHAIN_NAME, "prerouting")
                .add(NFTA_CHAIN_TYPE, "nat")
                .nest(NFTA_CHAIN_HOOK)
                .add(NFTA_HOOK_HOOKNUM, be(NF_INET_PRE_ROUTING))
                .add(NFTA_HOOK_PRIORITY, be(static_cast<std::uint32_t>(-100)))
                .close();
            table_message(to, NFT_MSG_NEWRULE, NLM_F_CREATE | NLM_F_APPEND)
                .add(NFTA_RULE_TABLE, table_name)
                .add(NFTA_RULE_CHAIN, "prerouting")
                .nest(NFTA_RULE_EXPRESSIONS);
            load(to, NFT_PAYLOAD_NETWORK_HEADER, 16, 4, first);
            expression(to, "meta")
                .add(NFTA_META_DREG, be(first + 1))
                .add(NFTA_META_KEY, be(NFT_META_L4PROTO))
                .close()
                .close();
            load(to, NFT_PAYLOAD_TRANSPORT_HEADER, 2, 2, first + 2);
            expression(to, "lookup")
                .add(NFTA_LOOKUP_SET, "ports")
                .add(NFTA_LOOKUP_SET_ID, be(1))
                .add(NFTA_LOOKUP_SREG, be(first))
                .add(NFTA_LOOKUP_DREG, be(first))
                .close()
                .close();
            expression(to, "nat")
                .add(NFTA_NAT_TYPE, be(NFT_NAT_DNAT))
                .add(NFTA_NAT_FAMILY, be(NFPROTO_IPV4))
                .add(NFTA_NAT_REG_ADDR_MIN, be(first))
                .add(NFTA_NAT_REG_PROTO_MIN, be(first + 1))
                .close()
                .close();
            to.close();
        });
        sys::check(to.exchange(filter_.get()), "make the floor's nftables table");
    }

    static unique_fd open_socket(int protocol) {
        return unique_fd(
            sys::check(::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, protocol), "socket"));
    }

    unique_fd route_;
    unique_fd filter_;
    unsigned bridge_ = 0;
    unsigned ports_ = 0;
    messages link_;
    messages inside_;
    messages publish_;
    messages unpublish_;
};

}  // namespace bench
