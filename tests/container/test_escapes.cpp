// Ways out of a container that others had, each tried on a container of ours. All of them lead, if
// they lead anywhere, to files that the test has made.
//
// Where a shell cannot do it, the payload is this very program: with KUMIKI_TEST_PROBE set it does
// what that says, and ends.
#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include <kumiki/container/container.hpp>
#include <kumiki/core/scope_exit.hpp>
#include <kumiki/security/process_status.hpp>

#include "container/hostile.hpp"
#include "container/support.hpp"
#include "support/catch.hpp"
#include "support/leaks.hpp"

using namespace kumiki;
using namespace std::chrono_literals;
using namespace kumiki_test;
namespace fs = std::filesystem;

namespace {

// --- inside

constexpr const char* probe_variable = "KUMIKI_TEST_PROBE";

std::string link_text(const std::string& path) {
    char text[4096];
    const auto size = ::readlink(path.c_str(), text, sizeof text);
    return size < 0 ? std::string() : std::string(text, static_cast<std::size_t>(size));
}

void report(const char* what, const std::string& seen) {
    std::printf("%s %s\n", what, seen.c_str());
    std::fflush(stdout);
}

/// What a file of another process holds: empty when there is none, or no such process any more.
std::string contents(const std::string& path) {
    const unique_fd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    char text[8192];
    const auto size = fd ? ::read(fd.get(), text, sizeof text) : 0;
    return {text, size > 0 ? static_cast<std::size_t>(size) : 0};
}

/// Whether those that the watcher sees are another container's: then nothing of them may be seen.
bool all_are_strangers = false;

/// Looks at one process in every way that the kernel has. One that has executed its command is the
/// container's own and shows what is the container's; one that has not must show nothing.
void watch_process(const std::string& pid) {
    const std::string of = "/proc/" + pid;
    const auto expect = [&](const char* what, const std::string& seen, bool own) {
        if (!seen.empty() && (!own || all_are_strangers)) report(what, seen);
    };
    const auto look_at_maps = [&](const char* what) {
        const std::string maps = contents(of + "/maps");
        // In the middle of its execve a process has a stack and no file yet.
        expect(
            what, maps,
            maps.find("/bin/busybox") != std::string::npos || maps.find('/') == std::string::npos);
    };
    const std::string exe = link_text(of + "/exe");
    expect("exe", exe, exe == "/bin/busybox");
    for (const char* name : {"root", "cwd"}) {
        const std::string seen = link_text(of + "/" + name);
        expect(name, seen, seen == "/");
        const unique_fd fd(::open((of + "/" + name + "/.").c_str(), O_RDONLY | O_CLOEXEC));
        struct stat own{};
        struct stat other{};
        if (fd && ::stat("/", &own) == 0 && ::fstat(fd.get(), &other) == 0)
            expect(name, "opened", own.st_dev == other.st_dev && own.st_ino == other.st_ino);
    }
    for (const char* name : {"mnt", "net", "pid", "user"}) {
        const std::string seen = link_text(of + "/ns/" + name);
        expect("ns", seen, seen == link_text(std::string("/proc/self/ns/") + name));
    }
    if (DIR* directory = ::opendir((of + "/fd").c_str())) {
        while (const dirent* entry = ::readdir(directory)) {
            const std::string seen = link_text(of + "/fd/" + entry->d_name);
            expect("fd", seen, seen == "/dev/null");
        }
        ::closedir(directory);
    }
    look_at_maps("maps");
    if (const unique_fd memory(::open((of + "/mem").c_str(), O_RDWR | O_CLOEXEC)); memory)
        look_at_maps("mem");
    const std::string environment = contents(of + "/environ");
    expect("environ", environment, environment.starts_with("PATH=/bin"));
    const auto number = static_cast<pid_t>(std::atoi(pid.c_str()));
    if (::ptrace(PTRACE_SEIZE, number, nullptr, nullptr) == 0) {
        ::ptrace(PTRACE_INTERRUPT, number, nullptr, nullptr);
        int status = 0;
        if (::waitpid(number, &status, __WALL) == number && WIFSTOPPED(status)) {
            const std::string stopped = link_text(of + "/exe");
            if (stopped != "/bin/busybox" || all_are_strangers) report("ptrace", stopped);
            ::ptrace(PTRACE_DETACH, number, nullptr, nullptr);
        }
    }
}

[[noreturn]] void watch_all() {
    report("watching", "");
    for (;;) {
        DIR* directory = ::opendir("/proc");
        while (const dirent* entry = ::readdir(directory)) {
            const std::string name = entry->d_name;
            if (name.find_first_not_of("0123456789") == std::string::npos && name != "1")
                watch_process(name);
        }
        ::closedir(directory);
    }
}

const int probe = [] {
    const char* what = std::getenv(probe_variable);
    if (what == nullptr) return 0;
    all_are_strangers = std::string_view(what) == "watch strangers";
    if (std::string_view(what).starts_with("watch")) watch_all();
    if (std::string_view(what) == "type") {
        (void)::ioctl(0, TIOCSCTTY, 0);
        const int typed = ::ioctl(0, TIOCSTI, "x");
        std::printf("%s\n", typed == 0 ? "typed" : errno_name(errno).c_str());
        std::fflush(stdout);
    }
    if (std::string_view(what) == "ids") {
        std::printf("%u %u\n", ::getuid(), ::geteuid());
        std::fflush(stdout);
    }
    ::_exit(0);
}();

// --- outside

const std::string& own_program() {
    static const std::string path = fs::read_symlink("/proc/self/exe").string();
    return path;
}

/// A busybox root that a test may spoil, with room for this program and its libraries.
class spoiled_root : public busybox_root {
  public:
    spoiled_root() {
        fs::create_directories(path() + "/usr/lib");
        fs::create_symlink("usr/lib", path() + "/lib");
        fs::create_symlink("usr/lib64", path() + "/lib64");
    }
    std::string at(const std::string& inside) const { return path() + inside; }
};

container_spec spoiled_shell(const spoiled_root& root, std::string script) {
    return shell_spec(root, std::move(script));
}

/// As this program in the container, doing what `what` says.
container_spec probing(const spoiled_root& root, const std::string& what) {
    auto spec = shell_spec(root, "");
    spec.process.args = {"/probe"};
    spec.process.env = {"PATH=/bin", std::string(probe_variable) + "=" + what};
    spec.mounts = {bind_mount{.source = own_program(), .target = "/probe"}};
    for (const char* libraries : {"/usr/lib", "/usr/lib64"})
        if (fs::exists(libraries))
            spec.mounts.push_back(bind_mount{
                .source = libraries, .target = libraries, .access = access_mode::read_only});
    return spec;
}

/// What a start yields: the payload's output, or the error with its step.
struct attempt {
    std::string output;
    std::string step;
    std::string failure;
    int code = 0;
};

attempt try_start(container_spec spec) {
    try {
        return {run_shell(std::move(spec)).output, {}, {}, 0};
    } catch (const error& failure) {
        return {{}, failure.step(), failure.what(), failure.errno_value()};
    }
}

task<std::string> exec_and_read(scheduler& io, container_spec spec, exec_spec wanted) {
    auto box = co_await container::start(io, std::move(spec));
    pipe_pair pipe;
    const unique_fd null = sys::open_at(AT_FDCWD, "/dev/null", O_RDONLY);
    wanted.stdio = {null.get(), pipe.out.get(), pipe.out.get()};
    auto process = co_await box.exec(std::move(wanted));
    pipe.out.reset();
    auto text = co_await read_all(io, pipe.in.get());
    co_await process.wait();
    co_return text;
}

/// As try_start, for a process that enters a sleeping container of `spec`.
attempt try_exec(container_spec spec, exec_spec wanted) {
    scheduler io;
    spec.process.args = {"/bin/sleep", "30"};
    try {
        return {io.run(exec_and_read(io, std::move(spec), std::move(wanted))), {}, {}, 0};
    } catch (const error& failure) {
        return {{}, failure.step(), failure.what(), failure.errno_value()};
    }
}

/// Open files of the host that would be inherited, were they not closed.
class leaky_descriptors {
  public:
    leaky_descriptors() {
        for (const char* path : {"/", "/proc", "/etc/passwd", "/tmp"})
            for (int i = 0; i < 3; ++i) fds_.emplace_back(::open(path, O_RDONLY));
        for (const char* path : {"/", "/proc", "/sys/fs/cgroup"})
            fds_.emplace_back(::open(path, O_PATH));
    }

