#include <fcntl.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <filesystem>
#include <string>
#include <thread>
#include <vector>

#include <kumiki/container/container.hpp>
#include <kumiki/container/plan_text.hpp>
#include <kumiki/security/process_status.hpp>

#include "container/support.hpp"
#include "support/busybox.hpp"
#include "support/catch.hpp"
#include "support/leaks.hpp"

using namespace kumiki;
using namespace kumiki::literals;
using namespace std::chrono_literals;
using kumiki_test::busybox;
using kumiki_test::busybox_root;
using kumiki_test::holdings;
using kumiki_test::outcome;
using kumiki_test::run_shell;
using kumiki_test::shell;
namespace fs = std::filesystem;

namespace {

/// What is held once the library has what it keeps for the life of the process.
holdings settled_holdings() {
    static const int once = run_shell(shell("exit 0")).result.exit_code();
    CHECK(once == 0);
    return holdings::now();
}

std::string link_of(const std::string& path) { return fs::read_symlink(path).string(); }

}  // namespace

TEST_CASE("a container runs its command and yields its exit status") {
    const auto before = settled_holdings();
    CHECK(run_shell(shell("exit 7")).result.exit_code() == 7);
    CHECK(run_shell(shell("kill -9 $$; sleep 10 & kill -9 $!; wait $!; exit $?"))
              .result.exit_code() == 137);
    CHECK(run_shell(shell("echo out; echo err >&2")).output == "out\nerr\n");
    KUMIKI_CHECK_NOTHING_LEFT(before);
}

TEST_CASE("each namespace of a container is another than the supervisor's") {
    scheduler io;
    auto spec = shell("sleep 30");
    spec.user_namespace = kumiki_test::mapped_ids();
    spec.time_namespace = clock_offsets{.monotonic = 1000s};
    kumiki_test::with_container(io, std::move(spec), [](container& box) {
        for (const auto& kind : namespace_kinds) {
            CAPTURE(kind.name);
            const std::string name = "/ns/" + std::string(kind.proc_name);
            CHECK(link_of("/proc/" + std::to_string(box.pid()) + name) !=
                  link_of("/proc/self" + name));
        }
    });
}

TEST_CASE("a namespace that is left out is the supervisor's own") {
    scheduler io;
    auto spec = shell("sleep 30");
    spec.namespaces = namespace_kind::mount;
    spec.network = network_mode::host;
    kumiki_test::with_container(io, std::move(spec), [](container& box) {
        for (const char* kind : {"uts", "ipc", "pid", "net", "cgroup", "user"}) {
            CAPTURE(kind);
            const std::string name = std::string("/ns/") + kind;
            CHECK(link_of("/proc/" + std::to_string(box.pid()) + name) ==
                  link_of("/proc/self" + name));
        }
        CHECK(link_of("/proc/" + std::to_string(box.pid()) + "/ns/mnt") !=
              link_of("/proc/self/ns/mnt"));
    });
}

TEST_CASE("the payload is in its cgroup and sees that group as the root") {
    scheduler io;
    CHECK(run_shell(shell("grep '^0::' /proc/self/cgroup")).output == "0::/\n");
    kumiki_test::with_container(io, shell("sleep 30"), [](container& box) {
        const auto procs = box.cgroup().procs();
        REQUIRE(procs.size() == 1);
        CHECK(procs.front() == box.pid());
        CHECK(box.cgroup().name() == box.name());
    });
}

TEST_CASE("the payload is PID 1, with a host name, mounts and interfaces of its own") {
    auto spec =
        shell("echo $$; hostname; ls /proc/self/fd | wc -l; ip -o link | wc -l; ls /; id -u");
    spec.hostname = "box-7";
    const auto seen = run_shell(std::move(spec));
    CHECK(seen.output == "1\nbox-7\n4\n1\nbin\ndev\netc\nproc\nroot\nsys\ntmp\nwww\n0\n");
    // 4: standard descriptors and the directory that ls itself has open
}

TEST_CASE("the loopback interface of a container is up in both families") {
    const auto seen = run_shell(shell("ip -o addr show lo"));
    CHECK(seen.output.find("127.0.0.1/8") != std::string::npos);
    CHECK(seen.output.find("::1/128") != std::string::npos);
}

