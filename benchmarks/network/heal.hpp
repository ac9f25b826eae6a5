// A foreign `flush ruleset`, and how long a host is without its rules until keep_rules() has put them back:
// as a stranger sees it, who made the one change and is told of the other.
#pragma once

#include <arpa/inet.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <poll.h>

#include <atomic>
#include <memory>
#include <stdexcept>
#include <stop_token>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include <kumiki/network/endpoint.hpp>
#include <kumiki/network/rule_keeper.hpp>

#include "network/hosts.hpp"

namespace bench {

/// A host with `containers` in kumiki's network "many", and a thread that keeps the rules.
class kept_host {
  public:
    kept_host(const network_place& where, std::size_t containers)
        : host_(where, fmt::format("kept-{}", containers), 0),
          events_(kumiki::netlink_subscription::open_in(netns(), NETLINK_NETFILTER,
                                                        {NFNLGRP_NFTABLES})),
          stranger_(kumiki::netlink_socket::open_in(netns(), NETLINK_NETFILTER)) {
        for (std::size_t i = 0; i < containers; ++i) {
            inside_.emplace_back(fmt::format("kept-{}-{}", containers, i));
            const auto port = static_cast<std::uint16_t>(8080 + i);
            links_.push_back(host_.connect(inside_.back(), {kumiki::tcp(port, 80)}));
        }
        keeper_ = std::jthread([this](const std::stop_token& stop) { keep(stop); });
        keeps_.wait(false);
        as_made_ = count();
    }

    /// Microseconds from the send to the end of the transaction that brings all back. Errors: what
    /// came back is not what there was.
    double flush() {
        skip_events();
        const unsigned healed = healed_;
        kumiki::netlink_batch change = flush_message();
        const std::uint64_t start = now();
        stranger_.transact(change);
        wait_for_tables();
        const double time = static_cast<double>(now() - start) / 1000;
        healed_.wait(healed);
        if (count() != as_made_)
            throw std::runtime_error(fmt::format("the rules are not back: {} and {}, of {} and {}",
                                                 count().first, count().second, as_made_.first,
                                                 as_made_.second));
        return time;
    }

  private:
    int netns() const noexcept { return host_.namespaces().host.fd(); }

    static kumiki::task<void> tell(kumiki::stream<kumiki::drift> watch,
                                   std::atomic<unsigned>& healed) {
        for (;;) {
            const auto each = co_await watch.next();
            if (!each) co_return;
            ++healed;
            healed.notify_one();
        }
    }
    void keep(const std::stop_token& stop) {
        kumiki::scheduler io;
        auto watch = kumiki::keep_rules(io, host_.network());
        keeps_ = true;
        keeps_.notify_one();
        try {
            io.run(tell(std::move(watch), healed_), stop);
        } catch (const kumiki::cancelled&) {}
    }

    // What `nft flush ruleset` sends: the removal of tables without a name or family.
    static kumiki::netlink_batch flush_message() {
        const auto head = [](std::uint16_t of) {
            return nfgenmsg{AF_UNSPEC, NFNETLINK_V0, htons(of)};
        };
        kumiki::netlink_batch made;
        made.add(NFNL_MSG_BATCH_BEGIN, 0, head(NFNL_SUBSYS_NFTABLES), {"begin", "flush"});
        made.add(NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_DELTABLE, NLM_F_ACK, head(0),
                 {"flush", "ruleset"});
        made.add(NFNL_MSG_BATCH_END, 0, head(NFNL_SUBSYS_NFTABLES), {"end", "flush"});
        return made;
    }
    void skip_events() {
        for (bool lost = false; events_.take([](const kumiki::netlink_message&) {}, lost);) {}
    }
    // Both tables, of inet and of bridge, and the end of their transaction.
    void wait_for_tables() {
        int tables = 0;
        for (bool is_over = false; !is_over;) {
            pollfd one{.fd = events_.fd(), .events = POLLIN, .revents = 0};
            if (::poll(&one, 1, 10'000) != 1) throw std::runtime_error("the rules stay away");
            bool lost = false;
            const auto look = [&](const kumiki::netlink_message& message) {
                const int type = message.type() & 0xff;
                if (type == NFT_MSG_NEWTABLE) ++tables;
                if (type == NFT_MSG_NEWGEN && tables >= 2) is_over = true;
            };
            while (!is_over && events_.take(look, lost)) {}
        }
    }
    // Rules, and elements of the sets that containers are in.
    std::pair<std::size_t, std::size_t> count() {
        const kumiki::detail::ruleset tables("many");
        std::size_t elements = 0;
        for (const auto family : kumiki::detail::both_families)
            for (const auto& set : {kumiki::detail::ruleset::publish_any(family),
                                    kumiki::detail::ruleset::egress(family)})
                elements += kumiki::nft::list_elements(stranger_, tables.inet, set.name).size();
        return {kumiki::nft::list_rules(stranger_, tables.inet).size() +
                    kumiki::nft::list_rules(stranger_, tables.bridge).size(),
                elements};
    }

    kumiki_host host_;
    kumiki::netlink_subscription events_;
    kumiki::netlink_socket stranger_;
    std::vector<class netns> inside_;
    std::vector<kumiki::endpoint> links_;
    std::pair<std::size_t, std::size_t> as_made_;
    std::atomic<bool> keeps_ = false;
    std::atomic<unsigned> healed_ = 0;
    std::jthread keeper_;  // ends first
};

}  // namespace bench
