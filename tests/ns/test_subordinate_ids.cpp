#include <sys/stat.h>

#include <kumiki/ns/subordinate_ids.hpp>

#include "ns/support.hpp"
#include "support/catch.hpp"
#include "support/scratch.hpp"

using namespace kumiki_test;

TEST_CASE("the ranges of a user are found by its whole name or its number, in their order") {
    const char* text =
        "alice:100000:65536\nali:1:1\nbob:165536:65536\n\n1000:300000:10\nalice:500000:7\n"
        "carol:broken\n";
    using spans = std::vector<id_span>;
    CHECK(parse_subordinate_ids(text, "alice", 4) == spans{{100000, 65536}, {500000, 7}});
    CHECK(parse_subordinate_ids(text, "ali", 4) == spans{{1, 1}});
    CHECK(parse_subordinate_ids(text, "dave", 1000) == spans{{300000, 10}});
    CHECK(parse_subordinate_ids(text, "al", 100).empty());
    CHECK(parse_subordinate_ids("", "alice", 4).empty());
}

TEST_CASE("a line of the user's that cannot be right is refused") {
    const auto line =
        GENERATE(as<std::string>(), "a:1", "a:1:2:3", "a::1", "a:1:", "a:x:1", "a:1:0", "a:-1:5",
                 "a:4294967295:1", "a:4294967290:10", "a:4294967296:1", "a:1:1x");
    CAPTURE(line);
    CHECK_THROWS_AS(parse_subordinate_ids(line, "a", 1), invalid_input);
}

TEST_CASE("a map of subordinate ids has root first, and refuses ranges that overlap") {
    CHECK(map_subordinate_ids(1000, {{100000, 10}, {200000, 5}}) ==
          id_map{{0, 1000, 1}, {1, 100000, 10}, {11, 200000, 5}});
    CHECK(map_subordinate_ids(1000, {}) == id_map{{0, 1000, 1}});
    CHECK_THROWS_AS(map_subordinate_ids(1000, {{999, 2}}), invalid_input);
    CHECK_THROWS_AS(map_subordinate_ids(1000, {{5000, 10}, {5009, 10}}), invalid_input);
    CHECK_THROWS_AS(map_subordinate_ids(1, {{2, 4294967000U}, {4294967002U, 290}, {10, 5}}),
                    invalid_input);
}

TEST_CASE("the programs are called with the ranges and nothing of the environment") {
    const scratch directory;
    const std::string program = directory.path() + "/map";
    const std::string said = directory.path() + "/said";
    const auto make = [&](const std::string& script) {
        sys::open_at(AT_FDCWD, program, O_CREAT | O_WRONLY, 0700);
        ::unlink(program.c_str());
        sys::open_at(AT_FDCWD, program, O_CREAT | O_WRONLY, 0700);
        sys::write_file_at(AT_FDCWD, program, script);
    };
    make("#!/bin/sh\necho \"$@\" >> " + said + "\necho \"home ${HOME-none}\" >> " + said + "\n");
    write_id_maps_with({program, program}, 4711, {{0, 1000, 1}, {1, 100000, 65536}},
                       {{0, 1001, 1}});
    CHECK(sys::read_file_at(AT_FDCWD, said) ==
          "4711 0 1000 1 1 100000 65536\nhome none\n4711 0 1001 1\nhome none\n");

    SECTION("what one says when it refuses is in the error") {
        make("#!/bin/sh\necho 'uid range not allowed' >&2\nexit 1\n");
        try {
            write_id_maps_with({program, program}, 4711, {{0, 1000, 1}}, {});
            FAIL("no error");
        } catch (const error& failure) {
            CHECK(failure.errno_value() == EPERM);
            CHECK(failure.object() == program);
            CHECK(failure.remedy().find("uid range not allowed") != std::string::npos);
        }
    }
    SECTION("and one that is not installed is an error that says what to install") {
        try {
            write_id_maps_with({directory.path() + "/none", program}, 4711, {{0, 1000, 1}}, {});
            FAIL("no error");
        } catch (const error& failure) {
            CHECK(failure.errno_value() == ENOENT);
            CHECK(failure.remedy().find("uidmap") != std::string::npos);
        }
    }
}

TEST_CASE("an ordinary user with subordinate ids maps them by the real programs") {
    const std::string newuidmap = map_programs{}.newuidmap;
    if (::access(newuidmap.c_str(), X_OK) != 0) KUMIKI_SKIP("newuidmap is not installed");
    const auto text = sys::try_read_file_at(AT_FDCWD, "/etc/subuid").value_or("");
    const auto spans = parse_subordinate_ids(text, "root", 0);
    if (::geteuid() != 0 || spans.empty()) KUMIKI_SKIP("root has no subordinate ids here");
    const paused_child inside(namespace_kind::user);
    const auto map = map_subordinate_ids(0, spans);
    write_id_maps_with({}, inside.pid(), map, {});
    CHECK(id_map::parse(sys::read_file_at(
              AT_FDCWD, "/proc/" + std::to_string(inside.pid()) + "/uid_map")) == map);
}
