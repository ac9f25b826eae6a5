#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>
#include <ctime>
#include <string>
#include <vector>

#include <kumiki/cgroup/limits.hpp>
#include <kumiki/cgroup/stats.hpp>

#include "cgroup/fixture.hpp"
#include "support/catch.hpp"

using namespace kumiki;
using namespace kumiki::literals;
using kumiki_test::child;
using settings = std::vector<cgroup_setting>;

TEST_CASE("limits stand for the kernel's files and values") {
    CHECK(settings_of({}).empty());
    CHECK(settings_of({.memory = 64_MiB, .cpu = cpus(0.5), .pids = 32}) ==
          settings{{"memory.max", "67108864"}, {"cpu.max", "50000 100000"}, {"pids.max", "32"}});
    CHECK(settings_of({.memory_high = 1_GiB, .memory_low = 0_B, .memory_swap = 0_B}) ==
          settings{{"memory.low", "0"}, {"memory.high", "1073741824"}, {"memory.swap.max", "0"}});
    CHECK(settings_of({.memory_oom_group = true, .cpu_weight = 10000}) ==
          settings{{"memory.oom.group", "1"}, {"cpu.weight", "10000"}});
    CHECK(settings_of({.cpu = cpus(2), .cpu_period = std::chrono::milliseconds(10)}) ==
          settings{{"cpu.max", "20000 10000"}});
    CHECK(settings_of({.cpu = cpus(0.01)}) == settings{{"cpu.max", "1000 100000"}});
    CHECK(settings_of({.pids = 1, .raw = {{"io.weight", "100"}, {"io.max", "8:0 rbps=1"}}}) ==
          settings{{"pids.max", "1"}, {"io.weight", "100"}, {"io.max", "8:0 rbps=1"}});
}

TEST_CASE("limits of devices, processors and huge pages stand for the kernel's texts") {
    using namespace std::chrono_literals;
    CHECK(settings_of({.memory = no_limit,
                       .memory_min = 1_MiB,
                       .memory_swap_high = 2_MiB,
                       .memory_zswap = 0_B}) == settings{{"memory.min", "1048576"},
                                                         {"memory.swap.high", "2097152"},
                                                         {"memory.zswap.max", "0"},
                                                         {"memory.max", "max"}});
    CHECK(settings_of({.cpu = cpus(1),
                       .cpu_burst = 50ms,
                       .cpu_idle = true,
                       .cpu_uclamp_min = 12.5,
                       .cpu_uclamp_max = 100,
                       .cpuset_cpus = "0-3,6",
                       .cpuset_mems = "0"}) == settings{{"cpu.max", "100000 100000"},
                                                        {"cpu.max.burst", "50000"},
                                                        {"cpu.idle", "1"},
                                                        {"cpu.uclamp.min", "12.50"},
                                                        {"cpu.uclamp.max", "max"},
                                                        {"cpuset.cpus", "0-3,6"},
                                                        {"cpuset.mems", "0"}});
    CHECK(settings_of({.io = {{.device = {8, 0},
                               .read = 1_MiB,
                               .write = no_limit,
                               .read_operations = 100,
                               .write_operations = 7}},
                       .io_weight = 50,
                       .io_latencies = {{{8, 0}, 10ms}}}) ==
          settings{{"io.max", "8:0 rbps=1048576 wbps=max riops=100 wiops=7"},
                   {"io.weight", "50"},
                   {"io.latency", "8:0 target=10000"}});
    CHECK(settings_of({.hugetlb = {{64_KiB, 0_B}, {2_MiB, 4_MiB}, {1_GiB, no_limit}}}) ==
          settings{{"hugetlb.64KB.max", "0"},
                   {"hugetlb.2MB.max", "4194304"},
                   {"hugetlb.1GB.max", "max"}});
    CHECK(controllers_needed({.cpuset_cpus = "0", .io_weight = 1, .hugetlb = {{2_MiB, 0_B}}}) ==
          (controllers::cpuset | controllers::io | controllers::hugetlb));
}

