#include <fcntl.h>
#include <sys/prctl.h>

#include <chrono>
#include <filesystem>
#include <string>
#include <vector>

#include <kumiki/container/container.hpp>
#include <kumiki/security/process_status.hpp>

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
using kumiki_test::pipe_pair;
using kumiki_test::read_all;
using kumiki_test::shell;
using kumiki_test::with_users;
namespace fs = std::filesystem;

namespace {

struct answer {
    sys::exit_status status;
    std::string output;
};

/// What `spec` writes in the container, and how it ends.
task<answer> ask(scheduler& io, container& box, exec_spec spec) {
    pipe_pair pipe;
    const unique_fd null = sys::open_at(AT_FDCWD, "/dev/null", O_RDONLY);
    spec.stdio = {null.get(), pipe.out.get(), pipe.out.get()};
    auto process = co_await box.exec(std::move(spec));
    pipe.out.reset();
    answer seen;
    seen.output = co_await read_all(io, pipe.in.get());
    seen.status = co_await process.wait();
    co_return seen;
}

task<std::vector<answer>> start_and_ask(scheduler& io, container_spec spec,
                                        std::vector<exec_spec> questions) {
    auto box = co_await container::start(io, std::move(spec));
    std::vector<answer> answers;
    for (exec_spec& question : questions) {
        auto seen = co_await ask(io, box, std::move(question));
        answers.push_back(std::move(seen));
    }
    co_return answers;
}

answer ask_in(container_spec spec, exec_spec question) {
    scheduler io;
    auto all = io.run(start_and_ask(io, std::move(spec), {std::move(question)}));
    return std::move(all.front());
}

/// What a process can tell of itself; what must differ (its number, times) is left out.
constexpr const char* self_portrait =
    "cd /proc/self; grep -E '^(Umask|Uid|Gid|Groups|Cap|NoNewPrivs|Seccomp|Shd|SigBlk|SigIgn|"
    "SigCgt|Cpus_allowed)' status; cat limits cgroup oom_score_adj personality; "
    "for n in ns/*; do readlink $n; done; readlink root; readlink exe; pwd; env; "
    "cat /proc/self/uid_map; for f in fd/*; do echo $f $(readlink $f | tr -d 0-9); done";

task<void> exec_and_look(scheduler& io, container_spec spec,
                         std::function<void(container&, exec_process&)> look) {
    auto box = co_await container::start(io, std::move(spec));
    auto process = co_await box.exec(command("exec sleep 30"));
    look(box, process);
}

/// The error of an exec as text, or "none".
task<std::string> refusal(scheduler& io, container_spec spec, exec_spec wanted, int& status) {
    auto box = co_await container::start(io, std::move(spec));
    try {
        auto process = co_await box.exec(std::move(wanted));
    } catch (const error& failure) {
        status = exit_status_of(failure);
        co_return std::string(failure.what());
    }
    co_return std::string("none");
}

std::string refused(exec_spec wanted, int& status) {
    scheduler io;
    return io.run(refusal(io, shell("sleep 30"), std::move(wanted), status));
}

std::string refused(exec_spec wanted) {
    int status = 0;
    return refused(std::move(wanted), status);
}

}  // namespace

TEST_CASE("a process that enters is in every namespace and in the cgroup of the container") {
    const bool own_user = GENERATE(false, true);
    CAPTURE(own_user);
    auto spec = shell("exec sleep 30");
    if (own_user) spec = with_users(std::move(spec));
    spec.time_namespace = clock_offsets{.monotonic = 1000s};
    scheduler io;
    io.run(exec_and_look(io, std::move(spec), [](container& box, exec_process& process) {
        for (const auto& kind : namespace_kinds) {
            CAPTURE(kind.name);
            CHECK(namespace_fd::of_process(process.pid(), kind.kind) ==
                  namespace_fd::of_process(box.pid(), kind.kind));
        }
        const auto procs = box.cgroup().procs();
        CHECK(std::count(procs.begin(), procs.end(), process.pid()) == 1);
        const auto status = read_process_status(process.pid());
        REQUIRE(status);
        REQUIRE(status->namespace_pids.size() == 2);
        CHECK(status->namespace_pids.back() > 1);
    }));
}

TEST_CASE("a start and an exec show the same in /proc") {
    const bool own_user = GENERATE(false, true);
    const bool root = GENERATE(true, false);
    CAPTURE(own_user, root);
    const auto make = [&](std::string script) {
        auto spec = shell(std::move(script));
        if (own_user) spec = with_users(std::move(spec));
        if (!root) spec.process.user = {1000, 1000, {group_id(5), group_id(7)}};
        spec.process.oom_score_adj = 77;
        spec.process.umask = 027;
        spec.process.cwd = "/tmp";
        spec.process.nice = 3;
        return spec;
    };
    scheduler io;
    pipe_pair pipe;
    auto spec = make(std::string("( ") + self_portrait + " ); echo; sleep 30");
    const unique_fd null = sys::open_at(AT_FDCWD, "/dev/null", O_RDONLY);
    spec.process.stdio = {null.get(), pipe.out.get(), pipe.out.get()};
    const auto both = io.run([](scheduler& loop, container_spec of, pipe_pair& from,
                                exec_spec question) -> task<std::pair<std::string, std::string>> {
        auto box = co_await container::start(loop, std::move(of));
        from.out.reset();
        std::string first;
        while (first.find("\n\n") == std::string::npos) {
            std::byte buffer[4096];
            auto size = co_await loop.read(from.in.get(), buffer);
            if (size == 0) break;
            first.append(reinterpret_cast<const char*>(buffer), size);
        }
        auto second = co_await ask(loop, box, std::move(question));
        co_return std::pair{std::move(first), second.output};
    }(io, std::move(spec), pipe, command(std::string("( ") + self_portrait + " ); echo")));
    CHECK(both.first.find("CapBnd") != std::string::npos);
    CHECK(both.first.find("Seccomp:\t2") != std::string::npos);
    CHECK(both.first == both.second);
}

