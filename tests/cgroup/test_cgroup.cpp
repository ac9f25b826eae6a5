#include <fcntl.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <string>
#include <vector>

#include <kumiki/cgroup/cgroup.hpp>

#include "cgroup/fixture.hpp"
#include "support/catch.hpp"

using namespace kumiki;
using kumiki_test::child;
using kumiki_test::eventually;
using kumiki_test::exists;
using kumiki_test::group_of;

namespace {

char state_of(pid_t pid) {
    const auto text = sys::read_file_at(AT_FDCWD, "/proc/" + std::to_string(pid) + "/stat");
    return text.at(text.rfind(')') + 2);
}

}  // namespace

TEST_CASE("a group is there with its handle and gone after it") {
    NEED_GROUPS();
    const auto root = kumiki_test::make_root();
    std::string path;
    {
        const auto group = cgroup::create(root.group(), "web");
        path = root.group().path() + "/web";
        CHECK(group.path() == path);
        CHECK(group.name() == "web");
        CHECK(exists(path));
        CHECK(sys::status_of(group.fd()).st_ino == group.id());
        CHECK_FALSE(group.is_populated());
        CHECK(group.procs().empty());
    }
    CHECK_FALSE(exists(path));
}

TEST_CASE("a child is born in the group") {
    NEED_GROUPS();
    const auto root = kumiki_test::make_root();
    auto group = cgroup::create(root.group(), "born");
    {
        const child inside(group);
        REQUIRE(inside.pid() > 0);
        CHECK(group_of(inside.pid()).ends_with('/' + kumiki_test::group_name() + "/born"));
        CHECK(group.procs() == std::vector{inside.pid()});
        CHECK(group.is_populated());
        CHECK_FALSE(group.try_remove());
    }
    CHECK(group.wait_empty(std::chrono::seconds(5)));
    CHECK(group.try_remove());
    CHECK_FALSE(exists(group.path()));
}

TEST_CASE("a process is moved into a group") {
    NEED_GROUPS();
    const auto root = kumiki_test::make_root();
    const auto from = cgroup::create(root.group(), "from");
    const auto to = cgroup::create(root.group(), "to");
    const child moved(from);
    REQUIRE(moved.pid() > 0);
    to.attach(moved.pid());
    CHECK(group_of(moved.pid()).ends_with("/to"));
    CHECK(from.procs().empty());
    try {
        to.attach(0x7ffffff0);
        FAIL("no error");
    } catch (const error& failure) {
        CHECK(failure.errno_value() == ESRCH);
        CHECK(failure.object() == to.path() + "/cgroup.procs");
        CHECK(failure.remedy() == "There is no such process.");
    }
}

TEST_CASE("a frozen group stands still until it is thawed") {
    NEED_GROUPS();
    const auto root = kumiki_test::make_root();
    const auto group = cgroup::create(root.group(), "freeze");
    const child inside(group, [](void*) {
        ::prctl(PR_SET_PDEATHSIG, SIGKILL);
        for (;;) ::poll(nullptr, 0, 1);
    });
    REQUIRE(inside.pid() > 0);
    CHECK_FALSE(group.is_frozen());
    const auto switches = [&] {
        const auto path = "/proc/" + std::to_string(inside.pid()) + "/status";
        const auto text = sys::read_file_at(AT_FDCWD, path);
        const auto at = text.find("\nvoluntary_ctxt_switches:");
        return text.substr(at, text.find('\n', at + 1) - at);
    };
    group.freeze();
    CHECK(eventually([&] { return group.is_frozen(); }));
    const auto before = switches();
    ::poll(nullptr, 0, 30);
    CHECK(switches() == before);
    group.thaw();
    CHECK(eventually([&] { return !group.is_frozen() && switches() != before; }));
}

TEST_CASE("killing a group ends every process in it and below it") {
    NEED_GROUPS();
    const auto root = kumiki_test::make_root();
    auto group = cgroup::create(root.group(), "kill");
    const auto below = cgroup::create(group, "below");
    const bool frozen = GENERATE(false, true);
    const bool by_signals = GENERATE(false, true);
    CAPTURE(frozen, by_signals);
    child one(group);
    child two(group);
    child three(below);
    REQUIRE(three.pid() > 0);
    if (frozen) {
        group.freeze();
        REQUIRE(eventually([&] { return group.is_frozen(); }));
    }
    if (by_signals)
        detail::kill_by_signals(group.fd());  // what kernels before 5.14 get
    else
        group.kill();
    for (child* each : {&one, &two, &three}) CHECK(each->wait().signal == SIGKILL);
    CHECK(group.wait_empty(std::chrono::seconds(5)));
    if (by_signals) CHECK(group.read("cgroup.freeze") == "0\n");
}

