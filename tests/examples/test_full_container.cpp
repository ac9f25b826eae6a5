// The tool as its users see it: arguments, messages, exit statuses, the terminal, signals. Run as a
// program, in network and mount namespaces of this test's own.
#include <net/if.h>
#include <netinet/in.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <optional>

#include <kumiki/cgroup/hierarchy.hpp>
#include <kumiki/netlink/address.hpp>
#include <kumiki/netlink/link.hpp>
#include <kumiki/netlink/link_info.hpp>
#include <kumiki/netlink/socket.hpp>
#include <kumiki/security/seccomp.hpp>
#include <kumiki/sys/file.hpp>

#include "examples/program.hpp"
#include "support/catch.hpp"

namespace fs = std::filesystem;
using namespace kumiki;
using namespace kumiki_test;

namespace {

/// Moves this process to namespaces of its own, in which /run is empty; temporary files go there.
/// Nothing when it cannot: why.
std::optional<std::string> own_host() {
    static const std::optional<std::string> reason = []() -> std::optional<std::string> {
        if (::geteuid() != 0) return "it takes root";
        if (::unshare(CLONE_NEWNET | CLONE_NEWNS) != 0) return "no namespaces can be made here";
        sys::check(::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr), "mount");
        sys::check(::mount("tmpfs", "/run", "tmpfs", 0, "mode=755"), "mount");
        sys::check(::mkdir("/run/tmp", 0755), "mkdir");
        ::setenv("TMPDIR", "/run/tmp", 1);
        netlink_socket socket = netlink_socket::open(NETLINK_ROUTE);
        netlink_batch batch;
        set_link(batch, "lo", {.up = true});
        socket.transact(batch);
        return std::nullopt;
    }();
    return reason;
}

#define KUMIKI_OWN_HOST()                                                                          \
    if (const auto reason = own_host()) KUMIKI_SKIP(*reason)

std::string unique_name() {
    static int number = 0;
    return "example-" + std::to_string(::getpid()) + "-" + std::to_string(++number);
}

std::string group_of(const std::string& name) {
    return cgroup_hierarchy::find().mount().mount_point + "/kumiki/" + name;
}

/// What is there that the program could have left: links, mounts, files, groups of that name.
std::string leftovers(const std::string& name) {
    std::string left;
    netlink_socket socket = netlink_socket::open(NETLINK_ROUTE);
    for (const link_info& link : list_links(socket))
        if (link.name.starts_with("km")) left += " link " + link.name;
    for (const auto& file : fs::directory_iterator("/run/tmp")) left += " " + file.path().string();
    for (const auto& place : {"/run/kumiki"})
        if (fs::exists(place))
            for (const auto& file : fs::directory_iterator(place))
                left += " " + file.path().string();
    if (!name.empty() && fs::exists(group_of(name))) left += " group " + name;
    const std::string mounts = sys::read_file_at(AT_FDCWD, "/proc/self/mountinfo");
    if (mounts.find("overlay /") != std::string::npos && mounts.find("kumiki") != std::string::npos)
        left += " mounts";
    return left;
}

std::size_t lines(const std::string& text) {
    return static_cast<std::size_t>(std::ranges::count(text, '\n'));
}

/// Makes a system call fail in the program, as a container around it would.
preparation without_call(const char* name, int code) {
    seccomp_filter filter(seccomp_action::allow(), seccomp_action::allow());
    filter.on(name, seccomp_action::fail(code));
    return [program = filter.compile()] {
        ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
        install_seccomp(program);
    };
}

controllers in_v2() {
    return parse_controllers(sys::read_file_at(
        AT_FDCWD, cgroup_hierarchy::find().mount().mount_point + "/cgroup.controllers"));
}

/// An HTTP request to the host itself; tries for a while, as a server starts on its own time.
std::string get_from_host(std::uint16_t port) {
    for (int attempt = 0; attempt < 200; ++attempt, ::usleep(20'000)) {
        const unique_fd fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
        sockaddr_in to{};
        to.sin_family = AF_INET;
        to.sin_port = htons(port);
        to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        if (::connect(fd.get(), reinterpret_cast<const sockaddr*>(&to), sizeof to) != 0) continue;
        const std::string_view request = "GET / HTTP/1.0\r\n\r\n";
        if (::send(fd.get(), request.data(), request.size(), MSG_NOSIGNAL) < 0) continue;
        std::string text;
        char buffer[1024];
        for (ssize_t n; (n = ::recv(fd.get(), buffer, sizeof buffer, 0)) > 0;)
            text.append(buffer, static_cast<std::size_t>(n));
        if (!text.empty()) return text;
    }
    return {};
}

struct bad_input {
    std::vector<std::string> arguments;
    int status;
    std::vector<const char*> said;  ///< each stands in the message
};

}  // namespace