TEST_CASE("nothing of the host's mounts can be seen") {
    const auto seen =
        run_shell(shell("cut -d' ' -f5 /proc/self/mountinfo 2>/dev/null || while read a b c d e f; "
                        "do echo $e; done < /proc/self/mountinfo"));
    std::string_view rest = seen.output;
    while (const auto line = next_field(rest, '\n')) {
        INFO(*line);
        CHECK((*line == "/" || is_path_within(*line, "/proc") || is_path_within(*line, "/sys") ||
               is_path_within(*line, "/dev") || is_path_within(*line, "/etc")));
    }
}

TEST_CASE("the device nodes work and there are no others") {
    const auto seen = run_shell(
        shell("echo x > /dev/null && head -c 4 /dev/zero | wc -c; head -c 4 /dev/urandom | wc -c; "
              "echo x > /dev/full 2>/dev/null || echo full; ls /dev; stat -c '%t:%T %a' /dev/null; "
              "readlink /dev/fd; readlink /dev/ptmx"));
    CHECK(seen.output ==
          "4\n4\nfull\ncore\nfd\nfull\nmqueue\nnull\nptmx\npts\nrandom\nshm\nstderr\nstdin\nstdout"
          "\ntty\n"
          "urandom\nzero\n1:3 666\n/proc/self/fd\npts/ptmx\n");
}

TEST_CASE("an overlay's changes are seen inside and leave the layer as it was") {
    CHECK(run_shell(shell("echo changed > /etc/passwd; echo new > /new; cat /etc/passwd /new"))
              .output == "changed\nnew\n");
    CHECK_FALSE(fs::exists(busybox().path() + "/new"));
    CHECK(holdings::lines(busybox().path() + "/etc/passwd").size() == 2);
}

TEST_CASE("an overlay with a directory on top keeps the changes there") {
    const kumiki_test::temporary_directory disk;
    fs::create_directory(disk.path() + "/upper");
    fs::create_directory(disk.path() + "/work");
    auto spec = shell("echo new > /new");
    spec.rootfs = rootfs::overlay(busybox().path(),
                                  {.upper = disk.path() + "/upper", .work = disk.path() + "/work"});
    CHECK(run_shell(std::move(spec)).result.exit_code() == 0);
    CHECK(holdings::lines(disk.path() + "/upper/new") == std::vector<std::string>{"new"});
}

TEST_CASE("the layers of an overlay lie one over the other, the first on top") {
    const kumiki_test::temporary_directory upper_layer;
    fs::create_directory(upper_layer.path() + "/etc");
    kumiki_test::write_text(upper_layer.path() + "/etc/passwd", "from above\n");
    auto spec = shell("cat /etc/passwd; ls /bin/sh");
    spec.rootfs = rootfs::overlay(std::vector<std::string>{upper_layer.path(), busybox().path()});
    CHECK(run_shell(std::move(spec)).output == "from above\n/bin/sh\n");
}

TEST_CASE("a colon and a backslash in the path of a layer are part of its name") {
    const kumiki_test::temporary_directory base;
    const std::string odd = base.path() + "/a:b\\c,d";
    fs::create_directory(odd);
    kumiki_test::write_text(odd + "/odd", "odd\n");
    auto spec = shell("cat /odd");
    spec.rootfs = rootfs::overlay(std::vector<std::string>{odd, busybox().path()});
    CHECK(run_shell(std::move(spec)).output == "odd\n");
}

TEST_CASE("a plain directory as root is changed by the container, a read-only one is not") {
    const busybox_root own;
    auto spec = kumiki_test::shell_spec(own, "echo new > /new && echo written");
    spec.rootfs = rootfs::directory(own.path());
    CHECK(run_shell(spec).output == "written\n");
    CHECK(fs::exists(own.path() + "/new"));
    spec.rootfs = rootfs::directory(own.path(), access_mode::read_only);
    spec.process.args.back() = "echo new > /new2 || echo refused";
    CHECK(run_shell(spec).output.find("refused") != std::string::npos);
    CHECK_FALSE(fs::exists(own.path() + "/new2"));
}

TEST_CASE("a read-only overlay refuses writes and still has its mounts") {
    auto spec = shell(
        "touch /x 2>/dev/null || echo refused; touch /dev/shm/x && echo shm; cat /etc/hostname");
    spec.rootfs = rootfs::overlay(busybox().path()).read_only();
    spec.hostname = "ro";
    CHECK(run_shell(std::move(spec)).output == "refused\nshm\nro\n");
}