TEST_CASE("limits are taken away with no_limit, each in its kind") {
    CHECK(settings_of({.memory = no_limit,
                       .cpu = no_limit,
                       .io = {{.device = {8, 0}, .read = no_limit, .write_operations = no_limit}},
                       .hugetlb = {{2_MiB, no_limit, no_limit}},
                       .pids = no_limit,
                       .rdma = {{.device = "mlx5_0", .handles = no_limit}},
                       .misc = {{"sev", no_limit}},
                       .dmem = {{.region = "drm/0000:03:00.0/vram0", .most = no_limit}}}) ==
          settings{{"memory.max", "max"},
                   {"cpu.max", "max 100000"},
                   {"io.max", "8:0 rbps=max wiops=max"},
                   {"hugetlb.2MB.max", "max"},
                   {"hugetlb.2MB.rsvd.max", "max"},
                   {"pids.max", "max"},
                   {"rdma.max", "mlx5_0 hca_handle=max"},
                   {"misc.max", "sev max"},
                   {"dmem.max", "drm/0000:03:00.0/vram0 max"}});
}

TEST_CASE("shares, priorities and partitions stand for the kernel's texts") {
    using namespace std::chrono_literals;
    CHECK(settings_of({.memory_zswap_writeback = false,
                       .cpu_nice = -20,
                       .cpu_idle = false,
                       .cpuset_cpus = "0",
                       .cpuset_kind = cpuset_partition::isolated}) ==
          settings{{"memory.zswap.writeback", "0"},
                   {"cpu.idle", "0"},
                   {"cpu.weight.nice", "-20"},
                   {"cpuset.cpus", "0"},
                   {"cpuset.cpus.partition", "isolated"}});
    CHECK(settings_of({.io_weight = 50,
                       .io_device_weights = {{{8, 0}, 10000}, {{8, 16}, {}}},
                       .io_latencies = {{{8, 0}, 0us}},
                       .io_priority = io_priority_class::restrict_to_be}) ==
          settings{{"io.weight", "50"},
                   {"io.weight", "8:0 10000"},
                   {"io.weight", "8:16 default"},
                   {"io.latency", "8:0 target=0"},
                   {"io.prio.class", "restrict-to-be"}});
    CHECK(settings_of({.cpu_nice = 19, .cpuset_kind = cpuset_partition::member}) ==
          settings{{"cpu.weight.nice", "19"}, {"cpuset.cpus.partition", "member"}});
    CHECK(settings_of({.cpuset_kind = cpuset_partition::root,
                       .io_priority = io_priority_class::no_change}) ==
          settings{{"cpuset.cpus.partition", "root"}, {"io.prio.class", "no-change"}});
}

TEST_CASE("limits of named resources stand for the kernel's texts") {
    CHECK(settings_of({.rdma = {{.device = "mlx5_0", .handles = 2, .objects = 2000},
                                {.device = "ocrdma1", .objects = 0}},
                       .misc = {{"res_a", 1}, {"res_b", 0}},
                       .dmem = {{.region = "drm/0000:03:00.0/vram0",
                                 .most = 1_GiB,
                                 .low = 1_MiB,
                                 .min = 0_B}}}) ==
          settings{{"rdma.max", "mlx5_0 hca_handle=2 hca_object=2000"},
                   {"rdma.max", "ocrdma1 hca_object=0"},
                   {"misc.max", "res_a 1"},
                   {"misc.max", "res_b 0"},
                   {"dmem.min", "drm/0000:03:00.0/vram0 0"},
                   {"dmem.low", "drm/0000:03:00.0/vram0 1048576"},
                   {"dmem.max", "drm/0000:03:00.0/vram0 1073741824"}});
    CHECK(controllers_needed({.rdma = {{.device = "a", .handles = 1}},
                              .misc = {{"a", 1}},
                              .dmem = {{.region = "a", .most = 1_B}}}) ==
          (controllers::rdma | controllers::misc | controllers::dmem));
}

