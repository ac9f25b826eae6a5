#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <optional>
#include <string>
#include <vector>

#include <kumiki/cgroup/stats.hpp>

#include "cgroup/fixture.hpp"
#include "support/catch.hpp"
#include "support/leaks.hpp"

using namespace kumiki;
using namespace kumiki::literals;
using namespace std::chrono_literals;

namespace {

/// Uses 20 ms of processor time.
void be_busy(void*) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    timespec used{};
    do {
        ::clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used);
    } while (used.tv_sec == 0 && used.tv_nsec < 20'000'000);
    ::_exit(0);
}

}  // namespace

TEST_CASE("the kernel's times are read by name, whatever else is there") {
    cgroup_stats stats;
    parse_cpu_stat("usage_usec 30\nuser_usec 10\nsystem_usec 20\n", stats);
    CHECK(stats.cpu_usage == 30us);
    CHECK(stats.cpu_system == 20us);
    CHECK_FALSE(stats.cpu_throttled);
    // As 6.18 gives it with the cpu controller.
    parse_cpu_stat(
        "usage_usec 1\nuser_usec 1\nsystem_usec 0\nnice_usec 4\ncore_sched.force_idle_usec 3\n"
        "nr_periods 5\nnr_throttled 2\nthrottled_usec 9\nnr_bursts 6\nburst_usec 7\n",
        stats);
    CHECK(stats.cpu_nice == 4us);
    CHECK(stats.cpu_forced_idle == 3us);
    CHECK(stats.cpu_periods == 5U);
    CHECK(stats.cpu_throttled_periods == 2U);
    CHECK(stats.cpu_throttled == 9us);
    CHECK(stats.cpu_bursts == 6U);
    CHECK(stats.cpu_burst_time == 7us);
}

TEST_CASE("a time that cannot be is not there") {
    cgroup_stats stats;
    parse_cpu_stat(
        "usage_usec 9223372036854775807\nuser_usec 9223372036854775808\n"
        "system_usec 18446744073709551616\nnr_periods 18446744073709551615\n",
        stats);
    CHECK(stats.cpu_usage == std::chrono::microseconds(INT64_MAX));
    CHECK_FALSE(stats.cpu_user);
    CHECK_FALSE(stats.cpu_system);
    CHECK(stats.cpu_periods == 18446744073709551615U);
    parse_cpu_stat("usage_usec\nuser_usec -1\nsystem_usec 1.5\nnr_per", stats);
    CHECK_FALSE(stats.cpu_usage);
    CHECK_FALSE(stats.cpu_user);
    CHECK_FALSE(stats.cpu_system);
    CHECK_FALSE(stats.cpu_periods);
}