TEST_CASE("each bad input is one clear line, a status that people know, and nothing left") {
    KUMIKI_OWN_HOST();
    const std::vector<bad_input> inputs{
        {{"--memroy", "64M", "true"}, 125, {"'--memroy'", "did you mean --memory"}},
        {{"-Z", "true"}, 125, {"'-Z'", "--help"}},
        {{"--memory"}, 125, {"--memory needs a value"}},
        {{"--read-only=yes", "true"}, 125, {"--read-only takes no value"}},
        {{"--memory", "64Q", "true"}, 125, {"--memory", "'64Q'"}},
        {{"--memory", "99999999999999999999", "true"}, 125, {"--memory", "'99999999999999999999'"}},
        {{"--memory=0", "true"}, 125, {"memory.max", "'0'"}},
        {{"--cpus", "0", "true"}, 125, {"--cpus", "'0'"}},
        {{"--pids", "many", "true"}, 125, {"--pids", "'many'"}},
        {{"--pids", "0", "true"}, 125, {"pids.max", "'0'"}},
        {{"-p", "99999:80", "true"}, 125, {"--publish", "99999:80"}},
        {{"-p", "8080:80/icmp", "true"}, 125, {"--publish", "8080:80/icmp"}},
        {{"-p", "8080:", "true"}, 125, {"--publish", "8080:"}},
        {{"--subnet", "10.0.0.0/33", "true"}, 125, {"--subnet", "'10.0.0.0/33'"}},
        {{"--subnet", "fd00::/64", "true"}, 125, {"--subnet", "'fd00::/64'"}},
        {{"--subnet", "10.0.0.0/31", "true"}, 125, {"10.0.0.0/31"}},
        {{"--allow-from", "192.0.2.0/24", "true"}, 125, {"--allow-from", "--publish"}},
        {{"-p", "8080:80", "--allow-from", "192.0.2", "true"}, 125, {"--allow-from", "'192.0.2'"}},
        {{"--egress", "nowhere", "true"}, 125, {"--egress", "'nowhere'"}},
        {{"--egress", "10.0.0.1:53/icmp", "true"}, 125, {"--egress", "10.0.0.1:53/icmp"}},
        {{"--network", "none", "-p", "8080:80", "true"}, 125, {"--publish", "--network none"}},
        {{"--network", "a-name-too-long", "true"}, 125, {"'a-name-too-long'"}},
        {{"--cap-add", "fly", "true"}, 125, {"--cap-add", "'fly'"}},
        {{"--ulimit", "nofiles=3", "true"}, 125, {"--ulimit", "'nofiles'"}},
        {{"--env", "=x", "true"}, 125, {"--env", "'=x'"}},
        {{"-v", "/nowhere", "true"}, 125, {"--volume", "'/nowhere'"}},
        {{"-v", "/no/such/dir:/mnt", "true"}, 125, {"/no/such/dir"}},
        {{"--tmpfs", "mnt", "true"}, 125, {"--tmpfs", "'mnt'"}},
        {{"--user", "no-such-user", "true"}, 125, {"'no-such-user'"}},
        {{"--user", "4294967296", "true"}, 125, {"'4294967296'"}},
        {{"--workdir", "relative", "true"}, 125, {"'relative'"}},
        {{"--workdir", "/no/such", "true"}, 125, {"/no/such"}},
        {{"--name", "a/b", "true"}, 125, {"'a/b'"}},
        {{"--rootfs", "/no/such", "true"}, 125, {"/no/such", "does not exist"}},
        {{"--rootfs", "/etc/passwd", "true"}, 125, {"/etc/passwd", "must be a directory"}},
        {{"--rootfs", "/run"}, 125, {"no command"}},
        {{"no-such-command"}, 127, {"no-such-command"}},
        {{"/bin/no-such-command"}, 127, {"/bin/no-such-command"}},
        {{"/etc/passwd"}, 126, {"/etc/passwd"}},
        {{"/bin"}, 126, {"/bin"}},
    };
    for (const bad_input& input : inputs) {
        const std::string name = unique_name();
        std::vector<std::string> arguments = input.arguments;
        const bool named = std::ranges::count(arguments, "--name") == 0;
        if (named) arguments.insert(arguments.begin(), {"--name", name});
        CAPTURE(input.arguments);
        const ending end = run_program(arguments);
        CAPTURE(end.err);
        CHECK(end.status == input.status);
        CHECK(end.err.starts_with("kumiki: "));
        CHECK(lines(end.err) == 1);
        for (const char* text : input.said) CHECK(end.err.find(text) != std::string::npos);
        CHECK(end.out.empty());
        CHECK(leftovers(name) == "");
    }
}

