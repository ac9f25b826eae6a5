// Mounting as steps of a plan: a filesystem made, attached at a place inside of a root and nowhere
// else, copied, changed. What is mounted where is for others to say (encode_root.hpp,
// encode_mounts.hpp, encode_user_mounts.hpp).
//
// Everything is done on descriptors, by the mount calls of 5.2 and 5.12 and by openat2 (5.6).
#pragma once

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>

#include <kumiki/container/held_mounts.hpp>
#include <kumiki/container/plan.hpp>
#include <kumiki/sys/abi.hpp>

namespace kumiki::inline v0::detail {

inline constexpr std::uint64_t nosuid_nodev = sys::mount_attr_nosuid | sys::mount_attr_nodev;
inline constexpr std::uint64_t nosuid_nodev_noexec = nosuid_nodev | sys::mount_attr_noexec;

/// Permission bits as filesystems take them in their options.
inline std::string octal(unsigned mode) {
    std::string text = "0";
    for (int shift = 9; shift >= 0; shift -= 3)
        text += static_cast<char>('0' + (mode >> shift & 7));
    return text;
}

/// Adds the steps of mounts to a plan.
class mount_steps {
  public:
    explicit mount_steps(plan& to) : plan_(to) {}

    /// A value that a filesystem is configured with; a null value sets a flag, a null key nothing.
    struct setting {
        const char* key;
        const char* value;
    };

    /// A new filesystem, mounted but not attached; its descriptor is in the slot returned.
    slot mount_new(const char* type, std::string_view shown,
                   std::initializer_list<setting> settings, std::uint64_t attributes) {
        const slot mount = plan_.new_slot();
        mount_into(mount, type, shown, settings, attributes);
        return mount;
    }
    void mount_into(slot mount, const char* type, std::string_view shown,
                    std::initializer_list<setting> settings, std::uint64_t attributes) {
        // The context's slot takes the mount: the context itself is closed with all the rest.
        configure(mount, type, shown, settings, attributes, mount);
    }
    /// As mount_new, in a slot that is used again and again: to be closed with close_passing().
    slot mount_passing(const char* type, std::string_view shown,
                       std::initializer_list<setting> settings, std::uint64_t attributes) {
        const slot context = brief_slot();
        configure(context, type, shown, settings, attributes, passing_slot());
        plan_.call(shown, SYS_close, {context});
        return passing_slot();
    }
    slot passing_slot() {
        if (!passing_) passing_ = plan_.new_slot();
        return *passing_;
    }
    void close_passing(std::string_view shown) { plan_.call(shown, SYS_close, {*passing_}); }

    /// Attaches a mount at `name` below the directory `at`, both of which only the plan has made.
    void attach_at(operand mount, operand at, const char* name, std::string_view shown) {
        plan_.call(shown, sys::nr_move_mount,
                   {mount, plan_.text(""), at, plan_.text(name), sys::move_mount_f_empty_path});
    }
    /// Attaches a mount at the file or directory that `at` itself names.
    void attach_on(operand mount, operand at, std::string_view shown) {
        plan_.call(shown, sys::nr_move_mount,
                   {mount, plan_.text(""), at, plan_.text(""),
                    sys::move_mount_f_empty_path | sys::move_mount_t_empty_path});
    }

    /// What attach_inside does where a path is missing and cannot be made.
    enum class when_read_only { fail, leave_out };

    /// Attaches a mount at `path` below `root`, made where missing and never outside the root.
    void attach_inside(operand mount, operand root, std::string_view path, path_walk walk,
                       std::string_view shown, when_read_only otherwise = when_read_only::fail) {
        walk.optional = otherwise == when_read_only::leave_out;
        open_inside(root, path, walk, shown);
        if (otherwise == when_read_only::leave_out) plan_.tolerate(EROFS, 2);
        attach_on(mount, target_, shown);
        close_target(shown);
    }
    /// Opens `path` below `root`, made where missing, as the target; to be closed with
    /// close_target().
    slot open_inside(operand root, std::string_view path, path_walk walk, std::string_view shown) {
        while (path.starts_with('/')) path.remove_prefix(1);
        if (path.empty()) path = ".";
        walk.path = plan_.text(path);
        walk.scratch = const_cast<char*>(plan_.text(path));
        plan_.special(step_kind::make_path, shown, {root, plan_.object(walk)}).into(target_);
        return target_;
    }
    /// The directory that holds `path`, likewise, and the last name of the path.
    struct place {
        slot directory;
        const char* name;
    };
    place open_parent(operand root, std::string_view path, std::string_view shown) {
        while (path.ends_with('/')) path.remove_suffix(1);
        const std::size_t at = path.rfind('/');
        const slot directory = open_inside(root, path.substr(0, at), {.follow = true}, shown);
        return {directory, plan_.text(path.substr(at + 1))};
    }
    void close_target(std::string_view shown) { plan_.call(shown, SYS_close, {target_}); }

