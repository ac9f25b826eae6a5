#include <sched.h>

#include <string>

#include <kumiki/container/spec.hpp>

#include "container/support.hpp"
#include "support/busybox.hpp"
#include "support/catch.hpp"

using namespace kumiki;
using kumiki_test::empty_root;
using kumiki_test::good_spec;
using kumiki_test::temporary_directory;

namespace {

/// What `change` makes of a good spec: nothing, or the message of its refusal.
template <class Change>
std::string spec_refusal(Change&& change) {
    container_spec spec = good_spec();
    change(spec);
    try {
        spec.validate();
    } catch (const invalid_input& failure) {
        return failure.what();
    }
    return {};
}

}  // namespace

TEST_CASE("a root filesystem and a command are enough") {
    CHECK(spec_refusal([](container_spec&) {}).empty());
    const container_spec spec = good_spec();
    CHECK(spec.all_namespaces() == default_namespaces);
    CHECK_FALSE(has(spec.all_namespaces(), namespace_kind::user));
    CHECK_FALSE(has(spec.all_namespaces(), namespace_kind::time));
}

TEST_CASE("the namespaces follow from network, user and time") {
    container_spec spec = good_spec();
    spec.network = network_mode::host;
    CHECK_FALSE(has(spec.all_namespaces(), namespace_kind::net));
    spec.network = network_mode::loopback;
    spec.namespaces = namespace_kind::mount;  // net is not taken from here
    CHECK(spec.all_namespaces() == (namespace_kind::mount | namespace_kind::net));
    spec.user_namespace = user_mapping{id_map({{0, 100000, 1}}), id_map({{0, 100000, 1}})};
    spec.time_namespace = clock_offsets{};
    CHECK(has(spec.all_namespaces(), namespace_kind::user));
    CHECK(has(spec.all_namespaces(), namespace_kind::time));
}

TEST_CASE("names that can be a container's are accepted, and others are refused by name") {
    for (const std::string& name :
         {std::string("a"), std::string("web-1"), std::string("0"), std::string("A.b_c-d"),
          std::string("a."), std::string(64, 'x')}) {
        CAPTURE(name);
        CHECK(spec_refusal([&](container_spec& spec) { spec.name = name; }).empty());
    }
    for (const std::string& name :
         {std::string("."), std::string(".."), std::string(".a"), std::string("-a"),
          std::string("a/b"), std::string("/a"), std::string("a b"), std::string("a\nb"),
          std::string("a\0b", 3), std::string("gr\xc3\xbcn"), std::string("a:b"),
          std::string(65, 'x')}) {
        CAPTURE(name);
        const auto why = spec_refusal([&](container_spec& spec) { spec.name = name; });
        CHECK(why.find("container name") != std::string::npos);
    }
}

TEST_CASE("a host name has a length, no NUL byte, and a namespace to be in") {
    CHECK(spec_refusal([](container_spec& spec) { spec.hostname = std::string(64, 'x'); }).empty());
    for (const std::string& name : {std::string(65, 'x'), std::string("a\0b", 3)})
        CHECK_FALSE(spec_refusal([&](container_spec& spec) { spec.hostname = name; }).empty());
    const auto why = spec_refusal([](container_spec& spec) {
        spec.hostname = "box";
        spec.namespaces = namespace_kind::mount;
    });
    CHECK(why.find("UTS") != std::string::npos);
}

TEST_CASE("the mount namespace cannot be left out") {
    const auto why =
        spec_refusal([](container_spec& spec) { spec.namespaces = namespace_kind::uts; });
    CHECK(why.find("mount namespace") != std::string::npos);
}

TEST_CASE("a user namespace maps root, in users and in groups") {
    const id_map with{{0, 100000, 65536}};
    const id_map without{{1, 100000, 65536}};
    const auto maps = [](const id_map& uids, const id_map& gids) {
        return spec_refusal([&](container_spec& spec) { spec.user_namespace = {uids, gids}; });
    };
    CHECK(maps(with, with).empty());
    CHECK_FALSE(maps(without, with).empty());
    CHECK_FALSE(maps(with, without).empty());
    CHECK_FALSE(maps({}, {}).empty());
}

TEST_CASE("no layer of an overlay is below /proc, which the start covers") {
    const auto why = spec_refusal(
        [](container_spec& spec) { spec.rootfs = rootfs::overlay("/proc/self/root"); });
    CHECK(why.find("/proc") != std::string::npos);
    CHECK_FALSE(spec_refusal([](container_spec& spec) {
                    spec.rootfs = rootfs::overlay(empty_root().path(),
                                                  {.upper = "/proc/1", .work = "/proc/1"});
                }).empty());
    // A plain directory there is held by a descriptor: no path of it is used later.
    CHECK(spec_refusal([](container_spec& spec) {
              spec.rootfs = rootfs::directory("/proc/self/root/");
          }).empty());
}

TEST_CASE("the targets of mounts are absolute and stay inside") {
    CHECK(spec_refusal([](container_spec& spec) {
              spec.mounts = {bind_mount{.source = "/etc", .target = "/x"},
                             tmpfs_mount{.target = "/tmp"}};
          }).empty());
    for (const char* target : {"", "x", "/../x"}) {
        CAPTURE(target);
        CHECK_FALSE(spec_refusal([&](container_spec& spec) {
                        spec.mounts = {tmpfs_mount{.target = target}};
                    }).empty());
        CHECK_FALSE(spec_refusal([&](container_spec& spec) {
                        spec.mounts = {bind_mount{.source = "/etc", .target = target}};
                    }).empty());
    }
}

TEST_CASE("a bad root filesystem and a bad process are refused with the spec") {
    container_spec spec = good_spec();
    spec.rootfs = rootfs::directory("/nowhere");
    CHECK_THROWS_AS(spec.validate(), error);
    CHECK_FALSE(spec_refusal([](container_spec& bad) { bad.process.args = {}; }).empty());
}

TEST_CASE("a line of the hosts file or a resolver's word that cannot be is refused") {
    CHECK(spec_refusal([](container_spec& spec) {
              spec.hosts = {{.name = "a b"}};
          }).find("'a b'") != std::string::npos);
    CHECK(spec_refusal([](container_spec& spec) {
              spec.resolver.search = {"a\nnameserver"};
          }).find("resolver option") != std::string::npos);
    CHECK(spec_refusal([](container_spec& spec) {
              spec.hosts = {{.name = "db"}};
              spec.resolver.options = {"ndots:1"};
          }).empty());
}