TEST_CASE("a host port that is in use is named") {
    KUMIKI_OWN_HOST();
    const unique_fd taken(sys::check(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), "socket"));
    sockaddr_in at{};
    at.sin_family = AF_INET;
    at.sin_port = htons(8080);
    sys::check(::bind(taken.get(), reinterpret_cast<const sockaddr*>(&at), sizeof at), "bind");
    sys::check(::listen(taken.get(), 1), "listen");
    const std::string name = unique_name();
    const ending end = run_program({"--name", name, "-p", "8080:80", "true"});
    CAPTURE(end.err);
    CHECK(end.status == 125);
    CHECK(lines(end.err) == 1);
    CHECK(end.err.find("8080") != std::string::npos);
    CHECK(end.err.find("EADDRINUSE") != std::string::npos);
    CHECK(leftovers(name) == "");
}

TEST_CASE("a subnet that overlaps a route of the host is refused") {
    KUMIKI_OWN_HOST();
    netlink_socket socket = netlink_socket::open(NETLINK_ROUTE);
    netlink_batch make;
    create_veth(make, {.name = "lan", .peer_name = "lan-peer"});
    set_link(make, "lan", {.up = true});
    socket.transact(make);
    netlink_batch give;
    add_address(give, find_link(socket, "lan").value().index, cidr::parse("10.50.0.1/24"));
    socket.transact(give);
    const std::string name = unique_name();
    const ending end = run_program({"--name", name, "--subnet", "10.50.0.0/16", "true"});
    netlink_batch remove;
    delete_link(remove, "lan");
    socket.transact(remove);
    CAPTURE(end.err);
    CHECK(end.status == 125);
    CHECK(lines(end.err) == 1);
    CHECK(end.err.find("10.50.0.0/16") != std::string::npos);
    CHECK(end.err.find("10.50.0.0/24") != std::string::npos);
    CHECK(leftovers(name) == "");
}

TEST_CASE("a name that is taken is refused, and free again after the end") {
    KUMIKI_OWN_HOST();
    const std::string name = unique_name();
    program first({"--name", name, "--", "sh", "-c", "echo up; read line"});
    REQUIRE(first.shows("up"));
    const ending second = run_program({"--name", name, "true"});
    CAPTURE(second.err);
    CHECK(second.status == 125);
    CHECK(lines(second.err) == 1);
    CHECK(second.err.find(name) != std::string::npos);
    first.write("\n");
    CHECK(first.wait().status == 0);
    CHECK(run_program({"--name", name, "true"}).status == 0);
    CHECK(leftovers(name) == "");
}

TEST_CASE("without root it says so") {
    KUMIKI_OWN_HOST();
    const ending end = run_program({"true"}, [] {
        if (::setgid(65534) != 0 || ::setuid(65534) != 0) ::_exit(95);
    });
    CHECK(end.status == 125);
    CHECK(lines(end.err) == 1);
    CHECK(end.err.find("root") != std::string::npos);
}

TEST_CASE("a kernel that is too old is named as the reason") {
    KUMIKI_OWN_HOST();
    const char* missing = GENERATE("clone3", "mount_setattr", "fsopen");
    CAPTURE(missing);
    const std::string name = unique_name();
    const ending end = run_program({"--name", name, "true"}, without_call(missing, ENOSYS));
    CAPTURE(end.err);
    CHECK(end.status == 125);
    CHECK(lines(end.err) == 1);
    CHECK(end.err.find("Linux 5.") != std::string::npos);
    CHECK(leftovers(name) == "");
}