    /// The copy of an attached mount (or of a part of it) in a slot that is used again and again.
    slot copy(operand directory, const char* path, std::string_view shown, unsigned flags = 0) {
        plan_
            .call(shown, sys::nr_open_tree,
                  {directory, plan_.text(path),
                   flags | sys::open_tree_clone | sys::open_tree_cloexec | sys::at_empty_path})
            .into(copy_);
        return copy_;
    }
    void close_copy(std::string_view shown) { plan_.call(shown, SYS_close, {copy_}); }
    /// The copy of a mount of the host that the child itself makes, where the supervisor may not (of
    /// an ordinary user); into a slot of its own, or that of copy().
    slot host_copy(const std::string& source, const copy_options& options, std::string_view shown,
                   std::optional<slot> own = {}) {
        const slot where = own.value_or(copy_);
        const unsigned recursive = options.depth == bind_depth::recursive ? sys::at_recursive : 0;
        plan_
            .call(shown, sys::nr_open_tree,
                  {AT_FDCWD, plan_.text(source),
                   sys::open_tree_clone | sys::open_tree_cloexec | recursive | options.lookup})
            .into(where);
        const sys::mount_attributes spread{.propagation = propagation_bit(options.propagation)};
        const bool apart = recursive != 0 && options.reach == bind_depth::single;
        sys::mount_attributes wanted{.set = options.attributes, .clear = options.cleared};
        if (options.access == access_mode::read_only) wanted.set |= sys::mount_attr_rdonly;
        if (!apart) wanted.propagation = spread.propagation;
        set_attributes(where, wanted, shown, apart ? 0 : recursive);
        if (apart) set_attributes(where, spread, shown, recursive);
        return where;
    }

    /// Changes attributes of the mount that `mount` names; `flags`: at_recursive for those below.
    void set_attributes(operand mount, const sys::mount_attributes& wanted, std::string_view shown,
                        unsigned flags = 0) {
        plan_.call(shown, sys::nr_mount_setattr,
                   {mount, plan_.text(""), flags | sys::at_empty_path, plan_.object(wanted),
                    sizeof(sys::mount_attributes)});
    }
    void set_attributes(operand mount, std::uint64_t set, std::string_view shown,
                        std::uint64_t clear = 0) {
        set_attributes(mount, sys::mount_attributes{.set = set, .clear = clear}, shown);
    }

    void make_directory(operand at, const char* name, unsigned mode = 0755) {
        plan_.call(plan_.text(name), SYS_mkdirat, {at, plan_.text(name), mode});
    }

    /// A slot for a descriptor that is closed by the steps which opened it.
    slot brief_slot() {
        if (!brief_) brief_ = plan_.new_slot();
        return *brief_;
    }

  protected:
    plan& plan_;

  private:
    void configure(slot context, const char* type, std::string_view shown,
                   std::initializer_list<setting> settings, std::uint64_t attributes, slot mount) {
        plan_.call(shown, sys::nr_fsopen, {plan_.text(type), sys::fsopen_cloexec}).into(context);
        for (const setting& each : settings) {
            if (each.key == nullptr) continue;
            plan_.call(
                shown, sys::nr_fsconfig,
                {context, each.value != nullptr ? sys::fsconfig_set_string : sys::fsconfig_set_flag,
                 plan_.text(each.key),
                 each.value != nullptr ? operand(plan_.text(each.value)) : operand(0), 0});
        }
        plan_.call(shown, sys::nr_fsconfig, {context, sys::fsconfig_cmd_create, 0, 0, 0});
        plan_.call(shown, sys::nr_fsmount, {context, sys::fsmount_cloexec, attributes}).into(mount);
    }

    slot target_ = plan_.new_slot();
    slot copy_ = plan_.new_slot();
    std::optional<slot> passing_;
    std::optional<slot> brief_;
};

}  // namespace kumiki::inline v0::detail