  private:
    std::vector<unique_fd> fds_;
};

unsigned long number_from_environment(const char* name, unsigned long otherwise) {
    const char* text = std::getenv(name);
    return text != nullptr ? std::strtoul(text, nullptr, 10) : otherwise;
}

}  // namespace

// --- paths that the image has prepared

TEST_CASE("a symlinked /proc or /sys is refused (CVE-2019-19921, CVE-2023-27561)") {
    const std::string place = GENERATE("proc", "sys");
    const std::string target = GENERATE("/tmp/fake", "tmp", "../tmp", "/proc/self/root/tmp");
    CAPTURE(place, target);
    const spoiled_root root;
    fs::create_directories(root.at("/tmp/fake/self/attr"));
    fs::create_symlink(target, root.at("/" + place));
    for (const bool overlay : {true, false}) {
        auto spec = spoiled_shell(root, "echo started");
        if (!overlay) spec.rootfs = rootfs::directory(root.path());
        const auto seen = try_start(std::move(spec));
        CHECK(seen.step == place);
        CHECK(seen.code == ELOOP);
    }
}

TEST_CASE("what covers a masked file is our own, whatever is at /dev/null (CVE-2025-31133)") {
    const spoiled_root root;
    const temporary_directory volume;
    write_text(volume.path() + "/file", "spoiled\n");
    // The caller's mount comes to lie where the image wants it.
    fs::create_symlink("/dev", root.at("/data"));
    auto spec = spoiled_shell(root,
                              "cat /dev/null; cat /proc/keys /proc/timer_list; "
                              "{ echo x > /proc/keys; } 2>/tmp/e; cat /proc/keys; echo end");
    spec.mounts = {bind_mount{.source = volume.path() + "/file", .target = "/data/null"}};
    CHECK(try_start(std::move(spec)).output == "spoiled\nend\n");
    CHECK(text_of(volume.path() + "/file") == "spoiled\n");
}

