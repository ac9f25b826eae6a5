// What a caller, or somebody else on the host, can do wrong about limits: each is an error of a type
// of its own, and no group is left over.
#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

#include <string>
#include <vector>

#include <kumiki/cgroup/device_filter.hpp>
#include <kumiki/cgroup/limits.hpp>
#include <kumiki/cgroup/root.hpp>
#include <kumiki/cgroup/update.hpp>

#include "cgroup/any_controller.hpp"
#include "cgroup/fixture.hpp"
#include "support/catch.hpp"

using namespace kumiki;
using namespace kumiki::literals;
using kumiki_test::any_controller;
using kumiki_test::child;
using kumiki_test::exists;

namespace {

std::vector<std::string> groups_in(const cgroup_root& root) {
    return detail::child_groups(root.group().fd());
}

/// Runs `work` in a process of its own; true when that returned true.
template <class Work>
bool elsewhere(Work work) {
    const pid_t other = ::fork();
    if (other == 0) {
        try {
            ::_exit(work() ? 0 : 1);
        } catch (const std::exception& failure) {
            ::dprintf(2, "%s\n", failure.what());
            ::_exit(2);
        }
    }
    int status = -1;
    return ::waitpid(other, &status, 0) == other && status == 0;
}

}  // namespace

TEST_CASE("a limit on a missing controller names it, the group that lacks it, and the remedy") {
    NEED_GROUPS();
    auto root = kumiki_test::make_root();
    controllers lacking = controllers::none;
    for_each_controller(~root.available(), [&](const auto& info) { lacking |= info.which; });
    if (lacking == controllers::none) KUMIKI_SKIP("cgroup v2 has every controller here");
    for_each_controller(lacking, [&](const controller_info& info) {
        const std::string name(info.name);
        CAPTURE(name);
        try {
            root.create("a", {.raw = {{name + ".max", "1"}}});
            FAIL("no error");
        } catch (const controller_missing& failure) {
            CHECK(failure.which() == info.which);
            CHECK(failure.operation().find('(' + name + ')') != std::string::npos);
            CHECK(failure.object() == root.hierarchy().mount().mount_point);
            const bool is_v1 = root.hierarchy().v1_mount_of(info.v1_name).has_value();
            CHECK(failure.remedy().find(is_v1 ? "cgroup_no_v1=all" : "Not offered here") !=
                  std::string::npos);
        }
        CHECK(groups_in(root).empty());
    });
}

TEST_CASE("values that no group could have are refused before a group is made") {
    NEED_GROUPS();
    auto root = kumiki_test::make_root();
    for (const resource_limits& limits : {resource_limits{.memory = 1_B},
                                          {.cpu_weight = 0},
                                          {.cpu_nice = 20},
                                          {.cpuset_cpus = "0-"},
                                          {.io_weight = 10001},
                                          {.hugetlb = {{3_MiB, 0_B}}},
                                          {.pids = 0},
                                          {.raw = {{"cgroup.procs", "1"}}}}) {
        CHECK_THROWS_AS(root.create("a", limits), invalid_input);
        CHECK_THROWS_AS(set_limits(root.group(), limits), invalid_input);
        CHECK(groups_in(root).empty());
    }
}

TEST_CASE("values that the kernel refuses are told with key and value, and no group is left") {
    NEED_GROUPS();
    auto root = kumiki_test::make_root();
    for (const char* value : {"many", "-1", "99999999999999999999"}) {
        CAPTURE(value);
        try {
            root.create("a", {.raw = {{"cgroup.max.depth", "5"}, {"cgroup.max.depth", value}}});
            FAIL("no error");
        } catch (const limit_refused& failure) {
            CHECK((failure.errno_value() == EINVAL || failure.errno_value() == ERANGE));
            CHECK(failure.key() == "cgroup.max.depth");
            CHECK(failure.value() == value);
            CHECK(failure.object() == root.group().path() + "/a/cgroup.max.depth");
        }
        CHECK(groups_in(root).empty());
    }
}

