// A watch over a network's rules: what a foreign hand takes from them is noticed and put back.
//
//   auto watch = keep_rules(io, net);
//   while (auto each = co_await watch.next()) tell(each->what, each->by);
//
// The kernel tells of every change of nftables (NFNLGRP_NFTABLES) with the name of who made it. What
// this process made is passed over, and so are other processes of the same network: their rules are
// the same as these, and a container's elements are its owner's alone, so that keepers in several
// processes never answer each other. Healing is one transaction (firewall::reassert()).
// Kernel: as bridge_network.hpp. Left out: making a deleted bridge or port anew; it is told.
#pragma once

#include <linux/netfilter/nfnetlink.h>
#include <linux/rtnetlink.h>
#include <poll.h>
#include <sys/epoll.h>

#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <kumiki/async/scheduler.hpp>
#include <kumiki/async/stream.hpp>
#include <kumiki/core/unique_fd.hpp>
#include <kumiki/netlink/link_info.hpp>
#include <kumiki/netlink/multicast.hpp>
#include <kumiki/netlink/nft_value.hpp>
#include <kumiki/netlink/nft_view.hpp>
#include <kumiki/netlink/socket.hpp>
#include <kumiki/netlink/view.hpp>
#include <kumiki/network/bridge_network.hpp>
#include <kumiki/network/container_rules.hpp>
#include <kumiki/network/drift.hpp>
#include <kumiki/network/network_state.hpp>
#include <kumiki/network/policy_chain.hpp>
#include <kumiki/network/rule_snapshot.hpp>
#include <kumiki/network/ruleset.hpp>
#include <kumiki/sys/check.hpp>
#include <kumiki/sys/netns.hpp>

namespace kumiki::inline v0 {

namespace detail {

/// The state behind keep_rules().
class rule_keeper {
  public:
    explicit rule_keeper(std::shared_ptr<network_state> network)
        : network_(std::move(network)), netns_(sys::network_namespace_of(network_->route.fd())),
          rules_(
              netlink_subscription::open_in(netns_.get(), NETLINK_NETFILTER, {NFNLGRP_NFTABLES})),
          links_(netlink_subscription::open_in(netns_.get(), NETLINK_ROUTE, {RTNLGRP_LINK})),
          reader_(netlink_socket::open_in(netns_.get(), NETLINK_NETFILTER)),
          both_(sys::check(::epoll_create1(EPOLL_CLOEXEC), "watch", "a network's rules")),
          tables_(network_->options.name) {
        for (const int fd : {rules_.fd(), links_.fd()}) {
            epoll_event event{.events = EPOLLIN, .data = {.fd = fd}};
            sys::check(::epoll_ctl(both_.get(), EPOLL_CTL_ADD, fd, &event), "watch",
                       "a network's rules");
        }
        const std::lock_guard guard(network_->mutex);
        // What is learned must be what was healed: nobody may have changed anything in between.
        for (int attempt = 0; attempt < 10; ++attempt) {
            const std::uint32_t before = nft::generation(reader_);
            heal();
            as_made_ = shared_rules();
            if (nft::generation(reader_) == before + 1) break;
        }
    }

    /// Readable when there is something to look at.
    int fd() const noexcept { return both_.get(); }

    /// Looks at all that was told, heals what needs it at once, and tells the worst of it.
    std::vector<drift> look() {
        const auto begin = clock::now();
        std::vector<drift> news;
        bool lost = false;
        const auto take = [&](netlink_subscription& from, auto&& on_message) {
            for (bool some_lost = false; from.take(on_message, some_lost);)
                lost = lost || some_lost;
        };
        take(rules_, [&](const netlink_message& message) {
            auto event = nft::parse_event(message);
            if (!event) return;
            if (event->type != NFT_MSG_NEWGEN) {
                pending_.push_back(std::move(*event));
                return;
            }
            judge(event->process);
            pending_.clear();
        });
        take(links_, [&](const netlink_message& message) { judge_link(message, news); });
        if (lost) pending_.clear();
        const std::lock_guard guard(network_->mutex);
        // Another process that opens or mends the network makes the same rules anew.
        if (suspect_ && (!worst_ || worst_->kind > drift_kind::rules_changed))
            if (const auto changed = as_made_.first_difference(shared_rules()))
                worst_ = drift{drift_kind::rules_changed, *changed, *suspect_, {}};
        // It is made with the first container that has any.
        if (learns_ && !suspect_) as_made_.learn_chain(rates_chain, shared_rules());
        learns_ = learns_ && suspect_;
        suspect_.reset();
        if (worst_ || lost) heal();  // when some was lost, nobody knows what it was
        if (auto healed = std::exchange(worst_, std::nullopt)) {
            healed->healed_in = clock::now() - begin;
            news.push_back(std::move(*healed));
        }
        return news;
    }

  private:
    using clock = std::chrono::steady_clock;

