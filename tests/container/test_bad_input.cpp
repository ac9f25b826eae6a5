// Bad input as a table: each is one error that says what is wrong, before anything is done for it.
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include <kumiki/container/container.hpp>
#include <kumiki/security/seccomp_profile.hpp>

#include "container/hostile.hpp"
#include "container/support.hpp"
#include "support/catch.hpp"
#include "support/leaks.hpp"

using namespace kumiki;
using namespace kumiki::literals;
using namespace std::chrono_literals;
using namespace kumiki_test;
namespace fs = std::filesystem;

namespace {

using change_spec = std::function<void(container_spec&)>;

/// What is wrong, and what the message must name.
struct bad_spec {
    const char* what;
    change_spec change;
    const char* named;
};

/// The error of a start of a good spec that `change` has spoiled; nothing when it starts.
std::optional<error> error_of(const change_spec& change) {
    scheduler io;
    container_spec spec = shell_spec(busybox(), "exit 0");
    try {
        change(spec);
        io.run(start_and_wait(io, std::move(spec)));
    } catch (const error& failure) {
        return failure;
    }
    return std::nullopt;
}

std::string with_nul(const std::string& before = "a") { return before + std::string("\0b", 2); }

const std::string& long_path() {
    static const std::string path = "/" + std::string(5000, 'x');
    return path;
}

/// Refused by the description itself: no errno, no step, nothing asked of the kernel.
const std::vector<bad_spec>& refused_specs() {
    static const std::vector<bad_spec> table{
        // the command and its surroundings
        {"no arguments", [](auto& s) { s.process.args = {}; }, "command"},
        {"an empty command", [](auto& s) { s.process.args = {""}; }, "command"},
        {"a NUL byte in the command", [](auto& s) { s.process.args = {with_nul()}; }, "NUL"},
        {"a NUL byte in an argument", [](auto& s) { s.process.args.push_back(with_nul()); }, "NUL"},
        {"an argument of 128 KiB",
         [](auto& s) { s.process.args.push_back(std::string(128 << 10, 'x')); }, "131072 bytes"},
        {"arguments of more than 2 MiB",
         [](auto& s) {
             for (int i = 0; i < 20; ++i) s.process.args.push_back(std::string(120 << 10, 'x'));
         },
         "2 MiB"},
        {"300,000 arguments", [](auto& s) { s.process.args.resize(300000, "x"); }, "2 MiB"},
        {"an environment without =", [](auto& s) { s.process.env = {"PATH"}; }, "NAME=value"},
        {"an empty variable", [](auto& s) { s.process.env = {""}; }, "NAME=value"},
        {"a variable without a name", [](auto& s) { s.process.env = {"=x"}; }, "NAME=value"},
        {"a NUL byte in the environment", [](auto& s) { s.process.env = {with_nul("A=")}; }, "NUL"},
        {"an empty working directory", [](auto& s) { s.process.cwd = ""; }, "working directory"},
        {"a relative working directory", [](auto& s) { s.process.cwd = "tmp"; }, "absolute"},
        {"a working directory with a NUL byte", [](auto& s) { s.process.cwd = with_nul("/"); },
         "NUL"},
        {"a working directory of 5,000 bytes", [](auto& s) { s.process.cwd = long_path(); },
         "5001 bytes"},
        {"a umask of five digits", [](auto& s) { s.process.umask = 01000; }, "umask"},
        {"a nice value below -20", [](auto& s) { s.process.nice = -21; }, "nice"},
        {"a nice value above 19", [](auto& s) { s.process.nice = 20; }, "nice"},
        {"an OOM score below -1000", [](auto& s) { s.process.oom_score_adj = -1001; },
         "oom_score_adj"},
        {"an OOM score above 1000", [](auto& s) { s.process.oom_score_adj = 1001; },
         "oom_score_adj"},
        {"processor 8192", [](auto& s) { s.process.processors = {8192}; }, "8192"},
        {"real-time priority 0",
         [](auto& s) { s.process.scheduling = scheduling{.policy = scheduling_policy::fifo}; },
         "scheduling priority"},
        {"priority 1 for nobody",
         [](auto& s) {
             s.process.scheduling = scheduling{.policy = scheduling_policy::other, .priority = 1};
         },
         "scheduling priority"},
        {"I/O priority 8", [](auto& s) { s.process.io_priority = io_priority{.level = 8}; },
         "I/O priority"},
        {"death signal 65", [](auto& s) { s.process.death_signal = 65; }, "signal"},
        {"death signal -1", [](auto& s) { s.process.death_signal = -1; }, "signal"},
        {"a soft limit above the hard one",
         [](auto& s) { s.process.rlimits = {{resource::core, 2, 1}}; }, "soft limit"},
        {"an unlimited soft limit above the hard one",
         [](auto& s) { s.process.rlimits = {{resource::core, unlimited, 1}}; }, "soft limit"},
        {"a resource that there is none of",
         [](auto& s) { s.process.rlimits = {{static_cast<resource>(99), 1, {}}}; }, "rlimit"},
        {"more groups than a process can have",
         [](auto& s) { s.process.user.groups.resize(65537, group_id(1)); }, "groups"},
        // names and namespaces
        {"a name with a slash", [](auto& s) { s.name = "a/b"; }, "container name"},
        {"a name with ..", [](auto& s) { s.name = ".."; }, "container name"},
        {"a name with a NUL byte", [](auto& s) { s.name = with_nul(); }, "container name"},
        {"a name with a line break", [](auto& s) { s.name = "a\nb"; }, "container name"},
        {"a name of 65 bytes", [](auto& s) { s.name = std::string(65, 'x'); }, "container name"},
        {"a host name with a blank", [](auto& s) { s.hostname = "a b"; }, "host name"},
        {"a host name with a line break", [](auto& s) { s.hostname = "a\n10.0.0.1 b"; },
         "host name"},
        {"a host name with a NUL byte", [](auto& s) { s.hostname = with_nul(); }, "NUL"},
        {"a host name that begins with -", [](auto& s) { s.hostname = "-a"; }, "host name"},
        {"a host name that ends with -", [](auto& s) { s.hostname = "a-"; }, "host name"},
        {"a host name with an empty label", [](auto& s) { s.hostname = "a..b"; }, "host name"},
        {"a host name with an underscore", [](auto& s) { s.hostname = "a_b"; }, "host name"},
        {"a host name that is not ASCII", [](auto& s) { s.hostname = "gr\xc3\xbcn"; }, "host name"},
        {"a host name of 65 bytes", [](auto& s) { s.hostname = std::string(65, 'a'); }, "hostname"},
        {"a label of 64 bytes", [](auto& s) { s.hostname = std::string(64, 'a'); }, "host name"},
        {"no mount namespace", [](auto& s) { s.namespaces = namespace_kind::pid; }, "mount"},
        {"a user namespace without user 0",
         [](auto& s) { s.user_namespace = user_mapping{id_map({{1, 1, 1}}), id_map({{0, 0, 1}})}; },
         "user 0"},
        {"users that overlap inside",
         [](auto& s) {
             s.user_namespace =
                 user_mapping{id_map({{0, 1000, 10}, {5, 2000, 10}}), id_map({{0, 1000, 10}})};
         },
         "id range"},
        {"groups that overlap outside",
         [](auto& s) {
             s.user_namespace =
                 user_mapping{id_map({{0, 1000, 10}}), id_map({{0, 1000, 10}, {20, 1005, 10}})};
         },
         "id range"},
        {"a range that goes beyond the last id",
         [](auto& s) {
             s.user_namespace = user_mapping{id_map({{0, 4294967295, 2}}), id_map({{0, 0, 1}})};
         },
         "id range"},
        {"an empty range",
         [](auto& s) { s.user_namespace = user_mapping{id_map({{0, 0, 0}}), {}}; }, "zero"},
        {"a namespace handle of nobody", [](auto& s) { s.join = {nullptr}; }, "empty handle"},
        {"no time to start in", [](auto& s) { s.start_limit = 0ms; }, "start_limit"},
        {"less than no time to start in", [](auto& s) { s.start_limit = -1ms; }, "start_limit"},
        // the root filesystem and the mounts
        {"no root", [](auto& s) { s.rootfs = rootfs{}; }, "rootfs"},
        {"an empty root", [](auto& s) { s.rootfs = rootfs::directory(""); }, "absolute"},
        {"a relative root", [](auto& s) { s.rootfs = rootfs::directory("a/b"); }, "absolute"},
        {"a root with a NUL byte", [](auto& s) { s.rootfs = rootfs::directory(with_nul("/")); },
         "NUL"},
        {"a root of 5,000 bytes", [](auto& s) { s.rootfs = rootfs::directory(long_path()); },
         "5001 bytes"},
        {"a layer with a NUL byte", [](auto& s) { s.rootfs = rootfs::overlay(with_nul("/")); },
         "NUL"},
        {"a layer below /proc", [](auto& s) { s.rootfs = rootfs::overlay("/proc/self/root/"); },
         "/proc"},
        {"no layer", [](auto& s) { s.rootfs = rootfs::overlay(std::vector<std::string>{}); },
         "rootfs"},
        {"an upper directory alone",
         [](auto& s) { s.rootfs = rootfs::overlay(busybox().path(), {.upper = "/tmp"}); },
         "go together"},
        {"an upper directory with a NUL byte",
         [](auto& s) {
             s.rootfs = rootfs::overlay(busybox().path(), {.upper = with_nul("/"), .work = "/"});
         },
         "NUL"},
        {"a relative work directory",
         [](auto& s) {
             s.rootfs = rootfs::overlay(busybox().path(), {.upper = "/tmp", .work = "work"});
         },
         "work directory"},
        {"changes of no size",
         [](auto& s) { s.rootfs = rootfs::overlay(busybox().path(), {.size = 0_B}); }, "size"},
        {"a mount on the root itself", [](auto& s) { s.mounts = {tmpfs_mount{.target = "/"}}; },
         "mount target"},
        {"a mount on nothing", [](auto& s) { s.mounts = {tmpfs_mount{.target = ""}}; },
         "mount target"},
        {"a relative mount target", [](auto& s) { s.mounts = {tmpfs_mount{.target = "a"}}; },
         "absolute"},
        {"a mount target with ..", [](auto& s) { s.mounts = {tmpfs_mount{.target = "/a/../b"}}; },
         "'..'"},
        {"a mount target that ends with ..",
         [](auto& s) { s.mounts = {bind_mount{.source = "/tmp", .target = "/a/.."}}; }, "'..'"},
        {"a mount target with a NUL byte",
         [](auto& s) { s.mounts = {tmpfs_mount{.target = with_nul("/")}}; }, "NUL"},
        {"a mount target of 5,000 bytes",
         [](auto& s) { s.mounts = {tmpfs_mount{.target = long_path()}}; }, "5001 bytes"},
        {"a mount target with a name of 256 bytes",
         [](auto& s) { s.mounts = {tmpfs_mount{.target = "/" + std::string(256, 'x')}}; },
         "255 bytes"},
        {"a mount of nothing",
         [](auto& s) { s.mounts = {bind_mount{.source = "", .target = "/a"}}; }, "mount source"},
        {"a relative mount source",
         [](auto& s) { s.mounts = {bind_mount{.source = "etc", .target = "/a"}}; }, "mount source"},
        {"a mount source with a NUL byte",
         [](auto& s) { s.mounts = {bind_mount{.source = with_nul("/"), .target = "/a"}}; }, "NUL"},
        {"a tmpfs of no size",
         [](auto& s) { s.mounts = {tmpfs_mount{.target = "/a", .size = 0_B}}; }, "size"},
        {"a tmpfs with a mode of five digits",
         [](auto& s) { s.mounts = {tmpfs_mount{.target = "/a", .mode = 010777}}; }, "mode"},
        // kernel parameters
        {"an unknown parameter", [](auto& s) { s.sysctls = {{"kernel.nothing", "1"}}; },
         "kernel.nothing"},
        {"a parameter of the host", [](auto& s) { s.sysctls = {{"kernel.core_pattern", "|x"}}; },
         "whole host"},
        {"a parameter with ..", [](auto& s) { s.sysctls = {{"net/../kernel/sysrq", "1"}}; },
         "sysctl"},
        {"a parameter with an empty part", [](auto& s) { s.sysctls = {{"net..ipv4", "1"}}; },
         "sysctl"},
        {"a parameter with a NUL byte", [](auto& s) { s.sysctls = {{with_nul("net.ipv4."), "1"}}; },
         "sysctl"},
        {"a value with a NUL byte",
         [](auto& s) { s.sysctls = {{"net.ipv4.ip_forward", with_nul("1")}}; }, "NUL"},
        {"no value", [](auto& s) { s.sysctls = {{"net.ipv4.ip_forward", ""}}; }, "empty"},
        {"one parameter twice",
         [](auto& s) { s.sysctls = {{"net.ipv4.ip_forward", "1"}, {"net/ipv4/ip_forward", "0"}}; },
         "twice"},
        {"a parameter of a namespace that is the host's",
         [](auto& s) {
             s.network = network_mode::host;
             s.sysctls = {{"net.ipv4.ip_forward", "1"}};
         },
         "net namespace"},
        // what is given as text
        {"an unknown capability",
         [](auto& s) { s.process.capabilities = parse_capabilities("chown,everything"); },
         "everything"},
        {"a system call that there is none of", [](auto&) { (void)syscall_number("open_sesame"); },
         "open_sesame"},
        {"an unknown rlimit",
         [](auto& s) { s.process.rlimits = {parse_resource_limit("files=1")}; }, "files"},
        {"an rlimit that is no number",
         [](auto& s) { s.process.rlimits = {parse_resource_limit("nofile=-1")}; }, "nofile=-1"},
        {"an rlimit that is too large",
         [](auto& s) { s.process.rlimits = {parse_resource_limit("core=18446744073709551616")}; },
         "core="},
        {"a user that is no number and no name",
         [](auto& s) { s.process.named_user = parse_user("1x"); }, "1x"},
        {"a user below 0", [](auto& s) { s.process.named_user = parse_user("-1"); }, "-1"},
        {"the user that means no change",
         [](auto& s) { s.process.named_user = parse_user("4294967295"); }, "4294967295"},
        {"an unknown user", [](auto& s) { s.process.named_user = parse_user("somebody"); },
         "somebody"},
        {"an unknown user with a group",
         [](auto& s) { s.process.named_user = parse_user("somebody:web"); }, "somebody"},
        {"a group below 0", [](auto& s) { s.process.named_user = parse_user("web:-1"); }, "-1"},
        {"no user before a group", [](auto& s) { s.process.named_user = parse_user(":web"); },
         "empty"},
        {"an unknown group", [](auto& s) { s.process.named_user = parse_user("web:some"); },
         "some"},
    };
    return table;
}

}  // namespace

