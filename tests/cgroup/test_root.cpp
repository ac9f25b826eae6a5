#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <optional>
#include <string>

#include <kumiki/cgroup/root.hpp>
#include <kumiki/core/scope_exit.hpp>

#include "cgroup/any_controller.hpp"
#include "cgroup/fixture.hpp"
#include "support/catch.hpp"

using namespace kumiki;
using namespace kumiki::literals;
using kumiki_test::any_controller;
using kumiki_test::child;
using kumiki_test::exists;

TEST_CASE("the group of one's groups goes with the last that uses it") {
    NEED_GROUPS();
    std::string path;
    {
        auto one = kumiki_test::make_root();
        path = one.group().path();
        std::optional<cgroup_root> two(kumiki_test::make_root());
        CHECK(one.group().id() == two->group().id());
        const auto group = one.create("a");
        two.reset();
        CHECK(exists(group.path()));
    }
    CHECK_FALSE(exists(path));
}

TEST_CASE("the group of one's groups is made again when another program removed it") {
    NEED_GROUPS();
    auto one = kumiki_test::make_root();
    const auto id = one.group().id();
    { const auto two = kumiki_test::make_root(); }
    REQUIRE_FALSE(exists(one.group().path()));
    const auto group = one.create("a");
    CHECK(exists(group.path()));
    CHECK(one.group().id() != id);
}

TEST_CASE("programs that come and go at once do not trip over each other") {
    NEED_GROUPS();
    const auto keep = kumiki_test::make_root();  // starts the guard before the forks
    const auto shared = kumiki_test::group_name() + "-shared";
    constexpr int programs = 4;
    pid_t pids[programs];
    for (int i = 0; i < programs; ++i) {
        pids[i] = ::fork();
        REQUIRE(pids[i] >= 0);
        if (pids[i] != 0) continue;
        int status = 1;
        try {
            for (int round = 0; round < 100; ++round) {
                auto root = cgroup_root::open(shared);
                const auto group = root.create("p" + std::to_string(i));
                if (!exists(group.path())) throw error(0, {.operation = "find"});
            }
            status = 0;
        } catch (const error&) {
            status = 2;
        }
        ::_exit(status);
    }
    for (const pid_t pid : pids) {
        int status = 0;
        REQUIRE(::waitpid(pid, &status, 0) == pid);
        CHECK(WEXITSTATUS(status) == 0);
    }
    CHECK_FALSE(exists(keep.group().path() + "-shared"));
}

TEST_CASE("a controller is enabled down to the groups, and looked up once") {
    NEED_GROUPS();
    const any_controller some;
    if (!some) KUMIKI_SKIP("cgroup v2 has no controller here");
    auto root = kumiki_test::make_root();
    root.require((*some).which);
    CHECK(has(root.group().enabled(), (*some).which));
    const auto group = root.create("a");
    CHECK(has(group.available(), (*some).which));
    CHECK(group.enabled() == controllers::none);
}

TEST_CASE("a missing controller is told with the group that lacks it, and nothing is made") {
    NEED_GROUPS();
    auto root = kumiki_test::make_root();
    controllers lacking = controllers::none;
    for_each_controller(~root.available(), [&](const auto& info) { lacking |= info.which; });
    if (lacking == controllers::none) KUMIKI_SKIP("cgroup v2 has every controller here");
    std::string key;
    for_each_controller(lacking, [&](const auto& info) { key = std::string(info.name) + ".max"; });
    try {
        root.create("lacking", {.raw = {{key, "1"}}});
        FAIL("no error");
    } catch (const unsupported& failure) {
        CHECK(failure.object() == root.hierarchy().mount().mount_point);
        CHECK(failure.operation().find(key.substr(0, key.find('.'))) != std::string::npos);
        CHECK_FALSE(failure.remedy().empty());
    }
    CHECK_FALSE(exists(root.group().path() + "/lacking"));
}

TEST_CASE("a group on the way that does not hand a controller on is named") {
    NEED_GROUPS();
    const any_controller some;
    if (!some) KUMIKI_SKIP("cgroup v2 has no controller here");
    auto root = kumiki_test::make_root();
    const auto middle = root.create("middle");
    auto below = cgroup_root::open_below(middle.path(), "below");
    const auto attempt = [&] {
        try {
            below.require((*some).which);
        } catch (const unsupported& failure) {
            CHECK(failure.remedy().find("cgroup.subtree_control") != std::string::npos);
            return failure.object();
        }
        return std::string();
    };
    if (!some.was_enabled()) CHECK(attempt() == some.top());
    root.require((*some).which);  // the root gives it, "middle" gets it and may give it
    CHECK(attempt().empty());
    CHECK(has(below.group().enabled(), (*some).which));
}

TEST_CASE("a group with processes of its own cannot hand controllers on, and is left as it is") {
    NEED_GROUPS();
    const any_controller some;
    if (!some) KUMIKI_SKIP("cgroup v2 has no controller here");
    auto root = kumiki_test::make_root();
    root.require((*some).which);
    const auto service = root.create("service");
    const child foreign(service);
    REQUIRE(foreign.pid() > 0);
    auto below = cgroup_root::open_below(service.path(), "below");
    { const auto without = below.create("needs-nothing"); }
    try {
        below.require((*some).which);
        FAIL("no error");
    } catch (const error& failure) {
        CHECK(failure.errno_value() == EBUSY);
        CHECK(failure.object() == service.path() + "/cgroup.subtree_control");
        CHECK(failure.remedy().find("does not move them") != std::string::npos);
    }
    CHECK(kumiki_test::group_of(foreign.pid()).ends_with("/service"));
    CHECK(service.read("cgroup.type") == "domain\n");
}

TEST_CASE("a user without a delegated group is told what it takes") {
    NEED_GROUPS();
    if (::geteuid() != 0) KUMIKI_SKIP("the test gives up root itself");
    const pid_t user = ::fork();
    REQUIRE(user >= 0);
    if (user == 0) {
        int status = 1;
        if (::setresgid(1234, 1234, 1234) == 0 && ::setresuid(1234, 1234, 1234) == 0) {
            try {
                cgroup_root::open("kumiki-test-never");
            } catch (const unsupported& failure) {
                status = failure.remedy().find("delegated") != std::string::npos ? 0 : 2;
            }
        }
        ::_exit(status);
    }
    int status = 0;
    REQUIRE(::waitpid(user, &status, 0) == user);
    CHECK(WEXITSTATUS(status) == 0);
}

TEST_CASE("a group that was delegated to a user is enough for that user") {
    NEED_GROUPS();
    if (::geteuid() != 0) KUMIKI_SKIP("the test gives up root itself");
    auto root = kumiki_test::make_root();
    const auto given = root.create("given");
    for (const char* file : {".", "cgroup.procs", "cgroup.threads", "cgroup.subtree_control"})
        REQUIRE(::fchownat(given.fd(), file, 1234, 1234, 0) == 0);
    const pid_t user = ::fork();
    REQUIRE(user >= 0);
    if (user == 0) {
        int status = 1;
        if (::setresgid(1234, 1234, 1234) == 0 && ::setresuid(1234, 1234, 1234) == 0) {
            try {
                auto own = cgroup_root::open_below(given.path(), "mine");
                const auto group = own.create("box");
                status = exists(group.path()) ? 0 : 2;
            } catch (const error&) {
                status = 3;
            }
        }
        ::_exit(status);
    }
    int status = 0;
    REQUIRE(::waitpid(user, &status, 0) == user);
    CHECK(WEXITSTATUS(status) == 0);
    CHECK_FALSE(exists(given.path() + "/mine"));
}