TEST_CASE("processor time is counted in any group, and kept after the process") {
    if (const auto why = kumiki_test::missing(); !why.empty()) KUMIKI_SKIP(why);
    auto root = kumiki_test::make_root();
    auto group = root.create("stats");
    kumiki_test::child busy(group, be_busy);
    REQUIRE(busy.pid() > 0);
    CHECK(busy.wait().code == 0);
    const auto stats = read_stats(group);
    REQUIRE(stats.cpu_usage);
    CHECK(stats.cpu_usage->count() >= 15'000);
    CHECK(stats.memory_current.has_value() == has(group.available(), controllers::memory));
    CHECK(stats.pids_current.has_value() == has(group.available(), controllers::pids));
    REQUIRE(group.try_remove());
    CHECK_FALSE(read_stats(group).cpu_usage);
    CHECK(read_stats(group).taken == cgroup_stats{}.taken);
}

TEST_CASE("a reader's snapshot is what the files say, again and again, until the group is gone") {
    if (const auto why = kumiki_test::missing(); !why.empty()) KUMIKI_SKIP(why);
    auto root = kumiki_test::make_root();
    auto group = root.create("reader");
    const auto before = kumiki_test::holdings::now().descriptors.size();
    {
        stats_reader reader(group);
        CHECK(kumiki_test::holdings::now().descriptors.size() == before + reader.files() + 1);
        cgroup_stats stats;
        REQUIRE(reader.read(stats));
        CHECK(stats.cpu_usage == 0us);
        const auto first = stats.taken;
        kumiki_test::child busy(group, be_busy);
        REQUIRE(busy.pid() > 0);
        CHECK(busy.wait().code == 0);
        REQUIRE(reader.read(stats));
        CHECK(stats.taken > first);
        CHECK(stats.cpu_usage ==
              std::chrono::microseconds(*flat_value(group.read("cpu.stat"), "usage_usec")));
        CHECK(stats.cpu_usage >= 15ms);
        for (const auto& [read, key] : {std::pair(stats.cpu_pressure, "cpu.pressure"),
                                        std::pair(stats.memory_pressure, "memory.pressure"),
                                        std::pair(stats.irq_pressure, "irq.pressure")})
            CHECK(read.has_value() == group.try_read(key).has_value());
        for (const hugetlb_stat& huge : stats.hugetlb) CHECK(huge.current == 0_B);
        const bool has_hugetlb = group.try_read("hugetlb.2MB.current").has_value();
        CHECK(stats.hugetlb.empty() != has_hugetlb);
        CHECK(reader.memory_value("pgfault").has_value() ==
              has(group.available(), controllers::memory));
        CHECK_FALSE(reader.memory_value("no such key"));

        REQUIRE(group.try_remove());
        CHECK_FALSE(reader.read(stats));
        CHECK_FALSE(stats.cpu_usage);
        CHECK(stats.hugetlb.empty());
        CHECK_FALSE(reader.read().cpu_usage);
    }
    CHECK(kumiki_test::holdings::now().descriptors.size() <= before);
    CHECK_THROWS_AS(stats_reader(group), error);
}

TEST_CASE("only the parts that are asked for are read") {
    if (const auto why = kumiki_test::missing(); !why.empty()) KUMIKI_SKIP(why);
    auto root = kumiki_test::make_root();
    const auto group = root.create("parts");
    stats_reader reader(group, stat_parts::cpu);
    CHECK(reader.files() == 1);
    const auto stats = reader.read();
    CHECK(stats.cpu_usage);
    CHECK_FALSE(stats.cpu_pressure);
    stats_reader none(group, stat_parts::none);
    CHECK(none.files() == 0);
    cgroup_stats empty;
    CHECK(none.read(empty));
    CHECK_FALSE(read_stats(group, stat_parts::pressure).cpu_usage);
    CHECK(read_stats(group, stat_parts::pressure).cpu_pressure.has_value() ==
          group.try_read("cpu.pressure").has_value());
}

TEST_CASE("the hierarchy's root, which lacks most files, can be read too") {
    if (const auto why = kumiki_test::missing(); !why.empty()) KUMIKI_SKIP(why);
    const auto root = kumiki_test::make_root();
    const auto top = cgroup::open(root.hierarchy().mount().mount_point);
    stats_reader reader(top);
    const auto stats = reader.read();
    CHECK(stats.cpu_usage > 0us);
    CHECK_FALSE(stats.pids_peak);
    CHECK(stats.memory.has_value() == top.try_read("memory.stat").has_value());
}

TEST_CASE("a text that is longer than the first buffer is read whole") {
    const unique_fd file(::memfd_create("text", MFD_CLOEXEC));
    std::string text;
    for (int i = 0; i < 3000; ++i)
        text += "key" + std::to_string(i) + ' ' + std::to_string(i) + '\n';
    REQUIRE(::write(file.get(), text.data(), text.size()) == static_cast<ssize_t>(text.size()));
    detail::text_buffer buffer;
    CHECK(buffer.read(file.get(), "text") == text);
    REQUIRE(::ftruncate(file.get(), 4) == 0);
    CHECK(buffer.read(file.get(), "text") == "key0");
    REQUIRE(::ftruncate(file.get(), 0) == 0);
    CHECK(buffer.read(file.get(), "text") == "");
}

namespace {

void fill_and_wait(void*) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    constexpr std::size_t size = 8U << 20;
    void* memory =
        ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) ::_exit(2);
    for (std::size_t i = 0; i < size; i += 4096) static_cast<volatile char*>(memory)[i] = 1;
    for (;;) ::pause();
}

/// A key's value in a file of the group.
std::uint64_t value_in(const cgroup& group, const char* file, const char* key) {
    return flat_value(group.read(file), key).value_or(0);
}

}  // namespace