TEST_CASE("bad input is refused with one clear error before anything is done") {
    REQUIRE_FALSE(error_of([](container_spec&) {}));
    const auto before = holdings::now();
    for (const bad_spec& each : refused_specs()) {
        CAPTURE(each.what);
        const auto failure = error_of(each.change);
        CHECK(failure);
        if (!failure) continue;
        INFO(failure->what());
        CHECK(failure->errno_value() == 0);
        CHECK(std::string(failure->operation()).starts_with("invalid "));
        CHECK(std::string(failure->what()).find(each.named) != std::string::npos);
        CHECK_FALSE(failure->remedy().empty());
        CHECK(std::string(failure->what()).find('\0') == std::string::npos);
    }
    CHECK(refused_specs().size() >= 100);
    KUMIKI_CHECK_NOTHING_LEFT(before);
}

TEST_CASE("what only the kernel can know is one error with its errno and its step") {
    const temporary_directory base;
    const auto link = [&](const char* name, const std::string& target) {
        fs::create_symlink(target, base.path() + "/" + name);
        return base.path() + "/" + name;
    };
    const std::string loop = link("loop", "loop");
    const std::string through_loop = loop + "/root";
    const std::string one = link("one", base.path() + "/two");
    link("two", base.path() + "/one");
    struct bad_start {
        const char* what;
        change_spec change;
        int code;
        std::string named;
    };
    const std::vector<bad_start> table{
        {"a root that is a loop of links", [&](auto& s) { s.rootfs = rootfs::directory(loop); },
         ENOTDIR, "symbolic link"},
        {"a root behind a loop of links",
         [&](auto& s) { s.rootfs = rootfs::directory(through_loop); }, ELOOP, through_loop},
        {"a layer that two links make a loop of",
         [&](auto& s) { s.rootfs = rootfs::overlay(one + "/"); }, ELOOP, one},
        {"a root that is not there",
         [&](auto& s) { s.rootfs = rootfs::directory(base.path() + "/absent"); }, ENOENT, "absent"},
        {"a root that is a file", [&](auto& s) { s.rootfs = rootfs::directory("/etc/passwd"); },
         ENOTDIR, "/etc/passwd"},
        {"a name of 256 bytes in the root",
         [&](auto& s) { s.rootfs = rootfs::directory("/" + std::string(256, 'x')); }, ENAMETOOLONG,
         "xxx"},
        {"a mount source that is not there",
         [&](auto& s) {
             s.mounts = {bind_mount{.source = base.path() + "/absent", .target = "/a"}};
         },
         ENOENT, "absent"},
        {"a mount source that is a loop",
         [&](auto& s) { s.mounts = {bind_mount{.source = loop, .target = "/a"}}; }, ELOOP, loop},
        {"a mount target below a file",
         [&](auto& s) { s.mounts = {tmpfs_mount{.target = "/etc/passwd/a"}}; }, ENOTDIR,
         "/etc/passwd/a"},
        {"a directory on a file",
         [&](auto& s) { s.mounts = {tmpfs_mount{.target = "/etc/passwd"}}; }, EINVAL,
         "on a directory only"},
        {"a file on a directory",
         [&](auto& s) { s.mounts = {bind_mount{.source = "/etc/passwd", .target = "/www"}}; },
         EINVAL, "on a directory only"},
        {"a mount behind a link that leads nowhere",
         [&](auto& s) {
             fs::create_symlink("/not/there", base.path() + "/dangling");
             s.rootfs = rootfs::overlay(std::vector<std::string>{base.path(), busybox().path()});
             s.mounts = {tmpfs_mount{.target = "/dangling/a"}};
         },
         ENOENT, "symbolic link"},
        {"a standard descriptor that is none", [&](auto& s) { s.process.stdio = {-1, 1, 2}; },
         EBADF, "standard descriptor"},
        {"a standard descriptor that is not open",
         [&](auto& s) { s.process.stdio = {0, 900000, 2}; }, EBADF, "standard descriptor"},
        {"a value that the kernel does not take",
         [&](auto& s) { s.sysctls = {{"net.ipv4.ip_forward", "many"}}; }, EINVAL,
         "net/ipv4/ip_forward"},
        {"a parameter that this kernel does not have",
         [&](auto& s) { s.sysctls = {{"net.ipv4.no_such", "1"}}; }, ENOENT, "net/ipv4/no_such"},
        {"a working directory that is not there", [&](auto& s) { s.process.cwd = "/absent"; },
         ENOENT, "/absent"},
        {"a working directory that is a file", [&](auto& s) { s.process.cwd = "/etc/passwd"; },
         ENOTDIR, "/etc/passwd"},
    };
    const auto before = holdings::now();
    for (const bad_start& each : table) {
        CAPTURE(each.what);
        const auto failure = error_of(each.change);
        CHECK(failure);
        if (!failure) continue;
        INFO(failure->what());
        CHECK(failure->errno_value() == each.code);
        CHECK_FALSE(failure->step().empty());
        CHECK(std::string(failure->what()).find(each.named) != std::string::npos);
    }
    KUMIKI_CHECK_NOTHING_LEFT(before);
}
