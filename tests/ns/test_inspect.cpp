#include <kumiki/ns/inspect.hpp>

#include "ns/support.hpp"
#include "support/catch.hpp"

using namespace kumiki_test;

TEST_CASE("the namespaces of a process are listed with kind, owner, parent and user") {
    if (::geteuid() != 0) KUMIKI_SKIP("new namespaces take root");
    const paused_child target(available_namespaces());
    REQUIRE(target.failure() == "");
    const auto list = namespaces_of_process(target.pid());
    const auto user = namespace_fd::of_pidfd(target.pidfd(), namespace_kind::user).identity();
    std::size_t at = 0;
    for (const auto& info : namespace_kinds) {
        if (!has(available_namespaces(), info.kind)) continue;
        CAPTURE(info.name);
        REQUIRE(at < list.size());
        const auto found = describe(list[at++]);
        CHECK(found.kind == info.kind);
        CHECK(link_of(target.pid(), info.proc_name) ==
              std::string(info.proc_name) + ":[" + std::to_string(found.identity.inode) + ']');
        CHECK(found.owner_uid == ::geteuid());
        const bool nested = info.kind == namespace_kind::user || info.kind == namespace_kind::pid;
        CHECK(found.parent.has_value() == nested);
        if (nested) CHECK(found.parent == namespace_fd::current(info.kind).identity());
        if (info.kind == namespace_kind::user)
            CHECK(found.owner == namespace_fd::current(info.kind).identity());
        else
            CHECK(found.owner == user);
    }
    CHECK(at == list.size());
}

TEST_CASE("the list of a process that has ended is an error") {
    CHECK_THROWS_AS(namespaces_of_process(0x7ffffff0), error);
}
