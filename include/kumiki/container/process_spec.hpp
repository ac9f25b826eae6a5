// The process of a container, as its user describes it: command, environment, identity, privileges.
#pragma once

#include <signal.h>

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <kumiki/container/process_attributes.hpp>
#include <kumiki/container/stdio.hpp>
#include <kumiki/core/error.hpp>
#include <kumiki/core/text.hpp>
#include <kumiki/security/capability.hpp>
#include <kumiki/security/labels.hpp>
#include <kumiki/security/landlock.hpp>
#include <kumiki/security/rlimits.hpp>
#include <kumiki/security/seccomp_notify.hpp>
#include <kumiki/security/seccomp_profile.hpp>
#include <kumiki/security/user.hpp>

namespace kumiki::inline v0 {

/// The size of a terminal, in characters.
struct terminal_size {
    std::uint16_t rows = 24;
    std::uint16_t columns = 80;
};

/// What is the first process of a container.
enum class init_process : std::uint8_t {
    none,  ///< the command itself: it gets no signal that it does not handle, and must reap orphans
    /// A small program that reaps orphans, hands signals on to the command, and ends with it. It
    /// counts as one of the container's processes. A `filter` of one's own must let it call
    /// execveat, prctl, fcntl, clone, setsid, ioctl, rt_sigprocmask, execve, write, close_range,
    /// rt_sigtimedwait, kill, wait4 and exit_group. x86-64 only.
    reaper,
};

/// The search path of a container whose environment names none.
inline constexpr const char* default_path =
    "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The process that a container runs.
struct process_spec {
    /// The command and its arguments. A command without '/' is looked for in the PATH of `env`.
    std::vector<std::string> args{};
    /// The whole environment; nothing is inherited.
    std::vector<std::string> env{std::string("PATH=") + default_path, "HOME=/", "TERM=xterm"};
    std::string cwd = "/";  ///< working directory, absolute, in the container
    process_user user{0, 0};  ///< in the container's own ids
    /// In place of `user`: "web", "web:adm", "1000" as parse_user() reads them, looked up in the
    /// container's own /etc/passwd and /etc/group once all of its mounts are there.
    std::optional<user_request> named_user{};
    std::uint32_t umask = 022;
    /// What becomes 0, 1 and 2: descriptors of this process, stdio::null(), pipe(), merge(). Unused
    /// with a terminal.
    std::array<kumiki::stdio, 3> stdio{0, 1, 2};
    /// A new terminal of this size as 0, 1 and 2; container::terminal() is its other end.
    std::optional<terminal_size> terminal{};
    /// What root has, and the most that any process of the container can ever have.
    capability_set capabilities = default_capabilities;
    /// Those of them that any user has from the start, and keeps across an execve: the way to give a
    /// user that is not root a right. They are inheritable as well.
    capability_set ambient{};
    /// Those of them that a file's own inheritable set gives (capabilities(7)): rarely wanted.
    capability_set inheritable{};
    bool no_new_privs = true;  ///< set-user-id programs and file capabilities give nothing
    /// The system call filter: unset, the default profile for `capabilities`; null, none. With
    /// notify rules, see container::seccomp_calls(); not for sendmsg and write both.
    std::optional<std::shared_ptr<const seccomp_program>> filter{};
    /// Files, ports and processes that it is denied; paths are those of the container.
    std::optional<landlock_rules> landlock{};
    std::string apparmor_profile{};  ///< a loaded profile's name; empty: what the kernel chooses
    std::string selinux_label{};  ///< "user:role:type:range"; empty: what the policy chooses
    std::vector<resource_limit> rlimits{default_resource_limits.begin(),
                                        default_resource_limits.end()};
    std::optional<int> oom_score_adj{};  ///< -1000 to 1000; unset: inherited
    std::optional<int> nice{};  ///< -20 (most time) to 19; unset: inherited
    std::optional<kumiki::scheduling> scheduling{};  ///< unset: inherited
    std::optional<kumiki::io_priority> io_priority{};  ///< unset: inherited
    std::vector<unsigned> processors{};  ///< the only ones it runs on; empty: inherited
    std::optional<personality_bits> personality{};  ///< unset: inherited
    /// A session keyring of its own and empty; else it is the supervisor's. keyctl(2)
    bool session_keyring = true;
    init_process init = init_process::none;
    int death_signal = SIGKILL;  ///< sent to the container when the supervisor dies; 0: none

