#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>

#include <chrono>
#include <filesystem>
#include <string>

#include <kumiki/async/timeout.hpp>
#include <kumiki/async/when.hpp>
#include <kumiki/container/container.hpp>
#include <kumiki/container/plan_text.hpp>

#include "container/support.hpp"
#include "support/busybox.hpp"
#include "support/catch.hpp"
#include "support/leaks.hpp"

using namespace kumiki;
using namespace std::chrono_literals;
using kumiki_test::busybox;
using kumiki_test::busybox_root;
using kumiki_test::holdings;
using kumiki_test::read_all;
using kumiki_test::shell;
namespace fs = std::filesystem;

namespace {

container_spec piped(std::string script) {
    auto spec = shell(std::move(script));
    spec.process.stdio = {stdio::pipe(), stdio::pipe(), stdio::pipe()};
    return spec;
}

struct texts {
    std::string out;
    std::string err;
    container_result result;
};

/// What comes out of both pipes of `spec`, one after the other.
task<texts> start_and_read(scheduler& io, container_spec spec) {
    auto box = co_await container::start(io, std::move(spec));
    texts seen;
    if (box.pipes().has_out()) seen.out = co_await read_all(box.out());
    if (box.pipes().has_err()) seen.err = co_await read_all(box.err());
    seen.result = co_await box.wait();
    co_return seen;
}

texts piped_texts(container_spec spec) {
    scheduler io;
    return io.run(start_and_read(io, std::move(spec)));
}

bool is_core_a_file() {
    const auto pattern = sys::try_read_file_at(AT_FDCWD, "/proc/sys/kernel/core_pattern");
    return pattern && pattern->size() > 1 && pattern->front() != '|' && pattern->front() != '@';
}

struct host_pipe : kumiki_test::pipe_pair {
    std::string text() {
        out.reset();
        return sys::read_all(in.get(), "a pipe");
    }
};

}  // namespace

TEST_CASE("pipes of a container carry its input and both of its outputs") {
    scheduler io;
    const auto before = [&] {
        piped_texts(piped("exit 0"));
        return holdings::now();
    }();
    io.run([](scheduler& loop, container_spec spec) -> task<void> {
        auto box = co_await container::start(loop, std::move(spec));
        for (const char* word : {"one\n", "two\n"}) {
            const bool taken = co_await box.in().write(word);
            CHECK(taken);
            std::byte buffer[64];
            const auto size = co_await box.out().read(buffer);
            CHECK(std::string(reinterpret_cast<char*>(buffer), size) == std::string("<") + word);
        }
        box.in().close();
        auto rest = co_await read_all(box.out());
        CHECK(rest == "");
        auto last = co_await read_all(box.err());
        CHECK(last == "done\n");
        auto result = co_await box.wait();
        CHECK(result.exit_code() == 4);
    }(io, piped("while read word; do echo \"<$word\"; done; echo done >&2; exit 4")));
    KUMIKI_CHECK_NOTHING_LEFT(before);
}

TEST_CASE("an exec has pipes of its own") {
    scheduler io;
    io.run([](scheduler& loop, container_spec spec) -> task<void> {
        auto box = co_await container::start(loop, std::move(spec));
        exec_spec wanted{.args = {"sh", "-c", "cat; echo err >&2"},
                         .stdio = {stdio::pipe(), stdio::pipe(), stdio::pipe()}};
        auto process = co_await box.exec(std::move(wanted));
        auto moved = std::move(process);
        const bool taken = co_await moved.in().write("through");
        CHECK(taken);
        moved.in().close();
        auto out = co_await read_all(moved.out());
        CHECK(out == "through");
        auto err = co_await read_all(moved.err());
        CHECK(err == "err\n");
        auto status = co_await moved.wait();
        CHECK(status.code == 0);
    }(io, shell("sleep 30")));
}

TEST_CASE("null is the container's own /dev/null, in a start and in an exec") {
    const bool own_user = GENERATE(false, true);
    CAPTURE(own_user);
    auto spec = shell(
        "cat; stat -L -c %t:%T /proc/self/fd/0; readlink /proc/self/fd/0; "
        "stat -c %d:%i /dev/null; stat -L -c %d:%i /proc/self/fd/0; "
        "echo x >&2; exec sleep 30");
    if (own_user) spec.user_namespace = kumiki_test::mapped_ids();
    spec.process.stdio = {stdio::null(), stdio::pipe(), stdio::null()};
    scheduler io;
    io.run([](scheduler& loop, container_spec of) -> task<void> {
        auto box = co_await container::start(loop, std::move(of));
        std::string seen;
        while (std::count(seen.begin(), seen.end(), '\n') < 4) {
            std::byte buffer[256];
            const auto size = co_await box.out().read(buffer);
            seen.append(reinterpret_cast<char*>(buffer), size);
        }
        const auto lines = split(seen, '\n');
        CHECK(lines[0] == "1:3");
        CHECK(lines[1] == "/dev/null");
        CHECK(lines[2] == lines[3]);
        exec_spec wanted{
            .args = {"sh", "-c", "cat; readlink /proc/self/fd/0; readlink /proc/self/fd/2"},
            .stdio = {stdio::null(), stdio::pipe(), stdio::null()}};
        auto process = co_await box.exec(std::move(wanted));
        auto text = co_await read_all(process.out());
        CHECK(text == "/dev/null\n/dev/null\n");
    }(io, std::move(spec)));
}

