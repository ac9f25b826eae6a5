// A further process of a running container, as its user describes it. What is not given is the
// container's own: environment, user, limits, capabilities, the system call filter, Landlock's rules,
// labels.
#pragma once

#include <array>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <kumiki/container/process_spec.hpp>
#include <kumiki/core/error.hpp>

namespace kumiki::inline v0 {

/// A command to be run in a container that runs already.
struct exec_spec {
    /// The command and its arguments. A command without '/' is looked for in the PATH of `env`.
    std::vector<std::string> args{};
    std::optional<std::vector<std::string>> env{};  ///< the whole environment
    std::optional<std::string> cwd{};  ///< absolute, in the container
    std::optional<process_user> user{};  ///< in the container's own ids
    /// In place of `user`: looked up in the container's passwd and group files as they are now.
    std::optional<user_request> named_user{};
    /// What becomes 0, 1 and 2. Unused with a terminal.
    std::array<kumiki::stdio, 3> stdio{0, 1, 2};
    /// A new terminal of the container's own devpts as 0, 1 and 2.
    std::optional<terminal_size> terminal{};
    /// A part of the container's; unset: all of them.
    std::optional<capability_set> capabilities{};
    /// Those of them that any user has from the start; unset: the container's.
    std::optional<capability_set> ambient{};

    /// The whole description, `of` being the container's first process.
    /// Errors: invalid_input, also for a capability that the container does not have.
    process_spec complete(process_spec of) const {
        of.args = args;
        of.stdio = stdio;
        of.terminal = terminal;
        of.init = init_process::none;
        if (env) of.env = *env;
        if (cwd) of.cwd = *cwd;
        if (user || named_user) {
            of.user = user.value_or(process_user{0, 0});
            of.named_user = named_user;
        }
        if (capabilities) {
            if (!of.capabilities.contains(*capabilities))
                throw invalid_input("capability set", to_string(*capabilities - of.capabilities),
                                    "The container does not have it.");
            // The filter stays the container's: it is never wider than the first process's.
            if (!of.filter) of.filter = default_seccomp_profile(of.capabilities);
            of.capabilities = *capabilities;
            of.ambient &= *capabilities;
            of.inheritable &= *capabilities;
        }
        if (ambient) of.ambient = *ambient;
        of.validate();
        return of;
    }
};

}  // namespace kumiki::inline v0
