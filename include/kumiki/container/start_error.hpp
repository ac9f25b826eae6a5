// Why a start failed: from what the child left in its report to one error that names the step, the
// object, errno and what to do about it, with the exit status that people know from docker.
#pragma once

#include <sys/wait.h>

#include <optional>
#include <string>

#include <kumiki/container/plan.hpp>
#include <kumiki/core/error.hpp>
#include <kumiki/ns/unprivileged.hpp>
#include <kumiki/security/seccomp.hpp>
#include <kumiki/sys/abi.hpp>
#include <kumiki/sys/pidfd.hpp>

namespace kumiki::inline v0 {

/// A start that failed; nothing of it is left.
class start_error : public error {
  public:
    start_error(int code, error_context context, int status,
                std::source_location where = std::source_location::current())
        : error(code, std::move(context), where), status_(status) {}
    /// 127: the command was not found; 126: it cannot be executed; 125: anything else.
    int exit_status() const noexcept { return status_; }

  private:
    int status_;
};

/// The exit status that goes with any error of a start.
inline int exit_status_of(const error& failure) noexcept {
    const auto* start = dynamic_cast<const start_error*>(&failure);
    return start != nullptr ? start->exit_status() : 125;
}

namespace detail {

/// What can be done about a step that failed; empty when there is nothing special to say.
inline std::string remedy_of(phase in, int code, const std::string& object) {
    if (in == phase::exec) {
        if (code == ENOENT)
            return "The command, or the interpreter or loader that it names, is not in the root "
                   "filesystem.";
        if (code == EACCES)
            return "It is not executable for the container's user, or Landlock's rules do not "
                   "allow to execute it, its interpreter or its loader.";
        if (code == EOPNOTSUPP)
            return "The filter does not let what waits in a container of a pool call recvmsg, "
                   "mmap, "
                   "dup3 or execve.";
        if (code == ENOEXEC)
            return "It is not a program of this machine, and names no interpreter.";
        if (code == EAGAIN)
            return "The init, or a limit of processes (pids.max, RLIMIT_NPROC), leaves no room for "
                   "it: an init counts as one, too.";
    }
    if (in == phase::identity && code == EINVAL)
        return "The id stands for none outside: the container's user namespace does not map it.";
    if (in == phase::identity && code == ELOOP)
        return "The command, or the interpreter that it names, is a link of /proc: that can be the "
               "program which starts the container, and is not executed.";
    if (in == phase::landlock) {
        if (code == ENOENT || code == ENOTDIR)
            return "The path does not exist in the root filesystem.";
        if (code == EINVAL) return "It is no directory, and only directories have these rights.";
    }
    if (in == phase::identity && code == E2BIG)
        return "The kernel takes at most 16 sets of Landlock's rules on top of each other.";
    if (code == EBADMSG)
        return "The kernel shows another label than the one that was written: the process would "
               "not be confined as it should be.";
    if (object.starts_with("AppArmor label") && code == ENOENT)
        return "No profile of this name is loaded (apparmor_parser(8)).";
    if (object.starts_with("SELinux label") && code == EINVAL)
        return "The loaded policy knows no such context.";
    if (in == phase::network && code == ETIMEDOUT) return "The supervisor did not finish in time.";
    if (in == phase::seccomp && object.find("filter") != std::string::npos)
        return seccomp_remedy(code);
    if (in == phase::limits && code == ENOENT && object.starts_with('/'))
        return "The working directory does not exist in the root filesystem.";
    if (code == EINVAL && (object == "the overlay root" || object.starts_with("overlay on ") ||
                           object.starts_with("copy-up tmpfs on ")))
        return "The kernel does not take these layers as an overlay: one of them is an overlay on "
               "an overlay already, the upper directory's filesystem cannot hold one (NFS, an "
               "overlay), or the container has users of its own and the kernel is older than "
               "Linux 5.19.";
    if (code == EEXIST && in == phase::mounts) return "There is something at its place.";
    if (code == ELOOP || (code == EXDEV && in != phase::pivot))
        return "A symbolic link in the root filesystem leads somewhere else: this place must be "
               "an ordinary directory or file.";
    if (code == EROFS) return "The root filesystem is read-only and lacks the place for it.";
    if (code == ENODEV) return "The kernel lacks this filesystem: load its module.";
    if (code == ENOSYS) return "The kernel is too old: Linux 5.12 or later is needed.";
    if ((code == EPERM || code == EACCES) && is_unprivileged())
        if (auto obstacle = user_namespace_obstacle(); !obstacle.empty()) return obstacle;
    if (code == EACCES && is_unprivileged())
        return "The user's root in the container has no more rights to the host's files than the "
               "user: the root filesystem must be the user's, or have this place already.";
    if (code == EPERM && in == phase::root)
        return "Mounting needs CAP_SYS_ADMIN in the namespaces of the container, and a seccomp "
               "profile around this program that allows it.";
    return {};
}

/// The error of a child whose report names a failed step.
inline start_error error_of_step(const plan& steps, const child_report& report,
                                 const std::string& container) {
    const auto index = static_cast<std::size_t>(report.step);
    const phase in = steps.steps().at(index).in;
    std::string object(steps.shown(index));
    int status = 125;
    const bool executing = in == phase::exec || steps.steps().at(index).kind == step_kind::inspect;
    if (executing) status = report.error == ENOENT || report.error == ENOTDIR ? 127 : 126;
    std::string remedy = remedy_of(in, report.error, object);
    const step& failed = steps.steps().at(index);
    if (failed.number == sys::nr_move_mount && report.error == EINVAL)
        remedy = "A directory can be mounted on a directory only, anything else on a file.";
    if (failed.kind == step_kind::make_path && report.error == ENOENT)
        remedy = "A symbolic link of the root filesystem leads to a place that it does not have.";
    return start_error(report.error,
                       {.operation = executing ? "execute" : "set up",
                        .object = std::move(object),
                        .step = name_of(in),
                        .container = container,
                        .remedy = std::move(remedy)},
                       status);
}

/// The error of a clone3 that failed.
inline start_error error_of_clone(int code, namespace_kind kinds, const std::string& container) {
    std::string remedy = namespace_remedy(code, kinds);
    if (code == ENOSYS)
        remedy = "clone3 is not there or not allowed: Linux 5.7 or later is needed.";
    if (code == EBUSY)
        remedy = "The cgroup gives controllers to groups below it and takes no processes itself.";
    if (code == ENOMEM)
        remedy =
            "The kernel has no memory for it, or the first process of the pid namespace that it "
            "joins has ended.";
    if (code == EAGAIN) remedy = "A limit on processes is reached (pids.max, RLIMIT_NPROC).";
    return start_error(code,
                       {.operation = "clone3",
                        .object = "the container's process",
                        .step = "clone",
                        .container = container,
                        .remedy = std::move(remedy)},
                       125);
}

/// The error of a network namespace that could not be made.
inline start_error error_of_netns(int code, const std::string& container) {
    return start_error(code,
                       {.operation = "make",
                        .object = "the network namespace",
                        .step = name_of(phase::netns),
                        .container = container,
                        .remedy = namespace_remedy(code, namespace_kind::net)},
                       125);
}

/// The error of a child that was ended from outside before its execve.
inline start_error error_of_death(const child_report& report, const plan& steps,
                                  const std::optional<sys::exit_status>& status,
                                  const std::string& container) {
    const std::string during =
        report.step < 0
            ? std::string("its first step")
            : std::string(name_of(steps.steps().at(static_cast<std::size_t>(report.step)).in));
    std::string cause = "The child ended";
    if (status && status->signal != 0)
        cause += " by signal " + std::to_string(status->signal) +
                 (status->signal == SIGKILL ? " (was it out of memory?)" : "");
    return start_error(0,
                       {.operation = "start",
                        .object = container,
                        .step = during,
                        .container = container,
                        .remedy = cause + " before its command was executed."},
                       125);
}

}  // namespace detail
}  // namespace kumiki::inline v0
