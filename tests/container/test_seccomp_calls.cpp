// Containers whose filter asks the supervisor, and what the payload gets to see of the answers.
#include <fcntl.h>
#include <sys/mman.h>

#include <functional>
#include <string>
#include <vector>

#include <kumiki/async/scope.hpp>
#include <kumiki/container/container.hpp>
#include <kumiki/security/process_status.hpp>

#include "async/both_backends.hpp"
#include "container/support.hpp"
#include "support/busybox.hpp"
#include "support/catch.hpp"
#include "support/leaks.hpp"

using namespace kumiki;
using kumiki_test::busybox;
using kumiki_test::busybox_root;
using kumiki_test::holdings;
using kumiki_test::pipe_pair;
using kumiki_test::read_all;

namespace {

using shared_program = std::shared_ptr<const seccomp_program>;
using answerer = std::function<void(seccomp_call&)>;

shared_program asking(const std::vector<std::string>& names) {
    auto filter = default_seccomp_filter(default_capabilities);
    for (const std::string& name : names)
        if (find_syscall(name)) filter.on_first(name, seccomp_action::notify());
    return std::make_shared<const seccomp_program>(filter.compile());
}

container_spec filtered(std::string script, shared_program filter) {
    auto spec = kumiki_test::shell_spec(busybox(), std::move(script));
    spec.process.filter = std::move(filter);
    spec.process.cwd = "/tmp";
    return spec;
}

task<void> answer_all(seccomp_listener& calls, const answerer& answer) {
    for (;;) {
        auto call = co_await calls.next();
        if (!call) co_return;
        answer(*call);
    }
}

/// Runs `spec` with its calls answered, and yields what it wrote.
task<std::string> run_answered(scheduler& io, container_spec spec, const answerer& answer) {
    pipe_pair pipe;
    const unique_fd null = sys::open_at(AT_FDCWD, "/dev/null", O_RDONLY);
    spec.process.stdio = {null.get(), pipe.out.get(), pipe.out.get()};
    auto box = co_await container::start(io, std::move(spec));
    pipe.out.reset();
    REQUIRE(box.seccomp_calls() != nullptr);
    co_await answer_all(*box.seccomp_calls(), answer);
    auto text = co_await read_all(io, pipe.in.get());
    co_await box.wait();
    co_return text;
}

std::string answered(container_spec spec, const answerer& answer) {
    scheduler io;
    return io.run(run_answered(io, std::move(spec), answer));
}

task<std::string> refusal(scheduler& io, container_spec spec) {
    try {
        auto box = co_await container::start(io, std::move(spec));
    } catch (const error& failure) {
        co_return std::string(failure.what());
    }
    co_return std::string("none");
}

constexpr const char* mknod_script = "mknod p p; echo $?; test -p p && echo there";

}  // namespace

TEST_CASE("the payload gets the answer that the supervisor gives to its call") {
    KUMIKI_ON_BOTH_BACKENDS(io);
    const auto run = [&](const answerer& answer) {
        return io.run(run_answered(io, filtered(mknod_script, asking({"mknodat"})), answer));
    };
    CHECK(run([](seccomp_call& call) { CHECK(call.allow()); }) == "0\nthere\n");
    CHECK(run([](seccomp_call& call) { CHECK(call.deny(EROFS)); }) ==
          "mknod: p: Read-only file system\n1\n");
    CHECK(run([](seccomp_call& call) { CHECK(call.value(0)); }) == "0\n");
    CHECK(run([](seccomp_call&) {}) == "mknod: p: Operation not permitted\n1\n");
    int seen = 0;
    run([&](seccomp_call& call) {
        ++seen;
        CHECK(call.name() == "mknodat");
        CHECK(call.number() == syscall_number("mknodat"));
        CHECK(call.architecture() == detail::seccomp_architecture);
        CHECK(static_cast<int>(call.argument(0)) == AT_FDCWD);
        CHECK((call.argument(2) & S_IFMT) == S_IFIFO);
        CHECK(call.read_text(call.argument(1)) == "p");
        CHECK(call.still_valid());
        const auto cwd = "/proc/" + std::to_string(call.pid()) + "/cwd";
        char link[64] = {};
        CHECK(::readlink(cwd.c_str(), link, sizeof link - 1) > 0);
        CHECK(std::string(link) == "/tmp");
    });
    CHECK(seen == 1);
}

