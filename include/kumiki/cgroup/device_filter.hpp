// Sets the device list of a group: loads its program and attaches it, or puts it in the place of the
// one that was set before in one step, so that no open in between meets neither.
//
// A group below can only be denied more: the programs of all groups above are asked, too. What was
// set stays for the life of the group and needs no process. Kernel: 4.15; the step 5.6.
#pragma once

#include <linux/bpf.h>

#include <cerrno>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <kumiki/cgroup/cgroup.hpp>
#include <kumiki/cgroup/devices.hpp>
#include <kumiki/core/error.hpp>
#include <kumiki/core/unique_fd.hpp>
#include <kumiki/sys/ebpf.hpp>

namespace kumiki::inline v0 {
namespace detail {

/// What the programs of device lists are called: so they are found again, by any process.
inline constexpr std::string_view device_program_name = "kumiki_devices";

/// An error of bpf(2) with the group and what may be the cause.
[[noreturn]] inline void throw_device_error(const error& failure, const cgroup& group) {
    const int code = failure.errno_value();
    error_context context{.operation = failure.operation() + " on", .object = group.path()};
    switch (code) {
    case EPERM:
        context.remedy =
            "It takes CAP_BPF and CAP_NET_ADMIN (CAP_SYS_ADMIN before 5.8) in the "
            "first user namespace; or a group above has a program that allows no "
            "other below it.";
        break;
    case E2BIG:
        context.remedy = "The group has 64 programs already, or the list has too many rules.";
        break;
    case ENOSPC:
    case ENOMEM:
        context.remedy = "The kernel has no room for the program (before 5.11: RLIMIT_MEMLOCK).";
        break;
    default:
        break;
    }
    if (code == ENOSYS || code == EINVAL) {
        context.remedy = "This kernel has no BPF programs for devices (CONFIG_CGROUP_BPF; 4.15).";
        throw unsupported(code, std::move(context));
    }
    throw error(code, std::move(context));
}

template <class Work>
auto with_device_errors(const cgroup& group, Work work) {
    try {
        return work();
    } catch (const error& failure) {
        throw_device_error(failure, group);
    }
}

/// The programs of device lists that are attached to the group itself.
inline std::vector<unique_fd> device_programs(int directory) {
    std::vector<unique_fd> found;
    for (const std::uint32_t id : sys::attached_ebpf(directory, BPF_CGROUP_DEVICE)) {
        unique_fd program = sys::open_ebpf(id);
        if (program && sys::name_of_ebpf(program.get()) == device_program_name)
            found.push_back(std::move(program));
    }
    return found;
}

/// bpf(2) takes no O_PATH descriptor.
inline unique_fd readable_directory(const cgroup& group) {
    return sys::open_at(group.fd(), ".", O_RDONLY | O_DIRECTORY);
}

}  // namespace detail

/// Puts the list in force for the group and all groups below. A list that was set before goes in the
/// same step. Not for several threads at once on one group.
///
/// Errors: EPERM; unsupported on a kernel without it. The former list is in force then.
/// Kernel: before 5.6 the two lists are both in force for a moment: what either denies is denied.
inline void set_devices(const cgroup& group, const device_list& list) {
    const unique_fd directory = detail::readable_directory(group);
    detail::with_device_errors(group, [&] {
        const unique_fd program = sys::load_ebpf(BPF_PROG_TYPE_CGROUP_DEVICE, BPF_CGROUP_DEVICE,
                                                 detail::device_program_name, list.compile());
        auto former = detail::device_programs(directory.get());
        bool is_set = false;
        if (!former.empty()) {
            try {
                is_set = sys::attach_ebpf(directory.get(), program.get(), BPF_CGROUP_DEVICE,
                                          former.front().get());
                if (is_set) former.erase(former.begin());
            } catch (const error& failure) {
                if (failure.errno_value() != EINVAL) throw;  // EINVAL: no BPF_F_REPLACE
            }
        }
        if (!is_set) sys::attach_ebpf(directory.get(), program.get(), BPF_CGROUP_DEVICE);
        for (const unique_fd& other : former)
            sys::detach_ebpf(directory.get(), other.get(), BPF_CGROUP_DEVICE);
    });
}

/// Takes the list off the group; true when there was one. Those of groups above stay in force.
inline bool clear_devices(const cgroup& group) {
    const unique_fd directory = detail::readable_directory(group);
    return detail::with_device_errors(group, [&] {
        bool had = false;
        for (const unique_fd& program : detail::device_programs(directory.get()))
            had |= sys::detach_ebpf(directory.get(), program.get(), BPF_CGROUP_DEVICE);
        return had;
    });
}

/// True when a list is in force that was set on this very group.
inline bool has_devices(const cgroup& group) {
    const unique_fd directory = detail::readable_directory(group);
    return detail::with_device_errors(
        group, [&] { return !detail::device_programs(directory.get()).empty(); });
}

}  // namespace kumiki::inline v0
