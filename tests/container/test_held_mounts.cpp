#include <sched.h>
#include <sys/mount.h>

#include <filesystem>
#include <string>

#include <kumiki/container/held_mounts.hpp>
#include <kumiki/ns/user_namespace.hpp>
#include <kumiki/sys/own_thread.hpp>

#include "support/busybox.hpp"
#include "support/catch.hpp"
#include "support/failure.hpp"

using namespace kumiki;
namespace fs = std::filesystem;
using detail::hold_mount;
using kumiki_test::failure_of;
using kumiki_test::temporary_directory;
using kumiki_test::write_text;

namespace {

/// Whether a file can be made in the mount.
bool takes_writes(int mount) {
    return !failure_of([&] {
                sys::open_at(mount, "probe", O_WRONLY | O_CREAT, 0600);
            }).errno_value();
}

}  // namespace

TEST_CASE("a held mount shows its source, knows what it is, and is nowhere to be seen") {
    const temporary_directory place;
    write_text(place.path() + "/a", "text");
    const auto before = sys::read_file_at(AT_FDCWD, "/proc/self/mountinfo");
    const auto directory = hold_mount({.source = place.path(), .target = "/x"});
    CHECK(directory.directory);
    CHECK(directory.target == "/x");
    CHECK(sys::read_file_at(directory.mount.get(), "a") == "text");
    CHECK_FALSE(hold_mount({.source = place.path() + "/a", .target = "/x"}).directory);
    CHECK(sys::read_file_at(AT_FDCWD, "/proc/self/mountinfo") == before);
}

TEST_CASE("a read-only copy refuses writes, also below, and its source does not") {
    const temporary_directory place;
    fs::create_directory(place.path() + "/below");
    sys::on_own_thread([&] {
        sys::check(::unshare(CLONE_FS | CLONE_NEWNS), "unshare");
        sys::check(::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr), "make private");
        sys::check(::mount("tmpfs", (place.path() + "/below").c_str(), "tmpfs", 0, nullptr),
                   "mount");
        const auto held =
            hold_mount({.source = place.path(), .target = "/x", .access = access_mode::read_only});
        CHECK_FALSE(takes_writes(held.mount.get()));
        const auto below = sys::open_at(held.mount.get(), "below", O_PATH | O_DIRECTORY);
        CHECK(sys::filesystem_magic(below.get()) == sys::tmpfs_magic);
        CHECK_FALSE(takes_writes(below.get()));
        const auto single =
            hold_mount({.source = place.path(), .target = "/x", .depth = bind_depth::single});
        CHECK(takes_writes(single.mount.get()));
        const auto empty = sys::open_at(single.mount.get(), "below", O_PATH | O_DIRECTORY);
        CHECK_FALSE(fs::exists("/proc/self/fd/" + std::to_string(empty.get()) + "/probe"));
    });
    CHECK(fs::exists(place.path() + "/probe"));
}

TEST_CASE("owners are shown through the user namespace of an id-mapped copy") {
    const temporary_directory place;
    write_text(place.path() + "/a", "");
    const auto users = make_user_namespace({{0, 100000, 65536}}, {{0, 100000, 65536}});
    try {
        const auto held = hold_mount(place.path(), "/", {.attributes = 0, .idmap = users.get()});
        const auto file = sys::open_at(held.mount.get(), "a", O_PATH);
        CHECK(sys::status_of(file.get()).st_uid == 100000);
    } catch (const error& failure) {
        CHECK(failure.remedy().find("id-mapped") != std::string::npos);
        KUMIKI_SKIP("the filesystem of /tmp has no id-mapped mounts");
    }
}

TEST_CASE("a source that cannot be held is refused by its name") {
    CHECK(failure_of([] { hold_mount({.source = "/nowhere", .target = "/x"}); }).object() ==
          "/nowhere");
    CHECK(failure_of([] { hold_mount({.source = "/nowhere", .target = "/x"}); }).errno_value() ==
          ENOENT);
    CHECK_THROWS_AS(hold_mount({.source = "", .target = "/x"}), invalid_input);
    CHECK_THROWS_AS(hold_mount({.source = "etc", .target = "/x"}), invalid_input);
    CHECK_THROWS_AS(hold_mount({.source = std::string("/a\0b", 4), .target = "/x"}), invalid_input);
    const auto users = make_user_namespace({{0, 100000, 65536}}, {{0, 100000, 65536}});
    const error mapped =
        failure_of([&] { hold_mount("/proc/sys", "/", {.attributes = 0, .idmap = users.get()}); });
    CHECK(mapped.errno_value() == EINVAL);  // procfs has none
    CHECK(mapped.object() == "/proc/sys");
    CHECK(mapped.remedy().find("id-mapped") != std::string::npos);
}
