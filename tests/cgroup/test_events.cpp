#include <fcntl.h>
#include <sys/mman.h>
#include <sys/swap.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include <kumiki/async/when.hpp>
#include <kumiki/cgroup/events.hpp>

#include "async/both_backends.hpp"
#include "cgroup/fixture.hpp"
#include "support/catch.hpp"

using namespace kumiki;
using namespace kumiki::literals;
using namespace std::chrono_literals;
using kumiki_test::child;
using kumiki_test::exists;
using kind = cgroup_event_kind;

namespace {

/// Each test runs on both engines of the scheduler.
/// The next event, for which it waits at most five seconds.
task<std::optional<cgroup_event>> next(scheduler& io, stream<cgroup_event>& events) {
    auto taken = co_await with_timeout(io, 5s, events.next());
    if (!taken) throw error(ETIMEDOUT, {.operation = "wait for an event"});
    co_return *taken;
}

task<bool> ends(scheduler& io, stream<cgroup_event>& events) {
    const auto event = co_await next(io, events);
    co_return !event.has_value();
}

}  // namespace

namespace {

task<void> live_and_die(scheduler& io, cgroup_root& root) {
    auto group = root.create("events");
    auto events = watch_events(io, group);
    auto event = co_await next(io, events);
    CHECK(event == cgroup_event{kind::empty});
    std::optional<child> inside(group);
    REQUIRE(inside->pid() > 0);
    event = co_await next(io, events);
    CHECK(event == cgroup_event{kind::populated});
    group.freeze();
    event = co_await next(io, events);
    CHECK(event == cgroup_event{kind::frozen});
    group.thaw();
    event = co_await next(io, events);
    CHECK(event == cgroup_event{kind::thawed});
    group.kill();
    event = co_await next(io, events);
    CHECK(event == cgroup_event{kind::empty});
    inside.reset();
    co_await io.yield();
    CHECK(group.try_remove());
    const bool ended = co_await ends(io, events);
    CHECK(ended);
}

}  // namespace

TEST_CASE("a group tells of its processes, of being frozen and of its end") {
    NEED_GROUPS_AND_SCHEDULER(io);
    auto root = kumiki_test::make_root();
    io.run(live_and_die(io, root));
}

namespace {

task<void> late(scheduler& io, cgroup_root& root) {
    auto group = root.create("late");
    const child inside(group);
    REQUIRE(inside.pid() > 0);
    group.freeze();
    co_await until_frozen(io, group);
    auto events = watch_events(io, group);
    auto event = co_await next(io, events);
    CHECK(event == cgroup_event{kind::frozen});
    event = co_await next(io, events);
    CHECK(event == cgroup_event{kind::populated});
    // While nobody asks: killed, and frozen no more.
    group.kill();
    CHECK(kumiki_test::eventually([&] { return !group.is_populated(); }));
    bool empty = false;
    while (!empty) {
        event = co_await next(io, events);
        REQUIRE(event);
        empty = event->kind == kind::empty;
    }
}

}  // namespace

TEST_CASE("what happened before the subscription and between two waits is told") {
    NEED_GROUPS_AND_SCHEDULER(io);
    auto root = kumiki_test::make_root();
    io.run(late(io, root));
}

namespace {

task<void> remove_soon(scheduler& io, cgroup group) {
    co_await io.sleep_for(2ms);
    group.destroy();
}

task<void> ends_with_group(scheduler& io, cgroup_root& root, bool with_process, bool foreign) {
    for (int round = 0; round < 20; ++round) {
        auto group = root.create("ends");
        std::optional<child> inside;
        if (with_process) inside.emplace(group);
        auto events =
            foreign ? watch_events(io, cgroup::open(group.path())) : watch_events(io, group);
        auto first = co_await next(io, events);
        CHECK(first == cgroup_event{with_process ? kind::populated : kind::empty});
        // The removal wakes a wait that is asleep; at most the end of the process comes before.
        auto last = co_await when_all(next(io, events), remove_soon(io, std::move(group)));
        if (std::get<0>(last)) {
            CHECK(std::get<0>(last) == cgroup_event{kind::empty});
            const bool ended = co_await ends(io, events);
            CHECK(ended);
        }
    }
}

}  // namespace

