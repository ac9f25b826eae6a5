#include <linux/magic.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>

#include <kumiki/sys/file.hpp>

#include "support/busybox.hpp"
#include "support/catch.hpp"
#include "support/failure.hpp"

using namespace kumiki;
namespace fs = std::filesystem;
using kumiki_test::errno_of;
using kumiki_test::temporary_directory;
using kumiki_test::write_text;

TEST_CASE("open_at opens with close-on-exec and names the path when it fails") {
    const temporary_directory place;
    write_text(place.path() + "/a", "text");
    const unique_fd fd = sys::open_at(AT_FDCWD, place.path() + "/a", O_RDONLY);
    CHECK((::fcntl(fd.get(), F_GETFD) & FD_CLOEXEC) != 0);
    try {
        sys::open_at(AT_FDCWD, place.path() + "/b", O_RDONLY);
        FAIL("nothing was thrown");
    } catch (const error& failure) {
        CHECK(failure.errno_value() == ENOENT);
        CHECK(failure.object() == place.path() + "/b");
    }
    const unique_fd made =
        sys::open_at(AT_FDCWD, place.path() + "/c", O_WRONLY | O_CREAT | O_EXCL, 0600);
    CHECK((sys::status_of(made.get()).st_mode & 0777) == 0600);
}

TEST_CASE("what is not there is an answer to try_open_at and try_read_file_at, and no error") {
    const temporary_directory place;
    write_text(place.path() + "/a", "text");
    CHECK(sys::try_open_at(AT_FDCWD, place.path() + "/a", O_RDONLY).has_value());
    CHECK_FALSE(sys::try_open_at(AT_FDCWD, place.path() + "/b", O_RDONLY));
    CHECK_FALSE(sys::try_open_at(AT_FDCWD, place.path() + "/a/b", O_RDONLY));
    CHECK(sys::try_read_file_at(AT_FDCWD, place.path() + "/a") == "text");
    CHECK_FALSE(sys::try_read_file_at(AT_FDCWD, place.path() + "/b"));
    fs::create_symlink("loop", place.path() + "/loop");
    CHECK(errno_of([&] { sys::try_open_at(AT_FDCWD, place.path() + "/loop", O_RDONLY); }) == ELOOP);
    CHECK(errno_of([&] { sys::try_read_file_at(AT_FDCWD, place.path() + "/loop"); }) == ELOOP);
}

TEST_CASE("a file is read whole, empty and large, and from the offset on") {
    const temporary_directory place;
    write_text(place.path() + "/empty", "");
    CHECK(sys::read_file_at(AT_FDCWD, place.path() + "/empty").empty());
    const std::string large(10000, 'x');
    write_text(place.path() + "/large", large);
    CHECK(sys::read_file_at(AT_FDCWD, place.path() + "/large") == large);
    const unique_fd fd = sys::open_at(AT_FDCWD, place.path() + "/large", O_RDONLY);
    REQUIRE(::lseek(fd.get(), 9990, SEEK_SET) == 9990);
    CHECK(sys::read_all(fd.get(), "large").size() == 10);
    CHECK(sys::read_file_at(AT_FDCWD, "/proc/self/stat").starts_with(std::to_string(::getpid())));
}

TEST_CASE("reading what is no file fails and names it") {
    CHECK(errno_of([] { sys::read_file_at(AT_FDCWD, "/proc"); }) == EISDIR);
    try {
        sys::read_all(-1, "the thing");
        FAIL("nothing was thrown");
    } catch (const error& failure) {
        CHECK(failure.errno_value() == EBADF);
        CHECK(failure.operation() == "read");
        CHECK(failure.object() == "the thing");
    }
}

TEST_CASE("a value is written in one piece, and a refused one is in the error") {
    const temporary_directory place;
    write_text(place.path() + "/a", "");
    sys::write_file_at(AT_FDCWD, place.path() + "/a", "value");
    CHECK(sys::read_file_at(AT_FDCWD, place.path() + "/a") == "value");
    CHECK(errno_of([&] { sys::write_file_at(AT_FDCWD, place.path() + "/b", "x"); }) == ENOENT);
    CHECK_FALSE(fs::exists(place.path() + "/b"));  // never makes a file
    try {
        sys::write_file_at(AT_FDCWD, "/proc/self/oom_score_adj", "much", "the score");
        FAIL("nothing was thrown");
    } catch (const error& failure) {
        CHECK(failure.errno_value() == EINVAL);
        CHECK(failure.operation() == "write 'much' to");
        CHECK(failure.object() == "the score");
    }
}