TEST_CASE("a descriptor that the supervisor injects is read by the payload") {
    const bool atomic = GENERATE(true, false);
    const unique_fd file(::memfd_create("text", MFD_CLOEXEC));
    REQUIRE(::write(file.get(), "from outside\n", 13) == 13);
    int others = 0;
    const auto text = answered(
        filtered("cat /virtual/file; cat /etc/passwd | head -n 1", asking({"openat", "open"})),
        [&](seccomp_call& call) {
            const auto path = call.read_text(call.argument(call.name() == "open" ? 0 : 1));
            REQUIRE(path);
            if (*path != "/virtual/file") {
                ++others;
                CHECK(call.allow());
                return;
            }
            ::lseek(file.get(), 0, SEEK_SET);
            const auto number =
                atomic ? call.inject(file.get()) : call.inject_in_two_steps(file.get());
            CHECK(number.value_or(-1) >= 3);
        });
    CHECK(text == "from outside\nroot:x:0:0:root:/root:/bin/sh\n");
    CHECK(others >= 1);
}

TEST_CASE("what the start itself calls behind its filter is let through and not told") {
    const auto mode = GENERATE(clone_mode::shared_memory, clone_mode::own_memory);
    const bool no_new_privs = GENERATE(true, false);
    const bool fetched = GENERATE(false, true);
    const bool own_user = GENERATE(false, true);
    CAPTURE(mode, no_new_privs, fetched, own_user);
    std::vector<std::string> names{"execve",         "execveat",     "prctl",  "capset",
                                   "rt_sigprocmask", "rt_sigaction", "sendto", "seccomp",
                                   "clock_gettime",  "close",        "ppoll",  "read"};
    names.push_back(fetched ? "sendmsg" : "write");
    auto spec =
        filtered("echo $$; /bin/sleep 0; test -e /bin/sh; exec /bin/echo last", asking(names));
    spec.clone = mode;
    spec.process.no_new_privs = no_new_privs;
    if (own_user) spec.user_namespace = kumiki_test::mapped_ids();
    std::vector<std::string> executed;
    std::vector<std::string> seen;
    const auto text = answered(std::move(spec), [&](seccomp_call& call) {
        seen.emplace_back(call.name());
        if (call.name() == "execve")
            executed.push_back(call.read_text(call.argument(0)).value_or("?"));
        CHECK(call.allow());
    });
    CHECK(text == "1\nlast\n");
    CHECK(executed == std::vector<std::string>{"/bin/sleep", "/bin/echo"});
    CHECK(std::ranges::count(seen, "seccomp") == 0);
    CHECK(std::ranges::count(seen, "capset") == 0);
    CHECK(std::ranges::count(seen, "sendto") == 0);
}

TEST_CASE("the payload's first call is never taken for one of the start") {
    // The very first thing that it does is to execute something: the same call as the start's last.
    int calls = 0;
    for (int i = 0; i < 30; ++i) {
        auto spec = filtered("", asking({"execve", "brk", "arch_prctl", "set_tid_address"}));
        spec.process.args = {"/bin/true"};
        spec.clone = i % 2 == 0 ? clone_mode::shared_memory : clone_mode::own_memory;
        bool brk = false;
        (void)answered(std::move(spec), [&](seccomp_call& call) {
            brk = brk || call.name() == "brk";
            CHECK(call.name() != "execve");
            ++calls;
            call.allow();
        });
        CHECK(brk);  // the first of a static program, and not let through unseen
    }
    CHECK(calls >= 60);
}

TEST_CASE("a filter that asks about sendmsg and write is refused before anything is done") {
    scheduler io;
    const auto said = io.run(refusal(io, filtered("true", asking({"sendmsg", "write"}))));
    CHECK(said.find("notify sendmsg and write") != std::string::npos);
    CHECK(said.find("hands its listener over") != std::string::npos);
}

TEST_CASE("what the rest of the filter refuses does not hinder the start") {
    auto filter = default_seccomp_filter(default_capabilities);
    filter.on_first("mknodat", seccomp_action::notify());
    for (const char* name : {"sendmsg", "sendto", "seccomp", "ppoll", "capset"})
        filter.on_first(name, seccomp_action::kill_process());
    CHECK(
        answered(filtered(mknod_script, std::make_shared<const seccomp_program>(filter.compile())),
                 [](seccomp_call& call) { call.value(0); }) == "0\n");
}

