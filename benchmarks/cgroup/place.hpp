// Where bench_cgroup has its groups: below one of its own, kumiki-bench-PID, which goes with it, also after
// SIGINT or SIGTERM. And what all of its parts use: a process in a group.
#pragma once

#include <signal.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <string>
#include <string_view>
#include <vector>

#include <kumiki/cgroup/limits.hpp>
#include <kumiki/cgroup/root.hpp>
#include <kumiki/core/units.hpp>
#include <kumiki/sys/pidfd.hpp>
#include <kumiki/sys/raw.hpp>

#include "support/series.hpp"

namespace bench {

/// The limits that this host's cgroup v2 can have.
inline kumiki::resource_limits limits_for(const kumiki::cgroup_root& root) {
    using enum kumiki::controllers;
    using namespace kumiki::literals;
    if (kumiki::has(root.available(), memory | cpu | pids))
        return {.memory = 64_MiB, .cpu = kumiki::cpus(0.5), .pids = 32};
    return {.raw = {{"cgroup.max.depth", "4"}, {"cgroup.max.descendants", "8"}}};
}

/// A process that is born in a group and sleeps there until it is let go: then it writes down the time,
/// and ends.
class inmate {
  public:
    explicit inmate(const kumiki::cgroup& group)
        : go_(sys::check(::eventfd(0, EFD_CLOEXEC), "eventfd")),
          last_(static_cast<std::uint64_t*>(
              ::mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0))) {
        if (last_ == MAP_FAILED) sys::check(-1, "mmap");
        int pidfd = -1;
        const sys::clone_arguments how{.flags = sys::clone_pidfd | sys::clone_into_cgroup,
                                       .pidfd = reinterpret_cast<std::uintptr_t>(&pidfd),
                                       .exit_signal = SIGCHLD,
                                       .cgroup = static_cast<std::uint64_t>(group.fd())};
        const long pid = sys::clone_copied(how, live, this);
        if (pid < 0) throw kumiki::error(static_cast<int>(-pid), {.operation = "clone3"});
        pidfd_.reset(pidfd);
    }
    inmate(const inmate&) = delete;
    inmate& operator=(const inmate&) = delete;
    ~inmate() {
        let_go();
        sys::wait_blocking(pidfd_.get());
        ::munmap(last_, 4096);
    }
    void let_go() const { ::eventfd_write(go_.get(), 1); }
    /// The time of its last instructions, once it has ended.
    std::uint64_t last_words() const noexcept { return *last_; }

  private:
    static void live(void* given) {
        ::prctl(PR_SET_PDEATHSIG, SIGKILL);
        const auto& self = *static_cast<const inmate*>(given);
        eventfd_t go = 0;
        ::eventfd_read(self.go_.get(), &go);
        *self.last_ = now();
        ::_exit(0);
    }

    unique_fd go_;
    std::uint64_t* last_;
    unique_fd pidfd_;
};

}  // namespace bench
