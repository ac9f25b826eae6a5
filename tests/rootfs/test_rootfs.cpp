#include <filesystem>
#include <string>

#include <kumiki/rootfs/rootfs.hpp>

#include "support/busybox.hpp"
#include "support/catch.hpp"

using namespace kumiki;
using namespace kumiki::literals;
using kumiki_test::temporary_directory;
using kumiki_test::write_text;

namespace {

int failure_of(const rootfs& root) {
    try {
        root.validate();
    } catch (const error& failure) {
        return failure.errno_value();
    }
    return -1;
}

}  // namespace

TEST_CASE("a directory is the root itself, to be written to unless it is said") {
    const auto plain = rootfs::directory("/srv/box");
    CHECK_FALSE(plain.is_overlay());
    CHECK_FALSE(plain.is_read_only());
    CHECK(plain.layers() == std::vector<std::string>{"/srv/box"});
    CHECK(rootfs::directory("/srv/box", access_mode::read_only).is_read_only());
    CHECK(rootfs::directory("/srv/box").read_only().is_read_only());
}

TEST_CASE("an overlay keeps its layers in their order, and its changes in a tmpfs by default") {
    const auto one = rootfs::overlay("/srv/base");
    CHECK(one.is_overlay());
    CHECK(one.layers() == std::vector<std::string>{"/srv/base"});
    CHECK(one.upper().upper.empty());
    CHECK(one.upper().size == 256_MiB);
    const auto two = rootfs::overlay(std::vector<std::string>{"/top", "/base"},
                                     {.upper = "/upper", .work = "/work"});
    CHECK(two.layers() == std::vector<std::string>{"/top", "/base"});
    CHECK(two.upper().upper == "/upper");
    CHECK(rootfs::overlay("/srv/base").read_only().is_read_only());
}

TEST_CASE("a root that is there is accepted") {
    const temporary_directory place;
    const std::string upper = place.path() + "/upper";
    const std::string work = place.path() + "/work";
    std::filesystem::create_directory(upper);
    std::filesystem::create_directory(work);
    CHECK(failure_of(rootfs::directory(place.path())) == -1);
    CHECK(failure_of(rootfs::overlay(place.path())) == -1);
    CHECK(failure_of(rootfs::overlay("/etc", {.upper = upper, .work = work})) == -1);
    CHECK(failure_of(rootfs::assembled()) == -1);
    CHECK(failure_of(rootfs::assembled({.mode = 01777})) == -1);
}

TEST_CASE("an assembled root is of no layers, and has a size and a mode") {
    const auto root = rootfs::assembled({.size = 2_MiB, .mode = 0711});
    REQUIRE(root.assembled_as());
    CHECK(root.assembled_as()->size == 2_MiB);
    CHECK(root.assembled_as()->mode == 0711);
    CHECK_FALSE(root.is_overlay());
    CHECK(root.layers().empty());
    CHECK(rootfs::assembled().read_only().is_read_only());
    CHECK_FALSE(rootfs::overlay("/srv/base").assembled_as());
}

TEST_CASE("upper and work directory are two, apart, on one filesystem") {
    const temporary_directory place;
    const std::string upper = place.path() + "/upper";
    std::filesystem::create_directories(upper + "/work");
    std::filesystem::create_symlink(upper, place.path() + "/alias");
    CHECK(failure_of(rootfs::overlay("/etc", {.upper = upper, .work = upper})) == 0);
    CHECK(failure_of(rootfs::overlay("/etc", {.upper = upper, .work = upper + "/work"})) == 0);
    CHECK(failure_of(rootfs::overlay("/etc", {.upper = upper + "/work", .work = upper})) == 0);
    CHECK(failure_of(rootfs::overlay("/etc", {.upper = upper, .work = place.path() + "/alias/"})) ==
          0);
    try {
        rootfs::overlay("/etc", {.upper = upper, .work = "/dev/shm"}).validate();
        FAIL("nothing was thrown");
    } catch (const error& failure) {
        CHECK(failure.operation() == "invalid work directory");
        CHECK(failure.object() == "'/dev/shm'");
        CHECK(failure.remedy().find(upper) != std::string::npos);
    }
}

TEST_CASE("a root that cannot be one is refused, by its name") {
    const temporary_directory place;
    const std::string file = place.path() + "/file";
    write_text(file, "");
    struct refusal {
        rootfs root;
        int code;  ///< 0: refused before the kernel was asked
    };
    const std::string good = place.path();
    const refusal refusals[] = {
        {rootfs{}, 0},
        {rootfs::directory(""), 0},
        {rootfs::directory("relative/dir"), 0},
        {rootfs::directory(std::string("/a\0b", 4)), 0},
        {rootfs::directory("/" + std::string(5000, 'x')), 0},
        {rootfs::directory("/nowhere"), ENOENT},
        {rootfs::directory(file), ENOTDIR},
        {rootfs::directory("/" + std::string(300, 'x')), ENAMETOOLONG},
        {rootfs::overlay(std::vector<std::string>{}), 0},
        {rootfs::overlay(std::vector<std::string>(501, good)), 0},
        {rootfs::assembled({.mode = 07777}), 0},
        {rootfs::overlay(std::vector<std::string>{good, "/nowhere"}), ENOENT},
        {rootfs::overlay(good, {.upper = good}), 0},
        {rootfs::overlay(good, {.work = good}), 0},
        {rootfs::overlay(good, {.upper = "/nowhere", .work = good}), ENOENT},
        {rootfs::overlay(good, {.upper = good, .work = file}), ENOTDIR},
        {rootfs::overlay(good, {.upper = good, .work = "work"}), 0},
    };
    for (const auto& each : refusals) {
        CAPTURE(each.root.layers().empty() ? "no layer" : each.root.layers().back());
        CHECK(failure_of(each.root) == each.code);
    }
    try {
        rootfs::overlay(good, {.upper = good, .work = "/nowhere"}).validate();
        FAIL("nothing was thrown");
    } catch (const error& failure) {
        CHECK(failure.operation() == "open the work directory");
        CHECK(failure.object() == "/nowhere");
        CHECK(failure.remedy() == "It does not exist.");
    }
}

TEST_CASE("a root that is a symbolic link itself is followed only when that is asked for") {
    const temporary_directory place;
    const std::string link = place.path() + "/link";
    REQUIRE(::symlink("/etc", link.c_str()) == 0);
    for (const auto& root : {rootfs::directory(link), rootfs::overlay(link)}) {
        try {
            root.validate();
            FAIL("nothing was thrown");
        } catch (const error& failure) {
            CHECK(failure.step() == "root");
            CHECK(failure.object() == link);
            CHECK(failure.remedy().find("symbolic link") != std::string::npos);
        }
    }
    CHECK(failure_of(rootfs::directory(link + "/")) == -1);
}
