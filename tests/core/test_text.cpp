#include <cstdint>
#include <limits>

#include <kumiki/core/text.hpp>

#include "support/catch.hpp"

using namespace kumiki;
using namespace std::string_view_literals;

TEST_CASE("whole numbers of every width are parsed up to their limits") {
    CHECK(parse_number<std::uint8_t>("255") == 255);
    CHECK(parse_number<std::int8_t>("-128") == -128);
    CHECK(parse_number<std::uint16_t>("65535") == 65535);
    CHECK(parse_number<std::int32_t>("-2147483648") == std::numeric_limits<std::int32_t>::min());
    CHECK(parse_number<std::uint32_t>("4294967295") == 4294967295U);
    CHECK(parse_number<std::int64_t>("9223372036854775807") ==
          std::numeric_limits<std::int64_t>::max());
    CHECK(parse_number<std::int64_t>("-9223372036854775808") ==
          std::numeric_limits<std::int64_t>::min());
    CHECK(parse_number<std::uint64_t>("18446744073709551615") ==
          std::numeric_limits<std::uint64_t>::max());
    CHECK(parse_number<int>("0") == 0);
    CHECK(parse_number<int>("-0") == 0);
    CHECK(parse_number<int>("007") == 7);
}

TEST_CASE("a number past its limit is refused and does not wrap") {
    CHECK_FALSE(parse_number<std::uint8_t>("256"));
    CHECK_FALSE(parse_number<std::int8_t>("128"));
    CHECK_FALSE(parse_number<std::int8_t>("-129"));
    CHECK_FALSE(parse_number<std::uint16_t>("65536"));
    CHECK_FALSE(parse_number<std::uint32_t>("4294967296"));  // would be uid 0
    CHECK_FALSE(parse_number<std::uint32_t>("8589934592"));
    CHECK_FALSE(parse_number<std::int32_t>("2147483648"));
    CHECK_FALSE(parse_number<std::int64_t>("9223372036854775808"));
    CHECK_FALSE(parse_number<std::int64_t>("-9223372036854775809"));
    CHECK_FALSE(parse_number<std::uint64_t>("18446744073709551616"));
    CHECK_FALSE(parse_number<std::uint64_t>("99999999999999999999999999999999"));
}

TEST_CASE("what is not all of it a number is refused") {
    const auto text =
        GENERATE(as<std::string_view>(), "", " ", "-", "--1", "+1", " 1", "1 ", "1\n", "\t1", "1x",
                 "x1", "0x10", "1.0", "1e3", "1,000", "1_000", "one", "\xd9\xa1", "1\0"sv, "\0"sv);
    CAPTURE(text);
    CHECK_FALSE(parse_number<int>(text));
    CHECK_FALSE(parse_number<std::uint64_t>(text));
    CHECK_THROWS_AS(require_number<int>("count", text), invalid_input);
}

TEST_CASE("a minus sign is refused for unsigned numbers") {
    CHECK_FALSE(parse_number<std::uint32_t>("-1"));
    CHECK_FALSE(parse_number<std::uint64_t>("-0"));
}

TEST_CASE("numbers are parsed in other bases, with that base's digits only") {
    CHECK(parse_number<unsigned>("ff", 16) == 255U);
    CHECK(parse_number<unsigned>("FF", 16) == 255U);
    CHECK(parse_number<unsigned>("777", 8) == 511U);
    CHECK(parse_number<unsigned>("101", 2) == 5U);
    CHECK_FALSE(parse_number<unsigned>("8", 8));
    CHECK_FALSE(parse_number<unsigned>("2", 2));
    CHECK_FALSE(parse_number<unsigned>("a", 10));
    CHECK_FALSE(parse_number<unsigned>("g", 16));
    CHECK_FALSE(parse_number<unsigned>("0xff", 16));
    CHECK_FALSE(parse_number<std::uint16_t>("10000", 16));
}

static_assert(parse_number<int>("42") == 42, "usable at compile time");

TEST_CASE("a required number that is none is an error that names it") {
    CHECK(require_number<int>("uid", "1000") == 1000);
    try {
        require_number<std::uint32_t>("uid", "4294967296");
        FAIL("it was accepted");
    } catch (const invalid_input& refused) {
        CHECK(std::string(refused.what()) ==
              "invalid uid '4294967296': It must be a whole decimal number in range.");
    }
}

TEST_CASE("trim takes blanks off both ends and leaves those inside") {
    CHECK(trim("  a b \n") == "a b");
    CHECK(trim("\r\n\t x\t") == "x");
    CHECK(trim("x") == "x");
    CHECK(trim("").empty());
    CHECK(trim(" \t\r\n").empty());
}

