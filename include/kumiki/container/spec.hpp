// The description of a container: an aggregate for designated initialisers in which only the root
// filesystem and the command have to be named.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include <kumiki/cgroup/limits.hpp>
#include <kumiki/container/held_mounts.hpp>
#include <kumiki/container/process_spec.hpp>
#include <kumiki/container/spawn_job.hpp>
#include <kumiki/container/sysctl.hpp>
#include <kumiki/core/text.hpp>
#include <kumiki/netlink/mac.hpp>
#include <kumiki/network/endpoint.hpp>
#include <kumiki/network/moved_link.hpp>
#include <kumiki/network/names.hpp>
#include <kumiki/ns/id_map.hpp>
#include <kumiki/ns/kind.hpp>
#include <kumiki/ns/make_namespace.hpp>
#include <kumiki/ns/namespace_fd.hpp>
#include <kumiki/rootfs/mount.hpp>
#include <kumiki/rootfs/rootfs.hpp>

namespace kumiki::inline v0 {

/// The network of a container that is attached to none.
enum class network_mode : std::uint8_t {
    loopback,  ///< a network namespace of its own in which only lo is there, and up
    host,      ///< the network namespace of the supervisor: no isolation of the network at all
};

/// A network namespace of the container's own with lo and these interfaces of the supervisor's, a
/// macvlan say: they are the container's until it has ended, and come home then as they were. There
/// are no rules of kumiki's about what they carry. Takes CAP_NET_ADMIN on the host.
struct moved_devices {
    std::vector<moved_device> all = {};
};

/// None, the host's, an endpoint on a network (`net.attach({...})`), or no more than the host's devices.
using network_choice = std::variant<network_mode, network_attachment, moved_devices>;

/// Which ids of the host stand behind the container's own.
struct user_mapping {
    id_map uids{};
    id_map gids{};
};

/// The namespaces of a normal container. User and time come with their fields of the spec.
inline constexpr namespace_kind default_namespaces = namespace_kind::mount | namespace_kind::uts |
                                                     namespace_kind::ipc | namespace_kind::pid |
                                                     namespace_kind::net | namespace_kind::cgroup;

/// What becomes of the paths of /proc and /sys that every container has hidden or read-only
/// (rootfs/defaults.hpp).
enum class system_paths_mode : std::uint8_t {
    guarded,
    open,  ///< they are as the kernel makes them: for a container that is trusted with the host
};

/// A container to be started.
struct container_spec {
    /// Unique among the containers that run on this host (it names the cgroup): letters, digits,
    /// '.', '_', '-', at most 64 bytes. Empty: one is made up.
    std::string name{};
    kumiki::rootfs rootfs{};
    process_spec process{};
    resource_limits limits{};
    network_choice network = network_mode::loopback;
    /// New namespaces of the container; mount cannot be left out. The network namespace follows
    /// from `network`.
    namespace_kind namespaces = default_namespaces;
    std::optional<user_mapping> user_namespace{};  ///< unset: none of its own
    std::optional<clock_offsets> time_namespace{};  ///< unset: none of its own. Kernel: 6.2
    /// Namespaces of others that the container lives in, instead of new ones of these kinds: uts,
    /// ipc, net and pid, for containers that belong together (a pod). See container::share().
    std::vector<std::shared_ptr<const namespace_fd>> join{};
    std::string hostname{};  ///< empty: the name
    std::vector<host_entry> hosts{};  ///< further lines of /etc/hosts
    /// What /etc/resolv.conf says. What is left out comes from the network's resolver where it has
    /// one (bridge_options::names), else from the host.
    resolver_options resolver{};
    std::vector<mount_description> mounts{};  ///< in this order
    /// Further paths that are hidden or read-only, whatever is mounted there. What is missing is
    /// left out.
    std::vector<std::string> masked_paths{};
    std::vector<std::string> readonly_paths{};
    system_paths_mode system_paths = system_paths_mode::guarded;
    /// Of the root: slave for a directory of the host in which later mounts of the host are to
    /// appear; shared for containers that are made in this one.
    mount_propagation root_propagation = mount_propagation::private_;
    std::vector<sysctl_setting> sysctls{};  ///< of the container's own namespaces, in this order
    clone_mode clone = clone_mode::automatic;
    /// The most that a start may take; then it fails with ETIMEDOUT.
    std::chrono::milliseconds start_limit{30000};

    /// The kinds of `join`.
    namespace_kind joined_namespaces() const {
        namespace_kind kinds = namespace_kind::none;
        for (const auto& each : join) kinds |= each->kind();
        return kinds;
    }
    /// All kinds of namespaces that the container gets of its own.
    namespace_kind all_namespaces() const {
        namespace_kind kinds = namespaces & ~namespace_kind::net;
        const auto* mode = std::get_if<network_mode>(&network);
        if (mode == nullptr || *mode != network_mode::host) kinds |= namespace_kind::net;
        if (user_namespace) kinds |= namespace_kind::user;
        if (time_namespace) kinds |= namespace_kind::time;
        return kinds & ~joined_namespaces();
    }

