#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <string>

#include <kumiki/cgroup/tree.hpp>

#include "cgroup/fixture.hpp"
#include "support/catch.hpp"

using namespace kumiki;
using kumiki_test::child;
using kumiki_test::eventually;
using kumiki_test::exists;

namespace {

/// Memory that forked processes share.
class shared_counter {
  public:
    shared_counter()
        : at_(static_cast<std::atomic<int>*>(::mmap(nullptr, sizeof(std::atomic<int>),
                                                    PROT_READ | PROT_WRITE,
                                                    MAP_SHARED | MAP_ANONYMOUS, -1, 0))) {}
    ~shared_counter() { ::munmap(at_, sizeof(std::atomic<int>)); }
    shared_counter(const shared_counter&) = delete;
    shared_counter& operator=(const shared_counter&) = delete;
    std::atomic<int>* get() const { return at_; }

  private:
    std::atomic<int>* at_;
};

/// Forks without an end, the children too: at most 150 at a time (a host without pids.max has to
/// live through it), and of every four one ends at once, so that numbers move on.
void fork_bomb(void* alive) {
    auto& count = *static_cast<std::atomic<int>*>(alive);
    ::signal(SIGCHLD, SIG_IGN);
    for (unsigned round = 0;; ++round) {
        if (count.fetch_add(1) >= 150) {
            count.fetch_sub(1);
            ::usleep(200);
            continue;
        }
        const pid_t pid = ::fork();
        if (pid < 0) count.fetch_sub(1);
        if (pid == 0 && round % 4 == 0) {
            count.fetch_sub(1);
            ::_exit(0);
        }
    }
}

}  // namespace

TEST_CASE("without cgroup.kill a fork bomb is ended, too, also over several groups") {
    NEED_GROUPS();
    const auto root = kumiki_test::make_root();
    auto group = cgroup::create(root.group(), "bomb");
    const auto below = cgroup::create(group, "below");
    const bool is_frozen = GENERATE(false, true);
    CAPTURE(is_frozen);
    const shared_counter alive_one;
    const shared_counter alive_two;
    {
        child one(group, fork_bomb, alive_one.get());
        child two(below, fork_bomb, alive_two.get());
        REQUIRE(one.pid() > 0);
        REQUIRE(two.pid() > 0);
        REQUIRE(eventually([&] { return group.procs().size() > 50 && below.procs().size() > 50; }));
        if (is_frozen) {
            group.freeze();
            REQUIRE(group.wait_frozen(std::chrono::seconds(10)));
        }
        // Few descriptors: not one for each process.
        rlimit before{};
        REQUIRE(::getrlimit(RLIMIT_NOFILE, &before) == 0);
        const int first_free = ::dup(2);
        ::close(first_free);
        REQUIRE(first_free > 0);
        const rlimit few{.rlim_cur = static_cast<rlim_t>(first_free) + 32,
                         .rlim_max = before.rlim_max};
        REQUIRE(::setrlimit(RLIMIT_NOFILE, &few) == 0);
        CHECK_NOTHROW(detail::kill_by_signals(group.fd()));
        REQUIRE(::setrlimit(RLIMIT_NOFILE, &before) == 0);
        CHECK(one.wait().signal == SIGKILL);
        CHECK(two.wait().signal == SIGKILL);
    }
    CHECK(group.wait_empty(std::chrono::seconds(5)));
    ::poll(nullptr, 0, 20);
    CHECK_FALSE(group.is_populated());  // nobody got away and forks on
    CHECK(group.read("cgroup.freeze") == "0\n");
    group.remove();
    CHECK_FALSE(exists(group.path()));
}

