// How much of a container is started: each level has all of the one before it.
#pragma once

#include <cstdint>

namespace bench {

enum class level : std::uint8_t {
    namespaces,  ///< mount, pid, uts, ipc and network, lo up; nothing is mounted
    rootfs,  ///< an overlay with /proc, /sys and /dev, and a change of root
    cgroup,  ///< a group with limits, its namespace and its mount
    network,  ///< a bridge port with addresses and routes
    port,  ///< a published port
    security,  ///< masked and read-only paths, capabilities, no_new_privs, the system call filter
};

inline constexpr level levels[] = {level::namespaces, level::rootfs, level::cgroup,
                                   level::network,    level::port,   level::security};

constexpr const char* name_of(level of) noexcept {
    constexpr const char* names[] = {"1 namespaces", "2 + root filesystem", "3 + control group",
                                     "4 + network",  "5 + published port",  "6 + security profile"};
    return names[static_cast<unsigned>(of)];
}

}  // namespace bench
