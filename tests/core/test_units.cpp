#include <limits>

#include <kumiki/core/units.hpp>

#include "support/catch.hpp"

using namespace kumiki;
using namespace kumiki::literals;
using namespace std::string_view_literals;

static_assert(64_MiB == bytes{67108864});
static_assert(1_GiB == 1024_MiB);
static_assert(1_KiB == 1024_B);
static_assert((1_KiB + 1_B).count == 1025);
static_assert(1_KiB < 1_MiB);

TEST_CASE("sizes are parsed with and without a suffix, in powers of 1024") {
    CHECK(parse_bytes("0") == 0_B);
    CHECK(parse_bytes("4096") == 4_KiB);
    CHECK(parse_bytes("12b") == 12_B);
    CHECK(parse_bytes("64k") == 64_KiB);
    CHECK(parse_bytes("64K") == 64_KiB);
    CHECK(parse_bytes("64M") == 64_MiB);
    CHECK(parse_bytes("64MB") == 64_MiB);
    CHECK(parse_bytes("64MiB") == 64_MiB);
    CHECK(parse_bytes("64mib") == 64_MiB);
    CHECK(parse_bytes("2g") == 2_GiB);
    CHECK(parse_bytes("1T") == bytes{1ULL << 40});
    CHECK(parse_bytes("1P") == bytes{1ULL << 50});
    CHECK(parse_bytes("007k") == 7_KiB);
}

TEST_CASE("the largest size is 2^63 - 1 bytes") {
    CHECK(parse_bytes("9223372036854775807").count == 9223372036854775807ULL);
    CHECK(parse_bytes("8191P").count == 8191ULL << 50);
    CHECK_THROWS_AS(parse_bytes("9223372036854775808"), invalid_input);
    CHECK_THROWS_AS(parse_bytes("8192P"), invalid_input);
    CHECK_THROWS_AS(parse_bytes("9007199254740992k"), invalid_input);
    CHECK_THROWS_AS(parse_bytes("18446744073709551616"), invalid_input);
    CHECK_THROWS_AS(parse_bytes("17179869184G"), invalid_input);  // 2^64: would wrap to 0
}

TEST_CASE("a size that is not one is refused, with its text in the error") {
    const auto text =
        GENERATE(as<std::string_view>(), "", " ", "M", "MiB", "b", "-1", "+1", "-1M", " 64M",
                 "64M ", "64 M", "64\n", "6 4", "1.5G", "64Mi", "64MM", "64Mb/s", "64X", "64E",
                 "64iB", "64Bi", "64bb", "0x40", "1e6", "1_000", "1,5k", "max", "64M\0"sv);
    CAPTURE(text);
    try {
        parse_bytes(text);
        FAIL("it was accepted");
    } catch (const invalid_input& refused) {
        CHECK(refused.object() == "'" + std::string(text) + "'");
        CHECK_FALSE(refused.remedy().empty());
    }
}

TEST_CASE("processors are parsed as a decimal fraction") {
    CHECK(parse_cpus("0.5") == cpus(0.5));
    CHECK(parse_cpus("2") == cpus(2));
    CHECK(parse_cpus(".5") == cpus(0.5));
    CHECK(parse_cpus("0.01") == cpus(0.01));
    CHECK(parse_cpus("1000000") == cpus(1e6));
}

TEST_CASE("a number of processors that is not one is refused") {
    const auto text =
        GENERATE(as<std::string_view>(), "", " ", ".", "0", "0.0", "0.009", "-0.5", "-1", "+1",
                 "1e3", "1E1", "0x1", "inf", "nan", "-inf", "1000001", " 1", "1 ", "1,5", "1.5.2",
                 "two", "1%", "0.5\n", "max", "99999999999999999999999999999999");
    CAPTURE(text);
    CHECK_THROWS_AS(parse_cpus(text), invalid_input);
}

TEST_CASE("processors outside what the kernel can do are refused from numbers too") {
    const auto count =
        GENERATE(0.0, -1.0, 0.0099, 1000000.1, std::numeric_limits<double>::infinity(),
                 std::numeric_limits<double>::quiet_NaN());
    CAPTURE(count);
    CHECK_THROWS_AS(cpus(count), invalid_input);
}

TEST_CASE("sizes are shown with a unit that people read") {
    CHECK(to_string(0_B) == "0 B");
    CHECK(to_string(1023_B) == "1023 B");
    CHECK(to_string(1_KiB) == "1 KiB");
    CHECK(to_string(64_MiB) == "64 MiB");
    CHECK(to_string(1536_MiB) == "1.5 GiB");
    CHECK(to_string(bytes{std::numeric_limits<std::uint64_t>::max()}) == "16 EiB");
}
