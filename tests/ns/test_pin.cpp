#include <kumiki/ns/join.hpp>
#include <kumiki/ns/pin.hpp>

#include "ns/support.hpp"
#include "support/catch.hpp"
#include "support/scratch.hpp"

using namespace kumiki_test;

namespace {

/// In a mount namespace of its own, so that no pin is ever seen outside.
template <class Function>
std::string in_own_mounts(Function&& function) {
    return in_child([&] {
        // Mount namespaces are older and younger for sure only where one processor made them.
        cpu_set_t one;
        CPU_ZERO(&one);
        CPU_SET(static_cast<std::size_t>(::sched_getcpu()), &one);
        require(::sched_setaffinity(0, sizeof one, &one) == 0, "affinity");
        require(::unshare(CLONE_NEWNS) == 0, "unshare");
        require(::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0, "private");
        function();
    });
}

}  // namespace

TEST_CASE("a namespace of each kind is pinned to a file, lives by it, and is unpinned") {
    if (::geteuid() != 0) KUMIKI_SKIP("pinning takes root");
    const scratch directory;
    const std::string path = directory.path() + "/pin";
    for (const auto& info : namespace_kinds) {
        CAPTURE(info.name);
        if (!has(available_namespaces(), info.kind)) continue;
        CHECK(
            in_own_mounts([&] {
                std::optional<fresh_namespace> made(info.kind);
                const auto identity = made->handle.identity();
                pin(made->handle, path);
                made.reset();  // no descriptor, and no process, is left
                const auto again = namespace_fd::open(path);
                require(again.identity() == identity, "another namespace");
                require(again.kind() == info.kind, "another kind");
                if (info.kind != namespace_kind::pid) {  // its init has ended
                    std::vector<const namespace_fd*> one{&again};
                    const paused_child guest(namespace_kind::none, [&] { enter_namespaces(one); });
                    require(guest.failure().empty(), guest.failure().c_str());
                    require(link_of(guest.pid(), info.proc_name) == kumiki_test::shown(info, again),
                            "link");
                }
                require(unpin(path), "nothing was pinned");
                require(!unpin(path), "still there");
                require(::access(path.c_str(), F_OK) != 0, "the file is left");
            }) == "");
    }
    CHECK(names_in(directory.path()).empty());
}

TEST_CASE("pinning to what is there, or where it cannot be, is one error that leaves no file") {
    if (::geteuid() != 0) KUMIKI_SKIP("pinning takes root");
    const scratch directory;
    const std::string path = directory.path() + "/pin";
    CHECK(in_own_mounts([&] {
              const auto code = [&](const namespace_fd& what, const std::string& where) {
                  try {
                      pin(what, where);
                  } catch (const error& failure) {
                      return failure.errno_value();
                  }
                  return 0;
              };
              const auto uts = make_namespace(namespace_kind::uts);
              require(code(uts, path) == 0, "pin");
              require(code(uts, path) == EEXIST, "a second pin");
              require(unpin(path), "unpin");
              require(code(uts, directory.path() + "/none/pin") == ENOENT, "no directory");
              // A mount namespace would keep itself alive.
              require(code(namespace_fd::current(namespace_kind::mount), path) == EINVAL, "itself");
              require(::access(path.c_str(), F_OK) != 0, "a file is left");
          }) == "");
}

TEST_CASE("only a pinned file is unpinned") {
    const scratch directory;
    const std::string path = directory.path() + "/file";
    sys::open_at(AT_FDCWD, path, O_CREAT | O_WRONLY, 0600);
    CHECK_THROWS_AS(unpin(path), invalid_input);
    CHECK(::access(path.c_str(), F_OK) == 0);
    CHECK_FALSE(unpin(directory.path() + "/none"));
    CHECK_THROWS_AS(unpin(std::string("/tmp/a\0b", 8)), invalid_input);
}
