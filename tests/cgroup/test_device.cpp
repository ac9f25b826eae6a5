#include <unistd.h>

#include <kumiki/cgroup/device.hpp>

#include "support/catch.hpp"

using namespace kumiki;

TEST_CASE("devices are known by the files that stand for them") {
    CHECK(device_number::of("/dev/null") == device_number{1, 3});
    CHECK(device_number::of("/dev/null", device_kind::character) == device_number{1, 3});
    CHECK_THROWS_AS(device_number::of("/dev/null", device_kind::block), invalid_input);
    CHECK_THROWS_AS(device_number::of("/dev"), invalid_input);
    CHECK_THROWS_AS(device_number::of("/dev/kumiki-none"), error);
    CHECK_THROWS_AS(device_number::of(std::string("/dev/null\0x", 11)), invalid_input);
}

TEST_CASE("a device's number is text and back") {
    CHECK(to_string(device_number{8, 16}) == "8:16");
    CHECK(parse_device_number("8:16") == device_number{8, 16});
    CHECK(parse_device_number("4294967295:0") == device_number{4294967295, 0});
    for (const char* bad : {"", "8", "8:", ":8", "8:1:2", "8:-1", "a:b", "4294967296:0", " 8:0"})
        CHECK_FALSE(parse_device_number(bad));
}

TEST_CASE("the disk behind a file is a whole block device, or none") {
    CHECK_FALSE(device_number::behind("/proc"));
    CHECK_THROWS_AS(device_number::behind("/kumiki-none"), error);
    if (const auto disk = device_number::behind("/")) {
        const auto place = "/sys/dev/block/" + to_string(*disk);
        CHECK(::access(place.c_str(), F_OK) == 0);
        CHECK(::access((place + "/partition").c_str(), F_OK) != 0);
    }
}