TEST_CASE("bind mounts and tmpfs appear at their targets with their access") {
    const kumiki_test::temporary_directory shared;
    kumiki_test::write_text(shared.path() + "/file", "from the host\n");
    auto spec = shell(
        "cat /data/file /deep/er/file; echo back > /data/back; "
        "(echo x > /ro/file) 2>/dev/null || echo refused; "
        "mount | grep ' /scratch ' | grep -c 'size=1024k'; stat -c %a /scratch");
    spec.mounts = {
        bind_mount{.source = shared.path(), .target = "/data"},
        bind_mount{.source = shared.path() + "/file", .target = "/deep/er/file"},
        bind_mount{.source = shared.path(), .target = "/ro", .access = access_mode::read_only},
        tmpfs_mount{.target = "/scratch", .size = 1_MiB, .mode = 0700}};
    CHECK(run_shell(std::move(spec)).output == "from the host\nfrom the host\nrefused\n1\n700\n");
    CHECK(holdings::lines(shared.path() + "/back") == std::vector<std::string>{"back"});
}

TEST_CASE("masked files are empty and read-only paths refuse writes") {
    const auto seen =
        run_shell(shell("cat /proc/keys /proc/timer_list | wc -c; ls /sys/firmware | wc -l; "
                        "(echo 1 > /proc/sys/kernel/printk) 2>/dev/null || echo refused; "
                        "(echo h > /proc/sysrq-trigger) 2>/dev/null || echo refused; "
                        "mkdir /sys/fs/cgroup/x 2>/dev/null || echo refused"));
    CHECK(seen.output == "0\n0\nrefused\nrefused\nrefused\n");
}

TEST_CASE("privileges of a normal container are the default ones, read back from the kernel") {
    scheduler io;
    kumiki_test::with_container(io, shell("sleep 30"), [](container& box) {
        const auto status = read_process_status(box.pid());
        REQUIRE(status);
        CHECK(status->capabilities == root_capabilities(default_capabilities));
        CHECK(status->no_new_privileges);
        CHECK(to_underlying(status->seccomp) == 2);
        CHECK(status->groups.empty());
    });
    auto spec = shell("sleep 30");
    spec.process.user = {1000, 1001, {5, 7}};
    kumiki_test::with_container(io, std::move(spec), [](container& box) {
        const auto status = read_process_status(box.pid());
        REQUIRE(status);
        CHECK(status->uid.real == 1000);
        CHECK(status->uid.saved == 1000);
        CHECK(status->gid.effective == 1001);
        CHECK(status->groups.size() == 2);
        CHECK(status->capabilities.effective.empty());
        CHECK(status->capabilities.permitted.empty());
        CHECK(status->capabilities.bounding == default_capabilities);
    });
}

TEST_CASE("the filter refuses what containers must not call") {
    CHECK(
        run_shell(shell("mount -t tmpfs x /tmp 2>&1 | grep -o 'ermission denied\\|not permitted' "))
            .result.exit_code() == 0);
    CHECK(run_shell(shell("hostname other 2>/dev/null || echo refused")).output == "refused\n");
}

TEST_CASE("environment, working directory, umask, limits and score are as described") {
    auto spec = shell("pwd; umask; ulimit -n; cat /proc/self/oom_score_adj; env | grep MARK");
    spec.process.cwd = "/tmp";
    spec.process.umask = 027;
    spec.process.rlimits = {{.which = resource::nofile, .soft = 77, .hard = 99}};
    spec.process.oom_score_adj = 500;
    spec.process.env.push_back("MARK=here");
    CHECK(run_shell(std::move(spec)).output == "/tmp\n0027\n77\n500\nMARK=here\n");
}

TEST_CASE("an ignored signal and a blocked one are not inherited") {
    ::signal(SIGUSR1, SIG_IGN);
    const auto seen = run_shell(shell("exec grep -E 'SigIgn|SigBlk' /proc/self/status"));
    ::signal(SIGUSR1, SIG_DFL);
    CHECK(seen.output == "SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n");
}

TEST_CASE("a user namespace shows its ids, and files of the layers belong to root inside") {
    auto spec = shell(
        "id -u; cat /proc/self/uid_map | tr -s ' '; stat -c %u:%g /bin/busybox; "
        "touch /x && stat -c %u /x; echo x > /dev/null && echo null");
    spec.user_namespace = user_mapping{id_map({{0, 200000, 65536}}), id_map({{0, 200000, 65536}})};
    spec.clone = GENERATE(clone_mode::shared_memory, clone_mode::own_memory);
    const auto seen = run_shell(std::move(spec));
    CHECK(seen.output == "0\n 0 200000 65536\n0:0\n0\nnull\n");
}

