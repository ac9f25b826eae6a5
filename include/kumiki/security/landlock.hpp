// Landlock (landlock(7)): which files a process may use, which TCP ports, and whom outside it may
// reach, on top of all that the kernel checks anyway. A ruleset as data, and what the calls take.
//
// What the rules handle is denied where none of them allows it, for the process and for all that it
// starts, for good; descriptors that are open already stay usable. As with chroot, rules about files
// take mounting away (EPERM). A kernel has an ABI number, which each right asks for: 1 is Linux
// 5.13, 2 5.19, 3 6.2, 4 6.7, 5 6.10, 6 6.12. Left out: flags for the audit log (ABI 7) and all that
// is newer.
#pragma once

#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include <kumiki/core/error.hpp>
#include <kumiki/core/flags.hpp>
#include <kumiki/core/text.hpp>
#include <kumiki/core/unique_fd.hpp>
#include <kumiki/sys/abi.hpp>
#include <kumiki/sys/check.hpp>
#include <kumiki/sys/file.hpp>

namespace kumiki::inline v0 {

/// Rights on files, by the kernel's bits (LANDLOCK_ACCESS_FS_*). Those of directories are about
/// what is in them.
enum class landlock_access : std::uint64_t {
    none = 0,
    execute = 1 << 0,
    write_file = 1 << 1,
    read_file = 1 << 2,
    read_dir = 1 << 3,
    remove_dir = 1 << 4,
    remove_file = 1 << 5,
    make_char = 1 << 6,
    make_dir = 1 << 7,
    make_reg = 1 << 8,
    make_sock = 1 << 9,
    make_fifo = 1 << 10,
    make_block = 1 << 11,
    make_sym = 1 << 12,
    refer = 1 << 13,  ///< link or rename to another directory: ABI 2, before it nobody may
    truncate = 1 << 14,  ///< ABI 3
    ioctl_dev = 1 << 15,  ///< ioctls of devices: ABI 5

    read = read_file | read_dir,
    /// What changes a tree of files, without making devices.
    modify = write_file | truncate | remove_dir | remove_file | make_dir | make_reg | make_sock |
             make_fifo | make_sym | refer,
    /// All those above, and never more: a right of a later ABI would be an addition beside it.
    all = 0xffff,
};
template <>
inline constexpr bool is_flags<landlock_access> = true;

/// Rights on TCP ports (LANDLOCK_ACCESS_NET_*): ABI 4.
enum class landlock_network : std::uint64_t { none = 0, bind_tcp = 1, connect_tcp = 2 };
template <>
inline constexpr bool is_flags<landlock_network> = true;

/// What ends where the rules end (LANDLOCK_SCOPE_*): ABI 6.
enum class landlock_scope : std::uint64_t {
    none = 0,
    abstract_unix_socket = 1,  ///< no connection to those that others have made
    signal = 2,  ///< no signal to others
};
template <>
inline constexpr bool is_flags<landlock_scope> = true;

/// What becomes of that which the kernel lacks.
enum class landlock_support : std::uint8_t {
    required,  ///< an error
    best_effort,  ///< it is left out, at worst all of it
};

/// A file, or a directory with all below it, and what is allowed there.
struct landlock_path {
    std::string path{};  ///< absolute; must be there. A symbolic link is followed
    landlock_access allow = landlock_access::read;  ///< on a file: what of it files have
};

/// A TCP port and what is allowed with it. To bind port 0 is to have any free one.
struct landlock_port {
    std::uint16_t port = 0;
    landlock_network allow = landlock_network::none;
};

/// A set of rules. What is handled is denied but where `paths` or `ports` allow it.
struct landlock_rules {
    landlock_access handled = landlock_access::all;
    std::vector<landlock_path> paths{};
    landlock_network handled_network = landlock_network::none;
    std::vector<landlock_port> ports{};
    landlock_scope scopes = landlock_scope::none;
    landlock_support support = landlock_support::required;

    /// Refuses what no kernel takes. Errors: invalid_input.
    void validate() const {
        const auto known = [](const char* what, auto rights, auto all) {
            if ((rights & ~all) != decltype(rights){})
                throw invalid_input(what, std::to_string(to_underlying(rights & ~all)),
                                    "No right of Landlock that is known here has this bit.");
        };
        known("Landlock right", handled, landlock_access::all);
        known("Landlock right", handled_network,
              landlock_network::bind_tcp | landlock_network::connect_tcp);
        known("Landlock scope", scopes,
              landlock_scope::abstract_unix_socket | landlock_scope::signal);
        const auto within = [](const char* what, const std::string& name, auto allow, auto most) {
            if (allow == decltype(allow){}) throw invalid_input(what, name, "It allows nothing.");
            if (!has(most, allow))
                throw invalid_input(
                    what, name, "It allows what the rules do not handle, and so nobody denies.");
        };
        for (const landlock_path& each : paths) {
            require_c_string("Landlock path", each.path);
            if (!each.path.starts_with('/'))
                throw invalid_input("Landlock path", each.path, "It must be an absolute path.");
            within("Landlock path", each.path, each.allow, handled);
        }
        for (const landlock_port& each : ports)
            within("Landlock port", std::to_string(each.port), each.allow, handled_network);
    }
};

/// The ABI of the running kernel; 0 where Landlock is not built in, not turned on or not allowed.
inline unsigned landlock_abi() noexcept {
    const long abi = ::syscall(sys::nr_landlock_create_ruleset, nullptr, 0,
                               sys::landlock_create_ruleset_version);
    return abi > 0 ? static_cast<unsigned>(abi) : 0;
}

namespace detail {

/// The rights that a file has that is no directory; the kernel refuses others for it (EINVAL).
inline constexpr landlock_access landlock_file_rights =
    landlock_access::execute | landlock_access::write_file | landlock_access::read_file |
    landlock_access::truncate | landlock_access::ioctl_dev;

/// Rules as a kernel takes them: only what it knows.
struct landlock_payload {
    sys::landlock_ruleset ruleset{};
    std::vector<landlock_path> paths{};
    std::vector<sys::landlock_net_port> ports{};

