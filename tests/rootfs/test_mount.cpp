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
