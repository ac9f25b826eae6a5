#include <sys/mman.h>
#include <unistd.h>

#include <optional>
#include <string>
#include <vector>

#include <kumiki/async/when.hpp>
#include <kumiki/cgroup/events.hpp>

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
#define NEED_GROUPS_AND_SCHEDULER(io)                                                              \
    if (const auto why = kumiki_test::missing(); !why.empty()) KUMIKI_SKIP(why);                   \
    const auto backend = GENERATE(io_backend::io_uring, io_backend::epoll);                        \
    CAPTURE(to_string(backend));                                                                   \
    std::optional<scheduler> chosen(std::in_place, scheduler_options{.backend = backend});         \
    scheduler& io = *chosen

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

TEST_CASE("looking at a group's files gives what changed since the last look") {
    detail::cgroup_event_source source;
    using list = std::vector<cgroup_event>;
    CHECK(source.look("populated 1\nfrozen 0\n", "") == list{{kind::populated}});
    CHECK(source.look("populated 1\nfrozen 0\n", "").empty());
    CHECK(source.look("populated 1\nfrozen 1\n", "") == list{{kind::frozen}});
    CHECK(source.look("populated 1\nfrozen 0\n", "max 3\noom 1\noom_kill 1\n") ==
          list{{kind::memory_max, 3}, {kind::oom, 1}, {kind::oom_kill, 1}, {kind::thawed}});
    CHECK(source.look("populated 0\nfrozen 0\n", "max 5\noom 1\noom_kill 3\n") ==
          list{{kind::memory_max, 2}, {kind::oom_kill, 2}, {kind::empty}});
    // Removed, or the controller disabled: the counters do not run backwards.
    CHECK(source.look("populated 0\nfrozen 0\n", "").empty());
    CHECK(source.look("populated 0\nfrozen 0\n", "", "max 2\n") == list{{kind::pids_max, 2}});
    CHECK(source.look("populated 0\nfrozen 0\n", "", "max 2\n").empty());
    CHECK(to_string(kind::pids_max) == "pids_max");
    CHECK(to_string(kind::populated) == "populated");
    CHECK(to_string(kind::oom_kill) == "oom_kill");
    CHECK(to_string(kind::oom_group_kill) == "oom_group_kill");
}

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
    CHECK_THROWS_AS(until_empty(io, group), error);
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

task<void> see_the_kill(scheduler& io, cgroup_root& root) {
    auto group = root.create("oom", {.memory = 16_MiB, .memory_swap = 0_B});
    auto events = watch_events(io, group);
    auto event = co_await next(io, events);
    CHECK(event == cgroup_event{kind::empty});
    child hog(group, [](void*) {
        constexpr std::size_t size = 64U << 20;
        void* memory =
            ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (memory == MAP_FAILED) ::_exit(2);
        for (std::size_t i = 0; i < size; i += 4096) static_cast<volatile char*>(memory)[i] = 1;
        ::_exit(1);
    });
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
