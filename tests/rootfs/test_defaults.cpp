#include <sys/stat.h>
#include <sys/sysmacros.h>

#include <algorithm>
#include <set>
#include <string>

#include <kumiki/core/text.hpp>
#include <kumiki/rootfs/defaults.hpp>

#include "support/catch.hpp"

using namespace kumiki;

TEST_CASE("the default devices are those that the host has under these names") {
    for (const device_node& node : default_devices) {
        CAPTURE(std::string(node.name));
        struct stat info{};
        if (::stat(("/dev/" + std::string(node.name)).c_str(), &info) != 0)
            KUMIKI_SKIP("this host's /dev lacks a default device");
        CHECK(S_ISCHR(info.st_mode));
        CHECK(::major(info.st_rdev) == node.major);
        CHECK(::minor(info.st_rdev) == node.minor);
        CHECK(node.mode == 0666);
    }
}

TEST_CASE("no name in /dev is given twice") {
    std::set<std::string_view> names;
    for (const device_node& node : default_devices) CHECK(names.insert(node.name).second);
    for (const device_link& link : default_device_links) CHECK(names.insert(link.name).second);
    for (const char* made : {"pts", "shm", "mqueue", "console"}) CHECK(names.insert(made).second);
}

TEST_CASE("masked and read-only paths are relative, and none is both") {
    for (const auto path : masked_proc_paths) {
        CHECK(is_path_component(path));
        CHECK(std::count(readonly_proc_paths.begin(), readonly_proc_paths.end(), path) == 0);
    }
    for (const auto path : readonly_proc_paths) CHECK(is_path_component(path));
    for (const auto path : masked_sys_paths) CHECK_FALSE(path.starts_with('/'));
}