TEST_CASE("memory and processes are counted as the kernel shows them [vm]", "[vm]") {
    constexpr auto needed = controllers::memory | controllers::pids;
    if (const auto why = kumiki_test::missing(needed); !why.empty()) KUMIKI_SKIP(why);
    auto root = kumiki_test::make_root();
    const auto group = root.create("memory", {.memory = 64_MiB, .pids = 8});
    stats_reader reader(group);
    const kumiki_test::child inside(group, fill_and_wait);
    REQUIRE(inside.pid() > 0);
    REQUIRE(kumiki_test::eventually(
        [&] { return value_in(group, "memory.stat", "anon") >= (8_MiB).count; }));
    const auto stats = reader.read();
    REQUIRE(stats.memory);
    CHECK(stats.memory->anon >= 8_MiB);
    CHECK(stats.memory->anon.count == value_in(group, "memory.stat", "anon"));
    CHECK(stats.memory->kernel_stack.count == value_in(group, "memory.stat", "kernel_stack"));
    CHECK(stats.memory->page_tables.count == value_in(group, "memory.stat", "pagetables"));
    CHECK(stats.memory->page_tables.count > 0);
    CHECK(stats.memory->faults > 0);
    CHECK(reader.memory_value("pgfault") == stats.memory->faults);
    CHECK(reader.memory_value("pgactivate") == value_in(group, "memory.stat", "pgactivate"));
    CHECK(stats.memory_current >= stats.memory->anon);
    CHECK(stats.memory_current <= 64_MiB);
    CHECK(stats.memory_events == memory_event_counts{});
    CHECK(stats.memory_events_local == memory_event_counts{});
    CHECK(stats.pids_current == 1U);
    CHECK(stats.pids_max_hits == 0U);
    CHECK(stats.memory_peak.has_value() == group.try_read("memory.peak").has_value());
    if (stats.memory_peak) CHECK(*stats.memory_peak >= *stats.memory_current);
    CHECK(stats.swap_current.has_value() == group.try_read("memory.swap.current").has_value());
    CHECK(stats.swap_events.has_value() == group.try_read("memory.swap.events").has_value());
    const auto once = read_stats(group, stat_parts::all);
    CHECK(once.memory->anon == stats.memory->anon);
    CHECK(once.pids_current == 1U);
}

TEST_CASE("a controller that is taken away is no end of the group [vm]", "[vm]") {
    if (const auto why = kumiki_test::missing(controllers::pids); !why.empty()) KUMIKI_SKIP(why);
    auto root = kumiki_test::make_root();
    const auto above = root.create("above", {.pids = 8});
    above.write("cgroup.subtree_control", "+pids");
    const auto group = cgroup::create(above, "below");
    stats_reader reader(group, stat_parts::pids | stat_parts::cpu);
    cgroup_stats stats;
    REQUIRE(reader.read(stats));
    CHECK(stats.pids_current == 0U);
    above.write("cgroup.subtree_control", "-pids");
    REQUIRE(reader.read(stats));
    CHECK_FALSE(stats.pids_current);
    CHECK(stats.cpu_usage);
}

TEST_CASE("what goes through a disk is counted by device [vm]", "[vm]") {
    if (const auto why = kumiki_test::missing(controllers::io); !why.empty()) KUMIKI_SKIP(why);
    const std::string place = "/scratch";
    if (!kumiki_test::exists(place) || !device_number::behind(place))
        KUMIKI_SKIP("there is no disk of a virtual machine");
    auto root = kumiki_test::make_root();
    const auto group =
        root.create("io", {.io = {{.device = *device_number::behind(place), .write = 1_GiB}}});
    kumiki_test::child writer(group, [](void*) {
        const int file = ::open("/scratch/kumiki-test-io", O_CREAT | O_TRUNC | O_WRONLY, 0600);
        static char data[1U << 20];
        for (int i = 0; i < 4; ++i)
            if (::write(file, data, sizeof data) != sizeof data) ::_exit(1);
        ::_exit(::fsync(file) == 0 ? 0 : 1);
    });
    REQUIRE(writer.pid() > 0);
    CHECK(writer.wait().code == 0);
    ::unlink("/scratch/kumiki-test-io");
    const auto stats = read_stats(group, stat_parts::io);
    const auto disk = std::find_if(stats.io.begin(), stats.io.end(), [&](const auto& one) {
        return one.device == device_number::behind(place);
    });
    REQUIRE(disk != stats.io.end());
    CHECK(disk->written >= 4_MiB);
    CHECK(disk->writes > 0);
}
