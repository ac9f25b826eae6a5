// The eight kinds of namespaces as a typed set: their names, their links in /proc/PID/ns, and the
// CLONE_NEW* bits that clone3(2), unshare(2) and setns(2) know them by.
//
// The newest kind is time (5.6). What is left out: the two "for_children" links, which name what a
// process's next child gets and not where the process is.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include <kumiki/core/flags.hpp>
#include <kumiki/sys/abi.hpp>

namespace kumiki::inline v0 {

/// A kind of namespace, or a set of kinds; the value is the kernel's CLONE_NEW* bits.
enum class namespace_kind : std::uint64_t {
    none = 0,
    time = sys::clone_newtime,
    mount = sys::clone_newns,
    cgroup = sys::clone_newcgroup,
    uts = sys::clone_newuts,
    ipc = sys::clone_newipc,
    user = sys::clone_newuser,
    pid = sys::clone_newpid,
    net = sys::clone_newnet,
    all = time | mount | cgroup | uts | ipc | user | pid | net,
};

template <>
inline constexpr bool is_flags<namespace_kind> = true;

/// One kind with its names.
struct namespace_kind_info {
    namespace_kind kind = namespace_kind::none;
    std::string_view name{};       ///< for people: "mount"
    std::string_view proc_name{};  ///< the link in /proc/PID/ns: "mnt"
};

/// Every kind, in the order in which a process can join them: the user namespace first, because it
/// brings the capabilities over the others; the mount namespace last, because /proc changes in it.
inline constexpr std::array<namespace_kind_info, 8> namespace_kinds{{
    {namespace_kind::user, "user", "user"},
    {namespace_kind::cgroup, "cgroup", "cgroup"},
    {namespace_kind::ipc, "ipc", "ipc"},
    {namespace_kind::uts, "uts", "uts"},
    {namespace_kind::net, "net", "net"},
    {namespace_kind::pid, "pid", "pid"},
    {namespace_kind::time, "time", "time"},
    {namespace_kind::mount, "mount", "mnt"},
}};

/// The names of one kind; nothing for none, for a set, and for a bit that is no namespace's.
constexpr std::optional<namespace_kind_info> describe(namespace_kind kind) noexcept {
    for (const auto& info : namespace_kinds)
        if (info.kind == kind) return info;
    return std::nullopt;
}

/// The kind that `text` names, either way ("mount" or "mnt").
constexpr std::optional<namespace_kind> parse_namespace_kind(std::string_view text) noexcept {
    for (const auto& info : namespace_kinds)
        if (info.name == text || info.proc_name == text) return info.kind;
    return std::nullopt;
}

/// "mount", or "user, net" for a set; empty for none.
inline std::string to_string(namespace_kind kinds) {
    std::string text;
    for (const auto& info : namespace_kinds) {
        if (!has(kinds, info.kind)) continue;
        if (!text.empty()) text += ", ";
        text += info.name;
    }
    return text;
}

/// The bits as clone3(2) takes them.
constexpr std::uint64_t clone_flags(namespace_kind kinds) noexcept { return to_underlying(kinds); }

}  // namespace kumiki::inline v0
