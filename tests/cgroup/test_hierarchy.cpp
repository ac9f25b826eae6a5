#include <sched.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

#include <string>

#include <kumiki/cgroup/hierarchy.hpp>

#include "support/catch.hpp"

using namespace kumiki;

namespace {

constexpr const char* pure = R"(22 28 0:20 / /sys rw,nosuid - sysfs sysfs rw
31 22 0:27 / /sys/fs/cgroup rw,nosuid,nodev shared:9 - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot
)";
constexpr const char* hybrid = R"(31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
38 31 0:35 / /sys/fs/cgroup/blkio rw,relatime - cgroup cgroup rw,xattr,blkio
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,xattr,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
)";
constexpr const char* hybrid_self = R"(4:memory:/process/one
2:cpu,cpuacct:/
1:name=systemd:/init.scope
0::/init.scope
)";
constexpr const char* legacy = R"(31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
)";
// A container with its own cgroup namespace, and one without.
constexpr const char* docker =
    R"(700 699 0:27 / /sys/fs/cgroup ro,nosuid,nodev - cgroup2 cgroup rw,nsdelegate
)";
constexpr const char* docker_host_view =
    R"(700 699 0:27 /docker/abc /sys/fs/cgroup ro,nosuid - cgroup2 cgroup rw
)";

}  // namespace

TEST_CASE("a pure v2 host is recognised") {
    const auto found = cgroup_hierarchy::parse(pure, "0::/user.slice/user-1000.slice/a.scope\n");
    REQUIRE(found.v2.size() == 1);
    CHECK(found.mount().mount_point == "/sys/fs/cgroup");
    CHECK(found.mount().root == "/");
    CHECK(found.mount().nsdelegate);
    CHECK_FALSE(found.mount().read_only);
    CHECK_FALSE(found.is_hybrid());
    CHECK(found.own_directory() == "/sys/fs/cgroup/user.slice/user-1000.slice/a.scope");
}

TEST_CASE("a hybrid host is recognised, with the controllers that v1 holds") {
    const auto found = cgroup_hierarchy::parse(hybrid, hybrid_self);
    REQUIRE(found.v2.size() == 1);
    CHECK(found.mount().mount_point == "/sys/fs/cgroup/unified");
    CHECK(found.is_hybrid());
    CHECK(found.v1_mount_of("memory") == "/sys/fs/cgroup/memory");
    CHECK(found.v1_mount_of("cpuacct") == "/sys/fs/cgroup/cpu,cpuacct");
    CHECK(found.v1_mount_of("blkio") == "/sys/fs/cgroup/blkio");
    CHECK_FALSE(found.v1_mount_of("pids"));
    CHECK_FALSE(found.v1_mount_of("xattr"));
    CHECK(found.own_directory() == "/sys/fs/cgroup/unified/init.scope");

    const std::string why =
        found.explain_missing(controllers::memory | controllers::io | controllers::rdma);
    CAPTURE(why);
    CHECK(why.find("io (/sys/fs/cgroup/blkio), memory (/sys/fs/cgroup/memory)") !=
          std::string::npos);
    CHECK(why.find("Not offered here: rdma") != std::string::npos);
}

TEST_CASE("a controller that is bound to v1 out of sight is still told apart") {
    const auto found = cgroup_hierarchy::parse(pure, hybrid_self);
    CHECK(found.is_hybrid());
    CHECK(found.explain_missing(controllers::memory).find("memory (not mounted here)") !=
          std::string::npos);
    CHECK(found.explain_missing(controllers::pids).find("Not offered here: pids") !=
          std::string::npos);
}

TEST_CASE("a host with v1 alone has no v2 mount") {
    const auto found = cgroup_hierarchy::parse(legacy, "4:memory:/\n");
    CHECK(found.v2.empty());
    CHECK_FALSE(found.own_directory());
    CHECK(detail::describe_mounts(found) == "Only cgroup v1 is mounted: /sys/fs/cgroup/memory.");
    CHECK(detail::describe_mounts(cgroup_hierarchy::parse("", "")) ==
          "No cgroup filesystem is mounted.");
}

TEST_CASE("inside a container, one's own group is found relative to what is mounted") {
    const auto own = cgroup_hierarchy::parse(docker, "0::/\n");
    CHECK(own.mount().read_only);
    CHECK(own.own_directory() == "/sys/fs/cgroup");

    const auto shared = cgroup_hierarchy::parse(docker_host_view, "0::/docker/abc/inner\n");
    CHECK(shared.own_directory() == "/sys/fs/cgroup/inner");
    // Moved to a sibling whose name only begins alike: not below the mount.
    const auto moved = cgroup_hierarchy::parse(docker_host_view, "0::/docker/abcd\n");
    CHECK_FALSE(moved.own_directory());
}

TEST_CASE("a group whose place cannot be told is not guessed at") {
    // A process that was moved out of its cgroup namespace, and a mount from outside of it.
    CHECK_FALSE(cgroup_hierarchy::parse(pure, "0::/../other\n").own_directory());
    CHECK_FALSE(cgroup_hierarchy::parse(pure, "0::/..\n").own_directory());
    const auto above = cgroup_hierarchy::parse(
        "31 22 0:27 /../.. /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n", "0::/\n");
    CHECK(above.mount().root == "/../..");
    CHECK_FALSE(above.own_directory());
    // A name that only begins with dots is one like any other.
    CHECK(cgroup_hierarchy::parse(pure, "0::/..a\n").own_directory() == "/sys/fs/cgroup/..a");
}

