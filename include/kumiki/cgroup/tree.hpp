// What cgroup.hpp does with whole subtrees of groups, on plain directory descriptors: list, read,
// await, kill without cgroup.kill, remove from the leaves up.
//
// Internal (detail). A group can vanish at any time: that is an answer here, not a failure. Both
// shapes of it are expected: ENOENT on opening a file, ENODEV on reading one that was open.
#pragma once

#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/types.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <iterator>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <kumiki/core/error.hpp>
#include <kumiki/core/observer.hpp>
#include <kumiki/core/scope_exit.hpp>
#include <kumiki/core/text.hpp>
#include <kumiki/core/unique_fd.hpp>
#include <kumiki/sys/check.hpp>
#include <kumiki/sys/file.hpp>
#include <kumiki/sys/pidfd.hpp>

namespace kumiki::inline v0::detail {

/// The text of a control file; nothing when the file or the group is not there.
inline std::optional<std::string> try_read_control(int group, const std::string& key) {
    try {
        return sys::try_read_file_at(group, key);
    } catch (const error& failure) {
        if (failure.errno_value() == ENODEV) return std::nullopt;
        throw;
    }
}

/// The names of the groups directly below.
inline std::vector<std::string> child_groups(int group) {
    std::vector<std::string> names;
    auto copy = sys::try_open_at(group, ".", O_RDONLY | O_DIRECTORY);
    if (!copy) return names;
    DIR* const listing = ::fdopendir(copy->get());
    sys::check(listing == nullptr ? -1 : 0, "read the directory of a control group");
    static_cast<void>(copy->release());
    const scope_exit close([&]() noexcept { ::closedir(listing); });
    while (const dirent* entry = ::readdir(listing))
        if (entry->d_type == DT_DIR && is_path_component(entry->d_name))
            names.emplace_back(entry->d_name);
    return names;
}

/// Adds the processes of the group and of all groups below it.
inline void collect_processes(int group, std::vector<pid_t>& into) {
    const auto text = try_read_control(group, "cgroup.procs");
    std::string_view rest = text ? std::string_view(*text) : std::string_view();
    while (const auto line = next_field(rest, '\n'))
        // 0 stands for a process that the caller's pid namespace does not have.
        if (const auto pid = parse_number<pid_t>(*line); pid && *pid > 0) into.push_back(*pid);
    for (const auto& name : child_groups(group))
        if (const auto child = sys::try_open_at(group, name, O_PATH | O_DIRECTORY))
            collect_processes(child->get(), into);
}

/// Waits until cgroup.events says `value` for the key, or the group is gone, which counts as all
/// zeros; false when `patience` is over before.
inline bool wait_for_event(int group, const std::string& shown, std::string_view key,
                           std::uint64_t value, std::chrono::milliseconds patience) {
    const auto until = std::chrono::steady_clock::now() + patience;
    const auto file = sys::try_open_at(group, "cgroup.events", O_RDONLY);
    if (!file) return value == 0;
    for (;;) {
        // Read before each wait: a change after the read makes the poll return.
        char text[256];
        const auto size = ::pread(file->get(), text, sizeof text, 0);
        if (size < 0 && errno == ENODEV) return value == 0;
        sys::check(size, "read the events of", shown);
        const std::string_view read(text, static_cast<std::size_t>(size));
        if (flat_value(read, key).value_or(0) == value) return true;
        const auto left =
            std::chrono::ceil<std::chrono::milliseconds>(until - std::chrono::steady_clock::now());
        if (left.count() <= 0) return false;
        pollfd wait{.fd = file->get(), .events = POLLPRI, .revents = 0};
        ::poll(&wait, 1, static_cast<int>(std::min<std::int64_t>(left.count(), 1'000'000)));
    }
}

/// SIGKILL to each of the processes that is still in the subtree when it is held by a pidfd, so
/// that no other process of the same number is hit; few at a time, for the descriptors.
/// Returns the first failure but ESRCH; the others are signalled all the same.
inline std::exception_ptr kill_listed(int group, const std::vector<pid_t>& listed) {
    std::exception_ptr first;
    for (auto next = listed.begin(); next != listed.end();) {
        std::vector<std::pair<pid_t, unique_fd>> held;
        // No descriptor left: first those that are held, and the listing takes some, too.
        const auto give_some_back = [&](int code) {
            constexpr std::ptrdiff_t spare = 8;
            if ((code != EMFILE && code != ENFILE) || std::ssize(held) <= spare) return false;
            next = std::find(listed.begin(), next, (held.end() - spare)->first);
            held.erase(held.end() - spare, held.end());
            return true;
        };
        for (; next != listed.end() && held.size() < 128; ++next) {
            try {
                held.emplace_back(*next, sys::open_pidfd(*next));
            } catch (const error& failure) {
                if (failure.errno_value() == ESRCH) continue;
                if (!give_some_back(failure.errno_value())) throw;
                break;
            }
        }
        std::vector<pid_t> now;
        for (bool listed_anew = false; !listed_anew;) {
            try {
                now.clear();
                collect_processes(group, now);
                listed_anew = true;
            } catch (const error& failure) {
                if (!give_some_back(failure.errno_value())) throw;
            }
        }
        const std::set<pid_t> still(now.begin(), now.end());
        for (const auto& [pid, fd] : held) {
            try {
                if (still.count(pid) != 0) sys::send_signal(fd.get(), SIGKILL);
            } catch (const error&) {
                if (!first) first = std::current_exception();
            }
        }
    }
    return first;
}

/// SIGKILL to every process of the subtree, for kernels without cgroup.kill (before 5.14).
///
/// Frozen meanwhile, so that a fork bomb comes to rest; SIGKILL works on frozen processes. A
/// process that has the signal cannot fork any more: so all are ending as soon as a list has nobody
/// new. Some more lists are awaited, as a number can be used again.
/// Errors: EPERM for a process of another user, after all others were signalled; EBUSY when new
/// ones came without an end, as on a kernel without a freezer (before 5.2).
inline void kill_by_signals(int group) {
    const auto freeze = [&](const char* value) {
        release_quietly([&] {
            if (try_read_control(group, "cgroup.freeze"))
                sys::write_file_at(group, "cgroup.freeze", value);
        });
    };
    freeze("1");
    const scope_exit thaw([&]() noexcept { freeze("0"); });
    std::set<pid_t> seen;
    std::exception_ptr failure;
    for (int round = 0, quiet = 0; quiet < 4; ++round) {
        std::vector<pid_t> listed;
        collect_processes(group, listed);
        if (listed.empty()) return;
        const auto before = seen.size();
        seen.insert(listed.begin(), listed.end());
        quiet = seen.size() == before ? quiet + 1 : 0;
        failure = kill_listed(group, listed);
        if (round == 2000)
            throw error(EBUSY, {.operation = "kill all processes of a control group",
                                .remedy = "They start new ones faster than they can be ended."});
        ::poll(nullptr, 0, 1);
    }
    if (failure) std::rethrow_exception(failure);
}

/// rmdir(2) of a group: true when it is gone, false when processes or groups are in it.
inline bool try_remove_group(int directory, const std::string& path_from_there,
                             const std::string& shown) {
    const int result = ::unlinkat(directory, path_from_there.c_str(), AT_REMOVEDIR);
    if (result == 0 || errno == ENOENT || errno == ENODEV) return true;
    if (errno == EBUSY || errno == ENOTEMPTY) return false;
    sys::check(result, "remove control group", shown);
    return false;
}

/// Removes the groups below, from the leaves up; false when there are processes in any.
inline bool remove_groups_below(int group, const std::string& shown) {
    bool all = true;
    for (const auto& name : child_groups(group)) {
        const std::string path = shown + '/' + name;
        if (try_remove_group(group, name, path)) continue;
        const auto child = sys::try_open_at(group, name, O_PATH | O_DIRECTORY);
        if (!child) continue;
        if (!remove_groups_below(child->get(), path) || !try_remove_group(group, name, path))
            all = false;
    }
    return all;
}

/// Calls `try_remove` until it has removed the group; waits for processes that are just ending.
/// Errors: EBUSY after `patience`, with the processes that are left.
template <class TryRemove>
void remove_within(int group, const std::string& shown, std::chrono::milliseconds patience,
                   TryRemove try_remove) {
    const auto until = std::chrono::steady_clock::now() + patience;
    // The kernel tells of an empty group at most every 10 ms, and a group can be busy for a moment
    // longer than it is populated: so ask again, ever more rarely, until an event or the end.
    constexpr std::chrono::milliseconds longest(64);
    for (std::chrono::milliseconds pause(1); !try_remove(); pause = std::min(2 * pause, longest)) {
        const auto left =
            std::chrono::ceil<std::chrono::milliseconds>(until - std::chrono::steady_clock::now());
        if (left.count() <= 0) {
            std::vector<pid_t> processes;
            collect_processes(group, processes);
            std::string text;
            for (const pid_t pid : processes) text += ' ' + std::to_string(pid);
            throw error(EBUSY, {.operation = "remove control group",
                                .object = shown,
                                .remedy = text.empty() ? "It has no process that can be seen here."
                                                       : "These processes are in it:" + text});
        }
        const auto nap = std::min(pause, left);
        if (!wait_for_event(group, shown, "populated", 0, nap)) continue;
        if (try_remove()) return;
        ::poll(nullptr, 0, static_cast<int>(nap.count()));
    }
}

}  // namespace kumiki::inline v0::detail
