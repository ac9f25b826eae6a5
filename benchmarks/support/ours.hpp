// kumiki as its users start containers: the same configuration as the floor, through the library.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <kumiki/container/container.hpp>
#include <kumiki/network/bridge_network.hpp>
#include <kumiki/security/process_status.hpp>

#include "level.hpp"
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
    sample run(bool networked) {
        return run(networked ? level::port : level::cgroup, level::security);
    }
    /// The same without what belongs to the levels above `upto`. The smallest that there is has a
    /// plain directory as its root, and a group.
    sample run(level upto) { return run(upto, upto); }

    /// The timeline of the last start.
    const kumiki::timeline& line() const noexcept { return line_; }
    /// When that start was called, and when it returned: CLOCK_MONOTONIC, nanoseconds.
    std::pair<std::uint64_t, std::uint64_t> call() const noexcept { return call_; }
    kumiki::scheduler& io() noexcept { return io_; }
    /// What is started, without a network: `command` behind all of the security profile.
    kumiki::container_spec spec(std::vector<std::string> command, kumiki::stdio output) const {
        return {.rootfs = kumiki::rootfs::overlay(where_->rootfs()),
                .process = {.args = std::move(command),
                            .env = {"PATH=/bin"},
                            .stdio = {STDIN_FILENO, output, STDERR_FILENO}},
                .limits = limits_,
                .hostname = "bench"};
    }

  private:
    static kumiki::resource_limits limits_of(const std::string& group) {
        using namespace kumiki::literals;
        kumiki::resource_limits set;
        if (fs::exists(group + "/memory.max")) set.memory = 256_MiB;
        if (fs::exists(group + "/cpu.max")) set.cpu = kumiki::cpus(2);
        if (fs::exists(group + "/pids.max")) set.pids = 64;
        return set;
    }

    sample run(level network, level rest) { return io_.run(once(this, network, rest)); }

    static kumiki::task<sample> once(kumiki_start* self, level network, level rest) {
        using namespace kumiki::literals;
        const bool networked = network >= level::network;
        if (networked && !self->network_)
            self->network_.emplace(kumiki::bridge_network::open(
                {.name = "bench",
                 .subnet = "10.78.0.0/24"_cidr,
                 .subnet6 = "fd00:78::/64"_cidr,
                 .state_directory = self->where_->directory() + "/state"}));
        stamp_pipe output;
        const std::uint64_t start = now();
        kumiki::container_spec spec = self->spec({"/bin/payload"}, output.write_end());
        if (rest < level::rootfs) spec.rootfs = kumiki::rootfs::directory(self->where_->rootfs());
        if (rest < level::cgroup) {
            spec.limits = {};
            spec.namespaces = spec.namespaces & ~kumiki::namespace_kind::cgroup;
        }
        if (rest < level::security) {
            spec.system_paths = kumiki::system_paths_mode::open;
            spec.process.capabilities = self->own_;
            spec.process.no_new_privs = false;
            spec.process.filter = nullptr;
        }
        if (networked) {
            kumiki::attach_options wanted;
            if (network >= level::port) wanted.publish = {kumiki::tcp(8080, 80)};
            spec.network = self->network_->attach(std::move(wanted));
        }
        std::uint64_t first = 0;
        {
            self->call_.first = now();
            auto box = co_await kumiki::container::start(self->io_, std::move(spec));
            self->call_.second = now();
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
    kumiki::capability_set own_ =
        kumiki::read_process_status(::getpid()).value().capabilities.permitted;
    kumiki::scheduler io_;
    std::optional<kumiki::bridge_network> network_;
    kumiki::timeline line_;
    std::pair<std::uint64_t, std::uint64_t> call_{};
};

}  // namespace bench