    /// How its ids stand for the host's.
    detail::owner_maps owners() const {
        if (!user_namespace) return {};
        return {&user_namespace->uids, &user_namespace->gids};
    }

    /// Refuses, before anything is done, what cannot be right. Errors: invalid_input, and
    /// kumiki::error for a root filesystem that is not there.
    void validate() const {
        if (name.size() > 64 ||
            name.find_first_not_of("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                   "0123456789._-") != std::string::npos ||
            name.starts_with('.') || name.starts_with('-'))
            throw invalid_input("container name", name,
                                "It is made of letters, digits, '.', '_' and '-', begins with "
                                "neither '.' nor '-', and has at most 64 of them.");
        require_c_string("hostname", hostname, 65);
        if (!has(namespaces, namespace_kind::mount))
            throw invalid_input("namespaces", to_string(namespaces),
                                "The mount namespace cannot be left out.");
        validate_join();
        if (const auto* moved = std::get_if<moved_devices>(&network))
            for (const moved_device& each : moved->all) {
                require_link_name(each.link);
                if (!each.inside.name.empty()) require_link_name(each.inside.name);
            }
        for (const host_entry& each : hosts) (void)require_hostname(each.name);
        (void)resolv_conf_text("", resolver);
        if (!hostname.empty() && !has(all_namespaces(), namespace_kind::uts))
            throw invalid_input("hostname", hostname, "It needs a UTS namespace of its own.");
        if (user_namespace &&
            (!user_namespace->uids.to_outside(0) || !user_namespace->gids.to_outside(0)))
            throw invalid_input("user namespace", "", "It must map user 0 and group 0.");
        if (rootfs.is_overlay()) require_layers(rootfs.layers(), rootfs.upper());
        rootfs.validate();
        process.validate();
        if (start_limit.count() <= 0)
            throw invalid_input("start_limit", std::to_string(start_limit.count()) + " ms",
                                "A start takes some milliseconds at least.");
        for (std::size_t i = 0; i < sysctls.size(); ++i) {
            detail::require_own_sysctl(sysctls[i], all_namespaces());
            for (std::size_t j = 0; j < i; ++j)
                if (detail::sysctl_path(sysctls[j]) == detail::sysctl_path(sysctls[i]))
                    throw invalid_input("sysctl", sysctls[i].name, "It is there twice.");
        }
        for (const mount_description& mount : mounts) validate_mount(mount);
        for (const std::string& path : masked_paths) require_below_root("masked path", path);
        for (const std::string& path : readonly_paths) require_below_root("read-only path", path);
    }

  private:
    void validate_mount(const mount_description& mount) const {
        kumiki::validate(mount);
        if (const auto* overlay = std::get_if<overlay_mount>(&mount))
            require_layers(overlay->lowers, overlay->upper);
        const auto* bind = std::get_if<bind_mount>(&mount);
        if (user_namespace && bind != nullptr && bind->propagation == mount_propagation::shared)
            require_no_sharing(bind->target);
        detail::require_owners(mount, owners());
    }
    /// With rights over its own mounts, root of a user namespace would mount on the host.
    static void require_no_sharing(const std::string& target) {
        throw invalid_input("propagation", target,
                            "A container with users of its own can have it as a slave, not "
                            "shared: its mounts would appear on the host.");
    }
    /// The child looks for them with its staging place over /proc.
    static void require_layers(std::vector<std::string> paths, const overlay_upper& upper) {
        paths.push_back(upper.upper);
        paths.push_back(upper.work);
        for (const std::string& path : paths)
            if (is_path_within(path, "/proc"))
                throw invalid_input("rootfs", path, "A layer of an overlay cannot be below /proc.");
    }
    void validate_join() const {
        namespace_kind seen = namespace_kind::none;
        for (const auto& each : join) {
            if (!each || !*each)
                throw invalid_input("namespace to join", "", "It is an empty handle.");
            const namespace_kind kind = each->kind();
            constexpr namespace_kind joinable = namespace_kind::uts | namespace_kind::ipc |
                                                namespace_kind::net | namespace_kind::pid;
            if (!has(joinable, kind))
                throw invalid_input("namespace to join", to_string(kind),
                                    "Containers can share uts, ipc, net and pid.");
            if (has(seen, kind))
                throw invalid_input("namespace to join", to_string(kind),
                                    "A container is in one namespace of a kind.");
            seen |= kind;
        }
        if (!join.empty() && user_namespace)
            throw invalid_input("namespace to join", to_string(seen),
                                "A container with a user namespace of its own has no rights over "
                                "the namespaces of others.");
        const auto* mode = std::get_if<network_mode>(&network);
        if (has(seen, namespace_kind::net) && (mode == nullptr || *mode == network_mode::host))
            throw invalid_input("namespace to join", "net",
                                "The network comes with it: leave `network` as it is by default.");
    }
};

}  // namespace kumiki::inline v0
