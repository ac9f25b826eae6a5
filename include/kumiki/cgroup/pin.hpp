// A group that stays without a process and without a handle, with its limits and its counters, until
// somebody ends it; found again by what names it for sure: its path and the kernel's number of it.
//
// cgroup v2 needs no process and no open file to keep a group: a directory stays. A path alone can
// be another group's after a removal; the number is not given twice before the next boot.
#pragma once

#include <cerrno>
#include <cstdint>
#include <string>
#include <utility>

#include <kumiki/cgroup/cgroup.hpp>
#include <kumiki/core/error.hpp>

namespace kumiki::inline v0 {

/// What names a pinned group. It can be written down and used by another program, until the next boot.
struct pinned_cgroup {
    std::string path{};
    std::uint64_t id = 0;
    bool operator==(const pinned_cgroup&) const = default;
};

/// Lets the group stay when its handle ends, which is now. Processes in it stay, too.
inline pinned_cgroup pin_cgroup(cgroup group) {
    pinned_cgroup pinned{group.path(), group.id()};
    group.disown();
    return pinned;
}

/// The pinned group; not owned. Errors: cgroup_gone, also when another group has the path by now.
inline cgroup open_pinned(const pinned_cgroup& pinned) {
    const auto gone = [&](int code, const char* why) {
        return cgroup_gone(
            code, {.operation = "open control group", .object = pinned.path, .remedy = why});
    };
    cgroup found;
    try {
        found = cgroup::open(pinned.path);
    } catch (const error& failure) {
        const int code = failure.errno_value();
        if (code != ENOENT && code != ENODEV) throw;
        throw gone(code, "The group has been removed since it was pinned.");
    }
    if (found.id() != pinned.id)
        throw gone(ENOENT, "The group has been removed, and another one has its name.");
    return found;
}

/// The pinned group, owned from now on: it goes with the handle. Errors: as open_pinned().
inline cgroup unpin_cgroup(const pinned_cgroup& pinned) {
    return cgroup::adopt(open_pinned(pinned).release(), pinned.path);
}

}  // namespace kumiki::inline v0
