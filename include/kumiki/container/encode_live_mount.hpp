// How a mount comes into a container that runs, and how it goes, as the plan of a child that enters
// the container's mount namespace (live_mounts.hpp).
//
// What the host lends to an ordinary user's container is copied by that child: in a copy of the
// host's mount namespace that belongs to the container's users, before it enters the container's.
// Sources: user_namespaces(7), mount_namespaces(7), open_tree(2).
#pragma once

#include <sched.h>
#include <sys/prctl.h>

#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include <kumiki/container/encode_user_mounts.hpp>
#include <kumiki/container/encoded_plan.hpp>
#include <kumiki/ns/kind.hpp>

namespace kumiki::inline v0 {

/// How a mount goes.
enum class unmount_mode : std::uint8_t {
    unless_busy,
    detach,  ///< out of sight at once, and gone when its last user is
};

namespace detail {

/// The container that is entered, and by whom.
struct live_entry {
    int pidfd = -1;  ///< of its first process
    int control = -1;
    owner_maps owners{};
    bool unprivileged = false;  ///< by an ordinary user
    bool sets_groups = true;
};

/// The steps by which a child gets to the root of a container.
class live_entry_encoder {
  public:
    live_entry_encoder(plan& to, const live_entry& where) : plan_(to), where_(where) {
        plan_.keep(where.control);
        plan_.begin(phase::descriptors);
        plan_.call("its memory", SYS_prctl, {PR_SET_DUMPABLE, 0, 0, 0, 0});
        plan_.call("the umask", SYS_umask, {0});
        plan_.begin(phase::enter);
    }

    /// Becomes root of the container's users; still among the host's mounts.
    void enter_users() {
        enter("the container's users", namespace_kind::user);
        become_root();
        entered_users_ = true;
    }
    /// The container's mounts; its root's descriptor is in the slot returned.
    slot enter_mounts() {
        const bool with_users = where_.owners.own() && !entered_users_;
        enter("the container's mounts",
              with_users ? namespace_kind::mount | namespace_kind::user : namespace_kind::mount);
        if (with_users) become_root();
        const slot root = plan_.new_slot();
        plan_.call("/", SYS_openat, {AT_FDCWD, plan_.text("/"), O_PATH | O_DIRECTORY | O_CLOEXEC})
            .into(root);
        return root;
    }
    /// Nothing more is to be done.
    void end() { plan_.call("the end", SYS_exit_group, {0}); }

  private:
    void enter(const char* shown, namespace_kind kinds) {
        plan_.call(shown, SYS_setns, {plan_.keep(where_.pidfd), clone_flags(kinds)});
    }
    void become_root() {
        plan_.call("root's group in the user namespace", SYS_setresgid, {0, 0, 0});
        plan_.call("root in the user namespace", SYS_setresuid, {0, 0, 0});
        if (where_.sets_groups)
            plan_.call("root's groups in the user namespace", SYS_setgroups, {0, 0});
        plan_.call("its memory", SYS_prctl, {PR_SET_DUMPABLE, 0, 0, 0, 0});
    }

    plan& plan_;
    const live_entry& where_;
    bool entered_users_ = false;
};

/// What an ordinary user's container is lent, copied by the child; nothing for what it makes itself.
class live_copy_encoder {
  public:
    live_copy_encoder(plan& to, mount_steps& mounts) : plan_(to), mounts_(mounts) {}

    std::optional<slot> copy(const mount_description& wanted) {
        return std::visit([this](const auto& each) { return encode(each); }, wanted);
    }

