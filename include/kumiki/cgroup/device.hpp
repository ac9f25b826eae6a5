// Devices by number, as io.max, io.stat and device lists name them: "8:0".
//
// Source: makedev(3), cgroup-v2.rst ("nested keyed" files).
#pragma once

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include <kumiki/core/error.hpp>
#include <kumiki/core/text.hpp>
#include <kumiki/core/unique_fd.hpp>
#include <kumiki/sys/file.hpp>

namespace kumiki::inline v0 {

/// Block devices and character devices are numbered apart from each other.
enum class device_kind : std::uint8_t {
    any,
    block,
    character,
};

/// A device's number.
struct device_number {
    std::uint32_t major = 0;
    std::uint32_t minor = 0;
    auto operator<=>(const device_number&) const = default;

    /// The device that the file at `path` stands for.
    /// Errors: ENOENT; invalid_input when it is no device of that kind.
    static device_number of(const std::string& path, device_kind kind = device_kind::any) {
        require_c_string("path of a device", path);
        const auto info = sys::status_of(sys::open_at(AT_FDCWD, path, O_PATH).get());
        const bool is_block = S_ISBLK(info.st_mode) && kind != device_kind::character;
        const bool is_character = S_ISCHR(info.st_mode) && kind != device_kind::block;
        if (!is_block && !is_character)
            throw invalid_input("device", path,
                                kind == device_kind::block       ? "It is no block device."
                                : kind == device_kind::character ? "It is no character device."
                                                                 : "It is no device.");
        return {gnu_dev_major(info.st_rdev), gnu_dev_minor(info.st_rdev)};
    }
    /// The whole disk that a file or a directory is stored on: limits of io are for whole disks.
    /// Nothing for a filesystem without a disk of its own (tmpfs, overlay, btrfs).
    static std::optional<device_number> behind(const std::string& path);
};

/// "8:0".
inline std::string to_string(device_number device) {
    return std::to_string(device.major) + ':' + std::to_string(device.minor);
}

/// The device in "8:0"; nothing for anything else.
constexpr std::optional<device_number> parse_device_number(std::string_view text) noexcept {
    const auto major = next_field(text, ':');
    const auto first = major ? parse_number<std::uint32_t>(*major) : std::nullopt;
    const auto second = parse_number<std::uint32_t>(text);
    if (!first || !second) return std::nullopt;
    return device_number{*first, *second};
}

inline std::optional<device_number> device_number::behind(const std::string& path) {
    require_c_string("path", path);
    const auto info = sys::status_of(sys::open_at(AT_FDCWD, path, O_PATH).get());
    const device_number found{gnu_dev_major(info.st_dev), gnu_dev_minor(info.st_dev)};
    const std::string place = "/sys/dev/block/" + kumiki::to_string(found);
    if (::access(place.c_str(), F_OK) != 0) return std::nullopt;
    // A partition's directory lies in that of its disk.
    if (::access((place + "/partition").c_str(), F_OK) != 0) return found;
    const auto text = sys::try_read_file_at(AT_FDCWD, place + "/../dev");
    return text ? parse_device_number(trim(*text)) : std::nullopt;
}

}  // namespace kumiki::inline v0
