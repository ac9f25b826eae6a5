// The kinds of what happens to a group, and how they are found: each look at one of its event files
// gives what is new in it. Text only; events.hpp watches the files.
//
// Counted kinds are told with their number, so that several which come together are one event and
// none is lost. Of the states (populated, frozen) each look tells the change since the last.
// Source: Documentation/admin-guide/cgroup-v2.rst.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include <kumiki/core/flags.hpp>
#include <kumiki/core/text.hpp>
#include <kumiki/core/units.hpp>

namespace kumiki::inline v0 {

/// The kinds of what happens to a group or below it.
enum class cgroup_event_kind : std::uint8_t {
    populated,  ///< there are processes in it
    empty,  ///< the last process has ended
    frozen,  ///< all of its processes have stopped
    thawed,  ///< they go on
    memory_low,  ///< reclaimed from although under memory.low
    memory_high,  ///< slowed down at memory.high
    memory_max,  ///< memory.max was met
    oom,  ///< memory could not be had within the limit
    oom_kill,  ///< processes were killed for it
    oom_group_kill,  ///< the group was killed as a whole (5.17)
    pids_max,  ///< forks were refused by pids.max
    swap_high,  ///< slowed down at memory.swap.high (5.8)
    swap_max,  ///< memory.swap.max was met
    swap_fail,  ///< swap could not be had: for the limit, or because there is no more
    hugetlb_max,  ///< huge pages were refused by hugetlb.SIZE.max
    overflow,  ///< the kernel's queue of changes was full; see watch_events()
};

/// Where what was counted has happened.
enum class cgroup_event_scope : std::uint8_t {
    subtree,  ///< in the group or in one below
    local,  ///< in the group itself, by its own limit
};

/// One event: of the counted kinds, `count` is how many there were since the event before.
struct cgroup_event {
    cgroup_event_kind kind = cgroup_event_kind::empty;
    std::uint64_t count = 1;
    cgroup_event_scope scope = cgroup_event_scope::subtree;
    bytes page_size{};  ///< of hugetlb_max
    bool operator==(const cgroup_event&) const = default;
};

/// "oom_kill", as the enumerator is spelled.
constexpr std::string_view to_string(cgroup_event_kind kind) noexcept {
    constexpr std::string_view names[] = {
        "populated",  "empty",     "frozen",      "thawed",         "memory_low", "memory_high",
        "memory_max", "oom",       "oom_kill",    "oom_group_kill", "pids_max",   "swap_high",
        "swap_max",   "swap_fail", "hugetlb_max", "overflow"};
    return names[static_cast<std::size_t>(kind)];
}

/// What is watched of a group: each is one file (of hugetlb one for each size of pages).
enum class cgroup_event_files : unsigned {
    none = 0,
    state = 1U << 0,  ///< cgroup.events: populated, frozen
    memory = 1U << 1,  ///< memory.events: the group and those below
    memory_local = 1U << 2,  ///< memory.events.local: the group itself (5.3)
    swap = 1U << 3,  ///< memory.swap.events (4.18)
    pids = 1U << 4,  ///< pids.events
    pids_local = 1U << 5,  ///< pids.events.local (6.11)
    hugetlb = 1U << 6,  ///< hugetlb.SIZE.events
    hugetlb_local = 1U << 7,  ///< hugetlb.SIZE.events.local
    usual = state | memory | swap | pids | hugetlb,
    all = usual | memory_local | pids_local | hugetlb_local,
};

template <>
inline constexpr bool is_flags<cgroup_event_files> = true;

namespace detail {

/// One counter of an event file.
struct counted_key {
    std::string_view key;
    cgroup_event_kind kind;
};
/// An event file: its name (of hugetlb the part after the size), and what it counts.
struct event_file {
    cgroup_event_files which;
    std::string_view name;
    cgroup_event_scope scope;
    std::array<counted_key, 6> keys{};  // those with an empty key are none
};

inline constexpr std::array<counted_key, 6> memory_event_keys{{
    {"low", cgroup_event_kind::memory_low},
    {"high", cgroup_event_kind::memory_high},
    {"max", cgroup_event_kind::memory_max},
    {"oom", cgroup_event_kind::oom},
    {"oom_kill", cgroup_event_kind::oom_kill},
    {"oom_group_kill", cgroup_event_kind::oom_group_kill},
}};
inline constexpr std::array<counted_key, 6> swap_event_keys{{
    {"high", cgroup_event_kind::swap_high},
    {"max", cgroup_event_kind::swap_max},
    {"fail", cgroup_event_kind::swap_fail},
}};
inline constexpr std::array<counted_key, 6> pids_event_keys{{
    {"max", cgroup_event_kind::pids_max},
}};
inline constexpr std::array<counted_key, 6> hugetlb_event_keys{{
    {"max", cgroup_event_kind::hugetlb_max},
}};

/// In the order in which one look reads them. The local file of a kind comes before the other: the
/// kernel counts up in this order, too, so that no local event is told of which the other knows
/// nothing yet.
inline constexpr event_file event_files[] = {
    {cgroup_event_files::memory_local, "memory.events.local", cgroup_event_scope::local,
     memory_event_keys},
    {cgroup_event_files::memory, "memory.events", cgroup_event_scope::subtree, memory_event_keys},
    {cgroup_event_files::swap, "memory.swap.events", cgroup_event_scope::subtree, swap_event_keys},
    {cgroup_event_files::pids_local, "pids.events.local", cgroup_event_scope::local,
     pids_event_keys},
    {cgroup_event_files::pids, "pids.events", cgroup_event_scope::subtree, pids_event_keys},
    {cgroup_event_files::hugetlb_local, "events.local", cgroup_event_scope::local,
     hugetlb_event_keys},
    {cgroup_event_files::hugetlb, "events", cgroup_event_scope::subtree, hugetlb_event_keys},
};

/// pids.events before 6.11: the forks of the group's own processes, by whatever limit.
inline constexpr event_file old_pids_events{cgroup_event_files::pids, "pids.events",
                                            cgroup_event_scope::local, pids_event_keys};

/// What is known of one event file that counts.
class event_counts {
  public:
    explicit event_counts(const event_file& file, bytes page_size = {}) noexcept
        : file_(&file), page_size_(page_size) {}
    const event_file& file() const noexcept { return *file_; }

