// Terminals of containers and of what enters them: size, its change, and who hears of it.
#include <poll.h>
#include <signal.h>

#include <string>
#include <string_view>

#include <kumiki/container/container.hpp>
#include <kumiki/container/init.hpp>

#include "container/support.hpp"
#include "support/busybox.hpp"
#include "support/catch.hpp"

using namespace kumiki;
using kumiki_test::busybox;
using kumiki_test::busybox_root;

namespace {

/// Reads from a terminal until `what` has come; false when it does not within ten seconds.
bool read_to(int terminal, std::string& seen, std::string_view what) {
    while (seen.find(what) == std::string::npos) {
        pollfd ready{.fd = terminal, .events = POLLIN, .revents = 0};
        char text[512];
        if (::poll(&ready, 1, 10000) != 1) return false;
        const auto size = ::read(terminal, text, sizeof text);
        if (size <= 0) return false;
        seen.append(text, static_cast<std::size_t>(size));
    }
    return true;
}

constexpr const char* size_watcher =
    "trap 'echo now $(stty size)' WINCH; stty -echo; echo first $(stty size); "
    "while :; do sleep 0.02; done";

/// Two changes of size, and a third to what it is already: of that nobody hears.
template <class Process>
void change_size(Process& process) {
    std::string seen;
    REQUIRE(read_to(process.terminal(), seen, "first 33 99\r\n"));
    process.resize({.rows = 44, .columns = 55});
    REQUIRE(read_to(process.terminal(), seen, "now 44 55\r\n"));
    process.resize({.rows = 44, .columns = 55});
    process.resize({.rows = 66, .columns = 177});
    REQUIRE(read_to(process.terminal(), seen, "now 66 177\r\n"));
    CHECK(seen == "first 33 99\r\nnow 44 55\r\nnow 66 177\r\n");
}

}  // namespace

TEST_CASE("a container hears of a new size of its terminal by SIGWINCH") {
    const init_process init = GENERATE(init_process::none, init_process::reaper);
    if (init != init_process::none && !detail::has_init)
        KUMIKI_SKIP("there is no init for this machine");
    scheduler io;
    auto spec = kumiki_test::shell_spec(busybox(), size_watcher);
    spec.process.init = init;
    spec.process.terminal = terminal_size{.rows = 33, .columns = 99};
    kumiki_test::with_container(io, std::move(spec), [](container& box) { change_size(box); });
}

TEST_CASE("a process that entered hears of a new size of its own terminal, and nobody else") {
    scheduler io;
    auto spec = kumiki_test::shell_spec(
        busybox(), "trap 'echo disturbed' WINCH; echo first; while :; do sleep 0.02; done");
    spec.process.terminal = terminal_size{};
    io.run([](scheduler& loop, container_spec of) -> task<void> {
        auto box = co_await container::start(loop, std::move(of));
        exec_spec wanted{.args = {"sh", "-c", size_watcher},
                         .terminal = terminal_size{.rows = 33, .columns = 99}};
        auto process = co_await box.exec(std::move(wanted));
        change_size(process);
        std::string seen;
        CHECK(read_to(box.terminal(), seen, "first\r\n"));
        CHECK(seen == "first\r\n");
        box.resize({.rows = 2, .columns = 3});
        CHECK(read_to(box.terminal(), seen, "disturbed\r\n"));
    }(io, std::move(spec)));
}

TEST_CASE("the keys of a terminal reach the command as signals") {
    const init_process init = GENERATE(init_process::none, init_process::reaper);
    if (init != init_process::none && !detail::has_init)
        KUMIKI_SKIP("there is no init for this machine");
    scheduler io;
    auto spec = kumiki_test::shell_spec(
        busybox(),
        "trap 'echo interrupted' INT; trap 'exit 7' QUIT; stty -echo; echo ready; "
        "while :; do sleep 0.02; done");
    spec.process.init = init;
    spec.process.terminal = terminal_size{};
    const auto result = io.run([](scheduler& loop, container_spec of) -> task<container_result> {
        auto box = co_await container::start(loop, std::move(of));
        std::string seen;
        CHECK(read_to(box.terminal(), seen, "ready\r\n"));
        CHECK(::write(box.terminal(), "\x03", 1) == 1);  // ^C
        CHECK(read_to(box.terminal(), seen, "interrupted\r\n"));
        CHECK(seen == "ready\r\ninterrupted\r\n");
        CHECK(::write(box.terminal(), "\x1c", 1) == 1);  // ^\ .
        auto ended = co_await box.wait();
        co_return ended;
    }(io, std::move(spec)));
    CHECK(result.status.code == 7);
}

TEST_CASE("the end of a terminal's other end is a hangup for the command") {
    const init_process init = GENERATE(init_process::none, init_process::reaper);
    if (init != init_process::none && !detail::has_init)
        KUMIKI_SKIP("there is no init for this machine");
    scheduler io;
    auto spec = kumiki_test::shell_spec(
        busybox(), "trap 'exit 8' HUP; echo ready; while :; do sleep 0.02; done");
    spec.process.init = init;
    spec.process.terminal = terminal_size{};
    const int code = io.run([](scheduler& loop, container_spec of) -> task<int> {
        auto parts = co_await detail::launch(loop, std::move(of));
        std::string seen;
        CHECK(read_to(parts->terminal.get(), seen, "ready\r\n"));
        parts->terminal.reset();
        auto own = co_await parts->reaper.wait_first(loop, parts->pidfd.get());
        const auto status = parts->init ? detail::payload_status(parts->init.get(), own) : own;
        parts->pidfd.reset();
        parts->release();
        co_return status.code;
    }(io, std::move(spec)));
    CHECK(code == 8);
}

TEST_CASE("a size for a terminal that is not there is an error") {
    scheduler io;
    auto spec = kumiki_test::shell_spec(busybox(), "sleep 30");
    kumiki_test::with_container(io, std::move(spec), [](container& box) {
        CHECK_THROWS_AS(box.resize({.rows = 2, .columns = 3}), error);
    });
}