TEST_CASE("both ways of cloning give the same container") {
    const std::string look =
        "grep -vE "
        "'^(Pid|PPid|TracerPid|VmPeak|Vm.*|Rss.*|.*ctxt.*|SigQ|Threads|Cpus.*|Mems.*|HugetlbPages|"
        "Speculation.*|NSpid|Ngid)' "
        "/proc/self/status; cat /proc/self/mountinfo | while read a b c rest; do echo $rest; done; "
        "cat /proc/self/cgroup; ls -l /proc/self/fd | wc -l; cat /proc/self/limits; hostname";
    std::vector<std::string> seen;
    for (const clone_mode mode : {clone_mode::shared_memory, clone_mode::own_memory}) {
        auto spec = shell(look);
        spec.name = "same";
        spec.clone = mode;
        seen.push_back(run_shell(std::move(spec)).output);
    }
    CHECK(seen[0].size() > 1000);
    CHECK(seen[0] == seen[1]);
}

TEST_CASE("the supervisor is as it was after a start in shared memory") {
    const int dumpable = ::prctl(PR_GET_DUMPABLE);
    sigset_t mask_before;
    sigset_t mask_after;
    ::pthread_sigmask(SIG_SETMASK, nullptr, &mask_before);
    errno = 4711;
    auto spec = shell("exit 0");
    spec.process.user = {1000, 1000};
    spec.clone = clone_mode::shared_memory;
    run_shell(std::move(spec));
    ::pthread_sigmask(SIG_SETMASK, nullptr, &mask_after);
    CHECK(::prctl(PR_GET_DUMPABLE) == dumpable);
    for (int number = 1; number < 65; ++number)
        CHECK(::sigismember(&mask_before, number) == ::sigismember(&mask_after, number));
    CHECK(::geteuid() == 0);
}

TEST_CASE("a terminal is the payload's own, with its size, and hears of a new one") {
    scheduler io;
    auto spec = shell("stty size; ls /dev/console; read line; echo got $line; stty size");
    spec.process.terminal = terminal_size{.rows = 33, .columns = 99};
    std::string seen;
    kumiki_test::with_container(io, std::move(spec), [&](container& box) {
        const auto read_until = [&](const char* what) {
            char text[512];
            while (seen.find(what) == std::string::npos) {
                pollfd ready{box.terminal(), POLLIN, 0};
                REQUIRE(::poll(&ready, 1, 10000) == 1);
                const auto n = ::read(box.terminal(), text, sizeof text);
                if (n <= 0) break;
                seen.append(text, static_cast<std::size_t>(n));
            }
        };
        read_until("console");
        box.resize({.rows = 44, .columns = 55});
        REQUIRE(::write(box.terminal(), "word\n", 5) == 5);
        read_until("44 55");
    });
    CHECK(seen.find("33 99") != std::string::npos);
    CHECK(seen.find("/dev/console") != std::string::npos);
    CHECK(seen.find("got word") != std::string::npos);
    CHECK(seen.find("44 55") != std::string::npos);
}

TEST_CASE("a container that is destroyed is killed and leaves nothing") {
    const auto before = settled_holdings();
    {
        scheduler io;
        kumiki_test::with_container(io, shell("sleep 1000 & sleep 1000"), [](container&) {});
    }
    KUMIKI_CHECK_NOTHING_LEFT(before);
}

TEST_CASE("stop asks first and kills when the grace is over") {
    scheduler io;
    const auto stopped = [&](const char* script, std::chrono::milliseconds grace) {
        return io.run(kumiki_test::start_and_stop(io, shell(script), grace)).exit_code();
    };
    CHECK(stopped("trap 'exit 3' TERM; echo ready; while true; do sleep 0.05; done", 10s) == 3);
    CHECK(stopped("trap '' TERM; echo ready; while true; do sleep 0.05; done", 100ms) == 137);
}

TEST_CASE("a start can be cancelled at any time and leaves nothing") {
    scheduler io;
    const auto before = settled_holdings();
    for (int i = 0; i < 60; ++i) {
        std::stop_source stop;
        std::thread later([&, i] {
            std::this_thread::sleep_for(std::chrono::microseconds(i * 100));
            stop.request_stop();
        });
        try {
            io.run(kumiki_test::start_and_wait(io, shell("sleep 1000")), stop.get_token());
            FAIL("it was not cancelled");
        } catch (const cancelled&) {}
        later.join();
    }
    KUMIKI_CHECK_NOTHING_LEFT(before);
}

