// An endpoint with one published port (8080 leads to 80) is set up and taken back: by the library, and by
// bare netlink messages.
//
// "bare" sends the library's own messages again: recorded once, on sockets that are open already, nothing
// looked up, leased or reserved. "bare, unguarded" is the floor of bench_start: an interface with its
// addresses and routes and one element of a map; no policy, no anti-spoofing.
#pragma once

#include <fcntl.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstring>
#include <optional>
#include <string>
#include <vector>

#include <kumiki/network/endpoint.hpp>

#include "network/place.hpp"
#include "network/recorder.hpp"
#include "support/floor_network.hpp"

namespace bench {

/// Somebody who sets endpoints up, one at a time.
class endpoint_side {
  public:
    endpoint_side() = default;
    endpoint_side(const endpoint_side&) = delete;
    endpoint_side& operator=(const endpoint_side&) = delete;
    virtual ~endpoint_side() = default;
    /// `inside` is a new network namespace, open as the descriptor `inside_fd`, too.
    virtual void set_up(const netns& inside) = 0;
    virtual void take_back() = 0;
    /// What is left to do before the next one, which nobody waits for.
    virtual void clean() {}

    /// Always the same: the recorded messages name it.
    static constexpr int inside_fd = 900;
};

/// kumiki as its users have it.
class kumiki_side : public endpoint_side {
  public:
    explicit kumiki_side(const network_place& where)
        : network_(kumiki::bridge_network::open({.name = "bench",
                                                 .subnet = kumiki::cidr::parse("10.78.0.0/24"),
                                                 .subnet6 = kumiki::cidr::parse("fd00:78::/64"),
                                                 .state_directory = where.state()})) {}

    void set_up(const netns&) override {
        link_.emplace(
            kumiki::reserve(network_.attach({.publish = {kumiki::tcp(8080, 80)},
                                             .address = kumiki::ip_address::parse("10.78.0.2")}),
                            "box")
                .connect(inside_fd));
    }
    void take_back() override { link_->disconnect_soon(); }
    void clean() override { network_.attach().network->remover->drain(); }
    /// Takes it back and cleans, on this thread.
    void disconnect() { link_->disconnect(); }
    /// The host's end of what is set up.
    const std::string& host_link() const { return link_->host_link(); }

  private:
    kumiki::bridge_network network_;
    std::optional<kumiki::endpoint> link_;
};

/// The same messages without the library.
class bare_side : public endpoint_side {
  public:
    bare_side(kumiki_side& ours, const netns& inside)
        : route_(open_socket(NETLINK_ROUTE)), filter_(open_socket(NETLINK_NETFILTER)) {
        for (sent_messages& each : record([&] { ours.set_up(inside); }))
            set_up_.push_back(as_call(std::move(each)));
        link_ = ours.host_link();
        port_ = static_cast<int>(::if_nametoindex(link_.c_str()));
        for (sent_messages& each : record([&] { ours.take_back(); }))
            take_back_.push_back(as_call(std::move(each)));
        ours.clean();
        // What a thread of the library's sends behind that, which cannot be recorded: the second
        // transaction of an end that is waited for.
        ours.set_up(inside);
        auto ended = record([&] { ours.disconnect(); });
        std::erase_if(ended, [](const sent_messages& each) { return !is_transaction(each); });
        clean_ = as_call(std::move(ended.at(1)));
    }
    void set_up(const netns& inside) override {
        for (call& each : set_up_) {
            if (!each.is_inside) {
                if (each.names_port) lead_to_port(each);
                send(each, each.protocol == NETLINK_ROUTE ? route_ : filter_);
                continue;
            }
            unique_fd there;
            {
                const visit in(inside.fd());
                there = open_socket(each.protocol);
            }
            send(each, there);
        }
    }
    void take_back() override {
        for (const call& each : take_back_)
            send(each, each.protocol == NETLINK_ROUTE ? route_ : filter_);
    }
    void clean() override {
        delete_link(route_.get(), link_);
        send(clean_, filter_);
    }

    static void delete_link(int route, const std::string& name) {
        messages gone;
        gone.begin(RTM_DELLINK, NLM_F_ACK, ifinfomsg{}).add(IFLA_IFNAME, name.c_str());
        sys::check(gone.exchange(route), "delete link", name);
    }
    static unique_fd open_socket(int protocol) {
        return unique_fd(
            sys::check(::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, protocol), "socket"));
    }

