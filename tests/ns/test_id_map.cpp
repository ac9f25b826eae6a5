#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdint>
#include <string>
#include <vector>

#include <kumiki/core/scope_exit.hpp>
#include <kumiki/ns/id_map.hpp>
#include <kumiki/sys/raw.hpp>

#include "support/catch.hpp"

using namespace kumiki;

namespace {

/// A paused child in a new user namespace.
class user_child {
  public:
    user_child() {
        sys::clone_arguments request{.flags = sys::clone_newuser, .exit_signal = SIGCHLD};
        pid_ = static_cast<pid_t>(sys::clone_copied(
            request,
            [](void*) {
                for (;;) sys::raw_syscall(SYS_pause);
            },
            nullptr));
    }
    user_child(const user_child&) = delete;
    user_child& operator=(const user_child&) = delete;
    ~user_child() {
        if (pid_ <= 0) return;
        ::kill(pid_, SIGKILL);
        ::waitpid(pid_, nullptr, 0);
    }
    pid_t pid() const { return pid_; }
    std::string read(const std::string& file) const {
        return sys::read_file_at(AT_FDCWD, "/proc/" + std::to_string(pid_) + '/' + file);
    }
    /// The map as the kernel shows it.
    id_map shown(const std::string& file) const { return id_map::parse(read(file)); }

  private:
    pid_t pid_ = -1;
};

}  // namespace

TEST_CASE("an id map is written in the kernel's form and read back in both forms") {
    const id_map map{{0, 100000, 65536}, {65536, 0, 1}};
    CHECK(map.to_text() == "0 100000 65536\n65536 0 1\n");
    CHECK(id_map::parse(map.to_text()) == map);
    CHECK(id_map::parse("         0     100000      65536\n     65536          0          1\n") ==
          map);
    CHECK(id_map::parse("0:100000:65536,65536:0:1") == map);
    CHECK(id_map::parse("").empty());
    CHECK(id_map::parse("0 0 4294967295").ranges().front().count == 4294967295U);
}

TEST_CASE("an id map translates ids in both directions") {
    const id_map map{{0, 100000, 10}, {20, 500, 1}};
    CHECK(map.to_outside(0) == 100000U);
    CHECK(map.to_outside(9) == 100009U);
    CHECK_FALSE(map.to_outside(10));
    CHECK(map.to_outside(20) == 500U);
    CHECK(map.to_inside(100009) == 9U);
    CHECK_FALSE(map.to_inside(100010));
    CHECK_FALSE(map.to_inside(0));
}

TEST_CASE("an id map that the kernel would refuse is refused before it is written") {
    CHECK_THROWS_AS(id_map({{0, 0, 0}}), invalid_input);
    CHECK_THROWS_AS(id_map({{1, 0, 4294967295U}}), invalid_input);
    CHECK_THROWS_AS(id_map({{0, 4294967295U, 1}}), invalid_input);
    CHECK_THROWS_AS(id_map({{4294967295U, 0, 1}}), invalid_input);
    CHECK_THROWS_AS(id_map({{0, 1000, 10}, {9, 2000, 10}}), invalid_input);
    CHECK_THROWS_AS(id_map({{0, 1000, 10}, {10, 1009, 10}}), invalid_input);
    CHECK_THROWS_AS(id_map({{5, 5, 1}, {0, 0, 10}}), invalid_input);
    CHECK_NOTHROW(id_map({{0, 1000, 10}, {10, 1010, 10}}));
    std::vector<id_range> many(341);
    for (std::uint32_t i = 0; i < many.size(); ++i) many[i] = {i, i, 1};
    CHECK_THROWS_AS(id_map(many), invalid_input);
    many.pop_back();
    CHECK_NOTHROW(id_map(many));
}

TEST_CASE("malformed text of an id map is refused") {
    const auto text = GENERATE(as<std::string>(), "0", "0:1", "0:1:2:3", "a:1:2", "0:-1:2",
                               "0:1:2x", "4294967296:0:1", "0:0:4294967296", "0:0:0", "0x0:0:1",
                               "+0:0:1", "0;0;1", "0:0:1,0:0:1", "0 0 1 0 0 1");
    CAPTURE(text);
    CHECK_THROWS_AS(id_map::parse(text), invalid_input);
}

