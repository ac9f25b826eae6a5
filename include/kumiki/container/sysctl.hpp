// Kernel parameters of a container's own namespaces: which there are, and which namespace each one
// belongs to. A parameter that is the whole host's is refused: it is not the container's to change.
//
// Sources: namespaces(7), the kernel's Documentation/admin-guide/sysctl. They are written through
// the container's own procfs before anything of the image or the caller is mounted on it.
#pragma once

#include <algorithm>
#include <array>
#include <string>
#include <string_view>

#include <kumiki/core/error.hpp>
#include <kumiki/core/text.hpp>
#include <kumiki/ns/kind.hpp>

namespace kumiki::inline v0 {

/// A kernel parameter and its value: {"net.ipv4.ip_unprivileged_port_start", "0"}.
struct sysctl_setting {
    /// Its parts separated by '.', or by '/' where a part has a dot ("net/ipv4/conf/eth0.1/...").
    std::string name{};
    std::string value{};
};

namespace detail {

/// The name below /proc/sys: "net/ipv4/ip_forward". Errors: invalid_input.
inline std::string sysctl_path(const sysctl_setting& setting) {
    std::string path = setting.name;
    // As for sysctl(8): the separator that comes first is the one that counts.
    const auto first = path.find_first_of("./");
    if (first != std::string::npos && path[first] == '.') {
        for (char& c : path) c = c == '.' ? '/' : c == '/' ? '.' : c;
    }
    std::string_view rest = path;
    bool valid = path.size() < 256 && first != std::string::npos && !path.ends_with('/');
    while (const auto part = next_field(rest, '/'))
        valid = valid && is_path_component(*part) && *part != "." &&
                part->find_first_of(std::string_view("\0\n", 2)) == std::string_view::npos;
    if (!valid)
        throw invalid_input("sysctl", setting.name.substr(0, 64),
                            "It must be like net.ipv4.ip_forward.");
    return path;
}

/// The namespace that `path` belongs to, none for a parameter of the whole host.
inline namespace_kind sysctl_namespace(std::string_view path) {
    constexpr std::array<std::string_view, 9> ipc{
        "kernel/msgmax", "kernel/msgmnb",          "kernel/msgmni",
        "kernel/sem",    "kernel/shmall",          "kernel/shmmax",
        "kernel/shmmni", "kernel/shm_rmid_forced", "kernel/msg_next_id"};
    if (std::ranges::find(ipc, path) != ipc.end() || path.starts_with("fs/mqueue/"))
        return namespace_kind::ipc;
    if (path.starts_with("net/")) return namespace_kind::net;
    if (path == "kernel/domainname" || path == "kernel/hostname") return namespace_kind::uts;
    if (path.starts_with("user/")) return namespace_kind::user;
    return namespace_kind{};
}

/// Refuses what is not of a namespace among `own`. Errors: invalid_input.
inline void require_own_sysctl(const sysctl_setting& setting, namespace_kind own) {
    const std::string path = sysctl_path(setting);
    const namespace_kind needed = sysctl_namespace(path);
    if (needed == namespace_kind{})
        throw invalid_input("sysctl", setting.name,
                            "It is the whole host's: no namespace has its own.");
    if (path == "kernel/hostname")
        throw invalid_input("sysctl", setting.name, "The spec's hostname is for that.");
    if (!has(own, needed))
        throw invalid_input("sysctl", setting.name,
                            "It would be changed for others: the container has no " +
                                to_string(needed) + " namespace of its own.");
    require_c_string("sysctl value", setting.value);
    if (setting.value.empty()) throw invalid_input("sysctl", setting.name, "Its value is empty.");
}

}  // namespace detail
}  // namespace kumiki::inline v0
