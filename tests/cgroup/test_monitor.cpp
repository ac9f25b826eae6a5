#include <fcntl.h>
#include <sched.h>
#include <sys/inotify.h>
#include <sys/resource.h>
#include <unistd.h>

#include <fstream>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <kumiki/async/scope.hpp>
#include <kumiki/cgroup/events.hpp>
#include <kumiki/cgroup/monitor.hpp>

#include "async/both_backends.hpp"
#include "cgroup/fixture.hpp"
#include "support/catch.hpp"
#include "support/leaks.hpp"
#include "support/scratch.hpp"

using namespace kumiki;
using namespace std::chrono_literals;
using kumiki_test::child;
using kind = cgroup_event_kind;

namespace {

task<std::optional<cgroup_event>> next_of(scheduler& io, stream<cgroup_event>& events) {
    auto taken = co_await with_timeout(io, 5s, events.next());
    if (!taken) throw error(ETIMEDOUT, {.operation = "wait for an event"});
    co_return *taken;
}
task<bool> silent(scheduler& io, stream<cgroup_event>& events, std::chrono::milliseconds span) {
    auto taken = co_await with_timeout(io, span, events.next());
    co_return !taken.has_value();
}

/// Of this process: how many inotify instances, and how many watches they have.
struct inotify_use {
    int instances = 0;
    int watches = 0;
    bool operator==(const inotify_use&) const = default;
    static inotify_use now() {
        inotify_use use;
        for (int fd = 0; fd < 4096; ++fd) {
            const std::string name = std::to_string(fd);
            char target[64];
            const auto size = ::readlink(("/proc/self/fd/" + name).c_str(), target, sizeof target);
            if (size < 0 ||
                std::string_view(target, static_cast<std::size_t>(size)) != "anon_inode:inotify")
                continue;
            ++use.instances;
            std::ifstream info("/proc/self/fdinfo/" + name);
            for (std::string line; std::getline(info, line);)
                use.watches += line.starts_with("inotify wd:");
        }
        return use;
    }
};

constexpr std::size_t many = 200;

task<void> note(scheduler& io, const cgroup& group, std::size_t index,
                std::vector<std::size_t>& told) {
    auto events = watch_events(io, group);
    for (;;) {
        auto event = co_await events.next();
        if (!event) co_return;
        if (event->kind == kind::frozen) told.push_back(index);
    }
}

task<void> watch_many(scheduler& io, cgroup_root& root, std::size_t files_each) {
    std::vector<cgroup> groups;
    for (std::size_t i = 0; i < many; ++i) groups.push_back(root.create(std::to_string(i)));
    const auto files = kumiki_test::holdings::now().descriptors.size();
    std::vector<std::size_t> told;
    scope tasks(io);
    for (std::size_t i = 0; i < many; ++i) tasks.spawn(note(io, groups[i], i, told));
    co_await io.sleep_for(50ms);
    // Two descriptors for all: inotify, and the parent's directory. One watch for each file.
    CHECK(kumiki_test::holdings::now().descriptors.size() <= files + 2);
    const auto use = inotify_use::now();
    CHECK(use.instances == 1);
    CHECK(use.watches == static_cast<int>(many * files_each + 1));

    // Idle: nothing is resumed, nothing is asked of the kernel, and the thread sleeps once.
    const auto before = io.counters();
    rusage rested{};
    ::getrusage(RUSAGE_THREAD, &rested);
    co_await io.sleep_for(300ms);
    const auto after = io.counters();
    rusage woken{};
    ::getrusage(RUSAGE_THREAD, &woken);
    CHECK(after.resumed - before.resumed == 1);  // this task
    CHECK(after.sleeps - before.sleeps <= 2);
    CHECK(woken.ru_nvcsw - rested.ru_nvcsw <= 20);

    groups[17].freeze();
    co_await until_frozen(io, groups[17]);
    for (int turn = 0; turn < 500 && told.empty(); ++turn) co_await io.sleep_for(10ms);
    CHECK(told == std::vector<std::size_t>{17});
    // A removed group ends its own task alone.
    groups[3].destroy();
    for (int turn = 0; turn < 500 && tasks.running() == many; ++turn) co_await io.sleep_for(10ms);
    CHECK(tasks.running() == many - 1);
    groups.clear();  // and all of the others
    co_await tasks.join();
    CHECK(inotify_use::now() == inotify_use{});
}

}  // namespace

