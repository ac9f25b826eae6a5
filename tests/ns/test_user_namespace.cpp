#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <string>

#include <kumiki/ns/user_namespace.hpp>
#include <kumiki/sys/mount_api.hpp>

#include "support/catch.hpp"

using namespace kumiki;

namespace {

std::string children() { return sys::read_file_at(AT_FDCWD, "/proc/thread-self/children"); }

}  // namespace

TEST_CASE("a user namespace is made without any process being left") {
    if (::geteuid() != 0) KUMIKI_SKIP("mapping ids that are not one's own takes root");
    const std::string before = children();
    const auto made = make_user_namespace({{0, 100000, 65536}}, {{0, 200000, 65536}});
    CHECK(made.kind() == namespace_kind::user);
    CHECK_FALSE(made == namespace_fd::current(namespace_kind::user));
    REQUIRE(made.parent());
    CHECK(*made.parent() == namespace_fd::current(namespace_kind::user));
    CHECK(children() == before);
}

TEST_CASE("an id-mapped mount shows files with the owners of the user namespace") {
    if (::geteuid() != 0) KUMIKI_SKIP("mounting takes root");
    const auto ids = make_user_namespace({{0, 100000, 65536}}, {{0, 200000, 65536}});
    // A detached tmpfs: nobody else sees it, and it goes with its descriptor.
    sys::filesystem_context context("tmpfs");
    const unique_fd tree = context.mount();
    sys::open_at(tree.get(), "file", O_CREAT | O_WRONLY, 0600);
    try {
        sys::set_mount_attributes(tree.get(), {.set = sys::mount_attr_idmap,
                                               .userns_fd = static_cast<std::uint64_t>(ids.get())});
    } catch (const error& failure) {
        if (failure.errno_value() == EINVAL) KUMIKI_SKIP("tmpfs has no id-mapped mounts (6.3)");
        throw;
    }
    struct stat info{};
    REQUIRE(::fstatat(tree.get(), "file", &info, 0) == 0);
    CHECK(info.st_uid == 100000);
    CHECK(info.st_gid == 200000);
}

TEST_CASE("a map that the kernel refuses is an error that names it, and leaves no child") {
    if (::geteuid() != 0) KUMIKI_SKIP("the caller's own ids must be mapped for this");
    const std::string before = children();
    // In a namespace that has one id, the next one cannot be mapped from.
    const pid_t child = ::fork();
    REQUIRE(child >= 0);
    if (child == 0) {
        int status = 1;
        try {
            const auto outer = make_user_namespace({{0, 0, 1}}, {{0, 0, 1}});
            outer.enter();
            status = 2;
            make_user_namespace({{0, 5, 1}}, {{0, 5, 1}});
        } catch (const error& failure) {
            const bool named = failure.object().find("/uid_map") != std::string::npos;
            if (status == 2 && failure.errno_value() == EPERM && named &&
                ::waitpid(-1, nullptr, __WALL) == -1)
                status = 0;
        }
        ::_exit(status);
    }
    int status = 0;
    REQUIRE(::waitpid(child, &status, 0) == child);
    CHECK(WIFEXITED(status));
    CHECK(WEXITSTATUS(status) == 0);
    CHECK(children() == before);
}

TEST_CASE("the limit on user namespaces is an error with a remedy") {
    if (::geteuid() != 0) KUMIKI_SKIP("setting the limit takes root");
    // The limit of a new user namespace is set inside it: the host's is not touched.
    const pid_t child = ::fork();
    REQUIRE(child >= 0);
    if (child == 0) {
        int status = 1;
        try {
            const auto outer = make_user_namespace({{0, 0, 4294967295U}}, {{0, 0, 4294967295U}});
            outer.enter();
            sys::write_file_at(AT_FDCWD, "/proc/sys/user/max_user_namespaces", "0");
            status = 2;
            make_user_namespace({{0, 0, 1}}, {{0, 0, 1}});
        } catch (const error& failure) {
            if (status == 2 && failure.errno_value() == ENOSPC && !failure.remedy().empty())
                status = 0;
        }
        ::_exit(status);
    }
    int status = 0;
    REQUIRE(::waitpid(child, &status, 0) == child);
    CHECK(WEXITSTATUS(status) == 0);
}

TEST_CASE("descriptors are not lost when many user namespaces are made") {
    if (::geteuid() != 0) KUMIKI_SKIP("mapping ids that are not one's own takes root");
    const auto lowest = [] { return unique_fd(::dup(0)).get(); };
    const int before = lowest();
    for (int i = 0; i < 50; ++i) make_user_namespace({{0, 100000, 1}}, {{0, 100000, 1}});
    CHECK(lowest() == before);
}
