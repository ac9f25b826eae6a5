#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <memory>

#include <kumiki/sys/pidfd.hpp>
#include <kumiki/sys/raw.hpp>

#include "support/catch.hpp"

using namespace kumiki;

namespace {

struct shared_word {
    volatile long value = 0;
};

KUMIKI_CHILD_SIDE void exit_with_it(void* argument) {
    auto* word = static_cast<shared_word*>(argument);
    word->value = word->value + 1;
    for (;;) sys::raw_syscall(SYS_exit_group, 40 + word->value);
}

}  // namespace

TEST_CASE("a raw system call gives the kernel's result and leaves errno alone") {
    CHECK(sys::raw_syscall(SYS_getpid) == ::getpid());
    errno = 4711;
    CHECK(sys::raw_syscall(SYS_close, -1) == -EBADF);
    CHECK(sys::raw_syscall(100000) == -ENOSYS);
    if (sys::has_own_stack_clone) CHECK(errno == 4711);
}

TEST_CASE("a raw system call passes six arguments") {
    const long length = ::sysconf(_SC_PAGESIZE);
    const long address = sys::raw_syscall(SYS_mmap, 0, length, PROT_READ | PROT_WRITE,
                                          MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    REQUIRE(address > 0);
    *reinterpret_cast<int*>(address) = 1;
    CHECK(sys::raw_syscall(SYS_munmap, address, length) == 0);
}

TEST_CASE("a copied child has memory of its own and runs the entry") {
    shared_word word;
    int fd = -1;
    const long pid = sys::clone_copied({.flags = sys::clone_pidfd,
                                        .pidfd = reinterpret_cast<std::uint64_t>(&fd),
                                        .exit_signal = SIGCHLD},
                                       exit_with_it, &word);
    REQUIRE(pid > 0);
    const unique_fd child(fd);
    CHECK(sys::wait_blocking(child.get()).code == 41);
    CHECK(word.value == 0);
}

TEST_CASE("a child on a stack of its own shares the memory and runs the entry") {
    if (!sys::has_own_stack_clone) KUMIKI_SKIP("this architecture has no clone on an own stack");
    shared_word word;
    constexpr std::size_t size = 64 * 1024;
    const auto stack = std::make_unique<std::max_align_t[]>(size / sizeof(std::max_align_t));
    int fd = -1;
    const long pid =
        sys::clone_on_stack({.flags = sys::clone_pidfd | sys::clone_vm | sys::clone_vfork,
                             .pidfd = reinterpret_cast<std::uint64_t>(&fd),
                             .exit_signal = SIGCHLD,
                             .stack = reinterpret_cast<std::uint64_t>(stack.get()),
                             .stack_size = size},
                            exit_with_it, &word);
    REQUIRE(pid > 0);
    const unique_fd child(fd);
    CHECK(word.value == 1);  // CLONE_VFORK: it has ended by now
    CHECK(sys::wait_blocking(child.get()).code == 41);
}

TEST_CASE("a clone that the kernel refuses is a negative errno") {
    // A thread group without shared signal handlers cannot be.
    CHECK(sys::clone_copied({.flags = CLONE_THREAD}, exit_with_it, nullptr) == -EINVAL);
    CHECK(sys::clone_copied({.flags = sys::clone_into_cgroup, .cgroup = 1000000}, exit_with_it,
                            nullptr) == -EBADF);
    if (sys::has_own_stack_clone)
        CHECK(sys::clone_on_stack({.flags = sys::clone_vm, .stack = 4096}, exit_with_it, nullptr) ==
              -EINVAL);  // a stack without a size
}
