// Which number of a snapshot is from which file of a group, and how a file's text is read.
//
// Internal (detail). One table: stats.hpp goes through it once to open the files, and then reads
// what it has opened.
#pragma once

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include <kumiki/cgroup/counts.hpp>
#include <kumiki/cgroup/huge_pages.hpp>
#include <kumiki/cgroup/pressure_counts.hpp>
#include <kumiki/cgroup/snapshot.hpp>
#include <kumiki/core/text.hpp>
#include <kumiki/core/unique_fd.hpp>
#include <kumiki/core/units.hpp>
#include <kumiki/sys/check.hpp>

namespace kumiki::inline v0::detail {

/// Empty, and of this moment. The memory that its lists have taken stays with them.
inline void clear_stats(cgroup_stats& stats) {
    auto io = std::move(stats.io);
    auto hugetlb = std::move(stats.hugetlb);
    io.clear();
    hugetlb.clear();
    stats = {};
    stats.taken = std::chrono::steady_clock::now();
    stats.io = std::move(io);
    stats.hugetlb = std::move(hugetlb);
}

/// Text from control files, in memory that is taken once.
class text_buffer {
  public:
    /// The whole text, until the next call; nothing when the file is gone or the kernel does not
    /// count it. Errors: kumiki::error with `shown`.
    std::optional<std::string_view> read(int fd, const std::string& shown) {
        for (;;) {
            const auto size =
                sys::retry([&] { return ::pread(fd, memory_.data(), memory_.size(), 0); });
            // EOPNOTSUPP: pressure with psi=0.
            if (size < 0 && (errno == ENODEV || errno == EOPNOTSUPP)) return std::nullopt;
            sys::check(size, "read the counters of", shown);
            const auto taken = static_cast<std::size_t>(size);
            if (taken < memory_.size()) return std::string_view(memory_.data(), taken);
            memory_.resize(2 * memory_.size());  // there may be more: all anew, in one piece
        }
    }

