// What every normal container finds in /dev, and which files of /proc and /sys it does not see or
// may not change: the lists that the field's runtimes share (OCI runtime-spec, config-linux.md).
#pragma once

#include <array>
#include <string_view>

namespace kumiki::inline v0 {

/// A character device in /dev.
struct device_node {
    std::string_view name;
    unsigned major = 0;
    unsigned minor = 0;
    unsigned mode = 0666;
};

inline constexpr std::array<device_node, 6> default_devices{{
    {"null", 1, 3},
    {"zero", 1, 5},
    {"full", 1, 7},
    {"random", 1, 8},
    {"urandom", 1, 9},
    {"tty", 5, 0},
}};

/// A symbolic link in /dev.
struct device_link {
    std::string_view name;
    std::string_view target;
};

inline constexpr std::array<device_link, 6> default_device_links{{
    {"fd", "/proc/self/fd"},
    {"stdin", "/proc/self/fd/0"},
    {"stdout", "/proc/self/fd/1"},
    {"stderr", "/proc/self/fd/2"},
    {"core", "/proc/kcore"},
    {"ptmx", "pts/ptmx"},
}};

/// Below /proc: hidden behind an empty read-only directory, or an empty read-only file.
inline constexpr std::array<std::string_view, 10> masked_proc_paths{
    "acpi",          "asound",     "interrupts",  "kcore",       "keys",
    "latency_stats", "timer_list", "timer_stats", "sched_debug", "scsi"};

/// Below /proc: visible and read-only.
inline constexpr std::array<std::string_view, 5> readonly_proc_paths{"bus", "fs", "irq", "sys",
                                                                     "sysrq-trigger"};

/// Below /sys: hidden behind an empty, read-only directory.
inline constexpr std::array<std::string_view, 2> masked_sys_paths{"firmware",
                                                                  "devices/virtual/powercap"};

}  // namespace kumiki::inline v0
