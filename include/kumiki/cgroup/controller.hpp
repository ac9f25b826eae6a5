// The controllers of cgroup v2 as a typed set, and which of them a control file belongs to.
//
// In the order in which the kernel lists them. A controller that this page does not know can still
// be written to with a raw key; it is then up to the caller to have it enabled.
// Source: Documentation/admin-guide/cgroup-v2.rst.
#pragma once

#include <array>
#include <optional>
#include <string>
#include <string_view>

#include <kumiki/core/flags.hpp>
#include <kumiki/core/text.hpp>

namespace kumiki::inline v0 {

/// A controller of cgroup v2, or a set of them.
enum class controllers : unsigned {
    none = 0,
    cpuset = 1U << 0,
    cpu = 1U << 1,
    io = 1U << 2,
    memory = 1U << 3,
    hugetlb = 1U << 4,
    pids = 1U << 5,
    rdma = 1U << 6,
    misc = 1U << 7,
    dmem = 1U << 8,  ///< 6.14
};

template <>
inline constexpr bool is_flags<controllers> = true;

/// One controller with its name in v2, and the name that a v1 mount has it under.
struct controller_info {
    controllers which = controllers::none;
    std::string_view name{};
    std::string_view v1_name{};
};

inline constexpr std::array<controller_info, 9> known_controllers{{
    {controllers::cpuset, "cpuset", "cpuset"},
    {controllers::cpu, "cpu", "cpu"},
    {controllers::io, "io", "blkio"},
    {controllers::memory, "memory", "memory"},
    {controllers::hugetlb, "hugetlb", "hugetlb"},
    {controllers::pids, "pids", "pids"},
    {controllers::rdma, "rdma", "rdma"},
    {controllers::misc, "misc", "misc"},
    {controllers::dmem, "dmem", "dmem"},
}};

/// The set in the text of cgroup.controllers or cgroup.subtree_control; unknown names are skipped.
constexpr controllers parse_controllers(std::string_view text) noexcept {
    controllers set = controllers::none;
    text = trim(text);
    while (const auto name = next_field(text, ' '))
        for (const auto& known : known_controllers)
            if (known.name == *name) set |= known.which;
    return set;
}

/// "memory pids"; empty for none.
inline std::string to_string(controllers set) {
    std::string text;
    for (const auto& known : known_controllers) {
        if (!has(set, known.which)) continue;
        if (!text.empty()) text += ' ';
        text += known.name;
    }
    return text;
}

/// The controller that a file like "memory.max" belongs to; none for the core's own ("cgroup.*")
/// and for an unknown one.
constexpr controllers controller_of(std::string_view key) noexcept {
    const std::string_view prefix = key.substr(0, key.find('.'));
    for (const auto& known : known_controllers)
        if (known.name == prefix && prefix.size() != key.size()) return known.which;
    return controllers::none;
}

/// Each controller of `set` is given to `function` in turn, with its names.
template <class Function>
constexpr void for_each_controller(controllers set, Function&& function) {
    for (const auto& known : known_controllers)
        if (has(set, known.which)) function(known);
}

}  // namespace kumiki::inline v0