TEST_CASE("an exec yields output, exit status, and the signal that ended it") {
    const auto before = [] {
        ask_in(shell("sleep 30"), command("true"));
        return holdings::now();
    }();
    const auto seen = ask_in(shell("sleep 30"), command("echo out; echo err >&2; exit 7"));
    CHECK(seen.output == "out\nerr\n");
    CHECK(seen.status.code == 7);
    CHECK(ask_in(shell("sleep 30"), command("kill -9 $$")).status.signal == SIGKILL);
    KUMIKI_CHECK_NOTHING_LEFT(before);
    CHECK(::prctl(PR_GET_DUMPABLE) == 1);
}

TEST_CASE("an exec has its own user, environment and directory, and no more than it asks for") {
    exec_spec wanted = command("id -u; id -g; pwd; echo $WHO; grep CapEff /proc/self/status");
    wanted.named_user = parse_user("web");
    wanted.env = std::vector<std::string>{"PATH=/bin", "WHO=me"};
    wanted.cwd = "/www";
    CHECK(ask_in(shell("sleep 30"), wanted).output ==
          "1000\n1000\n/www\nme\nCapEff:\t0000000000000000\n");

    exec_spec narrow = command("grep -E 'Cap(Eff|Bnd)' /proc/self/status");
    narrow.capabilities = capability_set{capability::chown};
    CHECK(ask_in(shell("sleep 30"), narrow).output ==
          "CapEff:\t0000000000000001\nCapBnd:\t0000000000000001\n");
}

TEST_CASE("an exec has a terminal of the container's own") {
    exec_spec wanted = command("tty=$(readlink /proc/self/fd/0); echo $tty; stty size; id -u");
    wanted.terminal = terminal_size{.rows = 33, .columns = 99};
    scheduler io;
    const auto output =
        io.run([](scheduler& loop, container_spec of, exec_spec question) -> task<std::string> {
            auto box = co_await container::start(loop, std::move(of));
            auto process = co_await box.exec(std::move(question));
            co_await process.wait();
            char text[512];
            const auto size = ::read(process.terminal(), text, sizeof text);
            co_return std::string(text, size > 0 ? static_cast<std::size_t>(size) : 0);
        }(io, shell("sleep 30"), std::move(wanted)));
    CHECK(output == "/dev/pts/0\r\n33 99\r\n0\r\n");
}

TEST_CASE("a signal reaches the process that entered") {
    scheduler io;
    const auto status = io.run([](scheduler& loop, container_spec of) -> task<sys::exit_status> {
        auto box = co_await container::start(loop, std::move(of));
        auto process = co_await box.exec(command("exec sleep 30"));
        CHECK(process.signal(SIGTERM));
        auto ended = co_await process.wait();
        auto again = co_await process.wait();
        CHECK(again.signal == ended.signal);
        CHECK_FALSE(process.signal(SIGTERM));
        co_return ended;
    }(io, shell("sleep 30")));
    CHECK(status.signal == SIGTERM);
}

TEST_CASE("the wait for a container does not wait for ever for those that entered it") {
    const auto ask_for = GENERATE(false, true);
    scheduler io;
    const int code = io.run([](scheduler& loop, container_spec of, bool exec_first) -> task<int> {
        auto box = co_await container::start(loop, std::move(of));
        auto first = co_await box.exec(command("exec sleep 30"));
        auto second = co_await box.exec(command("exec sleep 30"));
        box.signal(SIGKILL);
        if (exec_first) {
            auto status = co_await first.wait();
            CHECK(status.signal == SIGKILL);
        }
        auto result = co_await box.wait();
        auto status = co_await second.wait();
        CHECK(status.signal == SIGKILL);
        co_return result.exit_code();
    }(io, shell("sleep 30"), ask_for));
    CHECK(code == 137);
}

