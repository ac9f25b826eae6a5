// What every container has below its root as steps: /proc, /sys with the container's own cgroup
// view, /dev with its nodes, the made files of /etc.
//
// /proc and /sys are mounted before anything below them is named, and are named by the descriptors
// of these very mounts and never by a path that the image could have prepared (CVE-2025-31133,
// CVE-2025-52881: a mask or a write that went to another file).
#pragma once

#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>

#include <optional>
#include <string>
#include <variant>
#include <vector>

#include <kumiki/container/encode_root.hpp>
#include <kumiki/rootfs/defaults.hpp>

namespace kumiki::inline v0::detail {

/// A file that the container sees and that exists nowhere else.
struct made_file {
    std::string target;   ///< absolute, in the container
    std::string content;
};

/// Whether /sys/fs/cgroup shows the container's own group, or nothing.
enum class cgroup_view : std::uint8_t { none, own };
/// Where the nodes of /dev come from: a user namespace may make none, and shows the host's.
enum class device_source : std::uint8_t { made, host };

/// Adds the mounts below the root. The order of the calls is the order in the container.
class mounts_encoder {
  public:
    mounts_encoder(plan& to, root_encoder& root) : plan_(to), root_(root) {}

    void proc() {
        plan_.begin(phase::proc);
        proc_ = root_.mount_new("proc", "proc on /proc", {}, nosuid_nodev_noexec);
        root_.attach_inside(proc_, root_.root(), "/proc", {}, "proc on /proc");
    }
    operand proc_mount() const noexcept { return proc_; }

    /// sysfs shows the interfaces of the network namespace that the child is in. `host` is the
    /// host's where the child may not make one.
    void sys(cgroup_view groups, std::optional<operand> host) {
        plan_.begin(phase::sys);
        const auto read_only = nosuid_nodev_noexec | sys::mount_attr_rdonly;
        sys_ = host ? *host : operand(root_.mount_new("sysfs", "sysfs on /sys", {}, read_only));
        root_.attach_inside(sys_, root_.root(), "/sys", {}, "sysfs on /sys");
        if (groups == cgroup_view::none && host) {
            const char* shown = "mask on /sys/fs/cgroup";
            const slot cover =
                root_.mount_new("tmpfs", shown, {{"size", "4k"}, {"mode", "0555"}}, read_only);
            root_.attach_at(cover, sys_, "fs/cgroup", shown);
        }
        if (groups == cgroup_view::none) return;
        const slot cgroup = root_.mount_new("cgroup2", "cgroup2 on /sys/fs/cgroup", {}, read_only);
        root_.attach_at(cgroup, sys_, "fs/cgroup", "cgroup2 on /sys/fs/cgroup");
    }

    /// `tty_group` owns the terminals where it is given.
    void dev(const std::vector<device_node>& nodes, device_source from, bool own_ipc,
             std::optional<unsigned> tty_group) {
        plan_.begin(phase::dev);
        // A directory of the staging tmpfs: a filesystem of its own would cost as much again at the
        // end. Only this mount of it lets devices be opened.
        const char* shown = "tmpfs on /dev";
        root_.make_directory(root_.staging(), "dev");
        const slot dev = plan_.new_slot();
        plan_
            .call(
                shown, sys::nr_open_tree,
                {root_.staging(), plan_.text("dev"), sys::open_tree_clone | sys::open_tree_cloexec})
            .into(dev);
        root_.set_attributes(dev, sys::mount_attr_noexec, shown, sys::mount_attr_nodev);
        dev_ = dev;
        root_.attach_inside(dev_, root_.root(), "/dev", {}, "tmpfs on /dev");
        for (const device_node& node : nodes)
            if (from == device_source::made)
                plan_.call(plan_.text(node.name), SYS_mknodat,
                           {dev_, plan_.text(node.name), S_IFCHR | node.mode,
                            makedev(node.major, node.minor)});
            else
                host_device(node.name);
        for (const device_link& link : default_device_links)
            plan_.call(plan_.text(link.name), SYS_symlinkat,
                       {plan_.text(link.target), dev_, plan_.text(link.name)});
        below_dev("pts");
        const std::string group = tty_group ? std::to_string(*tty_group) : std::string();
        pts_ = root_.mount_new("devpts", "devpts on /dev/pts",
                               {{"ptmxmode", "0666"},
                                {"mode", "0620"},
                                tty_group ? root_encoder::setting{"gid", group.c_str()}
                                          : root_encoder::setting{"newinstance", nullptr}},
                               sys::mount_attr_nosuid | sys::mount_attr_noexec);
        root_.attach_at(pts_, dev_, "pts", "devpts on /dev/pts");
        below_dev("shm");
        root_.attach_at(root_.mount_new("tmpfs", "tmpfs on /dev/shm",
                                        {{"mode", "1777"}, {"size", "64m"}}, nosuid_nodev_noexec),
                        dev_, "shm", "tmpfs on /dev/shm");
        if (!own_ipc) return;
        below_dev("mqueue");
        root_.attach_at(root_.mount_new("mqueue", "mqueue on /dev/mqueue", {}, nosuid_nodev_noexec),
                        dev_, "mqueue", "mqueue on /dev/mqueue");
    }
    operand dev_mount() const noexcept { return dev_; }
    operand pts_mount() const noexcept { return pts_; }

    operand sys_mount() const noexcept { return sys_; }

    /// Files are written in the staging tmpfs, and each is mounted over its place in the root. One
    /// whose place is missing in a read-only root is left out.
    void files(const std::vector<made_file>& files) {
        if (files.empty()) return;
        plan_.begin(phase::mounts);
        const slot fd = plan_.new_slot();
        int number = 0;
        for (const made_file& file : files) {
            const char* shown = plan_.text(file.target);
            const char* name = plan_.text("file" + std::to_string(number++));
            plan_
                .call(shown, SYS_openat,
                      {root_.staging(), name, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0644})
                .into(fd);
            if (!file.content.empty())
                plan_.call(shown, SYS_write, {fd, plan_.text(file.content), file.content.size()});
            plan_.call(shown, SYS_close, {fd});
            const slot copy = root_.copy(root_.staging(), name, shown);
            root_.attach_inside(copy, root_.root(), file.target,
                                {.directory = false, .follow = true}, shown,
                                root_encoder::when_read_only::leave_out);
        }
    }

  private:
    void below_dev(const char* name) { root_.make_directory(dev_, name); }
    void host_device(std::string_view name) {
        const std::string path = "/dev/" + std::string(name);
        const char* shown = plan_.text(path);
        const slot copy =
            root_.host_copy(path,
                            {.depth = bind_depth::single,
                             .attributes = sys::mount_attr_nosuid | sys::mount_attr_noexec},
                            shown);
        root_.attach_inside(copy, dev_, name, {.directory = false}, shown);
        plan_.call(shown, SYS_close, {copy});
    }

    plan& plan_;
    root_encoder& root_;
    operand proc_ = -1;
    operand sys_ = -1;
    operand dev_ = -1;
    operand pts_ = -1;
};

}  // namespace kumiki::inline v0::detail
