#include <vector>

#include <kumiki/cgroup/event_source.hpp>

#include "support/catch.hpp"

using namespace kumiki;
using namespace kumiki::literals;
using kind = cgroup_event_kind;
using event_list = std::vector<cgroup_event>;
constexpr auto local = cgroup_event_scope::local;

namespace {

const detail::event_file& file_of(cgroup_event_files which) {
    for (const auto& file : detail::event_files)
        if (file.which == which) return file;
    throw error(ENOENT, {.operation = "find an event file"});
}
template <class Source>
event_list look(Source& source, std::string_view text) {
    event_list news;
    source.look(text, news);
    return news;
}

}  // namespace

TEST_CASE("looking at a group's states gives what changed since the last look") {
    detail::event_states states;
    CHECK(look(states, "populated 1\nfrozen 0\n") == event_list{{kind::populated}});
    CHECK(look(states, "populated 1\nfrozen 0\n").empty());
    CHECK(look(states, "populated 1\nfrozen 1\n") == event_list{{kind::frozen}});
    CHECK(states.is_frozen());
    CHECK(look(states, "populated 0\nfrozen 0\n") == event_list{{kind::thawed}, {kind::empty}});
    CHECK_FALSE(states.is_populated());
    // Cut short, or nonsense: not populated, not frozen.
    CHECK(look(states, "popula").empty());
    CHECK(look(states, "populated 18446744073709551616\nfrozen -1\n").empty());
    detail::event_states fresh;
    CHECK(look(fresh, "populated 0\nfrozen 1\n") == event_list{{kind::frozen}, {kind::empty}});
}

TEST_CASE("looking at an event file gives each counter's difference to the last look") {
    detail::event_counts memory(file_of(cgroup_event_files::memory));
    CHECK(look(memory, "low 0\nhigh 0\nmax 3\noom 1\noom_kill 1\noom_group_kill 0\n") ==
          event_list{{kind::memory_max, 3}, {kind::oom, 1}, {kind::oom_kill, 1}});
    CHECK(look(memory, "low 1\nhigh 4\nmax 5\noom 1\noom_kill 3\noom_group_kill 2\n") ==
          event_list{{kind::memory_low, 1},
                     {kind::memory_high, 4},
                     {kind::memory_max, 2},
                     {kind::oom_kill, 2},
                     {kind::oom_group_kill, 2}});
    CHECK(look(memory, "low 1\nhigh 4\nmax 5\noom 1\noom_kill 3\noom_group_kill 2\n").empty());
    // The controller was disabled and enabled again: the counters do not run backwards.
    CHECK(look(memory, "").empty());
    CHECK(look(memory, "max 1\n") == event_list{{kind::memory_max, 1}});
    // Too large, signed, followed by something: no number. As large as can be: one.
    CHECK(look(memory, "max 1\noom 18446744073709551616\noom_kill -1\nlow 1x\n").empty());
    CHECK(look(memory, "max 18446744073709551615\n") ==
          event_list{{kind::memory_max, 18446744073709551614U}});
    CHECK(look(memory, "max 18446744073709551615\noom").empty());
}

TEST_CASE("what is counted here alone, and of which size of pages, is told with an event") {
    detail::event_counts own(file_of(cgroup_event_files::memory_local));
    CHECK(look(own, "oom_kill 2\n") == event_list{{kind::oom_kill, 2, local}});
    detail::event_counts swap(file_of(cgroup_event_files::swap));
    CHECK(look(swap, "high 1\nmax 2\nfail 3\n") ==
          event_list{{kind::swap_high, 1}, {kind::swap_max, 2}, {kind::swap_fail, 3}});
    detail::event_counts pids(file_of(cgroup_event_files::pids));
    CHECK(look(pids, "max 2\n") == event_list{{kind::pids_max, 2}});
    detail::event_counts old(detail::old_pids_events);
    CHECK(look(old, "max 2\n") == event_list{{kind::pids_max, 2, local}});
    detail::event_counts huge(file_of(cgroup_event_files::hugetlb), 2_MiB);
    CHECK(look(huge, "max 7\n") ==
          event_list{{kind::hugetlb_max, 7, cgroup_event_scope::subtree, 2_MiB}});
}

TEST_CASE("each kind of event has its name") {
    CHECK(to_string(kind::populated) == "populated");
    CHECK(to_string(kind::thawed) == "thawed");
    CHECK(to_string(kind::oom_kill) == "oom_kill");
    CHECK(to_string(kind::oom_group_kill) == "oom_group_kill");
    CHECK(to_string(kind::pids_max) == "pids_max");
    CHECK(to_string(kind::swap_high) == "swap_high");
    CHECK(to_string(kind::swap_fail) == "swap_fail");
    CHECK(to_string(kind::hugetlb_max) == "hugetlb_max");
    CHECK(to_string(kind::overflow) == "overflow");
}
