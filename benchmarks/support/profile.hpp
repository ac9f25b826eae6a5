// The configuration that every contender gets: capabilities, system calls refused, masked and
// read-only paths. The paths are those of runc's default specification.
#pragma once

#include <sys/syscall.h>

#include <cstdint>
#include <utility>

namespace bench {

/// The 14 capabilities of a default container, by number and name.
inline constexpr std::pair<unsigned, const char*> capabilities[] = {
    {0, "CAP_CHOWN"},        {1, "CAP_DAC_OVERRIDE"}, {3, "CAP_FOWNER"},
    {4, "CAP_FSETID"},       {5, "CAP_KILL"},         {6, "CAP_SETGID"},
    {7, "CAP_SETUID"},       {8, "CAP_SETPCAP"},      {10, "CAP_NET_BIND_SERVICE"},
    {13, "CAP_NET_RAW"},     {18, "CAP_SYS_CHROOT"},  {27, "CAP_MKNOD"},
    {29, "CAP_AUDIT_WRITE"}, {31, "CAP_SETFCAP"}};

inline constexpr std::uint32_t capability_mask = [] {
    std::uint32_t mask = 0;
    for (const auto& [number, name] : capabilities) mask |= 1U << number;
    return mask;
}();

#define BENCH_CALL(name) {SYS_##name, #name}
/// System calls that are refused with EPERM, by number and name.
inline constexpr std::pair<unsigned, const char*> refused_calls[] = {BENCH_CALL(acct),
                                                                     BENCH_CALL(add_key),
                                                                     BENCH_CALL(bpf),
                                                                     BENCH_CALL(clock_settime),
                                                                     BENCH_CALL(delete_module),
                                                                     BENCH_CALL(finit_module),
                                                                     BENCH_CALL(fsconfig),
                                                                     BENCH_CALL(fsmount),
                                                                     BENCH_CALL(fsopen),
                                                                     BENCH_CALL(init_module),
                                                                     BENCH_CALL(io_uring_setup),
                                                                     BENCH_CALL(kexec_file_load),
                                                                     BENCH_CALL(kexec_load),
                                                                     BENCH_CALL(keyctl),
                                                                     BENCH_CALL(mount),
                                                                     BENCH_CALL(move_mount),
                                                                     BENCH_CALL(name_to_handle_at),
                                                                     BENCH_CALL(open_by_handle_at),
                                                                     BENCH_CALL(open_tree),
                                                                     BENCH_CALL(perf_event_open),
                                                                     BENCH_CALL(pivot_root),
                                                                     BENCH_CALL(quotactl),
                                                                     BENCH_CALL(reboot),
                                                                     BENCH_CALL(request_key),
                                                                     BENCH_CALL(settimeofday),
                                                                     BENCH_CALL(swapoff),
                                                                     BENCH_CALL(swapon),
                                                                     BENCH_CALL(umount2),
                                                                     BENCH_CALL(userfaultfd),
                                                                     BENCH_CALL(vhangup)};
#undef BENCH_CALL

/// Hidden behind /dev/null or an empty read-only tmpfs, where they exist.
inline constexpr const char* masked_paths[] = {"proc/acpi",
                                               "proc/asound",
                                               "proc/kcore",
                                               "proc/keys",
                                               "proc/latency_stats",
                                               "proc/timer_list",
                                               "proc/timer_stats",
                                               "proc/scsi",
                                               "sys/firmware",
                                               "proc/sched_debug",
                                               "sys/devices/virtual/powercap"};

inline constexpr const char* read_only_paths[] = {"proc/bus", "proc/fs", "proc/irq", "proc/sys",
                                                  "proc/sysrq-trigger"};

}  // namespace bench
