// What is mounted below the root as steps: /proc, /sys with the container's own cgroup view, /dev
// with its nodes, the caller's mounts, the made files of /etc, masked and read-only paths.
//
// /proc and /sys are mounted before anything below them is named, and are named by the descriptors
// of these very mounts and never by a path that the image could have prepared (CVE-2025-31133,
// CVE-2025-52881: a mask or a write that went to another file).
#pragma once

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
/// Whether /sys is a sysfs of the container's own network namespace, or the host's.
enum class sysfs_source : std::uint8_t { own, host };
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

    /// sysfs shows the interfaces of the network namespace that the child is in. Where that is not
    /// its user namespace's the kernel makes no sysfs (EPERM): then it is the host's, read-only.
    void sys(cgroup_view groups, sysfs_source from) {
        plan_.begin(phase::sys);
        const auto read_only = nosuid_nodev_noexec | sys::mount_attr_rdonly;
        if (from == sysfs_source::host) {
            const char* shown = "the host's /sys on /sys";
            sys_ = root_.host_copy("/sys", {.attributes = read_only}, shown, plan_.new_slot());
            root_.attach_inside(sys_, root_.root(), "/sys", {}, shown);
        } else {
            sys_ = root_.mount_new("sysfs", "sysfs on /sys", {}, read_only);
            root_.attach_inside(sys_, root_.root(), "/sys", {}, "sysfs on /sys");
        }
        if (groups == cgroup_view::none && from == sysfs_source::host) {
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
    void dev(device_source nodes, bool own_ipc, std::optional<unsigned> tty_group) {
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
        for (const device_node& node : default_devices)
            if (nodes == device_source::made)
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

    /// A mount of the host's that the supervisor holds.
    void held(const held_mount& from) {
        plan_.begin(phase::mounts);
        root_.attach_inside(plan_.keep(from.mount.get()), root_.root(), from.target,
                            {.directory = from.directory, .follow = true},
                            plan_.text("mount on " + from.target));
    }
    /// A mount of the host's that the child copies.
    void host(const bind_mount& wanted) {
        plan_.begin(phase::mounts);
        const char* shown = plan_.text("mount on " + wanted.target);
        const bool directory = is_host_directory(wanted.source);
        const slot copy =
            root_.host_copy(wanted.source, {.access = wanted.access, .depth = wanted.depth}, shown);
        root_.attach_inside(copy, root_.root(), wanted.target,
                            {.directory = directory, .follow = true}, shown);
        plan_.call(shown, SYS_close, {copy});
    }
    void tmpfs(const tmpfs_mount& wanted) {
        plan_.begin(phase::mounts);
        const char* shown = plan_.text("tmpfs on " + wanted.target);
        std::string mode = "0";
        for (int shift = 9; shift >= 0; shift -= 3)
            mode += static_cast<char>('0' + (wanted.mode >> shift & 7));
        const std::string size = std::to_string(wanted.size.count);
        const slot mount = root_.mount_new(
            "tmpfs", shown, {{"mode", mode.c_str()}, {"size", size.c_str()}}, nosuid_nodev);
        root_.attach_inside(mount, root_.root(), wanted.target, {.follow = true}, shown);
    }

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

    /// `is_directory(path)` says of a path of this kernel's /proc or /sys what it is; nothing when
    /// it is not there.
    template <class Kind>
    void masks(Kind&& is_directory) {
        plan_.begin(phase::masks);
        root_.make_directory(root_.staging(), "empty", 0555);
        const auto mask = [&](operand below, const char* prefix, std::string_view name) {
            const std::string full = prefix + std::string(name);
            const std::optional<bool> directory = is_directory(full);
            if (!directory) return;
            const char* shown = plan_.text("mask on " + full);
            const slot cover = *directory ? root_.copy(root_.staging(), "empty", shown)
                                          : root_.copy(dev_, "null", shown);
            if (*directory)
                root_.set_attributes(cover, nosuid_nodev_noexec | sys::mount_attr_rdonly, shown);
            root_.attach_at(cover, below, plan_.text(name), shown);
            plan_.tolerate(ENOENT);
        };
        for (const auto name : masked_proc_paths) mask(proc_, "/proc/", name);
        for (const auto name : masked_sys_paths) mask(sys_, "/sys/", name);
        for (const auto name : readonly_proc_paths) {
            const std::string full = "/proc/" + std::string(name);
            if (!is_directory(full)) continue;
            const char* shown = plan_.text("read-only " + full);
            const slot copy = root_.copy(proc_, plan_.text(name), shown);
            root_.set_attributes(copy, sys::mount_attr_rdonly, shown);
            root_.attach_at(copy, proc_, plan_.text(name), shown);
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
