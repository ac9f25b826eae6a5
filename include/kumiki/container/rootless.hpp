// A container of an ordinary user: the user namespace that it gets, who writes its id maps, and what
// it cannot have. All else is the start of root: the same plan, the same steps.
//
// The user's own id is root inside. Beside it the container has the user's subordinate ids where the
// administrator gave some (subuid(5)) and newuidmap(1) is installed, and no others where not; then
// the kernel demands that setgroups(2) is denied, and the supplementary groups stay the user's
// (user_namespaces(7)). A control group is made where one was delegated to the user.
// Kernel: 5.12; overlays in a user namespace 5.11.
#pragma once

#include <pwd.h>
#include <unistd.h>

#include <string>
#include <utility>
#include <vector>

#include <kumiki/container/spec.hpp>
#include <kumiki/core/error.hpp>
#include <kumiki/core/text.hpp>
#include <kumiki/ns/subordinate_ids.hpp>
#include <kumiki/ns/unprivileged.hpp>
#include <kumiki/sys/file.hpp>

namespace kumiki::inline v0 {

namespace detail {

/// The ids of this process's user that `file` gives it. Errors: invalid_input for a bad line.
inline std::vector<id_span> own_subordinate_ids(const char* file) {
    const auto text = sys::try_read_file_at(AT_FDCWD, file);
    if (!text) return {};
    std::string name;
    std::vector<char> room(16 * 1024);
    passwd found{};
    passwd* entry = nullptr;
    if (::getpwuid_r(::geteuid(), &found, room.data(), room.size(), &entry) == 0 && entry)
        name = entry->pw_name;
    return parse_subordinate_ids(*text, name, ::geteuid());
}

/// Every id that this namespace has, as itself.
inline id_map identity_of(const char* file) {
    std::vector<id_range> ranges;
    const id_map own = id_map::parse(sys::read_file_at(AT_FDCWD, file));
    for (const id_range& each : own.ranges())
        ranges.push_back({each.inside, each.inside, each.count});
    return id_map(std::move(ranges));
}

}  // namespace detail

/// The ids that this process may give to a container: of an ordinary user its own as root, then
/// its subordinate ids if `programs` are there; of root in a user namespace all that it has.
/// Errors: invalid_input for a line of /etc/subuid or /etc/subgid that cannot be right.
inline user_mapping own_user_mapping(const map_programs& programs = {}) {
    if (::geteuid() == 0)
        return {.uids = detail::identity_of("/proc/self/uid_map"),
                .gids = detail::identity_of("/proc/self/gid_map")};
    const bool installed = ::access(programs.newuidmap.c_str(), X_OK) == 0 &&
                           ::access(programs.newgidmap.c_str(), X_OK) == 0;
    std::vector<id_span> uids;
    std::vector<id_span> gids;
    if (installed) {
        uids = detail::own_subordinate_ids("/etc/subuid");
        gids = detail::own_subordinate_ids("/etc/subgid");
    }
    if (uids.empty() || gids.empty()) uids = gids = {};
    return {.uids = map_subordinate_ids(::geteuid(), uids),
            .gids = map_subordinate_ids(::getegid(), gids)};
}

namespace detail {

/// How the id maps of a container come about.
enum class map_writer : std::uint8_t {
    supervisor,  ///< by a write of this process
    programs,  ///< by newuidmap and newgidmap: ids that the caller was given beside its own
};

/// What a start has to know of the privileges of its caller.
struct start_privileges {
    bool unprivileged = false;  ///< not the host's root
    map_writer writer = map_writer::supervisor;
    bool sets_groups = true;  ///< setgroups(2) is allowed in the container

    /// Those of a caller who starts `spec`, which gets a user namespace if it needs one.
    /// Errors: invalid_input for what an ordinary user cannot have.
    static start_privileges of(container_spec& spec) {
        start_privileges found;
        found.unprivileged = is_unprivileged();
        if (!found.unprivileged) return found;
        if (!spec.user_namespace) spec.user_namespace = own_user_mapping();
        const auto is_own = [](const id_map& map, std::uint32_t id) {
            return map.ranges().size() == 1 && map.ranges()[0].count == 1 &&
                   map.ranges()[0].outside == id;
        };
        const bool own_group = is_own(spec.user_namespace->gids, ::getegid());
        const bool ordinary = ::geteuid() != 0;
        if (ordinary && !(own_group && is_own(spec.user_namespace->uids, ::geteuid())))
            found.writer = map_writer::programs;
        const auto parent = sys::try_read_file_at(AT_FDCWD, "/proc/self/setgroups");
        found.sets_groups = found.writer == map_writer::programs || !ordinary;
        if (parent && trim(*parent) == "deny") found.sets_groups = false;
        if (!found.sets_groups && !spec.process.user.groups.empty())
            throw invalid_input("supplementary groups",
                                std::to_string(spec.process.user.groups.front().value()),
                                "An ordinary user's container has its user's groups, unless the "
                                "user has subordinate ids (/etc/subuid, /etc/subgid, newuidmap).");
        return found;
    }
};

}  // namespace detail
}  // namespace kumiki::inline v0
