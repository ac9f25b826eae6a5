#include <signal.h>
#include <sys/stat.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include <kumiki/container/capture.hpp>
#include <kumiki/container/init.hpp>
#include <kumiki/security/process_status.hpp>

#include "container/support.hpp"
#include "support/busybox.hpp"
#include "support/catch.hpp"
#include "support/leaks.hpp"

using namespace kumiki;
using namespace std::chrono_literals;
using kumiki_test::busybox;
using kumiki_test::busybox_root;
using kumiki_test::holdings;
using kumiki_test::text_of;
namespace fs = std::filesystem;

namespace {

/// `script` below an init.
container_spec with_init(std::string script) {
    auto spec = kumiki_test::shell_spec(busybox(), std::move(script));
    spec.process.init = init_process::reaper;
    return spec;
}

captured<container_result> seen_of(container_spec spec) {
    scheduler io;
    return io.run(run_and_capture(io, std::move(spec)));
}

/// Reads from `from` until `what` has come, and yields all of it.
task<std::string> read_until(pipe_reader& from, std::string what) {
    std::string text;
    while (text.find(what) == std::string::npos) {
        std::byte buffer[4096];
        auto size = co_await from.read(buffer);
        if (size == 0) break;
        text.append(reinterpret_cast<const char*>(buffer), size);
    }
    co_return text;
}

/// Signals that a shell can trap, one of the real-time ones among them.
constexpr int handed_on[] = {SIGTERM,  SIGINT,  SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2,
                             SIGWINCH, SIGALRM, SIGURG, SIGPIPE, SIGCONT, 36};

using task_of_box = std::function<task<void>(scheduler&, container&)>;

/// Starts `spec` with a pipe for its output, which says "ready", and goes on with `then`.
task<container_result> start_ready(scheduler& io, container_spec spec, task_of_box then) {
    spec.process.stdio = {stdio::null(), stdio::pipe(), stdio::merge()};
    auto box = co_await container::start(io, std::move(spec));
    co_await read_until(box.out(), "ready");
    co_await then(io, box);
    auto result = co_await box.wait();
    co_return result;
}

container_result use_ready(container_spec spec, task_of_box then) {
    scheduler io;
    return io.run(start_ready(io, std::move(spec), std::move(then)));
}

std::string error_of(container_spec spec, int& status) {
    try {
        seen_of(std::move(spec));
    } catch (const error& failure) {
        status = exit_status_of(failure);
        return failure.what();
    }
    return "none";
}

}  // namespace

#define REQUIRE_INIT()                                                                             \
    if (!detail::has_init) KUMIKI_SKIP("there is no init for this machine")

TEST_CASE("an init is PID 1, and the command another process in a session of its own") {
    REQUIRE_INIT();
    const auto seen =
        seen_of(with_init("echo $$; read a b c d e rest < /proc/self/stat; "
                          "cat /proc/1/comm; tr '\\0' ' ' < /proc/1/cmdline; echo; "
                          "readlink /proc/1/exe; ls /proc/$$/fd; true"));
    CHECK(seen.err.text == "");
    CHECK(seen.out.text == "2\ninit\ninit \n/memfd:init (deleted)\n0\n1\n2\n");
    CHECK(seen.result.exit_code() == 0);
    const auto session =
        seen_of(with_init("set -- $(cat /proc/self/stat); echo $6; set -- $(cat /proc/1/stat); "
                          "echo $6"));
    CHECK(session.out.text == "2\n1\n");
}

TEST_CASE("the init of a container is sealed, and is nobody else's") {
    REQUIRE_INIT();
    const int control = 77;
    process_spec spec;
    spec.args = {"sh", "-c", "true"};
    const unique_fd one = detail::make_init(spec, control);
    const unique_fd other = detail::make_init(spec, control);
    CHECK(sys::status_of(one.get()).st_ino != sys::status_of(other.get()).st_ino);
    CHECK(::fcntl(one.get(), F_GET_SEALS) ==
          (F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE));
    CHECK((::fcntl(one.get(), F_GETFD) & FD_CLOEXEC) != 0);
    CHECK((sys::status_of(one.get()).st_mode & 07777) == 0555);
    CHECK(::write(one.get(), "x", 1) == -1);
    CHECK(errno == EPERM);
}

