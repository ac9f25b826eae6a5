// The errors of control groups: each with what it is about as values, and with its remedy; and the
// likely cause of a write to a control file that the kernel refused.
//
// The kernel's own answer is an errno alone, and ENOENT has three meanings: the group is gone, its
// controller is not enabled, or the key is not known. They are told apart by looking at the group.
// Source: cgroup-v2.rst.
#pragma once

#include <fcntl.h>
#include <sys/types.h>
#include <unistd.h>

#include <cerrno>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <kumiki/cgroup/controller.hpp>
#include <kumiki/core/error.hpp>
#include <kumiki/core/text.hpp>
#include <kumiki/core/unique_fd.hpp>
#include <kumiki/sys/abi.hpp>
#include <kumiki/sys/file.hpp>

namespace kumiki::inline v0 {

/// A group of the wanted name is already there: of a container that runs, or left by a program
/// that was killed.
class cgroup_name_taken : public error {
  public:
    cgroup_name_taken(const std::string& path, bool populated)
        : error(EEXIST,
                {.operation = "create control group",
                 .object = path,
                 .remedy = populated ? "The name is in use, with processes in it: choose another, "
                                       "or end them."
                                     : "It has no process in it, so it is likely left over from a "
                                       "program that was killed: remove it with rmdir."}),
          populated_(populated) {}
    /// True when there are processes in it.
    bool is_populated() const noexcept { return populated_; }

  private:
    bool populated_;
};

/// The group has been removed, by somebody else or by another handle.
class cgroup_gone : public error {
  public:
    using error::error;
};

/// A controller that a limit needs is not enabled for the group: never was, or no longer. Its
/// object is the group above, nearest to the root, that does not have it or does not hand it on.
class controller_missing : public unsupported {
  public:
    controller_missing(int code, controllers which, error_context context)
        : unsupported(code, std::move(context)), which_(which) {}
    controllers which() const noexcept { return which_; }

  private:
    controllers which_;
};

/// The kernel does not take the value for the key: out of its range, less than what is in use, an
/// unknown device. What was in force before stays.
class limit_refused : public error {
  public:
    limit_refused(int code, std::string key, std::string value, error_context context)
        : error(code, std::move(context)), key_(std::move(key)), value_(std::move(value)) {}
    const std::string& key() const noexcept { return key_; }
    const std::string& value() const noexcept { return value_; }

  private:
    std::string key_;
    std::string value_;
};

/// Processes in a group itself keep it from handing controllers on to groups below (EBUSY).
class processes_in_group : public error {
  public:
    processes_in_group(std::vector<pid_t> processes, error_context context)
        : error(EBUSY, std::move(context)), processes_(std::move(processes)) {}
    /// They; 0 stands for one that the caller's pid namespace lacks.
    const std::vector<pid_t>& processes() const noexcept { return processes_; }

  private:
    std::vector<pid_t> processes_;
};

namespace detail {

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

/// The likely cause of a refused write to a control file.
inline std::string write_remedy(int code, std::string_view key) {
    const bool moves = key == "cgroup.procs" || key == "cgroup.threads";
    switch (code) {
    case ENOENT:
        return "There is no such control file, or the group has been removed.";
    case ENODEV:
        return key.starts_with("io.")
                   ? "There is no such disk. Only whole ones have limits, no partitions: "
                     "device_number::behind() gives the one behind a path, /proc/partitions all."
               : key.starts_with("rdma.") ? "There is no such device: see /sys/class/infiniband."
                                          : "The group has been removed.";
    case EINVAL:
    case ERANGE:
    case EOVERFLOW:
        if (key.starts_with("misc.") || key.starts_with("dmem."))
            return "The kernel does not take this value, or has no such resource: the file "
                   "'capacity' of the hierarchy's root lists them.";
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
    case EAGAIN:
        return key.empty()
                   ? "cgroup.max.descendants or cgroup.max.depth of a group above is reached."
                   : "";
    case ENOSPC:
        // cgroup v1's answer to an empty cpuset; v2's to too many groups (65535 with memory)
        return "The kernel has no number left for a group with this controller: remove unused "
               "groups.";
    case ESRCH:
        return "There is no such process.";
    case EOPNOTSUPP:
        if (key.starts_with("io."))
            return "Nothing weighs the requests of this disk: switch the io.cost controller on for "
                   "it ('8:0 enable=1' to io.cost.qos of the hierarchy's root), or choose the BFQ "
                   "scheduler.";
        return "The group is threaded, or cannot do this.";
    default:
        return {};
    }
}

/// The group above that is nearest to the root and lacks the controller or does not hand it on.
struct lacking_group {
    std::string path{};
    bool lacks = false;  ///< it is the top that can be seen, and does not have the controller
};

inline lacking_group find_lacking_group(int group, std::string path, controllers wanted) {
    unique_fd at = sys::open_at(group, ".", O_PATH | O_DIRECTORY);
    for (;;) {
        auto above = sys::try_open_at(at.get(), "..", O_PATH | O_DIRECTORY);
        if (!above || sys::filesystem_magic(above->get()) != sys::cgroup2_super_magic)
            return {std::move(path), true};
        path.resize(path.rfind('/') == std::string::npos ? 0 : path.rfind('/'));
        const auto given = sys::try_read_file_at(above->get(), "cgroup.controllers");
        if (!given || has(parse_controllers(*given), wanted)) return {std::move(path), false};
        at = std::move(*above);
    }
}

/// Throws what a refused write to a control file of the group means.
[[noreturn]] inline void throw_refused_write(int group, const std::string& path,
                                             const std::string& key, std::string_view value,
                                             int code) {
    error_context context{.operation = "write '" + std::string(value) + "' to",
                          .object = path + '/' + key,
                          .remedy = write_remedy(code, key)};
    const controllers owner = controller_of(key);
    if ((code == ENOENT || code == ENODEV) && ::faccessat(group, "cgroup.procs", F_OK, 0) != 0) {
        context.remedy = "The group has been removed.";
        throw cgroup_gone(code, std::move(context));
    }
    if (code == ENOENT && owner != controllers::none) {
        const auto here = sys::try_read_file_at(group, "cgroup.controllers");
        if (here && has(parse_controllers(*here), owner)) {
            context.remedy = "This kernel does not have the key, or not for this group.";
            throw unsupported(code, std::move(context));
        }
        const auto at = find_lacking_group(group, path, owner);
        context.object = at.path;
        context.remedy = "The " + to_string(owner) + " controller is not enabled for " + path +
                         ", so its limits are not in force: " +
                         (at.lacks ? "this group does not have it. Whoever made it must hand it on."
                                   : "write +" + to_string(owner) +
                                         " to cgroup.subtree_control of this group above it, and "
                                         "set the limits again.");
        throw controller_missing(code, owner, std::move(context));
    }
    if (owner != controllers::none || key.starts_with("cgroup.max."))
        throw limit_refused(code, key, std::string(value), std::move(context));
    throw error(code, std::move(context));
}

}  // namespace detail
}  // namespace kumiki::inline v0