TEST_CASE("shares and named resources that mean nothing are refused") {
    const auto refused = [](const resource_limits& limits) {
        CHECK_THROWS_AS(settings_of(limits), invalid_input);
    };
    refused({.cpu_nice = -21});
    refused({.cpu_nice = 20});
    refused({.cpu_weight = 100, .cpu_nice = 0});
    refused({.cpu_nice = 0, .cpu_idle = true});
    refused({.cpu = no_limit, .cpu_burst = std::chrono::milliseconds(1)});
    refused({.io_device_weights = {{{8, 0}, 0}}});
    refused({.io_device_weights = {{{8, 0}, 10001}}});
    refused({.rdma = {{.device = "mlx5_0"}}});
    refused({.rdma = {{.device = "mlx5_0", .handles = 1ULL << 31}}});
    for (const auto& word : {std::string(), std::string("a b"), std::string("a\nb"),
                             std::string("a\0b", 3), std::string(256, 'x')}) {
        CAPTURE(word);
        refused({.rdma = {{.device = word, .handles = 1}}});
        refused({.misc = {{word, 1}}});
        refused({.dmem = {{.region = word, .most = 1_B}}});
    }
    refused({.dmem = {{.region = "a"}}});
    refused({.hugetlb = {{3_MiB, 1_B, 1_B}}});
}

TEST_CASE("limits of devices, processors and huge pages that mean nothing are refused") {
    using namespace std::chrono_literals;
    const auto refused = [](const resource_limits& limits) {
        CHECK_THROWS_AS(settings_of(limits), invalid_input);
    };
    refused({.cpu_burst = 1ms});
    refused({.cpu = cpus(1), .cpu_burst = -1us});
    refused({.cpu_weight = 1, .cpu_idle = true});
    refused({.cpu_uclamp_min = -0.1});
    refused({.cpu_uclamp_max = 100.1});
    for (const char* list : {"", "a", "1-", "-1", "3-1", "0,,1", "1-2-3", "8192", "0 1"}) {
        CAPTURE(list);
        refused({.cpuset_cpus = list});
        refused({.cpuset_mems = list});
    }
    refused({.io = {{.device = {8, 0}}}});
    refused({.io = {{.device = {8, 0}, .read = 0_B}}});
    refused({.io_weight = 0});
    refused({.io_weight = 10001});
    refused({.io_latencies = {{{8, 0}, -1us}}});
    refused({.hugetlb = {{0_B, 1_MiB}}});
    refused({.hugetlb = {{3_MiB, 1_MiB}}});
}

TEST_CASE("limits know the controllers that they need") {
    CHECK(controllers_needed(resource_limits{}) == controllers::none);
    CHECK(controllers_needed({.memory = 64_MiB, .cpu = cpus(0.5), .pids = 32}) ==
          (controllers::memory | controllers::cpu | controllers::pids));
    CHECK(controllers_needed({.raw = {{"hugetlb.2MB.max", "0"}, {"cgroup.max.depth", "0"}}}) ==
          controllers::hugetlb);
}

TEST_CASE("limits that nothing could run with are refused") {
    CHECK_THROWS_AS(settings_of({.memory = 0_B}), invalid_input);
    CHECK_THROWS_AS(settings_of({.memory = 4095_B}), invalid_input);
    CHECK_THROWS_AS(settings_of({.memory_high = 1_B}), invalid_input);
    CHECK_THROWS_AS(settings_of({.pids = 0}), invalid_input);
    CHECK_THROWS_AS(settings_of({.cpu_weight = 0}), invalid_input);
    CHECK_THROWS_AS(settings_of({.cpu_weight = 10001}), invalid_input);
    CHECK_THROWS_AS(settings_of({.cpu = cpus(0.01), .cpu_period = std::chrono::milliseconds(50)}),
                    invalid_input);
    CHECK_THROWS_AS(settings_of({.cpu = cpus(1), .cpu_period = std::chrono::microseconds(999)}),
                    invalid_input);
    CHECK_THROWS_AS(settings_of({.cpu = cpus(1), .cpu_period = std::chrono::seconds(2)}),
                    invalid_input);
}

TEST_CASE("raw keys that are no limits are refused") {
    const auto key = GENERATE(as<std::string>(), "", "weight", "../memory.max", "a/b.c", "..",
                              "cgroup.procs", "cgroup.kill", "cgroup.freeze",
                              "cgroup.subtree_control", std::string("io.x\0y", 6));
    CAPTURE(key);
    CHECK_THROWS_AS(settings_of({.raw = {{key, "1"}}}), invalid_input);
    CHECK_THROWS_AS(settings_of({.raw = {{"io.weight", ""}}}), invalid_input);
    CHECK_THROWS_AS(settings_of({.raw = {{"io.weight", std::string("1\0", 2)}}}), invalid_input);
}

