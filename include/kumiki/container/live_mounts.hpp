// Mounts of a container that runs: one more, or one less.
//
// A child enters the container's mount namespace, and its user namespace where it has one, and
// nothing else: neither its pid namespace nor its cgroup, so that it cannot be seen or stopped from
// inside (a frozen container can be changed). The rules are those of exec.hpp: memory of its own, not
// dumpable from its birth on, no descriptor but the mount and the control socket, and no path that is
// not resolved below the container's root without magic links. It runs a plan of raw calls that ends
// by exit_group. Kernel: 5.8 (setns with a pidfd).
#pragma once

#include <sys/prctl.h>

#include <memory>
#include <string>
#include <utility>

#include <kumiki/container/encode_user_mounts.hpp>
#include <kumiki/container/launch.hpp>

namespace kumiki::inline v0 {

/// Why the mounts of a running container could not be changed.
enum class mount_refusal : std::uint8_t {
    no_place,  ///< the target is missing and cannot be made, or is of the wrong kind
    busy,  ///< something of the container uses it
    not_mounted,  ///< nothing is mounted there
    container_ended,  ///< there is no container any more
    other,
};

/// A change of a running container's mounts that was not made.
class mount_error : public error {
  public:
    mount_error(int code, error_context context, mount_refusal reason)
        : error(code, std::move(context)), reason_(reason) {}
    mount_refusal reason() const noexcept { return reason_; }

