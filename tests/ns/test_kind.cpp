#include <sched.h>

#include <kumiki/ns/kind.hpp>

#include "support/catch.hpp"

using namespace kumiki;

TEST_CASE("each kind of namespace has the kernel's clone flag as its value") {
    CHECK(clone_flags(namespace_kind::mount) == CLONE_NEWNS);
    CHECK(clone_flags(namespace_kind::uts) == CLONE_NEWUTS);
    CHECK(clone_flags(namespace_kind::ipc) == CLONE_NEWIPC);
    CHECK(clone_flags(namespace_kind::pid) == CLONE_NEWPID);
    CHECK(clone_flags(namespace_kind::net) == CLONE_NEWNET);
    CHECK(clone_flags(namespace_kind::user) == CLONE_NEWUSER);
    CHECK(clone_flags(namespace_kind::cgroup) == CLONE_NEWCGROUP);
    CHECK(clone_flags(namespace_kind::time) == 0x80);
}

TEST_CASE("the table of kinds holds every kind once") {
    namespace_kind seen = namespace_kind::none;
    for (const auto& info : namespace_kinds) {
        CHECK_FALSE(has(seen, info.kind));
        seen |= info.kind;
        CHECK(describe(info.kind)->name == info.name);
        CHECK(parse_namespace_kind(info.name) == info.kind);
        CHECK(parse_namespace_kind(info.proc_name) == info.kind);
    }
    CHECK(seen == namespace_kind::all);
}

TEST_CASE("a set of kinds is no single kind, and prints as a list in joining order") {
    const auto set = namespace_kind::net | namespace_kind::user;
    CHECK_FALSE(describe(set));
    CHECK_FALSE(describe(namespace_kind::none));
    CHECK(to_string(set) == "user, net");
    CHECK(to_string(namespace_kind::none).empty());
    CHECK_FALSE(parse_namespace_kind("network"));
    CHECK_FALSE(parse_namespace_kind(""));
}
