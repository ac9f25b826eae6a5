#include <poll.h>
#include <sys/wait.h>

#include <chrono>
#include <string>
#include <thread>

#include <kumiki/container/child_process.hpp>

#include "support/catch.hpp"
#include "support/leaks.hpp"

using namespace kumiki;
using kumiki_test::holdings;

namespace {

clone_mode any_mode() { return GENERATE(clone_mode::shared_memory, clone_mode::own_memory); }

/// A child that speaks, waits for its go, and exits with `status`.
encoded_plan waiting_plan(int control, int status) {
    encoded_plan out;
    plan& to = out.plan;
    to.keep(control);
    to.call("the supervisor", SYS_sendto, {control, to.text("b"), 1, int{MSG_NOSIGNAL}, 0, 0});
    to.special(step_kind::await_byte, "go", {control, 20000});
    to.call("exit", SYS_exit_group, {status});
    out.program = to.finish();
    return out;
}

/// Waits for the byte by which the child says that it is there.
void hear(const detail::child_process& child) {
    pollfd spoken{.fd = child.control(), .events = POLLIN, .revents = 0};
    REQUIRE(::poll(&spoken, 1, 10000) == 1);
    char byte = 0;
    REQUIRE(::recv(child.control(), &byte, 1, 0) == 1);
    REQUIRE(byte == 'b');
}

/// What is held once the spawner has its threads.
holdings settled_holdings(clone_mode mode) {
    {
        auto sockets = detail::control_sockets::make();
        const int end = sockets.child.get();
        detail::child_process child(0, -1, mode);
        child.submit(waiting_plan(end, 0), std::move(sockets));
        child.signal_go();
        child.await_clone();
        child.reap();
    }
    return holdings::now();
}

/// Waits until the child has closed its end: it has executed its command, or ended.
void await_end(const detail::child_process& child) {
    pollfd closed{.fd = child.control(), .events = 0, .revents = 0};
    REQUIRE(::poll(&closed, 1, 10000) == 1);
    CHECK((closed.revents & POLLHUP) != 0);
}

}  // namespace

TEST_CASE("a child speaks, waits for its go, and is reaped") {
    const clone_mode mode = any_mode();
    const auto before = settled_holdings(mode);
    {
        auto sockets = detail::control_sockets::make();
        const int end = sockets.child.get();
        detail::child_process child(0, -1, mode);
        child.submit(waiting_plan(end, 7), std::move(sockets));
        hear(child);
        CHECK(child.pid() > 0);
        CHECK(::fcntl(child.pidfd(), F_GETFD) >= 0);
        child.signal_go();
        child.await_clone();
        CHECK(child.clone_error() == 0);
        const auto status = child.reap();
        REQUIRE(status.has_value());
        CHECK(status->code == 7);
    }
    KUMIKI_CHECK_NOTHING_LEFT(before);
}

TEST_CASE("a thread that stands by makes the child once it has the plan") {
    const clone_mode mode = any_mode();
    const auto patience = GENERATE(std::chrono::microseconds(0), std::chrono::milliseconds(50));
    const auto before = settled_holdings(mode);
    {
        detail::child_process child(0, -1, mode);
        child.set_birth_place(sys::open_at(AT_FDCWD, "/proc/self/ns/uts", O_RDONLY),
                              namespace_kind::uts);
        child.prepare();
        std::this_thread::sleep_for(patience);
        auto sockets = detail::control_sockets::make();
        const int end = sockets.child.get();
        child.submit(waiting_plan(end, 7), std::move(sockets));
        hear(child);
        child.signal_go();
        child.await_clone();
        CHECK(child.clone_error() == 0);
        CHECK(child.reap().value_or(sys::exit_status{}).code == 7);
    }
    KUMIKI_CHECK_NOTHING_LEFT(before);
}

TEST_CASE("a child that is given up while it waits is killed, reaped and gone") {
    const clone_mode mode = any_mode();
    const auto before = settled_holdings(mode);
    SECTION("once it has spoken") {
        auto sockets = detail::control_sockets::make();
        const int end = sockets.child.get();
        detail::child_process child(0, -1, mode);
        child.submit(waiting_plan(end, 7), std::move(sockets));
        hear(child);
    }
    SECTION("at any time") {
        auto sockets = detail::control_sockets::make();
        const int end = sockets.child.get();
        detail::child_process child(0, -1, mode);
        child.submit(waiting_plan(end, 7), std::move(sockets));
    }
    SECTION("before it was asked for") { detail::child_process child(0, -1, mode); }
    SECTION("when a thread stands by for it") {
        detail::child_process child(0, -1, mode);
        child.prepare();
    }
    SECTION("when a thread has stood by for long") {
        detail::child_process child(0, -1, mode);
        child.prepare();
        std::this_thread::sleep_for(std::chrono::milliseconds(50));
    }
    KUMIKI_CHECK_NOTHING_LEFT(before);
}

TEST_CASE("a child that was given to the caller is the caller's") {
    const clone_mode mode = any_mode();
    unique_fd pidfd;
    {
        auto sockets = detail::control_sockets::make();
        const int end = sockets.child.get();
        detail::child_process child(0, -1, mode);
        child.submit(waiting_plan(end, 4), std::move(sockets));
        child.signal_go();
        await_end(child);
        child.await_clone();
        pidfd = child.release();
    }
    CHECK(sys::wait_blocking(pidfd.get()).code == 4);
}

TEST_CASE("a clone that failed leaves an errno and nothing else") {
    const clone_mode mode = any_mode();
    const auto before = settled_holdings(mode);
    {
        auto sockets = detail::control_sockets::make();
        const int end = sockets.child.get();
        detail::child_process child(0, 1000000, mode);
        child.submit(waiting_plan(end, 4), std::move(sockets));
        child.await_clone();
        CHECK(child.clone_error() == EBADF);
        await_end(child);  // the supervisor's poll wakes up
        CHECK(child.pidfd() == -1);  // the kernel had written the number of one that never was
        CHECK_FALSE(child.reap().has_value());
    }
    KUMIKI_CHECK_NOTHING_LEFT(before);
}

TEST_CASE("a go to a child that has failed by itself is no error") {
    auto sockets = detail::control_sockets::make();
    const int end = sockets.child.get();
    encoded_plan out;
    out.plan.keep(end);
    out.plan.call("/nowhere", SYS_chdir, {out.plan.text("/nowhere")});
    out.program = out.plan.finish();
    detail::child_process child(0, -1, any_mode());
    child.submit(std::move(out), std::move(sockets));
    await_end(child);
    child.await_clone();
    child.signal_go();
    CHECK(child.report().error == ENOENT);
    CHECK(child.steps().shown(static_cast<std::size_t>(child.report().step)) == "/nowhere");
    CHECK(child.reap()->code == child_failed_status);
}