  private:
    mount_refusal reason_;
};

/// How a mount goes.
enum class unmount_mode : std::uint8_t {
    unless_busy,
    detach,  ///< out of sight at once, and gone when its last user is
};

namespace detail {

/// How a child gets to the root of a container: its descriptor is in the slot returned.
inline slot encode_entry(plan& to, bool own_users, int pidfd) {
    to.begin(phase::descriptors);
    to.call("its memory", SYS_prctl, {PR_SET_DUMPABLE, 0, 0, 0, 0});
    to.call("the umask", SYS_umask, {0});
    to.begin(phase::enter);
    const namespace_kind joined =
        own_users ? namespace_kind::mount | namespace_kind::user : namespace_kind::mount;
    to.call("the container's mounts", SYS_setns, {to.keep(pidfd), clone_flags(joined)});
    if (own_users) {
        to.call("root's group in the user namespace", SYS_setresgid, {0, 0, 0});
        to.call("root in the user namespace", SYS_setresuid, {0, 0, 0});
        to.call("root's groups in the user namespace", SYS_setgroups, {0, 0});
        to.call("its memory", SYS_prctl, {PR_SET_DUMPABLE, 0, 0, 0, 0});
    }
    const slot root = to.new_slot();
    to.call("/", SYS_openat, {AT_FDCWD, to.text("/"), O_PATH | O_DIRECTORY | O_CLOEXEC}).into(root);
    return root;
}

inline void encode_end(encoded_plan& out) {
    out.plan.call("the end", SYS_exit_group, {0});
    out.program = out.plan.finish();
}

/// Writes down how `wanted` comes into the container whose first process is `pidfd`.
inline encoded_plan encode_live_mount(const mount_description& wanted, owner_maps owners, int pidfd,
                                      int control) {
    encoded_plan out;
    out.plan.keep(control);
    const slot place = encode_entry(out.plan, owners.own(), pidfd);
    root_encoder root(out.plan);
    root.existing(place);
    user_mounts_encoder(out.plan, root, {out.held, out.claims}, owners).add(wanted);
    encode_end(out);
    return out;
}

/// Writes down how what is mounted at `path` goes. The directory that holds it is found by its
/// descriptor, and the mount by its name there: a descriptor of its own would keep it busy.
inline encoded_plan encode_live_unmount(std::string_view path, unmount_mode mode, bool own_users,
                                        int pidfd, int control) {
    encoded_plan out;
    plan& to = out.plan;
    to.keep(control);
    const slot root = encode_entry(to, own_users, pidfd);
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
    encode_end(out);
    return out;
}

/// What a failed step of either plan means.
inline mount_error error_of_live_mount(const plan& steps, const child_report& report,
                                       const std::string& container) {
    const auto index = static_cast<std::size_t>(report.step);
    const step& failed = steps.steps().at(index);
    const int code = report.error;
    const bool unmounting = steps.steps().at(steps.size() - 2).number == SYS_umount2;
    auto reason = mount_refusal::other;
    std::string remedy;
    if (failed.in == phase::enter && code == ESRCH) {
        reason = mount_refusal::container_ended;
        remedy = "The container has ended.";
    } else if (failed.in != phase::mounts) {
        remedy = remedy_of(failed.in, code, {});
    } else if (unmounting && code == EBUSY) {
        reason = mount_refusal::busy;
        remedy =
            "A process of the container uses it: stop it, or unmount with "
            "unmount_mode::detach.";
    } else if (unmounting &&
               (code == EINVAL || code == ENOENT || code == ENOTDIR || code == ELOOP)) {
        reason = mount_refusal::not_mounted;
        remedy = "Nothing is mounted at this path.";
    } else if (!unmounting && (code == EROFS || code == ENOENT || code == ENOTDIR ||
                               code == EACCES || code == EEXIST || code == ELOOP ||
                               (code == EINVAL && failed.number == sys::nr_move_mount))) {
        reason = mount_refusal::no_place;
        remedy = code == EROFS ? "It is missing, and the container's root is read-only."
                 : code == EEXIST
                     ? "There is something at its place."
                     : "Its place is missing and cannot be made, or is of another kind.";
    }
    return mount_error(code,
                       {.operation = unmounting ? "unmount" : "mount",
                        .object = std::string(steps.shown(index)),
                        .step = name_of(failed.in),
                        .container = container,
                        .remedy = std::move(remedy)},
                       reason);
}

inline mount_error container_has_ended(const std::string& name, const char* operation) {
    return mount_error(ESRCH,
                       {.operation = operation,
                        .object = name,
                        .step = name_of(phase::enter),
                        .container = name,
                        .remedy = "The container has ended."},
                       mount_refusal::container_ended);
}

/// Runs a plan that enters the container and ends.
inline task<void> run_inside(scheduler& io, std::string name, std::chrono::milliseconds limit,
                             encoded_plan program, control_sockets sockets) {
    child_process child(0, -1, clone_mode::own_memory);
    // Its own birth place, said so that it is born not dumpable.
    child.set_birth_place(sys::open_at(AT_FDCWD, "/proc/thread-self/ns/pid", O_RDONLY),
                          namespace_kind::pid);
    child.submit(std::move(program), std::move(sockets));
    from_child none;
    auto in_time = co_await with_timeout(io, limit, follow_child(io, child, std::nullopt, none));
    if (!in_time)
        throw mount_error(ETIMEDOUT,
                          {.operation = "change the mounts of",
                           .object = name,
                           .step = name_of(phase::mounts),
                           .container = name,
                           .remedy = "It took longer than the container's start_limit."},
                          mount_refusal::other);
    child.await_clone();
    if (child.clone_error() != 0)
        throw error_of_clone(child.clone_error(), namespace_kind::none, name);
    const child_report& report = child.report();
    if (report.error != 0) {
        const mount_error failure = error_of_live_mount(child.steps(), report, name);
        child.reap();
        throw failure;
    }
    const auto status = child.reap();
    if (!status || status->signal != 0 || status->code != 0)
        throw error_of_death(report, child.steps(), status, name);
}

inline owner_maps owners_of(const container_parts& parts) {
    if (!parts.users) return {};
    return {&parts.users->uids, &parts.users->gids};
}

/// Mounts `wanted` in the container; `parts` must stay until this has ended.
inline task<void> mount_inside(scheduler& io, container_parts& parts, mount_description wanted) {
    validate(wanted);
    require_owners(wanted, owners_of(parts));
    if (const auto* bind = std::get_if<bind_mount>(&wanted);
        bind != nullptr && parts.users && bind->propagation == mount_propagation::shared)
        throw invalid_input("propagation", bind->target,
                            "A container with users of its own can have it as a slave, not "
                            "shared: its mounts would appear on the host.");
    if (parts.result) throw container_has_ended(parts.name, "mount in");
    control_sockets sockets = control_sockets::make();
    encoded_plan program =
        encode_live_mount(wanted, owners_of(parts), parts.pidfd.get(), sockets.child.get());
    co_await run_inside(io, parts.name, parts.start_limit, std::move(program), std::move(sockets));
}

inline task<void> unmount_inside(scheduler& io, container_parts& parts, std::string path,
                                 unmount_mode mode) {
    require_below_root("mount target", path);
    if (parts.result) throw container_has_ended(parts.name, "unmount in");
    control_sockets sockets = control_sockets::make();
    encoded_plan program = encode_live_unmount(path, mode, parts.users.has_value(),
                                               parts.pidfd.get(), sockets.child.get());
    co_await run_inside(io, parts.name, parts.start_limit, std::move(program), std::move(sockets));
}

}  // namespace detail
}  // namespace kumiki::inline v0