TEST_CASE("a process that may not be signalled is an error, after all others were") {
    NEED_GROUPS();
    if (::geteuid() != 0) KUMIKI_SKIP("the test gives up root itself");
    const auto root = kumiki_test::make_root();
    const auto group = cgroup::create(root.group(), "mixed");
    const auto become_user = [](void*) {
        if (::setresuid(1234, 1234, 1234) != 0) ::_exit(1);
        ::prctl(PR_SET_PDEATHSIG, SIGKILL);
        for (;;) ::pause();
    };
    child roots(group);
    child users(group, become_user);
    REQUIRE(users.pid() > 0);
    const auto user_of = [](pid_t pid) {
        return sys::status_of(sys::open_at(AT_FDCWD, "/proc/" + std::to_string(pid), O_PATH).get())
            .st_uid;
    };
    REQUIRE(eventually([&] { return user_of(users.pid()) == 1234; }));
    const pid_t killer = ::fork();
    REQUIRE(killer >= 0);
    if (killer == 0) {
        int status = 1;
        if (::setresuid(1234, 1234, 1234) == 0) {
            try {
                detail::kill_by_signals(group.fd());
            } catch (const error& failure) {
                status = failure.errno_value() == EPERM ? 0 : 2;
            }
        }
        ::_exit(status);
    }
    int status = 0;
    REQUIRE(::waitpid(killer, &status, 0) == killer);
    CHECK(WEXITSTATUS(status) == 0);
    CHECK(users.wait().signal == SIGKILL);
    CHECK(group.procs() == std::vector{roots.pid()});
}

TEST_CASE("a tree that grows while it is removed is removed") {
    NEED_GROUPS();
    const auto root = kumiki_test::make_root();
    auto group = cgroup::create(root.group(), "growing");
    const int fd = group.fd();
    const pid_t grower = ::fork();
    REQUIRE(grower >= 0);
    if (grower == 0) {
        // Makes groups and short-lived processes in them until the tree is gone.
        ::prctl(PR_SET_PDEATHSIG, SIGKILL);
        for (int i = 0; i < 100'000; ++i) {
            const std::string name = "g" + std::to_string(i % 20);
            ::mkdirat(fd, name.c_str(), 0755);
            ::mkdirat(fd, (name + "/x").c_str(), 0755);
            try {
                child inside(
                    cgroup::adopt(sys::open_at(fd, name + "/x", O_PATH | O_DIRECTORY), "x"),
                    [](void*) { ::_exit(0); });
            } catch (const error&) {
                if (::faccessat(fd, "cgroup.procs", F_OK, 0) != 0) ::_exit(0);
            }
        }
        ::_exit(1);
    }
    REQUIRE(eventually([&] { return detail::child_groups(fd).size() > 10; }));
    CHECK_NOTHROW(group.destroy(std::chrono::seconds(20)));
    CHECK_FALSE(exists(group.path()));
    int status = 0;
    REQUIRE(::waitpid(grower, &status, 0) == grower);
    CHECK(WEXITSTATUS(status) == 0);
}

TEST_CASE("freezing and thawing is awaited until it is true") {
    NEED_GROUPS();
    const auto root = kumiki_test::make_root();
    auto group = cgroup::create(root.group(), "await");
    const child busy(group, [](void*) {
        ::prctl(PR_SET_PDEATHSIG, SIGKILL);
        for (;;) {}
    });
    REQUIRE(busy.pid() > 0);
    const auto is_frozen = [&] {
        return group.read("cgroup.events").find("frozen 1") != std::string::npos;
    };
    CHECK_FALSE(group.wait_frozen(std::chrono::milliseconds(5)));
    for (int round = 0; round < 20; ++round) {
        group.freeze();
        REQUIRE(group.wait_frozen(std::chrono::seconds(5)));
        REQUIRE(is_frozen());
        group.thaw();
        REQUIRE(group.wait_thawed(std::chrono::seconds(5)));
        REQUIRE_FALSE(is_frozen());
    }
    group.freeze();
    REQUIRE(group.wait_frozen(std::chrono::seconds(5)));
    CHECK_FALSE(group.wait_thawed(std::chrono::milliseconds(5)));
    group.destroy();
    CHECK_FALSE(group.wait_frozen(std::chrono::milliseconds(5)));
    CHECK(group.wait_thawed(std::chrono::milliseconds(5)));
}
