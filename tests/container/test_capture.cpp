#include <chrono>
#include <string>

#include <kumiki/async/timeout.hpp>
#include <kumiki/async/when.hpp>
#include <kumiki/container/capture.hpp>

#include "container/support.hpp"
#include "support/busybox.hpp"
#include "support/catch.hpp"
#include "support/leaks.hpp"

using namespace kumiki;
using namespace std::chrono_literals;
using kumiki_test::busybox;
using kumiki_test::busybox_root;
using kumiki_test::command;
using kumiki_test::holdings;
using kumiki_test::shell;

namespace {

captured<container_result> started(std::string script, capture_options options = {}) {
    scheduler io;
    return io.run(run_and_capture(io, shell(std::move(script)), options));
}

task<captured<sys::exit_status>> enter(scheduler& io, container_spec spec, exec_spec wanted,
                                       capture_options options) {
    auto box = co_await container::start(io, std::move(spec));
    auto seen = co_await run_and_capture(io, box, std::move(wanted), options);
    co_return seen;
}

captured<sys::exit_status> entered(std::string script, capture_options options = {}) {
    scheduler io;
    return io.run(enter(io, shell("sleep 30"), command(std::move(script)), options));
}

}  // namespace

TEST_CASE("both outputs of a command are captured, and how it ended") {
    const std::string script = "echo out; echo err >&2; exit 7";
    const auto first = started(script);
    CHECK(first.out.text == "out\n");
    CHECK(first.err.text == "err\n");
    CHECK(first.out.is_whole());
    CHECK(first.err.is_whole());
    CHECK(first.result.exit_code() == 7);
    const auto second = entered(script);
    CHECK(second.out.text == "out\n");
    CHECK(second.err.text == "err\n");
    CHECK(second.out.is_whole());
    CHECK(second.result.code == 7);
}

TEST_CASE("a large output, a large error and a large input at once are no deadlock") {
    const std::string input(3000000, 'i');
    const char* script =
        "dd if=/dev/zero bs=1000 count=2000 2>/dev/null & "
        "dd if=/dev/zero bs=1000 count=3000 1>&2 2>/dev/null & wait; wc -c";
    const capture_options options{.limit = {10 << 20}, .input = input};
    const auto check = [](const captured_text& out, const captured_text& err) {
        CHECK(out.text == std::string(2000000, '\0') + "3000000\n");
        CHECK(out.is_whole());
        CHECK(err.text == std::string(3000000, '\0'));
        CHECK(err.is_whole());
    };
    const auto seen = started(script, options);
    check(seen.out, seen.err);
    const char* both =
        "head -c 2000000 /dev/zero; head -c 2500000 /dev/zero >&2; "
        "head -c 2000000 /dev/zero; wc -c >&2";
    const auto inside = entered(both, options);
    CHECK(inside.out.text.size() == 4000000);
    CHECK(inside.err.text == std::string(2500000, '\0') + "3000000\n");
}

TEST_CASE("what is beyond the limit is counted and not kept, and the command does not wait") {
    const auto seen = started("head -c 1000000 /dev/zero; echo end >&2; exit 5", {.limit = {1000}});
    CHECK(seen.out.text.size() == 1000);
    CHECK(seen.out.dropped == 999000);
    CHECK_FALSE(seen.out.is_whole());
    CHECK(seen.err.text == "end\n");
    CHECK(seen.err.is_whole());
    CHECK(seen.result.exit_code() == 5);
    CHECK(started("echo 12345", {.limit = {6}}).out.is_whole());
    CHECK(started("echo 123456", {.limit = {6}}).out.dropped == 1);
}

TEST_CASE("an input is read to its end; without one there is none") {
    CHECK(started("cat; echo end", {.input = "some\nlines\n"}).out.text == "some\nlines\nend\n");
    CHECK(started("cat; echo end").out.text == "end\n");
    CHECK(entered("cat; echo end", {.input = "x"}).out.text == "xend\n");
}

TEST_CASE("an input that nobody reads is no failure") {
    const std::string much(1000000, 'x');
    CHECK(started("exit 3", {.input = much}).result.exit_code() == 3);
    CHECK(started("exec <&-; sleep 0.1; exit 3", {.input = much}).result.exit_code() == 3);
    CHECK(started("sleep 0.1; exit 3", {.input = much}).result.exit_code() == 3);
    CHECK(entered("head -c 5; exit 3", {.input = much}).out.text == "xxxxx");
}

TEST_CASE("a command may close its outputs long before its end") {
    const auto seen = started("echo early; exec >&- 2>&-; sleep 0.3; exit 6");
    CHECK(seen.out.text == "early\n");
    CHECK(seen.out.is_whole());
    CHECK(seen.result.exit_code() == 6);
    CHECK(seen.result.wall_time >= 300ms);
}

