#include <sched.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include <kumiki/cgroup/delegate.hpp>
#include <kumiki/cgroup/own_leaf.hpp>
#include <kumiki/cgroup/root.hpp>

#include "cgroup/any_controller.hpp"
#include "cgroup/fixture.hpp"
#include "support/catch.hpp"

using namespace kumiki;
using kumiki_test::any_controller;
using kumiki_test::child;
using kumiki_test::exists;
using kumiki_test::group_of;

namespace {

/// A group as a service manager delegates it, with a program in it.
struct service {
    std::string path{};
    controllers wanted = controllers::none;
    pid_t foreign = 0;
    uid_t user = 0;
    int start = -1;  ///< an eventfd
    /// What the program does there; true when all went as it should.
    bool (*work)(const service&) = nullptr;

    int run(const cgroup& group) {
        child program(
            group,
            [](void* given) {
                ::prctl(PR_SET_PDEATHSIG, SIGKILL);
                const auto& self = *static_cast<const service*>(given);
                if (self.user != 0 && (::setresgid(self.user, self.user, self.user) != 0 ||
                                       ::setresuid(self.user, self.user, self.user) != 0))
                    ::_exit(3);
                try {
                    ::_exit(self.work(self) ? 0 : 1);
                } catch (const std::exception& failure) {
                    ::dprintf(2, "%s\n", failure.what());
                    ::_exit(2);
                }
            },
            this);
        return program.pid() > 0 ? program.wait().code : -1;
    }
};

#define REQUIRE_HERE(condition)                                                                    \
    if (!(condition)) {                                                                            \
        ::dprintf(2, "line %d: %s\n", __LINE__, #condition);                                       \
        return false;                                                                              \
    }

std::string own_group() { return group_of(::getpid()); }

}  // namespace

TEST_CASE("a program in the group that was delegated to it makes room for its own groups") {
    NEED_GROUPS();
    const any_controller some;
    if (!some) KUMIKI_SKIP("cgroup v2 has no controller here");
    auto root = kumiki_test::make_root();
    root.require((*some).which);
    const auto group = root.create("service");
    service program{.path = group.path(), .wanted = (*some).which};
    program.work = [](const service& self) {
        const auto before = own_group();
        auto fixed = cgroup_root::open_below(self.path, "fixed");
        try {
            fixed.require(self.wanted);
            return false;
        } catch (const processes_in_group& failure) {
            REQUIRE_HERE(failure.processes() == std::vector{::getpid()});
            REQUIRE_HERE(failure.remedy().find("moves_to_leaf") != std::string::npos);
            REQUIRE_HERE(failure.remedy().find("Foreign") == std::string::npos);
        }
        REQUIRE_HERE(own_group() == before);
        { const cgroup_root ended(std::move(fixed)); }

        std::optional<cgroup_root> own;
        // A thread that is there before moves along.
        std::atomic<pid_t> thread = 0;
        std::atomic<bool> stop = false;
        std::jthread other([&] {
            thread = static_cast<pid_t>(::syscall(SYS_gettid));
            while (!stop) ::usleep(1000);
        });
        while (thread == 0) ::usleep(100);
        own.emplace(cgroup_root::open_below(self.path, "box", own_process::moves_to_leaf));
        const auto leaf = "/box-leaf-" + std::to_string(::getpid());
        REQUIRE_HERE(own_group() == before + leaf);
        REQUIRE_HERE(group_of(thread) == before + leaf);
        REQUIRE_HERE(own->hierarchy().own_path == before + leaf);
        own->require(self.wanted);
        {
            const auto made = own->create("a");
            REQUIRE_HERE(has(made.available(), self.wanted));
            const child inside(made);
            REQUIRE_HERE(group_of(inside.pid()) == before + "/box/a");
        }
        own.reset();
        stop = true;
        // Back where it was, and nothing left.
        REQUIRE_HERE(own_group() == before);
        REQUIRE_HERE(!exists(self.path + leaf));
        REQUIRE_HERE(!exists(self.path + "/box"));
        return sys::read_file_at(AT_FDCWD, self.path + "/cgroup.subtree_control") == "\n" ||
               sys::read_file_at(AT_FDCWD, self.path + "/cgroup.subtree_control").empty();
    };
    CHECK(program.run(group) == 0);
    CHECK(detail::child_groups(group.fd()).empty());
}

TEST_CASE("foreign processes beside the program are named and not moved") {
    NEED_GROUPS();
    const any_controller some;
    if (!some) KUMIKI_SKIP("cgroup v2 has no controller here");
    auto root = kumiki_test::make_root();
    root.require((*some).which);
    const auto group = root.create("service");
    const child foreign(group);
    REQUIRE(foreign.pid() > 0);
    service program{.path = group.path(), .wanted = (*some).which, .foreign = foreign.pid()};
    program.work = [](const service& self) {
        auto own = cgroup_root::open_below(self.path, "box", own_process::moves_to_leaf);
        try {
            own.create("a", {.raw = {{to_string(self.wanted) + ".max", "1"}}});
            return false;
        } catch (const processes_in_group& failure) {
            REQUIRE_HERE(failure.errno_value() == EBUSY);
            REQUIRE_HERE(failure.processes() == std::vector{self.foreign});
            REQUIRE_HERE(failure.object() == self.path + "/cgroup.subtree_control");
            const auto named = std::to_string(self.foreign) + " (";
            REQUIRE_HERE(failure.remedy().find(named) != std::string::npos);
            REQUIRE_HERE(failure.remedy().find("does not move them") != std::string::npos);
        }
        return !exists(self.path + "/box/a");
    };
    CHECK(program.run(group) == 0);
    CHECK(group.procs() == std::vector{foreign.pid()});
    CHECK(detail::child_groups(group.fd()).empty());
}

TEST_CASE("a leaf stays when somebody else depends on what the group hands on by then") {
    NEED_GROUPS();
    const any_controller some;
    if (!some) KUMIKI_SKIP("cgroup v2 has no controller here");
    auto root = kumiki_test::make_root();
    root.require((*some).which);
    const auto group = root.create("service");
    service program{.path = group.path(), .wanted = (*some).which};
    program.work = [](const service& self) {
        const auto before = own_group();
        {
            auto own = cgroup_root::open_below(self.path, "box", own_process::moves_to_leaf);
            own.require(self.wanted);
            REQUIRE_HERE(::mkdir((self.path + "/other").c_str(), 0755) == 0);
        }
        REQUIRE_HERE(own_group() == before + "/box-leaf-" + std::to_string(::getpid()));
        return has(cgroup::open(self.path).enabled(), self.wanted);
    };
    CHECK(program.run(group) == 0);
    CHECK(detail::child_groups(group.fd()).size() == 2);
    // The next program takes it away, as nobody is in it.
    program.work = [](const service& self) {
        const auto names = [&] { return detail::child_groups(cgroup::open(self.path).fd()); };
        const auto leaf = "box-leaf-" + std::to_string(::getpid());
        const auto all = names();
        REQUIRE_HERE(all.size() == 2);
        // It is in the group itself only because it was born there before controllers were given.
        const own_leaf own(cgroup::open(self.path), "box");
        const auto now = names();
        REQUIRE_HERE(now.size() == 2);
        return std::find(now.begin(), now.end(), leaf) != now.end();
    };
    group.write("cgroup.subtree_control", "-" + std::string((*some).name));
    CHECK(program.run(group) == 0);
}

TEST_CASE("programs that come and go in one delegated group make room for each other") {
    NEED_GROUPS();
    const any_controller some;
    if (!some) KUMIKI_SKIP("cgroup v2 has no controller here");
    auto root = kumiki_test::make_root();
    root.require((*some).which);
    const auto group = root.create("service");
    const unique_fd start(::eventfd(0, EFD_CLOEXEC | EFD_SEMAPHORE));
    service program{.path = group.path(), .wanted = (*some).which, .start = start.get()};
    program.work = [](const service& self) {
        const auto before = own_group();
        for (int round = 0; round < 20; ++round) {
            auto own = cgroup_root::open_below(self.path, "box", own_process::moves_to_leaf);
            // Until the others have moved, too.
            REQUIRE_HERE(kumiki_test::eventually([&] {
                try {
                    own.require(self.wanted);
                    const auto made = own.create("p" + std::to_string(::getpid()));
                    return own_group().starts_with(before + "/box-leaf-");
                } catch (const processes_in_group&) {
                    return false;
                } catch (const controller_missing& failure) {
                    if (failure.errno_value() == 0) throw;
                    return false;
                } catch (const cgroup_gone&) {
                    return false;
                }
            }));
        }
        return true;
    };
    {
        const auto entry = [](void* given) {
            auto& self = *static_cast<service*>(given);
            ::prctl(PR_SET_PDEATHSIG, SIGKILL);
            eventfd_t turn = 0;
            ::eventfd_read(self.start,
                           &turn);  // nobody is born in a group that hands controllers on
            try {
                ::_exit(self.work(self) ? 0 : 1);
            } catch (const std::exception& failure) {
                ::dprintf(2, "%s\n", failure.what());
                ::_exit(2);
            }
        };
        child one(group, entry, &program);
        child two(group, entry, &program);
        child three(group, entry, &program);
        REQUIRE(three.pid() > 0);
        REQUIRE(::eventfd_write(start.get(), 3) == 0);
        CHECK(one.wait().code == 0);
        CHECK(two.wait().code == 0);
        CHECK(three.wait().code == 0);
    }
    // What they could not remove, as they were in it, the next one does.
    program.work = [](const service& self) {
        { const own_leaf next(cgroup::open(self.path), "box"); }
        return true;
    };
    for (const auto& name : detail::child_groups(group.fd())) {
        CAPTURE(name);
        CHECK(name.starts_with("box-leaf-"));
    }
    if (group.enabled() != controllers::none)
        group.write("cgroup.subtree_control", "-" + std::string((*some).name));
    CHECK(program.run(group) == 0);
    CHECK(detail::child_groups(group.fd()).empty());
}

TEST_CASE("a program that is not in the group itself stays where it is") {
    NEED_GROUPS();
    auto root = kumiki_test::make_root();
    const auto group = root.create("service");
    const auto before = own_group();
    {
        const own_leaf none(group, "box");
        CHECK_FALSE(none.group());
        const own_leaf at_top(cgroup::open(root.hierarchy().mount().mount_point), "box");
        CHECK(static_cast<bool>(at_top.group()) == root.hierarchy().is_subtree());
        const auto open = cgroup_root::open(kumiki_test::group_name(), own_process::moves_to_leaf);
    }
    CHECK(own_group() == before);
    CHECK(detail::child_groups(group.fd()).empty());
    CHECK_THROWS_AS(own_leaf(group, "a/b"), invalid_input);
}

TEST_CASE("a user's program in its delegated group makes room for its own groups") {
    NEED_GROUPS();
    if (::geteuid() != 0) KUMIKI_SKIP("the test gives up root itself");
    const any_controller some;
    if (!some) KUMIKI_SKIP("cgroup v2 has no controller here");
    auto root = kumiki_test::make_root();
    root.require((*some).which);
    const auto group = root.create("service");
    delegate_group(group, 1000, 1000);
    service program{.path = group.path(), .wanted = (*some).which, .user = 1000};
    program.work = [](const service& self) {
        const auto before = own_group();
        {
            auto own = cgroup_root::open_below(self.path, "box", own_process::moves_to_leaf);
            own.require(self.wanted);
            REQUIRE_HERE(has(own.create("a").available(), self.wanted));
        }
        return own_group() == before;
    };
    CHECK(program.run(group) == 0);
    CHECK(detail::child_groups(group.fd()).empty());
}

TEST_CASE("inside a container, the program finds its group and makes room in it") {
    NEED_GROUPS();
    if (::geteuid() != 0) KUMIKI_SKIP("namespaces take root");
    const any_controller some;
    if (!some) KUMIKI_SKIP("cgroup v2 has no controller here");
    auto root = kumiki_test::make_root();
    root.require((*some).which);
    const auto group = root.create("container");
    service program{.path = group.path(), .wanted = (*some).which};
    program.work = [](const service& self) {
        REQUIRE_HERE(::unshare(CLONE_NEWCGROUP | CLONE_NEWNS) == 0);
        REQUIRE_HERE(::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0);
        ::umount2("/sys/fs/cgroup", MNT_DETACH);
        REQUIRE_HERE(::mount("none", "/sys/fs/cgroup", "cgroup2", 0, nullptr) == 0);
        {
            auto own = cgroup_root::open("box", own_process::moves_to_leaf);
            REQUIRE_HERE(own_group() == "/box-leaf-" + std::to_string(::getpid()));
            REQUIRE_HERE(has(own.available(), self.wanted));
            const auto made = own.create("a");
            own.require(self.wanted);
            REQUIRE_HERE(made.path() == "/sys/fs/cgroup/box/a");
            REQUIRE_HERE(has(made.available(), self.wanted));
        }
        return own_group() == "/";
    };
    CHECK(program.run(group) == 0);
    CHECK(detail::child_groups(group.fd()).empty());
}