TEST_CASE("root of a container cannot change its init") {
    REQUIRE_INIT();
    const auto seen =
        seen_of(with_init("echo x >> /proc/1/exe; echo $?; echo x > /proc/1/exe; echo $?"));
    CHECK(seen.out.text == "1\n1\n");
}

TEST_CASE("orphans are reaped by the init, and stay zombies without one") {
    REQUIRE_INIT();
    const std::string script =
        "i=0; while [ $i -lt 20 ]; do ( ( sleep 0.05 ) & ) ; i=$((i+1)); done; sleep 0.6; "
        "ps -o pid,ppid,stat,comm | grep -c ' Z'";
    CHECK(seen_of(with_init(script)).out.text == "0\n");
    auto without = with_init("( ( sleep 0.05 ) & ) ; exec sleep 30");  // a PID 1 that never waits
    without.process.init = init_process::none;
    scheduler io;
    const auto zombies = io.run([](scheduler& loop, container_spec spec) -> task<std::string> {
        auto box = co_await container::start(loop, std::move(spec));
        exec_spec look{.args = {"sh", "-c", "sleep 0.6; ps -o stat,comm | grep -c '^Z'"}};
        auto seen = co_await run_and_capture(loop, box, std::move(look));
        co_return seen.out.text;
    }(io, std::move(without)));
    CHECK(zombies == "1\n");
}

TEST_CASE("the init reaps what an exec leaves behind") {
    REQUIRE_INIT();
    scheduler io;
    const auto text = io.run([](scheduler& loop, container_spec spec) -> task<std::string> {
        auto box = co_await container::start(loop, std::move(spec));
        exec_spec orphan{.args = {"sh", "-c", "( sleep 0.2; exit 3 ) >/dev/null 2>&1 & exit 4"}};
        auto first = co_await run_and_capture(loop, box, std::move(orphan));
        CHECK(first.result.code == 4);
        exec_spec look{.args = {"sh", "-c", "sleep 0.5; ps -o stat,args"}};
        auto seen = co_await run_and_capture(loop, box, std::move(look));
        CHECK(box.cgroup().procs().size() == 2);
        co_return seen.out.text;
    }(io, with_init("exec sleep 30")));
    CHECK(text.find("init") != std::string::npos);
    CHECK(text.find("sleep 30") != std::string::npos);
    CHECK(text.find("\nZ") == std::string::npos);
}

TEST_CASE("the exit status and the signal of the command are the container's") {
    REQUIRE_INIT();
    const auto code = GENERATE(0, 1, 7, 125, 137, 255);
    const auto ended = seen_of(with_init("exit " + std::to_string(code))).result;
    CHECK(ended.status.code == code);
    CHECK(ended.status.signal == 0);
    CHECK(ended.exit_code() == code);
    for (const int number : {SIGKILL, SIGTERM, SIGHUP, SIGUSR2, SIGSEGV}) {
        CAPTURE(number);
        const auto killed = seen_of(with_init("kill -" + std::to_string(number) + " $$")).result;
        CHECK(killed.status.signal == number);
        CHECK(killed.status.code == 0);
        CHECK(killed.exit_code() == 128 + number);
    }
}

TEST_CASE("signals to a container with an init reach the command") {
    REQUIRE_INIT();
    std::string script;
    for (const int each : handed_on)
        script += "trap 'echo got " + std::to_string(each) + "' " + std::to_string(each) + "\n";
    script += "trap 'exit 9' XCPU\necho ready\nwhile :; do sleep 0.01; done";
    const auto result = use_ready(with_init(script), [](scheduler&, container& box) -> task<void> {
        for (const int each : handed_on) {
            CHECK(box.signal(each));
            auto text = co_await read_until(box.out(), "\n");
            CHECK(text == "got " + std::to_string(each) + "\n");
        }
        box.signal(SIGXCPU);
    });
    CHECK(result.status.code == 9);
}

