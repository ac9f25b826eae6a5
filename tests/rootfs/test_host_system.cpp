#include <sys/stat.h>

#include <filesystem>
#include <string>

#include <kumiki/rootfs/host_system.hpp>

#include "support/catch.hpp"

using namespace kumiki;
namespace fs = std::filesystem;

TEST_CASE("the host's system is its directories read-only and its links as links") {
    const auto mounts = host_system();
    bool usr = false;
    for (const mount_description& each : mounts) {
        const std::string& place = target_of(each);
        CAPTURE(place);
        CHECK_NOTHROW(validate(each));
        if (const auto* link = std::get_if<symlink_entry>(&each)) {
            CHECK(fs::read_symlink(place).string() == link->leads_to);
        } else {
            const auto* bind = std::get_if<bind_mount>(&each);
            REQUIRE(bind != nullptr);
            CHECK(fs::symlink_status(place).type() == fs::file_type::directory);
            CHECK(bind->source == place);
            CHECK(bind->access == access_mode::read_only);
        }
        usr |= place == "/usr";
    }
    CHECK(usr);
}