TEST_CASE("/dev/console is the payload's terminal and nothing else (CVE-2025-52565)") {
    const spoiled_root root;
    const sentinel_tree sentinel;
    fs::create_directories(root.at("/dev/pts"));
    for (const char* name : {"/dev/console", "/dev/pts/0", "/dev/ptmx", "/dev/pts/ptmx"})
        fs::create_symlink(sentinel.file(), root.at(name));
    const auto untouched = tree_witness::of(sentinel);
    auto spec = spoiled_shell(root,
                              "echo to the console > /dev/console; stat -c %t:%T /dev/console; "
                              "readlink /proc/self/fd/0; sleep 30");
    spec.process.terminal = terminal_size{};
    scheduler io;
    std::string seen;
    with_container(io, std::move(spec), [&](container& box) {
        char text[512];
        while (seen.find("/dev/pts/0") == std::string::npos) {
            pollfd ready{box.terminal(), POLLIN, 0};
            REQUIRE(::poll(&ready, 1, 10000) == 1);
            const auto n = ::read(box.terminal(), text, sizeof text);
            if (n <= 0) break;
            seen.append(text, static_cast<std::size_t>(n));
        }
    });
    CHECK(seen == "to the console\r\n88:0\r\n/dev/pts/0\r\n");
    CHECK(tree_witness::of(sentinel).changes_since(untouched) == "");
}

TEST_CASE("procfs is written through our own and never a covered one (CVE-2025-52881)") {
    const spoiled_root root;
    const sentinel_tree sentinel;
    const temporary_directory volume;
    for (const char* name : {"oom_score_adj", "timens_offsets", "uid_map", "attr"})
        fs::create_symlink(sentinel.file(), volume.path() + "/" + name);
    fs::create_directories(volume.path() + "/ipv4");
    fs::create_symlink(sentinel.file(), volume.path() + "/ipv4/ip_forward");
    fs::create_symlink("/proc", root.at("/data"));
    const auto untouched = tree_witness::of(sentinel);
    auto spec = spoiled_shell(root, "sleep 30");
    spec.mounts = {bind_mount{.source = volume.path(), .target = "/data/1"},
                   bind_mount{.source = volume.path(), .target = "/data/sys/net"}};
    spec.process.oom_score_adj = 500;
    spec.time_namespace = clock_offsets{.monotonic = 1000s};
    spec.sysctls = {{"net.ipv4.ip_forward", "1"}};
    scheduler io;
    with_container(io, std::move(spec), [&](container& box) {
        const std::string of = "/proc/" + std::to_string(box.pid());
        CHECK(text_of(of + "/oom_score_adj") == "500\n");
        CHECK(text_of(of + "/timens_offsets").find("1000") != std::string::npos);
    });
    CHECK(tree_witness::of(sentinel).changes_since(untouched) == "");
}

TEST_CASE("a symlinked /dev gets no device nodes, wherever it leads (CVE-2026-47766)") {
    const spoiled_root root;
    const sentinel_tree sentinel;
    const bool outside = GENERATE(true, false);
    const std::string target = outside ? sentinel.directory() : "tmp";
    fs::create_symlink(target, root.at("/dev"));
    const auto untouched = tree_witness::of(sentinel);
    for (const bool overlay : {true, false}) {
        auto spec = spoiled_shell(root, "echo started");
        if (!overlay) spec.rootfs = rootfs::directory(root.path());
        spec.process.terminal = terminal_size{};
        CHECK(try_start(std::move(spec)).step == "dev");
    }
    CHECK(tree_witness::of(sentinel).changes_since(untouched) == "");
    CHECK(fs::is_empty(root.at("/tmp")));
}

TEST_CASE("directories for a mount are made inside, along any link (CVE-2024-45310)") {
    const spoiled_root root;
    const sentinel_tree sentinel;
    fs::create_symlink(sentinel.directory(), root.at("/data"));
    const auto untouched = tree_witness::of(sentinel);
    auto spec = spoiled_shell(root, "echo x > /data/new/dir/probe; cat /data/new/dir/probe");
    spec.rootfs = rootfs::directory(root.path());
    spec.mounts = {tmpfs_mount{.target = "/data/new/dir"}};
    CHECK(try_start(spec).step == "mounts");  // the link leads nowhere, inside
    CHECK(tree_witness::of(sentinel).changes_since(untouched) == "");
    fs::create_directories(root.at(sentinel.directory()));
    CHECK(try_start(spec).output == "x\n");
    CHECK(fs::is_directory(root.at(sentinel.directory() + "/new/dir")));
    CHECK(tree_witness::of(sentinel).changes_since(untouched) == "");
}

TEST_CASE("the user's name is not looked up in files of procfs") {
    const spoiled_root root;
    const std::string target =
        GENERATE("/proc/kmsg", "/proc/self/environ", "/proc/1/maps", "/sys/kernel/uevent_seqnum");
    CAPTURE(target);
    fs::remove(root.at("/etc/passwd"));
    fs::create_symlink(target, root.at("/etc/passwd"));
    auto spec = spoiled_shell(root, "echo started");
    spec.process.named_user = parse_user("web");
    const auto seen = try_start(std::move(spec));
    CHECK(seen.failure.find("no regular file") != std::string::npos);
}

TEST_CASE("a device node of the image cannot be opened, wherever it is") {
    const spoiled_root root;
    fs::create_directory(root.at("/deep"));
    REQUIRE(::mknod(root.at("/deep/zero").c_str(), S_IFCHR | 0666, makedev(1, 5)) == 0);
    const temporary_directory volume;
    REQUIRE(::mknod((volume.path() + "/zero").c_str(), S_IFCHR | 0666, makedev(1, 5)) == 0);
    const bool overlay = GENERATE(true, false);
    auto spec =
        spoiled_shell(root,
                      "for f in /deep/zero /volume/zero; do head -c 1 $f > /dev/null 2>&1 && echo "
                      "opened $f; done; head -c 1 /dev/zero | wc -c");
    if (!overlay) spec.rootfs = rootfs::directory(root.path());
    spec.mounts = {bind_mount{.source = volume.path(), .target = "/volume"}};
    CHECK(try_start(std::move(spec)).output == "1\n");
}