TEST_CASE("values out of the kernel's range are told, and no group is left [vm]", "[vm]") {
    NEED(controllers::pids | controllers::memory | controllers::cpu);
    auto root = kumiki_test::make_root();
    for (const cgroup_setting& setting : {cgroup_setting{"pids.max", "4194305"},
                                          {"pids.max", "-1"},
                                          {"memory.max", "x"},
                                          {"memory.oom.group", "2"},
                                          {"cpu.max", "999 100000"},
                                          {"cpu.max", "1000 2000000"},
                                          {"cpu.weight", "10001"},
                                          {"cpu.weight.nice", "20"}}) {
        CAPTURE(setting.key, setting.value);
        try {
            root.create("a", {.memory = 64_MiB, .pids = 9, .raw = {setting}});
            FAIL("no error");
        } catch (const limit_refused& failure) {
            CHECK(failure.key() == setting.key);
            CHECK(failure.value() == setting.value);
            CHECK((failure.errno_value() == EINVAL || failure.errno_value() == ERANGE));
        }
        CHECK(groups_in(root).empty());
    }
}

TEST_CASE("fewer processes than there are is taken: none is killed, and none comes [vm]", "[vm]") {
    NEED(controllers::pids);
    auto root = kumiki_test::make_root();
    const auto group = root.create("a", {.pids = 9});
    const child one(group);
    const child two(group);
    REQUIRE(two.pid() > 0);
    CHECK(update_limits(group, {.pids = 1}).empty());
    CHECK(group.procs().size() == 2);
    const child three(group);
    CHECK(three.pid() == -EAGAIN);
}

TEST_CASE("a limit of an unknown device is told with the remedy, and no group is left [vm]",
          "[vm]") {
    NEED(controllers::io);
    auto root = kumiki_test::make_root();
    const auto refused = [&](const resource_limits& limits, const char* key) {
        try {
            root.create("a", limits);
            FAIL("no error");
        } catch (const limit_refused& failure) {
            CHECK(failure.errno_value() == ENODEV);
            CHECK(failure.key() == key);
            CHECK(failure.remedy().find("device_number::behind()") != std::string::npos);
        }
        CHECK(groups_in(root).empty());
    };
    refused({.io = {{.device = {4095, 7}, .read = 1_MiB}}}, "io.max");
    const auto there = cgroup::create(root.group(), "b");
    const bool has_latency = there.try_read("io.latency").has_value();
    REQUIRE(::rmdir(there.path().c_str()) == 0);
    if (has_latency)
        refused({.io_latencies = {{{4095, 7}, std::chrono::milliseconds(1)}}}, "io.latency");
}

TEST_CASE("a limit of an unknown resource is told with the remedy, and no group is left [vm]",
          "[vm]") {
    NEED(controllers::misc | controllers::rdma | controllers::hugetlb);
    auto root = kumiki_test::make_root();
    const auto refused = [&](const resource_limits& limits, const char* key, const char* told) {
        CAPTURE(key);
        try {
            root.create("a", limits);
            FAIL("no error");
        } catch (const limit_refused& failure) {
            CHECK(failure.key() == key);
            CHECK(failure.remedy().find(told) != std::string::npos);
        }
        CHECK(groups_in(root).empty());
    };
    refused({.misc = {{"nothing", 1}}}, "misc.max", "'capacity'");
    refused({.rdma = {{.device = "nothing0", .handles = 1}}}, "rdma.max", "/sys/class/infiniband");
    // A size that the processor does not have is no file at all.
    CHECK_THROWS_AS(root.create("a", {.hugetlb = {{64_KiB, 1_MiB}}}), unsupported);
    CHECK(groups_in(root).empty());
}

TEST_CASE("a group that has vanished is told as that by everything that needs it") {
    NEED_GROUPS();
    auto root = kumiki_test::make_root();
    auto group = root.create("a");
    REQUIRE(::rmdir(group.path().c_str()) == 0);
    const resource_limits limits{.raw = {{"cgroup.max.depth", "5"}}};
    CHECK_THROWS_AS(set_limits(group, limits), cgroup_gone);
    CHECK_THROWS_AS(update_limits(group, limits), cgroup_gone);
    CHECK_THROWS_AS(set_limits(group, {.memory = 64_MiB}), cgroup_gone);
    CHECK_THROWS_AS(update_limits(group, {.memory = 64_MiB}), cgroup_gone);
    CHECK_THROWS_AS(cgroup::create(group, "b"), cgroup_gone);
    CHECK_THROWS_AS(group.attach(::getpid()), cgroup_gone);
    CHECK_THROWS_AS(group.freeze(), cgroup_gone);
    CHECK(clipped_limits(group, {{"pids.max", "5"}}) ==
          std::vector<clipped_limit>{{"pids.max", "5", ""}});
    // Another one of the same name is another group.
    const auto other = root.create("a");
    CHECK_THROWS_AS(set_limits(group, limits), cgroup_gone);
    CHECK(other.read("cgroup.max.depth") == "max\n");
}

