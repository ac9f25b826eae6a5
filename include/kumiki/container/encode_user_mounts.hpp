// What the user of a container wants in its root as steps: each kind of a mount_description, at a
// start and in a container that runs.
//
// What the host lends is held by the supervisor beforehand (held_mounts.hpp); new filesystems are made
// by the child, so that they belong to the container's own user namespace. No target leaves the root.
#pragma once

#include <sys/sysmacros.h>

#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include <kumiki/container/encode_root.hpp>
#include <kumiki/container/held_files.hpp>
#include <kumiki/container/held_mounts.hpp>
#include <kumiki/rootfs/mount.hpp>
#include <kumiki/rootfs/upper_lock.hpp>

namespace kumiki::inline v0::detail {

/// What the supervisor keeps for what the steps name: mounts up to the end of the start, claims up
/// to the end of the container.
struct lent_by_host {
    std::vector<held_mount>& mounts;
    std::vector<unique_fd>& claims;
    bool by_child = false;  ///< mounts are copied by the child: of an ordinary user
    std::optional<slot> copied{};  ///< it has been, by steps before these
};

/// Adds the steps of one description after another.
class user_mounts_encoder {
  public:
    user_mounts_encoder(plan& to, root_encoder& root, lent_by_host lent, owner_maps owners)
        : plan_(to), root_(root), lent_(lent), owners_(owners) {}

    void add(const mount_description& wanted) {
        plan_.begin(phase::mounts);
        std::visit([this](const auto& each) { encode(each); }, wanted);
    }

  private:
    /// There is a staging place: the container is being started, and paths are still the host's.
    bool starting() const noexcept { return root_.staging().value() != -1; }

    void encode(const bind_mount& wanted) {
        if (lent_.by_child) return copy_in_child(wanted);
        lent_.mounts.push_back(hold_mount(wanted, owners_));
        attach_held("mount on ");
    }
    void copy_in_child(const bind_mount& wanted) {
        if (wanted.ids)
            throw invalid_input("bind mount", wanted.target,
                                "Owners can be shown as others by the host's root only.");
        const char* shown = plan_.text("mount on " + wanted.target);
        const bool directory = is_host_directory(wanted.source);
        if (lent_.copied) return attach_copied(wanted.target, directory, shown);
        root_.attach_inside(root_.host_copy(wanted.source, options_of(wanted), shown), root_.root(),
                            wanted.target, {.directory = directory, .follow = true}, shown);
        root_.close_copy(shown);
    }
    void attach_copied(const std::string& target, bool directory, const char* shown) {
        root_.attach_inside(*lent_.copied, root_.root(), target,
                            {.directory = directory, .follow = true}, shown);
    }
    void attach_held(const char* what) {
        const held_mount& held = lent_.mounts.back();
        root_.attach_inside(plan_.keep(held.mount.get()), root_.root(), held.target,
                            {.directory = held.directory, .follow = true},
                            plan_.text(what + held.target));
    }

    void encode(const tmpfs_mount& wanted) {
        if (wanted.content == tmpfs_content::copy_up) return copy_up(wanted);
        const char* shown = plan_.text("tmpfs on " + wanted.target);
        const slot mount = tmpfs(wanted, wanted.mode, bits(wanted.flags, wanted.access), shown);
        root_.attach_inside(mount, root_.root(), wanted.target, {.follow = true}, shown);
        root_.close_passing(shown);
    }
    slot tmpfs(const tmpfs_mount& wanted, unsigned mode, std::uint64_t attributes,
               const char* shown) {
        const std::string bits = octal(mode);
        const std::string size = std::to_string(wanted.size.count);
        const std::string inodes = std::to_string(wanted.inodes);
        return root_.mount_passing("tmpfs", shown,
                                   {{"mode", bits.c_str()},
                                    {"size", size.c_str()},
                                    {wanted.inodes != 0 ? "nr_inodes" : nullptr, inodes.c_str()}},
                                   attributes);
    }

