// What is left of endpoints is removed behind their owners' backs: the veth pair, then its rules and
// the tracked flows. RTM_DELLINK answers only once no reader in the kernel can still see the device
// (an rcu_barrier: 10 to 20 ms), and ending flows walks a table of all of them; whoever waits for the
// end of a container has nothing to wait for there, for nothing leads into it and it may begin nothing.
// The addresses are nobody else's until it is done. One thread, started with the first.
#pragma once

#include <signal.h>

#include <condition_variable>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include <kumiki/core/error.hpp>
#include <kumiki/core/observer.hpp>
#include <kumiki/core/scope_exit.hpp>
#include <kumiki/netlink/link.hpp>
#include <kumiki/netlink/socket.hpp>
#include <kumiki/network/end_flows.hpp>
#include <kumiki/network/firewall.hpp>
#include <kumiki/network/firewall_rules.hpp>
#include <kumiki/network/leases.hpp>

namespace kumiki::inline v0::detail {

/// What an endpoint leaves.
struct endpoint_remains {
    firewall_rules rules;  ///< as firewall::close() left them
    std::string shaper = {};  ///< of what came from the container; may be empty
    address_lease lease4;
    std::optional<address_lease> lease6 = {};
};

/// Removes the remains of endpoints of one network.
class endpoint_remover {
  public:
    /// The sockets are of the network's namespace; the firewall is used with `mutex` held.
    endpoint_remover(netlink_socket route, netlink_socket netfilter, firewall& wall,
                     std::mutex& mutex)
        : route_(std::move(route)), netfilter_(std::move(netfilter)), wall_(wall), of_wall_(mutex) {
    }
    endpoint_remover(const endpoint_remover&) = delete;
    endpoint_remover& operator=(const endpoint_remover&) = delete;
    /// Waits until all that was asked for is done.
    ~endpoint_remover() {
        {
            const std::lock_guard guard(mutex_);
            closing_ = true;
        }
        changed_.notify_all();
        if (thread_.joinable()) thread_.join();
    }

    /// That something of it is gone already is no error; failures are told to the observer.
    void remove(endpoint_remains remains) {
        {
            const std::lock_guard guard(mutex_);
            if (!thread_.joinable()) start();
            waiting_.push_back(std::move(remains));
        }
        changed_.notify_all();
    }
    /// Waits until all that was asked for before is done.
    void drain() {
        std::unique_lock hold(mutex_);
        changed_.wait(hold, [this] { return waiting_.empty() && !busy_; });
    }

  private:
    void start() {
        sigset_t all;
        sigset_t before;
        ::sigfillset(&all);
        ::pthread_sigmask(SIG_SETMASK, &all, &before);  // inherited: signals are for other threads
        const scope_exit restore(
            [&]() noexcept { ::pthread_sigmask(SIG_SETMASK, &before, nullptr); });
        thread_ = std::thread([this] { serve(); });
    }
    void serve() noexcept {
        std::unique_lock hold(mutex_);
        for (;;) {
            changed_.wait(hold, [this] { return closing_ || !waiting_.empty(); });
            if (waiting_.empty()) return;
            std::vector<endpoint_remains> jobs = std::exchange(waiting_, {});
            busy_ = true;
            hold.unlock();
            release_quietly([&] { delete_links(jobs); });
            for (const endpoint_remains& each : jobs) release_quietly([&] { disconnect(each); });
            jobs.clear();
            hold.lock();
            busy_ = false;
            changed_.notify_all();
        }
    }
    void disconnect(const endpoint_remains& remains) {
        {
            const std::lock_guard guard(of_wall_);
            wall_.take_back(remains.rules);
        }
        end_all_flows(netfilter_, remains.rules.addresses);
    }
    void delete_links(const std::vector<endpoint_remains>& jobs) {
        netlink_batch batch;
        for (const endpoint_remains& each : jobs) {
            delete_link(batch, each.rules.port);
            if (!each.shaper.empty()) delete_link(batch, each.shaper);
        }
        for (const netlink_failure& failure : route_.submit(batch))
            if (failure.code != ENODEV) report_release_failure(to_error(batch, failure));
    }

    netlink_socket route_;
    netlink_socket netfilter_;
    firewall& wall_;
    std::mutex& of_wall_;
    std::mutex mutex_;
    std::condition_variable changed_;
    std::vector<endpoint_remains> waiting_;
    bool busy_ = false;
    bool closing_ = false;
    std::thread thread_;
};

}  // namespace kumiki::inline v0::detail