TEST_CASE("a command without handlers dies by the signal that its init hands on") {
    REQUIRE_INIT();
    const auto result = use_ready(with_init("echo ready; exec sleep 30"),
                                  [](scheduler&, container& box) -> task<void> {
                                      box.signal(SIGTERM);
                                      co_return;
                                  });
    CHECK(result.status.signal == SIGTERM);
    CHECK(result.exit_code() == 143);
}

TEST_CASE("stop asks through the init, and kills it when the grace is over") {
    REQUIRE_INIT();
    scheduler io;
    const auto stopped = [&](const char* script, std::chrono::milliseconds grace) {
        return io.run(kumiki_test::start_and_stop(io, with_init(script), grace));
    };
    const auto plain = stopped("echo ready; exec sleep 30", 10s);
    CHECK(plain.status.signal == SIGTERM);
    CHECK(plain.wall_time < 5s);
    CHECK(
        stopped("trap 'exit 3' TERM; echo ready; while :; do sleep 0.05; done", 10s).exit_code() ==
        3);
    const auto killed = stopped("trap '' TERM; echo ready; while :; do sleep 0.05; done", 100ms);
    CHECK(killed.status.signal == SIGKILL);
}

TEST_CASE("a command that an init cannot execute is the error that it is without one") {
    REQUIRE_INIT();
    const auto both = [](container_spec spec, int& status) {
        int other = 0;
        spec.name = "same";
        const auto text = error_of(spec, status);
        spec.process.init = init_process::none;
        CHECK(error_of(spec, other) == text);
        CHECK(other == status);
        return text;
    };
    int status = 0;
    auto spec = with_init("");
    const auto before = [&] {
        error_of(spec, status);
        return holdings::now();
    }();
    spec.process.args = {"nowhere", "at all"};
    CHECK(both(spec, status).find("execute nowhere (step exec") != std::string::npos);
    CHECK(status == 127);
    spec.process.args = {"/etc/passwd"};
    CHECK(both(spec, status).find("EACCES") != std::string::npos);
    CHECK(status == 126);
    spec.process.args = {"/bin/sh/x"};
    CHECK(both(spec, status).find("ENOENT") != std::string::npos);
    CHECK(status == 127);
    fs::permissions(busybox().path() + "/etc/group", fs::perms(0755));
    spec.process.args = {"/etc/group"};
    CHECK(both(spec, status).find("ENOEXEC") != std::string::npos);
    CHECK(status == 126);
    spec.process.args = {"group"};
    spec.process.env = {"PATH=/nowhere:/etc/passwd:/etc"};
    CHECK(both(spec, status).find("ENOEXEC") != std::string::npos);
    KUMIKI_CHECK_NOTHING_LEFT(before);
}

TEST_CASE("an init that may not make a process says so") {
    REQUIRE_INIT();
    auto spec = with_init("true");
    spec.process.user = {4321, 4321};
    spec.process.rlimits = {{resource::nproc, 1, 1}};
    int status = 0;
    const auto text = error_of(spec, status);
    CHECK(text.find("EAGAIN") != std::string::npos);
    CHECK(text.find("an init counts as one") != std::string::npos);
    CHECK(status == 126);
}

TEST_CASE("arguments and environment go through an init as they are") {
    REQUIRE_INIT();
    auto spec = with_init("");
    const std::string large(100000, 'y');
    spec.process.args = {"sh",      "-c", "for a in \"$@\"; do echo \"<$a>\"; done; env",
                         "name",    "",   "two words",
                         "\xff\n'", large};
    spec.process.env = {"PATH=/bin", "EMPTY=", "ODD=a b=c"};
    const auto with = seen_of(spec);
    spec.process.init = init_process::none;
    const auto without = seen_of(spec);
    CHECK(with.out.text == without.out.text);
    CHECK(with.out.text.find("<two words>") != std::string::npos);
    CHECK(with.out.text.find("<" + large + ">") != std::string::npos);
}