TEST_CASE("the mode of the host's /dev/null is not a container's to change") {
    struct stat before{};
    REQUIRE(::stat("/dev/null", &before) == 0);
    auto spec = shell("chmod 600 /proc/self/fd/0; stat -L -c %a /proc/self/fd/0");
    spec.process.stdio = {stdio::null(), stdio::pipe(), stdio::merge()};
    CHECK(piped_texts(std::move(spec)).out == "600\n");
    struct stat after{};
    REQUIRE(::stat("/dev/null", &after) == 0);
    CHECK(after.st_mode == before.st_mode);
}

TEST_CASE("merged, the standard error goes where the standard output goes") {
    const char* script = "echo 1; echo 2 >&2; echo 3";
    auto spec = shell(script);
    spec.process.stdio = {stdio::null(), stdio::pipe(), stdio::merge()};
    CHECK(piped_texts(spec).out == "1\n2\n3\n");
    host_pipe pipe;
    spec = shell(script);
    spec.process.stdio = {stdio::null(), pipe.out.get(), stdio::merge()};
    piped_texts(spec);
    CHECK(pipe.text() == "1\n2\n3\n");
    spec = shell(std::string(script) + "; [ /dev/null -ef /proc/self/fd/2 ] || exit 8");
    spec.process.stdio = {stdio::null(), stdio::null(), stdio::merge()};
    CHECK(piped_texts(spec).result.exit_code() == 0);
}

TEST_CASE("descriptors of the supervisor stand for themselves, as before") {
    host_pipe out;
    host_pipe err;
    auto spec = shell("echo out; echo err >&2");
    spec.process.stdio = {stdio::null(), out.out.get(), err.out.get()};
    piped_texts(spec);
    CHECK(::fcntl(out.out.get(), F_GETFD) >= 0);  // not taken over
    CHECK(out.text() == "out\n");
    CHECK(err.text() == "err\n");
    static_assert(stdio(1) == stdio(1) && stdio(1) != stdio::null());
}

TEST_CASE("a pipe that is not there is refused by name") {
    scheduler io;
    io.run([](scheduler& loop, container_spec spec) -> task<void> {
        auto box = co_await container::start(loop, std::move(spec));
        CHECK_THROWS_WITH(box.out(),
                          Catch::Contains("standard output") && Catch::Contains("stdio::pipe()"));
        CHECK_THROWS_AS(box.in(), error);
        CHECK_THROWS_AS(box.err(), error);
        CHECK_FALSE(box.pipes().has_in());
    }(io, shell("sleep 30")));
    auto spec = shell("true");
    spec.process.stdio[1] = stdio::merge();
    CHECK_THROWS_AS(spec.process.validate(), invalid_input);
    spec.process.stdio = {stdio::merge(), 1, 2};
    CHECK_THROWS_AS(spec.process.validate(), invalid_input);
    spec.process.stdio = {0, 1, stdio::merge()};
    CHECK_NOTHROW(spec.process.validate());
}

TEST_CASE("no end of a pipe is inherited by anything but the command") {
    // If the supervisor kept the child's end, or the child the supervisor's, there were no end.
    const auto seen = piped_texts(piped("exec <&- >&- 2>&-; sleep 0.2"));
    CHECK(seen.out == "");
    CHECK(seen.result.wall_time >= 200ms);
    scheduler io;
    io.run([](scheduler& loop, container_spec one, container_spec two) -> task<void> {
        auto first = co_await container::start(loop, std::move(one));
        auto second = co_await container::start(loop, std::move(two));
        first.in().close();
        auto text = co_await read_all(first.out());  // its cat saw the end of its input
        CHECK(text == "");
        for (const container* box : {&first, &second}) {
            const std::string own = "/proc/" + std::to_string(box->pid()) + "/fd";
            std::size_t count = 0;
            std::error_code gone;
            for (const auto& each : fs::directory_iterator(own, gone))
                count += !each.path().empty();
            CHECK(count <= 3);
        }
    }(io, piped("exec cat"), piped("exec cat")));
}

