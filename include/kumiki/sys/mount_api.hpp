// The mount calls of Linux 5.2 and later, on descriptors: a filesystem is configured, made and
// attached in three steps, and a tree can be copied and changed before anybody sees it.
//
// These are for the starting side, which makes detached mounts before a container exists; what is
// mounted inside the new namespaces is encoded as steps of the plan (container/plan.hpp).
// Sources: fsopen(2), fsconfig(2), fsmount(2), open_tree(2), move_mount(2), mount_setattr(2).
#pragma once

#include <fcntl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <string>

#include <kumiki/core/unique_fd.hpp>
#include <kumiki/sys/abi.hpp>
#include <kumiki/sys/check.hpp>

namespace kumiki::inline v0::sys {

/// A copy of the mount at `path` as a detached tree, which goes with its descriptor unless it is
/// attached. `flags`: at_recursive copies the mounts below as well, at_empty_path copies what
/// `directory` itself names.
/// Kernel: 5.2. Needs CAP_SYS_ADMIN over the mount namespace.
inline unique_fd clone_mount(int directory, const std::string& path, unsigned flags = 0) {
    return unique_fd(check(static_cast<int>(::syscall(nr_open_tree, directory, path.c_str(),
                                                      flags | open_tree_clone | open_tree_cloexec)),
                           "open_tree", path));
}

/// mount_setattr(2) on the mount that `fd` names. Kernel: 5.12.
inline void set_mount_attributes(int fd, const mount_attributes& attributes, unsigned flags = 0) {
    check(static_cast<int>(::syscall(nr_mount_setattr, fd, "", flags | at_empty_path, &attributes,
                                     sizeof attributes)),
          "mount_setattr");
}

/// Attaches a detached mount to the file or directory that `target` names.
inline void attach_mount(int mount, int target, const std::string& shown) {
    check(static_cast<int>(::syscall(nr_move_mount, mount, "", target, "",
                                     move_mount_f_empty_path | move_mount_t_empty_path)),
          "move_mount", shown);
}

/// A filesystem that is being configured: fsopen(2). One instance makes one superblock.
class filesystem_context {
  public:
    /// Errors: ENODEV when the kernel has no filesystem of that type.
    explicit filesystem_context(std::string type) : type_(std::move(type)) {
        fd_ = unique_fd(
            check(static_cast<int>(::syscall(nr_fsopen, type_.c_str(), fsopen_cloexec)), [&] {
                return error_context{.operation = "fsopen",
                                     .object = type_,
                                     .step = {},
                                     .container = {},
                                     .remedy = errno == ENODEV
                                                   ? "The kernel has no such filesystem: load its "
                                                     "module (modprobe " +
                                                         type_ + ")."
                                                   : ""};
            }));
    }

    /// Sets `key` to `value`. Errors: with what the filesystem itself says of it.
    void set(const std::string& key, const std::string& value) {
        configure(fsconfig_set_string, key.c_str(), value.c_str(), key + "=" + value);
    }
    void set(const std::string& flag) { configure(fsconfig_set_flag, flag.c_str(), nullptr, flag); }

    /// Makes the superblock and a detached mount of it with `attributes` (MOUNT_ATTR_* bits).
    unique_fd mount(std::uint64_t attributes = 0) {
        configure(fsconfig_cmd_create, nullptr, nullptr, type_);
        return unique_fd(check(static_cast<int>(::syscall(nr_fsmount, fd_.get(), fsmount_cloexec,
                                                          static_cast<unsigned>(attributes))),
                               [&] { return describe("fsmount", type_); }));
    }

  private:
    void configure(unsigned command, const char* key, const char* value, const std::string& shown) {
        check(static_cast<int>(::syscall(nr_fsconfig, fd_.get(), command, key, value, 0)),
              [&] { return describe("configure " + type_, shown); });
    }
    /// The context keeps the filesystem's own messages: "e overlay: No changes allowed in ...".
    error_context describe(std::string operation, const std::string& shown) const {
        std::string messages;
        char line[512];
        for (ssize_t n; (n = ::read(fd_.get(), line, sizeof line)) > 0;) {
            std::string_view text(line, static_cast<std::size_t>(n));
            if (text.size() > 2 && text[1] == ' ') text.remove_prefix(2);
            while (text.ends_with('\n')) text.remove_suffix(1);
            messages += (messages.empty() ? "The kernel says: " : "; ") + std::string(text);
        }
        return {.operation = std::move(operation),
                .object = shown,
                .step = {},
                .container = {},
                .remedy = std::move(messages)};
    }

    std::string type_;
    unique_fd fd_;
};

}  // namespace kumiki::inline v0::sys