TEST_CASE("a read-only root and the mounts in it apart", "[.apart]") {
    enter_own_mounts();
    const spoiled_root root;
    const temporary_directory data;
    fs::create_directory(root.at("/nested"));
    REQUIRE(::mount(data.path().c_str(), root.at("/nested").c_str(), nullptr, MS_BIND, nullptr) ==
            0);
    auto spec = spoiled_shell(root,
                              "(echo x > /nested/probe || echo refused) 2>/dev/null; "
                              "(echo x > /probe || echo refused) 2>/dev/null");
    spec.rootfs = rootfs::directory(root.path(), access_mode::read_only);
    const auto seen = try_start(spec);
    // A read-only mount is not made writable for the time of the start, either.
    CHECK(::mount(nullptr, root.at("/nested").c_str(), nullptr, MS_BIND | MS_REMOUNT | MS_RDONLY,
                  nullptr) == 0);
    spec.rootfs = rootfs::directory(root.path());
    const auto writable = try_start(spec);
    if (::umount2(root.at("/nested").c_str(), MNT_DETACH) != 0) ::abort();
    CHECK(seen.output == "refused\nrefused\n");
    CHECK(writable.output == "refused\n");
    CHECK(fs::is_empty(data.path()));
}

TEST_CASE("a read-only directory root is read-only in the mounts below it, too") {
    std::string output;
    const int status = run_apart("a read-only root and the mounts in it apart", output);
    INFO(output);
    CHECK(status == 0);
    CHECK(output.find("kumiki: 1 passed, 0 failed") != std::string::npos);
}

// --- what is left open

TEST_CASE("a working directory that is a magic link leads nowhere (CVE-2024-21626)") {
    const spoiled_root root;
    const sentinel_tree sentinel;
    const leaky_descriptors held;
    std::vector<std::string> places{
        "/proc/1/cwd",    "/proc/1/root",          "/proc/self/root",       "/proc/self/cwd/..",
        "/proc/self/cwd", "/proc/thread-self/cwd", "/proc/self/task/1/root"};
    const std::string supervisor = "/proc/" + std::to_string(::getpid());
    for (const char* link : {"/cwd", "/root", "/root/tmp", "/fd/0", "/fd/3", "/fd/4"})
        places.push_back(supervisor + link);
    const bool own_pids = GENERATE(true, false);
    const bool through_link = GENERATE(true, false);
    for (int fd = 0; fd < (own_pids && !through_link ? 256 : 32); ++fd)
        places.push_back("/proc/self/fd/" + std::to_string(fd));
    int started = 0;
    for (const std::string& cwd : places) {
        if (through_link) {
            fs::remove(root.at("/work"));
            fs::create_symlink(cwd, root.at("/work"));
        }
        auto spec = spoiled_shell(root, "readlink /proc/$$/cwd; [ -e ." + sentinel.file() +
                                            " ] && echo escaped; [ -e " + sentinel.file() +
                                            " ] && echo outside");
        spec.process.cwd = through_link ? "/work" : cwd;
        if (!own_pids) spec.namespaces = spec.namespaces & ~namespace_kind::pid;
        const auto seen = try_start(std::move(spec));
        CAPTURE(cwd, own_pids, through_link, seen.failure);
        if (!seen.step.empty()) {
            CHECK(seen.step == "limits");
            continue;
        }
        ++started;
        CHECK(seen.output == "/\n");
    }
    CHECK(started == 0);
}

namespace {

/// Text in which numbers in brackets are left out: "pipe:[4711]" is "pipe:[]".
std::string without_numbers(const std::string& text) {
    std::string result;
    bool inside = false;
    for (const char c : text) {
        inside = c == '[' || (inside && c != ']');
        if (!inside || c == '[') result += c;
    }
    return result;
}

/// The shell's own descriptors, shown by builtins and by a child that inherits no more of them.
constexpr const char* list_descriptors =
    "n=0; while [ $n -lt 300 ]; do [ -L /proc/$$/fd/$n ] && echo $n && readlink /proc/$$/fd/$n; "
    "n=$((n+1)); done";
constexpr const char* golden_descriptors = "0\n/dev/null\n1\npipe:[]\n2\npipe:[]\n";

}  // namespace

TEST_CASE("the payload has the descriptors 0, 1 and 2 and no others, started or entered") {
    const spoiled_root root;
    const leaky_descriptors held;
    for (const clone_mode mode : {clone_mode::shared_memory, clone_mode::own_memory}) {
        auto spec = spoiled_shell(root, list_descriptors);
        spec.clone = mode;
        CHECK(without_numbers(try_start(std::move(spec)).output) == golden_descriptors);
    }
    CHECK(without_numbers(try_exec(spoiled_shell(root, ""), command(list_descriptors)).output) ==
          golden_descriptors);
}

