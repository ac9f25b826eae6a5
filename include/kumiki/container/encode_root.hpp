// The root filesystem as steps: staging, root, /proc, /sys, /dev, mounts, masks, pivot.
//
// Everything is mounted in the child's own mount namespace, on descriptors, by the mount calls of
// 5.2 and 5.12. A tmpfs that only this namespace sees is the staging place: it covers the host's
// /proc, which nothing of the plan needs (and no path of a layer may lead through), holds the
// overlay's upper layer and the made files, and goes with the old root.
#pragma once

#include <sys/stat.h>
#include <sys/sysmacros.h>

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <kumiki/container/held_mounts.hpp>
#include <kumiki/container/plan.hpp>
#include <kumiki/core/text.hpp>
#include <kumiki/rootfs/mount.hpp>
#include <kumiki/rootfs/rootfs.hpp>
#include <kumiki/sys/abi.hpp>

namespace kumiki::inline v0::detail {

inline constexpr std::uint64_t nosuid_nodev = sys::mount_attr_nosuid | sys::mount_attr_nodev;
inline constexpr std::uint64_t nosuid_nodev_noexec = nosuid_nodev | sys::mount_attr_noexec;

/// Adds the steps of mounts to a plan; knows the descriptors that later ones need.
class root_encoder {
  public:
    explicit root_encoder(plan& to) : plan_(to) {}

    /// A value that a filesystem is configured with; a null value sets a flag.
    struct setting {
        const char* key;
        const char* value;
    };

    /// A new filesystem, mounted but not attached; its descriptor is in the slot returned.
    slot mount_new(const char* type, std::string_view shown,
                   std::initializer_list<setting> settings, std::uint64_t attributes) {
        const slot context = plan_.new_slot();
        plan_.call(shown, sys::nr_fsopen, {plan_.text(type), sys::fsopen_cloexec}).into(context);
        for (const setting& each : settings)
            plan_.call(
                shown, sys::nr_fsconfig,
                {context, each.value != nullptr ? sys::fsconfig_set_string : sys::fsconfig_set_flag,
                 plan_.text(each.key),
                 each.value != nullptr ? operand(plan_.text(each.value)) : operand(0), 0});
        plan_.call(shown, sys::nr_fsconfig, {context, sys::fsconfig_cmd_create, 0, 0, 0});
        // The context's slot takes the mount: the context itself is closed with all the rest.
        plan_.call(shown, sys::nr_fsmount, {context, sys::fsmount_cloexec, attributes})
            .into(context);
        return context;
    }

    /// Attaches a mount at `name` below the directory `at`, both of which only the plan has made.
    void attach_at(operand mount, operand at, const char* name, std::string_view shown) {
        plan_.call(shown, sys::nr_move_mount,
                   {mount, plan_.text(""), at, plan_.text(name), sys::move_mount_f_empty_path});
    }

    /// What attach_inside does where a path is missing and cannot be made.
    enum class when_read_only { fail, leave_out };

    /// Attaches a mount at `path` below `root`, made where missing and never outside the root.
    void attach_inside(operand mount, operand root, std::string_view path, path_walk walk,
                       std::string_view shown, when_read_only otherwise = when_read_only::fail) {
        while (path.starts_with('/')) path.remove_prefix(1);
        walk.path = plan_.text(path);
        walk.optional = otherwise == when_read_only::leave_out;
        walk.scratch = const_cast<char*>(plan_.text(path));
        plan_.special(step_kind::make_path, shown, {root, plan_.object(walk)}).into(target_);
        if (otherwise == when_read_only::leave_out) plan_.tolerate(EROFS, 2);
        plan_.call(shown, sys::nr_move_mount,
                   {mount, plan_.text(""), target_, plan_.text(""),
                    sys::move_mount_f_empty_path | sys::move_mount_t_empty_path});
        plan_.call(shown, SYS_close, {target_});
    }

    /// The copy of an attached mount (or of a part of it) in a slot that is used again and again.
    slot copy(operand directory, const char* path, std::string_view shown) {
        plan_
            .call(shown, sys::nr_open_tree,
                  {directory, plan_.text(path),
                   sys::open_tree_clone | sys::open_tree_cloexec | sys::at_empty_path})
            .into(copy_);
        return copy_;
    }

