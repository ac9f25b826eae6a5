#include <sys/prctl.h>

#include <algorithm>

#include <kumiki/ns/join.hpp>

#include "ns/support.hpp"
#include "support/catch.hpp"

using namespace kumiki_test;

TEST_CASE("a namespace of each kind is created, joined by two processes, and shared by them") {
    if (::geteuid() != 0) KUMIKI_SKIP("new namespaces take root");
    for (const auto& info : namespace_kinds) {
        CAPTURE(info.name);
        if (!has(available_namespaces(), info.kind)) continue;
        const std::string before = link_of(::getpid(), info.proc_name);
        const fresh_namespace made(info.kind);
        CHECK(made.handle.kind() == info.kind);
        CHECK_FALSE(made.handle == namespace_fd::current(info.kind));
        CHECK(link_of(::getpid(), info.proc_name) == before);
        const auto enter = [&] {
            std::vector<const namespace_fd*> one{&made.handle};
            enter_namespaces(one);
        };
        const paused_child first(namespace_kind::none, enter);
        const paused_child second(namespace_kind::none, enter);
        CHECK(first.failure() == "");
        CHECK(second.failure() == "");
        if (info.kind != namespace_kind::pid) {
            CHECK(link_of(first.pid(), info.proc_name) == shown(info, made.handle));
            CHECK(link_of(second.pid(), info.proc_name) == shown(info, made.handle));
        } else {
            CHECK(link_of(first.pid(), "pid_for_children") == shown(info, made.handle));
            CHECK(link_of(second.pid(), "pid_for_children") == shown(info, made.handle));
        }
        CHECK(link_of(first.pid(), joined_link(info)) != before);
    }
}

TEST_CASE("all namespaces of a process are entered at once, by its pidfd and by descriptors") {
    if (::geteuid() != 0) KUMIKI_SKIP("new namespaces take root");
    const namespace_kind kinds = available_namespaces();
    const paused_child target(kinds);
    REQUIRE(target.failure() == "");
    const bool by_pidfd = GENERATE(true, false);
    CAPTURE(by_pidfd);
    auto handles = namespaces_of_pidfd(target.pidfd());
    std::reverse(handles.begin(), handles.end());  // their order is not the caller's business
    const paused_child guest(namespace_kind::none, [&] {
        if (by_pidfd)
            enter_namespaces_of(target.pidfd(), kinds);
        else
            enter_namespaces(handles);
    });
    CHECK(guest.failure() == "");
    for (const auto& info : namespace_kinds) {
        if (!has(kinds, info.kind)) continue;
        CAPTURE(info.name);
        CHECK(link_of(guest.pid(), joined_link(info)) == link_of(target.pid(), info.proc_name));
    }
}

TEST_CASE("an ordinary user enters the user namespace first, and what it owns after it") {
    if (::geteuid() != 0) KUMIKI_SKIP("the test gives up root itself");
    const std::string result = in_child([] {
        require(::syscall(SYS_setresgid, 1234, 1234, 1234) == 0, "setresgid");
        require(::syscall(SYS_setresuid, 1234, 1234, 1234) == 0, "setresuid");
        require(::prctl(PR_SET_DUMPABLE, 1) == 0, "dumpable");
        const auto kinds = namespace_kind::user | namespace_kind::net | namespace_kind::uts;
        const paused_child target(kinds);
        const auto handles = namespaces_of_pidfd(target.pidfd(), kinds);
        const paused_child guest(namespace_kind::none, [&] { enter_namespaces(handles); });
        require(guest.failure().empty(), guest.failure().c_str());
        for (const char* name : {"user", "net", "uts"})
            require(link_of(guest.pid(), name) == link_of(target.pid(), name), name);
    });
    if (result.find("clone3: EPERM") != std::string::npos)
        KUMIKI_SKIP("user namespaces are denied to ordinary users here");
    CHECK(result == "");
}

TEST_CASE("two namespaces of one kind are refused before anything is entered") {
    if (::geteuid() != 0) KUMIKI_SKIP("new namespaces take root");
    std::vector<namespace_fd> two;
    two.push_back(make_namespace(namespace_kind::uts));
    two.push_back(make_namespace(namespace_kind::uts));
    CHECK_THROWS_AS(enter_namespaces(two), invalid_input);
    CHECK_FALSE(namespace_fd::current(namespace_kind::uts) == two.front());
}

TEST_CASE("one's own namespaces are entered without a call, and those of an ended process not") {
    const unique_fd self = sys::open_pidfd(::getpid());
    CHECK_NOTHROW(enter_namespaces_of(self.get(), available_namespaces() & ~namespace_kind::pid));
    const pid_t child = ::fork();
    if (child == 0) ::_exit(0);
    const unique_fd ended = sys::open_pidfd(child);
    ::waitpid(child, nullptr, 0);
    try {
        enter_namespaces_of(ended.get(), namespace_kind::net);
        FAIL("no error");
    } catch (const error& failure) {
        CHECK(failure.errno_value() == ESRCH);
    }
}
