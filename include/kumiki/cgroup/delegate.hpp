// What is done with a group beside filling and ending it: handing it to a user, making it threaded,
// moving single threads, going through all groups below it.
//
// Kernel: threaded groups 4.14. Source: cgroup-v2.rst (delegation, threads), cgroups(7).
#pragma once

#include <fcntl.h>
#include <sys/types.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

#include <kumiki/cgroup/cgroup.hpp>
#include <kumiki/cgroup/tree.hpp>
#include <kumiki/core/error.hpp>
#include <kumiki/core/observer.hpp>
#include <kumiki/core/text.hpp>
#include <kumiki/core/unique_fd.hpp>
#include <kumiki/sys/check.hpp>
#include <kumiki/sys/file.hpp>

namespace kumiki::inline v0 {

/// Hands the group to a user, who may then make groups below it, move own processes among them and
/// hand its controllers on; its limits stay with the owner of the group above.
///
/// The files are those of /sys/kernel/cgroup/delegate (4.15) that lie in every group and set no
/// limit: cgroup.procs, cgroup.threads and cgroup.subtree_control, and the directory, last.
/// Errors: EPERM without CAP_CHOWN: nothing that was given is left given.
inline void delegate_group(const cgroup& group, uid_t uid, gid_t gid) {
    const auto before = sys::status_of(group.fd());
    constexpr const char* files[] = {"cgroup.procs", "cgroup.threads", "cgroup.subtree_control",
                                     ""};
    const auto give = [&](const char* file, uid_t user, gid_t owner) {
        return ::fchownat(group.fd(), file, user, owner,
                          *file == '\0' ? AT_EMPTY_PATH : AT_SYMLINK_NOFOLLOW);
    };
    for (const char* file : files) {
        const int result = give(file, uid, gid);
        if (result == 0 || (errno == ENOENT && *file != '\0')) continue;
        const int code = errno;
        for (const char* given : files) give(given, before.st_uid, before.st_gid);
        throw error(code,
                    {.operation = "delegate to user " + std::to_string(uid),
                     .object = group.path() + (*file == '\0' ? "" : "/") + file,
                     .remedy = code == EINVAL ? "The user or group is not mapped into this user "
                                                "namespace."
                                              : detail::write_remedy(code, {})});
    }
}

/// What cgroup.type says of a group.
enum class cgroup_type : std::uint8_t {
    domain,  ///< the usual kind
    domain_threaded,  ///< the root of threaded groups
    domain_invalid,  ///< below threaded groups, and not yet threaded: takes no process
    threaded,
};

/// The group's type. The hierarchy's root, which has no such file, is a domain.
inline cgroup_type type_of(const cgroup& group) {
    const auto text = group.try_read("cgroup.type");
    const auto name = text ? trim(*text) : "domain";
    if (name == "threaded") return cgroup_type::threaded;
    if (name == "domain threaded") return cgroup_type::domain_threaded;
    return name == "domain" ? cgroup_type::domain : cgroup_type::domain_invalid;
}

/// Makes the group threaded, for good: single threads of the processes of the group above may be in
/// it. Only cpu, cpuset, pids and perf_event work there.
/// Errors: EOPNOTSUPP where the group above has processes and other controllers for groups below.
inline void make_threaded(const cgroup& group) { group.write("cgroup.type", "threaded"); }

/// Moves one thread into a threaded group, from a group below the same domain.
/// Errors: ESRCH; EOPNOTSUPP and EINVAL for a group of another domain; EACCES.
inline void attach_thread(const cgroup& group, pid_t thread) {
    group.write("cgroup.threads", std::to_string(thread));
}

/// Calls `visit(const cgroup&)` with the group itself and each group below it, parents first. A
/// group that is removed meanwhile is passed over.
template <class Visit>
void walk_groups(const cgroup& group, Visit&& visit) {
    visit(group);
    for (const std::string& name : detail::child_groups(group.fd())) {
        auto below = sys::try_open_at(group.fd(), name, O_PATH | O_DIRECTORY);
        if (!below) continue;
        cgroup child = cgroup::adopt(std::move(*below), group.path() + '/' + name);
        child.disown();
        walk_groups(child, visit);
    }
}

/// Freezes a group for its own life, and thaws it on every way out.
class freeze_guard {
  public:
    explicit freeze_guard(const cgroup& group) : group_(&group) { group.freeze(); }
    freeze_guard(const freeze_guard&) = delete;
    freeze_guard& operator=(const freeze_guard&) = delete;
    ~freeze_guard() {
        detail::release_quietly([&] {
            if (group_->try_read("cgroup.freeze")) group_->thaw();
        });
    }

  private:
    const cgroup* group_;
};

}  // namespace kumiki::inline v0
