#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <functional>
#include <optional>
#include <stop_token>
#include <string>
#include <vector>

#include <kumiki/async/scope.hpp>
#include <kumiki/async/when.hpp>
#include <kumiki/container/pool.hpp>
#include <kumiki/network/bridge_network.hpp>

#include "container/support.hpp"
#include "support/busybox.hpp"
#include "support/catch.hpp"
#include "support/leaks.hpp"
#include "support/netns.hpp"
#include "support/scratch.hpp"

using namespace kumiki;
using namespace kumiki::literals;
using namespace std::chrono_literals;
using kumiki_test::busybox;
using kumiki_test::busybox_root;
using kumiki_test::group_prefix;
using kumiki_test::holdings;
using kumiki_test::read_all;
using kumiki_test::text_of;
namespace fs = std::filesystem;

#define REQUIRE_WAITER()                                                                           \
    if (!detail::has_waiter) KUMIKI_SKIP("there is nothing that waits on this machine")

namespace {

/// What the containers of a pool have. Each has a name of its own, by which leaks are found.
container_spec worker() {
    auto spec = kumiki_test::shell_spec(busybox(), "exit 0");
    spec.hostname = "worker";
    return spec;
}

/// What is held once the library has what it keeps for the life of the process.
holdings settled_with_worker() {
    static const int once = [] {
        scheduler io;
        return io.run(kumiki_test::start_and_wait(io, worker())).exit_code();
    }();
    CHECK(once == 0);
    return holdings::now();
}

command_changes shell_changes(std::string script) {
    return {.args = {"sh", "-c", std::move(script)},
            .stdio = {{stdio::null(), stdio::pipe(), stdio::merge()}}};
}

task<std::string> output_of(container_pool& pool, command_changes changes) {
    auto box = co_await pool.start(std::move(changes));
    auto text = co_await read_all(box.out());
    auto result = co_await box.wait();
    if (result.exit_code() != 0) text += "status " + std::to_string(result.exit_code());
    co_return text;
}

task<int> status_of(container_pool& pool, command_changes changes) {
    auto box = co_await pool.start(std::move(changes));
    auto result = co_await box.wait();
    co_return result.exit_code();
}

/// What a start of `changes` throws, as text.
task<std::string> error_of(container_pool& pool, command_changes changes, int* status = nullptr) {
    std::string text = "none";
    try {
        auto box = co_await pool.start(std::move(changes));
    } catch (const error& failure) {
        if (status != nullptr) *status = exit_status_of(failure);
        text = failure.what();
    }
    co_return text;
}

task<void> note_output(container_pool& pool, std::string& to) {
    to = co_await output_of(pool, shell_changes("echo ran"));
}

task<void> sleep_in(container_pool& pool) {
    command_changes sleep{.args = {"sleep", "30"}};
    co_await status_of(pool, std::move(sleep));
}

/// What a command says on its terminal.
task<std::string> said_on_terminal(container_pool& pool, std::string script) {
    command_changes said{.args = {"sh", "-c", std::move(script)}};
    auto box = co_await pool.start(std::move(said));
    co_await box.wait();
    char buffer[64] = {};
    const auto size = ::read(box.terminal(), buffer, sizeof buffer);
    co_return std::string(buffer, static_cast<std::size_t>(std::max<ssize_t>(size, 0)));
}

/// The processes of this one's children that wait for a command.
std::vector<pid_t> waiting() {
    std::vector<pid_t> found;
    for (const auto& entry : fs::directory_iterator("/proc/self/task")) {
        std::ifstream children(entry.path() / "children");
        for (pid_t pid = 0; children >> pid;) {
            std::string name;
            std::ifstream("/proc/" + std::to_string(pid) + "/comm") >> name;
            if (name == "ready") found.push_back(pid);
        }
    }
    return found;
}

/// The lines of /proc/PID/status that say what a process may do.
std::string rights_of(const std::string& status) {
    std::string text;
    std::string_view rest = status;
    while (const auto line = next_field(rest, '\n'))
        for (const char* key : {"Uid:", "Gid:", "Groups:", "Cap", "NoNewPrivs:", "Seccomp:"})
            if (line->starts_with(key)) text += std::string(*line) + '\n';
    return text;
}

/// Notes what the library tells beside what it throws.
struct listener : observer {
    listener() : before(set_observer(this)) {}
    ~listener() override { set_observer(before); }
    void notice(std::string_view text) noexcept override { notices.emplace_back(text); }
    void release_failed(const error& failure) noexcept override {
        failures.emplace_back(failure.what());
    }
    observer* before;
    std::vector<std::string> notices;
    std::vector<std::string> failures;
};

}  // namespace

