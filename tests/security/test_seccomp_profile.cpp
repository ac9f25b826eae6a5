#include <linux/keyctl.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>

#include <array>
#include <string>
#include <thread>
#include <vector>

#include <kumiki/security/seccomp_profile.hpp>

#include "security/bpf_machine.hpp"
#include "security/child.hpp"
#include "support/catch.hpp"

using namespace kumiki;

static_assert(detail::clone_namespaces ==
              (CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWUSER |
               CLONE_NEWPID | CLONE_NEWNET));
static_assert(TIOCSTI == 0x5412 && TIOCLINUX == 0x541c);
static_assert(AF_VSOCK == 40 && AF_ALG == 38 && AF_NETLINK == 16);

namespace {

using arguments = std::array<std::uint64_t, 6>;
constexpr auto minus = [](std::uint64_t n) { return std::uint64_t{0} - n; };
constexpr std::uint64_t nowhere = 8;  // an address in page zero: EFAULT for who may look at it

/// A call and what it fails with in a container. The arguments do nothing where it is let through.
struct row {
    std::string_view name;
    int expected = 0;  // 0: the call succeeds
    arguments with{};
    int number = -2;  // where the call has no name here
};

// In place of the call's own answer to these arguments (EFAULT, EINVAL, EBADF, success), EPERM.
const std::vector<row> refused{
    {"add_key", EPERM},
    {"keyctl", EPERM, {KEYCTL_GET_KEYRING_ID, minus(1), 0}},
    {"request_key", EPERM},
    {"io_uring_setup", EPERM},
    {"io_uring_enter", EPERM, {minus(1)}},
    {"io_uring_register", EPERM, {minus(1)}},
    {"userfaultfd", EPERM, {minus(1)}},
    {"kexec_load", EPERM, {0, minus(1), 0, minus(1)}},
    {"kexec_file_load", EPERM, {minus(1), minus(1), 0, 0, minus(1)}},
    {"reboot", EPERM},
    {"init_module", EPERM},
    {"finit_module", EPERM, {minus(1)}},
    {"delete_module", EPERM},
    {"open_by_handle_at", EPERM, {minus(1)}},
    {"mount", EPERM},
    {"umount2", EPERM, {nowhere}},
    {"pivot_root", EPERM, {nowhere, nowhere}},
    {"fsopen", EPERM, {nowhere}},
    {"fsconfig", EPERM, {minus(1)}},
    {"fsmount", EPERM, {minus(1)}},
    {"fspick", EPERM, {minus(1), nowhere}},
    {"move_mount", EPERM, {minus(1), nowhere, minus(1), nowhere}},
    {"open_tree", EPERM, {minus(1), nowhere}},
    {"open_tree_attr", EPERM, {minus(1), nowhere}},
    {"mount_setattr", EPERM, {minus(1), nowhere}},
    {"setns", EPERM, {minus(1)}},
    {"unshare", EPERM},
    {"unshare", EPERM, {CLONE_NEWUSER}},
    {"sethostname", EPERM, {nowhere, minus(1)}},
    {"setdomainname", EPERM, {nowhere, minus(1)}},
    {"bpf", EPERM, {minus(1)}},
    {"perf_event_open", EPERM},
    {"syslog", EPERM, {10}},
    {"fanotify_init", EPERM, {minus(1)}},
    {"lookup_dcookie", EPERM},
    {"quotactl", EPERM, {minus(1)}},
    {"quotactl_fd", EPERM, {minus(1)}},
    {"lsm_get_self_attr", EPERM},
    {"lsm_set_self_attr", EPERM},
    {"lsm_list_modules", EPERM},
    {"swapon", EPERM, {nowhere}},
    {"swapoff", EPERM, {nowhere}},
    {"acct", EPERM, {nowhere}},
    {"settimeofday", EPERM, {nowhere, nowhere}},
    {"clock_settime", EPERM, {minus(1)}},
    {"kcmp", EPERM},
    {"pidfd_getfd", EPERM, {minus(1)}},
    {"process_madvise", EPERM, {minus(1)}},
    {"get_mempolicy", EPERM},
    {"set_mempolicy", EPERM, {minus(1)}},
    {"mbind", EPERM},
    {"set_mempolicy_home_node", EPERM},
    {"migrate_pages", EPERM},
    {"move_pages", EPERM},
    {"nfsservctl", EPERM},
    {"vhangup", EPERM},
#ifdef __x86_64__
    {"iopl", EPERM},
    {"ioperm", EPERM, {minus(1)}},
    {"create_module", EPERM},
    {"get_kernel_syms", EPERM},
    {"query_module", EPERM},
    {"_sysctl", EPERM},
    {"sysfs", EPERM, {minus(1)}},
    {"ustat", EPERM},
    {"uselib", EPERM, {nowhere}},
#endif
};

const std::vector<row> by_argument{
    {"clone", EPERM, {CLONE_NEWUSER | SIGCHLD}},
    {"clone", EPERM, {CLONE_NEWNS | SIGCHLD}},
    {"clone", EPERM, {CLONE_NEWNET | CLONE_VM | SIGCHLD}},
    {"clone", EINVAL, {CLONE_SIGHAND}},  // the kernel's own answer
    {"clone3", ENOSYS},
    {"personality", 0, {0xffffffff}},
    {"personality", 0, {0x20000}},
    {"personality", EPERM, {0x40000}},  // ADDR_NO_RANDOMIZE
    {"personality", EPERM, {0x400000}},  // READ_IMPLIES_EXEC
    {"personality", EPERM, {0x100000008}},
    {"socket", EPERM, {AF_ALG, SOCK_SEQPACKET}},
    {"socket", EPERM, {AF_ALG | 1ULL << 32, SOCK_SEQPACKET}},
    {"socket", EPERM, {AF_VSOCK, SOCK_STREAM}},
    {"socket", EPERM, {12, SOCK_STREAM}},
    {"socket", EPERM, {46, SOCK_STREAM}},
    {"socket", EPERM, {minus(1), SOCK_STREAM}},
    {"socket", 0, {AF_UNIX, SOCK_STREAM}},
    {"socket", 0, {AF_INET, SOCK_STREAM}},
    {"socket", 0, {AF_NETLINK, SOCK_RAW, 0}},
    {"socket", EINVAL, {AF_NETLINK, SOCK_RAW, 9}},
    {"socket", EINVAL, {AF_NETLINK | 1ULL << 40, SOCK_RAW, 9 | 1ULL << 63}},
    {"ioctl", EPERM, {minus(1), TIOCSTI, nowhere}},
    {"ioctl", EPERM, {minus(1), TIOCSTI | 1ULL << 32, nowhere}},
    {"ioctl", EPERM, {minus(1), TIOCLINUX, nowhere}},
    {"ioctl", EBADF, {minus(1), TCGETS, nowhere}},
};

const std::vector<row> allowed{
    {"getpid", 0},
    {"getuid", 0},
    {"read", EBADF, {minus(1)}},
    {"openat", EFAULT, {minus(1), nowhere}},
    {"execve", EFAULT, {nowhere}},
    {"execveat", EFAULT, {minus(1), nowhere}},
    {"chroot", EFAULT, {nowhere}},  // the default set has CAP_SYS_CHROOT
    {"mknodat", EFAULT, {minus(1), nowhere, 0010000}},
    {"ptrace", ESRCH, {PTRACE_PEEKDATA, 0}},
    {"process_vm_readv", 0, {0x3fffffff}},  // of nothing
    {"seccomp", EINVAL, {minus(1)}},
    {"prctl", EINVAL, {minus(1)}},
    {"futex", ENOSYS, {nowhere * 8, 127}},
    {"memfd_create", EFAULT, {nowhere}},
    {"setpriority", EINVAL, {minus(1)}},
    {"capget", EFAULT, {nowhere}},
    {"close_range", EINVAL, {2, 1}},
    {"pidfd_open", EINVAL, {0}},
};

const std::vector<row> unknown{
    {"the first number after the table", ENOSYS, {}, detail::newest_syscall + 1},
    {"far above", ENOSYS, {}, 100'000},
    {"in a hole of the table", ENOSYS, {}, 400},
    {"minus one", ENOSYS, {}, -1},
    {"x32 getpid", ENOSYS, {}, 0x40000000 + 39},
    {"x32 mount", ENOSYS, {}, 0x40000000 + 165},
};

/// What each call came to in a child that installed `program` on itself: errno, or 0.
std::vector<int> answers(const seccomp_program& program, const std::vector<row>& rows) {
    const std::size_t bytes = rows.size() * sizeof(int);
    auto* results = static_cast<int*>(
        ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
    REQUIRE(results != MAP_FAILED);
    const int code = kumiki_test::exit_code_of([&] {
        ::setsid();  // no terminal, should vhangup or TIOCSTI be let through
        ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
        install_seccomp(program);
        for (std::size_t i = 0; i < rows.size(); ++i) {
            const int number = rows[i].number == -2 ? syscall_number(rows[i].name) : rows[i].number;
            const auto& a = rows[i].with;
            errno = 0;
            const long result = ::syscall(number, a[0], a[1], a[2], a[3], a[4], a[5]);
            results[i] = result == -1 ? errno : 0;
        }
    });
    std::vector<int> copy(results, results + rows.size());
    ::munmap(results, bytes);
    CHECK(code == 0);
    return copy;
}

/// `or_absent`: a call that should get through may not be built into this kernel (ENOSYS).
void compare(const seccomp_program& program, const std::vector<row>& rows, bool or_absent = false) {
    const auto got = answers(program, rows);
    for (std::size_t i = 0; i < rows.size(); ++i) {
        if (or_absent && rows[i].expected != EPERM && got[i] == ENOSYS) continue;
        CAPTURE(rows[i].name, rows[i].with);
        CHECK(errno_name(got[i]) == errno_name(rows[i].expected));
    }
}

}  // namespace

TEST_CASE("the default profile refuses in the kernel what a container must not call") {
    const auto profile = default_seccomp_profile(default_capabilities);
    SECTION("whole calls") { compare(*profile, refused); }
    SECTION("calls by their arguments") { compare(*profile, by_argument); }
    SECTION("and lets through what programs need") { compare(*profile, allowed); }
    SECTION("and answers what nobody knows as an older kernel would") {
        compare(*profile, unknown);
    }
    CHECK(refused.size() + by_argument.size() + allowed.size() + unknown.size() >= 100);
}

TEST_CASE("capabilities open the calls that belong to them, and no others") {
    const auto opened = [](capability_set extra, const std::vector<row>& rows) {
        compare(*default_seccomp_profile(default_capabilities | extra), rows, true);
    };
    if (!kumiki_test::status_after([] {}).capabilities.effective.contains(capability::sys_admin))
        KUMIKI_SKIP("needs root: the calls' own answers are those to a privileged caller");
    opened(capability::sys_admin, {{"mount", EFAULT, {nowhere, nowhere, nowhere}},
                                   {"unshare", 0},
                                   {"setns", EBADF, {minus(1)}},
                                   {"clone3", EINVAL},
                                   {"clone", EINVAL, {CLONE_NEWNS | CLONE_FS}},
                                   {"bpf", EINVAL, {minus(1)}},
                                   {"syslog", 0, {10}},
                                   {"keyctl", EPERM},
                                   {"pivot_root", EPERM, {nowhere, nowhere}},
                                   {"reboot", EPERM},
                                   {"kcmp", EPERM},
                                   {"io_uring_setup", EPERM},
                                   {"socket", EPERM, {AF_ALG, SOCK_SEQPACKET}}});
    opened(capability::sys_boot, {{"reboot", EINVAL}, {"mount", EPERM}});
    opened(capability::bpf, {{"bpf", EINVAL, {minus(1)}}, {"mount", EPERM}});
    opened(capability::perfmon, {{"perf_event_open", EFAULT, {nowhere}}, {"bpf", EPERM}});
    opened(capability::syslog, {{"syslog", 0, {10}}, {"perf_event_open", EPERM}});
    opened(capability::sys_module, {{"finit_module", EINVAL, {minus(1), nowhere, minus(1)}}});
    opened(capability::sys_time, {{"clock_settime", EINVAL, {99, nowhere}}});
    opened(capability::sys_pacct, {{"acct", EFAULT, {nowhere}}});
    opened(capability::dac_read_search, {{"open_by_handle_at", EFAULT, {minus(1), nowhere}}});
    opened(capability::sys_nice, {{"get_mempolicy", 0}, {"move_pages", EPERM}});
    opened(capability::audit_write, {{"socket", 0, {AF_NETLINK, SOCK_RAW, 0}}});
    const auto without_chroot =
        default_seccomp_profile(default_capabilities - capability::sys_chroot);
    compare(*without_chroot, {{"chroot", EPERM, {nowhere}}});
}

#ifdef __x86_64__
TEST_CASE("a call through the 32-bit gate kills the process") {
    const auto getpid_by_int80 = [] {
        long result = 20;  // getpid of i386; writev of x86-64
        asm volatile("int $0x80" : "+a"(result) : : "memory", "r8", "r9", "r10", "r11");
        return result;
    };
    const int open = kumiki_test::exit_code_of([&] { ::_exit(getpid_by_int80() > 0 ? 0 : 1); });
    if (open != 0) KUMIKI_SKIP("this kernel has no 32-bit gate");
    const auto profile = default_seccomp_profile(capability_set::all());
    const int shut = kumiki_test::exit_code_of([&] {
        ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
        install_seccomp(*profile);
        ::_exit(getpid_by_int80() > 0 ? 0 : 1);
    });
    CHECK(shut == 128 + SIGSYS);
}
#endif

TEST_CASE("every call of the table is answered, and cheaply") {
    const auto profile = default_seccomp_profile(default_capabilities);
    CHECK(profile->instructions().size() < 400);
    unsigned most = 0;
    unsigned open = 0;
    for (int number = 0; number <= detail::newest_syscall + 1; ++number) {
        seccomp_data data{};
        data.nr = number;
        data.arch = detail::seccomp_architecture;
        const auto result = kumiki_test::run_bpf(profile->instructions(), data);
        const bool passes = result.value == SECCOMP_RET_ALLOW;
        const bool errs = (result.value & SECCOMP_RET_ACTION_FULL) == SECCOMP_RET_ERRNO;
        CHECK((passes || errs));
        if (passes) {
            most = std::max(most, result.steps);
            ++open;
        }
    }
    CHECK(open > 250);
    CHECK(most <= 64);  // socket(), whose families are compared one by one
}

TEST_CASE("a profile is compiled once for the capabilities that matter to it") {
    const auto first = default_seccomp_profile(default_capabilities);
    CHECK(default_seccomp_profile(default_capabilities) == first);
    CHECK(default_seccomp_profile(default_capabilities - capability::kill) == first);
    CHECK(default_seccomp_profile(default_capabilities | capability::sys_admin) != first);
    for (unsigned i = 0; i < 2 * capability_count; ++i)  // more than are kept
        CHECK(default_seccomp_profile(capability_set::from_bits(std::uint64_t{3} << i / 2)));
    CHECK(default_seccomp_profile(default_capabilities)->instructions().size() ==
          first->instructions().size());
}

TEST_CASE("profiles are asked for by several threads at once") {
    std::array<std::size_t, 8> sizes{};
    {
        std::vector<std::jthread> threads;
        for (std::size_t t = 0; t < sizes.size(); ++t)
            threads.emplace_back([&sizes, t] {
                for (unsigned i = 0; i < 40; ++i)
                    sizes[t] +=
                        default_seccomp_profile(capability_set::all(i))->instructions().size();
            });
    }
    CHECK(sizes == [&] {
        std::array<std::size_t, 8> same{};
        same.fill(sizes[0]);
        return same;
    }());
}

TEST_CASE("a caller's own rules can be added to the default profile") {
    const auto program = default_seccomp_filter(default_capabilities)
                             .on("getppid", seccomp_action::fail(EDOM))
                             .compile();
    compare(program, {{"getppid", EDOM}, {"mount", EPERM}});
}