TEST_CASE("fields are taken off the front, empty ones between separators too") {
    std::string_view rest = "a,,b,";
    CHECK(next_field(rest, ',') == "a");
    CHECK(next_field(rest, ',') == "");
    CHECK(next_field(rest, ',') == "b");
    CHECK_FALSE(next_field(rest, ','));
    rest = "";
    CHECK_FALSE(next_field(rest, ','));
    rest = ",";
    CHECK(next_field(rest, ',') == "");
    CHECK_FALSE(next_field(rest, ','));
}

TEST_CASE("split keeps every field, also at the ends") {
    using fields = std::vector<std::string_view>;
    CHECK(split("a:b", ':') == fields{"a", "b"});
    CHECK(split(":a:", ':') == fields{"", "a", ""});
    CHECK(split("", ':') == fields{""});
    CHECK(split("ab", ':') == fields{"ab"});
    CHECK(split("::", ':') == fields{"", "", ""});
}

TEST_CASE("a flat-keyed file's value is found by its whole key") {
    constexpr auto events =
        "low 0\nhigh 7\nmax 12\noom 1\noom_kill 3\nlast 18446744073709551615\n"sv;
    CHECK(flat_value(events, "oom") == 1U);
    CHECK(flat_value(events, "oom_kill") == 3U);
    CHECK(flat_value(events, "last") == std::numeric_limits<std::uint64_t>::max());
    CHECK_FALSE(flat_value(events, "oo"));
    CHECK_FALSE(flat_value(events, "kill"));
    CHECK_FALSE(flat_value(events, "oom_kill_"));
    CHECK_FALSE(flat_value("", "oom"));
    CHECK_FALSE(flat_value("oom\n", "oom"));
    CHECK_FALSE(flat_value("oom \n", "oom"));
    CHECK_FALSE(flat_value("oom x\n", "oom"));
    CHECK_FALSE(flat_value("oom 18446744073709551616\n", "oom"));
    CHECK(flat_value("oom 5", "oom") == 5U);
}

TEST_CASE("octal escapes become their bytes") {
    CHECK(unescape_octal("/a\\040b") == "/a b");
    CHECK(unescape_octal("\\011\\012\\134\\043") == "\t\n\\#");
    CHECK(unescape_octal("plain") == "plain");
    CHECK(unescape_octal("").empty());
    CHECK(unescape_octal("\\377") == "\xff");
}

TEST_CASE("what is no octal escape stays as it is") {
    const auto text = GENERATE(as<std::string>(), "\\", "\\0", "\\04", "\\400", "\\777", "\\08a",
                               "\\x41", "a\\", "\\\\");
    CAPTURE(text);
    CHECK(unescape_octal(text) == text);
}

TEST_CASE("a path component is one name") {
    CHECK(is_path_component("web"));
    CHECK(is_path_component("..."));
    CHECK(is_path_component(".hidden"));
    CHECK(is_path_component("-"));
    CHECK(is_path_component(std::string(255, 'a')));
    CHECK_FALSE(is_path_component(std::string(256, 'a')));
    CHECK_FALSE(is_path_component(""));
    CHECK_FALSE(is_path_component("."));
    CHECK_FALSE(is_path_component(".."));
    CHECK_FALSE(is_path_component("/"));
    CHECK_FALSE(is_path_component("a/b"));
    CHECK_FALSE(is_path_component("../a"));
    CHECK_FALSE(is_path_component("a/"));
    CHECK_FALSE(is_path_component("a\0b"sv));
}

TEST_CASE("a path is within a directory by components") {
    CHECK(is_path_within("/a", "/a"));
    CHECK(is_path_within("/a/b", "/a"));
    CHECK(is_path_within("/a/b", "/a/"));
    CHECK(is_path_within("/a", "/"));
    CHECK(is_path_within("/", "/"));
    CHECK(is_path_within("/a", "//"));
    CHECK_FALSE(is_path_within("/a-b", "/a"));
    CHECK_FALSE(is_path_within("/", "/a"));
    CHECK_FALSE(is_path_within("/b", "/a"));
    CHECK_FALSE(is_path_within("a", "/"));
}

TEST_CASE("text for the kernel has no NUL byte and fits") {
    CHECK_NOTHROW(require_c_string("path", "/a"));
    CHECK_NOTHROW(require_c_string("path", ""));
    CHECK_NOTHROW(require_c_string("path", std::string(4095, 'a')));
    CHECK_THROWS_AS(require_c_string("path", std::string(4096, 'a')), invalid_input);
    CHECK_THROWS_AS(require_c_string("path", "/a\0/b"sv), invalid_input);
    CHECK_THROWS_AS(require_c_string("path", "\0"sv), invalid_input);
    CHECK_NOTHROW(require_c_string("name", "fifteen bytes..", 16));
    CHECK_THROWS_AS(require_c_string("name", "sixteen bytes...", 16), invalid_input);
}