TEST_CASE("the kernel shows the maps that were written for a child") {
    if (::geteuid() != 0) KUMIKI_SKIP("mapping ids that are not one's own takes root");
    const user_child child;
    REQUIRE(child.pid() > 0);
    const id_map uids{{0, 100000, 1000}, {5000, 200000, 1}};
    const id_map gids{{0, 300000, 65536}};
    write_id_maps(child.pid(), uids, gids);
    CHECK(child.shown("uid_map") == uids);
    CHECK(child.shown("gid_map") == gids);
    CHECK(child.read("setgroups") == "allow\n");

    SECTION("and a map can be written only once") {
        try {
            write_id_maps(child.pid(), uids, gids);
            FAIL("the second write was taken");
        } catch (const error& failure) {
            CHECK(failure.errno_value() == EPERM);
            CHECK(failure.object().find("/uid_map") != std::string::npos);
            CHECK_FALSE(failure.remedy().empty());
        }
    }
}

TEST_CASE("setgroups is denied when that is asked for") {
    if (::geteuid() != 0) KUMIKI_SKIP("mapping ids that are not one's own takes root");
    const user_child child;
    REQUIRE(child.pid() > 0);
    write_id_maps(child.pid(), {{0, 0, 1}}, {{0, 0, 1}}, setgroups_policy::deny);
    CHECK(child.read("setgroups") == "deny\n");
}

TEST_CASE("a map with as many ranges as fit on a page is shown as it was written") {
    if (::geteuid() != 0) KUMIKI_SKIP("mapping ids that are not one's own takes root");
    const auto count = GENERATE(1U, 2U, 5U, 6U, 64U, 300U, 340U);
    CAPTURE(count);
    const user_child child;
    REQUIRE(child.pid() > 0);
    std::vector<id_range> ranges;
    for (std::uint32_t i = 0; i < count; ++i) ranges.push_back({2 * i, 3000 + 2 * i, 1});
    const id_map map(ranges);
    REQUIRE(map.to_text().size() < 4096);
    write_id_maps(child.pid(), map, map);
    CHECK(child.shown("uid_map") == map);
}

TEST_CASE("a map whose text is longer than a page is refused with a reason") {
    const user_child child;
    REQUIRE(child.pid() > 0);
    std::vector<id_range> ranges;
    for (std::uint32_t i = 0; i < 340; ++i)
        ranges.push_back({1000000000 + 2 * i, 2000000000 + 2 * i, 1});
    const id_map map(ranges);
    if (map.to_text().size() < static_cast<std::size_t>(::sysconf(_SC_PAGESIZE)))
        KUMIKI_SKIP("pages are larger than any map here");
    CHECK_THROWS_AS(write_id_maps(child.pid(), map, map), invalid_input);
}

TEST_CASE("an unprivileged user gets a map of one id, and setgroups denied for it") {
    if (::geteuid() != 0) KUMIKI_SKIP("the test gives up root itself");
    // In a child, as it gives up its user for good.
    const pid_t user = ::fork();
    REQUIRE(user >= 0);
    if (user == 0) {
        int status = 1;
        if (::syscall(SYS_setresgid, 1234, 1234, 1234) == 0 &&
            ::syscall(SYS_setresuid, 1234, 1234, 1234) == 0 &&
            ::prctl(PR_SET_DUMPABLE, 1) == 0) {  // else /proc/PID is root's after the change
            const user_child child;
            if (child.pid() == -EPERM) ::_exit(77);
            try {
                write_id_maps(child.pid(), {{0, 1234, 1}}, {{0, 1234, 1}});
                status = child.read("setgroups") == "deny\n" ? 0 : 2;
            } catch (const error&) {
                status = 3;
            }
        }
        ::_exit(status);
    }
    int status = 0;
    REQUIRE(::waitpid(user, &status, 0) == user);
    if (WEXITSTATUS(status) == 77) KUMIKI_SKIP("user namespaces are denied to ordinary users here");
    CHECK(WIFEXITED(status));
    CHECK(WEXITSTATUS(status) == 0);
}

TEST_CASE("writing maps for a process that is not there fails with its path") {
    try {
        write_id_maps(0x7ffffff0, {{0, 0, 1}}, {{0, 0, 1}});
        FAIL("no error");
    } catch (const error& failure) {
        CHECK(failure.errno_value() == ENOENT);
        CHECK(failure.object() == "/proc/2147483632");
    }
}