TEST_CASE("a failure of any step is an error that names it, and leaves nothing") {
    scheduler io;
    const auto before = settled_holdings();
    std::size_t steps = 1;
    for (std::size_t at = 0; at < steps; ++at) {
        CAPTURE(at);
        try {
            io.run(kumiki_test::start_with_broken_step(io, shell("exit 0"), at, steps));
            FAIL("the start went on");
        } catch (const start_error& failure) {
            CHECK(failure.errno_value() == ENOSYS);
            CHECK_FALSE(failure.step().empty());
            CHECK_FALSE(failure.object().empty());
        }
    }
    CHECK(steps > 100);
    KUMIKI_CHECK_NOTHING_LEFT(before);
    CHECK(run_shell(shell("exit 7")).result.exit_code() == 7);
}

TEST_CASE("a child that is killed at any step leaves nothing and is told as such") {
    scheduler io;
    const auto before = settled_holdings();
    std::size_t steps = 2;
    for (std::size_t at = 1; at < steps; at += 7) {
        CAPTURE(at);
        try {
            io.run(kumiki_test::start_with_deadly_step(io, shell("exit 0"), at, steps));
            FAIL("the start went on");
        } catch (const start_error& failure) {
            CHECK(failure.exit_status() == 125);
            CHECK(std::string(failure.what()).find("signal 9") != std::string::npos);
        }
    }
    KUMIKI_CHECK_NOTHING_LEFT(before);
}

TEST_CASE("bad input is refused with one error that names it, and the status that people know") {
    scheduler io;
    const auto before = settled_holdings();
    struct bad {
        const char* what;
        container_spec spec;
        int status;
        const char* named;
    };
    const auto with = [](auto change) {
        auto spec = shell("exit 0");
        change(spec);
        return spec;
    };
    const std::vector<bad> table{
        {"no rootfs", with([](auto& s) { s.rootfs = rootfs::overlay("/nowhere/at/all"); }), 125,
         "/nowhere/at/all"},
        {"a file as rootfs", with([](auto& s) { s.rootfs = rootfs::directory("/bin/busybox"); }),
         125, "/bin/busybox"},
        {"relative rootfs", with([](auto& s) { s.rootfs = rootfs::directory("relative"); }), 125,
         "relative"},
        {"layer in /proc", with([](auto& s) { s.rootfs = rootfs::overlay("/proc/self"); }), 125,
         "/proc/self"},
        {"no command", with([](auto& s) { s.process.args.clear(); }), 125, "command"},
        {"unknown command", with([](auto& s) { s.process.args = {"no-such-command"}; }), 127,
         "no-such-command"},
        {"unknown path", with([](auto& s) { s.process.args = {"/no/such"}; }), 127, "/no/such"},
        {"not executable", with([](auto& s) { s.process.args = {"/etc/passwd"}; }), 126,
         "/etc/passwd"},
        {"a directory", with([](auto& s) { s.process.args = {"/etc"}; }), 126, "/etc"},
        {"no working directory", with([](auto& s) { s.process.cwd = "/nowhere"; }), 125,
         "/nowhere"},
        {"relative cwd", with([](auto& s) { s.process.cwd = "tmp"; }), 125, "tmp"},
        {"bad name", with([](auto& s) { s.name = "a/b"; }), 125, "a/b"},
        {"bad environment", with([](auto& s) { s.process.env = {"NOVALUE"}; }), 125, "NOVALUE"},
        {"missing bind source",
         with([](auto& s) { s.mounts = {bind_mount{.source = "/no/src", .target = "/t"}}; }), 125,
         "/no/src"},
        {"relative target", with([](auto& s) { s.mounts = {tmpfs_mount{.target = "t"}}; }), 125,
         "'t'"},
        {"climbing target", with([](auto& s) { s.mounts = {tmpfs_mount{.target = "/a/../../t"}}; }),
         125, "/a/../../t"},
        {"NUL", with([](auto& s) { s.process.args = {std::string("a\0b", 3)}; }), 125, "NUL"},
        {"long name", with([](auto& s) { s.hostname = std::string(70, 'h'); }), 125, "hostname"},
        {"umask", with([](auto& s) { s.process.umask = 01000; }), 125, "umask"},
        {"score", with([](auto& s) { s.process.oom_score_adj = 1001; }), 125, "1001"},
        {"no user 0", with([](auto& s) {
             s.user_namespace = user_mapping{id_map({{1, 1, 1}}), id_map({{0, 0, 1}})};
         }),
         125, "user 0"},
    };
    for (const bad& entry : table) {
        CAPTURE(entry.what);
        try {
            io.run(kumiki_test::start_and_wait(io, entry.spec));
            CHECK(std::string("accepted") == entry.what);
        } catch (const error& failure) {
            INFO(failure.what());
            CHECK(exit_status_of(failure) == entry.status);
            CHECK(std::string(failure.what()).find(entry.named) != std::string::npos);
        }
    }
    KUMIKI_CHECK_NOTHING_LEFT(before);
}

