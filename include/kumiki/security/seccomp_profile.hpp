// The seccomp filter of a normal container: everything is allowed but what reaches for the host or
// what only widens the kernel's attack surface. Equal in strength to the profile docker ships, and
// like it, opened by the capabilities that the container is given.
//
// A refused call fails with EPERM, clone3 with ENOSYS (its flags are behind a pointer: the libc
// then uses clone), as does every call that is newer than the table. Other ABIs kill.
// Left open, as docker does since 4.8 fixed it: ptrace and process_vm_*, within the container.
#pragma once

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string_view>
#include <utility>
#include <vector>

#include <kumiki/security/capability.hpp>
#include <kumiki/security/seccomp.hpp>

namespace kumiki::inline v0 {

namespace detail {

/// A call that is refused unless the container has one of `opened_by` (empty: always refused).
struct gated_call {
    std::string_view name;
    capability_set opened_by{};
};

inline constexpr capability_set admin = capability::sys_admin;

// clang-format off
inline constexpr auto gated_calls = std::to_array<gated_call>({
    // Keys are not per container; a keyring is a way around every namespace.
    {"add_key"}, {"keyctl"}, {"request_key"},
    // Every operation of a ring goes past this filter.
    {"io_uring_setup"}, {"io_uring_enter"}, {"io_uring_register"},
    // Lets a program stop the kernel in the middle of a copy: the tool of many exploits.
    {"userfaultfd"},
    {"kexec_load"}, {"kexec_file_load"}, {"reboot", capability::sys_boot},
    {"init_module", capability::sys_module}, {"finit_module", capability::sys_module},
    {"delete_module", capability::sys_module}, {"create_module"}, {"get_kernel_syms"},
    {"query_module"},
    // A file handle names any inode of the filesystem, also outside of the root.
    {"open_by_handle_at", capability::dac_read_search},
    // Mounts and namespaces.
    {"mount", admin}, {"umount2", admin}, {"pivot_root"}, {"fsopen", admin}, {"fsconfig", admin},
    {"fsmount", admin}, {"fspick", admin}, {"move_mount", admin}, {"open_tree", admin},
    {"open_tree_attr", admin}, {"mount_setattr", admin}, {"setns", admin}, {"unshare", admin},
    {"sethostname", admin}, {"setdomainname", admin},
    {"chroot", capability::sys_chroot},
    {"bpf", {capability::sys_admin, capability::bpf}},
    {"perf_event_open", {capability::sys_admin, capability::perfmon}},
    {"syslog", {capability::sys_admin, capability::syslog}},
    {"fanotify_init", admin}, {"lookup_dcookie", admin}, {"quotactl", admin},
    {"quotactl_fd", admin}, {"lsm_get_self_attr", admin}, {"lsm_set_self_attr", admin},
    {"lsm_list_modules", admin},
    {"swapon"}, {"swapoff"}, {"acct", capability::sys_pacct},
    // The clock is the host's; adjtimex and clock_adjtime stay for reading.
    {"settimeofday", capability::sys_time}, {"clock_settime", capability::sys_time},
    {"iopl", capability::sys_rawio}, {"ioperm", capability::sys_rawio},
    {"vhangup", capability::sys_tty_config},
    {"kcmp", capability::sys_ptrace}, {"pidfd_getfd", capability::sys_ptrace},
    {"process_madvise", capability::sys_ptrace},
    // Placement on the host's memory nodes.
    {"get_mempolicy", capability::sys_nice}, {"set_mempolicy", capability::sys_nice},
    {"mbind", capability::sys_nice}, {"set_mempolicy_home_node", capability::sys_nice},
    {"migrate_pages"}, {"move_pages"},
    // Obsolete; where they still do something, nobody looks after it.
    {"_sysctl"}, {"sysfs"}, {"ustat"}, {"uselib"}, {"nfsservctl"}, {"afs_syscall"}, {"getpmsg"},
    {"putpmsg"}, {"security"}, {"tuxcall"}, {"vserver"},
});
// clang-format on

static_assert(std::ranges::all_of(gated_calls,
                                  [](const gated_call& c) { return is_syscall_name(c.name); }));

/// The numbers are looked up while compiling; -1 for a call that the architecture does not have.
template <architecture Of>
inline constexpr auto gated_numbers = [] {
    std::array<int, gated_calls.size()> numbers{};
    for (std::size_t i = 0; i < numbers.size(); ++i)
        numbers[i] = find_syscall(gated_calls[i].name, Of).value_or(-1);
    return numbers;
}();

/// The capabilities that make a difference to the profile.
inline constexpr capability_set profile_capabilities = [] {
    capability_set set = admin | capability::audit_write;
    for (const gated_call& call : gated_calls) set |= call.opened_by;
    return set;
}();

/// CLONE_NEWCGROUP, UTS, IPC, USER, PID, NET, NS. (CLONE_NEWTIME is a signal number to clone.)
inline constexpr std::uint64_t clone_namespaces = 0x7e020000;
inline constexpr std::uint64_t as_int = 0xffffffff;

}  // namespace detail

/// The rules of the default profile for a container with the capabilities `granted`, to which a
/// caller may add rules of his own: on() for calls that have none, on_first() for any.
inline seccomp_filter default_seccomp_filter(capability_set granted,
                                             architecture of = native_architecture) {
    using detail::as_int;
    constexpr auto refuse = seccomp_action::fail(EPERM);
    constexpr auto allow = seccomp_action::allow();
    seccomp_filter filter(allow, seccomp_action::fail(ENOSYS), seccomp_action::kill_process(), of);
    const auto& numbers = of == architecture::x86_64 ? detail::gated_numbers<architecture::x86_64>
                                                     : detail::gated_numbers<architecture::aarch64>;
    for (std::size_t i = 0; i < detail::gated_calls.size(); ++i)
        if (numbers[i] >= 0 && !granted.intersects(detail::gated_calls[i].opened_by))
            filter.on(numbers[i], refuse);
    if (!granted.contains(capability::sys_admin)) {
        filter.on("clone", refuse, {(arg(0) & detail::clone_namespaces) != 0});
        filter.on("clone3", seccomp_action::fail(ENOSYS));
    }
    // Let through: PER_LINUX and PER_LINUX32 (8), each with UNAME26 (0x20000) or not, and asking
    // for the present one. The other bits weaken the address space or are unreviewed.
    filter.on("personality", allow, {(arg(0) & ~std::uint64_t{0x20008}) == 0});
    filter.on("personality", allow, {arg(0) == as_int});
    filter.on("personality", refuse);
    // Pushes characters into a terminal's input, and with it into the shell outside (CVE-2017-5226).
    for (const std::uint64_t request : {0x5412U, 0x541cU})  // TIOCSTI, TIOCLINUX
        filter.on("ioctl", refuse, {(arg(1) & as_int) == request});
    // The kernel's crypto (CVE-2026-31431) and the hypervisor's sockets, which no namespace holds;
    // families that hardly anybody has used or reviewed; and all that come after MCTP.
    for (const std::uint64_t family :
         {38U /* ALG */, 40U /* VSOCK */, 12U /* DECnet */, 19U /* Econet */, 20U /* ATM SVC */,
          23U /* IrDA */, 25U /* WANPIPE */, 34U /* IUCV */, 37U /* CAIF */})
        filter.on("socket", refuse, {(arg(0) & as_int) == family});
    filter.on("socket", refuse, {(arg(0) & as_int) > 45});
    // sshd and su take this for "no audit here" and go on.
    if (!granted.contains(capability::audit_write))
        filter.on("socket", seccomp_action::fail(EINVAL),
                  {(arg(0) & as_int) == 16 /* NETLINK */, (arg(2) & as_int) == 9 /* AUDIT */});
    return filter;
}

/// The default profile, compiled; kept for the next container with the same capabilities.
/// Thread-safe.
inline std::shared_ptr<const seccomp_program> default_seccomp_profile(capability_set granted) {
    static std::mutex mutex;
    static std::vector<std::pair<std::uint64_t, std::shared_ptr<const seccomp_program>>> kept;
    const std::uint64_t key = (granted & detail::profile_capabilities).bits();
    const std::scoped_lock lock(mutex);
    for (const auto& [bits, program] : kept)
        if (bits == key) return program;
    auto program =
        std::make_shared<const seccomp_program>(default_seccomp_filter(granted).compile());
    if (kept.size() >= 32) kept.erase(kept.begin());  // a program that varies them does not grow
    kept.emplace_back(key, program);
    return program;
}

}  // namespace kumiki::inline v0
