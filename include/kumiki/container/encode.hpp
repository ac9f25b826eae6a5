// From the description of a container to the plan of its start. The only side effects are detached
// mounts and descriptors of this process, which the result owns.
#pragma once

#include <sys/stat.h>
#include <sys/syscall.h>

#include <algorithm>
#include <array>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include <kumiki/container/encode_masks.hpp>
#include <kumiki/container/encode_mounts.hpp>
#include <kumiki/container/encode_namespaces.hpp>
#include <kumiki/container/encode_process.hpp>
#include <kumiki/container/encode_root.hpp>
#include <kumiki/container/encode_user_mounts.hpp>
#include <kumiki/container/encoded_plan.hpp>
#include <kumiki/container/held_files.hpp>
#include <kumiki/container/held_mounts.hpp>
#include <kumiki/container/init.hpp>
#include <kumiki/container/plan.hpp>
#include <kumiki/container/rootless.hpp>
#include <kumiki/container/spec.hpp>
#include <kumiki/container/waiter.hpp>
#include <kumiki/ns/user_namespace.hpp>

namespace kumiki::inline v0 {

namespace detail {

/// What is at the paths of /proc and /sys that are masked or read-only: whether it is a directory,
/// or nothing. Looked at once: the containers' kernel is the host's, and does not change.
inline std::optional<bool> is_directory_on_host(const std::string& path) {
    static const auto known = [] {
        std::vector<std::pair<std::string, bool>> found;
        const auto look = [&](const std::string& at) {
            struct stat info{};
            if (::lstat(at.c_str(), &info) == 0) found.emplace_back(at, S_ISDIR(info.st_mode));
        };
        for (const auto name : masked_proc_paths) look("/proc/" + std::string(name));
        for (const auto name : readonly_proc_paths) look("/proc/" + std::string(name));
        for (const auto name : masked_sys_paths) look("/sys/" + std::string(name));
        return found;
    }();
    for (const auto& [at, directory] : known)
        if (at == path) return directory;
    return std::nullopt;
}

/// How much the staging tmpfs has to hold.
inline bytes staging_size(const container_spec& spec) {
    const class rootfs& from = spec.rootfs;
    std::uint64_t size =
        from.is_overlay() && from.upper().upper.empty() ? from.upper().size.count : 1U << 20;
    for (const mount_description& wanted : spec.mounts)
        if (const auto* file = std::get_if<file_mount>(&wanted))
            size += file->content.size() + 4096;
    return bytes{size};
}

inline void encode_root(encoded_plan& out, root_encoder& root, const container_spec& spec,
                        const encode_inputs& in, int idmap) {
    plan& to = out.plan;
    const class rootfs& from = spec.rootfs;
    to.begin(phase::root);
    root.stage(staging_size(spec));
    if (from.assembled_as()) return root.assembled(*from.assembled_as());
    const bool unprivileged = in.caller.unprivileged;
    if (!from.is_overlay() && unprivileged)
        return root.directory(from.layers().front(), spec.root_propagation);
    if (!from.is_overlay()) {
        // Shared only after the pivot, which refuses it, and then not with the host.
        const bool slave = spec.root_propagation == mount_propagation::slave;
        out.held.push_back(hold_mount(
            from.layers().front(), "/",
            {.attributes = sys::mount_attr_nodev,
             .propagation = slave ? mount_propagation::slave : mount_propagation::private_,
             .lookup = AT_SYMLINK_NOFOLLOW,
             .idmap = idmap},
            "rootfs"));
        if (from.is_read_only()) make_inner_mounts_read_only(out.held.back());
        root.directory(out.held.back());
        return;
    }
    if (!from.upper().upper.empty()) {
        out.claims.push_back(lock_upper(from.upper().upper));
        out.claims.push_back(lock_upper(from.upper().work));
    }
    std::vector<std::string> lowers = from.layers();
    if (idmap >= 0) {  // an overlay cannot be id-mapped as a whole; its layers can
        int number = 0;
        for (std::string& lower : lowers) {
            out.held.push_back(hold_mount(
                lower, "/", {.attributes = 0, .lookup = AT_SYMLINK_NOFOLLOW, .idmap = idmap},
                "rootfs"));
            const std::string name = "lower" + std::to_string(number++);
            root.make_directory(root.staging(), to.text(name));
            root.attach_at(to.keep(out.held.back().mount.get()), root.staging(), to.text(name),
                           to.text(lower));
            lower = "/proc/" + name;
        }
    }
    root.overlay(lowers, from.upper(), unprivileged || idmap >= 0);
}

/// The nodes of /dev that nobody has described otherwise: made, or the host's.
inline void encode_dev(mounts_encoder& mounts, const container_spec& spec) {
    std::vector<device_node> nodes;
    for (const device_node& node : default_devices) {
        const auto described = [&](const mount_description& wanted) {
            return std::holds_alternative<device_mount>(wanted) &&
                   require_inside_path("device", target_of(wanted)) ==
                       std::vector<std::string_view>{"dev", node.name};
        };
        if (std::none_of(spec.mounts.begin(), spec.mounts.end(), described)) nodes.push_back(node);
    }
    std::optional<unsigned> tty_group = 5;
    if (spec.user_namespace && !spec.user_namespace->gids.to_outside(*tty_group)) tty_group.reset();
    mounts.dev(nodes, spec.user_namespace ? device_source::host : device_source::made,
               has(spec.all_namespaces() | spec.joined_namespaces(), namespace_kind::ipc),
               tty_group);
}

/// The host's /sys, read-only, for a child whose user namespace does not own its network namespace:
/// the kernel makes no sysfs for it.
inline operand lend_sysfs(encoded_plan& out, root_encoder& root, const encode_inputs& in) {
    out.plan.begin(phase::sys);
    if (in.caller.unprivileged)
        return root.host_copy(
            "/sys",
            {.access = access_mode::read_only,
             .attributes = sys::mount_attr_nosuid | sys::mount_attr_nodev | sys::mount_attr_noexec},
            "the host's /sys on /sys", out.plan.new_slot());
    out.held.push_back(hold_sysfs());
    return out.plan.keep(out.held.back().mount.get());
}

}  // namespace detail

/// Writes down the start of `spec`, which has been validated.
/// Errors: what opening the host's side of its mounts gives.
inline encoded_plan encode(const container_spec& spec, const encode_inputs& in) {
    encoded_plan out;
    plan& to = out.plan;
    const namespace_kind kinds = spec.all_namespaces();
    std::optional<namespace_fd> map_holder;
    if (spec.user_namespace && !in.caller.unprivileged)
        map_holder = make_user_namespace(spec.user_namespace->uids, spec.user_namespace->gids);
    const int idmap = map_holder ? map_holder->get() : -1;
    to.keep(in.control);
    if (has(spec.joined_namespaces(), namespace_kind::pid)) {
        // Others can see this child from its birth on: they must not get at what it still holds.
        to.begin(phase::descriptors);
        to.call("the sight of others", SYS_prctl, {PR_SET_DUMPABLE, 0, 0, 0, 0});
    }

    detail::encode_keyring(to, spec.process);
    detail::encode_user(to, in, spec.start_limit);
    if (has(kinds, namespace_kind::cgroup)) {
        // Not by clone3: its cgroup namespace would have the supervisor's group as its root.
        to.begin(phase::cgroup);
        to.call("the cgroup namespace", SYS_unshare, {sys::clone_newcgroup});
    }
    if (has(kinds, namespace_kind::uts)) {
        to.begin(phase::hostname);
        to.call(to.text(in.hostname), SYS_sethostname, {to.text(in.hostname), in.hostname.size()});
    }
    detail::root_encoder root(to);
    detail::encode_root(out, root, spec, in, idmap);

    detail::mounts_encoder mounts(to, root);
    detail::process_encoder process(to, spec.process);
    mounts.proc();
    // Now, while nothing of the image or the caller can lie over its files (CVE-2025-52881).
    process.oom_score(mounts.proc_mount());
    process.labels(mounts.proc_mount());
    detail::encode_clocks(to, spec, mounts.proc_mount());
    detail::encode_dev(mounts, spec);
    detail::encode_netns(to, in, spec.start_limit);  // late: it takes longer than all so far
    const bool lent_sys = spec.user_namespace && !has(kinds, namespace_kind::net);
    mounts.sys(has(kinds, namespace_kind::cgroup) && in.has_group ? detail::cgroup_view::own
                                                                  : detail::cgroup_view::none,
               lent_sys ? std::optional(detail::lend_sysfs(out, root, in)) : std::nullopt);
    detail::encode_sysctls(to, spec.sysctls, mounts.proc_mount());
    detail::user_mounts_encoder wanted(to, root, {out.held, out.claims, in.caller.unprivileged},
                                       spec.owners());
    for (const mount_description& each : spec.mounts) wanted.add(each);
    mounts.files(in.files);
    detail::masks_encoder masks(to, root, root.staging());
    if (spec.system_paths == system_paths_mode::guarded)
        masks.defaults(mounts.proc_mount(), mounts.sys_mount(), detail::is_directory_on_host);
    for (const std::string& path : spec.masked_paths) masks.mask(root.root(), path);
    for (const std::string& path : spec.readonly_paths) masks.read_only(root.root(), path);

    if (spec.process.init == init_process::reaper) {
        out.descriptors.push_back(detail::make_init(spec.process, in.control));
        process.run_under(out.descriptors.back().get());
    }
    if (in.waits) {
        out.descriptors.push_back(detail::make_waiter(in.control));
        process.wait_in(out.descriptors.back().get());
    }
    out.named_user = process.look_up_user(root.root(), in.control);
    process.session().start(detail::place_stdio(out, spec.process), mounts.dev_mount(),
                            mounts.pts_mount(), in.control);
    to.begin(phase::pivot);
    root.pivot(spec.rootfs.is_read_only() ? access_mode::read_only : access_mode::read_write,
               spec.root_propagation);
    process.close_all_but(in.control);
    to.begin(phase::limits);
    process.working_directory(AT_FDCWD);  // it is "/" from the pivot on
    process.process_limits();
    process.landlock();
    to.begin(phase::network);
    if (has(kinds, namespace_kind::net) && !in.loopback_is_raised) detail::encode_loopback(to);
    process.barrier(in.control, spec.start_limit);
    const std::vector<std::string> candidates = spec.process.candidates();
    process.identity(in.control, candidates, in.caller.sets_groups);
    out.fetched_listener = process.fetched_listener();
    process.exec(candidates, in.control);
    out.program = to.finish();
    return out;
}

}  // namespace kumiki::inline v0