TEST_CASE("where io_uring is denied it works all the same, and says so when asked") {
    KUMIKI_OWN_HOST();
    const auto denied = without_call("io_uring_setup", EPERM);
    const ending quiet = run_program({"--", "sh", "-c", "exit 7"}, denied);
    CHECK(quiet.status == 7);
    CHECK(quiet.err == "");
    const ending told = run_program({"--verbose", "--", "sh", "-c", "exit 7"}, denied);
    CHECK(told.status == 7);
    CHECK(told.err.find("uses epoll") != std::string::npos);
    CHECK(told.err.find("EPERM") != std::string::npos);
}

TEST_CASE("a controller that cgroup v2 lacks is named, with where it is and what to do") {
    KUMIKI_OWN_HOST();
    if (has(in_v2(), controllers::memory)) KUMIKI_SKIP("the memory controller is there");
    const std::string name = unique_name();
    const ending end = run_program({"--name", name, "--memory", "64M", "true"});
    CAPTURE(end.err);
    CHECK(end.status == 125);
    CHECK(lines(end.err) == 1);
    CHECK(end.err.find("memory") != std::string::npos);
    CHECK(end.err.find(cgroup_hierarchy::find().mount().mount_point) != std::string::npos);
    CHECK(leftovers(name) == "");
}

TEST_CASE("a payload that the OOM killer took is reported as such", "[vm]") {
    KUMIKI_OWN_HOST();
    if (!has(in_v2(), controllers::memory)) KUMIKI_SKIP("cgroup v2 has no memory controller here");
    const ending end =
        run_program({"--memory", "32M", "--memory-swap", "0", "--", "tail", "/dev/zero"});
    CHECK(end.status == 137);
    CHECK(end.err == "kumiki: killed: out of memory (memory.max 32 MiB)\n");
}

TEST_CASE("SIGINT in the middle of a start ends it with 130 and leaves nothing") {
    KUMIKI_OWN_HOST();
    const std::string name = unique_name();
    const ending end = run_program({"--name", name, "-p", "8081:80", "--", "sleep", "1000"}, [] {
        sigset_t interrupt;
        ::sigemptyset(&interrupt);
        ::sigaddset(&interrupt, SIGINT);
        ::sigprocmask(SIG_BLOCK, &interrupt, nullptr);  // it waits, through the exec
        ::raise(SIGINT);
    });
    CHECK(end.status == 130);
    CHECK(end.err == "");
    CHECK(leftovers(name) == "");
}

TEST_CASE("the exit status is the payload's") {
    KUMIKI_OWN_HOST();
    CHECK(run_program({"--", "sh", "-c", "exit 7"}).status == 7);
    CHECK(run_program({"true"}).status == 0);
    CHECK(run_program({"false"}).status == 1);
}

TEST_CASE("a payload that was killed ends with 128 plus the signal") {
    KUMIKI_OWN_HOST();
    const std::string name = unique_name();
    program running({"--name", name, "--", "sh", "-c", "echo up; exec sleep 1000"});
    REQUIRE(running.shows("up"));
    const auto procs = sys::read_file_at(AT_FDCWD, group_of(name) + "/cgroup.procs");
    ::kill(static_cast<pid_t>(std::stol(procs)), SIGKILL);
    CHECK(running.wait().status == 137);
    CHECK(leftovers(name) == "");
}

