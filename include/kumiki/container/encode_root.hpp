// The root filesystem as steps: staging, root, and in the end the pivot.
//
// A tmpfs that only the child's mount namespace sees is the staging place: it covers the host's
// /proc, which nothing of the plan needs (and no path of a layer may lead through), holds the
// overlay's upper layer and the made files, and goes with the old root.
#pragma once

#include <string>
#include <vector>

#include <kumiki/container/encode_overlay.hpp>
#include <kumiki/container/held_mounts.hpp>
#include <kumiki/container/mount_steps.hpp>
#include <kumiki/container/plan.hpp>
#include <kumiki/rootfs/mount_attributes.hpp>
#include <kumiki/rootfs/rootfs.hpp>
#include <kumiki/sys/abi.hpp>

namespace kumiki::inline v0::detail {

/// Adds the steps of the root; knows the descriptors that later ones need.
class root_encoder : public mount_steps {
  public:
    using mount_steps::mount_steps;

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
        attach_at(staging_, AT_FDCWD, staging_path, "the staging tmpfs");
        make_directory(staging_, "root");
    }

    /// An overlay of `lowers` (paths as the child sees them, topmost first) becomes the root.
    void overlay(const std::vector<std::string>& lowers, const overlay_upper& upper,
                 bool in_user_namespace) {
        const bool own = upper.upper.empty();
        if (own) {
            make_directory(staging_, "upper");
            make_directory(staging_, "work");
        }
        const slot mount = plan_.new_slot();
        mount_overlay(plan_, *this, mount,
                      {.lowers = lowers,
                       .upper = own ? "/proc/upper" : upper.upper,
                       .work = own ? "/proc/work" : upper.work,
                       .in_user_namespace = in_user_namespace},
                      staging_, staging_path, "root", sys::mount_attr_nodev, "the overlay root");
        root_ = mount;
    }
    /// A detached mount that the supervisor holds becomes the root.
    void directory(const held_mount& held) {
        root_ = plan_.keep(held.mount.get());
        attach_at(root_, staging_, "root", "the root directory");
    }
    /// The same with a mount that the child copies.
    void directory(const std::string& source, mount_propagation propagation) {
        root_ = host_copy(source,
                          {.attributes = sys::mount_attr_nodev,
                           .propagation = propagation,
                           .lookup = AT_SYMLINK_NOFOLLOW},
                          plan_.text(source), plan_.new_slot());
        attach_at(root_, staging_, "root", "the root directory");
    }
    /// An empty tmpfs becomes the root.
    void assembled(const assembled_root& wanted) {
        const std::string size = std::to_string(wanted.size.count);
        const std::string mode = octal(wanted.mode);
        root_ = mount_new("tmpfs", "the assembled root",
                          {{"mode", mode.c_str()}, {"size", size.c_str()}}, sys::mount_attr_nodev);
        attach_at(root_, staging_, "root", "the assembled root");
    }
    /// A root that is there already, of a container that runs.
    void existing(operand root) { root_ = root; }

    operand root() const noexcept { return root_; }
    operand staging() const noexcept { return staging_; }
    static constexpr const char* staging_path = "/proc";

    /// The old root goes, and with it everything of the host; the root is "/" from here on.
    void pivot(access_mode access, mount_propagation propagation) {
        if (access == access_mode::read_only)
            set_attributes(root_, sys::mount_attr_rdonly, "the root");
        plan_.call("the new root", SYS_fchdir, {root_});
        plan_.call("the new root", SYS_pivot_root, {plan_.text("."), plan_.text(".")});
        plan_.call("the old root", SYS_umount2, {plan_.text("."), sys::mnt_detach});
        plan_.call("/", SYS_chdir, {plan_.text("/")});
        // Not before: pivot_root(2) refuses a root that is shared. A slave is one from its making on.
        if (propagation == mount_propagation::shared ||
            propagation == mount_propagation::unbindable)
            set_attributes(root_,
                           sys::mount_attributes{.propagation = propagation_bit(propagation)},
                           "propagation of the root");
    }

  private:
    operand staging_ = -1;
    operand root_ = -1;
};

}  // namespace kumiki::inline v0::detail
