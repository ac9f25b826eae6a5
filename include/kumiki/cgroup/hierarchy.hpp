// Where cgroup v2 is on this host, where this process is in it, and which controllers are bound to
// v1 hierarchies instead. v1 is only ever named in an explanation, never written.
//
// Pure (/sys/fs/cgroup is cgroup2), hybrid (/sys/fs/cgroup/unified, or anywhere else), delegated
// (a container's or a user session's subtree), a cgroup namespace. What is enabled at each level is
// levels.hpp's. Kernel: 4.5; kumiki needs 5.7 (born in a group).
// Sources: cgroups(7), proc_pid_mountinfo(5).
#pragma once

#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <kumiki/cgroup/controller.hpp>
#include <kumiki/core/error.hpp>
#include <kumiki/core/text.hpp>
#include <kumiki/core/unique_fd.hpp>
#include <kumiki/sys/abi.hpp>
#include <kumiki/sys/file.hpp>

namespace kumiki::inline v0 {

/// One mount of cgroup2.
struct cgroup2_mount {
    std::string mount_point{};
    std::string root{};  ///< the group that is mounted there, as the mount's owner sees it: "/"
    bool read_only = false;
    bool nsdelegate = false;
    bool operator==(const cgroup2_mount&) const = default;
};

/// One mount of a v1 hierarchy.
struct cgroup1_mount {
    std::string mount_point{};
    std::vector<std::string> controllers{};  ///< "cpu", "cpuacct"; empty for a named hierarchy
    bool operator==(const cgroup1_mount&) const = default;
};

/// There is no cgroup v2 that can be reached; v1 hierarchies, if there are any, are never used.
class no_cgroup2 : public unsupported {
  public:
    no_cgroup2(bool has_v1, error_context context)
        : unsupported(0, std::move(context)), has_v1_(has_v1) {}
    /// True on a host with v1 hierarchies alone.
    bool has_v1() const noexcept { return has_v1_; }

  private:
    bool has_v1_;
};

/// What the host has of control groups, as this process sees it.
struct cgroup_hierarchy {
    std::vector<cgroup2_mount> v2{};  ///< best first; never empty after find()
    std::vector<cgroup1_mount> v1{};
    std::vector<std::string> v1_bound{};  ///< controllers in v1 hierarchies, mounted here or not
    std::string own_path = "/";  ///< this process's group in v2, below its cgroup namespace's root

    bool in_namespace = false;  ///< this process is in a cgroup namespace other than the first

    /// Reads /proc. Errors: no_cgroup2 when none can be reached, naming what is there.
    static cgroup_hierarchy find();
    /// The same from the text of /proc/self/mountinfo and /proc/self/cgroup.
    static cgroup_hierarchy parse(std::string_view mountinfo, std::string_view self_cgroup);