TEST_CASE("a later mount at the same place hides the earlier one") {
    const auto covered =
        cgroup_hierarchy::parse(std::string(hybrid) +
                                    "90 31 0:99 / /sys/fs/cgroup/memory rw - tmpfs tmpfs rw\n"
                                    "91 31 0:98 / /sys/fs/cgroup/unified rw - tmpfs tmpfs rw\n",
                                hybrid_self);
    CHECK(covered.v2.empty());
    CHECK_FALSE(covered.v1_mount_of("memory"));
}

TEST_CASE("of several v2 mounts the usual place is taken first") {
    const auto found = cgroup_hierarchy::parse(
        "1 0 0:1 /a /mnt/part rw - cgroup2 none rw\n2 0 0:1 / /mnt/all rw - cgroup2 none rw\n"
        "3 0 0:1 / /sys/fs/cgroup rw - cgroup2 none rw\n",
        "0::/\n");
    REQUIRE(found.v2.size() == 3);
    CHECK(found.v2[0].mount_point == "/sys/fs/cgroup");
    CHECK(found.v2[1].mount_point == "/mnt/all");
    CHECK(found.v2[2].mount_point == "/mnt/part");
}

TEST_CASE("mount points with blanks are read, and damaged lines skipped") {
    const auto found = cgroup_hierarchy::parse(
        "1 0 0:1 / /mnt/a\\040b rw - cgroup2 none rw\n"
        "\n-\n1 2 3 - cgroup2\n1 0 0:1 / /x rw - cgroup2\n1 0 0:1 / /y rw cgroup2 none rw\n",
        "0:/x\n0::relative\n::\n");
    REQUIRE(found.v2.size() == 1);
    CHECK(found.mount().mount_point == "/mnt/a b");
    CHECK(found.own_path == "/");
}

TEST_CASE("this host's v2 hierarchy is found, and holds this process's group") {
    try {
        const auto found = cgroup_hierarchy::find();
        const auto own = found.own_directory();
        REQUIRE(own);
        const std::string procs = sys::read_file_at(AT_FDCWD, *own + "/cgroup.procs");
        CHECK(("\n" + procs).find("\n" + std::to_string(::getpid()) + "\n") != std::string::npos);
    } catch (const unsupported& none) {
        KUMIKI_SKIP(none.what());
    }
}

TEST_CASE("without any cgroup filesystem the error says so, and what to do") {
    if (::geteuid() != 0) KUMIKI_SKIP("unmounting takes root");
    const pid_t child = ::fork();
    REQUIRE(child >= 0);
    if (child == 0) {
        int status = 1;
        if (::unshare(CLONE_NEWNS) == 0 &&
            ::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0 &&
            ::umount2("/sys/fs/cgroup", MNT_DETACH) == 0) {
            try {
                cgroup_hierarchy::find();
            } catch (const no_cgroup2& none) {
                const std::string text = none.what();
                const bool told = !none.has_v1() &&
                                  text.find("No cgroup filesystem is mounted") != std::string::npos;
                status = told && text.find("mount -t cgroup2") != std::string::npos ? 0 : 2;
            }
        }
        ::_exit(status);
    }
    int status = 0;
    REQUIRE(::waitpid(child, &status, 0) == child);
    CHECK(WEXITSTATUS(status) == 0);
}

TEST_CASE("a v2 mount that is covered from above is not taken for reachable") {
    if (::geteuid() != 0) KUMIKI_SKIP("mounting takes root");
    const pid_t child = ::fork();
    REQUIRE(child >= 0);
    if (child == 0) {
        int status = 1;
        if (::unshare(CLONE_NEWNS) == 0 &&
            ::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0 &&
            ::mount("none", "/sys/fs", "tmpfs", 0, nullptr) == 0) {
            try {
                cgroup_hierarchy::find();
                status = 2;
            } catch (const unsupported&) {
                status = 0;
            }
        }
        ::_exit(status);
    }
    int status = 0;
    REQUIRE(::waitpid(child, &status, 0) == child);
    CHECK(WEXITSTATUS(status) == 0);
}

TEST_CASE("a host that shows v1 alone is told apart, with what it has") {
    if (::geteuid() != 0) KUMIKI_SKIP("unmounting takes root");
    cgroup_hierarchy here;
    try {
        here = cgroup_hierarchy::find();
    } catch (const unsupported& none) {
        KUMIKI_SKIP(none.what());
    }
    if (here.v1.empty()) KUMIKI_SKIP("no v1 hierarchy is mounted here");
    const pid_t child = ::fork();
    REQUIRE(child >= 0);
    if (child == 0) {
        int status = 1;
        if (::unshare(CLONE_NEWNS) == 0 &&
            ::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0) {
            for (const auto& mount : here.v2) ::umount2(mount.mount_point.c_str(), MNT_DETACH);
            try {
                cgroup_hierarchy::find();
                status = 2;
            } catch (const no_cgroup2& none) {
                const bool named = none.remedy().find("Only cgroup v1 is mounted: " +
                                                      here.v1[0].mount_point) != std::string::npos;
                status = none.has_v1() && named ? 0 : 3;
            }
        }
        ::_exit(status);
    }
    int status = 0;
    REQUIRE(::waitpid(child, &status, 0) == child);
    CHECK(WEXITSTATUS(status) == 0);
}