TEST_CASE("a process of the container has the filter's two parts, and no listener") {
    std::string fds;
    const auto text =
        answered(filtered("ls /proc/self/fd; grep -E '^(Seccomp|Seccomp_filters|NoNewPrivs):' "
                          "/proc/self/status | tr '\\t' ' '; mount -t tmpfs none /tmp",
                          asking({"mknodat"})),
                 [](seccomp_call& call) { call.allow(); });
    CHECK(text.starts_with("0\n1\n2\n3\n"));  // 3: the listing itself
    CHECK(text.find("NoNewPrivs: 1\nSeccomp: 2\nSeccomp_filters: 2\n") != std::string::npos);
    CHECK(text.find("permission denied") != std::string::npos);  // the rest is in force
}

TEST_CASE("two processes that call at once are told apart and answered in any order") {
    scheduler io;
    const auto text = io.run([](scheduler& loop, container_spec spec) -> task<std::string> {
        pipe_pair pipe;
        spec.process.stdio[1] = pipe.out.get();
        auto box = co_await container::start(loop, std::move(spec));
        pipe.out.reset();
        auto first = co_await box.seccomp_calls()->next();
        auto second = co_await box.seccomp_calls()->next();
        REQUIRE((first && second));
        CHECK(first->pid() != second->pid());
        CHECK(first->id() != second->id());
        CHECK((first->still_valid() && second->still_valid()));
        // The one for "a" is denied, the one for "b" allowed, the later one first.
        for (auto* call : {&*second, &*first}) {
            const auto path = call->read_text(call->argument(1));
            CHECK((path == "a" ? call->deny(ENOSPC) : call->allow()));
        }
        auto third = co_await box.seccomp_calls()->next();
        CHECK_FALSE(third);
        auto said = co_await read_all(loop, pipe.in.get());
        co_await box.wait();
        co_return said;
    }(io, filtered("mknod a p 2>/dev/null & mknod b p & wait; ls", asking({"mknodat"}))));
    CHECK(text == "b\n");
}

TEST_CASE("a call whose process is killed while it waits is not valid any more") {
    scheduler io;
    io.run([](scheduler& loop, container_spec spec) -> task<void> {
        pipe_pair input;
        pipe_pair output;
        spec.process.stdio = {input.in.get(), output.out.get(), 2};
        auto box = co_await container::start(loop, std::move(spec));
        output.out.reset();
        input.in.reset();
        auto call = co_await box.seccomp_calls()->next();
        REQUIRE(call);
        CHECK(call->still_valid());
        const auto path = call->argument(1);
        CHECK(::write(input.out.get(), "go\n", 3) == 3);
        auto said = co_await read_all(loop, output.in.get());
        CHECK(said == "137\n");
        CHECK_FALSE(call->still_valid());
        CHECK_FALSE(call->read_text(path));
        std::byte byte{};
        CHECK_FALSE(call->read_memory(path, {&byte, 1}));
        CHECK_FALSE(call->inject(1));
        CHECK_FALSE(call->replace(1, 1));
        CHECK_FALSE(call->value(0));
        auto end = co_await box.seccomp_calls()->next();
        CHECK_FALSE(end);
        co_await box.wait();
    }(io, filtered("mknod a p & read go; kill -9 $!; wait $!; echo $?", asking({"mknodat"}))));
}

TEST_CASE("a container is stopped and destroyed while its calls wait and nobody answers") {
    scheduler io;
    const auto before = holdings::now();
    kumiki_test::with_container(io, filtered("mknod a p", asking({"mknodat"})), [](container&) {});
    const auto code = io.run([](scheduler& loop, container_spec spec) -> task<int> {
        auto box = co_await container::start(loop, std::move(spec));
        auto call = co_await box.seccomp_calls()->next();
        CHECK(call);
        auto result = co_await box.stop(std::chrono::milliseconds(50));
        CHECK_FALSE(call->allow());
        auto end = co_await box.seccomp_calls()->next();
        CHECK_FALSE(end);
        co_return result.exit_code();
    }(io, filtered("mknod a p", asking({"mknodat"}))));
    CHECK(code == 137);
    KUMIKI_CHECK_NOTHING_LEFT(before);
}