    /// An overlay of what is there, found by its descriptor: the working directory leads to it, and
    /// no path.
    void copy_up(const tmpfs_mount& wanted) {
        const char* shown = plan_.text("copy-up tmpfs on " + wanted.target);
        require_start(wanted.target);
        const std::string name = next_name();
        root_.make_directory(root_.staging(), plan_.text(name));
        const slot changes = tmpfs(wanted, 0755, nosuid_nodev, shown);
        root_.attach_at(changes, root_.staging(), plan_.text(name), shown);
        root_.make_directory(changes, "upper", wanted.mode);
        root_.make_directory(changes, "work");
        root_.close_passing(shown);
        const slot target = root_.open_inside(root_.root(), wanted.target, {.follow = true}, shown);
        plan_.call(shown, SYS_fchdir, {target});
        const std::string at = std::string(root_encoder::staging_path) + "/" + name;
        const slot mount =
            root_.mount_passing("overlay", shown,
                                {{"lowerdir", "."},
                                 {"upperdir", (at + "/upper").c_str()},
                                 {"workdir", (at + "/work").c_str()},
                                 owners_.own() ? mount_steps::setting{"userxattr", nullptr}
                                               : mount_steps::setting{"source", "kumiki"}},
                                bits(wanted.flags, wanted.access));
        root_.attach_on(mount, target, shown);
        root_.close_target(shown);
        root_.close_passing(shown);
    }

    void encode(const overlay_mount& wanted) {
        const char* shown = plan_.text("overlay on " + wanted.target);
        require_start(wanted.target);
        const std::string name = next_name();
        const std::string at = std::string(root_encoder::staging_path) + "/" + name;
        overlay_layers layers{.lowers = wanted.lowers,
                              .upper = wanted.upper.upper,
                              .work = wanted.upper.work,
                              .in_user_namespace = owners_.own()};
        root_.make_directory(root_.staging(), plan_.text(name));
        if (layers.upper.empty()) {
            const slot changes = tmpfs({.size = wanted.upper.size}, 0755, nosuid_nodev, shown);
            root_.attach_at(changes, root_.staging(), plan_.text(name), shown);
            root_.make_directory(changes, "upper");
            root_.make_directory(changes, "work");
            root_.close_passing(shown);
            layers.upper = at + "/upper";
            layers.work = at + "/work";
        } else {
            lent_.claims.push_back(lock_upper(layers.upper));
            lent_.claims.push_back(lock_upper(layers.work));
        }
        const std::string place = name + "-overlay";
        root_.make_directory(root_.staging(), plan_.text(place));
        const slot mount = root_.passing_slot();
        mount_overlay(plan_, root_, mount, layers, root_.staging(), root_encoder::staging_path,
                      plan_.text(place), bits(wanted.flags, wanted.access), shown);
        root_.attach_inside(mount, root_.root(), wanted.target, {.follow = true}, shown);
        root_.close_passing(shown);
    }

    /// At a start it is written in the staging tmpfs, and mounted over its place from there.
    void encode(const file_mount& wanted) {
        if (lent_.copied)
            return attach_copied(wanted.target, false, plan_.text("file " + wanted.target));
        if (!starting()) {
            lent_.mounts.push_back(hold_file(wanted, owners_));
            return attach_held("file ");
        }
        const char* shown = plan_.text("file " + wanted.target);
        const char* name = plan_.text(next_name());
        const slot fd = file_slot();
        plan_
            .call(shown, SYS_openat,
                  {root_.staging(), name, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, wanted.mode})
            .into(fd);
        if (!wanted.content.empty())
            plan_.call(shown, SYS_write, {fd, plan_.text(wanted.content), wanted.content.size()});
        if (wanted.user != 0 || wanted.group != 0)
            plan_.call(shown, SYS_fchown, {fd, wanted.user, wanted.group});
        plan_.call(shown, SYS_close, {fd});
        const slot copy = root_.copy(root_.staging(), name, shown);
        if (wanted.access == access_mode::read_only)
            root_.set_attributes(copy, sys::mount_attr_rdonly, shown);
        root_.attach_inside(copy, root_.root(), wanted.target, {.directory = false, .follow = true},
                            shown);
        root_.close_copy(shown);
    }

