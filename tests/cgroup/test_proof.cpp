// That limits do what they say, measured on real controllers: memory killed for, processor time, the rate
// of a disk, processes, pinning, pressure, freezing and delegation. Where the controllers are bound to v1,
// these run in the virtual machines of tests/vm, whose disk for io.max is at /scratch.
//
// Rates are judged by the kernel's own counters over the guest's own clock, and never by how far the
// emulated processor came: a slow host makes the guest slow, and fails nothing.
#include <fcntl.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <chrono>
#include <cstring>
#include <new>
#include <optional>
#include <string>
#include <vector>

#include <kumiki/async/timeout.hpp>
#include <kumiki/async/when.hpp>
#include <kumiki/cgroup/delegate.hpp>
#include <kumiki/cgroup/device.hpp>
#include <kumiki/cgroup/events.hpp>
#include <kumiki/cgroup/limits.hpp>
#include <kumiki/cgroup/pressure.hpp>
#include <kumiki/cgroup/stats.hpp>

#include "cgroup/fixture.hpp"
#include "support/catch.hpp"

using namespace kumiki;
using namespace kumiki::literals;
using namespace std::chrono_literals;
using kumiki_test::child;
using kumiki_test::eventually;

namespace {

using steady = std::chrono::steady_clock;

/// A value that the test and its children see alike.
template <class T>
class shared {
  public:
    shared() {
        void* place =
            ::mmap(nullptr, sizeof(T), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        if (place == MAP_FAILED) sys::check(-1, "mmap");
        value_ = new (place) T{};
    }
    shared(const shared&) = delete;
    shared& operator=(const shared&) = delete;
    ~shared() { ::munmap(value_, sizeof(T)); }
    T* operator->() const { return value_; }
    T* get() const { return value_; }

  private:
    T* value_;
};

/// Writes to each page of `size` bytes.
void touch(std::size_t size) {
    void* memory =
        ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) ::_exit(2);
    for (std::size_t at = 0; at < size; at += 4096) static_cast<volatile char*>(memory)[at] = 1;
}

void pause_for(std::chrono::milliseconds time) {
    ::poll(nullptr, 0, static_cast<int>(time.count()));
}

// --- memory

constexpr int kills = 1000;

/// One process after the other that wants more than it may have.
task<void> be_killed(scheduler& io, const cgroup& group, int& killed) {
    for (int i = 0; i < kills; ++i) {
        child hog(group, [](void*) {
            ::prctl(PR_SET_PDEATHSIG, SIGKILL);
            touch(4U << 20);
            ::_exit(1);
        });
        if (hog.pid() < 0) throw error(-hog.pid(), {.operation = "clone3"});
        const auto status = co_await io.wait_exit(hog.pidfd());
        if (status.signal == SIGKILL) ++killed;
    }
}

/// How many OOM kills are told before there is silence for a second.
task<std::uint64_t> count_kills(scheduler& io, stream<cgroup_event>& events) {
    std::uint64_t told = 0;
    for (;;) {
        auto event = co_await with_timeout(io, told < kills ? 60s : 1s, events.next());
        if (!event || !*event) co_return told;
        if ((*event)->kind == cgroup_event_kind::oom_kill) told += (*event)->count;
    }
}

task<void> kill_a_thousand(scheduler& io, cgroup_root& root) {
    const auto group = root.create("thousand", {.memory = 512_KiB});
    if (group.try_read("memory.swap.max")) set_limits(group, resource_limits{.memory_swap = 0_B});
    auto events = watch_events(io, group);
    int killed = 0;
    auto both = co_await when_all(count_kills(io, events), be_killed(io, group, killed));
    CHECK(killed == kills);
    CHECK(std::get<0>(both) == kills);
    const auto text = group.read("memory.events");
    CHECK(flat_value(text, "oom_kill") == std::uint64_t{kills});
}

}  // namespace