TEST_CASE("starts of a program without standard descriptors apart", "[.apart]") {
    const spoiled_root root;
    const auto start = [&](scheduler& io, bool passed_on, int other) -> attempt {
        auto spec = spoiled_shell(root, list_descriptors);
        pipe_pair pipe;
        if (!passed_on) spec.process.stdio = {other, pipe.out.get(), pipe.out.get()};
        try {
            io.run(start_and_wait(io, std::move(spec)));
        } catch (const error& failure) {
            return {{}, failure.step(), failure.what(), failure.errno_value()};
        }
        char text[512];
        const auto size = passed_on ? 0 : ::read(pipe.in.get(), text, sizeof text);
        return {std::string(text, static_cast<std::size_t>(size)), {}, {}, 0};
    };
    const unique_fd null = sys::open_at(AT_FDCWD, "/dev/null", O_RDWR);
    for (int closed = 0; closed < 3; ++closed) {
        const unique_fd copy(::fcntl(closed, F_DUPFD_CLOEXEC, 10));
        attempt seen[4];
        {
            scheduler io;  // has its descriptors already
            ::close(closed);
            seen[0] = start(io, true, null.get());
            ::close(closed);
            seen[1] = start(io, false, null.get());
        }
        {
            ::close(closed);
            scheduler io;  // one of its own is where a standard descriptor should be
            seen[2] = start(io, true, null.get());
            seen[3] = start(io, false, null.get());
        }
        ::dup2(copy.get(), closed);
        for (const int refused : {0, 2}) {
            CAPTURE(closed, refused, seen[refused].failure);
            CHECK(seen[refused].code == EBADF);
            CHECK(seen[refused].failure.find("/dev/null") != std::string::npos);
        }
        // A pipe's end of the test's own fills the gap in the second; what the payload has is
        // what it was given in any case.
        for (const int given : {1, 3}) {
            CAPTURE(closed, given, seen[given].failure);
            CHECK((seen[given].code == EBADF ||
                   without_numbers(seen[given].output) == golden_descriptors));
        }
        CHECK(seen[3].code == 0);
    }
}

TEST_CASE("a program without standard descriptors is told so and starts nothing") {
    std::string output;
    const int status = run_apart("starts of a program without standard descriptors apart", output);
    INFO(output);
    CHECK(status == 0);
    CHECK(output.find("kumiki: 1 passed, 0 failed") != std::string::npos);
}

TEST_CASE("the program that starts is not executed inside (CVE-2019-5736)") {
    const spoiled_root root;
    const std::string before = text_of(own_program());
    const auto link = [&](const char* name, const char* target) {
        fs::create_symlink(target, root.at(name));
    };
    const auto script = [&](const char* name, const char* interpreter, unsigned mode = 0755) {
        write_text(root.at(name), std::string("#!") + interpreter + "\n");
        REQUIRE(::chmod(root.at(name).c_str(), mode) == 0);
    };
    link("/bin/link", "/proc/self/exe");
    link("/bin/far", "link");
    link("/bin/thread", "/proc/thread-self/exe");
    script("/bin/script", "/proc/self/exe");
    script("/bin/blank", " \t/proc/self/exe  with arguments");
    script("/bin/linked", "/bin/link");
    script("/bin/again", "/bin/script");
    script("/bin/unreadable", "/proc/self/exe", 0111);
    const auto with = [&](container_spec spec, const std::string& args) {
        spec.process.args = {args};
        return spec;
    };
    // The program can run there: nothing but the refusal keeps it from it.
    REQUIRE(try_start(probing(root, "ids")).output == "0 0\n");
    for (const char* path :
         {"/proc/self/exe", "/proc/1/exe", "link", "/bin/far", "/bin/thread", "/bin/script",
          "/bin/blank", "/bin/linked", "/bin/again", "/bin/unreadable", "../proc/self/exe"}) {
        CAPTURE(path);
        for (const clone_mode mode : {clone_mode::shared_memory, clone_mode::own_memory}) {
            auto spec = with(probing(root, "ids"), path);
            spec.clone = mode;
            const auto seen = try_start(std::move(spec));
            CHECK(seen.output == "");
            CHECK(seen.step == "identity");
            CHECK(seen.code == ELOOP);
        }
        auto user = with(probing(root, "ids"), path);
        user.process.user = {1000, 1000};
        CHECK(try_start(std::move(user)).step == "identity");
        const auto seen = try_exec(probing(root, "ids"), {.args = {path}});
        CHECK(seen.output == "");
        CHECK(seen.step == "identity");
    }
    // What is no way to it goes on working.
    script("/bin/good", "/bin/sh");
    REQUIRE(::truncate(root.at("/bin/good").c_str(), 10) == 0);
    CHECK(try_start(with(probing(root, "ids"), "/bin/good")).failure == "");
    CHECK(text_of(own_program()) == before);
}

TEST_CASE("the host's root and files cannot be reached over any process's links") {
    const spoiled_root root;
    const sentinel_tree sentinel;
    const std::string look =
        "for p in /proc/[0-9]* /proc/self /proc/thread-self; do "
        "for l in root cwd fd/0 fd/1 fd/2 fd/3 fd/4; do "
        "[ -e $p/$l" +
        sentinel.file() +
        " ] && echo $p/$l; "
        "[ -e $p/$l/../../.." +
        sentinel.file() +
        " ] && echo $p/$l/..; "
        "done; done; echo end";
    CHECK(try_start(spoiled_shell(root, look)).output == "end\n");
    CHECK(try_exec(spoiled_shell(root, ""), command(look)).output == "end\n");
}