TEST_CASE("a descendant that keeps the pipes does not keep the capture") {
    const auto begin = std::chrono::steady_clock::now();
    const auto seen = entered("echo mine; ( sleep 20; echo late ) & exit 2");
    CHECK(std::chrono::steady_clock::now() - begin < 10s);
    CHECK(seen.out.text == "mine\n");
    CHECK(seen.out.still_open);
    CHECK_FALSE(seen.out.is_whole());
    CHECK(seen.result.code == 2);
    const auto endless = entered("echo mine; ( while :; do echo more; done ) & exit 2");
    CHECK(endless.out.text.starts_with("mine\n"));
    CHECK(endless.out.still_open);
    // A container's processes end with its first: then the pipes have an end, too.
    const auto whole = started("echo mine; ( sleep 20; echo late ) & exit 2");
    CHECK(whole.out.text == "mine\n");
    CHECK(whole.out.is_whole());
}

TEST_CASE("merged outputs are captured in the order in which they were written") {
    auto spec = shell("echo 1; echo 2 >&2; echo 3");
    spec.process.stdio[2] = stdio::merge();
    scheduler io;
    const auto seen = io.run(run_and_capture(io, std::move(spec)));
    CHECK(seen.out.text == "1\n2\n3\n");
    CHECK(seen.err.text == "");
}

TEST_CASE("a capture that is stopped kills its command and leaves nothing") {
    scheduler io;
    const auto stop_after = [&](std::chrono::milliseconds limit) {
        return io.run(
            with_timeout(io, limit, run_and_capture(io, shell("while :; do echo text; done"))));
    };
    stop_after(1ms);
    const auto before = [&] {
        started("true");
        return holdings::now();
    }();
    for (const auto limit : {0ms, 1ms, 2ms, 5ms, 20ms, 100ms}) CHECK_FALSE(stop_after(limit));
    KUMIKI_CHECK_NOTHING_LEFT(before);
    const auto left = io.run([](scheduler& loop, container_spec spec) -> task<std::size_t> {
        auto box = co_await container::start(loop, std::move(spec));
        auto seen =
            co_await with_timeout(loop, 50ms, run_and_capture(loop, box, command("sleep 20")));
        CHECK_FALSE(seen);
        co_return box.cgroup().procs().size();
    }(io, shell("exec sleep 30")));
    CHECK(left == 1);
}

TEST_CASE("many captures at once know only their own output") {
    scheduler io;
    const auto all = io.run(
        [](scheduler& loop, container_spec spec) -> task<std::vector<captured<sys::exit_status>>> {
            auto box = co_await container::start(loop, std::move(spec));
            std::vector<task<captured<sys::exit_status>>> work;
            for (int i = 0; i < 16; ++i)
                work.push_back(run_and_capture(loop, box,
                                               command("head -c 100000 /dev/zero | tr '\\0' " +
                                                       std::string(1, static_cast<char>('a' + i)) +
                                                       "; exit " + std::to_string(i))));
            auto seen = co_await when_all(std::move(work));
            co_return seen;
        }(io, shell("exec sleep 30")));
    REQUIRE(all.size() == 16);
    for (std::size_t i = 0; i < all.size(); ++i) {
        CHECK(all[i].out.text == std::string(100000, static_cast<char>('a' + i)));
        CHECK(all[i].result.code == static_cast<int>(i));
    }
}

TEST_CASE("the output of a terminal is not captured, and a command that fails is an error") {
    scheduler io;
    auto spec = shell("true");
    spec.process.terminal = terminal_size{};
    CHECK_THROWS_AS(io.run(run_and_capture(io, spec)), invalid_input);
    spec = shell("");
    spec.process.args = {"nowhere"};
    CHECK_THROWS_AS(io.run(run_and_capture(io, spec)), start_error);
}

TEST_CASE("a capture works on epoll as on io_uring") {
    for (const io_backend backend : {io_backend::io_uring, io_backend::epoll}) {
        CAPTURE(to_string(backend));
        std::optional<scheduler> io;
        try {
            io.emplace(scheduler_options{.backend = backend});
        } catch (const error&) {
            KUMIKI_SKIP("io_uring is denied here");
        }
        auto spec = shell("head -c 300000 /dev/zero; cat >&2");
        const auto seen = io->run(run_and_capture(*io, std::move(spec), {.input = "text"}));
        CHECK(seen.out.text.size() == 300000);
        CHECK(seen.err.text == "text");
    }
}