    void heal() { network_->wall->reassert(); }
    rule_snapshot shared_rules() { return rule_snapshot::read(reader_, tables_); }

    bool is_ours(const nft::event& event) const {
        return event.table == tables_.inet.name &&
               (event.family == nft::family::inet || event.family == nft::family::bridge);
    }
    // One transaction of somebody's, that is over.
    void judge(const std::string& by) {
        const std::lock_guard guard(network_->mutex);
        const auto found = [&](drift_kind kind, std::string what) {
            if (!worst_ || kind < worst_->kind) worst_ = drift{kind, std::move(what), by, {}};
        };
        for (const nft::event& event : pending_) {
            if (!is_ours(event)) continue;
            learns_ = learns_ || (event.object == rates_chain && !as_made_.has_chain(rates_chain));
            if (event.sender == network_->wall->sender()) continue;
            switch (event.type) {
            case NFT_MSG_DELTABLE:
                found(drift_kind::table_gone, event.family == nft::family::inet
                                                  ? "table inet " + event.table
                                                  : "table bridge " + event.table);
                break;
            case NFT_MSG_NEWTABLE:  // also when it is switched off
                suspect_ = by;
                break;
            case NFT_MSG_DELSET:
                // Without a name of its own it goes with its rule, which is told, too.
                if (event.object.starts_with("__")) break;
                found(drift_kind::rules_changed, "set " + event.object);
                break;
            case NFT_MSG_NEWCHAIN:
            case NFT_MSG_DELCHAIN:
            case NFT_MSG_NEWRULE:
            case NFT_MSG_DELRULE:
                if (is_of_own_container(event.object))
                    found(drift_kind::rules_changed, "chain " + event.object);
                if (!container_of_chain(event.object)) suspect_ = by;
                break;
            case NFT_MSG_DELSETELEM:
                if (is_of_own_element(event))
                    found(drift_kind::element_gone, "element of " + event.object);
                break;
            default:
                break;
            }
        }
    }
    void judge_link(const netlink_message& message, std::vector<drift>& news) {
        if (message.type() != RTM_DELLINK) return;
        // With the family of bridges: a port has left its bridge, and lives on.
        const link_info gone = parse_link(message);
        const std::lock_guard guard(network_->mutex);
        if (gone.index == network_->bridge.index &&
            message.family_header<ifinfomsg>().ifi_family == AF_UNSPEC)
            news.push_back({drift_kind::bridge_gone, "bridge " + network_->bridge_name(), {}, {}});
        const auto found = network_->wall->connected().find(gone.name);
        if (found == network_->wall->connected().end() || found->second.ending ||
            told_ports_[gone.name] == gone.index)
            return;
        told_ports_[gone.name] = gone.index;
        news.push_back({drift_kind::port_gone,
                        "port " + gone.name + " of container " + found->second.container,
                        {},
                        {}});
    }

    bool is_of_own_container(std::string_view chain) const {
        const auto name = container_of_chain(chain);
        if (!name) return false;
        for (const auto& [port, rules] : network_->wall->connected())
            if (rules.container == *name) return true;
        return false;
    }
    bool is_of_own_element(const nft::event& event) const {
        for (const auto& [port, rules] : network_->wall->connected()) {
            const container_rules own(network_->wall->options(), rules);
            for (const std::string& key : event.keys)
                if (own.owns(event.object, key)) return true;
        }
        return false;
    }

    std::shared_ptr<network_state> network_;
    unique_fd netns_;
    netlink_subscription rules_;
    netlink_subscription links_;
    netlink_socket reader_;
    unique_fd both_;
    ruleset tables_;
    rule_snapshot as_made_;
    std::map<std::string, int> told_ports_;
    std::optional<drift> worst_;  // found in this look
    bool learns_ = false;
    std::optional<std::string> suspect_;  // who changed shared rules, perhaps to the same
    std::vector<nft::event> pending_;  // of a transaction whose end is not told yet
};

template <class = void>
inline stream<drift> watch_rules(scheduler& io, std::unique_ptr<rule_keeper> keeper) {
    for (;;) {
        std::vector<drift> news = keeper->look();
        for (drift& each : news) co_yield std::move(each);
        co_await io.poll(keeper->fd(), POLLIN);
    }
}

}  // namespace detail

/// Watches over the rules of a network and of the containers that this process has in it; heals,
/// then tells. What is out of order at the beginning is put in order without a word.
///
/// Nothing is healed while next() is not awaited. Flows that began while rules were missing, and
/// could not under them, are ended.
/// Errors: what keeps the rules from being put back, once: kumiki::error, `unsupported`.
template <class = void>
inline stream<drift> keep_rules(scheduler& io, const bridge_network& network) {
    return detail::watch_rules(io, std::make_unique<detail::rule_keeper>(network.attach().network));
}

}  // namespace kumiki::inline v0