  private:
    std::vector<char> memory_ = std::vector<char>(4096);
};

/// What a file's absence says of the others of its controller.
enum class stat_role : std::uint8_t {
    first,  // where this is not, the others are not
    other,
    apart,  // may be there all the same (in the root group), or alone
};

struct stat_file {
    const char* name;  // of hugetlb, the part after the size
    stat_parts part;
    stat_role role;
    void (*take)(std::string_view text, bytes page_size, cgroup_stats& into);
};

inline std::optional<std::uint64_t> stat_number(std::string_view text) {
    return parse_number<std::uint64_t>(trim(text));
}
template <auto Place>
void take_number(std::string_view text, bytes, cgroup_stats& into) {
    into.*Place = stat_number(text);
}
template <auto Place>
void take_amount(std::string_view text, bytes, cgroup_stats& into) {
    if (const auto number = stat_number(text)) into.*Place = bytes{*number};
}
template <auto Place, auto Parse>
void take_parsed(std::string_view text, bytes, cgroup_stats& into) {
    into.*Place = Parse(text);
}
template <auto Place>
void take_max(std::string_view text, bytes, cgroup_stats& into) {
    into.*Place = flat_value(text, "max");
}
template <auto Place>
void take_huge(std::string_view text, bytes page_size, cgroup_stats& into) {
    if (into.hugetlb.empty() || into.hugetlb.back().page_size != page_size)
        into.hugetlb.push_back({.page_size = page_size});
    if constexpr (std::is_same_v<decltype(Place), bytes hugetlb_stat::*>)
        into.hugetlb.back().*Place = {stat_number(text).value_or(0)};
    else
        into.hugetlb.back().*Place = flat_value(text, "max").value_or(0);
}
inline void take_cpu(std::string_view text, bytes, cgroup_stats& into) {
    parse_cpu_stat(text, into);
}
inline void take_cpu_local(std::string_view text, bytes, cgroup_stats& into) {
    if (const auto value = flat_value(text, "throttled_usec"); value && *value <= INT64_MAX)
        into.cpu_throttled_local = std::chrono::microseconds(static_cast<std::int64_t>(*value));
}
inline void take_io(std::string_view text, bytes, cgroup_stats& into) {
    parse_io_stat(text, into.io);
}

inline constexpr stat_file stat_files[] = {
    {"cpu.stat", stat_parts::cpu, stat_role::apart, take_cpu},
    {"cpu.stat.local", stat_parts::cpu_local, stat_role::apart, take_cpu_local},
    {"memory.current", stat_parts::memory, stat_role::first,
     take_amount<&cgroup_stats::memory_current>},
    {"memory.peak", stat_parts::memory, stat_role::other, take_amount<&cgroup_stats::memory_peak>},
    {"memory.swap.current", stat_parts::memory, stat_role::other,
     take_amount<&cgroup_stats::swap_current>},
    {"memory.swap.peak", stat_parts::memory, stat_role::other,
     take_amount<&cgroup_stats::swap_peak>},
    {"memory.zswap.current", stat_parts::memory, stat_role::other,
     take_amount<&cgroup_stats::zswap_current>},
    {"memory.events", stat_parts::memory_events, stat_role::first,
     take_parsed<&cgroup_stats::memory_events, parse_memory_events>},
    {"memory.events.local", stat_parts::memory_events, stat_role::other,
     take_parsed<&cgroup_stats::memory_events_local, parse_memory_events>},
    {"memory.swap.events", stat_parts::memory_events, stat_role::other,
     take_parsed<&cgroup_stats::swap_events, parse_swap_events>},
    {"memory.stat", stat_parts::memory_stat, stat_role::apart,
     take_parsed<&cgroup_stats::memory, parse_memory_stat>},
    {"io.stat", stat_parts::io, stat_role::apart, take_io},
    {"pids.current", stat_parts::pids, stat_role::first, take_number<&cgroup_stats::pids_current>},
    {"pids.peak", stat_parts::pids, stat_role::other, take_number<&cgroup_stats::pids_peak>},
    {"pids.events", stat_parts::pids, stat_role::other, take_max<&cgroup_stats::pids_max_hits>},
    {"pids.events.local", stat_parts::pids, stat_role::other,
     take_max<&cgroup_stats::pids_max_hits_local>},
    {"current", stat_parts::hugetlb, stat_role::first, take_huge<&hugetlb_stat::current>},
    {"events", stat_parts::hugetlb, stat_role::other, take_huge<&hugetlb_stat::max_hits>},
    {"events.local", stat_parts::hugetlb, stat_role::other,
     take_huge<&hugetlb_stat::max_hits_local>},
    {"memory.pressure", stat_parts::pressure, stat_role::apart,
     take_parsed<&cgroup_stats::memory_pressure, parse_pressure>},
    {"cpu.pressure", stat_parts::pressure, stat_role::apart,
     take_parsed<&cgroup_stats::cpu_pressure, parse_pressure>},
    {"io.pressure", stat_parts::pressure, stat_role::apart,
     take_parsed<&cgroup_stats::io_pressure, parse_pressure>},
    {"irq.pressure", stat_parts::pressure, stat_role::apart,
     take_parsed<&cgroup_stats::irq_pressure, parse_pressure>},
    {"misc.current", stat_parts::misc, stat_role::apart,
     take_parsed<&cgroup_stats::misc, parse_misc>},
    {"rdma.current", stat_parts::rdma, stat_role::apart,
     take_parsed<&cgroup_stats::rdma, parse_rdma>},
};

/// Opens each file of `parts` that the group has, and gives it to `use` with the size of huge pages
/// that it is about.
template <class Use>
void for_each_stat_file(int group, stat_parts parts, Use use) {
    const auto open = [&](const stat_file& what, const char* name, bytes size) {
        const int fd = sys::retry([&] { return ::openat(group, name, O_RDONLY | O_CLOEXEC); });
        if (fd < 0 && (errno == ENOENT || errno == ENODEV)) return false;
        sys::check(fd, "open", name);
        use(what, size, unique_fd(fd));
        return true;
    };
    stat_parts absent = stat_parts::none;  // of controllers that the group does not have
    for (const stat_file& what : stat_files) {
        if (!has(parts & ~absent, what.part) || what.part == stat_parts::hugetlb) continue;
        if (!open(what, what.name, {}) && what.role == stat_role::first) {
            absent |= what.part;
            if (what.part == stat_parts::memory) absent |= stat_parts::memory_events;
        }
    }
    if (!has(parts, stat_parts::hugetlb)) return;
    for (const bytes size : huge_page_sizes())
        for (const stat_file& what : stat_files)
            if (what.part == stat_parts::hugetlb &&
                !open(what, huge_page_file(size, what.name).c_str(), size) &&
                what.role == stat_role::first)
                break;
}

}  // namespace kumiki::inline v0::detail