TEST_CASE("the kernel shows the limits that were written [vm]", "[vm]") {
    NEED(controllers::memory | controllers::cpu | controllers::pids);
    auto root = kumiki_test::make_root();
    const auto group = root.create("limits", {.memory = 64_MiB,
                                              .memory_high = 32_MiB,
                                              .memory_oom_group = true,
                                              .cpu = cpus(0.5),
                                              .cpu_weight = 50,
                                              .pids = 32});
    CHECK(group.read("memory.max") == "67108864\n");
    CHECK(group.read("memory.high") == "33554432\n");
    CHECK(group.read("memory.oom.group") == "1\n");
    CHECK(group.read("cpu.max") == "50000 100000\n");
    CHECK(group.read("cpu.weight") == "50\n");
    CHECK(group.read("pids.max") == "32\n");
    set_limits(group, resource_limits{.pids = 64});
    CHECK(group.read("pids.max") == "64\n");
    CHECK(group.read("memory.max") == "67108864\n");
}

TEST_CASE("the kernel shows shares and that limits were taken away [vm]", "[vm]") {
    NEED(controllers::memory | controllers::cpu | controllers::pids);
    auto root = kumiki_test::make_root();
    const auto group =
        root.create("shares", {.memory = 64_MiB, .cpu = cpus(0.5), .cpu_nice = 10, .pids = 32});
    CHECK(group.read("cpu.weight.nice") == "10\n");
    set_limits(group, {.memory = no_limit, .cpu = no_limit, .cpu_nice = -20, .pids = no_limit});
    CHECK(group.read("memory.max") == "max\n");
    CHECK(group.read("cpu.max") == "max 100000\n");
    CHECK(group.read("pids.max") == "max\n");
    CHECK(group.read("cpu.weight.nice") == "-20\n");
    if (!group.try_read("cpu.idle")) return;
    set_limits(group, {.cpu_idle = true});
    CHECK(group.read("cpu.idle") == "1\n");
    set_limits(group, {.cpu_weight = 7, .cpu_idle = false});  // first no longer idle
    CHECK(group.read("cpu.weight") == "7\n");
    CHECK(group.read("cpu.idle") == "0\n");
}

TEST_CASE("the kernel shows limits of disks, and that they were taken away [vm]", "[vm]") {
    NEED(controllers::io);
    const auto disk = kumiki_test::exists("/scratch") ? device_number::behind("/scratch")
                                                      : std::optional<device_number>();
    if (!disk) KUMIKI_SKIP("no disk of one's own at /scratch");
    auto root = kumiki_test::make_root();
    const auto group =
        root.create("disk", {.io = {{.device = *disk, .write = 1_MiB, .read_operations = 100}}});
    const std::string name = to_string(*disk);
    CHECK(group.read("io.max") == name + " rbps=max wbps=1048576 riops=100 wiops=max\n");
    set_limits(group, {.io = {{.device = *disk, .write = no_limit, .read_operations = no_limit}}});
    CHECK(group.read("io.max").find("100") == std::string::npos);
    if (const auto text = group.try_read("io.prio.class")) {
        CHECK(*text == "no-change\n");
        set_limits(group, {.io_priority = io_priority_class::restrict_to_be});
        CHECK(group.read("io.prio.class") == "restrict-to-be\n");
    }
    if (group.try_read("io.weight")) {
        set_limits(group, {.io_weight = 50});
        CHECK(group.read("io.weight") == "default 50\n");
        const resource_limits one{.io_device_weights = {{*disk, 7}}};
        const auto top = cgroup::open(root.hierarchy().mount().mount_point);
        bool is_switched = false;
        try {
            set_limits(group, one);
        } catch (const limit_refused& failure) {
            CHECK(failure.errno_value() == EOPNOTSUPP);
            CHECK(failure.remedy().find("io.cost.qos") != std::string::npos);
            top.write("io.cost.qos", name + " enable=1");  // as the remedy says
            is_switched = true;
            set_limits(group, one);
        }
        CHECK(group.read("io.weight") == "default 50\n" + name + " 7\n");
        set_limits(group, {.io_device_weights = {{*disk, {}}}});
        CHECK(group.read("io.weight") == "default 50\n");
        if (is_switched) top.write("io.cost.qos", name + " enable=0");
    }
    if (group.try_read("io.latency")) {
        set_limits(group, {.io_latencies = {{*disk, std::chrono::milliseconds(10)}}});
        CHECK(group.read("io.latency") == name + " target=10000\n");
        set_limits(group, {.io_latencies = {{*disk, std::chrono::milliseconds(0)}}});
        CHECK(group.read("io.latency").empty());
    }
}