TEST_CASE("many groups are watched through one instance, and cost nothing while nothing happens") {
    NEED_GROUPS_AND_SCHEDULER(io);
    auto root = kumiki_test::make_root();
    std::size_t files = 0;  // the event files of a group here
    {
        const auto group = root.create("files");
        for (const char* name : {"cgroup.events", "memory.events", "memory.swap.events",
                                 "pids.events", "hugetlb.2MB.events", "hugetlb.1GB.events",
                                 "hugetlb.64KB.events", "hugetlb.32MB.events"})
            files += group.try_read(name).has_value();
    }
    io.run(watch_many(io, root, files));
}

namespace {

task<void> overflow(scheduler& io, cgroup_root& root) {
    auto group = root.create("overflow");
    auto gone = root.create("gone");
    auto events = watch_events(io, group);
    auto others = watch_events(io, gone);
    auto event = co_await next_of(io, events);
    CHECK(event == cgroup_event{kind::empty});
    event = co_await next_of(io, others);
    CHECK(event == cgroup_event{kind::empty});

    // The kernel's queue of this very instance is filled while nobody reads it.
    const kumiki_test::scratch directory;
    const auto monitor = detail::group_monitor::of(io);
    const int watch =
        ::inotify_add_watch(monitor->fd(), directory.path().c_str(), IN_CREATE | IN_DELETE);
    REQUIRE(watch >= 0);
    const int place = ::open(directory.path().c_str(), O_PATH | O_CLOEXEC);
    REQUIRE(place >= 0);
    const unique_fd held(place);
    std::ifstream limit("/proc/sys/fs/inotify/max_queued_events");
    int most = 0;
    limit >> most;
    REQUIRE(most > 0);
    for (int i = 0; i <= most / 2; ++i) {
        unique_fd(::openat(place, "file", O_CREAT | O_WRONLY | O_CLOEXEC, 0600)).reset();
        ::unlinkat(place, "file", 0);
    }
    // What happens now, the queue cannot tell of.
    const child inside(group);
    REQUIRE(inside.pid() > 0);
    group.freeze();
    CHECK(kumiki_test::eventually([&] { return group.is_frozen(); }));
    REQUIRE(gone.try_remove());
    ::inotify_rm_watch(monitor->fd(), watch);

    event = co_await next_of(io, events);
    CHECK(event == cgroup_event{kind::overflow});
    event = co_await next_of(io, events);
    CHECK(event == cgroup_event{kind::frozen});
    event = co_await next_of(io, events);
    CHECK(event == cgroup_event{kind::populated});
    event = co_await next_of(io, others);
    CHECK((!event || event == cgroup_event{kind::overflow}));
    if (event) event = co_await next_of(io, others);
    CHECK_FALSE(event);
    // It goes on as before.
    group.thaw();
    event = co_await next_of(io, events);
    CHECK(event == cgroup_event{kind::thawed});
}

}  // namespace

TEST_CASE("a full queue of the kernel's is told, and everything is read anew") {
    NEED_GROUPS_AND_SCHEDULER(io);
    auto root = kumiki_test::make_root();
    io.run(overflow(io, root));
}