TEST_CASE("a foreign group is left as it is, and the error says what it takes") {
    NEED_GROUPS();
    if (::geteuid() != 0) KUMIKI_SKIP("the test gives up root itself");
    auto root = kumiki_test::make_root();
    const auto foreign = root.create("foreign");
    const child inside(foreign);
    REQUIRE(inside.pid() > 0);
    CHECK(elsewhere([&] {
        if (::setresgid(1234, 1234, 1234) != 0 || ::setresuid(1234, 1234, 1234) != 0) return false;
        const auto refused = [](auto work) {
            try {
                work();
            } catch (const error& failure) {
                return (failure.errno_value() == EACCES || failure.errno_value() == EPERM) &&
                       !failure.remedy().empty();
            }
            return false;
        };
        const auto group = cgroup::open(foreign.path());
        return refused([&] { set_limits(group, {.raw = {{"cgroup.max.depth", "1"}}}); }) &&
               refused([&] { update_limits(group, {.raw = {{"cgroup.max.depth", "1"}}}); }) &&
               refused([&] { cgroup::create(group, "mine"); }) &&
               refused([&] { group.attach(::getpid()); }) && refused([&] { group.freeze(); }) &&
               refused([&] { group.kill(); }) &&
               refused([&] { cgroup_root::open_below(foreign.path(), "mine"); });
    }));
    CHECK(foreign.read("cgroup.max.depth") == "max\n");
    CHECK(foreign.procs() == std::vector{inside.pid()});
    CHECK(detail::child_groups(foreign.fd()).empty());
    CHECK_THROWS_AS(cgroup::open("/proc"), invalid_input);
}

TEST_CASE("a hierarchy that is mounted read-only is told as that by everything that writes") {
    NEED_GROUPS();
    if (::geteuid() != 0) KUMIKI_SKIP("mounting takes root");
    auto root = kumiki_test::make_root();
    const auto group = root.create("a");
    const auto mount = root.hierarchy().mount().mount_point;
    CHECK(elsewhere([&] {
        if (::unshare(CLONE_NEWNS) != 0 ||
            ::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0 ||
            ::mount(mount.c_str(), mount.c_str(), nullptr, MS_BIND, nullptr) != 0 ||
            ::mount(nullptr, mount.c_str(), nullptr, MS_REMOUNT | MS_BIND | MS_RDONLY, nullptr) !=
                0)
            return false;
        const auto refused = [](auto work) {
            try {
                work();
            } catch (const error& failure) {
                return failure.errno_value() == EROFS &&
                       failure.remedy().find("read-only") != std::string::npos;
            }
            return false;
        };
        const auto here = cgroup::open(group.path());
        bool told = false;
        try {
            cgroup_root::open("kumiki-test-never");
        } catch (const unsupported& failure) {
            told = failure.remedy().find("read-only") != std::string::npos;
        }
        return told && refused([&] { set_limits(here, {.raw = {{"cgroup.max.depth", "1"}}}); }) &&
               refused([&] { update_limits(here, {.raw = {{"cgroup.max.depth", "1"}}}); }) &&
               refused([&] { cgroup::create(here, "b"); }) && refused([&] { here.freeze(); }) &&
               refused([&] { here.attach(::getpid()); }) &&
               refused([&] { cgroup_root::open_below(here.path(), "b"); });
    }));
    CHECK(group.read("cgroup.max.depth") == "max\n");
    CHECK(detail::child_groups(group.fd()).empty());
    CHECK_FALSE(exists(mount + "/kumiki-test-never"));
}