    /// The sets that a process of `who` gets.
    process_capabilities capabilities_of(user_id who) const {
        const capability_set held = who.value() == 0 ? capabilities : ambient;
        return {.bounding = capabilities,
                .effective = held,
                .permitted = held,
                .inheritable = inheritable | ambient,
                .ambient = ambient};
    }

    /// Refuses what the kernel or the container could not take. Errors: invalid_input; unsupported
    /// for Landlock's rules or a label that this kernel would not enforce.
    void validate() const {
        if (args.empty() || args.front().empty())
            throw invalid_input("command", "", "There must be one.");
        std::size_t size = 0;
        for (const auto* list : {&args, &env})
            for (const std::string& text : *list) {
                require_c_string(list == &args ? "argument" : "environment", text, 128 * 1024);
                size += text.size() + 1 + sizeof(char*);
            }
        if (size > 2 * 1024 * 1024)
            throw invalid_input("command", args.front(),
                                "Arguments and environment have more than 2 MiB together.");
        for (const std::string& variable : env)
            if (variable.find('=') == std::string::npos || variable.front() == '=')
                throw invalid_input("environment", variable, "It must be like NAME=value.");
        require_c_string("working directory", cwd);
        if (!cwd.starts_with('/'))
            throw invalid_input("working directory", cwd, "It must be an absolute path.");
        if (filter && *filter && (*filter)->notifies()) (void)detail::choose_handover(**filter);
        if (umask > 0777)
            throw invalid_input("umask", std::to_string(umask), "It is at most 0777.");
        require_stdio(stdio);
        if (oom_score_adj && (*oom_score_adj < -1000 || *oom_score_adj > 1000))
            throw invalid_input("oom_score_adj", std::to_string(*oom_score_adj),
                                "It is from -1000 to 1000.");
        if (nice && (*nice < -20 || *nice > 19))
            throw invalid_input("nice", std::to_string(*nice), "It is from -20 to 19.");
        if (user.groups.size() > most_groups)
            throw invalid_input("supplementary groups", std::to_string(user.groups.size()),
                                "A process has at most 65,536 of them.");
        for (const resource_limit& limit : rlimits) limit.validate();
        if (death_signal < 0 || death_signal > 64)
            throw invalid_input("death signal", std::to_string(death_signal),
                                "It is from 1 to 64; 0 means none.");
        if (scheduling) scheduling->validate();
        if (io_priority) io_priority->validate();
        for (const unsigned each : processors)
            if (each >= most_processors)
                throw invalid_input("processor", std::to_string(each),
                                    "Their numbers are from 0 to 8191.");
        validate_privileges();
    }

    /// The paths at which the command is looked for, in their order.
    std::vector<std::string> candidates() const {
        const std::string& command = args.front();
        if (command.find('/') != std::string::npos) return {command};
        std::string_view path = default_path;
        for (const std::string& variable : env)
            if (variable.starts_with("PATH=")) path = std::string_view(variable).substr(5);
        std::vector<std::string> found;
        for (const std::string_view directory : split(path, ':'))
            if (directory.starts_with('/'))  // a relative one would depend on the working directory
                found.push_back(std::string(directory) + "/" + command);
        return found;
    }

  private:
    void validate_privileges() const {
        const capability_set beyond = (ambient | inheritable) - capabilities;
        if (!beyond.empty())
            throw invalid_input("capability set", to_string(beyond),
                                "It is ambient or inheritable but not among the capabilities.");
        if (landlock) (void)prepare_landlock(*landlock, landlock_abi());
        if (!apparmor_profile.empty()) require_label(label_kind::apparmor, apparmor_profile);
        if (!selinux_label.empty()) require_label(label_kind::selinux, selinux_label);
    }
};

}  // namespace kumiki::inline v0