    const cgroup2_mount& mount() const { return v2.front(); }
    /// True when some controllers are in v1 hierarchies.
    bool is_hybrid() const noexcept { return !v1_bound.empty(); }
    /// The mount point of the v1 hierarchy that holds the controller; nothing when none does.
    std::optional<std::string> v1_mount_of(std::string_view v1_name) const {
        for (const auto& m : v1)
            if (std::find(m.controllers.begin(), m.controllers.end(), v1_name) !=
                m.controllers.end())
                return m.mount_point;
        return std::nullopt;
    }
    /// True when the mount shows a part of the hierarchy: a container's, or what was delegated to it.
    /// The root of the whole has no type.
    bool is_subtree() const {
        return !v2.empty() &&
               sys::try_open_at(AT_FDCWD, mount().mount_point + "/cgroup.type", O_PATH).has_value();
    }
    /// The directory of this process's own group; nothing when it is not below the mount, or when
    /// that cannot be told: the mount or the process is from outside of the cgroup namespace ("/..").
    std::optional<std::string> own_directory() const {
        if (v2.empty() || !is_path_within(own_path, mount().root)) return std::nullopt;
        if (is_path_within(own_path, "/..") || is_path_within(mount().root, "/.."))
            return std::nullopt;
        std::string_view below = own_path;
        if (mount().root != "/") below.remove_prefix(mount().root.size());
        if (below.empty() || below == "/") return mount().mount_point;
        return (mount().mount_point == "/" ? "" : mount().mount_point) + std::string(below);
    }
    /// Why this hierarchy's root lacks the controllers, and what can be done: whole sentences.
    std::string explain_missing(controllers missing) const;
};

namespace detail {

/// What is mounted of cgroups, for the error of a host without v2.
inline std::string describe_mounts(const cgroup_hierarchy& found) {
    if (found.v1.empty()) return "No cgroup filesystem is mounted.";
    std::string text = "Only cgroup v1 is mounted:";
    for (std::size_t i = 0; i < found.v1.size(); ++i)
        text += (i == 0 ? " " : ", ") + found.v1[i].mount_point;
    return text + '.';
}

/// The usual places come first: the smaller, the better.
inline int rank(const cgroup2_mount& mount) noexcept {
    if (mount.mount_point == "/sys/fs/cgroup") return 0;
    if (mount.mount_point == "/sys/fs/cgroup/unified") return 1;
    return mount.root == "/" ? 2 : 3;
}

inline cgroup2_mount parse_cgroup2_mount(const std::vector<std::string_view>& fields,
                                         std::string_view super_options) {
    const auto has_option = [](std::string_view options, std::string_view wanted) {
        const auto all = split(options, ',');
        return std::find(all.begin(), all.end(), wanted) != all.end();
    };
    return cgroup2_mount{
        .mount_point = unescape_octal(fields[4]),
        .root = unescape_octal(fields[3]),
        .read_only = has_option(fields[5], "ro") || has_option(super_options, "ro"),
        .nsdelegate = has_option(super_options, "nsdelegate")};
}

inline std::vector<std::string> v1_controllers(std::string_view super_options) {
    // The options of a v1 superblock are its controllers among a few words of its own.
    constexpr std::string_view others[] = {
        "rw", "ro", "xattr", "noprefix", "clone_children", "cpuset_v2_mode", "favordynmods"};
    std::vector<std::string> found;
    for (const auto option : split(super_options, ','))
        if (option.find('=') == std::string_view::npos && !option.empty() &&
            std::find(std::begin(others), std::end(others), option) == std::end(others))
            found.emplace_back(option);
    return found;
}

/// The first cgroup namespace has the same number on every host (PROC_CGROUP_INIT_INO).
inline bool is_in_cgroup_namespace() {
    struct stat info{};
    return ::stat("/proc/self/ns/cgroup", &info) == 0 && info.st_ino != 0xEFFFFFFBU;
}

}  // namespace detail

inline cgroup_hierarchy cgroup_hierarchy::parse(std::string_view mountinfo,
                                                std::string_view self_cgroup) {
    cgroup_hierarchy found;
    const auto better = [](const cgroup2_mount& a, const cgroup2_mount& b) {
        return detail::rank(a) < detail::rank(b);
    };
    while (const auto line = next_field(mountinfo, '\n')) {
        // 41 31 0:38 / /sys/fs/cgroup/unified rw,relatime shared:9 - cgroup2 cgroup2 rw,nsdelegate
        const auto fields = split(*line, ' ');
        const auto dash = std::find(fields.begin(), fields.end(), "-");
        if (dash - fields.begin() < 6 || fields.end() - dash < 3) continue;
        const std::string_view type = dash[1];
        const std::string_view super_options = fields.end() - dash > 3 ? dash[3] : "";
        const std::string place = unescape_octal(fields[4]);
        // A later mount at the same place hides the earlier one.
        std::erase_if(found.v2, [&](const auto& m) { return m.mount_point == place; });
        std::erase_if(found.v1, [&](const auto& m) { return m.mount_point == place; });
        if (type == "cgroup2") {
            auto mount = detail::parse_cgroup2_mount(fields, super_options);
            const auto after = std::upper_bound(found.v2.begin(), found.v2.end(), mount, better);
            found.v2.insert(after, std::move(mount));
        } else if (type == "cgroup") {
            found.v1.push_back({place, detail::v1_controllers(super_options)});
        }
    }
    while (const auto line = next_field(self_cgroup, '\n')) {
        // 4:memory:/some/group, and 0::/group for v2
        const auto fields = split(*line, ':');
        if (line->starts_with("0::/"))
            found.own_path = std::string(line->substr(3));
        else if (fields.size() >= 3)
            for (const auto name : split(fields[1], ','))
                if (name.find('=') == std::string_view::npos && !name.empty())
                    found.v1_bound.emplace_back(name);
    }
    return found;
}

inline cgroup_hierarchy cgroup_hierarchy::find() {
    auto found = parse(sys::read_file_at(AT_FDCWD, "/proc/self/mountinfo"),
                       sys::read_file_at(AT_FDCWD, "/proc/self/cgroup"));
    found.in_namespace = detail::is_in_cgroup_namespace();
    // A mount can be listed and yet be covered by another one on a directory above it.
    std::erase_if(found.v2, [](const cgroup2_mount& m) {
        const auto directory = sys::try_open_at(AT_FDCWD, m.mount_point, O_PATH | O_DIRECTORY);
        return !directory || sys::filesystem_magic(directory->get()) != sys::cgroup2_super_magic;
    });
    if (found.v2.empty())
        throw no_cgroup2(
            !found.v1.empty(),
            {.operation = "find cgroup v2",
             .object = "in /proc/self/mountinfo",
             .remedy = detail::describe_mounts(found) +
                       " Mount it (mount -t cgroup2 none /sys/fs/cgroup/unified), or boot with "
                       "systemd.unified_cgroup_hierarchy=1."});
    return found;
}

inline std::string cgroup_hierarchy::explain_missing(controllers missing) const {
    std::string bound;
    std::string absent;
    for_each_controller(missing, [&](const controller_info& controller) {
        const auto at = v1_mount_of(controller.v1_name);
        const bool in_v1 =
            at || std::find(v1_bound.begin(), v1_bound.end(), controller.v1_name) != v1_bound.end();
        std::string& list = in_v1 ? bound : absent;
        if (!list.empty()) list += ", ";
        list += controller.name;
        if (in_v1) list += at ? " (" + *at + ')' : " (not mounted here)";
    });
    std::string text;
    if (!bound.empty())
        text = "Bound to cgroup v1: " + bound +
               ". Boot with systemd.unified_cgroup_hierarchy=1 or cgroup_no_v1=all to have them "
               "in v2.";
    if (!absent.empty()) {
        if (!text.empty()) text += ' ';
        text += "Not offered here: " + absent +
                ". In a container or a service, whoever made its group must hand it on "
                "(systemd: Delegate=yes); on the host itself, the kernel lacks it or was booted "
                "with cgroup_disable=.";
    }
    return text;
}

}  // namespace kumiki::inline v0