namespace {

task<void> two_of_one(scheduler& io, cgroup_root& root) {
    auto group = root.create("twice");
    auto one = watch_events(io, group);
    auto two = watch_events(io, cgroup::open(group.path()));
    auto event = co_await next_of(io, one);
    CHECK(event == cgroup_event{kind::empty});
    event = co_await next_of(io, two);
    CHECK(event == cgroup_event{kind::empty});
    group.freeze();
    event = co_await next_of(io, one);
    CHECK(event == cgroup_event{kind::frozen});
    event = co_await next_of(io, two);
    CHECK(event == cgroup_event{kind::frozen});
    one = {};  // takes nothing away from the other
    group.thaw();
    event = co_await next_of(io, two);
    CHECK(event == cgroup_event{kind::thawed});
    two = {};
    // Groups of one name in different places, and one that is made anew under the same name.
    auto above = root.create("above");
    const auto below = cgroup::create(above, "twice");
    auto high = watch_events(io, group);
    auto low = watch_events(io, below);
    event = co_await next_of(io, high);
    event = co_await next_of(io, low);
    REQUIRE(group.try_remove());
    event = co_await next_of(io, high);
    CHECK_FALSE(event);
    group = root.create("twice");
    auto again = watch_events(io, group);
    event = co_await next_of(io, again);
    CHECK(event == cgroup_event{kind::empty});
    const bool quiet = co_await silent(io, low, 20ms);
    CHECK(quiet);
}

}  // namespace

TEST_CASE("two tasks watch one group, and groups of one name are told apart") {
    NEED_GROUPS_AND_SCHEDULER(io);
    auto root = kumiki_test::make_root();
    io.run(two_of_one(io, root));
    CHECK(inotify_use::now() == inotify_use{});
}

namespace {

task<void> begin(scheduler& io, stream<cgroup_event>& events) {
    auto event = co_await next_of(io, events);
    CHECK(event.has_value());
}

}  // namespace

TEST_CASE("a stream may outlive its scheduler, and leaves nothing for the next one") {
    NEED_GROUPS();
    const auto backend = GENERATE(io_backend::io_uring, io_backend::epoll);
    if (backend == io_backend::io_uring && !kumiki_test::has_io_uring())
        KUMIKI_SKIP("io_uring is denied on this host");
    CAPTURE(to_string(backend));
    std::optional<scheduler> chosen(std::in_place, scheduler_options{.backend = backend});
    auto root = kumiki_test::make_root();
    const auto group = root.create("outlives");
    auto events = watch_events(*chosen, group);
    chosen->run(begin(*chosen, events));
    CHECK(inotify_use::now().instances == 1);
    chosen.emplace(scheduler_options{.backend = backend});  // most likely in the same place
    auto others = watch_events(*chosen, group);
    chosen->run(begin(*chosen, others));
    CHECK(inotify_use::now().instances == 2);
    group.freeze();
    chosen->run(begin(*chosen, others));
    events = {};
    others = {};
    CHECK(inotify_use::now() == inotify_use{});
}

namespace {

/// In a user namespace that may have no inotify instance: what a watch of the group meets.
void watch_without_instances(void* path) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    try {
        sys::check(::unshare(CLONE_NEWUSER), "unshare");
        sys::write_file_at(AT_FDCWD, "/proc/sys/user/max_inotify_instances", "0");
        scheduler io(scheduler_options{.backend = io_backend::epoll});
        const auto group = cgroup::open(*static_cast<std::string*>(path));
        try {
            auto events = watch_events(io, group);
            ::_exit(1);
        } catch (const error& failure) {
            const bool told =
                failure.remedy().find("fs.inotify.max_user_instances") != std::string::npos;
            ::_exit(failure.errno_value() == EMFILE && told ? 0 : 2);
        }
    } catch (...) {
        ::_exit(3);
    }
}

}  // namespace

TEST_CASE("a limit of inotify's is an error that names the sysctl") {
    if (const auto why = kumiki_test::missing(); !why.empty()) KUMIKI_SKIP(why);
    if (::access("/proc/sys/user/max_inotify_instances", F_OK) != 0)
        KUMIKI_SKIP("the kernel has no user namespaces, or no limit of inotify in them");
    auto root = kumiki_test::make_root();
    const auto group = root.create("limit");
    std::string path = group.path();
    child limited(group, watch_without_instances, &path);
    REQUIRE(limited.pid() > 0);
    CHECK(limited.wait().code == 0);
}