TEST_CASE("a name that is taken is refused and the container that has it lives on") {
    scheduler io;
    auto spec = shell("sleep 30");
    spec.name = "taken";
    kumiki_test::with_container(io, spec,
                                [&](container& box) { CHECK(sys::send_signal(box.pidfd(), 0)); });
    kumiki_test::with_two(io, spec, spec, [](container& first, const std::string& refusal) {
        CHECK(refusal.find("taken") != std::string::npos);
        CHECK(sys::send_signal(first.pidfd(), 0));
    });
}

TEST_CASE("1,000 starts and stops leave nothing") {
    run_shell(shell("exit 0"));
    scheduler io;
    const auto before = settled_holdings();
    for (int i = 0; i < 1000; ++i) {
        auto spec = shell("exit 0");
        spec.process.args = {"/bin/true"};
        const auto result = io.run(kumiki_test::start_and_wait(io, std::move(spec)));
        REQUIRE(result.exit_code() == 0);
    }
    KUMIKI_CHECK_NOTHING_LEFT(before);
}

TEST_CASE("starts inside a program with 16 busy threads never hang") {
    std::atomic<bool> done{false};
    std::vector<std::thread> busy;
    for (int i = 0; i < 16; ++i)
        busy.emplace_back([&] {
            while (!done) {  // holds the allocator's locks again and again
                std::vector<std::string> heap;
                for (int j = 0; j < 100; ++j)
                    heap.emplace_back(static_cast<std::size_t>(j * 17), 'x');
                std::this_thread::yield();
            }
        });
    const clone_mode mode = GENERATE(clone_mode::shared_memory, clone_mode::own_memory);
    scheduler io;
    for (int i = 0; i < 50; ++i) {
        auto spec = shell("exit 5");
        spec.clone = mode;
        CHECK(io.run(kumiki_test::start_and_wait(io, std::move(spec))).exit_code() == 5);
    }
    done = true;
    for (auto& thread : busy) thread.join();
}

TEST_CASE("32 containers start at the same time and know only themselves") {
    scheduler io;
    const auto results = io.run(kumiki_test::start_many(io, busybox(), 32));
    REQUIRE(results.size() == 32);
    for (std::size_t i = 0; i < results.size(); ++i)
        CHECK(results[i] == "many-" + std::to_string(i) + "\n1\n");
}

TEST_CASE("the timeline covers the start and can be printed") {
    scheduler io;
    kumiki_test::with_container(io, shell("sleep 30"), [](container& box) {
        const timeline& line = box.start_timeline();
        CHECK(line.total() > 0);
        std::int64_t child = 0;
        for (const auto& span : line.spans()) {
            CHECK(span.begin <= span.end);
            CHECK(span.begin >= line.origin());
            if (span.track == timeline_track::child) ++child;
        }
        CHECK(child >= 12);
        CHECK(to_string(line).find("pivot") != std::string::npos);
        CHECK(line.to_chrome_trace().find("\"name\":\"pivot\"") != std::string::npos);
    });
}

TEST_CASE("the spans of a start stand for nearly all of the time from its call to its return") {
    scheduler io;
    std::vector<double> shares;
    for (int i = 0; i < 9; ++i) {
        const std::int64_t called = timeline::now();
        kumiki_test::with_container(io, shell("sleep 30"), [&](container& box) {
            const std::int64_t returned = timeline::now();
            const auto told = covered(box.start_timeline(), called, returned);
            shares.push_back(static_cast<double>(told) / static_cast<double>(returned - called));
        });
    }
    std::ranges::sort(shares);  // in between others may have had the processor: the median
    CHECK(shares.back() <= 1);
    CHECK(shares[shares.size() / 2] >= 0.95);
}

TEST_CASE("the events of a container begin with its process and end with it") {
    scheduler io;
    const auto kinds = io.run(kumiki_test::start_and_watch(io, shell("sleep 0.1")));
    REQUIRE(kinds.size() == 2);
    CHECK(kinds[0] == cgroup_event_kind::populated);
    CHECK(kinds[1] == cgroup_event_kind::empty);
}
