#include <sched.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

#include <string>
#include <vector>

#include <kumiki/cgroup/levels.hpp>

#include "cgroup/fixture.hpp"
#include "support/catch.hpp"

using namespace kumiki;
using kumiki_test::child;

TEST_CASE("each level from the top to a group is told as its files show it") {
    NEED_GROUPS();
    auto root = kumiki_test::make_root();
    const auto group = root.create("deep");
    const auto below = cgroup::create(group, "below");
    const child inside(below);
    REQUIRE(inside.pid() > 0);
    const auto levels = cgroup_levels(root.hierarchy(), below.path());
    REQUIRE(levels.size() >= 4);
    CHECK(levels.front().path == root.hierarchy().mount().mount_point);
    CHECK(levels.front().is_root == !kumiki_test::exists(levels.front().path + "/cgroup.type"));
    CHECK(levels[levels.size() - 3].path == root.group().path());
    CHECK(levels.back().path == below.path());
    for (const cgroup_level& level : levels) {
        CAPTURE(level.path);
        const auto text = [&](const char* key) {
            return sys::read_file_at(AT_FDCWD, level.path + '/' + key);
        };
        CHECK(level.available == parse_controllers(text("cgroup.controllers")));
        CHECK(level.enabled == parse_controllers(text("cgroup.subtree_control")));
        CHECK(level.has_processes == !text("cgroup.procs").empty());
    }
    CHECK(levels.back().has_processes);
    CHECK_FALSE(levels[levels.size() - 2].has_processes);
    CHECK(levels[levels.size() - 2].is_populated);
    CHECK(root.levels().back().path == root.group().path());

    const auto domain = root.create("domain");
    const auto threads = cgroup::create(domain, "threads");
    make_threaded(threads);
    const child thread(domain);
    REQUIRE(thread.pid() > 0);
    attach_thread(threads, thread.pid());
    const auto again = cgroup_levels(root.hierarchy(), threads.path());
    CHECK(again.back().type == cgroup_type::threaded);
    CHECK(again.back().has_processes);
    CHECK(again[again.size() - 2].type == cgroup_type::domain_threaded);
}

TEST_CASE("the level at which a controller stops is found") {
    using enum controllers;
    const std::vector<cgroup_level> levels{
        {.path = "/", .available = memory | pids, .enabled = memory},
        {.path = "/a", .available = memory, .enabled = none},
        {.path = "/a/b", .available = none, .enabled = none}};
    CHECK(first_lacking(levels, io) == &levels[0]);
    CHECK(first_lacking(levels, pids) == &levels[0]);
    CHECK(first_lacking(levels, memory) == &levels[1]);
    CHECK(first_lacking(levels, none) == nullptr);
    CHECK(first_lacking({levels[0], levels[1]}, memory) == nullptr);
    CHECK(first_lacking({}, memory) == nullptr);
}

TEST_CASE("levels of what is no group below the mount are refused") {
    NEED_GROUPS();
    auto root = kumiki_test::make_root();
    const auto& hierarchy = root.hierarchy();
    const std::string top = hierarchy.mount().mount_point;
    CHECK_THROWS_AS(cgroup_levels(hierarchy, "/proc"), invalid_input);
    CHECK_THROWS_AS(cgroup_levels(hierarchy, top + "x"), invalid_input);
    CHECK_THROWS_AS(cgroup_levels(hierarchy, top + "/.."), invalid_input);
    CHECK_THROWS_AS(cgroup_levels(hierarchy, root.group().path() + "/never"), cgroup_gone);
    CHECK(cgroup_levels(hierarchy, top + "/").size() == 1);
}

TEST_CASE("inside a cgroup namespace the levels begin at its root") {
    NEED_GROUPS();
    if (::geteuid() != 0) KUMIKI_SKIP("namespaces take root");
    auto root = kumiki_test::make_root();
    const auto group = root.create("inner");
    child process(group, [](void*) {
        ::prctl(PR_SET_PDEATHSIG, SIGKILL);
        int wrong = 0;
        const auto check = [&](bool good, int bit) { wrong |= good ? 0 : bit; };
        try {
            if (::unshare(CLONE_NEWCGROUP | CLONE_NEWNS) != 0 ||
                ::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0)
                ::_exit(64);
            // The mount is from outside of the namespace: where this process is in it is not told.
            const auto outside = cgroup_hierarchy::find();
            check(outside.in_namespace && !outside.own_directory(), 1);
            try {
                cgroup_levels(outside);
                wrong |= 2;
            } catch (const unsupported&) {
                // As it should be.
            }
            ::umount2("/sys/fs/cgroup", MNT_DETACH);
            if (::mount("none", "/sys/fs/cgroup", "cgroup2", 0, nullptr) != 0) ::_exit(65);
            const auto found = cgroup_hierarchy::find();
            check(found.in_namespace && found.is_subtree(), 4);
            check(found.own_path == "/" && found.own_directory() == "/sys/fs/cgroup", 8);
            const auto levels = cgroup_levels(found);
            check(levels.size() == 1 && !levels.front().is_root && levels.front().has_processes,
                  16);
        } catch (const error&) {
            ::_exit(66);
        }
        ::_exit(wrong);
    });
    REQUIRE(process.pid() > 0);
    CHECK(process.wait().code == 0);
    CHECK_FALSE(root.hierarchy().in_namespace);
}
