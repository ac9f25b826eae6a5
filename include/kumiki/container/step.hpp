// What the child does between clone3 and execve, as plain data: steps, and the report that it
// leaves. Both sides include this header; it has no code beyond the names of the phases.
//
// A step is one system call, its arguments ready in memory; an argument may be the result of an
// earlier step (a slot: a descriptor that did not exist when the plan was made). The few steps that
// are more than one call (a path made component by component, the search for the command) are
// listed in step_kind.
#pragma once

#include <cstddef>
#include <cstdint>

namespace kumiki::inline v0 {

/// The phases of a start on the child's side, in their order: what a failure names as its step,
/// and what the timeline shows.
enum class phase : std::uint8_t {
    descriptors,  ///< everything open but what the plan keeps is closed
    user,  ///< the id maps are awaited, and root inside is taken on
    enter,  ///< the namespaces of a container that runs already
    cgroup,  ///< the cgroup namespace, rooted at the container's own group
    hostname,  ///< the UTS namespace's name
    root,  ///< the root filesystem is made and attached
    proc,  ///< /proc, the score for the OOM killer, clock offsets
    dev,  ///< /dev, its nodes, pts, shm and mqueue
    netns,  ///< the network namespace, made meanwhile by the supervisor, is entered
    sys,  ///< /sys and /sys/fs/cgroup
    sysctl,  ///< kernel parameters of the namespaces
    mounts,  ///< what the caller wants mounted, and /etc/{hosts,hostname,resolv.conf}
    masks,  ///< masked and read-only paths
    session,  ///< session, terminal, standard descriptors
    pivot,  ///< pivot_root, the old root gone, all descriptors of the host closed
    limits,  ///< working directory, rlimits, umask
    landlock,  ///< the rules that the process is to be restricted by
    network,  ///< the barrier: the supervisor says that network and policy are in force
    identity,  ///< the command is looked at; user, groups, capabilities, no_new_privs
    seccomp,  ///< the system call filter
    exec,  ///< execve
};
inline constexpr std::size_t phase_count = static_cast<std::size_t>(phase::exec) + 1;

/// The name of a phase, as errors and timelines spell it.
constexpr const char* name_of(phase p) noexcept {
    constexpr const char* names[phase_count] = {
        "descriptors", "user",   "enter",    "cgroup",  "hostname", "root",    "proc",
        "dev",         "netns",  "sys",      "sysctl",  "mounts",   "masks",   "session",
        "pivot",       "limits", "landlock", "network", "identity", "seccomp", "exec"};
    return names[static_cast<std::size_t>(p)];
}

/// What a step is. All but `call` are sequences of calls that depend on each other's results.
enum class step_kind : std::uint8_t {
    call,  ///< one system call
    close_others,  ///< close_range around the kept descriptors
    make_path,  ///< open a path below a root, making what is missing, without leaving the root
    await_byte,  ///< wait, bounded, for a byte from the supervisor
    receive_slot,  ///< wait, bounded, for a descriptor from the supervisor (SCM_RIGHTS)
    send_slot,  ///< hand a descriptor to the supervisor (SCM_RIGHTS)
    hand_on,  ///< a further child of the supervisor goes on from here, and this one ends
    inspect,  ///< see that no candidate for the execve is reached over a magic link
    allow_path,  ///< open a path and add what Landlock allows there to a ruleset
    verify_text,  ///< read a file and compare: EBADMSG when it begins with something else
    exec,  ///< execve of the first candidate that can be executed
};

inline constexpr std::size_t slot_count = 48;
inline constexpr std::int8_t no_slot = -1;

/// One step. `arguments` marked in `slots` are indices of slots.
struct step {
    step_kind kind = step_kind::call;
    phase in = phase::descriptors;
    std::int8_t result = no_slot;  ///< the slot that gets the call's result
    std::uint8_t slots = 0;  ///< bit i: argument i is a slot's number
    std::int16_t tolerated = 0;  ///< an errno that is no failure here ...
    std::uint16_t skip = 0;  ///< ... after which so many of the next steps are left out
    long number = 0;  ///< the system call's
    long arguments[6] = {};
};

/// One component of a path that make_path walks: where it starts and ends in the text.
struct path_walk {
    const char* path = nullptr;  ///< relative to the root, without "." and ".."
    char* scratch = nullptr;  ///< as much room as `path` takes, for its prefixes
    bool directory = true;  ///< make the last component a directory, or an empty file
    bool follow = false;  ///< symbolic links lead on, inside the root; else they fail
    bool optional = false;  ///< what may not be made is EROFS, whether or not the root is read-only
};

/// A path and the rights that Landlock's rules give there.
struct allowed_path {
    const char* path = nullptr;  ///< absolute, in the root of the process
    std::uint64_t rights = 0;
    std::uint64_t file_rights = 0;  ///< those of them that what is no directory has
};

/// Arguments of an execve that looks for its command.
struct exec_candidates {
    const char* const* paths = nullptr;  ///< null-terminated
    const char* const* arguments = nullptr;
    const char* const* environment = nullptr;
};

/// What the child leaves in memory that the supervisor reads: where it stands, and why it stopped.
struct child_report {
    std::int32_t step = -1;  ///< index of the step that is being carried out
    std::int32_t error = 0;  ///< errno of the step that failed; 0: none did
    std::int32_t entered = 0;  ///< the process that goes on since hand_on; 0: there is none
    std::int64_t began = 0;  ///< CLOCK_MONOTONIC in ns, at the first step
    std::int64_t phase_end[phase_count] = {};  ///< when each phase ended; 0: it did not
    long slots[slot_count] = {};
};

/// The whole programme of a child.
struct child_program {
    const step* steps = nullptr;
    std::size_t count = 0;
    child_report* report = nullptr;
};

/// The exit status of a child that failed before its execve; the reason is in its report.
inline constexpr int child_failed_status = 125;

}  // namespace kumiki::inline v0
