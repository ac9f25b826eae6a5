// A plan together with what it refers to outside of its own memory, and what is asked of those who
// write one; the standard descriptors, whose pipes are made with the plan.
#pragma once

#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <cstddef>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <kumiki/container/encode_mounts.hpp>
#include <kumiki/container/held_mounts.hpp>
#include <kumiki/container/named_user.hpp>
#include <kumiki/container/plan.hpp>
#include <kumiki/container/process_spec.hpp>
#include <kumiki/container/rootless.hpp>
#include <kumiki/core/unique_fd.hpp>
#include <kumiki/sys/check.hpp>

namespace kumiki::inline v0 {

/// A plan and what it refers to outside of its own memory.
struct encoded_plan {
    kumiki::plan plan{};
    std::vector<detail::held_mount> held{};
    std::vector<unique_fd> descriptors{};
    /// Claims on directories of the host, to be kept as long as the container runs.
    std::vector<unique_fd> claims{};
    std::array<unique_fd, 3> pipes{};  ///< the supervisor's ends of those for 0, 1 and 2
    child_program* program = nullptr;
    std::optional<detail::named_user> named_user{};
    std::optional<slot> fetched_listener{};  ///< where the supervisor finds the filter's listener
};

/// What the surroundings of a start know and the description does not.
struct encode_inputs {
    int control = -1;  ///< the child's end of the control socket
    std::string hostname{};
    std::vector<detail::made_file> files{};  ///< /etc/hosts and its like
    bool receives_netns = false;  ///< the network namespace is sent to the child
    bool loopback_is_raised = false;  ///< by who sends it
    bool awaits_maps = false;  ///< the supervisor writes the id maps
    bool has_group = true;  ///< a control group of its own
    bool waits = false;  ///< the command comes later: a waiter is executed (waiter.hpp)
    detail::start_privileges caller{};
};

namespace detail {

/// Makes the pipe for the standard descriptor `target`; yields the child's end.
inline unique_fd make_standard_pipe(encoded_plan& out, std::size_t target) {
    int ends[2];
    sys::check(::pipe2(ends, O_CLOEXEC), "make", "a pipe");
    unique_fd from(ends[0]);
    unique_fd to(ends[1]);
    if (target == 0) std::swap(from, to);
    out.pipes[target] = std::move(from);
    return to;
}

/// The sources of 0, 1 and 2: pipes are there, descriptors are out of the way of their targets.
inline std::array<stdio, 3> place_stdio(encoded_plan& out, const process_spec& process) {
    std::array<stdio, 3> placed = process.stdio;
    if (process.terminal) return {0, 1, 2};
    for (std::size_t target = 0; target < 3; ++target) {
        stdio& each = placed[target];
        unique_fd made;
        if (each.from() == stdio::source::pipe) {
            made = make_standard_pipe(out, target);
            each = made.get();
        }
        if (each.from() != stdio::source::descriptor ||
            each.descriptor() == static_cast<int>(target))
            continue;
        out.descriptors.emplace_back(
            sys::check(::fcntl(each.descriptor(), F_DUPFD_CLOEXEC, 3), [&] {
                return error_context{.operation = "duplicate",
                                     .object = "the container's standard descriptor " +
                                               std::to_string(each.descriptor()),
                                     .step = name_of(phase::session),
                                     .container = {},
                                     .remedy = "It must be open."};
            }));
        each = out.descriptors.back().get();
    }
    return placed;
}

}  // namespace detail
}  // namespace kumiki::inline v0
