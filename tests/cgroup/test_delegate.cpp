#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <string>
#include <vector>

#include <kumiki/cgroup/delegate.hpp>

#include "cgroup/fixture.hpp"
#include "support/catch.hpp"

using namespace kumiki;
using kumiki_test::child;

namespace {

struct place {
    const char* path = nullptr;
};

/// What user 1000 can do in a group that was handed over: a bit for each thing that went wrong.
void try_as_user(void* given) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    const std::string path = static_cast<const place*>(given)->path;
    if (::setgid(1000) != 0 || ::setuid(1000) != 0) ::_exit(128);
    const auto write = [](const std::string& file, const std::string& text) {
        const int fd = ::open(file.c_str(), O_WRONLY | O_CLOEXEC);
        if (fd < 0) return errno;
        const int code = ::write(fd, text.data(), text.size()) < 0 ? errno : 0;
        ::close(fd);
        return code;
    };
    const std::string self = std::to_string(::getpid());
    int wrong = 0;
    if (::mkdir((path + "/mine").c_str(), 0755) != 0) wrong |= 1;
    if (write(path + "/mine/cgroup.procs", self) != 0) wrong |= 2;
    if (write(path + "/cgroup.procs", self) != 0) wrong |= 4;
    // Not wider: no limit of its own, no group beside it, no way out.
    if (write(path + "/cgroup.max.depth", "5") == 0) wrong |= 8;
    if (::mkdir((path + "/../beside").c_str(), 0755) == 0) wrong |= 16;
    if (write(path + "/../cgroup.procs", self) == 0) wrong |= 32;
    if (::rmdir((path + "/mine").c_str()) != 0) wrong |= 64;
    ::_exit(wrong);
}

}  // namespace

TEST_CASE("a group that is handed to a user is the user's, and no wider") {
    NEED_GROUPS();
    if (::geteuid() != 0) KUMIKI_SKIP("it takes root to give a group away");
    auto root = kumiki_test::make_root();
    const auto group = root.create("handed");
    delegate_group(group, 1000, 1000);
    struct stat info{};
    for (const char* file : {"cgroup.procs", "cgroup.threads", "cgroup.subtree_control", "."}) {
        REQUIRE(::fstatat(group.fd(), file, &info, 0) == 0);
        CHECK(info.st_uid == 1000);
    }
    REQUIRE(::fstatat(group.fd(), "cgroup.max.depth", &info, 0) == 0);
    CHECK(info.st_uid == 0);
    place at{group.path().c_str()};
    child user(group, try_as_user, &at);
    REQUIRE(user.pid() > 0);
    CHECK(user.wait().code == 0);
}

TEST_CASE("threads of one process are in threaded groups of their own") {
    NEED_GROUPS();
    auto root = kumiki_test::make_root();
    const auto group = root.create("domain");
    const auto below = cgroup::create(group, "thread");
    CHECK(type_of(group) == cgroup_type::domain);
    make_threaded(below);
    CHECK(type_of(below) == cgroup_type::threaded);
    CHECK(type_of(group) == cgroup_type::domain_threaded);
    struct request {
        int group;
    } wanted{below.fd()};
    child process(
        group,
        [](void* given) {
            ::prctl(PR_SET_PDEATHSIG, SIGKILL);
            const int group_fd = static_cast<const request*>(given)->group;
            const int fd = ::openat(group_fd, "cgroup.threads", O_WRONLY | O_CLOEXEC);
            const std::string self = std::to_string(::getpid());
            if (fd < 0 || ::write(fd, self.data(), self.size()) < 0) ::_exit(errno);
            for (;;) ::pause();
        },
        &wanted);
    REQUIRE(process.pid() > 0);
    CHECK(kumiki_test::eventually(
        [&] { return below.read("cgroup.threads") == std::to_string(process.pid()) + '\n'; }));
    attach_thread(group, process.pid());
    CHECK(below.read("cgroup.threads").empty());
    attach_thread(below, process.pid());
    const auto other = root.create("other");
    CHECK_THROWS_AS(attach_thread(other, process.pid()), error);
    CHECK_THROWS_AS(attach_thread(below, 0x7ffffff0), error);
}

TEST_CASE("all groups below are visited, parents first, and owned by nobody for it") {
    NEED_GROUPS();
    auto root = kumiki_test::make_root();
    const auto top = root.create("top");
    const auto a = cgroup::create(top, "a");
    const auto b = cgroup::create(a, "b");
    std::vector<std::string> seen;
    walk_groups(top, [&](const cgroup& each) { seen.push_back(each.path()); });
    CHECK(seen == std::vector{top.path(), a.path(), b.path()});
    CHECK(kumiki_test::exists(b.path()));
}

TEST_CASE("a frozen group is thawed on every way out") {
    NEED_GROUPS();
    auto root = kumiki_test::make_root();
    auto group = root.create("guard");
    {
        const freeze_guard guard(group);
        CHECK(group.read("cgroup.freeze") == "1\n");
    }
    CHECK(group.read("cgroup.freeze") == "0\n");
    const freeze_guard late(group);
    CHECK(group.try_remove());
}