TEST_CASE("killing by signals catches what is being forked") {
    NEED_GROUPS();
    const auto root = kumiki_test::make_root();
    auto group = cgroup::create(root.group(), "forks");
    child forker(group, [](void*) {
        // At most two at a time, each short-lived: the numbers move on all the while.
        ::signal(SIGCHLD, SIG_IGN);
        ::prctl(PR_SET_PDEATHSIG, SIGKILL);
        for (;;) {
            if (::fork() == 0) {
                ::poll(nullptr, 0, 5);
                ::_exit(0);
            }
            ::poll(nullptr, 0, 3);
        }
    });
    REQUIRE(forker.pid() > 0);
    REQUIRE(eventually([&] { return group.procs().size() > 1; }));
    detail::kill_by_signals(group.fd());
    CHECK(forker.wait().signal == SIGKILL);
    CHECK(group.wait_empty(std::chrono::seconds(5)));
    group.remove();
    CHECK_FALSE(exists(group.path()));
}

TEST_CASE("the end of an owned handle ends its processes and removes the groups below") {
    NEED_GROUPS();
    const auto root = kumiki_test::make_root();
    std::string path;
    auto group = cgroup::create(root.group(), "tree");
    path = group.path();
    REQUIRE(::mkdirat(group.fd(), "a", 0755) == 0);
    REQUIRE(::mkdirat(group.fd(), "a/b", 0755) == 0);
    REQUIRE(::mkdirat(group.fd(), ".hidden", 0755) == 0);
    child inside(cgroup::open(path + "/a/b"));
    REQUIRE(inside.pid() > 0);
    group = cgroup();
    CHECK_FALSE(exists(path));
    CHECK(inside.wait().signal == SIGKILL);
}

TEST_CASE("what cannot be removed is an error that names the processes") {
    NEED_GROUPS();
    const auto root = kumiki_test::make_root();
    auto group = cgroup::create(root.group(), "busy");
    const child inside(group);
    REQUIRE(inside.pid() > 0);
    try {
        group.remove(std::chrono::milliseconds(20));
        FAIL("no error");
    } catch (const error& failure) {
        CHECK(failure.errno_value() == EBUSY);
        CHECK(failure.object() == group.path());
        CHECK(failure.remedy().find(std::to_string(inside.pid())) != std::string::npos);
    }
    CHECK_FALSE(group.wait_empty(std::chrono::milliseconds(5)));
    CHECK(state_of(inside.pid()) != 'Z');
}

TEST_CASE("a name that is taken is told apart by whether anybody is in it") {
    NEED_GROUPS();
    const auto root = kumiki_test::make_root();
    const auto group = cgroup::create(root.group(), "taken");
    const auto attempt = [&] {
        try {
            cgroup::create(root.group(), "taken");
            FAIL("the name was given twice");
            throw;
        } catch (const cgroup_name_taken& taken) {
            CHECK(taken.errno_value() == EEXIST);
            CHECK(taken.object() == group.path());
            CHECK_FALSE(taken.remedy().empty());
            return taken.is_populated();
        }
    };
    CHECK_FALSE(attempt());
    const child inside(group);
    REQUIRE(inside.pid() > 0);
    CHECK(attempt());
    CHECK(exists(group.path()));
}

TEST_CASE("a name that is no good name for a group is refused") {
    NEED_GROUPS();
    const auto root = kumiki_test::make_root();
    const auto name = GENERATE(as<std::string>(), "", ".", "..", "a/b", "/", "../x", "a\nb", "\x7f",
                               "cgroup.procs", "cgroup.x", "memory.max", "cpu.web",
                               std::string(256, 'x'), std::string("a\0b", 3));
    CAPTURE(name);
    CHECK_THROWS_AS(cgroup::create(root.group(), name), invalid_input);
    CHECK_THROWS_AS(cgroup::open(root.group(), name), invalid_input);
}

TEST_CASE("a name of 255 bytes is good") {
    NEED_GROUPS();
    const auto root = kumiki_test::make_root();
    const auto group = cgroup::create(root.group(), std::string(255, 'x'));
    CHECK(exists(group.path()));
}

TEST_CASE("what is opened is not owned, and what is adopted is") {
    NEED_GROUPS();
    const auto root = kumiki_test::make_root();
    auto group = cgroup::create(root.group(), "owned");
    const std::string path = group.path();
    { const auto other = cgroup::open(path); }
    { const auto other = cgroup::open(root.group(), "owned"); }
    CHECK(exists(path));
    unique_fd plain = group.release();
    CHECK_FALSE(group);
    group = cgroup();
    CHECK(exists(path));
    { const auto adopted = cgroup::adopt(std::move(plain), path); }
    CHECK_FALSE(exists(path));
    CHECK_THROWS_AS(cgroup::open(path), error);
    CHECK_THROWS_AS(cgroup::open("/proc"), invalid_input);
    CHECK_THROWS_AS(cgroup::adopt(sys::open_at(AT_FDCWD, "/", O_PATH), "/"), invalid_input);
    CHECK_THROWS_AS(cgroup::adopt(unique_fd(), path), invalid_input);
}