TEST_CASE("a stream that is being awaited ends when the group is removed") {
    NEED_GROUPS_AND_SCHEDULER(io);
    auto root = kumiki_test::make_root();
    const bool with_process = GENERATE(false, true);
    const bool foreign = GENERATE(false, true);
    CAPTURE(with_process, foreign);
    io.run(ends_with_group(io, root, with_process, foreign));
}

namespace {

task<void> wait_for_states(scheduler& io, cgroup_root& root) {
    auto group = root.create("states");
    // Nothing to wait for: it is so already.
    co_await until_empty(io, group);
    co_await until_thawed(io, group);
    std::optional<child> inside;
    const auto act_soon = [](scheduler& on, auto act) -> task<void> {
        co_await on.sleep_for(5ms);
        act();
    };
    const auto populate = [&] { inside.emplace(group); };
    co_await when_all(until_populated(io, group), act_soon(io, populate));
    CHECK(group.is_populated());
    co_await until_populated(io, group);
    const auto freeze = [&] { group.freeze(); };
    co_await when_all(until_frozen(io, group), act_soon(io, freeze));
    CHECK(group.is_frozen());
    const auto thaw = [&] { group.thaw(); };
    co_await when_all(until_thawed(io, group), act_soon(io, thaw));
    CHECK_FALSE(group.is_frozen());
    // The removal ends a wait for what will not be any more.
    inside.reset();
    co_await until_empty(io, group);
    co_await when_all(until_populated(io, group), remove_soon(io, std::move(group)));
}

}  // namespace

TEST_CASE("each state of a group is awaited, and no longer than until its removal") {
    NEED_GROUPS_AND_SCHEDULER(io);
    auto root = kumiki_test::make_root();
    io.run(wait_for_states(io, root));
}

namespace {

task<void> race_with_an_edge(scheduler& io, cgroup_root& root) {
    for (int round = 0; round < 100; ++round) {
        auto group = root.create("race");
        auto inside = std::make_unique<child>(group);
        // The end of the process falls before, into and after the subscription, by chance.
        std::thread other([&, round] {
            for (int spin = 0; spin < round * 200; ++spin) asm volatile("");
            group.kill();
        });
        auto events = watch_events(io, group);
        std::vector<kind> kinds;
        while (kinds.empty() || kinds.back() != kind::empty) {
            auto event = co_await next(io, events);
            if (!event) break;
            kinds.push_back(event->kind);
        }
        other.join();
        const bool whole =
            kinds == std::vector{kind::populated, kind::empty} || kinds == std::vector{kind::empty};
        CHECK(whole);
        inside.reset();
        group.destroy();
    }
}

}  // namespace

TEST_CASE("an edge before, during or just after the subscription is told once") {
    NEED_GROUPS_AND_SCHEDULER(io);
    auto root = kumiki_test::make_root();
    io.run(race_with_an_edge(io, root));
}

namespace {

task<void> wait_for_end(scheduler& io, const cgroup& group, child& inside) {
    auto both = co_await when_all(until_empty(io, group), io.wait_exit(inside.pidfd()));
    CHECK(std::get<1>(both).code == 3);
    CHECK_FALSE(group.is_populated());
}

}  // namespace

TEST_CASE("the end of the last process is awaited") {
    NEED_GROUPS_AND_SCHEDULER(io);
    auto root = kumiki_test::make_root();
    auto group = root.create("until");
    child inside(group, [](void*) {
        ::poll(nullptr, 0, 20);
        ::_exit(3);
    });
    REQUIRE(inside.pid() > 0);
    io.run(wait_for_end(io, group, inside));
    REQUIRE(group.try_remove());
    try {
        auto none = until_empty(io, group);
        FAIL("a group that is gone was watched");
    } catch (const error& gone) {
        CHECK(gone.errno_value() == ENOENT);
        CHECK(gone.object().find(group.path()) != std::string::npos);
    }
    CHECK_THROWS_AS(watch_events(io, group), error);
}