TEST_CASE("a value that the kernel refuses leaves no group behind [vm]", "[vm]") {
    NEED(controllers::pids);
    auto root = kumiki_test::make_root();
    try {
        root.create("refused", {.pids = 32, .raw = {{"pids.max", "many"}}});
        FAIL("no error");
    } catch (const error& failure) {
        CHECK(failure.errno_value() == EINVAL);
        CHECK(failure.operation() == "write 'many' to");
        CHECK(failure.object() == root.group().path() + "/refused/pids.max");
        CHECK_FALSE(failure.remedy().empty());
    }
    CHECK_FALSE(kumiki_test::exists(root.group().path() + "/refused"));
}

TEST_CASE("forks beyond pids.max are refused and counted [vm]", "[vm]") {
    NEED(controllers::pids);
    auto root = kumiki_test::make_root();
    const auto group = root.create("pids", {.pids = 8});
    child forker(group, [](void*) {
        ::prctl(PR_SET_PDEATHSIG, SIGKILL);
        int made = 0;
        while (made < 100) {
            const pid_t pid = ::fork();
            if (pid < 0) break;
            if (pid == 0) child::wait_for_signal(nullptr);
            ++made;
        }
        ::_exit(errno == EAGAIN ? made : 100);
    });
    REQUIRE(forker.pid() > 0);
    CHECK(forker.wait().code == 7);
    const auto stats = read_stats(group);
    CHECK(stats.pids_max_hits == 1U);
    CHECK(*stats.pids_current <= 8);
}

TEST_CASE("a process over memory.max is killed and counted as an OOM kill [vm]", "[vm]") {
    NEED(controllers::memory);
    auto root = kumiki_test::make_root();
    const auto group = root.create("memory", {.memory = 16_MiB});
    if (group.try_read("memory.swap.max")) set_limits(group, resource_limits{.memory_swap = 0_B});
    child hog(group, [](void*) {
        ::prctl(PR_SET_PDEATHSIG, SIGKILL);
        constexpr std::size_t size = 64U << 20;
        void* memory =
            ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (memory == MAP_FAILED) ::_exit(2);
        for (std::size_t i = 0; i < size; i += 4096) static_cast<volatile char*>(memory)[i] = 1;
        ::_exit(1);
    });
    REQUIRE(hog.pid() > 0);
    CHECK(hog.wait().signal == SIGKILL);
    const auto stats = read_stats(group);
    REQUIRE(stats.memory_events);
    CHECK(stats.memory_events->oom_kill == 1);
    CHECK(stats.memory_events->max > 0);
    CHECK(stats.memory_current);
    if (stats.memory_peak) CHECK(stats.memory_peak->count <= (16U << 20));
}

TEST_CASE("a busy process is throttled to cpu.max [vm]", "[vm]") {
    NEED(controllers::cpu);
    auto root = kumiki_test::make_root();
    const auto group = root.create("cpu", {.cpu = cpus(0.2)});
    child busy(group, [](void*) {
        ::prctl(PR_SET_PDEATHSIG, SIGKILL);
        for (;;) {}
    });
    REQUIRE(busy.pid() > 0);
    CHECK(kumiki_test::eventually([&] {
        const auto stats = read_stats(group);
        return stats.cpu_throttled_periods.value_or(0) >= 3 && stats.cpu_throttled->count() > 0;
    }));
}
