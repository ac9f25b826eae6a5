// Numbers of the kernel's interface that the oldest supported headers (Linux 6.1, glibc 2.36) lack,
// or that their headers define in ways that clash with each other (<linux/mount.h> and
// <sys/mount.h>). Each with the kernel that brought it; values are ABI and never change.
#pragma once

#include <cstdint>

namespace kumiki::inline v0::sys {

// System calls: one number on every architecture that kumiki knows (the unified range above 424).
inline constexpr long nr_pidfd_send_signal = 424;  // 5.1
inline constexpr long nr_open_tree = 428;  // 5.2
inline constexpr long nr_move_mount = 429;  // 5.2
inline constexpr long nr_fsopen = 430;  // 5.2
inline constexpr long nr_fsconfig = 431;  // 5.2
inline constexpr long nr_fsmount = 432;  // 5.2
inline constexpr long nr_pidfd_open = 434;  // 5.3
inline constexpr long nr_clone3 = 435;  // 5.3
inline constexpr long nr_close_range = 436;  // 5.9
inline constexpr long nr_openat2 = 437;  // 5.6
inline constexpr long nr_pidfd_getfd = 438;  // 5.6
inline constexpr long nr_mount_setattr = 442;  // 5.12
inline constexpr long nr_landlock_create_ruleset = 444;  // 5.13
inline constexpr long nr_landlock_add_rule = 445;  // 5.13
inline constexpr long nr_landlock_restrict_self = 446;  // 5.13

// clone3(2), linux/sched.h
inline constexpr std::uint64_t clone_vm = 0x100;
inline constexpr std::uint64_t clone_pidfd = 0x1000;
inline constexpr std::uint64_t clone_vfork = 0x4000;
inline constexpr std::uint64_t clone_parent = 0x8000;
inline constexpr std::uint64_t clone_newtime = 0x80;  // 5.6; clone3 and unshare only
inline constexpr std::uint64_t clone_newns = 0x20000;
inline constexpr std::uint64_t clone_parent_settid = 0x100000;
inline constexpr std::uint64_t clone_newcgroup = 0x2000000;
inline constexpr std::uint64_t clone_newuts = 0x4000000;
inline constexpr std::uint64_t clone_newipc = 0x8000000;
inline constexpr std::uint64_t clone_newuser = 0x10000000;
inline constexpr std::uint64_t clone_newpid = 0x20000000;
inline constexpr std::uint64_t clone_newnet = 0x40000000;
inline constexpr std::uint64_t clone_clear_sighand = 0x100000000ULL;  // 5.5
inline constexpr std::uint64_t clone_into_cgroup = 0x200000000ULL;  // 5.7

// openat2(2), linux/openat2.h: 5.6
inline constexpr std::uint64_t resolve_no_xdev = 0x01;
inline constexpr std::uint64_t resolve_no_magiclinks = 0x02;
inline constexpr std::uint64_t resolve_no_symlinks = 0x04;
inline constexpr std::uint64_t resolve_beneath = 0x08;
inline constexpr std::uint64_t resolve_in_root = 0x10;

// The mount calls, linux/mount.h
inline constexpr unsigned fsopen_cloexec = 0x1;
inline constexpr unsigned fsmount_cloexec = 0x1;
inline constexpr unsigned fsconfig_set_flag = 0;
inline constexpr unsigned fsconfig_set_string = 1;
inline constexpr unsigned fsconfig_set_fd = 5;
inline constexpr unsigned fsconfig_cmd_create = 6;
inline constexpr unsigned open_tree_clone = 0x1;
inline constexpr unsigned open_tree_cloexec = 02000000;
inline constexpr unsigned move_mount_f_empty_path = 0x4;
inline constexpr unsigned move_mount_t_empty_path = 0x40;
inline constexpr unsigned at_recursive = 0x8000;
inline constexpr unsigned at_empty_path = 0x1000;
inline constexpr std::uint64_t mount_attr_rdonly = 0x1;
inline constexpr std::uint64_t mount_attr_nosuid = 0x2;
inline constexpr std::uint64_t mount_attr_nodev = 0x4;
inline constexpr std::uint64_t mount_attr_noexec = 0x8;
inline constexpr std::uint64_t mount_attr_relatime = 0x0;
inline constexpr std::uint64_t mount_attr_noatime = 0x10;
inline constexpr std::uint64_t mount_attr_strictatime = 0x20;
inline constexpr std::uint64_t mount_attr_atime = 0x70;  // all bits that say which of the three
inline constexpr std::uint64_t mount_attr_nodiratime = 0x80;
inline constexpr std::uint64_t mount_attr_nosymfollow = 0x200000;  // 5.14
inline constexpr std::uint64_t mount_attr_idmap = 0x100000;  // 5.12
inline constexpr std::uint64_t ms_nodev = 4;
inline constexpr std::uint64_t ms_unbindable = 1U << 17;
inline constexpr std::uint64_t ms_private = 1U << 18;
inline constexpr std::uint64_t ms_slave = 1U << 19;
inline constexpr std::uint64_t ms_shared = 1U << 20;
inline constexpr std::uint64_t ms_rec = 16384;
inline constexpr int mnt_detach = 2;
inline constexpr int umount_nofollow = 8;

/// The argument of mount_setattr(2): 5.12.
struct mount_attributes {
    std::uint64_t set = 0;
    std::uint64_t clear = 0;
    std::uint64_t propagation = 0;
    std::uint64_t userns_fd = 0;
};

/// The argument of openat2(2): 5.6.
struct open_how {
    std::uint64_t flags = 0;
    std::uint64_t mode = 0;
    std::uint64_t resolve = 0;
};

/// The argument of clone3(2) as far as 5.7 defines it.
struct clone_arguments {
    std::uint64_t flags = 0;
    std::uint64_t pidfd = 0;  ///< address of an int
    std::uint64_t child_tid = 0;
    std::uint64_t parent_tid = 0;  ///< address of a pid_t
    std::uint64_t exit_signal = 0;
    std::uint64_t stack = 0;  ///< lowest byte of the child's stack
    std::uint64_t stack_size = 0;
    std::uint64_t tls = 0;
    std::uint64_t set_tid = 0;
    std::uint64_t set_tid_size = 0;
    std::uint64_t cgroup = 0;  ///< descriptor of a cgroup directory
};

// landlock(7), linux/landlock.h; the rights are landlock.hpp's enumerations
inline constexpr unsigned landlock_create_ruleset_version = 0x1;
inline constexpr int landlock_rule_path_beneath = 1;
inline constexpr int landlock_rule_net_port = 2;  // ABI 4: 6.7

/// The argument of landlock_create_ruleset(2) as far as ABI 6 defines it; an older kernel takes it
/// where what it does not know is zero.
struct landlock_ruleset {
    std::uint64_t handled_access_fs = 0;
    std::uint64_t handled_access_net = 0;  ///< ABI 4: 6.7
    std::uint64_t scoped = 0;  ///< ABI 6: 6.12
};

/// The argument of landlock_add_rule(2) for a path.
struct __attribute__((packed)) landlock_path_beneath {
    std::uint64_t allowed_access;
    std::int32_t parent_fd;
};

/// The argument of landlock_add_rule(2) for a port.
struct landlock_net_port {
    std::uint64_t allowed_access = 0;
    std::uint64_t port = 0;
};

// ioctls and filesystem magics
inline constexpr unsigned long tiocgptpeer = 0x5441;  // 4.13
inline constexpr long proc_super_magic = 0x9fa0;
inline constexpr long sysfs_magic = 0x62656572;
inline constexpr long cgroup2_super_magic = 0x63677270;
inline constexpr long tmpfs_magic = 0x01021994;
inline constexpr long overlayfs_super_magic = 0x794c7630;
inline constexpr long nsfs_magic = 0x6e736673;

}  // namespace kumiki::inline v0::sys
