#include <filesystem>

#include <kumiki/ns/unprivileged.hpp>

#include "support/busybox.hpp"
#include "support/catch.hpp"

using namespace kumiki;
using namespace kumiki_test;

namespace {

struct switches : temporary_directory {
    switches() {
        std::filesystem::create_directory(path() + "/user");
        std::filesystem::create_directory(path() + "/kernel");
    }
    void set(const char* key, const char* value) const { write_text(path() + key, value); }
    std::string obstacle() const { return user_namespace_obstacle(path()); }
};

}  // namespace

TEST_CASE("a host without a switch against user namespaces has no obstacle") {
    const switches host;
    CHECK(host.obstacle() == "");
    host.set("/user/max_user_namespaces", "96365\n");
    host.set("/kernel/unprivileged_userns_clone", "1\n");
    host.set("/kernel/apparmor_restrict_unprivileged_userns", "0\n");
    CHECK(host.obstacle() == "");
}

TEST_CASE("the switch that stands against user namespaces is named, with how to set it") {
    const switches host;
    const auto [key, value, remedy] = GENERATE(table<const char*, const char*, const char*>(
        {{"/user/max_user_namespaces", "0\n", "sysctl -w user.max_user_namespaces=15000"},
         {"/kernel/unprivileged_userns_clone", "0\n",
          "sysctl -w kernel.unprivileged_userns_clone=1"},
         {"/kernel/apparmor_restrict_unprivileged_userns", "1\n",
          "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0"}}));
    host.set(key, value);
    CHECK(host.obstacle().find(remedy) != std::string::npos);
}

TEST_CASE("who may not make user namespaces though no switch forbids it is told what else may") {
    if (!user_namespace_obstacle().empty()) KUMIKI_SKIP("a switch of this host forbids them");
    CHECK(namespace_remedy(EPERM, namespace_kind::user).find("seccomp") != std::string::npos);
    CHECK(namespace_remedy(EPERM, namespace_kind::net).find("CAP_SYS_ADMIN") != std::string::npos);
}

TEST_CASE("the initial user namespace is known by its number") {
    // Its map is the identity over all ids, which the kernel gives to no other by itself.
    const std::string map = sys::read_file_at(AT_FDCWD, "/proc/self/uid_map");
    const auto fields = split(trim(map), ' ');
    const bool all = fields.back() == "4294967295" && fields.front() == "0";
    if (!all) KUMIKI_SKIP("this test runs in a user namespace");
    CHECK(is_in_initial_user_namespace());
}
