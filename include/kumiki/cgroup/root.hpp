// The group under which a program keeps the groups it makes ("kumiki"), below the hierarchy's root
// or the group that was delegated to this user; and the enabling of controllers down to it.
//
// No foreign process is ever moved, and this one only when asked for (own_leaf.hpp). What is enabled
// at the root stays so, as other groups may have begun to depend on it. Several programs may share
// the group: the last one that leaves removes it. Controllers are looked up once and remembered.
#pragma once

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include <kumiki/cgroup/cgroup.hpp>
#include <kumiki/cgroup/clipped.hpp>
#include <kumiki/cgroup/controller.hpp>
#include <kumiki/cgroup/hierarchy.hpp>
#include <kumiki/cgroup/levels.hpp>
#include <kumiki/cgroup/limits.hpp>
#include <kumiki/cgroup/own_leaf.hpp>
#include <kumiki/core/error.hpp>
#include <kumiki/core/observer.hpp>
#include <kumiki/core/text.hpp>
#include <kumiki/core/unique_fd.hpp>
#include <kumiki/sys/check.hpp>
#include <kumiki/sys/file.hpp>

namespace kumiki::inline v0 {

/// Where this process is, when it is in the very group that is to hand controllers on to groups
/// below, which a group with processes cannot.
enum class own_process : std::uint8_t {
    stays,  ///< controllers are refused then: processes_in_group
    moves_to_leaf,  ///< it moves into a group of its own beside the others: see own_leaf
};

/// Makes groups with limits. Not for use by several threads at once: each can have its own.
class cgroup_root {
  public:
    /// Below the hierarchy's root if this process may write there, else below its own group.
    /// Errors: unsupported without cgroup v2, or without a group that may be written to.
    static cgroup_root open(std::string_view name = "kumiki",
                            own_process self = own_process::stays) {
        auto hierarchy = cgroup_hierarchy::find();
        const cgroup2_mount& mount = hierarchy.mount();
        const auto may_write = [](const std::string& directory) {
            return ::faccessat(AT_FDCWD, directory.c_str(), W_OK, AT_EACCESS) == 0;
        };
        std::string base = mount.mount_point;
        if (!may_write(base)) base = hierarchy.own_directory().value_or("");
        if (mount.read_only || base.empty() || !may_write(base))
            throw unsupported(
                0, {.operation = "make control groups",
                    .object = "in " + mount.mount_point,
                    .remedy = mount.read_only
                                  ? "It is mounted read-only: a container needs a group delegated "
                                    "to it and a writable mount."
                                  : "It takes root, or a group that was delegated to this user "
                                    "(systemd-run --user --scope -p Delegate=yes COMMAND)."});
        return cgroup_root(std::move(hierarchy), cgroup::open(std::move(base)), name, self);
    }
    /// Below the group at `directory`, which was delegated for the purpose.
    static cgroup_root open_below(std::string directory, std::string_view name = "kumiki",
                                  own_process self = own_process::stays) {
        return cgroup_root(cgroup_hierarchy::find(), cgroup::open(std::move(directory)), name,
                           self);
    }
    cgroup_root(cgroup_root&&) noexcept = default;
    cgroup_root& operator=(cgroup_root&&) = delete;
    /// Removes the group if nobody has groups in it any more.
    ~cgroup_root() {
        if (!group_) return;
        detail::release_quietly(
            [&] { detail::try_remove_group(base_.fd(), name_, group_.path()); });
    }

    const cgroup_hierarchy& hierarchy() const noexcept { return hierarchy_; }
    /// The group that holds those which are made here.
    const cgroup& group() const noexcept { return group_; }
    /// The levels from the top of the hierarchy down to that group.
    std::vector<cgroup_level> levels() const { return cgroup_levels(hierarchy_, group_.path()); }
    /// The controllers that limits can be set for.
    controllers available() const { return base_.available(); }

    /// Creates a group with its limits in force; it is owned by the handle.
    ///
    /// Cost: two system calls, and three for each setting.
    /// Errors: cgroup_name_taken; controller_missing with the ancestor that lacks it;
    /// processes_in_group; limit_refused. Nothing is left behind then.
    cgroup create(std::string_view name, const resource_limits& limits = {}) {
        return create_with(name, settings_of(limits));
    }
    /// The same, and tells which limits are not in force as they were asked for.
    cgroup create(std::string_view name, const resource_limits& limits,
                  std::vector<clipped_limit>& clipped) {
        const auto settings = settings_of(limits);
        cgroup made = create_with(name, settings);
        clipped = clipped_limits(made, settings);
        return made;
    }
    /// The same from settings_of(), for who starts many groups with the same limits.
    cgroup create_with(std::string_view name, const std::vector<cgroup_setting>& settings) {
        detail::require_group_name(name);
        const controllers needed = controllers_of(settings);
        return persist([&] {
            enable(needed);
            cgroup made = cgroup::create(group_, name);
            write_settings(made, settings);
            return made;
        });
    }