TEST_CASE("writing to a command that has ended, or reads no more, is an answer and no signal") {
    struct sigaction deadly{};
    struct sigaction before{};
    deadly.sa_handler = SIG_DFL;
    ::sigaction(SIGPIPE, &deadly, &before);
    scheduler io;
    io.run([](scheduler& loop, container_spec gone, container_spec deaf) -> task<void> {
        auto first = co_await container::start(loop, std::move(gone));
        auto result = co_await first.wait();
        CHECK(result.exit_code() == 0);
        bool taken = co_await first.in().write("anybody?");
        CHECK_FALSE(taken);
        auto second = co_await container::start(loop, std::move(deaf));
        const std::string much(1000000, 'x');
        taken = co_await second.in().write(much);
        CHECK_FALSE(taken);
    }(io, piped("true"), piped("sleep 0.1; exec <&-; exec sleep 30")));
    ::sigaction(SIGPIPE, &before, nullptr);
}

TEST_CASE("what a command has written can be read after its end") {
    scheduler io;
    const auto text = io.run([](scheduler& loop, container_spec spec) -> task<std::string> {
        auto box = co_await container::start(loop, std::move(spec));
        co_await box.wait();
        auto moved = std::move(box);
        auto seen = co_await read_all(moved.out());
        co_return seen;
    }(io, piped("echo last words")));
    CHECK(text == "last words\n");
}

TEST_CASE("a start that fails leaves no pipe") {
    auto spec = piped("");
    spec.process.args = {"nowhere"};
    scheduler io;
    const auto fail = [&] {
        CHECK_THROWS_AS(io.run(kumiki_test::start_and_wait(io, spec)), start_error);
    };
    fail();
    const auto before = holdings::now();
    for (int i = 0; i < 20; ++i) fail();
    std::size_t count = 1;
    for (std::size_t at = 0; at < count; ++at)
        CHECK_THROWS_AS(io.run(kumiki_test::start_with_broken_step(io, spec, at, count)),
                        start_error);
    CHECK(count > 60);
    KUMIKI_CHECK_NOTHING_LEFT(before);
}

TEST_CASE("how long a container has lived, what it took, and how it ended are in its result") {
    const auto slept = piped_texts(shell("sleep 0.3")).result;
    CHECK(slept.wall_time >= 300ms);
    CHECK(slept.wall_time < 5s);
    const auto worked =
        piped_texts(shell("i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done")).result;
    CHECK(worked.status.user_time + worked.status.system_time > 10ms);
    CHECK(worked.usage.cpu_usage.value_or(0us) > 10ms);
    auto large = shell("exec dd if=/dev/zero of=/dev/null bs=20M count=1");
    large.process.stdio = {stdio::null(), stdio::null(), stdio::null()};
    const auto used = piped_texts(large).result;
    CHECK(used.status.peak_memory > bytes{20 << 20});
    // The child has shared this process's memory up to its execve, and the kernel remembers it.
    rusage own{};
    REQUIRE(::getrusage(RUSAGE_SELF, &own) == 0);
    CHECK(used.status.peak_memory <
          bytes{(60 << 20) + 1024 * static_cast<std::uint64_t>(own.ru_maxrss)});
}

TEST_CASE("a core that was dumped is in the result, with an init and without one") {
    if (!is_core_a_file()) KUMIKI_SKIP("kernel.core_pattern is a program's, or none");
    for (const init_process init : {init_process::none, init_process::reaper}) {
        if (init != init_process::none && !detail::has_init) continue;
        auto spec = shell("");
        spec.process.rlimits = {{resource::core, 1 << 20, 1 << 20}};
        // PID 1 cannot die by a signal of its own; below an init the command is not that.
        spec.namespaces = spec.namespaces & ~namespace_kind::pid;
        spec.process.args = {"sh", "-c", "kill -SEGV $$; sleep 30"};
        spec.process.init = init;
        spec.process.cwd = "/tmp";
        const auto dumped = piped_texts(spec).result;
        CHECK(dumped.status.signal == SIGSEGV);
        CHECK(dumped.status.core);
        spec.process.rlimits = {{resource::core, 0, 0}};
        const auto none = piped_texts(spec).result;
        CHECK(none.status.signal == SIGSEGV);
        CHECK_FALSE(none.status.core);
    }
}

TEST_CASE("a wall-time limit is with_timeout and stop") {
    scheduler io;
    const auto result = io.run([](scheduler& loop, container_spec spec) -> task<container_result> {
        auto box = co_await container::start(loop, std::move(spec));
        auto in_time = co_await with_timeout(loop, 150ms, box.wait());
        CHECK_FALSE(in_time);
        CHECK(box.cgroup().procs().size() >= 1);  // it was left running
        auto ended = co_await box.stop(50ms);
        co_return ended;
    }(io, shell("trap '' TERM; while :; do sleep 0.05; done")));
    CHECK(result.status.signal == SIGKILL);
    CHECK(result.wall_time >= 200ms);
    CHECK(result.wall_time < 5s);
}
