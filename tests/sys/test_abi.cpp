// The numbers of abi.hpp against the headers of this host, as far as these know them.
#include <fcntl.h>
#include <linux/landlock.h>
#include <linux/magic.h>
#include <linux/openat2.h>
#include <linux/sched.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/syscall.h>

#include <cstddef>

#include <kumiki/sys/abi.hpp>

#include "support/catch.hpp"

using namespace kumiki;

TEST_CASE("the numbers of the system calls are the kernel's") {
    CHECK(sys::nr_pidfd_send_signal == SYS_pidfd_send_signal);
    CHECK(sys::nr_open_tree == SYS_open_tree);
    CHECK(sys::nr_move_mount == SYS_move_mount);
    CHECK(sys::nr_fsopen == SYS_fsopen);
    CHECK(sys::nr_fsconfig == SYS_fsconfig);
    CHECK(sys::nr_fsmount == SYS_fsmount);
    CHECK(sys::nr_pidfd_open == SYS_pidfd_open);
    CHECK(sys::nr_clone3 == SYS_clone3);
    CHECK(sys::nr_close_range == SYS_close_range);
    CHECK(sys::nr_openat2 == SYS_openat2);
    CHECK(sys::nr_mount_setattr == SYS_mount_setattr);
    CHECK(sys::nr_landlock_create_ruleset == SYS_landlock_create_ruleset);
    CHECK(sys::nr_landlock_add_rule == SYS_landlock_add_rule);
    CHECK(sys::nr_landlock_restrict_self == SYS_landlock_restrict_self);
}

TEST_CASE("the flags of clone3 and openat2 are the kernel's") {
    CHECK(sys::clone_vm == CLONE_VM);
    CHECK(sys::clone_pidfd == CLONE_PIDFD);
    CHECK(sys::clone_vfork == CLONE_VFORK);
    CHECK(sys::clone_parent == CLONE_PARENT);
    CHECK(sys::clone_newtime == CLONE_NEWTIME);
    CHECK(sys::clone_newns == CLONE_NEWNS);
    CHECK(sys::clone_parent_settid == CLONE_PARENT_SETTID);
    CHECK(sys::clone_newcgroup == CLONE_NEWCGROUP);
    CHECK(sys::clone_newuts == CLONE_NEWUTS);
    CHECK(sys::clone_newipc == CLONE_NEWIPC);
    CHECK(sys::clone_newuser == CLONE_NEWUSER);
    CHECK(sys::clone_newpid == CLONE_NEWPID);
    CHECK(sys::clone_newnet == CLONE_NEWNET);
    CHECK(sys::clone_clear_sighand == CLONE_CLEAR_SIGHAND);
    CHECK(sys::clone_into_cgroup == CLONE_INTO_CGROUP);
    CHECK(sys::resolve_no_xdev == RESOLVE_NO_XDEV);
    CHECK(sys::resolve_no_magiclinks == RESOLVE_NO_MAGICLINKS);
    CHECK(sys::resolve_no_symlinks == RESOLVE_NO_SYMLINKS);
    CHECK(sys::resolve_beneath == RESOLVE_BENEATH);
    CHECK(sys::resolve_in_root == RESOLVE_IN_ROOT);
}

TEST_CASE("the flags of the mount calls are the kernel's") {
    CHECK(sys::ms_private == MS_PRIVATE);
    CHECK(sys::ms_slave == MS_SLAVE);
    CHECK(sys::ms_rec == MS_REC);
    CHECK(sys::mnt_detach == MNT_DETACH);
    CHECK(sys::at_empty_path == AT_EMPTY_PATH);
    CHECK(sys::open_tree_cloexec == O_CLOEXEC);
#ifdef FSOPEN_CLOEXEC  // <sys/mount.h> of glibc 2.36 and later
    CHECK(sys::fsopen_cloexec == FSOPEN_CLOEXEC);
    CHECK(sys::fsmount_cloexec == FSMOUNT_CLOEXEC);
    CHECK(sys::fsconfig_set_flag == FSCONFIG_SET_FLAG);
    CHECK(sys::fsconfig_set_string == FSCONFIG_SET_STRING);
    CHECK(sys::fsconfig_set_fd == FSCONFIG_SET_FD);
    CHECK(sys::fsconfig_cmd_create == FSCONFIG_CMD_CREATE);
    CHECK(sys::open_tree_clone == OPEN_TREE_CLONE);
    CHECK(sys::move_mount_f_empty_path == MOVE_MOUNT_F_EMPTY_PATH);
    CHECK(sys::move_mount_t_empty_path == MOVE_MOUNT_T_EMPTY_PATH);
    CHECK(sys::mount_attr_rdonly == MOUNT_ATTR_RDONLY);
    CHECK(sys::mount_attr_nosuid == MOUNT_ATTR_NOSUID);
    CHECK(sys::mount_attr_nodev == MOUNT_ATTR_NODEV);
    CHECK(sys::mount_attr_noexec == MOUNT_ATTR_NOEXEC);
    CHECK(sys::mount_attr_idmap == MOUNT_ATTR_IDMAP);
    CHECK(sizeof(sys::mount_attributes) == sizeof(struct mount_attr));
    CHECK(offsetof(sys::mount_attributes, userns_fd) == offsetof(struct mount_attr, userns_fd));
#endif
#ifdef AT_RECURSIVE
    CHECK(sys::at_recursive == AT_RECURSIVE);
#endif
}

TEST_CASE("the structures are laid out as the kernel's") {
    CHECK(sizeof(sys::open_how) == sizeof(::open_how));
    CHECK(offsetof(sys::open_how, resolve) == offsetof(::open_how, resolve));
    CHECK(sizeof(sys::clone_arguments) == sizeof(::clone_args));
    CHECK(offsetof(sys::clone_arguments, pidfd) == offsetof(::clone_args, pidfd));
    CHECK(offsetof(sys::clone_arguments, parent_tid) == offsetof(::clone_args, parent_tid));
    CHECK(offsetof(sys::clone_arguments, stack) == offsetof(::clone_args, stack));
    CHECK(offsetof(sys::clone_arguments, cgroup) == offsetof(::clone_args, cgroup));
}

TEST_CASE("the magic numbers are the kernel's") {
    CHECK(sys::tiocgptpeer == TIOCGPTPEER);
    CHECK(sys::proc_super_magic == PROC_SUPER_MAGIC);
    CHECK(sys::sysfs_magic == SYSFS_MAGIC);
    CHECK(sys::cgroup2_super_magic == CGROUP2_SUPER_MAGIC);
    CHECK(sys::tmpfs_magic == TMPFS_MAGIC);
    CHECK(sys::overlayfs_super_magic == OVERLAYFS_SUPER_MAGIC);
    CHECK(sys::nsfs_magic == NSFS_MAGIC);
}

TEST_CASE("the arguments of Landlock's calls are the kernel's") {
    CHECK(sys::landlock_create_ruleset_version == LANDLOCK_CREATE_RULESET_VERSION);
    CHECK(sys::landlock_rule_path_beneath == LANDLOCK_RULE_PATH_BENEATH);
    CHECK(sizeof(sys::landlock_path_beneath) == sizeof(landlock_path_beneath_attr));
    CHECK(offsetof(sys::landlock_path_beneath, parent_fd) ==
          offsetof(landlock_path_beneath_attr, parent_fd));
    CHECK(offsetof(sys::landlock_ruleset, handled_access_fs) ==
          offsetof(landlock_ruleset_attr, handled_access_fs));
}