  private:
    struct call {
        int protocol = 0;
        bool is_inside = false;
        std::string bytes{};
        unsigned answers = 0;
        bool names_port = false;  // by its number, which is another each time
    };

    /// Calls `change` with the place of each number of an interface.
    template <class Change>
    static void each_index(std::string& bytes, Change&& change) {
        nlmsghdr head;
        for (std::size_t at = 0; at < bytes.size(); at += NLMSG_ALIGN(head.nlmsg_len)) {
            std::memcpy(&head, bytes.data() + at, sizeof head);
            if (head.nlmsg_type == RTM_GETLINK || head.nlmsg_type == RTM_NEWNEIGH)
                change(bytes.data() + at + sizeof head + 4);  // of ifinfomsg, and of ndmsg
        }
    }
    void lead_to_port(call& what) {
        const int now = static_cast<int>(::if_nametoindex(link_.c_str()));
        each_index(what.bytes, [&](char* place) {
            int index = 0;
            std::memcpy(&index, place, sizeof index);
            if (index == port_) std::memcpy(place, &now, sizeof now);
        });
        port_ = now;
    }

    static bool is_transaction(const sent_messages& each) {
        nlmsghdr head;
        if (each.protocol != NETLINK_NETFILTER || each.bytes.size() < sizeof head) return false;
        std::memcpy(&head, each.bytes.data(), sizeof head);
        return head.nlmsg_type == NFNL_MSG_BATCH_BEGIN;
    }
    call as_call(sent_messages recorded) const {
        call made{.protocol = recorded.protocol,
                  .is_inside = recorded.netns != sys::netns_cookie(route_.get()),
                  .bytes = std::move(recorded.bytes)};
        nlmsghdr head;
        for (std::size_t at = 0; at < made.bytes.size(); at += NLMSG_ALIGN(head.nlmsg_len)) {
            std::memcpy(&head, made.bytes.data() + at, sizeof head);
            if ((head.nlmsg_flags & NLM_F_ACK) != 0) ++made.answers;
        }
        if (made.protocol == NETLINK_ROUTE)
            each_index(made.bytes, [&](const char* place) {
                int index = 0;
                std::memcpy(&index, place, sizeof index);
                made.names_port = made.names_port || index > 0;
            });
        return made;
    }
    static void send(const call& what, const unique_fd& socket) {
        sys::check(::send(socket.get(), what.bytes.data(), what.bytes.size(), 0), "send");
        sys::check(collect_answers(socket.get(), what.answers), "what was recorded");
    }

    unique_fd route_;
    unique_fd filter_;
    std::vector<call> set_up_;
    std::vector<call> take_back_;
    call clean_;  // the rules that close it go once its interface is gone
    std::string link_;
    int port_ = 0;
};

/// The least that is a port: what bench_start has as its floor.
class unguarded_side : public endpoint_side {
  public:
    void set_up(const netns& inside) override {
        floor_.next_port(static_cast<std::uint32_t>(inside_fd));
        sys::check(floor_.add_link(), "floor: make the link");
        {
            const visit in(inside.fd());
            sys::check(floor_.configure_inside(), "floor: inside");
        }
        sys::check(floor_.publish(), "floor: publish");
    }
    void take_back() override { sys::check(floor_.remove(), "floor: take back"); }
    void clean() override { bare_side::delete_link(route_.get(), floor_.port_name()); }

  private:
    floor_network floor_;
    unique_fd route_ = bare_side::open_socket(NETLINK_ROUTE);
};

/// One endpoint in a new namespace: `first` until it is set up, `released` from there until it is taken
/// back. The namespaces go later, some of them together.
class endpoint_trial {
  public:
    sample run(endpoint_side& side) {
        if (used_.size() == 16) {
            used_.clear();  // the kernel's worker ends them; it holds the lock of all links for it
            const timespec pause{.tv_sec = 0, .tv_nsec = 100'000'000};
            ::nanosleep(&pause, nullptr);
        }
        used_.emplace_back("box-" + std::to_string(++count_));
        const netns& inside = used_.back();
        const unique_fd open(
            sys::check(::dup3(inside.fd(), endpoint_side::inside_fd, O_CLOEXEC), "dup3"));
        const std::uint64_t start = now();
        side.set_up(inside);
        const std::uint64_t done = now();
        side.take_back();
        const std::uint64_t end = now();
        side.clean();
        return {.first = static_cast<double>(done - start) / 1000,
                .released = static_cast<double>(end - done) / 1000};
    }

  private:
    std::vector<netns> used_;
    unsigned count_ = 0;
};

}  // namespace bench
