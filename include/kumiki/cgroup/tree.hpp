// What cgroup.hpp does with whole subtrees of groups, on plain directory descriptors: list, read,
// kill without cgroup.kill, remove from the leaves up; and the likely causes of refused writes.
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
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <kumiki/cgroup/controller.hpp>
#include <kumiki/core/error.hpp>
#include <kumiki/core/observer.hpp>
#include <kumiki/core/scope_exit.hpp>
#include <kumiki/core/text.hpp>
#include <kumiki/core/unique_fd.hpp>
#include <kumiki/sys/check.hpp>
#include <kumiki/sys/file.hpp>
#include <kumiki/sys/pidfd.hpp>

namespace kumiki::inline v0::detail {

/// Refuses what cannot be, or should not be, the name of a group.
inline void require_group_name(std::string_view name) {
    if (!is_path_component(name))
        throw invalid_input("cgroup name", name,
                            "It must be one part of a path: 1 to 255 bytes, no '/', not '..'.");
    for (const char c : name)
        if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f)
            throw invalid_input("cgroup name", name, "It has a control character in it.");
    if (name.starts_with("cgroup.") || controller_of(name) != controllers::none)
        throw invalid_input("cgroup name", name,
                            "It must not begin like a control file: with the name of a controller, "
                            "or 'cgroup', and a dot.");
}

/// The likely cause of a refused write to a control file. Source: cgroup-v2.rst.
inline std::string write_remedy(int code, std::string_view key) {
    const bool moves = key == "cgroup.procs";
    switch (code) {
    case ENOENT:
        if (const auto owner = controller_of(key); owner != controllers::none)
            return "The " + to_string(owner) +
                   " controller is not enabled for this group, or this kernel does not have "
                   "the key.";
        return "There is no such control file, or the group has been removed.";
    case ENODEV:
        return "The group has been removed, or the device does not exist.";
    case EINVAL:
    case ERANGE:
        return "The kernel does not take this value for the key.";
    case EBUSY:
        return moves ? "The group gives controllers to groups below it: processes can only be "
                       "in one of those."
                     : "What is in use now does not allow this value.";
    case EACCES:
    case EPERM:
        return moves ? "It takes write access to cgroup.procs of the group, and of the nearest "
                       "group that holds both where the process is and where it goes."
                     : "It takes root, or a group that was delegated to this user.";
    case EROFS:
        return "The cgroup filesystem is mounted read-only.";
    case ESRCH:
        return "There is no such process.";
    case EOPNOTSUPP:
        return "The group is threaded, or cannot do this.";
    default:
        return {};
    }
}

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

/// SIGKILL to every process of the subtree, for kernels without cgroup.kill (before 5.14).
///
/// Frozen meanwhile, so that nothing forks away from the list; SIGKILL works on frozen processes.
inline void kill_by_signals(int group) {
    const auto freeze = [&](const char* value) {
        release_quietly([&] {
            if (try_read_control(group, "cgroup.freeze"))
                sys::write_file_at(group, "cgroup.freeze", value);
        });
    };
    freeze("1");
    const scope_exit thaw([&]() noexcept { freeze("0"); });
    // Freezing takes effect with a delay: a few rounds catch what was forked until then.
    for (int round = 0; round < 100; ++round) {
        std::vector<pid_t> listed;
        collect_processes(group, listed);
        if (listed.empty()) return;
        std::vector<std::pair<pid_t, unique_fd>> held;
        for (const pid_t pid : listed) {
            try {
                held.emplace_back(pid, sys::open_pidfd(pid));
            } catch (const error& failure) {
                if (failure.errno_value() != ESRCH) throw;
            }
        }
        // Still listed now that it is held: so the number was not reused in between.
        listed.clear();
        collect_processes(group, listed);
        for (const auto& [pid, fd] : held)
            if (std::find(listed.begin(), listed.end(), pid) != listed.end())
                sys::send_signal(fd.get(), SIGKILL);
        ::poll(nullptr, 0, 1);
    }
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

}  // namespace kumiki::inline v0::detail