    /// Adds what is new in the text. A counter that runs backwards (its controller was disabled and
    /// enabled again) counts from where it is.
    void look(std::string_view text, std::vector<cgroup_event>& news) {
        for (std::size_t i = 0; i < seen_.size() && !file_->keys[i].key.empty(); ++i) {
            const std::uint64_t now = flat_value(text, file_->keys[i].key).value_or(0);
            if (now > seen_[i])
                news.push_back({.kind = file_->keys[i].kind,
                                .count = now - seen_[i],
                                .scope = file_->scope,
                                .page_size = page_size_});
            seen_[i] = now;
        }
    }

  private:
    const event_file* file_;
    bytes page_size_;
    std::array<std::uint64_t, 6> seen_{};
};

/// What is known of cgroup.events.
class event_states {
  public:
    void look(std::string_view text, std::vector<cgroup_event>& news) {
        using enum cgroup_event_kind;
        const bool is_frozen = flat_value(text, "frozen") == 1U;
        if (is_frozen != frozen_) news.push_back({.kind = is_frozen ? frozen : thawed});
        frozen_ = is_frozen;
        const bool is_populated = flat_value(text, "populated") == 1U;
        if (is_populated != populated_) news.push_back({.kind = is_populated ? populated : empty});
        populated_ = is_populated;
    }
    bool is_populated() const noexcept { return populated_ == true; }
    bool is_frozen() const noexcept { return frozen_; }

  private:
    std::optional<bool> populated_{};  // unknown: so the first look tells of it
    bool frozen_ = false;
};

}  // namespace detail
}  // namespace kumiki::inline v0