TEST_CASE("a group that somebody else removed is no failure at the end") {
    NEED_GROUPS();
    struct count : observer {
        void release_failed(const error&) noexcept override { ++failures; }
        int failures = 0;
    } seen;
    observer* const before = set_observer(&seen);
    {
        const auto root = kumiki_test::make_root();
        auto group = cgroup::create(root.group(), "gone");
        REQUIRE(::rmdir(group.path().c_str()) == 0);
        CHECK_FALSE(group.is_populated());
        CHECK_FALSE(group.try_read("cgroup.procs"));
        CHECK(group.wait_empty(std::chrono::seconds(1)));
        CHECK_NOTHROW(group.kill());
        try {
            group.attach(::getpid());
            FAIL("no error");
        } catch (const error& failure) {
            CHECK((failure.errno_value() == ENOENT || failure.errno_value() == ENODEV));
        }
        CHECK_THROWS_AS(cgroup::create(group, "below"), error);

        SECTION("and a new one of the same name is left alone") {
            const auto next = cgroup::create(root.group(), "gone");
            CHECK(group.try_remove());
            CHECK(exists(next.path()));
        }
        SECTION("also by the destructor") {
            const auto next = cgroup::create(root.group(), "gone");
            group = cgroup();
            CHECK(exists(next.path()));
        }
    }
    set_observer(before);
    CHECK(seen.failures == 0);
}

TEST_CASE("a refused value is told with key, value and errno") {
    NEED_GROUPS();
    const auto root = kumiki_test::make_root();
    const auto group = cgroup::create(root.group(), "refused");
    const auto refuse = [&](const char* key, const char* value) {
        try {
            group.write(key, value);
        } catch (const error& failure) {
            CHECK(failure.object() == group.path() + '/' + key);
            CHECK(failure.operation() == "write '" + std::string(value) + "' to");
            CHECK_FALSE(failure.remedy().empty());
            return failure.errno_value();
        }
        return 0;
    };
    CHECK(refuse("cgroup.freeze", "maybe") == EINVAL);
    CHECK(refuse("cgroup.freeze", "2") == ERANGE);
    CHECK(refuse("cgroup.nothing", "1") == ENOENT);
    CHECK(refuse("cgroup.max.depth", "-1") == ERANGE);
    CHECK(refuse("cgroup.subtree_control", "+nothing") == EINVAL);
    CHECK_THROWS_AS(group.read("cgroup.nothing"), error);
}

TEST_CASE("the limit on groups below is an error with its cause") {
    NEED_GROUPS();
    const auto root = kumiki_test::make_root();
    const auto group = cgroup::create(root.group(), "few");
    group.write("cgroup.max.descendants", "0");
    try {
        cgroup::create(group, "one");
        FAIL("no error");
    } catch (const error& failure) {
        CHECK(failure.errno_value() == EAGAIN);
        CHECK(failure.remedy().find("cgroup.max.descendants") != std::string::npos);
    }
}

TEST_CASE("a read-only hierarchy is an error with its cause") {
    NEED_GROUPS();
    const auto root = kumiki_test::make_root();
    const auto hierarchy = cgroup_hierarchy::find();
    const pid_t other = ::fork();
    REQUIRE(other >= 0);
    if (other == 0) {
        int status = 1;
        const char* place = hierarchy.mount().mount_point.c_str();
        if (::unshare(CLONE_NEWNS) == 0 &&
            ::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0 &&
            ::mount(nullptr, place, nullptr, MS_REMOUNT | MS_BIND | MS_RDONLY, nullptr) == 0) {
            try {
                cgroup::create(cgroup::open(root.group().path()), "x");
            } catch (const error& failure) {
                status = failure.errno_value() == EROFS && !failure.remedy().empty() ? 0 : 2;
            }
            try {
                cgroup_root::open("kumiki-test-never");
                status = 3;
            } catch (const unsupported& failure) {
                if (failure.remedy().find("read-only") == std::string::npos) status = 4;
            }
        }
        ::_exit(status);
    }
    int status = 0;
    REQUIRE(::waitpid(other, &status, 0) == other);
    CHECK(WEXITSTATUS(status) == 0);
}

TEST_CASE("descriptors are not lost over many groups") {
    NEED_GROUPS();
    const auto root = kumiki_test::make_root();
    const auto lowest = [] { return unique_fd(::dup(0)).get(); };
    const int before = lowest();
    for (int i = 0; i < 200; ++i) {
        const auto group = cgroup::create(root.group(), "many");
        if (i % 20 == 0) {
            child inside(group);
            REQUIRE(inside.pid() > 0);
            group.kill();
            CHECK(inside.wait().signal == SIGKILL);
        }
    }
    CHECK(lowest() == before);
}
