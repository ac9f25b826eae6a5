// What the kernel knows of the process beside its identity, as steps: session keyring, kernel
// parameters, scheduling, priorities, processors, personality.
#pragma once

#include <fcntl.h>
#include <linux/keyctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <string>
#include <vector>

#include <kumiki/container/plan.hpp>
#include <kumiki/container/process_spec.hpp>
#include <kumiki/container/sysctl.hpp>

namespace kumiki::inline v0::detail {

/// Whether this process may use keyrings: not without CONFIG_KEYS, nor under the filter of most
/// container engines, which a container of ours inherits.
inline bool has_keyrings() {
    static const bool known = [] {
        const long found =
            ::syscall(SYS_keyctl, KEYCTL_GET_KEYRING_ID, KEY_SPEC_PROCESS_KEYRING, 0);
        return found >= 0 || (errno != ENOSYS && errno != EPERM);
    }();
    return known;
}

/// Nameless: a name could be that of somebody's keyring, which would be joined. While the child is
/// still the host's root, so that no quota of a container's user counts it.
inline void encode_keyring(plan& to, const process_spec& process) {
    if (process.session_keyring && has_keyrings())
        to.call("a session keyring", SYS_keyctl, {KEYCTL_JOIN_SESSION_KEYRING, 0});
}

/// Through the container's own procfs, on which nothing else is mounted yet.
inline void encode_sysctls(plan& to, const std::vector<sysctl_setting>& settings, operand proc) {
    if (settings.empty()) return;
    to.begin(phase::sysctl);
    const slot file = to.new_slot();
    const sys::open_how* how =
        to.object(sys::open_how{.flags = O_WRONLY | O_CLOEXEC,
                                .resolve = sys::resolve_beneath | sys::resolve_no_symlinks |
                                           sys::resolve_no_magiclinks | sys::resolve_no_xdev});
    for (const sysctl_setting& each : settings) {
        const std::string path = sysctl_path(each);
        const char* shown = to.text(path);
        to.call(shown, sys::nr_openat2, {proc, to.text("sys/" + path), how, sizeof *how})
            .into(file);
        to.call(shown, SYS_write, {file, to.text(each.value), each.value.size()});
        to.call(shown, SYS_close, {file});
    }
}

/// While CAP_SYS_NICE is still there.
inline void encode_scheduling(plan& to, const process_spec& process) {
    if (!process.processors.empty()) {
        const std::vector<unsigned long> mask = make_affinity_mask(process.processors);
        to.call("the processors", SYS_sched_setaffinity,
                {0, mask.size() * sizeof mask[0], to.array(mask.data(), mask.size())});
    }
    if (process.io_priority) {
        constexpr int of_process = 1;
        to.call(
            "the I/O priority", SYS_ioprio_set,
            {of_process, 0,
             static_cast<unsigned>(process.io_priority->which) << 13 | process.io_priority->level});
    }
    if (process.scheduling) {
        const int nice = process.nice.value_or(::getpriority(PRIO_PROCESS, 0));
        to.call("the scheduling policy", SYS_sched_setattr,
                {0, to.object(make_sched_payload(*process.scheduling, nice)), 0});
    }
    if (process.nice)
        to.call("the nice value", SYS_setpriority, {int{PRIO_PROCESS}, 0, *process.nice});
    if (process.personality)
        to.call("the personality", SYS_personality, {to_underlying(*process.personality)});
}

}  // namespace kumiki::inline v0::detail
