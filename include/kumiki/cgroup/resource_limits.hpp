// Everything that a group can be limited in, as one aggregate of typed values.
//
// What a limit means is the kernel's: Documentation/admin-guide/cgroup-v2.rst. limits.hpp makes the
// control files of it and writes them; update.hpp changes those of a group in use.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include <kumiki/cgroup/io_limits.hpp>
#include <kumiki/cgroup/named_limits.hpp>
#include <kumiki/cgroup/setting.hpp>
#include <kumiki/core/units.hpp>

namespace kumiki::inline v0 {

/// cpuset.cpus.partition: whether the group's processors are taken away from all other groups.
enum class cpuset_partition : std::uint8_t {
    member,  ///< no: as every group at first
    root,  ///< yes, with scheduling of their own; the group above must be a partition, too
    isolated,  ///< yes, and nothing moves processes between them. Kernel: 6.1
};

/// What a group may use. A field that is not set is not written: the kernel's default, or what was
/// there before, stays. no_limit takes a limit of memory, cpu, pids, io and the like away.
struct resource_limits {
    /// memory.max: more makes the kernel reclaim, then kill (OOM). Swap is not counted here.
    std::optional<bytes> memory{};
    /// memory.high: above it, processes are slowed down and reclaimed from, never killed.
    std::optional<bytes> memory_high{};
    /// memory.low: below it, memory is reclaimed only if nothing else can be.
    std::optional<bytes> memory_low{};
    /// memory.min: below it, memory is not reclaimed at all.
    std::optional<bytes> memory_min{};
    /// memory.swap.high: above it, processes are slowed down. Kernel: 5.8.
    std::optional<bytes> memory_swap_high{};
    /// memory.zswap.max: memory for compressed swap. Kernel: 5.19.
    std::optional<bytes> memory_zswap{};
    /// memory.zswap.writeback: what is in there may move to the disk. Kernel: 6.8.
    std::optional<bool> memory_zswap_writeback{};
    /// memory.swap.max: swap space beside `memory`; 0 allows none.
    std::optional<bytes> memory_swap{};
    /// memory.oom.group: an OOM kill takes all processes of the group, not one.
    std::optional<bool> memory_oom_group{};
    /// cpu.max: processor time per wall time, over all processors: cpus(0.5).
    std::optional<cpus> cpu{};
    /// The period in which `cpu` is enforced: 1 ms to 1 s. Shorter ones throttle for shorter.
    std::chrono::microseconds cpu_period = std::chrono::milliseconds(100);
    /// cpu.weight: the share under contention, 1 to 10000; the kernel's default is 100.
    std::optional<unsigned> cpu_weight{};
    /// cpu.weight.nice: the same as a nice value, -20 to 19; takes the place of a weight.
    std::optional<int> cpu_nice{};
    /// cpu.max.burst: processor time that may be saved up from quiet periods. Kernel: 5.14.
    std::optional<std::chrono::microseconds> cpu_burst{};
    /// cpu.idle: run only when nothing else wants to; takes the place of a weight. Kernel: 5.15.
    std::optional<bool> cpu_idle{};
    /// cpu.uclamp.min and .max: bounds of the processors' frequency, in percent, 0 to 100.
    std::optional<double> cpu_uclamp_min{};
    std::optional<double> cpu_uclamp_max{};
    /// cpuset.cpus and cpuset.mems: processors and memory nodes, as lists: "0-3,6".
    std::optional<std::string> cpuset_cpus{};
    std::optional<std::string> cpuset_mems{};
    /// cpuset.cpus.partition. The kernel takes a value that it cannot fulfil, and says why in the
    /// file: clipped_limits() tells it ("root invalid (Cpu list in cpuset.cpus not exclusive)").
    std::optional<cpuset_partition> cpuset_kind{};
    /// io.max of each device: bytes and operations in a second.
    std::vector<io_limit> io{};
    /// io.weight: the share under contention, 1 to 10000; the kernel's default is 100.
    std::optional<unsigned> io_weight{};
    /// io.weight of single devices, beside that of all.
    std::vector<io_device_weight> io_device_weights{};
    /// io.latency: groups with a longer target are slowed down when this one is missed.
    std::vector<io_latency> io_latencies{};
    /// io.prio.class: the priority of requests.
    std::optional<io_priority_class> io_priority{};
    /// hugetlb.SIZE.max: memory in huge pages of each size.
    std::vector<hugetlb_limit> hugetlb{};
    /// pids.max: processes and threads together, at least 1.
    std::optional<std::uint64_t> pids{};
    /// rdma.max: handles and objects of each RDMA device.
    std::vector<rdma_limit> rdma{};
    /// misc.max: other things that can be counted.
    std::vector<misc_limit> misc{};
    /// dmem.max, .low and .min: memory of devices. Kernel: 6.14.
    std::vector<dmem_limit> dmem{};
    /// Written after the others, in this order. The same key may stand more than once (io.max).
    std::vector<cgroup_setting> raw{};
};

}  // namespace kumiki::inline v0