TEST_CASE("options reach the payload") {
    KUMIKI_OWN_HOST();
    ::setenv("FROM_OUTSIDE", "seen", 1);
    const ending env = run_program({"-e", "A=1 2", "--env=B=3", "-e", "FROM_OUTSIDE", "--", "sh",
                                    "-c", "echo \"$A|$B|$FROM_OUTSIDE|$HOME\""});
    CHECK(env.out == "1 2|3|seen|/root\n");
    CHECK(run_program({"-w", "/www", "pwd"}).out == "/www\n");
    CHECK(run_program({"-u", "www", "id"}).out == "uid=33(www) gid=33(www)\n");
    CHECK(run_program({"-u", "1234:99", "--", "sh", "-c", "id -u; id -g"}).out == "1234\n99\n");
    CHECK(run_program({"--hostname", "box", "hostname"}).out == "box\n");
    CHECK(run_program({"--read-only", "touch", "/x"}).status == 1);
    CHECK(run_program({"--read-only", "--tmpfs", "/tmp:1M", "touch", "/tmp/x"}).status == 0);
    CHECK(run_program({"-v", "/etc:/mnt:ro", "test", "-e", "/mnt/passwd"}).status == 0);
    CHECK(run_program({"-v", "/etc:/mnt:ro", "touch", "/mnt/kumiki-was-here"}).status == 1);
    CHECK(run_program({"--ulimit", "nofile=100:200", "--", "sh", "-c", "ulimit -n"}).out ==
          "100\n");
    const ending caps = run_program({"--cap-drop", "all", "grep", "CapBnd", "/proc/self/status"});
    CHECK(caps.out == "CapBnd:\t0000000000000000\n");
    CHECK(run_program({"--", "sh", "-c", "echo $$; ls /proc | grep -c '^[0-9]'"})
              .out.starts_with("1\n"));
}

TEST_CASE("stdin, stdout and stderr are the payload's") {
    KUMIKI_OWN_HOST();
    program running({"--", "sh", "-c", "cat; echo problem >&2"});
    running.write("one\ntwo\n");
    const ending end = running.wait();
    CHECK(end.out == "one\ntwo\n");
    CHECK(end.err == "problem\n");
    CHECK(end.status == 0);
}

TEST_CASE("a signal is handed on to the payload") {
    KUMIKI_OWN_HOST();
    const int number = GENERATE(SIGTERM, SIGINT, SIGHUP);
    CAPTURE(number);
    program running({"--verbose", "--", "sh", "-c",
                     "trap 'echo got; exit 3' TERM INT HUP; echo up; while :; do sleep 0.1; done"});
    REQUIRE(running.shows("up"));
    REQUIRE(running.complains("runs as process"));  // before, it would be in the middle of a start
    running.signal(number);
    const ending end = running.wait();
    CHECK(end.out == "up\ngot\n");
    CHECK(end.status == 3);
}

TEST_CASE("the second signal kills a payload that does not listen") {
    KUMIKI_OWN_HOST();
    const std::string name = unique_name();
    program running({"--name", name, "--verbose", "--", "sleep", "1000"});
    REQUIRE(running.complains("runs as process"));
    running.signal(SIGTERM);
    REQUIRE(running.complains("does not handle SIGTERM"));
    running.signal(SIGTERM);
    CHECK(running.wait().status == 137);
    CHECK(leftovers(name) == "");
}