TEST_CASE("a watcher inside sees nothing of those that enter (CVE-2016-9962)") {
    const unsigned long rounds = number_from_environment("KUMIKI_WATCHED_EXECS", 100);
    const spoiled_root root;
    auto spec = probing(root, "watch");
    spec.process.filter = std::shared_ptr<const seccomp_program>();  // ptrace and all
    pipe_pair pipe;
    const unique_fd null = sys::open_at(AT_FDCWD, "/dev/null", O_RDWR);
    spec.process.stdio = {null.get(), pipe.out.get(), pipe.out.get()};
    scheduler io;
    const auto seen = io.run([](scheduler& loop, container_spec of, pipe_pair& from, int null_fd,
                                unsigned long count) -> task<std::string> {
        auto box = co_await container::start(loop, std::move(of));
        from.out.reset();
        std::byte first[64];
        auto size = co_await loop.read(from.in.get(), first);
        CHECK(size == 10);  // "watching \n"
        for (unsigned long i = 0; i < count; ++i) {
            exec_spec next{.args = {"/bin/busybox", "true"}, .stdio = {null_fd, null_fd, null_fd}};
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

TEST_CASE("a watcher sees nothing of those that start in its pid namespace") {
    const unsigned long rounds = number_from_environment("KUMIKI_WATCHED_EXECS", 100);
    const spoiled_root root;
    auto spec = probing(root, "watch strangers");
    spec.process.filter = std::shared_ptr<const seccomp_program>();
    pipe_pair pipe;
    const unique_fd null = sys::open_at(AT_FDCWD, "/dev/null", O_RDWR);
    spec.process.stdio = {null.get(), pipe.out.get(), pipe.out.get()};
    // Once it runs, its user is another and keeps the watcher out; up to then it is the host's root.
    auto next = spoiled_shell(root, "");
    next.process.args = {"/bin/busybox", "true"};
    next.process.user = {1000, 1000};
    next.process.stdio = {null.get(), null.get(), null.get()};
    scheduler io;
    const auto seen = io.run([](scheduler& loop, container_spec of, container_spec other,
                                pipe_pair& from, unsigned long count) -> task<std::string> {
        auto box = co_await container::start(loop, std::move(of));
        from.out.reset();
        std::byte first[64];
        auto size = co_await loop.read(from.in.get(), first);
        CHECK(size == 10);  // "watching \n"
        other.join = box.share(namespace_kind::pid);
        for (unsigned long i = 0; i < count; ++i) {
            auto result = co_await start_and_wait(loop, other);
            CHECK(result.exit_code() == 0);
        }
        box.signal(SIGKILL);
        co_await box.wait();
        auto text = co_await read_all(loop, from.in.get());
        co_return text;
    }(io, std::move(spec), std::move(next), pipe, rounds));
    CHECK(seen == "");
}

TEST_CASE("nothing is typed into a terminal that a payload was lent (CVE-2017-5226)") {
    const spoiled_root root;
    const unique_fd master = sys::open_at(AT_FDCWD, "/dev/ptmx", O_RDWR | O_NOCTTY);
    const int locked = 0;
    REQUIRE(::ioctl(master.get(), TIOCSPTLCK, &locked) == 0);
    const unique_fd lent(::ioctl(master.get(), sys::tiocgptpeer, O_RDWR | O_NOCTTY));
    REQUIRE(lent);
    // As a user's shell has it: the terminal of a session that is not the payload's.
    const pid_t owner = ::fork();
    if (owner == 0) {
        const bool owns = ::setsid() > 0 && ::ioctl(lent.get(), TIOCSCTTY, 0) == 0;
        (void)!::write(lent.get(), owns ? "+" : "-", 1);
        for (;;) ::pause();
    }
    const scope_exit end_owner([&] {
        ::kill(owner, SIGKILL);
        ::waitpid(owner, nullptr, 0);
    });
    char answer = 0;
    REQUIRE(::read(master.get(), &answer, 1) == 1);
    REQUIRE(answer == '+');
    pipe_pair pipe;
    auto spec = probing(root, "type");
    spec.process.filter = std::shared_ptr<const seccomp_program>();
    spec.process.stdio = {lent.get(), pipe.out.get(), pipe.out.get()};
    scheduler io;
    io.run(start_and_wait(io, std::move(spec)));
    char text[64];
    const auto size = ::read(pipe.in.get(), text, sizeof text);
    CHECK(std::string(text, size > 0 ? static_cast<std::size_t>(size) : 0) == "EPERM\n");
}

// --- privileges

TEST_CASE("root inside makes no device nodes, and a terminal is one of the container's devpts") {
    const spoiled_root root;
    CHECK(try_start(spoiled_shell(root,
                                  "for d in /dev/x /tmp/x; do mknod $d c 1 5 2>/dev/null && echo "
                                  "made $d; done; echo end"))
              .output == "end\n");
    // One who may put anything at /dev/pts/ptmx gets an error for a terminal there, in time.
    const std::string object =
        GENERATE("busybox mkfifo /dev/pts/ptmx", "echo x > /dev/pts/ptmx",
                 "busybox ln -s /dev/tty /dev/pts/ptmx", "mkdir /dev/pts/ptmx",
                 "busybox ln -s /proc/self/fd/0 /dev/pts/ptmx", "true");
    CAPTURE(object);
    auto spec = spoiled_shell(root, "");
    spec.process.capabilities = default_capabilities | capability::sys_admin;
    spec.process.filter = std::shared_ptr<const seccomp_program>();
    scheduler io;
    const auto seen =
        io.run([](scheduler& loop, container_spec of, std::string make) -> task<std::string> {
            of.process.args = {"/bin/sleep", "30"};
            auto box = co_await container::start(loop, std::move(of));
            const unique_fd null = sys::open_at(AT_FDCWD, "/dev/null", O_RDWR);
            exec_spec first = command("umount /dev/pts && " + make);
            first.stdio = {null.get(), null.get(), null.get()};
            auto prepared = co_await box.exec(std::move(first));
            auto status = co_await prepared.wait();
            CHECK(status.code == 0);
            exec_spec second = command("exit 0");
            second.terminal = terminal_size{};
            try {
                auto process = co_await box.exec(std::move(second));
            } catch (const start_error& failure) {
                co_return failure.step();
            }
            co_return std::string("started");
        }(io, std::move(spec), object));
    CHECK(seen == "session");
}

TEST_CASE("a set-user-ID program gives nothing under no_new_privs") {
    const spoiled_root root;
    fs::copy_file(own_program(), root.at("/raise"));
    REQUIRE(::chmod(root.at("/raise").c_str(), 04755) == 0);
    const bool no_new_privs = GENERATE(true, false);
    auto spec = probing(root, "ids");
    spec.process.args = {"/raise"};
    spec.process.user = {1000, 1000};
    spec.process.no_new_privs = no_new_privs;
    spec.process.filter = std::shared_ptr<const seccomp_program>();
    const auto seen = try_start(spec);
    INFO(seen.failure);
    CHECK(seen.output == (no_new_privs ? "1000 1000\n" : "1000 0\n"));
    // On a mount of the caller's it gives nothing in any case.
    const temporary_directory volume;
    fs::rename(root.at("/raise"), volume.path() + "/raise");
    spec.process.args = {"/volume/raise"};
    fs::permissions(volume.path(), fs::perms(0755));
    spec.mounts.push_back(bind_mount{.source = volume.path(), .target = "/volume"});
    CHECK(try_start(spec).output == "1000 1000\n");
}

TEST_CASE("capabilities of a supervisor with inheritable ones apart", "[.apart]") {
    // What runc, crun, podman and moby had is set for this process on purpose.
    auto own = read_process_status(::getpid());
    REQUIRE(own);
    process_capabilities sets = own->capabilities;
    sets.inheritable = sets.permitted;
    const capset_payload payload = make_capset(sets);
    REQUIRE(::syscall(SYS_capset, &payload.head, payload.data.data()) == 0);
    REQUIRE_FALSE(read_process_status(::getpid())->capabilities.inheritable.empty());
    const spoiled_root root;
    const std::string look = "grep -E 'Cap(Inh|Amb)' /proc/self/status";
    const std::string none = "CapInh:\t0000000000000000\nCapAmb:\t0000000000000000\n";
    for (const bool as_root : {true, false}) {
        auto spec = spoiled_shell(root, look);
        if (!as_root) spec.process.user = {1000, 1000};
        CHECK(try_start(spec).output == none);
        CHECK(try_exec(spec, command(look)).output == none);
    }
}

TEST_CASE("no inheritable and no ambient capability reaches a payload (CVE-2022-29162)") {
    std::string output;
    const int status =
        run_apart("capabilities of a supervisor with inheritable ones apart", output);
    INFO(output);
    CHECK(status == 0);
    CHECK(output.find("kumiki: 1 passed, 0 failed") != std::string::npos);
}

TEST_CASE("a container adds no abstract socket to the host (CVE-2020-15257)") {
    const spoiled_root root;
    const auto abstract = [] {
        std::multiset<std::string> names;
        for (const std::string& line : holdings::lines("/proc/net/unix"))
            if (const auto at = line.find(" @"); at != std::string::npos)
                names.insert(line.substr(at));
        return names;
    };
    const auto before = abstract();
    auto spec = spoiled_shell(root, "sleep 30");
    spec.network = network_mode::host;
    spec.process.terminal = terminal_size{};
    scheduler io;
    with_container(io, std::move(spec), [&](container&) { CHECK(abstract() == before); });
}

// --- control groups

TEST_CASE("no cgroup v1 hierarchy can be seen or mounted inside (CVE-2022-0492)") {
    const spoiled_root root;
    fs::create_directory(root.at("/v1"));
    const std::string look =
        "for c in memory rdma freezer misc none; do mount -t cgroup -o $c none /v1 2>/dev/null && "
        "echo mounted $c; done; mount -t cgroup2 none /v1 2>/dev/null && echo mounted; "
        "find / -name release_agent 2>/dev/null; grep -c ' - cgroup ' /proc/self/mountinfo";
    CHECK(try_start(spoiled_shell(root, look)).output == "0\n");
    CHECK(try_exec(spoiled_shell(root, ""), command(look)).output == "0\n");
}

TEST_CASE("/sys/fs/cgroup cannot be written inside (CVE-2023-25809)") {
    const spoiled_root root;
    const std::string look =
        "cd /sys/fs/cgroup 2>/dev/null && ls | grep -c cgroup.procs; "
        "for f in cgroup.procs cgroup.threads cgroup.subtree_control cgroup.freeze cgroup.kill "
        "cgroup.max.depth cgroup.type; do (echo 0 > /sys/fs/cgroup/$f) 2>/dev/null && echo wrote "
        "$f; done; mkdir /sys/fs/cgroup/new 2>/dev/null && echo made; echo end";
    CHECK(try_start(spoiled_shell(root, look)).output == "1\nend\n");
    CHECK(try_exec(spoiled_shell(root, ""), command(look)).output == "1\nend\n");
    auto without = spoiled_shell(root, look);
    without.namespaces = without.namespaces & ~namespace_kind::cgroup;
    CHECK(try_start(std::move(without)).output == "0\nend\n");
}

TEST_CASE("the host's kernel parameters cannot be written inside") {
    const spoiled_root root;
    const auto before = host_parameters();
    const std::string look =
        "for f in sys/kernel/core_pattern sys/kernel/modprobe sys/kernel/hostname "
        "sys/vm/drop_caches sys/fs/suid_dumpable sys/net/ipv4/ip_forward sysrq-trigger "
        "irq/default_smp_affinity; do (cat /proc/$f > /tmp/v; echo 1 > /proc/$f) 2>/dev/null && "
        "echo wrote $f; done; for f in /sys/kernel/uevent_helper /sys/power/state; do "
        "(echo x > $f) 2>/dev/null && echo wrote $f; done; echo end";
    CHECK(try_start(spoiled_shell(root, look)).output == "end\n");
    CHECK(try_exec(spoiled_shell(root, ""), command(look)).output == "end\n");
    CHECK(host_parameters() == before);
}

// --- payloads and children that do not behave

namespace {

/// Before step `at` the child stops itself, as a SIGSTOP from outside would.
task<void> start_with_stop(scheduler& io, container_spec spec, std::size_t at) {
    spec.namespaces = spec.namespaces & ~namespace_kind::pid;
    const auto spoil = [](child_program& program, void* context) {
        const std::size_t which = *static_cast<std::size_t*>(context);
        auto* steps = const_cast<step*>(program.steps);
        constexpr std::int8_t own = slot_count - 1;
        steps[which] = step{.in = steps[which].in, .result = own, .number = SYS_getpid};
        steps[which + 1] = step{
            .in = steps[which].in, .slots = 1, .number = SYS_kill, .arguments = {own, SIGSTOP}};
    };
    auto parts = co_await detail::launch(io, std::move(spec), {.alter = spoil, .context = &at});
    parts->kill_and_release();
}

}  // namespace

TEST_CASE("a child that is stopped in the middle of its start is given up in time") {
    const spoiled_root root;
    scheduler io;
    run_shell(spoiled_shell(root, "exit 0"));
    const auto before = holdings::now();
    for (const clone_mode mode : {clone_mode::shared_memory, clone_mode::own_memory})
        for (const std::size_t at : {1U, 20U, 60U, 100U}) {
            auto spec = spoiled_shell(root, "exit 0");
            spec.start_limit = 150ms;
            spec.clone = mode;
            const auto began = std::chrono::steady_clock::now();
            try {
                io.run(start_with_stop(io, std::move(spec), at));
                FAIL("the start went on");
            } catch (const start_error& failure) {
                CHECK(failure.errno_value() == ETIMEDOUT);
            }
            CHECK(std::chrono::steady_clock::now() - began < 2s);
        }
    KUMIKI_CHECK_NOTHING_LEFT(before);
}

TEST_CASE("a payload that stops, dies or fills its pipe at once holds up nobody") {
    const spoiled_root root;
    scheduler io;
    run_shell(spoiled_shell(root, "exit 0"));
    const auto before = holdings::now();
    for (const char* script : {"kill -STOP $$; sleep 30", "kill -KILL $$", "cat /dev/zero"}) {
        CAPTURE(script);
        pipe_pair full;
        auto spec = spoiled_shell(root, script);
        spec.namespaces = spec.namespaces & ~namespace_kind::pid;
        spec.process.stdio[1] = full.out.get();
        const auto began = std::chrono::steady_clock::now();
        with_container(io, std::move(spec), [](container&) {});
        CHECK(std::chrono::steady_clock::now() - began < 2s);
    }
    KUMIKI_CHECK_NOTHING_LEFT(before);
}

TEST_CASE("what the supervisor closes is closed while a child waits for its start") {
    const spoiled_root root;
    const clone_mode mode = GENERATE(clone_mode::shared_memory, clone_mode::own_memory);
    int ends[2];
    REQUIRE(::pipe2(ends, 0) == 0);  // not even close-on-exec
    const unique_fd reading(ends[0]);
    unique_fd writing(ends[1]);
    auto spec = spoiled_shell(root, "exit 0");
    spec.clone = mode;
    spec.start_limit = 1s;
    // Instead of executing its command, the child waits for a byte that nobody sends.
    static std::atomic<const child_report*> report_of_child;
    static std::size_t last;
    report_of_child = nullptr;
    const auto wait_at_the_end = [](child_program& program, void*) {
        auto* steps = const_cast<step*>(program.steps);
        last = program.count - 1;
        for (std::size_t i = 0; i < program.count; ++i)
            if (steps[i].kind == step_kind::await_byte) {
                steps[last] = steps[i];
                steps[last].in = phase::exec;
            }
        report_of_child = program.report;
    };
    std::chrono::steady_clock::duration took = 1h;
    std::thread closer([&] {
        for (int i = 0; i < 1000; ++i) {
            const child_report* found = report_of_child.load();
            if (found != nullptr &&
                std::atomic_ref(const_cast<child_report*>(found)->step).load() ==
                    static_cast<std::int32_t>(last))
                break;
            std::this_thread::sleep_for(1ms);
        }
        const auto began = std::chrono::steady_clock::now();
        writing.reset();
        pollfd released{reading.get(), POLLIN, 0};
        if (::poll(&released, 1, 5000) == 1 && (released.revents & POLLHUP) != 0)
            took = std::chrono::steady_clock::now() - began;
    });
    scheduler io;
    const auto start = [](scheduler& loop, container_spec of, detail::plan_tap tap) -> task<void> {
        auto parts = co_await detail::launch(loop, std::move(of), tap);
        parts->kill_and_release();
    };
    CHECK_THROWS_AS(io.run(start(io, std::move(spec), {.alter = wait_at_the_end})), error);
    closer.join();
    CHECK(took < 50ms);
}