TEST_CASE("a thousand OOM kills are told as a thousand [vm]", "[vm]") {
    NEED(controllers::memory);
    auto root = kumiki_test::make_root();
    scheduler io;
    io.run(kill_a_thousand(io, root));
}

// --- processors

TEST_CASE("cpu.max at 20 % gives 20 % of a processor, within 3 [vm]", "[vm]") {
    NEED(controllers::cpu);
    auto root = kumiki_test::make_root();
    const auto group = root.create("share", {.cpu = cpus(0.2)});
    const auto burn = [](void*) {
        ::prctl(PR_SET_PDEATHSIG, SIGKILL);
        for (;;) {}
    };
    // Two, so that the quota is one over all processors.
    const child one(group, burn);
    const child two(group, burn);
    REQUIRE(two.pid() > 0);
    // Taken when a period has just been cut short: no quota is half used then.
    struct look {
        steady::time_point when;
        std::chrono::microseconds used{};
        std::uint64_t periods = 0;
    };
    const auto when_throttled = [&] {
        const auto before = read_stats(group).cpu_throttled_periods;
        REQUIRE(eventually([&] { return read_stats(group).cpu_throttled_periods > before; }));
        const auto stats = read_stats(group);
        return look{steady::now(), stats.cpu_usage.value(), stats.cpu_periods.value()};
    };
    const look first = when_throttled();
    pause_for(3s);
    const look last = when_throttled();
    const std::chrono::duration<double, std::micro> used = last.used - first.used;
    const std::chrono::duration<double, std::micro> wall = last.when - first.when;
    REQUIRE(wall >= 2s);
    const double of_wall = 100 * used / wall;
    const double of_periods =
        100 * used.count() / (static_cast<double>(last.periods - first.periods) * 100'000);
    INFO(of_wall << " % of the time, " << of_periods << " % of the periods");
    CHECK(of_wall > 17);
    CHECK(of_wall < 23);
    CHECK(of_periods > 17);
    CHECK(of_periods < 23);
}

TEST_CASE("cpuset.cpus pins processes, which cannot undo it [vm]", "[vm]") {
    NEED(controllers::cpuset);
    if (::sysconf(_SC_NPROCESSORS_ONLN) < 2) KUMIKI_SKIP("it takes two processors");
    auto root = kumiki_test::make_root();
    const auto group = root.create("pinned", {.cpuset_cpus = "1"});
    struct notes {
        std::atomic<bool> done;
        int before = 0;  // the processors of its mask
        int refusal = 0;
        int after = 0;
        int ran_on = 0;
    };
    const shared<notes> seen;
    const child pinned(
        group,
        [](void* given) {
            ::prctl(PR_SET_PDEATHSIG, SIGKILL);
            auto& note = *static_cast<notes*>(given);
            const auto mask = [] {
                cpu_set_t set;
                ::sched_getaffinity(0, sizeof set, &set);
                return (CPU_ISSET(0, &set) ? 1 : 0) + (CPU_ISSET(1, &set) ? 2 : 0) +
                       (CPU_COUNT(&set) > 2 ? 4 : 0);
            };
            note.before = mask();
            cpu_set_t other;
            CPU_ZERO(&other);
            CPU_SET(0, &other);
            note.refusal = ::sched_setaffinity(0, sizeof other, &other) == 0 ? 0 : errno;
            note.after = mask();
            note.ran_on = ::sched_getcpu();
            note.done = true;
            for (;;) ::pause();
        },
        seen.get());
    REQUIRE(pinned.pid() > 0);
    REQUIRE(eventually([&] { return seen->done.load(); }));
    CHECK(seen->before == 2);
    CHECK(seen->refusal == EINVAL);
    CHECK(seen->after == 2);
    CHECK(seen->ran_on == 1);
    const auto allowed = [&] {
        const std::string text =
            sys::read_file_at(AT_FDCWD, "/proc/" + std::to_string(pinned.pid()) + "/status");
        constexpr std::string_view key = "Cpus_allowed_list:\t";
        const auto at = text.find(key) + key.size();
        return text.substr(at, text.find('\n', at) - at);
    };
    CHECK(allowed() == "1");
    CHECK(group.read("cpuset.cpus.effective") == "1\n");
    set_limits(group, resource_limits{.cpuset_cpus = "0"});
    CHECK(allowed() == "0");
}

// --- a disk

namespace {

constexpr std::size_t block = 64U << 10;
constexpr std::size_t blocks = 64;

/// wbytes= of the device in io.stat.
std::uint64_t written(const cgroup& group, device_number device) {
    const std::string text = group.read("io.stat");
    std::string_view rest = text;
    while (auto line = next_field(rest, '\n')) {
        if (next_field(*line, ' ') != to_string(device)) continue;
        while (const auto field = next_field(*line, ' '))
            if (field->starts_with("wbytes="))
                return require_number<std::uint64_t>("wbytes", field->substr(7));
    }
    return 0;
}

/// A file of a few MiB on the scratch disk, all of it written; nothing where there is none.
std::optional<unique_fd> file_on_disk(const std::string& path) {
    const int fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_DIRECT | O_CLOEXEC, 0600);
    if (fd < 0) return std::nullopt;
    unique_fd file(fd);
    ::unlink(path.c_str());
    void* zeros =
        ::mmap(nullptr, block, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (zeros == MAP_FAILED) sys::check(-1, "mmap");
    for (std::size_t i = 0; i < blocks; ++i)
        sys::check(::pwrite(fd, zeros, block, static_cast<off_t>(i * block)), "write", path);
    ::munmap(zeros, block);
    sys::check(::fsync(fd), "fsync", path);
    return file;
}

/// Writes the file of `given` again and again, past the page cache.
void write_for_ever(void* given) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    const int fd = *static_cast<const int*>(given);
    void* data = ::mmap(nullptr, block, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    for (std::size_t i = 0;; ++i)
        if (::pwrite(fd, data, block, static_cast<off_t>(i % blocks * block)) < 0) ::_exit(errno);
}

}  // namespace

TEST_CASE("io.max holds the rate of writing within 10 % [vm]", "[vm]") {
    NEED(controllers::io);
    auto file = file_on_disk("/scratch/kumiki-rate");
    if (!file) KUMIKI_SKIP("there is no disk at /scratch that is written past the page cache");
    const auto disk = device_number::behind("/scratch");
    if (!disk) KUMIKI_SKIP("/scratch is not on a disk of its own");
    auto root = kumiki_test::make_root();
    const auto group = root.create("rate");
    root.require(controllers::io);
    if (!group.try_read("io.max")) KUMIKI_SKIP("the kernel does not throttle io");
    int fd = file->get();
    const child writer(group, write_for_ever, &fd);
    REQUIRE(writer.pid() > 0);
    // From one change of the counter to another, that no write is in flight at either end.
    struct look {
        steady::time_point when;
        std::uint64_t bytes = 0;
    };
    const auto at_change = [&] {
        const std::uint64_t before = written(group, *disk);
        look now;
        REQUIRE(eventually([&] {
            now = {steady::now(), written(group, *disk)};
            return now.bytes > before;
        }));
        return now;
    };
    const auto rate = [&](std::chrono::milliseconds time) {
        const look first = at_change();
        pause_for(time);
        const look last = at_change();
        const std::chrono::duration<double> took = last.when - first.when;
        return static_cast<double>(last.bytes - first.bytes) / took.count();
    };
    // The disk could do more: so it is the limit that is measured below.
    constexpr auto limit = 2_MiB;
    CHECK(rate(500ms) > 2 * static_cast<double>(limit.count));
    set_limits(group, resource_limits{.io = {{.device = *disk, .write = limit}}});
    at_change();  // what was let through before
    at_change();
    const double held = rate(4s);
    INFO(held << " bytes in a second");
    CHECK(held > 0.9 * static_cast<double>(limit.count));
    CHECK(held < 1.1 * static_cast<double>(limit.count));
}

// --- processes

TEST_CASE("pids.max stops a fork bomb, beside which others go on [vm]", "[vm]") {
    NEED(controllers::pids);
    auto root = kumiki_test::make_root();
    constexpr std::uint64_t most = 24;
    auto group = root.create("bomb", {.pids = most});
    const child bomb(group, [](void*) {
        // Every process forks for ever, and so do all that it makes.
        for (;;) ::fork();
    });
    REQUIRE(bomb.pid() > 0);
    CHECK(eventually([&] { return read_stats(group).pids_max_hits > 100U; }));
    std::uint64_t highest = 0;
    for (int round = 0; round < 50; ++round) {
        highest = std::max(highest, read_stats(group).pids_current.value());
        // Another group of the same user is not in the way of it.
        const auto beside = round % 10 == 0 ? std::optional(root.create("beside")) : std::nullopt;
        if (!beside) continue;
        child other(*beside, [](void*) { ::_exit(7); });
        CHECK(other.wait().code == 7);
    }
    CHECK(highest == most);
    CHECK(group.procs().size() <= most);
    group.kill();
    CHECK(group.wait_empty(10s));
}

// --- pressure

namespace {

task<std::optional<pressure>> next_of(stream<pressure>& told) {
    auto one = co_await told.next();
    co_return one;
}

task<void> be_short_of_memory(scheduler& io, const cgroup& group) {
    constexpr auto threshold = 100ms;
    constexpr auto window = 1s;
    const pressure_trigger trigger{
        .resource = pressure_resource::memory, .threshold = threshold, .window = window};
    {
        // Nobody waits yet, so nothing is told.
        auto silent = watch_pressure(io, group, trigger);
        auto nothing = co_await with_timeout(io, 1200ms, next_of(silent));
        CHECK_FALSE(nothing);
    }
    auto told = watch_pressure(io, group, trigger);
    // Above memory.high, and nothing to reclaim: each further page waits.
    const child hog(group, [](void*) {
        ::prctl(PR_SET_PDEATHSIG, SIGKILL);
        for (;;) touch(1U << 20);
    });
    REQUIRE(hog.pid() > 0);
    auto seen = co_await with_timeout(io, 30s, next_of(told));
    REQUIRE(seen);
    REQUIRE(*seen);
    // The time in which somebody waited goes on with the clock, so this is when it was told: before
    // another window had passed. The file's own sum is up to two seconds behind the trigger's.
    INFO((*seen)->some.total.count() << " us of waiting");
    CHECK((*seen)->some.total < threshold + window);
    CHECK(kumiki_test::eventually([&] {
        const auto now = read_pressure(group, pressure_resource::memory);
        return now && now->some.total >= threshold;
    }));
    CHECK(read_stats(group).memory_events->high > 0);
}

}  // namespace

TEST_CASE("a trigger of memory pressure tells within its window [vm]", "[vm]") {
    NEED(controllers::memory);
    auto root = kumiki_test::make_root();
    auto group = root.create("thrash", {.memory = 256_MiB, .memory_high = 8_MiB});
    if (group.try_read("memory.swap.max")) set_limits(group, resource_limits{.memory_swap = 0_B});
    if (!read_pressure(group, pressure_resource::memory))
        KUMIKI_SKIP("the kernel does not measure pressure");
    scheduler io;
    io.run(be_short_of_memory(io, group));
    group.destroy();
}

// --- freezing

namespace {

struct load {
    std::atomic<std::uint64_t> spun;
    std::atomic<std::uint64_t> forked;
    std::atomic<std::uint64_t> wrote;
    int fd = -1;
    std::uint64_t all() const { return spun + forked + wrote; }
};

task<void> freeze_often(scheduler& io, const cgroup& group, const shared<load>& at) {
    for (int round = 0; round < 20; ++round) {
        group.freeze();
        auto frozen = co_await with_timeout(io, 20s, until_frozen(io, group));
        REQUIRE(frozen);
        const auto done = at->all();
        const auto used = read_stats(group).cpu_usage;
        pause_for(20ms);
        CHECK(at->all() == done);
        CHECK(read_stats(group).cpu_usage == used);
        group.thaw();
        CHECK(eventually([&] { return at->all() > done; }));
    }
    const load& each = *at.get();
    CHECK(each.spun > 0);
    CHECK(each.forked > 0);
    CHECK((each.fd < 0 || each.wrote > 0));
    // Frozen processes can be killed.
    group.freeze();
    auto frozen = co_await with_timeout(io, 20s, until_frozen(io, group));
    REQUIRE(frozen);
    group.kill();
    auto ended = co_await with_timeout(io, 20s, until_empty(io, group));
    CHECK(ended);
}

}  // namespace

TEST_CASE("a group that forks, computes and writes is frozen and thawed, again and again [vm]",
          "[vm]") {
    NEED(controllers::cpu | controllers::pids | controllers::memory);
    auto root = kumiki_test::make_root();
    const auto group = root.create("load", {.memory = 64_MiB, .cpu = cpus(0.5), .pids = 16});
    const shared<load> at;
    const auto file = file_on_disk("/scratch/kumiki-load");
    if (file) at->fd = file->get();
    const child spinner(
        group,
        [](void* given) {
            ::prctl(PR_SET_PDEATHSIG, SIGKILL);
            for (auto& count = static_cast<load*>(given)->spun;;) ++count;
        },
        at.get());
    const child forker(
        group,
        [](void* given) {
            ::prctl(PR_SET_PDEATHSIG, SIGKILL);
            for (;;) {
                const pid_t pid = ::fork();
                if (pid == 0) ::_exit(0);
                if (pid < 0) continue;
                ::waitpid(pid, nullptr, 0);
                ++static_cast<load*>(given)->forked;
            }
        },
        at.get());
    const child writer(
        group,
        [](void* given) {
            ::prctl(PR_SET_PDEATHSIG, SIGKILL);
            auto& mine = *static_cast<load*>(given);
            if (mine.fd < 0) ::_exit(0);

            alignas(4096) static std::array<char, 4096> page{};
            while (::pwrite(mine.fd, page.data(), page.size(), 0) > 0) ++mine.wrote;
            ::_exit(1);
        },
        at.get());
    REQUIRE(writer.pid() > 0);
    REQUIRE(eventually(
        [&] { return at->spun > 0 && at->forked > 0 && (at->fd < 0 || at->wrote > 0); }));
    scheduler io;
    io.run(freeze_often(io, group, at));
}

// --- delegation

namespace {

/// What user 1000 tried in the group that was handed over: 0, or the errno value of the refusal.
struct attempts {
    const char* path = nullptr;
    int make = -1;
    int enter = -1;
    int enable = -1;
    int enable_more = -1;
    int limit_own = -1;
    int out = -1;
    int aside = -1;
    int take = -1;
    int make_beside = -1;
    int enable_above = -1;
    std::array<int, 12> raise{};
    int forks = 0;
    pid_t foreign = 0;
};

/// The limits and switches of the group itself, and of the one above, that are not the user's.
constexpr std::array<const char*, 12> not_the_users = {"/memory.max",    "/memory.high",
                                                       "/pids.max",      "/cpu.max",
                                                       "/cpu.weight",    "/cgroup.max.depth",
                                                       "/cgroup.freeze", "/cgroup.kill",
                                                       "/cgroup.type",   "/cgroup.max.descendants",
                                                       "/../pids.max",   "/../memory.max"};

void try_to_widen(void* given) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    auto& did = *static_cast<attempts*>(given);
    if (::setgid(1000) != 0 || ::setuid(1000) != 0) ::_exit(128);
    const std::string group = did.path;
    const auto write = [&](const std::string& file, const std::string& text) {
        const int fd = ::open((group + file).c_str(), O_WRONLY | O_CLOEXEC);
        if (fd < 0) return errno;
        const int code = ::write(fd, text.data(), text.size()) < 0 ? errno : 0;
        ::close(fd);
        return code;
    };
    const std::string self = std::to_string(::getpid());
    // What it may do: groups of its own, with limits of their own within those that it was given.
    did.make = ::mkdir((group + "/mine").c_str(), 0755) == 0 ? 0 : errno;
    did.enter = write("/mine/cgroup.procs", self);
    did.enable = write("/cgroup.subtree_control", "+memory +pids");
    const int memory = write("/mine/memory.max", "1073741824");
    const int pids = write("/mine/pids.max", "max");
    did.limit_own = memory != 0 ? memory : pids;
    // What it may not.
    did.enable_more = write("/cgroup.subtree_control", "+io");
    did.out = write("/../cgroup.procs", self);
    did.aside = write("/../beside/cgroup.procs", self);
    did.take = write("/mine/cgroup.procs", std::to_string(did.foreign));
    did.make_beside = ::mkdir((group + "/../another").c_str(), 0755) == 0 ? 0 : errno;
    did.enable_above = write("/../cgroup.subtree_control", "+io");
    for (std::size_t i = 0; i < not_the_users.size(); ++i)
        did.raise[i] = write(not_the_users[i], "1");
    for (int i = 0; i < 40; ++i) {
        const pid_t pid = ::fork();
        if (pid < 0) break;
        if (pid == 0) child::wait_for_signal(nullptr);
        ++did.forks;
    }
    touch(64U << 20);
    ::_exit(1);
}

}  // namespace