TEST_CASE("a command in a container that was ready finds what it would find in a new one") {
    REQUIRE_WAITER();
    const auto before = settled_with_worker();
    const std::string script =
        "id; hostname; pwd; umask; env; ulimit -a; echo $$; ls -l /proc/self/fd | wc -l; "
        "grep -E 'Cap|NoNew|Seccomp|Uid|Gid|Groups|Sig|Shd' /proc/self/status; "
        "cat /proc/self/cgroup; while read a b c d e f g; do echo $d $e $f; done "
        "< /proc/self/mountinfo; ip -o addr; ls /dev /; cat /etc/hosts; ls /proc | grep '^[0-9]'; "
        "cat /proc/self/oom_score_adj";
    for (const bool is_root : {true, false}) {
        CAPTURE(is_root);
        auto spec = worker();
        spec.process.env.push_back("WHO=me");
        if (!is_root) {
            spec.process.user = {1000, 1000, {5}};
            spec.process.ambient = capability::net_bind_service;
            spec.process.cwd = "/tmp";
            spec.process.umask = 027;
        }
        auto cold = spec;
        cold.process.args = {"sh", "-c", script};
        cold.process.stdio = {stdio::null(), stdio::pipe(), stdio::merge()};
        const auto of_cold = kumiki_test::run_shell(std::move(cold)).output;
        scheduler io;
        container_pool pool(io, spec, {.ready = 2});
        io.run(pool.filled());
        const auto of_warm = io.run(output_of(pool, shell_changes(script)));
        CHECK(pool.counters().warm == 1);
        CHECK(of_warm == of_cold);
        CHECK(of_warm.find("WHO=me") != std::string::npos);
    }
    KUMIKI_CHECK_NOTHING_LEFT(before);
}

TEST_CASE("what waits has no more rights than its command, and nothing of the supervisor's") {
    REQUIRE_WAITER();
    auto spec = worker();
    spec.process.user = {1000, 1000};
    scheduler io;
    container_pool pool(io, spec, {.ready = 1});
    io.run(pool.filled());
    const auto found = waiting();
    REQUIRE(found.size() == 1);
    const std::string process = "/proc/" + std::to_string(found.front());
    CHECK(fs::read_symlink(process + "/exe") == "/memfd:ready (deleted)");
    CHECK(fs::read_symlink(process + "/cwd") == "/");
    std::vector<std::string> open;
    for (const auto& entry : fs::directory_iterator(process + "/fd"))
        open.push_back(fs::read_symlink(entry.path()).string());
    std::sort(open.begin(), open.end());
    REQUIRE(open.size() == 4);
    CHECK((open[0] == "/dev/null" && open[1] == "/dev/null" && open[2] == "/dev/null"));
    CHECK(open[3].starts_with("socket:"));
    // Its own program, a stack, and what the kernel maps into every process.
    for (const std::string& line : holdings::lines(process + "/maps")) {
        CAPTURE(line);
        CHECK((line.find("/memfd:ready") != std::string::npos ||
               line.find('[') != std::string::npos));
    }
    const std::string rights = rights_of(text_of(process + "/status"));
    const auto seen = io.run(output_of(pool, shell_changes("cat /proc/self/status")));
    CHECK(rights_of(seen) == rights);
    CHECK(rights.find("Seccomp:\t2") != std::string::npos);
}

