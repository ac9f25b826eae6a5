#include <string>
#include <vector>

#include <kumiki/rootfs/mount.hpp>

#include "support/catch.hpp"

using namespace kumiki;

TEST_CASE("the parts of a path in the container are without dots and empty ones") {
    using parts = std::vector<std::string_view>;
    CHECK(require_inside_path("x", "/").empty());
    CHECK(require_inside_path("x", "/a") == parts{"a"});
    CHECK(require_inside_path("x", "/a/b/c") == parts{"a", "b", "c"});
    CHECK(require_inside_path("x", "//a/./b///c/.") == parts{"a", "b", "c"});
    CHECK(require_inside_path("x", "/..a/b.. /...") == parts{"..a", "b.. ", "..."});
    const std::string longest = "/" + std::string(255, 'x');
    CHECK(require_inside_path("x", longest).front().size() == 255);
}

TEST_CASE("a path that leads out of the container, or nowhere, is refused") {
    for (const std::string& path :
         {std::string(), std::string("a"), std::string("./a"), std::string("../a"),
          std::string("/.."), std::string("/a/../b"), std::string("/a/.."), std::string("/a\0b", 4),
          "/" + std::string(256, 'x'), "/" + std::string(5000, '/')}) {
        CAPTURE(path);
        CHECK_THROWS_AS(require_inside_path("mount target", path), invalid_input);
    }
    try {
        require_inside_path("mount target", "/a/../b");
        FAIL("nothing was thrown");
    } catch (const error& failure) {
        CHECK(std::string(failure.what()).find("mount target '/a/../b'") != std::string::npos);
    }
}

TEST_CASE("a bind mount is read as the command lines of container tools have it") {
    const auto plain = parse_bind_mount("/host/dir:/inside");
    CHECK(plain.source == "/host/dir");
    CHECK(plain.target == "/inside");
    CHECK(plain.access == access_mode::read_write);
    CHECK(plain.depth == bind_depth::recursive);
    CHECK(parse_bind_mount("/a:/b:ro").access == access_mode::read_only);
    CHECK(parse_bind_mount("/a:/b:rw").access == access_mode::read_write);
}

TEST_CASE("text that is no bind mount is refused") {
    for (const char* text : {"", ":", "/a", "/a:", ":/b", "/a:b", "/a:../b", "/a:/b/../c",
                             "/a:/b:", "/a:/b:RO", "/a:/b:ro,rw", "/a:/b:ro:x", "/a:/b:z"}) {
        CAPTURE(text);
        CHECK_THROWS_AS(parse_bind_mount(text), invalid_input);
    }
}

namespace {

/// What `wanted` is refused as; empty when it is accepted.
std::string refusal(const mount_description& wanted) {
    try {
        validate(wanted);
    } catch (const error& failure) {
        return failure.operation();
    }
    return {};
}

}  // namespace

TEST_CASE("each kind of mount is accepted as it is by default") {
    CHECK(refusal(bind_mount{.source = "/etc", .target = "/a"}).empty());
    CHECK(refusal(tmpfs_mount{.target = "/a"}).empty());
    CHECK(refusal(file_mount{.target = "/a"}).empty());
    CHECK(refusal(overlay_mount{.target = "/a", .lowers = {"/etc"}}).empty());
    CHECK(refusal(device_mount{.target = "/dev/fuse", .major = 10, .minor = 229}).empty());
    CHECK(refusal(device_mount{.target = "/dev/null", .major = 1, .minor = 3}).empty());
    CHECK(refusal(symlink_entry{.target = "/a", .leads_to = "b"}).empty());
    CHECK(refusal(directory_entry{.target = "/a"}).empty());
}

TEST_CASE("every kind is refused at the root itself and at a path that leads out") {
    for (const char* target : {"/", "//.", "a", "/a/../b", ""}) {
        CAPTURE(target);
        CHECK(refusal(bind_mount{.source = "/etc", .target = target}) == "invalid mount target");
        CHECK(refusal(tmpfs_mount{.target = target}) == "invalid mount target");
        CHECK(refusal(file_mount{.target = target}) == "invalid mount target");
        CHECK(refusal(overlay_mount{.target = target}) == "invalid mount target");
        CHECK(refusal(device_mount{.target = target}) == "invalid mount target");
        CHECK(refusal(symlink_entry{.target = target}) == "invalid mount target");
        CHECK(refusal(directory_entry{.target = target}) == "invalid mount target");
    }
}

TEST_CASE("a mount that contradicts itself or has impossible bits is refused") {
    CHECK(refusal(bind_mount{.source = "/etc", .target = "/a", .clear = mount_flag::nodev}) ==
          "invalid bind mount");
    CHECK(refusal(bind_mount{.source = "/etc",
                             .target = "/a",
                             .ids = id_mapping{.users = {{0, 0, 1}}, .groups = {}}}) ==
          "invalid bind mount");
    CHECK(refusal(tmpfs_mount{.target = "/a", .mode = 04755}) == "invalid mode");
    CHECK(refusal(file_mount{.target = "/a", .mode = 04755}) == "invalid mode");
    CHECK(refusal(directory_entry{.target = "/a", .mode = 010000}) == "invalid mode");
    CHECK(refusal(symlink_entry{.target = "/a"}) == "invalid symbolic link");
    CHECK(refusal(symlink_entry{.target = "/a", .leads_to = std::string("a\0b", 3)}) ==
          "invalid symbolic link");
    CHECK(refusal(overlay_mount{.target = "/a"}) == "invalid rootfs");
    CHECK(refusal(overlay_mount{.target = "/a", .lowers = {"/nowhere"}}) == "open the rootfs");
}

TEST_CASE("a device is below /dev, has a possible number, and no other device's name") {
    CHECK(refusal(device_mount{.target = "/dev", .major = 1, .minor = 3}) == "invalid device");
    CHECK(refusal(device_mount{.target = "/devil/x", .major = 1}) == "invalid device");
    CHECK(refusal(device_mount{.target = "/dev/x", .major = 4096}) == "invalid device");
    CHECK(refusal(device_mount{.target = "/dev/x", .minor = 1U << 20}) == "invalid device");
    CHECK(refusal(device_mount{.target = "/dev/x", .mode = 01666}) == "invalid mode");
    CHECK(refusal(device_mount{.target = "/dev/zero", .major = 1, .minor = 3}) == "invalid device");
    CHECK(refusal(device_mount{
              .target = "/dev/null", .type = device_type::block, .major = 1, .minor = 3}) ==
          "invalid device");
    CHECK(refusal(device_mount{.target = "/dev/x/null", .major = 1, .minor = 5}).empty());
}
