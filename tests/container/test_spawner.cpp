#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include <chrono>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include <kumiki/container/plan.hpp>
#include <kumiki/container/spawn_job.hpp>
#include <kumiki/container/spawner.hpp>
#include <kumiki/sys/file.hpp>
#include <kumiki/sys/pidfd.hpp>

#include "support/catch.hpp"

using namespace kumiki;

namespace {

/// A plan and the job of carrying it out.
struct spawned {
    plan steps{};
    detail::spawn_job job{};
};

void submit(spawned& one, bool shared) {
    one.job.shared_memory = shared;
    one.job.program = one.steps.finish();
    detail::spawner::shared().submit(one.job);
}

sys::exit_status finish(spawned& one) {
    detail::spawner::shared().wait(one.job);
    REQUIRE(one.job.error == 0);
    const unique_fd pidfd(one.job.pidfd);
    return sys::wait_blocking(pidfd.get());
}

bool in_either_memory() { return GENERATE(false, true); }

std::size_t threads() {
    const auto status = sys::read_file_at(AT_FDCWD, "/proc/self/status");
    const auto at = status.find("Threads:");
    return std::stoul(status.substr(at + 8));
}

}  // namespace

TEST_CASE("a clone that the kernel refuses is an errno, and the thread goes on") {
    const bool shared = in_either_memory();
    spawned refused;
    refused.job.cgroup = 1000000;  // no such descriptor
    refused.steps.call("exit", SYS_exit_group, {0});
    submit(refused, shared);
    detail::spawner::shared().wait(refused.job);
    CHECK(refused.job.error == EBADF);
    CHECK(refused.job.pidfd == -1);
    spawned fine;
    fine.steps.call("exit", SYS_exit_group, {3});
    submit(fine, shared);
    CHECK(finish(fine).code == 3);
}

TEST_CASE("the child knows of no handler, and its signals are all blocked up to its execve") {
    // A handler of the host program must never run on the child's stack.
    const bool shared = in_either_memory();
    const auto before = ::signal(SIGUSR1, [](int) {});
    spawned one;
    std::uint64_t mask = 0;
    std::uint64_t action[4] = {1, 1, 1, 1};
    std::uint64_t* seen_mask = one.steps.object(mask);
    std::uint64_t* seen_action = one.steps.array(action, 4);
    int ends[2];
    REQUIRE(::pipe2(ends, O_CLOEXEC) == 0);
    const unique_fd in(ends[0]);
    const unique_fd out(ends[1]);
    one.steps.keep(out.get());
    one.steps.call("mask", SYS_rt_sigprocmask, {SIG_BLOCK, 0, seen_mask, sizeof mask});
    one.steps.call("action", SYS_rt_sigaction, {SIGUSR1, 0, seen_action, sizeof mask});
    one.steps.call("tell", SYS_write, {out.get(), seen_mask, sizeof mask});
    one.steps.call("tell", SYS_write, {out.get(), seen_action, sizeof mask});
    one.steps.call("exit", SYS_exit_group, {0});
    submit(one, shared);
    CHECK(finish(one).code == 0);
    ::signal(SIGUSR1, before);
    std::uint64_t told[2] = {};
    REQUIRE(::read(in.get(), told, sizeof told) == sizeof told);
    constexpr std::uint64_t never = 1ULL << (SIGKILL - 1) | 1ULL << (SIGSTOP - 1);
    CHECK((told[0] | never) == ~std::uint64_t{0});
    CHECK(told[1] == 0);  // SIG_DFL
}

TEST_CASE("jobs of many threads are all carried out, by a bounded number of spawner threads") {
    const bool shared = in_either_memory();
    const std::size_t before = threads();
    std::vector<std::thread> callers;
    std::vector<int> codes(16, -1);
    for (std::size_t i = 0; i < codes.size(); ++i)
        callers.emplace_back([&codes, i, shared] {
            for (int round = 0; round < 5; ++round) {
                spawned one;
                one.steps.call("exit", SYS_exit_group, {static_cast<int>(i)});
                one.job.shared_memory = shared;
                one.job.program = one.steps.finish();
                detail::spawner::shared().submit(one.job);
                detail::spawner::shared().wait(one.job);
                const unique_fd pidfd(one.job.pidfd);
                codes[i] = sys::wait_blocking(pidfd.get()).code;
            }
        });
    for (std::thread& caller : callers) caller.join();
    for (std::size_t i = 0; i < codes.size(); ++i) CHECK(codes[i] == static_cast<int>(i));
    CHECK(threads() <= before + 16);
}

TEST_CASE("a job that no thread has begun with can be taken back, another cannot") {
    // All threads there can be are busy with children that wait for a byte.
    std::vector<std::unique_ptr<spawned>> busy;
    int ends[2];
    REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0);
    unique_fd own(ends[0]);
    const unique_fd theirs(ends[1]);
    for (int i = 0; i < 16; ++i) {
        busy.push_back(std::make_unique<spawned>());
        busy.back()->steps.keep(theirs.get());
        busy.back()->steps.special(step_kind::await_byte, "go", {theirs.get(), 20000});
        submit(*busy.back(), true);
        if (!sys::has_own_stack_clone) break;
    }
    for (const auto& one : busy) {  // its number is set before its first step
        for (int i = 0; i < 1000 && std::atomic_ref(one->job.pid).load() == 0; ++i)
            std::this_thread::sleep_for(std::chrono::milliseconds(10));
        CHECK(std::atomic_ref(one->job.pid).load() != 0);
    }
    CHECK_FALSE(detail::spawner::shared().withdraw(busy.front()->job));
    if (sys::has_own_stack_clone) {
        spawned late;
        late.steps.call("exit", SYS_exit_group, {0});
        submit(late, true);
        CHECK(detail::spawner::shared().withdraw(late.job));
        detail::spawner::shared().wait(late.job);  // at once
        CHECK(late.job.pid == 0);
    }
    own.reset();
    for (const auto& one : busy) CHECK(finish(*one).code == child_failed_status);
}

TEST_CASE("a fork of the process has spawner threads of its own") {
    spawned first;
    first.steps.call("exit", SYS_exit_group, {0});
    submit(first, in_either_memory());
    CHECK(finish(first).code == 0);
    const pid_t child = ::fork();
    REQUIRE(child >= 0);
    if (child == 0) {
        spawned inner;
        inner.steps.call("exit", SYS_exit_group, {9});
        inner.job.shared_memory = false;
        inner.job.program = inner.steps.finish();
        detail::spawner::shared().submit(inner.job);
        detail::spawner::shared().wait(inner.job);
        ::_exit(sys::wait_blocking(inner.job.pidfd).code);
    }
    int status = 0;
    REQUIRE(::waitpid(child, &status, 0) == child);
    CHECK(WEXITSTATUS(status) == 9);
}

TEST_CASE("a child that changes its ids leaves the supervisor as dumpable as it was") {
    if (::prctl(PR_GET_DUMPABLE) != 1) KUMIKI_SKIP("this process is not dumpable itself");
    spawned one;
    one.steps.call("the user", SYS_setresuid, {1000, 1000, 1000});
    one.steps.call("exit", SYS_exit_group, {0});
    submit(one, in_either_memory());
    CHECK(finish(one).code == 0);
    CHECK(::prctl(PR_GET_DUMPABLE) == 1);
}