TEST_CASE("a device that is full, and a write that is taken in part, are errors") {
    CHECK(errno_of([] { sys::write_file_at(AT_FDCWD, "/dev/full", "x"); }) == ENOSPC);
    // Beyond the limit on the size of a file a write is cut short.
    const temporary_directory place;
    write_text(place.path() + "/a", "");
    const pid_t child = ::fork();
    REQUIRE(child >= 0);
    if (child == 0) {
        ::signal(SIGXFSZ, SIG_IGN);
        const rlimit four{4, 4};
        ::setrlimit(RLIMIT_FSIZE, &four);
        ::_exit(errno_of([&] { sys::write_file_at(AT_FDCWD, place.path() + "/a", "longer"); }));
    }
    int status = 0;
    REQUIRE(::waitpid(child, &status, 0) == child);
    CHECK(WEXITSTATUS(status) == EIO);
}

TEST_CASE("open_in_root takes symbolic links to lead to places inside") {
    const temporary_directory place;
    fs::create_directories(place.path() + "/root/etc");
    write_text(place.path() + "/root/etc/name", "inside");
    write_text(place.path() + "/name", "outside");
    fs::create_symlink("/etc/name", place.path() + "/root/absolute");
    fs::create_symlink("../../../name", place.path() + "/root/climbing");
    fs::create_symlink("/proc/self/exe", place.path() + "/root/dangling");
    const unique_fd root = sys::open_at(AT_FDCWD, place.path() + "/root", O_PATH | O_DIRECTORY);
    const auto read = [&](const char* path) {
        return sys::read_all(sys::open_in_root(root.get(), path, O_RDONLY).get(), path);
    };
    CHECK(read("absolute") == "inside");
    CHECK(read("/etc/name") == "inside");
    CHECK(read("../../etc/name") == "inside");
    CHECK(errno_of([&] { read("climbing"); }) == ENOENT);
    CHECK(errno_of([&] { read("dangling"); }) == ENOENT);
    const unique_fd slash = sys::open_at(AT_FDCWD, "/", O_PATH | O_DIRECTORY);
    CHECK(errno_of([&] { sys::open_in_root(slash.get(), "proc/self/exe", O_PATH); }) ==
          ELOOP);  // a magic link
}

TEST_CASE("open_beneath follows no symbolic link, climbs nowhere and crosses no mount") {
    const temporary_directory place;
    fs::create_directories(place.path() + "/a/b");
    write_text(place.path() + "/a/b/file", "text");
    fs::create_symlink("b", place.path() + "/a/link");
    const unique_fd root = sys::open_at(AT_FDCWD, place.path() + "/a", O_PATH | O_DIRECTORY);
    CHECK(sys::read_all(sys::open_beneath(root.get(), "b/file", O_RDONLY).get(), "f") == "text");
    struct refusal {
        const char* path;
        int code;
    };
    for (const auto& [path, code] :
         {refusal{"link/file", ELOOP}, refusal{"link", ELOOP}, refusal{"../a/b/file", EXDEV},
          refusal{"/etc/passwd", EXDEV}, refusal{"b/none", ENOENT}, refusal{"", ENOENT}}) {
        CAPTURE(path);
        CHECK(errno_of([&, p = path] { sys::open_beneath(root.get(), p, O_RDONLY); }) == code);
    }
    const unique_fd slash = sys::open_at(AT_FDCWD, "/", O_PATH | O_DIRECTORY);
    CHECK(errno_of([&] { sys::open_beneath(slash.get(), "proc/version", O_RDONLY); }) == EXDEV);
}

TEST_CASE("a descriptor tells its filesystem and its status, a closed one fails") {
    const unique_fd proc = sys::open_at(AT_FDCWD, "/proc", O_PATH);
    CHECK(sys::filesystem_magic(proc.get()) == PROC_SUPER_MAGIC);
    CHECK(S_ISDIR(sys::status_of(proc.get()).st_mode));
    CHECK(errno_of([] { sys::filesystem_magic(-1); }) == EBADF);
    CHECK(errno_of([] { sys::status_of(-1); }) == EBADF);
}