namespace {

task<void> destroy_all(scheduler& io, cgroup_root& root) {
    for (int round = 0; round < 10; ++round) {
        auto group = root.create("destroy");
        const std::string path = group.path();
        auto below = cgroup::create(group, "below");
        const auto plain = below.release();
        child one(group);
        child two(cgroup::open(path + "/below"));
        REQUIRE(two.pid() > 0);
        co_await destroy_group(io, std::move(group));
        CHECK_FALSE(exists(path));
        CHECK(one.wait().signal == SIGKILL);
        CHECK(two.wait().signal == SIGKILL);
    }
}

}  // namespace

TEST_CASE("a group with processes is destroyed without blocking the scheduler") {
    NEED_GROUPS_AND_SCHEDULER(io);
    auto root = kumiki_test::make_root();
    io.run(destroy_all(io, root));
}

namespace {

task<void> stop_watching(scheduler& io, const cgroup& group) {
    auto events = watch_events(io, group);
    auto first = co_await next(io, events);
    CHECK(first == cgroup_event{kind::empty});
    auto none = co_await with_timeout(io, 5ms, events.next());
    CHECK_FALSE(none.has_value());
}

}  // namespace

TEST_CASE("a stream can be left while it waits") {
    NEED_GROUPS_AND_SCHEDULER(io);
    auto root = kumiki_test::make_root();
    const auto group = root.create("left");
    io.run(stop_watching(io, group));
}

namespace {

/// Touches 64 MiB, when it has been there for long enough to be told as a process of the group.
void take_memory(void*) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    ::poll(nullptr, 0, 50);
    constexpr std::size_t size = 64U << 20;
    void* memory =
        ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) ::_exit(2);
    for (std::size_t i = 0; i < size; i += 4096) static_cast<volatile char*>(memory)[i] = 1;
    ::_exit(1);
}

}  // namespace

namespace {

task<void> see_the_kill(scheduler& io, cgroup_root& root) {
    auto group = root.create("oom", {.memory = 16_MiB, .memory_swap = 0_B});
    auto events = watch_events(io, group);
    auto event = co_await next(io, events);
    CHECK(event == cgroup_event{kind::empty});
    child hog(group, take_memory);
    REQUIRE(hog.pid() > 0);
    std::uint64_t kills = 0;
    bool empty = false;
    while (!empty) {
        event = co_await next(io, events);
        REQUIRE(event);
        if (event->kind == kind::oom_kill) kills += event->count;
        empty = event->kind == kind::empty;
    }
    CHECK(kills == 1);
    CHECK(hog.wait().signal == SIGKILL);
}

}  // namespace

TEST_CASE("an OOM kill is told before the end of the last process [vm]", "[vm]") {
    if (const auto why = kumiki_test::missing(controllers::memory); !why.empty()) KUMIKI_SKIP(why);
    NEED_GROUPS_AND_SCHEDULER(io);
    auto root = kumiki_test::make_root();
    if (!kumiki_test::exists("/proc/swaps"))
        KUMIKI_SKIP("the kernel has no swap, and no key for it");
    io.run(see_the_kill(io, root));
}

namespace {

task<void> see_the_refusal(scheduler& io, cgroup_root& root) {
    auto group = root.create("bomb", {.pids = 4});
    auto events = watch_events(io, group);
    child forker(group, [](void*) {
        ::prctl(PR_SET_PDEATHSIG, SIGKILL);
        for (int i = 0; i < 20; ++i)
            if (::fork() == 0) child::wait_for_signal(nullptr);
        ::_exit(0);
    });
    REQUIRE(forker.pid() > 0);
    std::uint64_t refused = 0;
    while (refused < 17) {
        auto event = co_await next(io, events);
        REQUIRE(event);
        if (event->kind == kind::pids_max) refused += event->count;
    }
    CHECK(refused == 17);
    group.kill();
}

}  // namespace

TEST_CASE("each fork that pids.max refuses is told [vm]", "[vm]") {
    if (const auto why = kumiki_test::missing(controllers::pids); !why.empty()) KUMIKI_SKIP(why);
    NEED_GROUPS_AND_SCHEDULER(io);
    auto root = kumiki_test::make_root();
    io.run(see_the_refusal(io, root));
}