    /// The kernel refuses a ruleset that is about nothing (ENOMSG).
    bool empty() const noexcept {
        return (ruleset.handled_access_fs | ruleset.handled_access_net | ruleset.scoped) == 0;
    }
};

/// The first ABI that has a bit of these, with its kernel and the bit's name.
struct landlock_feature {
    unsigned abi;
    const char* kernel;
    const char* name;
};

inline void require_landlock(const landlock_feature& wanted, unsigned abi) {
    utsname running{};
    ::uname(&running);
    const std::string here = std::string("; this kernel (") + running.release + ") has ";
    throw unsupported(
        EOPNOTSUPP,
        {.operation = "restrict by Landlock",
         .object = wanted.name,
         .step = {},
         .container = {},
         .remedy = "It needs ABI " + std::to_string(wanted.abi) + " (Linux " + wanted.kernel + ")" +
                   here +
                   (abi == 0 ? "no Landlock: CONFIG_SECURITY_LANDLOCK, and landlock in lsm=."
                             : "ABI " + std::to_string(abi) + ".") +
                   " best_effort leaves it out."});
}

}  // namespace detail

/// Prepares `rules` for a kernel with `abi`.
/// Errors: invalid_input; unsupported, which names the ABI needed, unless best effort is asked for.
inline detail::landlock_payload prepare_landlock(const landlock_rules& rules, unsigned abi) {
    rules.validate();
    landlock_access files = rules.handled;
    landlock_network network = rules.handled_network;
    landlock_scope scopes = rules.scopes;
    // Takes `feature` away from `rights` where the kernel lacks it.
    const auto limit = [&](auto& rights, auto feature, const detail::landlock_feature& wanted) {
        if (abi >= wanted.abi || (rights & feature) == decltype(feature){}) return;
        if (rules.support == landlock_support::required) detail::require_landlock(wanted, abi);
        rights = rights & ~feature;
    };
    limit(files, landlock_access::ioctl_dev, {5, "6.10", "the right ioctl_dev"});
    limit(files, landlock_access::truncate, {3, "6.2", "the right truncate"});
    limit(files, landlock_access::refer, {2, "5.19", "the right refer"});
    limit(files, landlock_access::all, {1, "5.13", "files"});
    limit(network, landlock_network::bind_tcp, {4, "6.7", "the right bind_tcp"});
    limit(network, landlock_network::connect_tcp, {4, "6.7", "the right connect_tcp"});
    limit(scopes, landlock_scope::abstract_unix_socket, {6, "6.12", "abstract UNIX sockets"});
    limit(scopes, landlock_scope::signal, {6, "6.12", "signals"});

    detail::landlock_payload made{.ruleset = {.handled_access_fs = to_underlying(files),
                                              .handled_access_net = to_underlying(network),
                                              .scoped = to_underlying(scopes)}};
    for (const landlock_path& each : rules.paths)
        if ((each.allow & files) != landlock_access::none)
            made.paths.push_back({.path = each.path, .allow = each.allow & files});
    for (const landlock_port& each : rules.ports)
        if ((each.allow & network) != landlock_network::none)
            made.ports.push_back(
                {.allowed_access = to_underlying(each.allow & network), .port = each.port});
    return made;
}

/// Puts `rules` on the calling thread, for good, and on every process that it makes. Paths are the
/// thread's own.
/// Errors: as prepare_landlock(); kumiki::error; EPERM without no_new_privs and CAP_SYS_ADMIN.
inline void restrict_by_landlock(const landlock_rules& rules) {
    const auto made = prepare_landlock(rules, landlock_abi());
    if (made.empty()) return;
    const unique_fd ruleset(static_cast<int>(sys::check(
        ::syscall(sys::nr_landlock_create_ruleset, &made.ruleset, sizeof made.ruleset, 0), "create",
        "a Landlock ruleset")));
    for (const landlock_path& each : made.paths) {
        const unique_fd file = sys::open_at(AT_FDCWD, each.path, O_PATH);
        const landlock_access of_file = each.allow & detail::landlock_file_rights;
        const bool directory = S_ISDIR(sys::status_of(file.get()).st_mode);
        const landlock_access allow =
            directory || of_file == landlock_access::none ? each.allow : of_file;
        const sys::landlock_path_beneath rule{to_underlying(allow), file.get()};
        sys::check(::syscall(sys::nr_landlock_add_rule, ruleset.get(),
                             sys::landlock_rule_path_beneath, &rule, 0),
                   "allow by Landlock", each.path);
    }
    for (const sys::landlock_net_port& each : made.ports)
        sys::check(::syscall(sys::nr_landlock_add_rule, ruleset.get(), sys::landlock_rule_net_port,
                             &each, 0),
                   "allow by Landlock", "a port");
    sys::check(::syscall(sys::nr_landlock_restrict_self, ruleset.get(), 0), [] {
        return error_context{.operation = "restrict by Landlock",
                             .object = "this thread",
                             .step = {},
                             .container = {},
                             .remedy =
                                 "It needs no_new_privs (PR_SET_NO_NEW_PRIVS) or "
                                 "CAP_SYS_ADMIN."};
    });
}

}  // namespace kumiki::inline v0
