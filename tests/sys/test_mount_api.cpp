#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <string>

#include <kumiki/sys/file.hpp>
#include <kumiki/sys/mount_api.hpp>
#include <kumiki/sys/own_thread.hpp>

#include "support/busybox.hpp"
#include "support/catch.hpp"
#include "support/failure.hpp"

using namespace kumiki;
namespace fs = std::filesystem;
using kumiki_test::failure_of;
using kumiki_test::temporary_directory;
using kumiki_test::write_text;

namespace {

/// Runs `function` in a mount namespace of its own, which goes with the thread.
template <class Function>
void in_own_mounts(Function&& function) {
    sys::on_own_thread([&] {
        sys::check(::unshare(CLONE_FS | CLONE_NEWNS), "unshare");
        sys::check(::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr), "make private");
        function();
    });
}

std::string text_at(int directory, const char* path) { return sys::read_file_at(directory, path); }

}  // namespace

TEST_CASE("a filesystem is made, written to and gone, without ever being seen") {
    const auto before = sys::read_file_at(AT_FDCWD, "/proc/self/mountinfo");
    sys::filesystem_context context("tmpfs");
    context.set("size", "64k");
    context.set("mode", "0711");
    const unique_fd mount = context.mount(sys::mount_attr_nosuid | sys::mount_attr_nodev);
    CHECK(sys::filesystem_magic(mount.get()) == sys::tmpfs_magic);
    CHECK((sys::status_of(mount.get()).st_mode & 07777) == 0711);
    const unique_fd file = sys::open_at(mount.get(), "a", O_WRONLY | O_CREAT, 0600);
    CHECK(::write(file.get(), "text", 4) == 4);
    CHECK(text_at(mount.get(), "a") == "text");
    CHECK(sys::read_file_at(AT_FDCWD, "/proc/self/mountinfo") == before);
}

TEST_CASE("a filesystem that the kernel lacks says how to get it") {
    const error failure = failure_of([] { sys::filesystem_context("nosuchfs"); });
    CHECK(failure.errno_value() == ENODEV);
    CHECK(failure.object() == "nosuchfs");
    CHECK(failure.remedy().find("modprobe nosuchfs") != std::string::npos);
}

TEST_CASE("a refused option is in the error, with what the filesystem says of it") {
    sys::filesystem_context context("tmpfs");
    const error option = failure_of([&] { context.set("colour", "blue"); });
    CHECK(option.errno_value() == EINVAL);
    CHECK(option.operation() == "configure tmpfs");
    CHECK(option.object() == "colour=blue");
    CHECK(option.remedy().find("colour") != std::string::npos);
    CHECK(failure_of([&] { context.set("blue"); }).object() == "blue");
}

TEST_CASE("a superblock that cannot be made fails at the mount") {
    sys::filesystem_context context("overlay");
    context.set("lowerdir", "/");
    context.set("upperdir", "/proc");  // no upper layer lives on procfs
    context.set("workdir", "/proc");
    CHECK(failure_of([&] { context.mount(); }).errno_value() == EINVAL);
}

TEST_CASE("a copy of a mount is attached elsewhere with attributes of its own") {
    const temporary_directory place;
    fs::create_directory(place.path() + "/from");
    fs::create_directory(place.path() + "/to");
    write_text(place.path() + "/from/a", "text");
    in_own_mounts([&] {
        const unique_fd copy = sys::clone_mount(AT_FDCWD, place.path() + "/from");
        sys::set_mount_attributes(copy.get(), {.set = sys::mount_attr_rdonly});
        const unique_fd target = sys::open_at(AT_FDCWD, place.path() + "/to", O_PATH);
        sys::attach_mount(copy.get(), target.get(), place.path() + "/to");
        CHECK(text_at(AT_FDCWD, (place.path() + "/to/a").c_str()) == "text");
        CHECK(failure_of([&] {
                  sys::open_at(AT_FDCWD, place.path() + "/to/b", O_WRONLY | O_CREAT, 0600);
              }).errno_value() == EROFS);
        write_text(place.path() + "/from/b", "the original is as it was");
    });
    CHECK(fs::exists(place.path() + "/from/b"));
    CHECK_FALSE(fs::exists(place.path() + "/to/a"));  // the namespace is gone, and the mount
}

TEST_CASE("a copy with what is mounted below shows it, a single one does not") {
    const temporary_directory place;
    fs::create_directory(place.path() + "/below");
    in_own_mounts([&] {
        sys::check(::mount("tmpfs", (place.path() + "/below").c_str(), "tmpfs", 0, nullptr),
                   "mount");
        write_text(place.path() + "/below/a", "text");
        const unique_fd all = sys::clone_mount(AT_FDCWD, place.path(), sys::at_recursive);
        CHECK(text_at(all.get(), "below/a") == "text");
        const unique_fd one = sys::clone_mount(AT_FDCWD, place.path());
        CHECK_FALSE(sys::try_read_file_at(one.get(), "below/a"));
    });
}

TEST_CASE("each mount call names what it failed on") {
    const error copy = failure_of([] { sys::clone_mount(AT_FDCWD, "/nowhere"); });
    CHECK(copy.errno_value() == ENOENT);
    CHECK(copy.object() == "/nowhere");
    CHECK(failure_of([] {
              sys::set_mount_attributes(-1, {.set = sys::mount_attr_rdonly});
          }).errno_value() == EBADF);
    // Attributes that the kernel does not know.
    sys::filesystem_context context("tmpfs");
    const unique_fd mount = context.mount();
    CHECK(failure_of([&] {
              sys::set_mount_attributes(mount.get(), {.set = std::uint64_t{1} << 60});
          }).errno_value() == EINVAL);
    const error attach = failure_of([&] { sys::attach_mount(mount.get(), -1, "the place"); });
    CHECK(attach.errno_value() == EBADF);
    CHECK(attach.object() == "the place");
    // A directory does not go on a file.
    const temporary_directory place;
    write_text(place.path() + "/file", "");
    in_own_mounts([&] {
        sys::filesystem_context own("tmpfs");
        const unique_fd directory = own.mount();
        const unique_fd file = sys::open_at(AT_FDCWD, place.path() + "/file", O_PATH);
        CHECK(failure_of([&] {
                  sys::attach_mount(directory.get(), file.get(), "file");
              }).errno_value() == EINVAL);
    });
}