namespace {

/// How often each kind was told up to the end of the last process, by where it was counted.
struct tally {
    std::uint64_t subtree[static_cast<std::size_t>(kind::overflow) + 1] = {};
    std::uint64_t local[static_cast<std::size_t>(kind::overflow) + 1] = {};
    std::uint64_t in_subtree(kind which) const { return subtree[static_cast<std::size_t>(which)]; }
    std::uint64_t in_local(kind which) const { return local[static_cast<std::size_t>(which)]; }
    void add(const cgroup_event& event) {
        auto& counts = event.scope == cgroup_event_scope::local ? local : subtree;
        counts[static_cast<std::size_t>(event.kind)] += event.count;
    }
};

task<tally> count_to_the_end(scheduler& io, const cgroup& group) {
    auto events = watch_events(io, group, cgroup_event_files::all);
    tally counted;
    bool was_populated = false;
    for (;;) {
        auto event = co_await next(io, events);
        if (!event) break;
        counted.add(*event);
        was_populated |= event->kind == kind::populated;
        if (was_populated && event->kind == kind::empty) break;
    }
    // The kernel may tell of a count up to 10 ms after it: what comes after the end, too.
    for (;;) {
        auto more = co_await with_timeout(io, 50ms, events.next());
        if (!more || !*more) break;
        counted.add(**more);
    }
    co_return counted;
}

task<void> run_soon(scheduler& io, const cgroup& group, child::entry_type entry,
                    std::optional<child>& into) {
    co_await io.sleep_for(20ms);
    into.emplace(group, entry);
}

task<void> tell_local_apart(scheduler& io, cgroup_root& root) {
    auto above = root.create("above", {.memory = 48_MiB, .memory_swap = 0_B});
    above.write("cgroup.subtree_control", "+memory");
    auto below = cgroup::create(above, "below");
    below.write("memory.max", std::to_string((16_MiB).count));
    below.write("memory.oom.group", "1");
    std::optional<child> hog;
    auto seen = co_await when_all(count_to_the_end(io, above), count_to_the_end(io, below),
                                  run_soon(io, below, take_memory, hog));
    CHECK(hog->wait().signal == SIGKILL);
    const tally& high = std::get<0>(seen);
    const tally& low = std::get<1>(seen);
    // Told is what was counted: with memory.oom.group the kernel counts one victim twice.
    const auto kills = flat_value(below.read("memory.events.local"), "oom_kill");
    CHECK(kills >= 1U);
    CHECK(low.in_local(kind::oom_kill) == kills);
    CHECK(low.in_subtree(kind::oom_kill) == kills);
    CHECK(low.in_local(kind::memory_max) >= 1);
    CHECK(low.in_subtree(kind::memory_max) == low.in_local(kind::memory_max));
    CHECK(low.in_local(kind::oom_group_kill) == 1);
    CHECK(high.in_local(kind::oom_kill) == 0);
    CHECK(high.in_local(kind::memory_max) == 0);
    CHECK(high.in_subtree(kind::oom_kill) == kills);
    CHECK(high.in_subtree(kind::memory_max) == low.in_subtree(kind::memory_max));
    CHECK(high.in_subtree(kind::oom_group_kill) == 1);
    below.destroy();
}

}  // namespace

TEST_CASE("a kill below is told above as the subtree's, and as local where it was [vm]", "[vm]") {
    if (const auto why = kumiki_test::missing(controllers::memory); !why.empty()) KUMIKI_SKIP(why);
    NEED_GROUPS_AND_SCHEDULER(io);
    auto root = kumiki_test::make_root();
    if (!kumiki_test::exists("/proc/swaps"))
        KUMIKI_SKIP("the kernel has no swap, and no key for it");
    io.run(tell_local_apart(io, root));
}