  private:
    template <class Other>
    std::optional<slot> encode(const Other&) {
        return {};
    }
    std::optional<slot> encode(const bind_mount& wanted) {
        return copy_of(wanted.source, options_of(wanted), "mount on " + wanted.target);
    }
    std::optional<slot> encode(const device_mount& wanted) {
        const std::string& source = wanted.source.empty() ? wanted.target : wanted.source;
        require_device(wanted, sys::status_at(source), source);
        return copy_of(source, device_options(), "device " + wanted.target);
    }
    slot copy_of(const std::string& source, const copy_options& options, const std::string& what) {
        const char* shown = plan_.text(what);
        own_mounts(shown);
        return mounts_.host_copy(source, options, shown, plan_.new_slot());
    }
    /// A file is made in a tmpfs on top of everything that this copy of the host's mounts has.
    std::optional<slot> encode(const file_mount& wanted) {
        const char* shown = plan_.text("file " + wanted.target);
        own_mounts(shown);
        const std::string size = std::to_string(wanted.content.size() + (64 << 10));
        const slot place = mounts_.mount_new("tmpfs", shown, {{"size", size.c_str()}},
                                             sys::mount_attr_nosuid | sys::mount_attr_nodev);
        mounts_.attach_at(place, AT_FDCWD, "/", shown);
        const slot file = plan_.new_slot();
        plan_
            .call(shown, SYS_openat,
                  {place, plan_.text("file"), O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, wanted.mode})
            .into(file);
        if (!wanted.content.empty())
            plan_.call(shown, SYS_write, {file, plan_.text(wanted.content), wanted.content.size()});
        if (wanted.user != 0 || wanted.group != 0)
            plan_.call(shown, SYS_fchown, {file, wanted.user, wanted.group});
        plan_.call(shown, SYS_close, {file});
        const slot copied = mounts_.copy(place, "file", shown);
        if (wanted.access == access_mode::read_only)
            mounts_.set_attributes(copied, sys::mount_attr_rdonly, shown);
        return copied;
    }
    void own_mounts(const char* shown) {
        plan_.begin(phase::mounts);
        plan_.call(shown, SYS_unshare, {int{CLONE_NEWNS}});
    }

    plan& plan_;
    mount_steps& mounts_;
};

/// Writes down how `wanted` comes into a container.
inline encoded_plan encode_live_mount(const mount_description& wanted, const live_entry& where) {
    encoded_plan out;
    root_encoder root(out.plan);
    live_entry_encoder entry(out.plan, where);
    std::optional<slot> copied;
    if (where.unprivileged) {
        entry.enter_users();
        copied = live_copy_encoder(out.plan, root).copy(wanted);
        out.plan.begin(phase::enter);
    }
    root.existing(entry.enter_mounts());
    user_mounts_encoder(out.plan, root, {out.held, out.claims, where.unprivileged, copied},
                        where.owners)
        .add(wanted);
    entry.end();
    out.program = out.plan.finish();
    return out;
}

/// Writes down how what is mounted at `path` goes. The directory that holds it is found by its
/// descriptor, and the mount by its name there: a descriptor of its own would keep it busy.
inline encoded_plan encode_live_unmount(std::string_view path, unmount_mode mode,
                                        const live_entry& where) {
    encoded_plan out;
    plan& to = out.plan;
    live_entry_encoder entry(to, where);
    const slot root = entry.enter_mounts();
    to.begin(phase::mounts);
    const std::vector<std::string_view> parts = require_below_root("mount target", path);
    std::string holder = "/";
    for (std::size_t i = 0; i + 1 < parts.size(); ++i) holder.append(parts[i]) += '/';
    const char* shown = to.text(path);
    const slot directory = to.new_slot();
    to.call(shown, sys::nr_openat2,
            {root, to.text(holder),
             to.object(sys::open_how{.flags = O_PATH | O_DIRECTORY | O_CLOEXEC,
                                     .mode = 0,
                                     .resolve = sys::resolve_in_root | sys::resolve_no_magiclinks}),
             sizeof(sys::open_how)})
        .into(directory);
    to.call(shown, SYS_fchdir, {directory});
    to.call(shown, SYS_umount2,
            {to.text(parts.back()),
             sys::umount_nofollow | (mode == unmount_mode::detach ? sys::mnt_detach : 0)});
    entry.end();
    out.program = to.finish();
    return out;
}

}  // namespace detail
}  // namespace kumiki::inline v0
