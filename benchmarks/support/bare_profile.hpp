// The privileges of every measured payload by bare system calls: capabilities, no_new_privs, the
// system call filter. A call returns what failed as a C library does: -1 and errno.
#pragma once

#include <linux/audit.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <iterator>
#include <span>
#include <vector>

#include "profile.hpp"

namespace bench {

class bare_profile {
  public:
    /// With the filter that all contenders of a start get.
    bare_profile() { make_filter(); }
    /// With another one.
    explicit bare_profile(std::span<const sock_filter> filter)
        : filter_(filter.begin(), filter.end()) {}

    std::span<const sock_filter> filter() const noexcept { return filter_; }

    long drop_capabilities() const noexcept {
        for (unsigned cap = 0; ::prctl(PR_CAPBSET_READ, cap, 0, 0, 0) >= 0; ++cap)
            if (cap >= 32 || (capability_mask >> cap & 1) == 0)
                if (::prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) < 0) return -1;
        __user_cap_header_struct header{.version = _LINUX_CAPABILITY_VERSION_3, .pid = 0};
        __user_cap_data_struct sets[2] = {
            {.effective = capability_mask, .permitted = capability_mask, .inheritable = 0}, {}};
        return ::syscall(SYS_capset, &header, sets);
    }
    long install_filter() noexcept {
        if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0) return -1;
        sock_fprog program{.len = static_cast<unsigned short>(filter_.size()),
                           .filter = filter_.data()};
        return ::syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program);
    }

  private:
    void make_filter() {
#if defined(__x86_64__)
        constexpr unsigned arch = AUDIT_ARCH_X86_64;
#else
        constexpr unsigned arch = AUDIT_ARCH_AARCH64;
#endif
        const auto load = [](std::size_t offset) {
            return sock_filter{BPF_LD | BPF_W | BPF_ABS, 0, 0, static_cast<unsigned>(offset)};
        };
        const auto answer = [](unsigned what) { return sock_filter{BPF_RET | BPF_K, 0, 0, what}; };
        filter_ = {load(offsetof(seccomp_data, arch)),
                   {BPF_JMP | BPF_JEQ | BPF_K, 1, 0, arch},
                   answer(SECCOMP_RET_KILL_PROCESS),
                   load(offsetof(seccomp_data, nr))};
        std::size_t left = std::size(refused_calls);
        for (const auto& [number, name] : refused_calls)
            filter_.push_back(
                {BPF_JMP | BPF_JEQ | BPF_K, static_cast<unsigned char>(left--), 0, number});
        filter_.push_back(answer(SECCOMP_RET_ALLOW));
        filter_.push_back(answer(SECCOMP_RET_ERRNO | EPERM));
    }

    std::vector<sock_filter> filter_;
};

}  // namespace bench