namespace {

task<void> slow_down(scheduler& io, cgroup_root& root) {
    auto group = root.create("slow", {.memory = 256_MiB, .memory_high = 16_MiB});
    std::optional<child> hog;
    const auto kill_soon = [](scheduler& on, const cgroup& of) -> task<void> {
        co_await on.sleep_for(1s);
        of.kill();
    };
    auto seen = co_await when_all(count_to_the_end(io, group),
                                  run_soon(io, group, take_memory, hog), kill_soon(io, group));
    CHECK(std::get<0>(seen).in_subtree(kind::memory_high) >= 1);
    CHECK(std::get<0>(seen).in_subtree(kind::oom_kill) == 0);
}

}  // namespace

TEST_CASE("a process over memory.high is told as slowed down, and not as killed [vm]", "[vm]") {
    if (const auto why = kumiki_test::missing(controllers::memory); !why.empty()) KUMIKI_SKIP(why);
    NEED_GROUPS_AND_SCHEDULER(io);
    auto root = kumiki_test::make_root();
    io.run(slow_down(io, root));
}

namespace {

/// 32 MiB of swap on the guest's disk for the length of a test; none elsewhere: a host's swap is its
/// own.
class guest_swap {
  public:
    guest_swap() {
        if (!kumiki_test::exists("/scratch")) return;
        constexpr std::size_t page = 4096, pages = 8192;
        const unique_fd file(::open(path, O_CREAT | O_TRUNC | O_RDWR | O_CLOEXEC, 0600));
        if (!file) return;
        const std::vector<char> nothing(page);
        for (std::size_t i = 0; i < pages; ++i)
            if (::write(file.get(), nothing.data(), page) != page) return;
        // The header of mkswap(8): a version, the last page, and a signature at the end of the page.
        const std::uint32_t header[] = {1, pages - 1};
        std::vector<char> first(page);
        std::memcpy(first.data() + 1024, header, sizeof header);
        std::memcpy(first.data() + page - 10, "SWAPSPACE2", 10);
        if (::pwrite(file.get(), first.data(), page, 0) != page || ::fsync(file.get()) != 0) return;
        on_ = ::swapon(path, 0) == 0;
    }
    ~guest_swap() {
        if (on_) ::swapoff(path);
        ::unlink(path);
    }
    bool is_on() const { return on_; }

  private:
    static constexpr const char* path = "/scratch/kumiki-test-swap";
    bool on_ = false;
};

// True when the kernel came to the limit: a slow disk makes it kill for memory before that.
task<bool> fill_the_swap(scheduler& io, cgroup_root& root) {
    auto group = root.create("swap", {.memory = 16_MiB, .memory_swap = 4_MiB});
    std::optional<child> hog;
    auto seen =
        co_await when_all(count_to_the_end(io, group), run_soon(io, group, take_memory, hog));
    CHECK(hog->wait().signal == SIGKILL);
    const tally& counted = std::get<0>(seen);
    CHECK(counted.in_subtree(kind::oom_kill) == 1);
    const auto text = group.read("memory.swap.events");
    CHECK(counted.in_subtree(kind::swap_max) == flat_value(text, "max"));
    CHECK(counted.in_subtree(kind::swap_fail) == flat_value(text, "fail"));
    co_return counted.in_subtree(kind::swap_max) >= 1 && counted.in_subtree(kind::swap_fail) >= 1;
}

}  // namespace

TEST_CASE("a group that has used up its swap is told [vm]", "[vm]") {
    if (const auto why = kumiki_test::missing(controllers::memory); !why.empty()) KUMIKI_SKIP(why);
    const guest_swap swap;
    if (!swap.is_on()) KUMIKI_SKIP("there is no disk of a virtual machine for swap");
    NEED_GROUPS_AND_SCHEDULER(io);
    auto root = kumiki_test::make_root();
    bool was_full = false;
    for (int attempt = 0; attempt < 5 && !was_full; ++attempt)
        was_full = io.run(fill_the_swap(io, root));
    CHECK(was_full);
}

