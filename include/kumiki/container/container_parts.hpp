// All that a running container holds, and the control group that it begins with.
#pragma once

#include <signal.h>
#include <sys/types.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <kumiki/cgroup/cgroup.hpp>
#include <kumiki/cgroup/root.hpp>
#include <kumiki/container/process_reaper.hpp>
#include <kumiki/container/result.hpp>
#include <kumiki/container/rootless.hpp>
#include <kumiki/container/spec.hpp>
#include <kumiki/container/standard_pipes.hpp>
#include <kumiki/container/timeline.hpp>
#include <kumiki/core/observer.hpp>
#include <kumiki/core/unique_fd.hpp>
#include <kumiki/network/endpoint.hpp>
#include <kumiki/network/moved_link.hpp>
#include <kumiki/security/seccomp_listener.hpp>
#include <kumiki/sys/pidfd.hpp>

namespace kumiki::inline v0::detail {

/// All that a running container holds; released in the reverse order of acquisition.
struct container_parts {
    std::string name;
    cgroup group;
    std::optional<endpoint> attached;
    std::vector<moved_link> devices;  ///< of a container that is in no network
    unique_fd terminal;
    std::unique_ptr<seccomp_listener> calls;
    standard_pipes pipes;
    unique_fd init;  ///< what its init says at the end
    unique_fd waiter;  ///< over which it gets its command, while it is ready (waiter.hpp)
    pid_t pid = 0;
    unique_fd pidfd;
    timeline line;
    std::int64_t executed = 0;  ///< right before its execve, as timeline::now()
    std::optional<container_result> result;
    namespace_kind kinds = namespace_kind::none;  ///< those of its own
    std::vector<unique_fd> claims;  ///< on directories of the host that only it may write to
    std::optional<user_mapping> users;
    process_spec process;  ///< what its first process was started as
    std::chrono::milliseconds start_limit{0};
    start_privileges caller{};
    process_reaper reaper;  ///< of those that entered it

    /// Ends a container that nobody has waited for.
    void kill_and_release() {
        if (pidfd && !result) {
            if (group) group.kill();
            sys::send_signal(pidfd.get(), SIGKILL);
            reaper.kill();
            sys::wait_blocking(pidfd.get());
        }
        pidfd.reset();
        release();
    }
    /// Called when no process of it runs any more, more than once if need be. What fails is told to
    /// the observer.
    void release() {
        release_network();
        release_quietly([&] {
            if (group) group.destroy();
            group = cgroup();
        });
        claims.clear();
    }
    /// Without waiting for the interface's end, which the network sees to.
    void release_network() {
        devices.clear();
        if (!attached) return;
        release_quietly([&] { attached->disconnect_soon(); });
        attached.reset();
    }
};

/// The group below which this process makes the groups of its containers.
inline cgroup make_container_group(const std::string& name, const resource_limits& limits) {
    static std::mutex one_at_a_time;
    static std::optional<cgroup_root> root;
    static std::pair<pid_t, uid_t> opened_by;
    const std::lock_guard hold(one_at_a_time);
    // A fork that has become somebody else has another place for its groups.
    const std::pair<pid_t, uid_t> self{::getpid(), ::geteuid()};
    if (root && opened_by != self) root.reset();
    if (!root) root.emplace(cgroup_root::open());
    opened_by = self;
    return root->create(name, limits);
}

/// The group of a container that is started with `caller`'s privileges. An ordinary user without a
/// delegated group has none, and then no limits.
inline cgroup make_group_for(const start_privileges& caller, const std::string& name,
                             const container_spec& spec) {
    if (!caller.unprivileged) return make_container_group(name, spec.limits);
    try {
        return make_container_group(name, spec.limits);
    } catch (const error& failure) {
        // All of its processes must go with the first: without a group, by the pid namespace.
        const bool can_be_without =
            settings_of(spec.limits).empty() && has(spec.all_namespaces(), namespace_kind::pid);
        const int code = failure.errno_value();
        const bool is_not_ours = dynamic_cast<const unsupported*>(&failure) != nullptr ||
                                 code == EACCES || code == EPERM || code == EROFS;
        if (!can_be_without || !is_not_ours) throw;
        return {};
    }
}

}  // namespace kumiki::inline v0::detail
