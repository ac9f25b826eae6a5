// The same container from a pool that is full, and from nothing: one at a time, and as many as there
// are in a second.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

#include <kumiki/async/when.hpp>
#include <kumiki/container/pool.hpp>
#include <kumiki/network/bridge_network.hpp>

#include "field.hpp"
#include "ours.hpp"

namespace bench {

/// The container of kumiki_start, on a scheduler of its own, from nothing or from a pool.
class pooled_start {
  public:
    pooled_start(const place& where, bool networked)
        : spec_(kumiki_start(where).spec({"/bin/payload"}, kumiki::stdio::null())) {
        spec_.process.stdio.fill(kumiki::stdio::null());
        if (!networked) return;
        using namespace kumiki::literals;
        network_.emplace(
            kumiki::bridge_network::open({.name = "bench",
                                          .subnet = "10.78.0.0/16"_cidr,
                                          .subnet6 = "fd00:78::/64"_cidr,
                                          .state_directory = where.directory() + "/state"}));
        // A port that the kernel picks: each container has its own.
        spec_.network =
            network_->attach({.publish = {{.container = {80, 80}}}, .egress = kumiki::deny_all()});
    }

    sample cold() { return io_.run(once(this, nullptr)); }
    /// From a pool that is full.
    sample warm() {
        make_pool(4);
        io_.run(pool_->filled());
        return io_.run(once(this, &*pool_));
    }

    /// Containers a second, `at_once` at a time, everything included: started, ended, released.
    /// `pool`: how many are ready before the clock runs; none: cold ones.
    double rate(std::size_t count, std::size_t at_once, std::optional<std::size_t> pool,
                std::size_t makers) {
        pool_.reset();
        if (pool) {
            make_pool(*pool, makers);
            io_.run(pool_->filled());
        }
        left_ = count;
        const std::uint64_t start = now();
        std::vector<kumiki::task<void>> workers;
        for (std::size_t i = 0; i < at_once; ++i)
            workers.push_back(work(this, pool ? &*pool_ : nullptr));
        io_.run(all(std::move(workers)));
        const auto took = static_cast<double>(now() - start) / 1e9;
        pool_.reset();
        return static_cast<double>(count) / took;
    }

  private:
    void make_pool(std::size_t ready, std::size_t makers = 2) {
        if (!pool_)
            pool_.emplace(io_, spec_, kumiki::pool_options{.ready = ready, .at_once = makers});
    }

    static kumiki::task<sample> once(pooled_start* self, kumiki::container_pool* pool) {
        stamp_pipe output;
        const std::uint64_t start = now();
        std::uint64_t first = 0;
        {
            std::optional<kumiki::container> box;
            if (pool != nullptr) {
                kumiki::command_changes changes;
                changes.stdio = {kumiki::stdio::null(), output.write_end(), kumiki::stdio::null()};
                auto started = co_await pool->start(std::move(changes));
                box.emplace(std::move(started));
            } else {
                kumiki::container_spec spec = self->spec_;
                spec.process.stdio = {kumiki::stdio::null(), output.write_end(),
                                      kumiki::stdio::null()};
                auto started = co_await kumiki::container::start(self->io_, std::move(spec));
                box.emplace(std::move(started));
            }
            first = output.wait();
            co_await ended(*box);
        }
        const std::uint64_t end = now();
        co_return sample{.first = static_cast<double>(first - start) / 1000,
                         .released = static_cast<double>(end - start) / 1000};
    }
    static kumiki::task<void> ended(kumiki::container& box) {
        auto result = co_await box.wait();
        if (result.exit_code() != 0)
            throw kumiki::error(
                0, {.operation = "run", .object = "the payload", .remedy = "It must end with 0."});
    }
    static kumiki::task<void> work(pooled_start* self, kumiki::container_pool* pool) {
        while (self->left_ > 0 && interrupted == 0) {
            --self->left_;
            if (pool != nullptr) {
                auto box = co_await pool->start();
                co_await ended(box);
            } else {
                auto box = co_await kumiki::container::start(self->io_, self->spec_);
                co_await ended(box);
            }
        }
    }
    static kumiki::task<void> all(std::vector<kumiki::task<void>> workers) {
        co_await kumiki::when_all(std::move(workers));
    }

    kumiki::scheduler io_;
    std::optional<kumiki::bridge_network> network_;
    kumiki::container_spec spec_;
    std::optional<kumiki::container_pool> pool_;
    std::size_t left_ = 0;
};

}  // namespace bench
