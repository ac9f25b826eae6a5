// kumiki as its users start containers: the same configuration as the floor, through the library.
#pragma once

#include <array>
#include <optional>
#include <string>
#include <utility>

#include <kumiki/container/container.hpp>
#include <kumiki/network/bridge_network.hpp>

#include "place.hpp"

namespace bench {

/// Starts containers by the library, on a scheduler of its own.
class kumiki_start {
  public:
    explicit kumiki_start(const place& where) : where_(&where) {
        fs::create_directory(where.cgroup() + "/probe");
        limits_ = limits_of(where.cgroup() + "/probe");
        fs::remove(where.cgroup() + "/probe");
    }

    /// One container from nothing to nothing. `networked`: with the port 8080 published as 80.
    sample run(bool networked) { return io_.run(once(this, networked)); }

    /// The timeline of the last start.
    const kumiki::timeline& line() const noexcept { return line_; }

  private:
    static kumiki::resource_limits limits_of(const std::string& group) {
        using namespace kumiki::literals;
        kumiki::resource_limits set;
        if (fs::exists(group + "/memory.max")) set.memory = 256_MiB;
        if (fs::exists(group + "/cpu.max")) set.cpu = kumiki::cpus(2);
        if (fs::exists(group + "/pids.max")) set.pids = 64;
        return set;
    }

    static kumiki::task<sample> once(kumiki_start* self, bool networked) {
        using namespace kumiki::literals;
        if (networked && !self->network_)
            self->network_.emplace(kumiki::bridge_network::open(
                {.name = "bench",
                 .subnet = "10.78.0.0/24"_cidr,
                 .subnet6 = "fd00:78::/64"_cidr,
                 .state_directory = self->where_->directory() + "/state"}));
        stamp_pipe output;
        const std::uint64_t start = now();
        kumiki::container_spec spec{
            .rootfs = kumiki::rootfs::overlay(self->where_->rootfs()),
            .process = {.args = {"/bin/payload"},
                        .env = {"PATH=/bin"},
                        .stdio = {STDIN_FILENO, output.write_end(), STDERR_FILENO}},
            .limits = self->limits_,
            .hostname = "bench"};
        if (networked) spec.network = self->network_->attach({.publish = {kumiki::tcp(8080, 80)}});
        std::uint64_t first = 0;
        {
            auto box = co_await kumiki::container::start(self->io_, std::move(spec));
            first = output.wait();
            auto result = co_await box.wait();
            if (result.exit_code() != 0)
                throw kumiki::error(0, {.operation = "run",
                                        .object = "the payload",
                                        .remedy = "It ended with a status that is not 0."});
            self->line_ = box.start_timeline();
        }
        const std::uint64_t end = now();
        co_return sample{.first = static_cast<double>(first - start) / 1000,
                         .released = static_cast<double>(end - start) / 1000};
    }

    const place* where_;
    kumiki::resource_limits limits_;
    kumiki::scheduler io_;
    std::optional<kumiki::bridge_network> network_;
    kumiki::timeline line_;
};

}  // namespace bench
