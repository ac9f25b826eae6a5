// A group of this process's own, below the one that it was started in: so that the latter, which was
// delegated to it (systemd: Delegate=yes; a container), can hand controllers on to groups beside.
//
// A group that gives controllers away cannot hold processes itself. Only this process moves, with all
// of its threads; nobody else is moved, children neither. Kernel: 4.5. Source: cgroup-v2.rst (no
// internal process constraint).
#pragma once

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <kumiki/cgroup/cgroup.hpp>
#include <kumiki/cgroup/controller.hpp>
#include <kumiki/cgroup/tree.hpp>
#include <kumiki/core/error.hpp>
#include <kumiki/core/observer.hpp>
#include <kumiki/core/text.hpp>
#include <kumiki/core/unique_fd.hpp>
#include <kumiki/sys/file.hpp>

namespace kumiki::inline v0 {

namespace detail {

/// Throws that a group with these processes in it cannot hand controllers on, and what to do.
[[noreturn]] inline void throw_occupied(const cgroup& group, const std::string& text,
                                        std::vector<pid_t> inside) {
    std::string shown;
    bool is_self = false;
    for (const pid_t pid : inside) {
        is_self = is_self || pid == ::getpid();
        if (pid == ::getpid() || shown.size() > 200) continue;
        const auto name = sys::try_read_file_at(AT_FDCWD, "/proc/" + std::to_string(pid) + "/comm");
        shown += (shown.empty() ? "" : ", ") + std::to_string(pid);
        if (pid > 0 && name) shown += " (" + std::string(trim(*name)) + ')';
    }
    std::string why = "Processes are in this group itself, so it cannot hand controllers on.";
    if (is_self)
        why += " This program is one: own_process::moves_to_leaf moves it into a group below.";
    if (!shown.empty())
        why += " Foreign ones are " + shown +
               ", and kumiki does not move them: move them to a group below it, or start the "
               "program in a group of its own (systemd: Delegate=yes and DelegateSubgroup=main).";
    throw processes_in_group(std::move(inside), {.operation = "write '" + text + "' to",
                                                 .object = group.path() + "/cgroup.subtree_control",
                                                 .remedy = std::move(why)});
}

}  // namespace detail

/// Holds this process in a leaf group below `base`, from construction on.
///
/// Its end moves the process back and removes the leaf, where the kernel allows it: when `base` hands
/// no controllers on, or nothing else is below it, so that they can be taken back. Else the process
/// stays where it is, as it cannot remove the group that it is in: the leaf, empty after the process,
/// is removed by the next program that makes one.
class own_leaf {
  public:
    /// Makes the leaf "PREFIX-leaf-PID" and moves this process there; nothing is changed when the
    /// process is not in `base` itself or base is the whole hierarchy's root.
    /// Errors: EACCES for a base that was not delegated to this user; as cgroup::create().
    own_leaf(const cgroup& base, std::string_view prefix) {
        detail::require_group_name(prefix);
        if (!base.try_read("cgroup.type") || !holds_self(base)) return;
        base_ = cgroup::open(base.path());
        before_ = base.enabled();
        owner_ = ::getpid();
        start_ = std::string(prefix) + "-leaf-";
        sweep();
        const std::string name = start_ + std::to_string(::getpid());
        for (int attempt = 0;; ++attempt) {
            const int made = ::mkdirat(base.fd(), name.c_str(), 0755);
            const int code = made == 0 || errno == EEXIST ? 0 : errno;
            if (code != 0)
                throw error(code, {.operation = "create control group",
                                   .object = base.path() + '/' + name,
                                   .remedy = detail::write_remedy(code, {})});
            try {
                leaf_ = cgroup::open(base, name);
                leaf_.attach(0);  // the writer itself, by whatever number
                return;
            } catch (const error& failure) {
                const bool is_gone =
                    failure.errno_value() == ENOENT || failure.errno_value() == ENODEV;
                if (is_gone && attempt < 8) continue;
                ::unlinkat(base.fd(), name.c_str(), AT_REMOVEDIR);
                throw;
            }
        }
    }
    own_leaf(own_leaf&&) noexcept = default;
    own_leaf& operator=(own_leaf&&) = delete;
    ~own_leaf() {
        // Not in a forked copy of the process.
        if (leaf_ && owner_ == ::getpid()) detail::release_quietly([&] { go_back(); });
    }

    /// The leaf; holds nothing when the process was not moved.
    const cgroup& group() const noexcept { return leaf_; }

  private:
    static bool holds_self(const cgroup& group) {
        const auto all = group.procs();
        return std::find(all.begin(), all.end(), ::getpid()) != all.end();
    }
    /// Removes the leaves of programs that have ended. Whoever is just about to enter one makes it
    /// again.
    void sweep() const {
        for (const auto& name : detail::child_groups(base_.fd()))
            if (name.starts_with(start_)) ::unlinkat(base_.fd(), name.c_str(), AT_REMOVEDIR);
    }
    void go_back() {
        sweep();
        // Another group may have come to depend on what base hands on: then it stays.
        const auto names = detail::child_groups(base_.fd());
        const bool is_alone = names.size() == 1 && names.front() == leaf_.name();
        try {
            if (is_alone) {
                std::string text;
                for_each_controller(base_.enabled() & ~before_, [&](const controller_info& info) {
                    text += (text.empty() ? "-" : " -") + std::string(info.name);
                });
                if (!text.empty()) base_.write("cgroup.subtree_control", text);
            }
            base_.attach(0);
        } catch (const error& failure) {
            const int code = failure.errno_value();
            if (code == EBUSY || code == EOPNOTSUPP || code == ENOENT || code == ENODEV) return;
            throw;
        }
        const std::string name(leaf_.name());
        detail::try_remove_group(base_.fd(), name, leaf_.path());
    }

    cgroup base_;
    cgroup leaf_;
    std::string start_;
    controllers before_ = controllers::none;
    pid_t owner_ = 0;
};

}  // namespace kumiki::inline v0
