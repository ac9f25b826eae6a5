// What is put into a container's root besides what it holds already, in any order of the kinds, and
// what is refused of it before anything is done.
//
// Descriptions only. Targets are absolute paths inside the container; they are resolved inside its
// root and nowhere else, whatever symbolic links the root holds.
#pragma once

#include <string>
#include <string_view>
#include <type_traits>
#include <variant>
#include <vector>

#include <kumiki/core/error.hpp>
#include <kumiki/core/text.hpp>
#include <kumiki/rootfs/defaults.hpp>
#include <kumiki/rootfs/mount_kinds.hpp>
#include <kumiki/rootfs/rootfs.hpp>

namespace kumiki::inline v0 {

using mount_description = std::variant<bind_mount, tmpfs_mount, file_mount, overlay_mount,
                                       device_mount, symlink_entry, directory_entry>;

/// The parts of an absolute path in a container, without "." and empty ones.
/// Errors: invalid_input for a path that is relative, has "..", a NUL byte or is too long.
inline std::vector<std::string_view> require_inside_path(std::string_view what,
                                                         std::string_view path) {
    require_c_string(what, path);
    if (!path.starts_with('/')) throw invalid_input(what, path, "It must be an absolute path.");
    std::vector<std::string_view> parts;
    std::string_view rest = path.substr(1);
    while (const auto part = next_field(rest, '/')) {
        if (part->empty() || *part == ".") continue;
        if (!is_path_component(*part))
            throw invalid_input(what, path,
                                "It must not contain '..' or a name of more than 255 bytes.");
        parts.push_back(*part);
    }
    return parts;
}

/// As require_inside_path; also refuses "/" itself.
inline std::vector<std::string_view> require_below_root(std::string_view what,
                                                        std::string_view path) {
    auto parts = require_inside_path(what, path);
    if (parts.empty()) throw invalid_input(what, path, "It must be below the root.");
    return parts;
}

/// Where a description puts something.
inline const std::string& target_of(const mount_description& wanted) noexcept {
    return std::visit([](const auto& each) -> const std::string& { return each.target; }, wanted);
}

namespace detail {

inline void require_mode(const std::string& target, unsigned mode, unsigned most) {
    if ((mode & ~most) != 0)
        throw invalid_input("mode", target, "It may have permission bits only.");
}

inline void validate_kind(const bind_mount& wanted) {
    if ((wanted.set & wanted.clear) != mount_flag::none)
        throw invalid_input("bind mount", wanted.target, "A flag is both set and cleared.");
    if (wanted.ids && (wanted.ids->users.empty() || wanted.ids->groups.empty()))
        throw invalid_input("bind mount", wanted.target,
                            "An id mapping must say both whose users and whose groups.");
}
inline void validate_kind(const tmpfs_mount& wanted) {
    if (wanted.size.count == 0)  // which the kernel takes for no limit
        throw invalid_input("size of a tmpfs", "0", "It must hold something.");
    require_mode(wanted.target, wanted.mode, 01777);
}
inline void validate_kind(const file_mount& wanted) {
    require_mode(wanted.target, wanted.mode, 0777);
}
inline void validate_kind(const directory_entry& wanted) {
    require_mode(wanted.target, wanted.mode, 01777);
}
inline void validate_kind(const overlay_mount& wanted) {
    rootfs::overlay(wanted.lowers, wanted.upper).validate();
}
inline void validate_kind(const symlink_entry& wanted) {
    require_c_string("symbolic link", wanted.leads_to);
    if (wanted.leads_to.empty())
        throw invalid_input("symbolic link", wanted.target, "It must lead somewhere.");
}
inline void validate_kind(const device_mount& wanted) {
    const auto parts = require_inside_path("device", wanted.target);
    if (parts.size() < 2 || parts.front() != "dev")
        throw invalid_input("device", wanted.target,
                            "It must be below /dev: elsewhere no device can be opened.");
    require_mode(wanted.target, wanted.mode, 0777);
    if (wanted.major > 0xfff || wanted.minor > 0xfffff)
        throw invalid_input("device", wanted.target, "It has a number that no device can have.");
    if (parts.size() == 2)
        for (const device_node& known : default_devices)
            if (parts.back() == known.name &&
                (wanted.type != device_type::character || wanted.major != known.major ||
                 wanted.minor != known.minor))
                throw invalid_input("device", wanted.target,
                                    "Its name is that of another device in every container.");
}

}  // namespace detail

/// Refuses what cannot be right. Errors: invalid_input, and kumiki::error for a layer of an overlay
/// that is not there.
inline void validate(const mount_description& wanted) {
    require_below_root("mount target", target_of(wanted));
    std::visit([](const auto& each) { detail::validate_kind(each); }, wanted);
}

/// "HOST:CONTAINER[:ro|rw]", as the command lines of container tools have it.
inline bind_mount parse_bind_mount(std::string_view text) {
    const auto fields = split(text, ':');
    const bool valid = (fields.size() == 2 || fields.size() == 3) && !fields[0].empty() &&
                       (fields.size() == 2 || fields[2] == "ro" || fields[2] == "rw");
    if (!valid)
        throw invalid_input("volume", text,
                            "It must be like /host/dir:/container/dir or .../dir:ro.");
    require_inside_path("mount target", fields[1]);
    return {.source = std::string(fields[0]),
            .target = std::string(fields[1]),
            .access = fields.size() == 3 && fields[2] == "ro" ? access_mode::read_only
                                                              : access_mode::read_write};
}

}  // namespace kumiki::inline v0
