#include <string>
#include <vector>

#include <kumiki/cgroup/clipped.hpp>
#include <kumiki/cgroup/limits.hpp>

#include "cgroup/fixture.hpp"
#include "support/catch.hpp"

using namespace kumiki;
using namespace kumiki::literals;
using clipped_list = std::vector<clipped_limit>;

TEST_CASE("what is in force is told apart from what was asked for") {
    using detail::is_in_force;
    CHECK(is_in_force({"memory.max", "4096"}, "4096"));
    CHECK_FALSE(is_in_force({"memory.max", "5000"}, "4096"));
    CHECK(is_in_force({"io.weight", "50"}, "default 50"));
    CHECK(is_in_force({"io.max", "8:0 rbps=1 wbps=max"}, "8:0 rbps=1 wbps=max riops=9 wiops=max"));
    CHECK_FALSE(is_in_force({"io.max", "8:0 rbps=1"}, "8:0 rbps=2 wbps=max riops=9 wiops=max"));
    CHECK(is_in_force({"cpuset.cpus", "0,1,2,5"}, "0-2,5"));
    CHECK_FALSE(is_in_force({"cpuset.cpus", "0-3"}, "0-2"));
    CHECK_FALSE(is_in_force({"cpuset.cpus", "0-3"}, ""));
    CHECK(is_in_force({"memory.max", "64M"}, "67108864"));
    CHECK_FALSE(is_in_force({"memory.max", "64M"}, "max"));
    CHECK(is_in_force({"cpu.max", "50000"}, "50000 20000"));
    CHECK_FALSE(is_in_force({"cpu.max", "50000"}, "60000 20000"));
    CHECK(is_in_force({"cpuset.cpus.partition", "root"}, "root"));
    CHECK_FALSE(is_in_force({"cpuset.cpus.partition", "root"}, "member"));
    CHECK_FALSE(is_in_force({"cpuset.cpus.partition", "root"}, "root invalid (why)"));
    CHECK(is_in_force({"cpu.weight.nice", "-5"}, "-5"));
    CHECK_FALSE(is_in_force({"cpu.weight.nice", "-5"}, "5"));
    CHECK(is_in_force({"io.weight", "8:0 7"}, "8:0 7"));
    CHECK_FALSE(is_in_force({"io.weight", "8:0 7"}, "8:0 default"));
    CHECK(is_in_force({"rdma.max", "mlx5_0 hca_handle=2"}, "mlx5_0 hca_handle=2 hca_object=9"));
    CHECK_FALSE(is_in_force({"misc.max", "res_a 1"}, "res_a 11"));
}

TEST_CASE("a group above that allows less is named with what it allows [vm]", "[vm]") {
    NEED(controllers::memory | controllers::cpu | controllers::pids);
    auto root = kumiki_test::make_root();
    const auto above = root.create("above", {.memory = 32_MiB, .cpu = cpus(0.5), .pids = 10});
    auto below = cgroup_root::open_below(above.path(), "below");
    clipped_list told;
    const auto group =
        below.create("inner", {.memory = 64_MiB, .cpu = cpus(0.6), .pids = 10}, told);
    CHECK(group.read("memory.max") == "67108864\n");  // the file itself keeps silent
    CHECK(told == clipped_list{{"memory.max", "67108864", "33554432", above.path()},
                               {"cpu.max", "60000 100000", "50000 100000", above.path()}});
    // What is not protected above is not protected below: nothing of it is in force.
    const auto low = settings_of({.memory_low = 1_MiB});
    write_settings(group, low);
    CHECK(clipped_limits(group, low) ==
          clipped_list{{"memory.low", "1048576", "0", below.group().path()}});
}

TEST_CASE("a limit that was rounded is told when the group is made [vm]", "[vm]") {
    NEED(controllers::memory);
    auto root = kumiki_test::make_root();
    clipped_list told{{"stale", "", ""}};
    const auto group = root.create("rounded", {.memory = bytes{(32U << 20) + 100}}, told);
    CHECK(told == clipped_list{{"memory.max", "33554532", "33554432"}});
    const auto other = root.create("exact", {.memory = 32_MiB}, told);
    CHECK(told.empty());
}

TEST_CASE("a partition that the kernel cannot make is told with its reason [vm]", "[vm]") {
    NEED(controllers::cpuset);
    auto root = kumiki_test::make_root();
    // The group above is no partition.
    clipped_list told;
    const auto group =
        root.create("partition", {.cpuset_cpus = "0", .cpuset_kind = cpuset_partition::root}, told);
    const auto shown = group.read("cpuset.cpus.partition");
    CHECK(shown.starts_with("root invalid"));
    REQUIRE(told.size() == 1);
    CHECK(told.front().key == "cpuset.cpus.partition");
    CHECK(told.front().asked == "root");
    CHECK(told.front().in_force + '\n' == shown);
    CHECK(told.front().in_force.find('(') != std::string::npos);
    set_limits(group, {.cpuset_kind = cpuset_partition::member});
    CHECK(clipped_limits(group, {{"cpuset.cpus.partition", "member"}}).empty());
}

TEST_CASE("processors that are not there are told [vm]", "[vm]") {
    NEED(controllers::cpuset);
    auto root = kumiki_test::make_root();
    const auto there =
        trim(cgroup::open(root.hierarchy().mount().mount_point).read("cpuset.cpus.effective"));
    clipped_list told;
    const auto wanted = std::string(there) + ",4000";
    try {
        const auto group = root.create("processors", {.cpuset_cpus = wanted}, told);
        CHECK(told == clipped_list{{"cpuset.cpus", wanted, std::string(there)}});
    } catch (const limit_refused& refused) {
        // A kernel that is built for fewer than that says so at once.
        CHECK(refused.key() == "cpuset.cpus");
        CHECK_FALSE(kumiki_test::exists(root.group().path() + "/processors"));
    }
}