    /// Enables controllers for the groups that are made here.
    /// Errors: as create().
    void require(controllers wanted) {
        persist([&] { enable(wanted); });
    }

  private:
    /// Does it again after what other programs did meanwhile, to the group and to its controllers.
    template <class Action>
    std::invoke_result_t<const Action&> persist(const Action& action) {
        for (int attempt = 0;; ++attempt) {
            try {
                return action();
            } catch (const controller_missing& failure) {
                // Enabled once, and disabled by somebody since then: once more.
                if (failure.errno_value() == 0 || attempt == 8) throw;
                enabled_ = controllers::none;
            } catch (const error& failure) {
                // Another program that was the last to use the group may just have removed it.
                const int code = failure.errno_value();
                if ((code != ENOENT && code != ENODEV) || attempt == 8 || is_there()) throw;
                reopen();
            }
        }
    }
    cgroup_root(cgroup_hierarchy hierarchy, cgroup base, std::string_view name, own_process self)
        : hierarchy_(std::move(hierarchy)), base_(std::move(base)), name_(name) {
        detail::require_group_name(name);
        if (self == own_process::moves_to_leaf) {
            leaf_.emplace(base_, name);
            hierarchy_ = cgroup_hierarchy::find();  // this process's group is another one now
        }
        reopen();
    }

    void enable(controllers wanted) {
        if (has(enabled_, wanted)) return;
        if (const controllers missing = wanted & ~base_.available(); missing != controllers::none)
            throw_missing(missing);
        enable(base_, wanted);
        enable(group_, wanted);
        enabled_ |= wanted;
    }

    /// Makes the group, or takes the one that is there; several programs may do so at once.
    void reopen() {
        enabled_ = controllers::none;
        const std::string path = base_.path() + '/' + name_;
        for (int attempt = 0;; ++attempt) {
            const int made = ::mkdirat(base_.fd(), name_.c_str(), 0755);
            if (made != 0 && errno != EEXIST)
                sys::check(made, [&] {
                    return error_context{.operation = "create control group",
                                         .object = path,
                                         .remedy = detail::write_remedy(errno, {})};
                });
            try {
                group_ = cgroup::open(base_, name_);
                return;
            } catch (const error& failure) {
                if (failure.errno_value() != ENOENT || attempt == 8) throw;
            }
        }
    }
    /// True when the group that is held is still the one of its name.
    bool is_there() const {
        struct stat now{};
        return ::fstatat(base_.fd(), name_.c_str(), &now, 0) == 0 && now.st_ino == group_.id();
    }
    static void enable(const cgroup& group, controllers wanted) {
        std::string text;
        for_each_controller(wanted & ~group.enabled(), [&](const controller_info& controller) {
            text += (text.empty() ? "+" : " +") + std::string(controller.name);
        });
        if (text.empty()) return;
        // Only the hierarchy's root, which has no type, may have processes beside groups. Asked
        // before the kernel is: it would make the group a threaded one for cpu, cpuset and pids.
        const bool is_whole = !group.try_read("cgroup.type");
        if (auto inside = group.procs(); !is_whole && !inside.empty())
            detail::throw_occupied(group, text, std::move(inside));
        try {
            group.write("cgroup.subtree_control", text);
        } catch (const cgroup_gone&) {
            throw;
        } catch (const error& failure) {
            if (failure.errno_value() == ENOENT)
                throw controller_missing(ENOENT, wanted, failure.context());  // taken away just now
            auto inside = group.procs();  // one that came just now
            if (failure.errno_value() != EBUSY || is_whole || inside.empty()) throw;
            detail::throw_occupied(group, text, std::move(inside));
        }
    }
    [[noreturn]] static void refuse(controllers lacking, const std::string& where,
                                    std::string why) {
        throw controller_missing(
            0, lacking,
            {.operation = "enable the controllers (" + to_string(lacking) + ") for groups below",
             .object = where,
             .remedy = std::move(why)});
    }
    /// Names the topmost group on the way down to the base that lacks one of the controllers.
    [[noreturn]] void throw_missing(controllers missing) const {
        if (!is_path_within(base_.path(), hierarchy_.mount().mount_point))
            refuse(missing, base_.path(), "cgroup.controllers of this group does not list it.");
        const auto levels = cgroup_levels(hierarchy_, base_.path());
        if (const auto lacking = missing & ~levels.front().available; lacking != controllers::none)
            refuse(lacking, levels.front().path, hierarchy_.explain_missing(lacking));
        // The top has them: so some group between does not hand them on.
        if (const cgroup_level* const at = first_lacking(levels, missing))
            refuse(missing & ~at->enabled, at->path,
                   "Its cgroup.subtree_control does not list it: the group's owner enables "
                   "it there (systemd: Delegate=yes on the unit).");
        refuse(missing, base_.path(), "It was taken away from the group just now.");
    }

    cgroup_hierarchy hierarchy_;
    cgroup base_;
    std::optional<own_leaf> leaf_;
    std::string name_;
    cgroup group_;
    controllers enabled_ = controllers::none;
};

}  // namespace kumiki::inline v0
