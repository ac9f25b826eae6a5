// Mounts of a container that runs: one more, or one less.
//
// A child enters the container's mount namespace, and its user namespace where it has one, and
// nothing else: neither its pid namespace nor its cgroup, so that it cannot be seen or stopped from
// inside (a frozen container can be changed). The rules are those of exec.hpp: memory of its own, not
// dumpable from its birth on, no descriptor but the mount and the control socket, and no path that is
// not resolved below the container's root without magic links. It runs a plan of raw calls that ends
// by exit_group. Kernel: 5.8 (setns with a pidfd).
#pragma once

#include <memory>
#include <string>
#include <utility>

#include <kumiki/container/encode_live_mount.hpp>
#include <kumiki/container/launch.hpp>
#include <kumiki/ns/unprivileged.hpp>

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

namespace detail {

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
    } else if (failed.number == sys::nr_open_tree) {
        remedy = "The user must be able to reach the source.";
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
template <class = void>
inline task<void> run_inside(scheduler& io, std::string name, std::chrono::milliseconds limit,
                             encoded_plan program, control_sockets sockets) {
    child_process child(0, -1, clone_mode::own_memory);
    if (!is_unprivileged()) child.hide();  // else this process could not look into its own /proc
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

inline live_entry entry_to(const container_parts& parts, int control) {
    return {.pidfd = parts.pidfd.get(),
            .control = control,
            .owners = owners_of(parts),
            .unprivileged = parts.caller.unprivileged,
            .sets_groups = parts.caller.sets_groups};
}

/// Mounts `wanted` in the container; `parts` must stay until this has ended.
template <class = void>
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
    encoded_plan program = encode_live_mount(wanted, entry_to(parts, sockets.child.get()));
    co_await run_inside(io, parts.name, parts.start_limit, std::move(program), std::move(sockets));
}

template <class = void>
inline task<void> unmount_inside(scheduler& io, container_parts& parts, std::string path,
                                 unmount_mode mode) {
    require_below_root("mount target", path);
    if (parts.result) throw container_has_ended(parts.name, "unmount in");
    control_sockets sockets = control_sockets::make();
    encoded_plan program = encode_live_unmount(path, mode, entry_to(parts, sockets.child.get()));
    co_await run_inside(io, parts.name, parts.start_limit, std::move(program), std::move(sockets));
}

}  // namespace detail
}  // namespace kumiki::inline v0