    /// The copy of a mount of the host that the child itself makes, where the supervisor may not (of
    /// an ordinary user); into a slot of its own, or that of copy().
    slot host_copy(const std::string& source, const copy_options& options, std::string_view shown,
                   std::optional<slot> own = {}) {
        const slot where = own.value_or(copy_);
        const unsigned recursive = options.depth == bind_depth::recursive ? sys::at_recursive : 0;
        plan_
            .call(shown, sys::nr_open_tree,
                  {AT_FDCWD, plan_.text(source),
                   sys::open_tree_clone | sys::open_tree_cloexec | recursive})
            .into(where);
        std::uint64_t attributes = options.attributes;
        if (options.access == access_mode::read_only) attributes |= sys::mount_attr_rdonly;
        if (attributes != 0) set_attributes(where, attributes, shown, 0, recursive);
        return where;
    }

    /// Changes attributes of the mount that `mount` names.
    void set_attributes(operand mount, std::uint64_t set, std::string_view shown,
                        std::uint64_t clear = 0, unsigned recursive = 0) {
        plan_.call(shown, sys::nr_mount_setattr,
                   {mount, plan_.text(""), sys::at_empty_path | recursive,
                    plan_.object(sys::mount_attributes{.set = set, .clear = clear}),
                    sizeof(sys::mount_attributes)});
    }

    void make_directory(operand at, const char* name, unsigned mode = 0755) {
        plan_.call(plan_.text(name), SYS_mkdirat, {at, plan_.text(name), mode});
    }

    /// The staging tmpfs in place of the host's /proc, of which `size` may be used.
    void stage(bytes size) {
        plan_.call("the umask", SYS_umask, {0});
        plan_.call("propagation of /", sys::nr_mount_setattr,
                   {AT_FDCWD, plan_.text("/"), sys::at_recursive,
                    plan_.object(sys::mount_attributes{.propagation = sys::ms_private}),
                    sizeof(sys::mount_attributes)});
        const std::string most = std::to_string(size.count);
        staging_ = mount_new("tmpfs", "the staging tmpfs",
                             {{"mode", "0755"}, {"size", most.c_str()}}, nosuid_nodev);
        attach_at(staging_, AT_FDCWD, "/proc", "the staging tmpfs");
        make_directory(staging_, "root");
    }

    /// An overlay of `lowers` (paths as the child sees them, topmost first) becomes the root.
    void overlay(const std::vector<std::string>& lowers, const overlay_upper& upper,
                 bool in_user_namespace) {
        std::string lowerdir;
        for (const std::string& lower : lowers) {
            if (!lowerdir.empty()) lowerdir += ':';
            for (const char c : lower) {
                if (c == ':' || c == '\\') lowerdir += '\\';
                lowerdir += c;
            }
        }
        if (upper.upper.empty()) {
            make_directory(staging_, "upper");
            make_directory(staging_, "work");
        }
        const bool own = upper.upper.empty();
        root_ = mount_new(
            "overlay", "the overlay root",
            {{"lowerdir", lowerdir.c_str()},
             {"upperdir", own ? "/proc/upper" : upper.upper.c_str()},
             {"workdir", own ? "/proc/work" : upper.work.c_str()},
             in_user_namespace ? setting{"userxattr", nullptr} : setting{"source", "kumiki"}},
            sys::mount_attr_nodev);
        attach_at(root_, staging_, "root", "the overlay root");
    }

    /// A detached mount that the supervisor holds becomes the root.
    void directory(const held_mount& held) {
        root_ = plan_.keep(held.mount.get());
        attach_at(root_, staging_, "root", "the root directory");
    }
    /// The same with a mount that the child copies.
    void directory(const std::string& source) {
        root_ = host_copy(source, {.attributes = sys::mount_attr_nodev}, plan_.text(source),
                          plan_.new_slot());
        attach_at(root_, staging_, "root", "the root directory");
    }

    operand root() const noexcept { return root_; }
    operand staging() const noexcept { return staging_; }

    /// The old root goes, and with it everything of the host; the root is "/" from here on.
    void pivot(bool read_only) {
        if (read_only) set_attributes(root_, sys::mount_attr_rdonly, "the root");
        plan_.call("the new root", SYS_fchdir, {root_});
        plan_.call("the new root", SYS_pivot_root, {plan_.text("."), plan_.text(".")});
        plan_.call("the old root", SYS_umount2, {plan_.text("."), sys::mnt_detach});
        plan_.call("/", SYS_chdir, {plan_.text("/")});
    }

  private:
    plan& plan_;
    slot target_ = plan_.new_slot();
    slot copy_ = plan_.new_slot();
    operand staging_ = -1;
    operand root_ = -1;
};

}  // namespace kumiki::inline v0::detail