TEST_CASE("limits of a group that is handed to a user cannot be widened by the user [vm]", "[vm]") {
    NEED(controllers::memory | controllers::pids | controllers::cpu);
    if (::geteuid() != 0) KUMIKI_SKIP("it takes root to give a group away");
    auto root = kumiki_test::make_root();
    const auto group = root.create(
        "handed",
        {.memory = 16_MiB, .memory_high = 16_MiB, .cpu = cpus(0.5), .cpu_weight = 50, .pids = 8});
    if (group.try_read("memory.swap.max")) set_limits(group, resource_limits{.memory_swap = 0_B});
    // Not slowed down on the way to the limit that is tested below.
    group.write("memory.high", "max");
    const auto beside = root.create("beside");
    const child foreign(beside);
    REQUIRE(foreign.pid() > 0);
    delegate_group(group, 1000, 1000);
    const shared<attempts> did;
    const std::string path = group.path();
    did->path = path.c_str();
    did->foreign = foreign.pid();
    child user(group, try_to_widen, did.get());
    REQUIRE(user.pid() > 0);
    // Its own memory.max of 1 GiB does not help it over the 16 MiB that it was given.
    CHECK(user.wait().signal == SIGKILL);
    CHECK(did->make == 0);
    CHECK(did->enter == 0);
    CHECK(did->enable == 0);
    CHECK(did->limit_own == 0);
    CHECK(did->enable_more != 0);
    CHECK(did->out == EACCES);
    CHECK(did->aside == EACCES);
    CHECK(did->take == EACCES);
    CHECK(did->make_beside == EACCES);
    CHECK(did->enable_above == EACCES);
    for (std::size_t i = 0; i < not_the_users.size(); ++i) {
        CAPTURE(not_the_users[i]);
        CHECK(did->raise[i] == EACCES);
    }
    CHECK(did->forks == 7);
    CHECK(group.read("memory.max") == "16777216\n");
    CHECK(group.read("pids.max") == "8\n");
    CHECK(group.read("cpu.max") == "50000 100000\n");
    const auto stats = read_stats(group);
    CHECK(stats.memory_events->oom_kill >= 1);
    CHECK(kumiki_test::group_of(foreign.pid()).ends_with("/beside"));
    CHECK_FALSE(kumiki_test::exists(root.group().path() + "/another"));
    group.kill();
    CHECK(group.wait_empty(10s));
}