namespace {

/// Touches a huge page that is not reserved: over its limit the kernel refuses it with SIGBUS,
/// whether there is one or not.
void take_huge_page(void*) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    ::signal(SIGBUS, SIG_DFL);  // a sanitizer handles it
    constexpr std::size_t size = 2U << 20;
    void* memory = ::mmap(
        nullptr, size, PROT_READ | PROT_WRITE,
        MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB | MAP_NORESERVE | (21 << MAP_HUGE_SHIFT), -1, 0);
    if (memory == MAP_FAILED) ::_exit(2);
    ::poll(nullptr, 0, 50);
    *static_cast<volatile char*>(memory) = 1;
    ::_exit(0);
}

task<void> refuse_huge_pages(scheduler& io, cgroup_root& root) {
    auto above = root.create("huge", {.hugetlb = {{2_MiB, 64_MiB}}});
    above.write("cgroup.subtree_control", "+hugetlb");
    auto below = cgroup::create(above, "below");
    below.write("hugetlb.2MB.max", "0");
    std::optional<child> hog;
    auto seen = co_await when_all(count_to_the_end(io, above), count_to_the_end(io, below),
                                  run_soon(io, below, take_huge_page, hog));
    const auto ended = hog->wait();
    INFO("ended by " << ended.signal << " with " << ended.code);
    CHECK(ended.signal == SIGBUS);
    CHECK(std::get<1>(seen).in_local(kind::hugetlb_max) >= 1);
    CHECK(std::get<1>(seen).in_subtree(kind::hugetlb_max) >= 1);
    CHECK(std::get<0>(seen).in_subtree(kind::hugetlb_max) ==
          std::get<1>(seen).in_subtree(kind::hugetlb_max));
    CHECK(std::get<0>(seen).in_local(kind::hugetlb_max) == 0);
    below.destroy();
}

}  // namespace

TEST_CASE("a huge page over the limit is told, with its size and where [vm]", "[vm]") {
    if (const auto why = kumiki_test::missing(controllers::hugetlb); !why.empty()) KUMIKI_SKIP(why);
    NEED_GROUPS_AND_SCHEDULER(io);
    auto root = kumiki_test::make_root();
    const auto& sizes = huge_page_sizes();
    if (std::find(sizes.begin(), sizes.end(), 2_MiB) == sizes.end())
        KUMIKI_SKIP("the kernel has no huge pages of 2 MiB");
    io.run(refuse_huge_pages(io, root));
}

namespace {

void fork_much(void*) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    for (int i = 0; i < 20; ++i)
        if (::fork() == 0) {
            ::poll(nullptr, 0, 200);
            ::_exit(0);
        }
    ::_exit(0);
}

task<void> refuse_forks_above(scheduler& io, cgroup_root& root, bool& has_local) {
    auto above = root.create("forks", {.pids = 4});
    above.write("cgroup.subtree_control", "+pids");
    auto below = cgroup::create(above, "below");
    has_local = above.try_read("pids.events.local").has_value();
    std::optional<child> forker;
    auto seen = co_await when_all(count_to_the_end(io, above), count_to_the_end(io, below),
                                  run_soon(io, below, fork_much, forker));
    const tally& high = std::get<0>(seen);
    const tally& low = std::get<1>(seen);
    if (has_local) {  // counted where the limit is, and above
        CHECK(high.in_local(kind::pids_max) == 17);
        CHECK(high.in_subtree(kind::pids_max) == 17);
        CHECK(low.in_local(kind::pids_max) == 0);
        CHECK(low.in_subtree(kind::pids_max) == 0);
    } else {  // counted where the process is, and there alone
        CHECK(high.in_local(kind::pids_max) == 0);
        CHECK(low.in_local(kind::pids_max) == 17);
        CHECK(low.in_subtree(kind::pids_max) == 0);
        CHECK(high.in_subtree(kind::pids_max) == 0);
    }
    forker->wait();
    below.destroy();
}

}  // namespace

TEST_CASE("a refused fork is told where this kernel counts it, and as what it counts [vm]",
          "[vm]") {
    if (const auto why = kumiki_test::missing(controllers::pids); !why.empty()) KUMIKI_SKIP(why);
    NEED_GROUPS_AND_SCHEDULER(io);
    auto root = kumiki_test::make_root();
    bool has_local = false;
    io.run(refuse_forks_above(io, root, has_local));
    INFO(has_local << " for pids.events.local");
}
