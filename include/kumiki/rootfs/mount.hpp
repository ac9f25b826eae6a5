// What is mounted into a container besides its root: directories and files of the host, and tmpfs.
//
// Descriptions only. Targets are absolute paths inside the container; they are resolved inside its
// root and nowhere else, whatever symbolic links the root holds.
#pragma once

#include <sys/stat.h>

#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include <kumiki/core/error.hpp>
#include <kumiki/core/text.hpp>
#include <kumiki/core/units.hpp>
#include <kumiki/rootfs/rootfs.hpp>

namespace kumiki::inline v0 {

/// Whether a bind mount brings along what is mounted below its source.
enum class bind_depth : std::uint8_t { recursive, single };

/// A file or directory of the host made visible in the container. nosuid and nodev always hold.
struct bind_mount {
    std::string source{};                             ///< absolute, on the host
    std::string target{};                             ///< absolute, in the container
    access_mode access = access_mode::read_write;     ///< read_only holds for all below as well
    bind_depth depth = bind_depth::recursive;
};

/// A new tmpfs, empty at the start and gone with the container. nosuid and nodev always hold.
struct tmpfs_mount {
    std::string target{};            ///< absolute, in the container
    bytes size = {64ULL << 20};      ///< the most that it holds
    unsigned mode = 01777;           ///< permission bits of its root
};

using mount_description = std::variant<bind_mount, tmpfs_mount>;

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