    void encode(const device_mount& wanted) {
        if (lent_.by_child) {
            const std::string& source = wanted.source.empty() ? wanted.target : wanted.source;
            const char* copied = plan_.text("device " + wanted.target);
            if (lent_.copied) return attach_copied(wanted.target, false, copied);
            require_device(wanted, sys::status_at(source), source);
            root_.attach_inside(root_.host_copy(source, device_options(), copied), root_.root(),
                                wanted.target, {.directory = false, .follow = true}, copied);
            return root_.close_copy(copied);
        }
        if (owners_.own()) {
            lent_.mounts.push_back(hold_device(wanted));
            return attach_held("device ");
        }
        const char* shown = plan_.text("device " + wanted.target);
        const auto place = root_.open_parent(root_.root(), wanted.target, shown);
        const unsigned type = wanted.type == device_type::block ? S_IFBLK : S_IFCHR;
        plan_.call(shown, SYS_mknodat,
                   {place.directory, place.name, type | wanted.mode,
                    ::makedev(wanted.major, wanted.minor)});
        own(place, wanted.user, wanted.group, shown);
        root_.close_target(shown);
    }

    void encode(const symlink_entry& wanted) {
        const char* shown = plan_.text("symbolic link " + wanted.target);
        const auto place = root_.open_parent(root_.root(), wanted.target, shown);
        plan_.call(shown, SYS_symlinkat,
                   {plan_.text(wanted.leads_to), place.directory, place.name});
        root_.close_target(shown);
    }

    void encode(const directory_entry& wanted) {
        const char* shown = plan_.text("directory " + wanted.target);
        const auto place = root_.open_parent(root_.root(), wanted.target, shown);
        const bool owned = wanted.user != 0 || wanted.group != 0;
        plan_.call(shown, SYS_mkdirat, {place.directory, place.name, wanted.mode})
            .tolerate(EEXIST, owned ? 1 : 0);
        own(place, wanted.user, wanted.group, shown);
        root_.close_target(shown);
        // What was there before may be something else.
        root_.open_inside(root_.root(), wanted.target + "/.", {.follow = true}, shown);
        root_.close_target(shown);
    }

    void own(const mount_steps::place& place, std::uint32_t user, std::uint32_t group,
             const char* shown) {
        if (user == 0 && group == 0) return;
        // The name is looked up again: in a container that runs it may be something else by then.
        if (!starting())
            throw invalid_input("owner", place.name,
                                "Other owners than root can be given at the start of a container "
                                "only.");
        plan_.call(shown, SYS_fchownat,
                   {place.directory, place.name, user, group, int{AT_SYMLINK_NOFOLLOW}});
    }
    void require_start(const std::string& target) const {
        if (!starting())
            throw invalid_input("mount", target,
                                "An overlay can be mounted at the start of a container only.");
    }
    static std::uint64_t bits(mount_flag flags, access_mode access) {
        return attribute_bits(flags) |
               (access == access_mode::read_only ? sys::mount_attr_rdonly : 0);
    }
    /// Names in the staging tmpfs that nothing else there has.
    std::string next_name() { return "own" + std::to_string(number_++); }
    slot file_slot() {
        if (!file_) file_ = plan_.new_slot();
        return *file_;
    }

    plan& plan_;
    root_encoder& root_;
    lent_by_host lent_;
    owner_maps owners_;
    std::optional<slot> file_;
    int number_ = 0;
};

}  // namespace kumiki::inline v0::detail
