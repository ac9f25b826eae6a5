// What a pool is asked for (pool.hpp): how many containers, of which spec, and what the command of one
// start has that differs.
//
// Pure. Left out: changes of more than the command, its environment and its standard descriptors.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include <kumiki/container/process_spec.hpp>
#include <kumiki/container/spec.hpp>
#include <kumiki/core/error.hpp>
#include <kumiki/core/ip.hpp>

namespace kumiki::inline v0 {

/// How many containers a pool has.
struct pool_options {
    std::size_t ready = 8;  ///< that wait for a command, at most
    std::size_t at_once = 2;  ///< that are made at the same time
};

/// In what a command differs from the process that a pool's containers are described with.
struct command_changes {
    std::vector<std::string> args{};  ///< empty: as described
    std::optional<std::vector<std::string>> env{};
    std::optional<std::array<kumiki::stdio, 3>> stdio{};  ///< not with a terminal
};

/// What a pool has done so far.
struct pool_counters {
    std::uint64_t warm = 0;  ///< starts for which a container was ready
    std::uint64_t cold = 0;  ///< starts for which none was, and that made theirs
    std::uint64_t prepared = 0;  ///< containers made ahead
    std::uint64_t failed = 0;  ///< containers that could not be made ahead
    std::uint64_t lost = 0;  ///< containers that ended while they waited
};

namespace detail {

/// The process of a start. Errors: invalid_input.
inline process_spec change_process(process_spec process, command_changes changes) {
    if (changes.stdio && process.terminal)
        throw invalid_input("standard descriptor", "terminal",
                            "The containers of this pool have a terminal for them.");
    if (!changes.args.empty()) process.args = std::move(changes.args);
    if (changes.env) process.env = std::move(*changes.env);
    if (changes.stdio) process.stdio = *changes.stdio;
    process.validate();
    return process;
}

/// Errors: invalid_input for what a pool cannot have.
inline void require_poolable(const container_spec& spec, const pool_options& options) {
    const process_spec& process = spec.process;
    const auto refuse = [](const char* what, std::string value, const char* why) {
        throw invalid_input(what, std::move(value), why);
    };
    if (options.at_once == 0) refuse("pool", "at_once = 0", "Somebody must make them.");
    if (process.init != init_process::none)
        refuse("init", "reaper", "What waits in a container of a pool is no init.");
    if (!process.apparmor_profile.empty() || !process.selinux_label.empty())
        refuse("label", process.apparmor_profile + process.selinux_label,
               "It is for the next execve, which is that of what waits for the command.");
    if (process.filter && *process.filter && (*process.filter)->notifies())
        refuse("filter", "notify", "It would ask about the calls of what waits, too.");
    // Others could get at what waits, and it at programs of theirs, through /proc.
    if (!has(spec.all_namespaces(), namespace_kind::pid) ||
        has(spec.joined_namespaces(), namespace_kind::pid))
        refuse("pid namespace", "not its own", "What waits would be seen there by others.");
    const auto refuse_upper = [&](const overlay_upper& upper) {
        if (!upper.upper.empty())
            refuse("overlay", upper.upper, "Only one container could write to it.");
    };
    if (spec.rootfs.is_overlay()) refuse_upper(spec.rootfs.upper());
    for (const mount_description& wanted : spec.mounts)
        if (const auto* overlay = std::get_if<overlay_mount>(&wanted)) refuse_upper(overlay->upper);
    if (const auto* attached = std::get_if<network_attachment>(&spec.network)) {
        const attach_options& wanted = attached->options;
        for (const auto& address : {wanted.address, wanted.address6})
            if (address) refuse("address", to_string(*address), "Only one could have it.");
        if (wanted.mac)
            refuse("Ethernet address", to_string(*wanted.mac), "Only one could have it.");
        if (!wanted.devices.empty())
            refuse("device", wanted.devices.front().link, "Only one container could have it.");
        if (!wanted.aliases.empty())
            refuse("alias", wanted.aliases.front(),
                   "It would lead others to containers that wait and have no command yet.");
        for (const published_port& port : wanted.publish)
            if (!port.picks_port())
                refuse("published port", std::to_string(port.host.first),
                       "Only one could have it: leave it to the kernel.");
    }
    // A container that has a device of the host's has it alone.
    if (std::holds_alternative<moved_devices>(spec.network))
        refuse("network", "moved_devices", "Only one container could have the devices.");
}

}  // namespace detail
}  // namespace kumiki::inline v0
