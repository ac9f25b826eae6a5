// The counters in a group's files as types, from the texts that the kernel gives. Text only: no
// file is opened here, and nothing is allocated but the names and lists of devices.
//
// A key that a text lacks stays zero or unset, one that is not known here is passed over: kernels
// add keys in the middle. A number that does not fit counts as not there.
// Source: Documentation/admin-guide/cgroup-v2.rst.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <kumiki/cgroup/device.hpp>
#include <kumiki/core/text.hpp>
#include <kumiki/core/units.hpp>

namespace kumiki::inline v0 {

/// Counters of memory.events (those of the groups below included) and memory.events.local: how
/// often a limit was met.
struct memory_event_counts {
    std::uint64_t low = 0;             ///< reclaimed from although under memory.low
    std::uint64_t high = 0;            ///< slowed down at memory.high
    std::uint64_t max = 0;             ///< about to go over memory.max
    std::uint64_t oom = 0;             ///< an allocation was about to fail for it
    std::uint64_t oom_kill = 0;        ///< processes killed by the OOM killer
    std::uint64_t oom_group_kill = 0;  ///< groups killed as a whole: 5.17
    bool operator==(const memory_event_counts&) const = default;
};

/// Counters of memory.swap.events.
struct swap_event_counts {
    std::uint64_t high = 0;  ///< slowed down at memory.swap.high
    std::uint64_t max = 0;   ///< about to go over memory.swap.max
    std::uint64_t fail = 0;  ///< swap could not be had, for the limit or because there is no more
    bool operator==(const swap_event_counts&) const = default;
};

/// What a group's memory is used for, and what was done to get it: the keys of memory.stat that are
/// asked for most. stats_reader::memory_value() has any other.
struct memory_stat {
    bytes anon{};  ///< of processes alone: heaps, stacks
    bytes file{};  ///< cached files, tmpfs included
    bytes kernel{};  ///< of the kernel, for the group: 5.18
    bytes kernel_stack{};
    bytes page_tables{};
    bytes per_cpu{};
    bytes sockets{};  ///< buffers of network connections
    bytes shared{};  ///< tmpfs, shared memory
    bytes zswap{};  ///< compressed: 5.19
    bytes zswapped{};  ///< what was compressed: 5.19
    bytes file_mapped{};
    bytes file_dirty{};  ///< to be written back
    bytes file_writeback{};  ///< being written back
    bytes inactive_anon{};
    bytes active_anon{};
    bytes inactive_file{};  ///< what is reclaimed first
    bytes active_file{};
    bytes unevictable{};
    bytes slab_reclaimable{};
    bytes slab_unreclaimable{};
    std::uint64_t refaults_anon = 0;  ///< pages that were needed again soon after reclaim
    std::uint64_t refaults_file = 0;
    std::uint64_t pages_scanned = 0;  ///< by reclaim
    std::uint64_t pages_reclaimed = 0;
    std::uint64_t faults = 0;
    std::uint64_t major_faults = 0;  ///< of these, those that waited for a disk
    bool operator==(const memory_stat&) const = default;
};

/// A line of io.stat: what went through one block device.
struct io_device_stat {
    device_number device{};
    bytes read{};
    bytes written{};
    bytes discarded{};
    std::uint64_t reads = 0;
    std::uint64_t writes = 0;
    std::uint64_t discards = 0;
    bool operator==(const io_device_stat&) const = default;
};

/// Huge pages of one size.
struct hugetlb_stat {
    bytes page_size{};
    bytes current{};
    std::uint64_t max_hits = 0;  ///< pages refused by hugetlb.SIZE.max, here or below
    std::uint64_t max_hits_local = 0;  ///< of these, by the limit of this group
    bool operator==(const hugetlb_stat&) const = default;
};

/// A line of misc.current.
struct misc_stat {
    std::string resource{};
    std::uint64_t current = 0;
    bool operator==(const misc_stat&) const = default;
};

/// A line of rdma.current.
struct rdma_stat {
    std::string device{};
    std::uint64_t handles = 0;
    std::uint64_t objects = 0;
    bool operator==(const rdma_stat&) const = default;
};

namespace detail {

/// Gives each key of flat-keyed text with its number to `use`, in the text's order.
template <class Use>
constexpr void for_each_flat(std::string_view text, Use use) {
    while (const auto line = next_field(text, '\n')) {
        const auto blank = line->find(' ');
        if (blank == std::string_view::npos) continue;
        if (const auto value = parse_number<std::uint64_t>(line->substr(blank + 1)))
            use(line->substr(0, blank), *value);
    }
}

struct memory_stat_key {
    std::string_view key;
    bytes memory_stat::* amount = nullptr;
    std::uint64_t memory_stat::* count = nullptr;
};
/// In the kernel's order, so that each look-up finds its key at once.
inline constexpr memory_stat_key memory_stat_keys[] = {
    {"anon", &memory_stat::anon},
    {"file", &memory_stat::file},
    {"kernel", &memory_stat::kernel},
    {"kernel_stack", &memory_stat::kernel_stack},
    {"pagetables", &memory_stat::page_tables},
    {"percpu", &memory_stat::per_cpu},
    {"sock", &memory_stat::sockets},
    {"shmem", &memory_stat::shared},
    {"zswap", &memory_stat::zswap},
    {"zswapped", &memory_stat::zswapped},
    {"file_mapped", &memory_stat::file_mapped},
    {"file_dirty", &memory_stat::file_dirty},
    {"file_writeback", &memory_stat::file_writeback},
    {"inactive_anon", &memory_stat::inactive_anon},
    {"active_anon", &memory_stat::active_anon},
    {"inactive_file", &memory_stat::inactive_file},
    {"active_file", &memory_stat::active_file},
    {"unevictable", &memory_stat::unevictable},
    {"slab_reclaimable", &memory_stat::slab_reclaimable},
    {"slab_unreclaimable", &memory_stat::slab_unreclaimable},
    {"workingset_refault_anon", nullptr, &memory_stat::refaults_anon},
    {"workingset_refault_file", nullptr, &memory_stat::refaults_file},
    {"pgscan", nullptr, &memory_stat::pages_scanned},
    {"pgsteal", nullptr, &memory_stat::pages_reclaimed},
    {"pgfault", nullptr, &memory_stat::faults},
    {"pgmajfault", nullptr, &memory_stat::major_faults},
};

}  // namespace detail

/// The counters in the text of memory.events or memory.events.local.
constexpr memory_event_counts parse_memory_events(std::string_view text) noexcept {
    const auto count = [&](std::string_view key) { return flat_value(text, key).value_or(0); };
    return {.low = count("low"),
            .high = count("high"),
            .max = count("max"),
            .oom = count("oom"),
            .oom_kill = count("oom_kill"),
            .oom_group_kill = count("oom_group_kill")};
}

/// The counters in the text of memory.swap.events.
constexpr swap_event_counts parse_swap_events(std::string_view text) noexcept {
    return {.high = flat_value(text, "high").value_or(0),
            .max = flat_value(text, "max").value_or(0),
            .fail = flat_value(text, "fail").value_or(0)};
}

/// The fields in the text of memory.stat.
constexpr memory_stat parse_memory_stat(std::string_view text) noexcept {
    memory_stat found;
    std::size_t at = 0;
    detail::for_each_flat(text, [&](std::string_view key, std::uint64_t value) {
        constexpr std::size_t count = std::size(detail::memory_stat_keys);
        for (std::size_t tried = 0; tried < count; ++tried) {
            const auto& known = detail::memory_stat_keys[(at + tried) % count];
            if (known.key != key) continue;
            if (known.amount != nullptr)
                found.*known.amount = {value};
            else
                found.*known.count = value;
            at += tried + 1;
            return;
        }
    });
    return found;
}

/// Puts the devices in the text of io.stat into `into`, in place of what it held.
inline void parse_io_stat(std::string_view text, std::vector<io_device_stat>& into) {
    into.clear();
    while (auto line = next_field(text, '\n')) {
        const auto name = next_field(*line, ' ');
        const auto device = name ? parse_device_number(*name) : std::nullopt;
        if (!device) continue;
        io_device_stat& one = into.emplace_back();
        one.device = *device;
        while (auto field = next_field(*line, ' ')) {
            const auto key = next_field(*field, '=');
            const auto value = parse_number<std::uint64_t>(*field);
            if (!key || !value) continue;
            if (*key == "rbytes") one.read = {*value};
            if (*key == "wbytes") one.written = {*value};
            if (*key == "dbytes") one.discarded = {*value};
            if (*key == "rios") one.reads = *value;
            if (*key == "wios") one.writes = *value;
            if (*key == "dios") one.discards = *value;
        }
    }
}

/// The resources in the text of misc.current.
inline std::vector<misc_stat> parse_misc(std::string_view text) {
    std::vector<misc_stat> found;
    detail::for_each_flat(text, [&](std::string_view key, std::uint64_t value) {
        found.push_back({std::string(key), value});
    });
    return found;
}

/// The devices in the text of rdma.current.
inline std::vector<rdma_stat> parse_rdma(std::string_view text) {
    std::vector<rdma_stat> found;
    while (auto line = next_field(text, '\n')) {
        const auto device = next_field(*line, ' ');
        if (!device || device->empty()) continue;
        rdma_stat& one = found.emplace_back();
        one.device = *device;
        while (auto field = next_field(*line, ' ')) {
            const auto key = next_field(*field, '=');
            const auto value = parse_number<std::uint64_t>(*field).value_or(0);
            if (key == "hca_handle") one.handles = value;
            if (key == "hca_object") one.objects = value;
        }
    }
    return found;
}

}  // namespace kumiki::inline v0