TEST_CASE("a wait for calls ends with its time limit and loses no call") {
    KUMIKI_ON_BOTH_BACKENDS(io);
    io.run([](scheduler& loop, container_spec spec) -> task<void> {
        pipe_pair input;
        spec.process.stdio[0] = input.in.get();
        auto box = co_await container::start(loop, std::move(spec));
        auto none =
            co_await with_timeout(loop, std::chrono::milliseconds(20), box.seccomp_calls()->next());
        CHECK_FALSE(none);
        CHECK(::write(input.out.get(), "go\n", 3) == 3);
        auto call = co_await box.seccomp_calls()->next();
        REQUIRE(call);
        CHECK(call->deny(EACCES));
        auto result = co_await box.wait();
        CHECK(result.exit_code() == 1);
    }(io, filtered("read go; mknod a p 2>/dev/null", asking({"mknodat"}))));
}

TEST_CASE("a process that enters has a listener of its own") {
    scheduler io;
    io.run([](scheduler& loop, container_spec spec) -> task<void> {
        auto box = co_await container::start(loop, std::move(spec));
        pipe_pair pipe;
        exec_spec wanted{.args = {"sh", "-c", mknod_script}, .stdio = {0, pipe.out.get(), 2}};
        auto process = co_await box.exec(std::move(wanted));
        pipe.out.reset();
        REQUIRE(process.seccomp_calls() != nullptr);
        auto call = co_await process.seccomp_calls()->next();
        REQUIRE(call);
        auto none =
            co_await with_timeout(loop, std::chrono::milliseconds(20), box.seccomp_calls()->next());
        CHECK_FALSE(none);
        auto moved = std::move(process);
        CHECK(call->value(0));
        auto end = co_await moved.seccomp_calls()->next();
        CHECK_FALSE(end);
        auto said = co_await read_all(loop, pipe.in.get());
        CHECK(said == "0\n");
        auto status = co_await moved.wait();
        CHECK(status.code == 1);  // of test -p
    }(io, filtered("sleep 30", asking({"mknodat"}))));
}

TEST_CASE("a process that enters hands its listener over also when sendmsg asks") {
    scheduler io;
    io.run([](scheduler& loop, container_spec spec) -> task<void> {
        spec.user_namespace = kumiki_test::mapped_ids();
        auto box = co_await container::start(loop, std::move(spec));
        exec_spec wanted{.args = {"mknod", "a", "p"}};
        auto process = co_await box.exec(std::move(wanted));
        auto call = co_await process.seccomp_calls()->next();
        REQUIRE(call);
        CHECK(call->name() == "mknodat");
        CHECK(call->value(0));
        auto status = co_await process.wait();
        CHECK(status.code == 0);
    }(io, filtered("sleep 30", asking({"mknodat", "sendmsg"}))));
}

TEST_CASE("without notify rules there is no listener") {
    scheduler io;
    kumiki_test::with_container(io, kumiki_test::shell_spec(busybox(), "sleep 30"),
                                [](container& box) { CHECK(box.seccomp_calls() == nullptr); });
}

TEST_CASE("a start that asks and fails at any step leaves nothing") {
    const bool fetched = GENERATE(false, true);
    scheduler io;
    const auto before = holdings::now();
    std::size_t count = 1;
    int failures = 0;
    int late = 0;
    for (std::size_t at = 0; at < count; ++at) {
        auto spec =
            filtered("true", asking({"execve", "exit_group", fetched ? "sendmsg" : "write"}));
        spec.start_limit = std::chrono::seconds(2);
        try {
            io.run(kumiki_test::start_with_broken_step(io, std::move(spec), at, count));
        } catch (const start_error& failure) {
            if (failure.errno_value() == ENOSYS) ++failures;
            if (failure.errno_value() == ETIMEDOUT) ++late;
        }
    }
    // Without its listener handed over nobody can let the child end: it is killed when time is up.
    CHECK(late == 1);
    CHECK(failures + late == static_cast<int>(count));
    CHECK(count > 60);
    KUMIKI_CHECK_NOTHING_LEFT(before);
}

TEST_CASE("instructions that the kernel does not take are a typed error of the start") {
    scheduler io;
    auto spec =
        filtered("true", std::make_shared<const seccomp_program>(std::vector<sock_filter>{
                             {BPF_LD | BPF_B | BPF_IND, 0, 0, 0}, {BPF_RET | BPF_K, 0, 0, 0}}));
    const auto said = io.run(refusal(io, std::move(spec)));
    CHECK(said.find("step seccomp") != std::string::npos);
    CHECK(said.find("EINVAL") != std::string::npos);
    CHECK(said.find("does not take these instructions") != std::string::npos);
}
