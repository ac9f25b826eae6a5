// What a hierarchy has and hands on at each level, from its top down to a group.
//
// A controller works in a group only if every group above has it in cgroup.subtree_control: the
// first level that lacks it is where to act. Source: cgroup-v2.rst (top-down constraint).
#pragma once

#include <fcntl.h>

#include <algorithm>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <kumiki/cgroup/cgroup.hpp>
#include <kumiki/cgroup/controller.hpp>
#include <kumiki/cgroup/delegate.hpp>
#include <kumiki/cgroup/hierarchy.hpp>
#include <kumiki/core/error.hpp>
#include <kumiki/core/text.hpp>

namespace kumiki::inline v0 {

/// One group on the way from the top of the hierarchy down.
struct cgroup_level {
    std::string path{};
    controllers available = controllers::none;  ///< what the group above gives to it
    controllers enabled = controllers::none;  ///< what it gives to the groups below it
    cgroup_type type = cgroup_type::domain;
    bool is_root = false;  ///< the whole hierarchy's: may have processes beside groups
    bool has_processes = false;  ///< in the group itself: it cannot enable any more then
    bool is_populated = false;  ///< with processes in it or below it
    bool operator==(const cgroup_level&) const = default;
};

/// The levels from the top of the mount down to `directory`, each as it is now.
/// Errors: invalid_input for a directory that is not below the mount; cgroup_gone.
inline std::vector<cgroup_level> cgroup_levels(const cgroup_hierarchy& hierarchy,
                                               std::string_view directory) {
    std::string path = hierarchy.mount().mount_point;
    if (!is_path_within(directory, path))
        throw invalid_input("control group", directory, "It is not below " + path + '.');
    std::vector<cgroup_level> levels;
    const auto add = [&] {
        try {
            const cgroup group = cgroup::open(path);
            cgroup_level level{.path = path,
                               .available = group.available(),
                               .enabled = group.enabled(),
                               .type = type_of(group)};
            level.is_root = !group.try_read("cgroup.type").has_value();
            // A threaded group does not tell its processes: EOPNOTSUPP.
            level.has_processes =
                !group.read(level.type == cgroup_type::threaded ? "cgroup.threads" : "cgroup.procs")
                     .empty();
            level.is_populated = level.has_processes || group.is_populated();
            levels.push_back(std::move(level));
        } catch (const error& failure) {
            const int code = failure.errno_value();
            if (code != ENOENT && code != ENODEV) throw;
            throw cgroup_gone(code, {.operation = "read the controllers of",
                                     .object = path,
                                     .remedy = "The group has been removed."});
        }
    };
    add();
    std::string_view rest = directory.substr(path == "/" ? 0 : path.size());
    while (const auto part = next_field(rest, '/')) {
        if (part->empty()) continue;
        if (!is_path_component(*part))
            throw invalid_input("control group", directory, "It must have no '..' in it.");
        path += (path.ends_with('/') ? "" : "/") + std::string(*part);
        add();
    }
    return levels;
}

/// The levels down to this process's own group.
/// Errors: unsupported when it is not below the mount.
inline std::vector<cgroup_level> cgroup_levels(const cgroup_hierarchy& hierarchy) {
    const auto own = hierarchy.own_directory();
    if (!own)
        throw unsupported(0, {.operation = "find this process's group",
                              .object = hierarchy.own_path,
                              .remedy = "It is not below " + hierarchy.mount().mount_point + '.'});
    return cgroup_levels(hierarchy, *own);
}

/// The first level at which one of the controllers stops: the top when it does not have it, else a
/// level that does not hand it on to the next. Nothing when the last level has all of them.
inline const cgroup_level* first_lacking(const std::vector<cgroup_level>& levels,
                                         controllers wanted) {
    if (!levels.empty() && !has(levels.front().available, wanted)) return &levels.front();
    for (std::size_t i = 0; i + 1 < levels.size(); ++i)
        if (!has(levels[i].enabled, wanted)) return &levels[i];
    return nullptr;
}

}  // namespace kumiki::inline v0