TEST_CASE("too many groups, or too deep ones, are told, and none is left") {
    NEED_GROUPS();
    auto root = kumiki_test::make_root();
    const auto key = GENERATE(as<std::string>(), "cgroup.max.descendants", "cgroup.max.depth");
    const auto full = root.create("full", {.raw = {{key, "1"}}});
    auto below = cgroup_root::open_below(full.path(), "below");
    try {
        below.create("a");
        FAIL("no error");
    } catch (const error& failure) {
        CHECK(failure.errno_value() == EAGAIN);
        CHECK(failure.object() == below.group().path() + "/a");
        CHECK(failure.remedy().find(key) != std::string::npos);
    }
    CHECK(groups_in(below).empty());
    full.write(key, "2");
    CHECK_NOTHROW(below.create("a"));
}

TEST_CASE("a group with no room for one more BPF program is told, and nothing is attached") {
    NEED_GROUPS();
    auto root = kumiki_test::make_root();
    const auto group = root.create("full");
    const auto directory = sys::open_at(group.fd(), ".", O_RDONLY | O_DIRECTORY);
    const auto attach_foreign = [&] {
        const auto program = sys::load_ebpf(BPF_PROG_TYPE_CGROUP_DEVICE, BPF_CGROUP_DEVICE,
                                            "foreign", device_list::allow_all().compile());
        sys::attach_ebpf(directory.get(), program.get(), BPF_CGROUP_DEVICE);
    };
    try {
        attach_foreign();
    } catch (const error& failure) {
        KUMIKI_SKIP(std::string("no BPF here: ") + failure.what());
    }
    for (int i = 1; i < 64; ++i) attach_foreign();
    try {
        set_devices(group, device_list::allow_all());
        FAIL("no error");
    } catch (const error& failure) {
        CHECK((failure.errno_value() == E2BIG || failure.errno_value() == ENOSPC));
        CHECK(failure.object() == group.path());
        CHECK(failure.remedy().find("64 programs") != std::string::npos);
    }
    CHECK_FALSE(has_devices(group));
    CHECK(sys::attached_ebpf(directory.get(), BPF_CGROUP_DEVICE).size() == 64);
}

TEST_CASE("a controller that somebody disabled while it is in use is told") {
    NEED_GROUPS();
    const any_controller some;
    if (!some) KUMIKI_SKIP("cgroup v2 has no controller here");
    const auto which = (*some).which;
    const std::string name((*some).name);
    auto root = kumiki_test::make_root();
    root.require(which);
    const auto group = root.create("a");
    REQUIRE(has(group.available(), which));
    root.group().write("cgroup.subtree_control", "-" + name);
    const auto told = [&](auto work) {
        try {
            work();
            FAIL("no error");
        } catch (const controller_missing& failure) {
            CHECK(failure.errno_value() == ENOENT);
            CHECK(failure.which() == which);
            CHECK(failure.object() == root.group().path());
            CHECK(failure.remedy().find("+" + name + " to cgroup.subtree_control") !=
                  std::string::npos);
        }
    };
    const resource_limits limits{.raw = {{name + ".max", "1"}}};
    told([&] { update_limits(group, limits); });
    told([&] { set_limits(group, limits); });
    CHECK_FALSE(has(group.available(), which));
    // As the remedy says.
    root.group().write("cgroup.subtree_control", "+" + name);
    CHECK(has(group.available(), which));
}

TEST_CASE("limits come back after a controller was disabled while in use [vm]", "[vm]") {
    NEED(controllers::pids | controllers::memory);
    auto root = kumiki_test::make_root();
    const auto group = root.create("a", {.memory = 64_MiB, .pids = 9});
    root.group().write("cgroup.subtree_control", "-memory");
    try {
        update_limits(group, {.memory = 32_MiB, .pids = 5});
        FAIL("no error");
    } catch (const controller_missing& failure) {
        CHECK(failure.which() == controllers::memory);
        CHECK(failure.object() == root.group().path());
    }
    CHECK(group.read("pids.max") == "9\n");
    CHECK(clipped_limits(group, settings_of({.memory = 64_MiB})) ==
          std::vector<clipped_limit>{{"memory.max", "67108864", ""}});
    // Whoever makes the next group enables it again, and the first one's limits are set again.
    const auto next = root.create("b", {.memory = 16_MiB});
    CHECK(next.read("memory.max") == "16777216\n");
    CHECK(group.read("memory.max") == "max\n");
    CHECK(update_limits(group, {.memory = 32_MiB}).empty());
    CHECK(group.read("memory.max") == "33554432\n");
}