TEST_CASE("an exec that cannot be is one clear error") {
    int status = 0;
    CHECK(refused({.args = {"nowhere"}}, status).find("execute nowhere") != std::string::npos);
    CHECK(status == 127);
    CHECK(refused({.args = {"/etc/passwd"}}, status).find("Permission") != std::string::npos);
    CHECK(status == 126);
    CHECK(refused({.args = {"true"}, .cwd = "/gone"}).find("/gone") != std::string::npos);
    CHECK(refused({.args = {}}).find("command") != std::string::npos);
    CHECK(refused({.args = {"true"}, .cwd = "relative"}).find("absolute") != std::string::npos);
    CHECK(
        refused({.args = {"true"}, .named_user = parse_user("nobody-here")}).find("nobody-here") !=
        std::string::npos);
    CHECK(refused({.args = {"true"}, .capabilities = capability_set{capability::sys_admin}})
              .find("The container does not have it") != std::string::npos);
    CHECK(refused({.args = {"true"}, .cwd = "/" + std::string(5000, 'x')}) != "none");
}

TEST_CASE("an exec into a container that has ended is refused") {
    scheduler io;
    const auto text = io.run([](scheduler& loop, container_spec of) -> task<std::string> {
        auto box = co_await container::start(loop, std::move(of));
        co_await box.wait();
        try {
            auto process = co_await box.exec(command("true"));
        } catch (const error& failure) {
            CHECK(failure.errno_value() == ESRCH);
            co_return std::string(failure.what());
        }
        co_return std::string();
    }(io, shell("exit 0")));
    CHECK(text.find("has ended") != std::string::npos);
}

TEST_CASE("the working directory of an exec cannot be a descriptor (CVE-2024-21626)") {
    for (const char* cwd : {"/proc/self/fd/3", "/proc/self/fd/4", "/proc/self/fd/5",
                            "/proc/self/fd/6", "/proc/1/cwd", "/proc/self/root", "/proc/1/root"}) {
        CAPTURE(cwd);
        CHECK(refused({.args = {"pwd"}, .cwd = cwd}) != "none");
    }
}

TEST_CASE("a process that enters shows nothing of the host (CVE-2016-9962, CVE-2019-5736)") {
    // Root inside looks at every process's exe, cwd, root, descriptors and memory as fast as it can.
    const int rounds = 100;
    auto spec = shell(
        "cd /proc; while :; do for p in [0-9]*; do [ $p = 1 ] && continue; "
        "e=$(readlink $p/exe) && [ \"$e\" != /bin/busybox ] && echo exe $e; "
        "c=$(readlink $p/cwd) && [ \"$c\" != / ] && [ \"$c\" != /proc ] && echo cwd $c; "
        "for f in $p/fd/*; do t=$(readlink $f) && case $t in /dev/null|/|/proc*|pipe:*) ;; "
        "*) echo fd $t;; esac; done; grep -q kumiki_test $p/maps $p/environ && echo memory $p; "
        "done; done 2>/dev/null");
    spec.process.capabilities = GENERATE(values({default_capabilities, capability_set::all()}));
    pipe_pair pipe;
    const unique_fd null = sys::open_at(AT_FDCWD, "/dev/null", O_RDWR);
    spec.process.stdio = {null.get(), pipe.out.get(), null.get()};
    scheduler io;
    const auto seen = io.run([](scheduler& loop, container_spec of, pipe_pair& from, int null_fd,
                                int count) -> task<std::string> {
        // These three look into any process, whatever it has set; a hard limit may need the fourth.
        of.process.capabilities = of.process.capabilities -
                                  capability_set{capability::sys_ptrace, capability::sys_resource,
                                                 capability::perfmon, capability::sys_admin};
        auto box = co_await container::start(loop, std::move(of));
        from.out.reset();
        for (int i = 0; i < count; ++i) {
            exec_spec next{.args = {"true"}, .stdio = {null_fd, null_fd, null_fd}};
            auto process = co_await box.exec(std::move(next));
            auto status = co_await process.wait();
            CHECK(status.code == 0);
        }
        box.signal(SIGKILL);
        co_await box.wait();
        auto text = co_await read_all(loop, from.in.get());
        co_return text;
    }(io, std::move(spec), pipe, null.get(), rounds));
    CHECK(seen == "");
}

TEST_CASE("an exec that fails at any step leaves nothing") {
    scheduler io;
    struct spoiled {
        std::size_t at = 0;
        std::size_t count = 1;
    } which;
    io.run([](scheduler& loop, container_spec of, spoiled& step_number) -> task<void> {
        auto parts = co_await detail::launch(loop, std::move(of));
        const auto break_it = [](child_program& program, void* context) {
            auto& broken = *static_cast<spoiled*>(context);
            broken.count = program.count;
            auto* steps = const_cast<step*>(program.steps);
            steps[broken.at] =
                step{.kind = step_kind::call, .in = steps[broken.at].in, .number = -1};
        };
        const auto before = holdings::now();
        for (; step_number.at < step_number.count; ++step_number.at) {
            bool failed = false;
            try {
                auto process = co_await detail::enter_container(
                    loop, *parts, command("true"), {.alter = break_it, .context = &step_number});
            } catch (const start_error& failure) {
                failed = failure.errno_value() == ENOSYS;
            }
            CAPTURE(step_number.at);
            CHECK(failed);
        }
        KUMIKI_CHECK_NOTHING_LEFT(before);
        CHECK(parts->group.procs().size() == 1);
        parts->kill_and_release();
    }(io, shell("exec sleep 30"), which));
    CHECK(which.count > 20);
}
