// What the kernel says, read from /proc, a control group's files and netlink, and not from the
// container library: the demonstration compares it with what was asked for.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace example {

/// The text of a small file, without the newline at its end; "" when it is not there.
std::string text_of(const std::string& path);

/// The namespace of that kind ("uts", "mnt" ...) as /proc/PID/ns has it: "uts:[4026531838]".
std::string namespace_of(pid_t pid, std::string_view kind);
/// One line of /proc/PID/status: "CapEff" gives "00000000a80425fb".
std::string status_of(pid_t pid, std::string_view key);
std::size_t mounts_of(pid_t pid);
/// Its command line, blanks between the arguments.
std::string command_of(pid_t pid);
/// The interfaces in its network namespace: "lo, eth0".
std::string interfaces_of(pid_t pid);
/// The addresses there but lo's: "10.88.0.2, fd00:88::2".
std::string addresses_of(pid_t pid);
/// The gateway of its IPv4 default route, and of the IPv6 one.
std::string gateways_of(pid_t pid);
/// uname(2)'s node name in its UTS namespace.
std::string hostname_of(pid_t pid);
/// Its control group as a process of its own cgroup namespace sees it; and as we do.
std::string cgroup_inside(pid_t pid);
std::string cgroup_outside(pid_t pid);
/// How many processes the /proc that is mounted at `root`/proc shows.
std::size_t processes_seen(const std::string& root);

/// What a container could leave behind, counted.
struct footprint {
    std::size_t groups = 0;     ///< control groups of that name, anywhere in the v2 hierarchy
    std::size_t links = 0;      ///< network interfaces
    std::size_t rules = 0;      ///< tables, chains, sets and rules of nftables
    std::size_t mounts = 0;     ///< in this process's mount namespace
    std::size_t processes = 0;  ///< children of this process
    bool operator==(const footprint&) const = default;
};
footprint take_footprint(const std::vector<std::string>& group_names);

}  // namespace example