TEST_CASE("below an init a command shows the same in /proc as without one") {
    REQUIRE_INIT();
    const bool own_user = GENERATE(false, true);
    const bool root = GENERATE(true, false);
    CAPTURE(own_user, root);
    auto spec = with_init(
        "cd /proc/self; grep -E '^(Umask|Uid|Gid|Groups|Cap|NoNewPrivs|Seccomp|Shd|SigBlk|SigIgn|"
        "Cpus_allowed)' status; cat limits oom_score_adj personality; ls fd; "
        "for n in ns/*; do readlink $n | tr -d 0-9; done; readlink root; readlink exe; pwd; env");
    if (own_user) spec.user_namespace = kumiki_test::mapped_ids();
    if (!root) spec.process.user = {1000, 1000, {group_id(5), group_id(7)}};
    spec.process.umask = 027;
    spec.process.nice = 3;
    const auto with = seen_of(spec);
    spec.process.init = init_process::none;
    const auto without = seen_of(spec);
    CHECK(with.out.text == without.out.text);
    CHECK(with.out.text.find("Seccomp:\t2") != std::string::npos);
    CHECK(with.err.text == without.err.text);
}

TEST_CASE("the init has the privileges and the filter of its container, and one socket") {
    REQUIRE_INIT();
    use_ready(with_init("echo ready; exec sleep 30"), [](scheduler&, container& box) -> task<void> {
        const std::string proc = "/proc/" + std::to_string(box.pid());
        CHECK(text_of(proc + "/comm") == "init\n");
        CHECK(fs::read_symlink(proc + "/exe").string() == "/memfd:init (deleted)");
        const auto status = read_process_status(box.pid());
        REQUIRE(status);
        CHECK(status->capabilities.bounding == default_capabilities);
        CHECK(status->capabilities.effective == default_capabilities);
        CHECK(status->no_new_privileges);
        CHECK(text_of(proc + "/status").find("Seccomp:\t2") != std::string::npos);
        // Nothing of the supervisor's memory: its own few pages, the stack, and the kernel's.
        std::ifstream maps(proc + "/maps");
        for (std::string line; std::getline(maps, line);) {
            CAPTURE(line);
            CHECK((line.find("memfd:init") != std::string::npos ||
                   line.find("[stack]") != std::string::npos ||
                   line.find("[v") != std::string::npos));
        }
        // It closes what was the payload's alone after that one's birth, maybe behind its first words.
        std::vector<std::string> targets;
        for (int tries = 0; tries < 500 && targets.size() != 1; ++tries) {
            if (tries != 0) ::usleep(10'000);
            targets.clear();
            for (const auto& each : fs::directory_iterator(proc + "/fd")) {
                std::error_code gone;
                const auto target = fs::read_symlink(each.path(), gone);
                if (!gone) targets.push_back(target.string());
            }
        }
        REQUIRE(targets.size() == 1);
        CHECK(targets.front().starts_with("socket:"));
        box.signal(SIGKILL);
        co_return;
    });
}

TEST_CASE("an init works in memory that is shared and in memory of its own") {
    REQUIRE_INIT();
    auto spec = with_init("echo $$; exit 5");
    spec.clone = GENERATE(clone_mode::shared_memory, clone_mode::own_memory);
    const auto seen = seen_of(spec);
    CHECK(seen.out.text == "2\n");
    CHECK(seen.result.status.code == 5);
}

TEST_CASE("an init reaps without a pid namespace, too, and its end is that of all") {
    REQUIRE_INIT();
    const auto before = [] {
        seen_of(with_init("true"));
        return holdings::now();
    }();
    auto spec = with_init(
        "( ( sleep 0.05 ) & ) ; ( sleep 1000 & ) ; sleep 0.5; "
        "ps -o ppid,stat,args | grep \"^ *$PPID \" | grep -v ' sh -c'; exit 6");
    spec.namespaces = spec.namespaces & ~namespace_kind::pid;
    const auto seen = seen_of(spec);
    CHECK(seen.result.status.code == 6);
    CHECK(seen.out.text.find("sleep 1000") != std::string::npos);
    CHECK(std::count(seen.out.text.begin(), seen.out.text.end(), '\n') == 1);
    KUMIKI_CHECK_NOTHING_LEFT(before);
}

TEST_CASE("a terminal is the command's and not its init's") {
    REQUIRE_INIT();
    scheduler io;
    auto spec = with_init(
        "trap 'echo interrupted' INT; tty=$(readlink /proc/self/fd/0); echo $tty; "
        "set -- $(cat /proc/1/stat); echo init $7; set -- $(cat /proc/$$/stat); "
        "echo own $5 $6 $8; echo ready; while :; do sleep 0.05; done");
    spec.process.terminal = terminal_size{};
    std::string text;
    io.run([](scheduler& loop, container_spec of, std::string& seen) -> task<void> {
        auto box = co_await container::start(loop, std::move(of));
        const auto read_to = [&](std::string_view what) {
            char buffer[512];
            while (seen.find(what) == std::string::npos) {
                pollfd ready{box.terminal(), POLLIN, 0};
                REQUIRE(::poll(&ready, 1, 10000) == 1);
                const auto size = ::read(box.terminal(), buffer, sizeof buffer);
                if (size <= 0) break;
                seen.append(buffer, static_cast<std::size_t>(size));
            }
        };
        read_to("ready");
        REQUIRE(::write(box.terminal(), "\x03", 1) == 1);  // ^C
        read_to("interrupted");
    }(io, std::move(spec), text));
    CHECK(text.find("/dev/pts/0\r\ninit 0\r\nown 2 2 2\r\n") != std::string::npos);
    // once, and not a second time by way of the init
    CHECK(text.find("interrupted") == text.rfind("interrupted"));
}

TEST_CASE("a command below an init that closes its descriptors is seen to") {
    REQUIRE_INIT();
    scheduler io;
    auto spec = with_init("exec <&- >&- 2>&-; exec sleep 30");
    spec.process.stdio = {stdio::pipe(), stdio::pipe(), stdio::pipe()};
    io.run([](scheduler& loop, container_spec of) -> task<void> {
        auto box = co_await container::start(loop, std::move(of));
        auto text = co_await read_until(box.out(), "never");
        CHECK(text == "");
        // One call closes them all, and the kernel lets go of them one after the other.
        bool taken = true;
        for (int i = 0; taken && i < 100; ++i) {
            co_await loop.sleep_for(1ms);
            taken = co_await box.in().write("anybody?");
        }
        CHECK_FALSE(taken);
        CHECK(box.cgroup().procs().size() == 2);
    }(io, std::move(spec)));
}

TEST_CASE("a start with an init can be cancelled at any time and leaves nothing") {
    REQUIRE_INIT();
    scheduler io;
    const auto before = [&] {
        seen_of(with_init("true"));
        return holdings::now();
    }();
    for (int i = 0; i < 60; ++i)
        io.run(with_timeout(io, i * 200us, kumiki_test::start_and_wait(io, with_init("sleep 30"))));
    KUMIKI_CHECK_NOTHING_LEFT(before);
}

TEST_CASE("a start with an init that fails at any step, or dies there, leaves nothing") {
    REQUIRE_INIT();
    const bool dies = GENERATE(false, true);
    scheduler io;
    auto spec = with_init("true");
    const auto before = [&] {
        seen_of(spec);
        return holdings::now();
    }();
    std::size_t count = 3;
    std::string last;
    for (std::size_t at = 0; at + 2 < count; ++at) {
        CAPTURE(at);
        try {
            io.run(dies ? kumiki_test::start_with_deadly_step(io, spec, at, count)
                        : kumiki_test::start_with_broken_step(io, spec, at, count));
            FAIL("it started");
        } catch (const start_error& failure) {
            last = failure.what();
        }
    }
    CHECK(count > 60);
    if (!dies) CHECK(last.find("the control socket") != std::string::npos);
    KUMIKI_CHECK_NOTHING_LEFT(before);
}

TEST_CASE("a filter that forbids what an init does is an error that names the init") {
    REQUIRE_INIT();
    seccomp_filter narrow(seccomp_action::allow());
    narrow.on("execveat", seccomp_action::fail(EPERM));
    auto spec = with_init("true");
    spec.process.filter = std::make_shared<const seccomp_program>(narrow.compile());
    int status = 0;
    CHECK(error_of(spec, status).find("execute the container's init (step exec") !=
          std::string::npos);
    CHECK(status == 126);
}

TEST_CASE("a user by name is the one below an init, too") {
    REQUIRE_INIT();
    auto spec = with_init("id -u; stat -c %u /proc/1");
    spec.process.named_user = parse_user("web");
    CHECK(seen_of(spec).out.text == "1000\n1000\n");
}

TEST_CASE("an init in a pid namespace of others reaps what its own command leaves") {
    REQUIRE_INIT();
    scheduler io;
    const auto text =
        io.run([](scheduler& loop, container_spec one,
                  container_spec two) -> task<std::string> {
            auto first = co_await container::start(loop, std::move(one));
            two.join = first.share(namespace_kind::pid);
            auto seen = co_await run_and_capture(loop, std::move(two));
            CHECK(seen.result.status.signal == SIGKILL);
            co_return seen.out.text;
        }(io, kumiki_test::shell_spec(busybox(), "exec sleep 30"),
                                      with_init("( ( sleep 0.05 ) & ) ; sleep 0.4; "
                                                "ps -o stat | grep -c '^Z'; kill -9 $$")));
    CHECK(text == "0\n");
}

TEST_CASE("the death of a supervisor is that of an init, and of what it runs") {
    REQUIRE_INIT();
    const auto before = holdings::now();
    const pid_t supervisor = ::fork();
    if (supervisor == 0) {
        scheduler io;
        auto spec = with_init("exec sleep 1000");
        spec.name = kumiki_test::group_prefix() + "orphaned";
        io.run([](scheduler& loop, container_spec of) -> task<void> {
            auto box = co_await container::start(loop, std::move(of));
            ::kill(::getpid(), SIGKILL);
        }(io, std::move(spec)));
        ::_exit(1);
    }
    int status = 0;
    REQUIRE(::waitpid(supervisor, &status, 0) == supervisor);
    REQUIRE(WIFSIGNALED(status));
    bool gone = false;
    std::string group;
    for (const auto& each : fs::recursive_directory_iterator("/sys/fs/cgroup"))
        if (each.path().filename() == "test-" + std::to_string(supervisor) + "-orphaned")
            group = each.path();
    REQUIRE(!group.empty());
    for (int i = 0; i < 200 && !gone; ++i) {
        gone = text_of(group + "/cgroup.procs").empty();
        if (!gone) std::this_thread::sleep_for(10ms);
    }
    CHECK(gone);
    CHECK(::rmdir(group.c_str()) == 0);
    KUMIKI_CHECK_NOTHING_LEFT(before);
}

TEST_CASE("1,000 containers with an init leave nothing") {
    REQUIRE_INIT();
    scheduler io;
    auto spec = with_init("true");
    spec.process.args = {"true"};
    const auto round = [&] { io.run(kumiki_test::start_and_wait(io, spec)); };
    round();
    const auto before = holdings::now();
    for (int i = 0; i < 1000; ++i) {
        spec.name = kumiki_test::group_prefix() + "many";
        round();
    }
    KUMIKI_CHECK_NOTHING_LEFT(before);
}