TEST_CASE("on a terminal the payload has one of its own") {
    KUMIKI_OWN_HOST();
    const std::string name = unique_name();
    program running({"--name", name, "-e", "PS1=$ ", "sh"}, program::on::terminal);
    termios before{};
    REQUIRE(::tcgetattr(running.slave(), &before) == 0);

    running.write("stty size; tty\n");
    REQUIRE(running.shows("24 80\r\n"));
    REQUIRE(running.shows("/dev/"));

    const winsize larger{.ws_row = 30, .ws_col = 100, .ws_xpixel = 0, .ws_ypixel = 0};
    REQUIRE(::ioctl(running.terminal(), TIOCSWINSZ, &larger) == 0);
    // The size arrives on its own time: ask until it has.
    running.write("until [ \"$(stty size)\" = '30 100' ]; do sleep 0.05; done; echo re''sized\n");
    REQUIRE(running.shows("resized\r\n"));

    running.write("echo sl''eeps; sleep 1000\n");
    REQUIRE(running.shows("sleeps\r\n"));
    // The shell may still be on its way to run sleep: ask until the answer is there.
    for (int attempt = 0; attempt < 50; ++attempt) {
        running.write("\003");
        ::usleep(50'000);
        if (attempt == 4) running.write("echo en''ded $?\n");
        if (attempt > 4) break;
    }
    REQUIRE(running.shows("ended 130\r\n"));

    running.write("exit 5\n");
    CHECK(running.wait().status == 5);
    termios after{};
    REQUIRE(::tcgetattr(running.slave(), &after) == 0);
    CHECK(after.c_lflag == before.c_lflag);
    CHECK(after.c_iflag == before.c_iflag);
    CHECK(after.c_oflag == before.c_oflag);
    CHECK(leftovers(name) == "");
}

TEST_CASE("the terminal is as it was after a failed start, and after a kill") {
    KUMIKI_OWN_HOST();
    program failed({"no-such-command"}, program::on::terminal);
    CHECK(failed.wait().status == 127);
    termios after{};
    REQUIRE(::tcgetattr(failed.slave(), &after) == 0);
    CHECK((after.c_lflag & (ICANON | ECHO | ISIG)) == (ICANON | ECHO | ISIG));

    program killed({"--verbose", "--", "sleep", "1000"}, program::on::terminal);
    REQUIRE(killed.complains("runs as process"));
    killed.signal(SIGTERM);
    REQUIRE(killed.complains("does not handle SIGTERM"));
    killed.signal(SIGTERM);
    CHECK(killed.wait().status == 137);
    REQUIRE(::tcgetattr(killed.slave(), &after) == 0);
    CHECK((after.c_lflag & (ICANON | ECHO | ISIG)) == (ICANON | ECHO | ISIG));
}

TEST_CASE("--tty works without a terminal around it, and tells the end of stdin") {
    KUMIKI_OWN_HOST();
    program running({"-t", "cat"});
    running.write("line\n");
    const ending end = running.wait();
    CHECK(end.status == 0);
    CHECK(end.out.find("line\r\n") != std::string::npos);
}

TEST_CASE("a published port leads into the container from the host itself") {
    KUMIKI_OWN_HOST();
    const std::string name = unique_name();
    program running({"--name", name, "--verbose", "-p", "8082:80", "--egress", "none", "--", "sh",
                     "-c", "trap 'exit 0' TERM; httpd -f -h /www & echo up; wait"});
    REQUIRE(running.shows("up"));
    REQUIRE(running.complains("runs as process"));
    CHECK(get_from_host(8082).find("A page from a kumiki container.") != std::string::npos);
    running.signal(SIGTERM);
    CHECK(running.wait().status == 0);
    CHECK(leftovers(name) == "");
}

TEST_CASE("a port that the kernel picks is told") {
    KUMIKI_OWN_HOST();
    const ending end = run_program({"-p", "80", "true"});
    CHECK(end.status == 0);
    CHECK(end.err.find("published ") != std::string::npos);
    CHECK(end.err.find(":80/tcp") != std::string::npos);
}

TEST_CASE("--help and --version need neither root nor a container") {
    const ending help = run_program({"--help"});
    CHECK(help.status == 0);
    for (const char* option : {"--memory", "--publish", "--allow-from", "--egress", "--rootfs"})
        CHECK(help.out.find(option) != std::string::npos);
    for (std::string_view rest = help.out; const auto line = next_field(rest, '\n');)
        CHECK(line->size() <= 80);
    CHECK(run_program({"--version"}).out.starts_with("kumiki 0."));
}

TEST_CASE("--events and --timeline speak on stderr") {
    KUMIKI_OWN_HOST();
    const ending end =
        run_program({"--events", "--timeline", "--", "sh", "-c", "sleep 0.1; echo out"});
    CHECK(end.status == 0);
    CHECK(end.out == "out\n");
    CHECK(end.err.find("populated") != std::string::npos);
    CHECK(end.err.find("supervisor") != std::string::npos);
}

TEST_CASE("all claims of the demonstration hold") {
    KUMIKI_OWN_HOST();
    const ending end = run_program({});
    CAPTURE(end.out, end.err);
    CHECK(end.status == 0);
    CHECK(end.err == "");
    CHECK(end.out.find("FAILED") == std::string::npos);
    CHECK(end.out.find("claims held.") != std::string::npos);
    for (std::string_view rest = end.out; const auto line = next_field(rest, '\n');)
        CHECK(line->size() <= 80);
    CHECK(leftovers("") == "");
}

TEST_CASE("the demonstration ends in good order when it is interrupted") {
    KUMIKI_OWN_HOST();
    program running({});
    REQUIRE(running.shows("reached from outside"));
    running.signal(SIGINT);
    const ending end = running.wait();
    CHECK(end.status == 130);
    CHECK(end.err == "");
    CHECK(leftovers("demo-web-" + std::to_string(running.started_as())) == "");
}