TEST_CASE("a start says the command, its environment and its standard descriptors") {
    REQUIRE_WAITER();
    scheduler io;
    auto spec = worker();
    spec.process.args = {"sh", "-c", "exit 9"};
    container_pool pool(io, spec, {.ready = 1});
    CHECK(io.run(status_of(pool, {})) == 9);
    const auto env = io.run(output_of(pool, {.args = {"env"},
                                             .env = {{"PATH=/bin", "A=b c"}},
                                             .stdio = {{stdio::null(), stdio::pipe(), 2}}}));
    CHECK(env == "PATH=/bin\nA=b c\n");
    kumiki_test::pipe_pair in;
    kumiki_test::pipe_pair out;
    CHECK(::write(in.out.get(), "hello\n", 6) == 6);
    in.out.reset();
    CHECK(io.run(status_of(
              pool, {.args = {"sh", "-c", "cat; cat >&2 /proc/self/comm; readlink /proc/self/fd/2"},
                     .stdio = {{in.in.get(), out.out.get(), stdio::null()}}})) == 0);
    out.out.reset();
    char buffer[64] = {};
    CHECK(::read(out.in.get(), buffer, sizeof buffer) == 16);
    CHECK(std::string(buffer) == "hello\n/dev/null\n");
    // As much as execve takes for one argument.
    const std::string large(100'000, 'x');
    std::vector<std::string> args{"sh", "-c", "echo $# ${#1}", "sh"};
    for (int i = 0; i < 12; ++i) args.push_back(large);
    auto much = shell_changes("");
    much.args = args;
    CHECK(io.run(output_of(pool, much)) == "12 100000\n");
}

TEST_CASE("a start that finds no container ready makes its own") {
    REQUIRE_WAITER();
    const auto before = settled_with_worker();
    {
        scheduler io;
        container_pool pool(io, worker(), {.ready = 2, .at_once = 1});
        io.run(pool.filled());
        CHECK(pool.ready() == 2);
        CHECK(waiting().size() == 2);
        std::vector<task<std::string>> many;
        for (int i = 0; i < 5; ++i) many.push_back(output_of(pool, shell_changes("echo ran")));
        const auto seen = io.run(when_all(std::move(many)));
        CHECK(seen == std::vector<std::string>(5, "ran\n"));
        CHECK(pool.counters().warm == 2);
        CHECK(pool.counters().cold == 3);
        io.run(pool.filled());  // and it is full again
        CHECK(waiting().size() == 2);
        container_pool none(io, worker(), {.ready = 0});
        CHECK(io.run(output_of(none, shell_changes("echo ran"))) == "ran\n");
        CHECK(waiting().size() == 2);
    }
    KUMIKI_CHECK_NOTHING_LEFT(before);
}

TEST_CASE("a thousand starts from a pool leave nothing behind") {
    REQUIRE_WAITER();
    const auto before = settled_with_worker();
    {
        scheduler io;
        container_pool pool(io, worker(), {.ready = 8});
        for (int round = 0; round < 1000; ++round) {
            const int status = io.run(status_of(pool, {.args = {"sh", "-c", "exit 3"}}));
            if (status != 3) FAIL("round " << round << " ended with " << status);
        }
        CHECK(pool.counters().warm + pool.counters().cold == 1000);
        CHECK(pool.counters().failed == 0);
        CHECK(pool.counters().lost == 0);
    }
    KUMIKI_CHECK_NOTHING_LEFT(before);
}

TEST_CASE("64 starts at a time have a container each") {
    REQUIRE_WAITER();
    const auto before = settled_with_worker();
    {
        scheduler io;
        auto spec = worker();
        spec.hostname.clear();  // that of each is its own name
        container_pool pool(io, spec, {.ready = 32});
        io.run(pool.filled());
        for (int round = 0; round < 3; ++round) {
            std::vector<task<std::string>> many;
            for (int i = 0; i < 64; ++i)
                many.push_back(output_of(pool, shell_changes("echo " + std::to_string(i) +
                                                             " $(ls /proc | grep -c '^[0-9]')")));
            const auto seen = io.run(when_all(std::move(many)));
            for (int i = 0; i < 64; ++i)
                CHECK(seen[static_cast<std::size_t>(i)].starts_with(std::to_string(i) + " "));
        }
        std::vector<task<std::string>> names;
        for (int i = 0; i < 64; ++i) names.push_back(output_of(pool, shell_changes("hostname")));
        auto seen = io.run(when_all(std::move(names)));
        std::sort(seen.begin(), seen.end());
        CHECK(std::unique(seen.begin(), seen.end()) == seen.end());
    }
    KUMIKI_CHECK_NOTHING_LEFT(before);
}

TEST_CASE("a pool may go while its containers are being made") {
    REQUIRE_WAITER();
    const auto before = settled_with_worker();
    std::size_t most = 0;
    for (int turns = 0; turns < 60; ++turns) {
        scheduler io;
        container_pool pool(io, worker(), {.ready = 3, .at_once = 3});
        for (int i = 0; i < turns; ++i) io.run_once(1ms);
        most = std::max(most, pool.ready());
    }
    CHECK(most == 3);
    KUMIKI_CHECK_NOTHING_LEFT(before);
}

TEST_CASE("a pool may go after its scheduler, and a start after its pool") {
    REQUIRE_WAITER();
    const auto before = settled_with_worker();
    for (int turns : {0, 1, 3, 10, 40}) {
        std::optional<scheduler> io(std::in_place);
        std::optional<container_pool> pool(std::in_place, *io, worker(), pool_options{.ready = 2});
        for (int i = 0; i < turns; ++i) io->run_once(1ms);
        io.reset();
        pool.reset();
    }
    for (const std::size_t ready : {0U, 1U}) {
        scheduler io;
        std::optional<container_pool> pool(std::in_place, io, worker(),
                                           pool_options{.ready = ready});
        io.run(pool->filled());
        scope tasks(io);
        std::string seen;
        tasks.spawn(note_output(*pool, seen));
        io.run_once(0ms);
        pool.reset();
        io.run(tasks.join());
        CHECK(seen == "ran\n");
    }
    KUMIKI_CHECK_NOTHING_LEFT(before);
}

TEST_CASE("a start from a pool can be cancelled at any moment") {
    REQUIRE_WAITER();
    const auto before = settled_with_worker();
    {
        scheduler io;
        container_pool pool(io, worker(), {.ready = 1});
        int stopped = 0;
        for (int turns = 0; turns < 40; ++turns) {
            if (turns % 2 == 0) io.run(pool.filled());
            scope tasks(io);
            tasks.spawn(sleep_in(pool));
            for (int i = 0; i < turns / 2; ++i) io.run_once(0ms);
            tasks.cancel();
            io.run(tasks.join());
            ++stopped;
        }
        CHECK(stopped == 40);
        CHECK(io.run(output_of(pool, shell_changes("echo still"))) == "still\n");
    }
    KUMIKI_CHECK_NOTHING_LEFT(before);
}

TEST_CASE("a container that could not be made ahead is told of, and tried again when asked for") {
    REQUIRE_WAITER();
    const auto before = settled_with_worker();
    {
        const listener heard;
        const kumiki_test::temporary_directory moved;
        const busybox_root own;
        auto spec = kumiki_test::shell_spec(own, "exit 0");
        fs::create_directory(own.path() + "/held");
        spec.mounts.push_back(bind_mount{.source = own.path() + "/held", .target = "/held"});
        scheduler io;
        container_pool pool(io, spec, {.ready = 2, .at_once = 1});
        fs::remove(own.path() + "/held");
        for (int i = 0; i < 20; ++i) io.run_once(1ms);
        CHECK(pool.counters().failed == 1);  // it does not go on failing by itself
        CHECK_THROWS_AS(io.run(pool.filled()), error);
        CHECK(pool.ready() == 0);
        CHECK(pool.counters().failed == 2);
        REQUIRE(heard.notices.size() == 2);
        CHECK(heard.notices.front().find("/held") != std::string::npos);
        CHECK(io.run(error_of(pool, shell_changes("true"))).find("/held") != std::string::npos);
        fs::create_directory(own.path() + "/held");
        CHECK(io.run(output_of(pool, shell_changes("ls -d /held"))) == "/held\n");
        io.run(pool.filled());
        CHECK(pool.ready() == 2);
        CHECK(heard.failures.empty());
    }
    KUMIKI_CHECK_NOTHING_LEFT(before);
}

TEST_CASE("a command that cannot be executed is an error that names it") {
    REQUIRE_WAITER();
    const auto before = settled_with_worker();
    {
        scheduler io;
        container_pool pool(io, worker(), {.ready = 1});
        int status = 0;
        const auto missing = io.run(error_of(pool, {.args = {"no-such-thing"}}, &status));
        CHECK(status == 127);
        CHECK(missing.find("no-such-thing") != std::string::npos);
        CHECK(missing.find("ENOENT") != std::string::npos);
        const auto denied = io.run(error_of(pool, {.args = {"/etc/passwd"}}, &status));
        CHECK(status == 126);
        CHECK(denied.find("EACCES") != std::string::npos);
        const auto closed = io.run(
            error_of(pool, {.args = {"true"}, .stdio = {{stdio::null(), 987, stdio::null()}}}));
        CHECK(closed.find("987") != std::string::npos);
        const auto refused = io.run(error_of(pool, {.env = {{"not a variable"}}}));
        CHECK(refused.find("not a variable") != std::string::npos);
        // A link of /proc leads to what waited, and to no program of the host.
        CHECK(io.run(status_of(pool, {.args = {"/proc/self/exe"}})) == 125);
        CHECK(io.run(status_of(pool, {.args = {"true"}})) == 0);
    }
    KUMIKI_CHECK_NOTHING_LEFT(before);
}

/// Turns of the scheduler until `done`, ten seconds at most.
static task<bool> until(scheduler& io, const std::function<bool()>& done, int most = 1000) {
    for (int i = 0; i < most && !done(); ++i) co_await io.sleep_for(10ms);
    co_return done();
}

TEST_CASE("a container that ended while it waited is made anew, though nobody starts anything") {
    REQUIRE_WAITER();
    const auto before = settled_with_worker();
    {
        scheduler io;
        container_pool pool(io, worker(), {.ready = 3});
        io.run(pool.filled());
        const auto first = waiting();
        REQUIRE(first.size() == 3);
        for (const pid_t pid : first) ::kill(pid, SIGKILL);
        CHECK(io.run(until(io, [&] { return pool.counters().prepared == 6; })));
        CHECK(pool.counters().lost == 3);
        CHECK(pool.ready() == 3);
        CHECK(io.run(output_of(pool, shell_changes("echo ran"))) == "ran\n");
        CHECK(pool.counters().warm == 1);

        io.run(pool.filled());
        const auto old = waiting();
        pool.renew();
        io.run(pool.filled());
        for (const pid_t pid : waiting()) CHECK(std::ranges::count(old, pid) == 0);
        CHECK(pool.counters().lost == 3);
    }
    KUMIKI_CHECK_NOTHING_LEFT(before);
}

TEST_CASE("a pool whose containers end again and again stops making them until it is asked") {
    REQUIRE_WAITER();
    const auto before = settled_with_worker();
    {
        scheduler io;
        const listener heard;
        container_pool pool(io, worker(), {.ready = 1, .at_once = 1});
        io.run(pool.filled());
        for (std::uint64_t lost = 1; lost <= 3; ++lost) {
            for (const pid_t pid : waiting()) ::kill(pid, SIGKILL);
            CHECK(io.run(until(io, [&] { return pool.counters().lost == lost; })));
            if (lost < 3) CHECK(io.run(until(io, [&] { return pool.ready() == 1; })));
        }
        REQUIRE(heard.notices.size() == 1);
        CHECK(heard.notices[0].find("end while they wait") != std::string::npos);
        CHECK_FALSE(io.run(until(io, [&] { return pool.ready() == 1; }, 20)));
        io.run(pool.filled());
        CHECK(pool.ready() == 1);
    }
    KUMIKI_CHECK_NOTHING_LEFT(before);
}

TEST_CASE("a filter that what waits cannot live with is an error of the making") {
    REQUIRE_WAITER();
    const auto before = settled_with_worker();
    {
        scheduler io;
        for (const char* call : {"recvmsg", "mmap", "dup3"}) {
            CAPTURE(call);
            auto spec = worker();
            spec.process.filter =
                std::make_shared<const seccomp_program>(seccomp_filter(seccomp_action::allow())
                                                            .on(call, seccomp_action::fail(EPERM))
                                                            .compile());
            const listener heard;
            container_pool pool(io, spec, {.ready = 1});
            std::string text = "none";
            try {
                io.run(pool.filled());
            } catch (const error& failure) {
                text = failure.what();
            }
            CHECK(text.find("does not let what waits") != std::string::npos);
            CHECK(pool.counters().prepared == 0);
        }
    }
    KUMIKI_CHECK_NOTHING_LEFT(before);
}

TEST_CASE("a start that what waits does not answer ends at its limit, and says so") {
    REQUIRE_WAITER();
    const auto before = settled_with_worker();
    {
        scheduler io;
        auto spec = worker();
        spec.start_limit = 300ms;
        container_pool pool(io, spec, {.ready = 1});
        io.run(pool.filled());
        for (const pid_t pid : waiting()) ::kill(pid, SIGSTOP);
        const auto text = io.run(error_of(pool, {.args = {"true"}}));
        CHECK(text.find("ETIMEDOUT") != std::string::npos);
        CHECK(text.find("start_limit") != std::string::npos);
        CHECK(pool.counters().warm == 1);
        CHECK(pool.counters().lost == 0);
    }
    KUMIKI_CHECK_NOTHING_LEFT(before);
}

TEST_CASE("two pools of one name have containers with names of their own") {
    REQUIRE_WAITER();
    const auto before = settled_with_worker();
    {
        scheduler io;
        auto spec = worker();
        spec.name = group_prefix() + "twin";
        container_pool one(io, spec, {.ready = 2});
        container_pool other(io, spec, {.ready = 2});
        io.run(one.filled());
        io.run(other.filled());
        CHECK(one.counters().failed + other.counters().failed == 0);
    }
    KUMIKI_CHECK_NOTHING_LEFT(before);
}

TEST_CASE("a container that ended while it waited is passed over") {
    REQUIRE_WAITER();
    const auto before = settled_with_worker();
    {
        scheduler io;
        container_pool pool(io, worker(), {.ready = 2});
        io.run(pool.filled());
        for (const pid_t pid : waiting()) ::kill(pid, SIGKILL);
        CHECK(io.run(output_of(pool, shell_changes("echo ran"))) == "ran\n");
        CHECK(pool.counters().lost == 2);
        CHECK(pool.counters().cold == 1);
    }
    KUMIKI_CHECK_NOTHING_LEFT(before);
}

/// Removes a group whose processes are ending: a process leaves it some time after its files in /proc.
static void remove_group(const fs::path& path) {
    std::error_code failure;
    for (int i = 0; i < 200 && !fs::remove(path, failure); ++i) std::this_thread::sleep_for(10ms);
    CAPTURE(path, failure.message());
    CHECK_FALSE(fs::exists(path));
}

TEST_CASE("what waits ends with its supervisor, whatever ends that") {
    REQUIRE_WAITER();
    for (const int death_signal : {SIGKILL, 0}) {
        CAPTURE(death_signal);
        kumiki_test::pipe_pair said;
        const pid_t child = ::fork();
        if (child == 0) {
            try {
                scheduler io;
                auto spec = worker();
                spec.process.death_signal = death_signal;
                container_pool pool(io, spec, {.ready = 2});
                io.run(pool.filled());
                const auto found = waiting();
                (void)!::write(said.out.get(), found.data(), 2 * sizeof(pid_t));
                ::kill(::getpid(), SIGKILL);
            } catch (...) {}
            ::_exit(1);
        }
        said.out.reset();
        pid_t found[2] = {};
        REQUIRE(::read(said.in.get(), found, sizeof found) == sizeof found);
        REQUIRE(::waitpid(child, nullptr, 0) == child);
        const auto is_there = [](pid_t pid) {
            return fs::exists("/proc/" + std::to_string(pid) + "/exe") &&
                   text_of("/proc/" + std::to_string(pid) + "/comm") == "ready\n";
        };
        for (int i = 0; i < 200 && (is_there(found[0]) || is_there(found[1])); ++i)
            std::this_thread::sleep_for(10ms);
        CHECK_FALSE(is_there(found[0]));
        CHECK_FALSE(is_there(found[1]));
        // Groups outlive a supervisor that was killed.
        const std::string made = "test-" + std::to_string(child) + "-";
        const auto root = cgroup_root::open();
        for (const auto& entry : fs::directory_iterator(root.group().path()))
            if (entry.path().filename().string().starts_with(made)) remove_group(entry.path());
    }
}

TEST_CASE("containers of a pool can have users of their own, a user by name, a terminal") {
    REQUIRE_WAITER();
    const auto before = settled_with_worker();
    {
        scheduler io;
        auto mapped = worker();
        mapped.user_namespace = kumiki_test::mapped_ids();
        container_pool of_users(io, mapped, {.ready = 1});
        io.run(of_users.filled());
        CHECK(io.run(output_of(of_users,
                               shell_changes("id -u; cat /proc/self/uid_map | tr -s ' '"))) ==
              "0\n 0 100000 65536\n");
        auto named = worker();
        named.process.named_user = parse_user("web");
        container_pool of_web(io, named, {.ready = 1});
        io.run(of_web.filled());
        CHECK(io.run(output_of(of_web, shell_changes("id -u"))) == "1000\n");
        auto on_terminal = worker();
        on_terminal.process.terminal = terminal_size{.rows = 33, .columns = 77};
        container_pool of_terminals(io, on_terminal, {.ready = 1});
        io.run(of_terminals.filled());
        CHECK(io.run(said_on_terminal(of_terminals, "stty size")).starts_with("33 77\r\n"));
        CHECK(of_users.counters().warm + of_web.counters().warm + of_terminals.counters().warm ==
              3);
    }
    KUMIKI_CHECK_NOTHING_LEFT(before);
}

TEST_CASE("a container of a pool is in its network, under its policy, before it has a command") {
    REQUIRE_WAITER();
    const auto before = settled_with_worker();
    {
        const kumiki_test::scratch place;
        const kumiki_test::private_netns host;
        bring_loopback_up(host.fd());
        const auto links = [&] {
            auto socket = netlink_socket::open_in(host.fd(), NETLINK_ROUTE);
            return list_links(socket).size();
        };
        const auto alone = links();
        host.run([&] {
            scheduler io;
            auto net = bridge_network::open({.name = "pool",
                                             .subnet = "10.88.0.0/24"_cidr,
                                             .subnet6 = "fd00:88::/64"_cidr,
                                             .state_directory = place.path()});
            auto spec = worker();
            spec.network = net.attach({.publish = {{.container = {80, 80}}}, .egress = deny_all()});
            container_pool pool(io, spec, {.ready = 3});
            io.run(pool.filled());
            CHECK(links() == alone + 1 + 3);
            const auto lines = [&](const char* script) {
                return io.run(output_of(pool, shell_changes(script)));
            };
            CHECK(lines("ip -o link | wc -l; ip -o addr show eth0 | wc -l; ip route | wc -l") ==
                  "2\n3\n2\n");
            // The host answers, a published port leads in, and nothing leads out.
            const auto server = kumiki_test::serve(host, SOCK_STREAM, "10.88.0.1"_ip, 7);
            CHECK(
                lines(
                    "nc -w 1 10.88.0.1 7 </dev/null >/dev/null 2>&1 && echo out || echo denied") ==
                "denied\n");
            kumiki_test::pipe_pair ready;
            command_changes httpd{.args = {"sh", "-c", "httpd -p 80 -h /www; echo up; sleep 30"},
                                  .stdio = {{stdio::null(), ready.out.get(), stdio::null()}}};
            auto box = io.run(pool.start(std::move(httpd)));
            char buffer[8];
            CHECK(::read(ready.in.get(), buffer, sizeof buffer) == 3);
            const auto port = box.network()->published().front().host.first;
            REQUIRE(port != 0);
            const unique_fd client(
                ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
            const auto [to, size] = kumiki_test::endpoint_address("127.0.0.1"_ip, port).to_kernel();
            ::connect(client.get(), reinterpret_cast<const sockaddr*>(&to), size);
            CHECK(kumiki_test::wait_for(client.get(), POLLOUT, 3000));
            int failed = -1;
            socklen_t length = sizeof failed;
            ::getsockopt(client.get(), SOL_SOCKET, SO_ERROR, &failed, &length);
            CHECK(failed == 0);
            std::vector<attach_options> unshared(5);
            unshared[0].publish = {tcp(8080, 80)};
            unshared[1].address = "10.88.0.9"_ip;
            unshared[2].mac = mac_address::parse("02:00:00:00:00:09");
            unshared[3].devices = {{.link = "dummy0"}};
            unshared[4].aliases = {"web"};
            for (const attach_options& wanted : unshared) {
                auto attached = net.attach({});
                attached.options = wanted;
                spec.network = attached;
                CHECK_THROWS_AS(container_pool(io, spec), invalid_input);
            }
        });
        CHECK(links() == alone);
    }
    KUMIKI_CHECK_NOTHING_LEFT(before);
}

TEST_CASE("a limit on descriptors that leaves what waits no room is said to be one") {
    REQUIRE_WAITER();
    scheduler io;
    auto spec = worker();
    spec.process.rlimits = {{.which = resource::nofile, .soft = 6, .hard = 6}};
    container_pool pool(io, spec, {.ready = 1});
    CHECK(io.run(error_of(pool, {.args = {"true"}})).find("RLIMIT_NOFILE") != std::string::npos);
}

TEST_CASE("a pool refuses what its containers cannot have") {
    REQUIRE_WAITER();
    scheduler io;
    const auto refused = [&](const std::function<void(container_spec&)>& change) {
        auto spec = worker();
        change(spec);
        CHECK_THROWS_AS(container_pool(io, spec), invalid_input);
    };
    refused([](auto& spec) { spec.process.init = init_process::reaper; });
    refused([](auto& spec) { spec.process.apparmor_profile = "some"; });
    refused([](auto& spec) { spec.process.umask = 01000; });
    refused([](auto& spec) { spec.name = "with space"; });
    refused([](auto& spec) { spec.name = std::string(63, 'n'); });
    refused([](auto& spec) { spec.network = moved_devices{{{.link = "dummy0"}}}; });
    refused([](auto& spec) { spec.namespaces = spec.namespaces & ~namespace_kind::pid; });
    const overlay_upper upper{.upper = "/srv/upper", .work = "/srv/work"};
    refused([&](auto& spec) { spec.rootfs = rootfs::overlay(busybox().path(), upper); });
    refused([&](auto& spec) {
        spec.mounts = {overlay_mount{.target = "/data", .lowers = {"/usr"}, .upper = upper}};
    });
    CHECK_THROWS_AS(container_pool(io, worker(), {.at_once = 0}), invalid_input);
    auto spec = worker();
    spec.process.args.clear();
    container_pool pool(io, spec, {.ready = 1});
    CHECK(io.run(error_of(pool, {})).find("There must be one.") != std::string::npos);
    CHECK(io.run(status_of(pool, {.args = {"true"}})) == 0);
}
