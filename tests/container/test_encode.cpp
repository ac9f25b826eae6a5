#include <filesystem>
#include <string>
#include <vector>

#include <kumiki/container/encode.hpp>
#include <kumiki/container/plan_text.hpp>

#include "container/support.hpp"
#include "support/busybox.hpp"
#include "support/catch.hpp"
#include "support/leaks.hpp"

using namespace kumiki;
using namespace std::chrono_literals;
using kumiki_test::contains;
using kumiki_test::empty_root;
using kumiki_test::good_spec;
using kumiki_test::holdings;
using kumiki_test::temporary_directory;

namespace {

encode_inputs inputs() { return {.control = 9, .hostname = "box", .files = {{"/etc/hosts", "x"}}}; }

/// The plan of a good spec that `change` has changed, as text.
template <class Change>
std::string plan_text(Change&& change) {
    container_spec spec = good_spec();
    change(spec);
    encode_inputs in = inputs();
    in.awaits_maps = spec.user_namespace.has_value();
    return to_string(encode(spec, in).plan);
}

/// True when `parts` stand in `text` in this order.
bool in_order(const std::string& text, const std::vector<std::string>& parts) {
    std::size_t at = 0;
    for (const std::string& part : parts) {
        at = text.find(part, at);
        INFO("looking for " << part);
        CHECK(at != std::string::npos);
        if (at == std::string::npos) return false;
        ++at;
    }
    return true;
}

constexpr auto unchanged = [](container_spec&) {};

}  // namespace

TEST_CASE("the phases of a plan only go forward") {
    for (const bool everything : {false, true}) {
        container_spec spec = good_spec();
        encode_inputs in = inputs();
        if (everything) {
            const id_map ids{{0, 100000, 65536}};
            spec.user_namespace = user_mapping{ids, ids};
            spec.time_namespace = clock_offsets{1s, 2s};
            spec.process.terminal = terminal_size{};
            spec.mounts = {tmpfs_mount{.target = "/a"},
                           bind_mount{.source = "/etc", .target = "/b"}};
            in.awaits_maps = true;
        }
        try {
            const encoded_plan made = encode(spec, in);
            phase last = phase::descriptors;
            for (const step& s : made.plan.steps()) {
                CHECK(s.in >= last);
                last = s.in;
            }
            CHECK(last == phase::exec);
            CHECK(made.program->count == made.plan.size());
        } catch (const error& failure) {
            if (!contains(failure.remedy(), "id-mapped")) throw;
        }
    }
}

TEST_CASE("a plan closes, mounts, pivots, waits, gives up its rights and executes") {
    const std::string text = plan_text(unchanged);
    CHECK(in_order(text, {
                             "descriptors: close_range",
                             "cgroup: unshare(33554432)",
                             "hostname: sethostname(\"box\", 3)",
                             "the staging tmpfs",
                             "the overlay root",
                             "proc on /proc",
                             "mknodat($",
                             "devpts on /dev/pts",
                             "sysfs on /sys",
                             "cgroup2 on /sys/fs/cgroup",
                             "mounts: openat",
                             "# /etc/hosts",
                             "mask on /proc/keys",
                             "setsid()",
                             "pivot_root(\".\", \".\")",
                             "umount2(\".\", 2)",
                             "pivot: close_range",
                         }));
    CHECK(in_order(text, {"pivot: close_range", "network: socket", "network: ioctl",
                          "network: ppoll(9, 30000)", "bounding set without", "setgroups",
                          "setresgid", "setresuid", "capset", "no_new_privs", "seccomp: seccomp",
                          "exec: rt_sigprocmask", "exec: execve"}));
}

TEST_CASE("nothing of the host is open, and no path of the host is named, after the pivot") {
    container_spec spec = good_spec();
    const encoded_plan made = encode(spec, inputs());
    bool pivoted = false;
    for (std::size_t i = 0; i < made.plan.size(); ++i) {
        const step& s = made.plan.steps()[i];
        if (pivoted && s.kind == step_kind::close_others) {
            CHECK(s.arguments[1] == 1);
            CHECK(*reinterpret_cast<const int*>(s.arguments[0]) == 9);
        }
        if (pivoted) CHECK_FALSE(contains(to_string(made.plan, i), empty_root().path()));
        pivoted |= call_name(s) == "pivot_root";
    }
    CHECK(pivoted);
}

TEST_CASE("a namespace that is left out has no steps") {
    CHECK(contains(plan_text(unchanged), "sethostname"));
    const std::string text = plan_text([](container_spec& spec) {
        spec.namespaces = namespace_kind::mount;
        spec.network = network_mode::host;
    });
    for (const char* call :
         {"sethostname", "cgroup: unshare", "cgroup2 on", "mqueue", "network: socket"}) {
        CAPTURE(call);
        CHECK_FALSE(contains(text, call));
    }
    CHECK(contains(text, "network: ppoll"));  // the barrier is there all the same
}

TEST_CASE("what the process is to have is in its steps") {
    const std::string text = plan_text([](container_spec& spec) {
        spec.process.cwd = "/work";
        spec.process.umask = 077;
        spec.process.oom_score_adj = -5;
        spec.process.death_signal = 0;
        spec.process.user = {1000, 1001};
        spec.process.args = {"a-command"};
    });
    CHECK(contains(text, "limits: openat2(-100, \"/work\", &, 24)"));
    CHECK(contains(text, "limits: umask(63)"));
    CHECK(contains(text, "write($"));
    CHECK(contains(text, "\"-5\", 2)"));
    CHECK(contains(text, "setresgid(1001, 1001, 1001)"));
    CHECK(contains(text, "setresuid(1000, 1000, 1000)"));
    CHECK(contains(text, "execve(&)  # a-command"));
    CHECK_FALSE(contains(text, "parent-death"));
    CHECK(contains(plan_text(unchanged), "parent-death"));
}

TEST_CASE("without no_new_privs the filter comes before the capabilities go") {
    const auto with = plan_text(unchanged);
    CHECK(in_order(with, {"capset", "no_new_privs", "seccomp: seccomp"}));
    const auto without = plan_text([](container_spec& spec) { spec.process.no_new_privs = false; });
    CHECK(in_order(without, {"seccomp: seccomp", "capset"}));
    CHECK_FALSE(contains(without, "no_new_privs"));
    const auto none = plan_text([](container_spec& spec) {
        spec.process.filter = std::shared_ptr<const seccomp_program>();
    });
    CHECK_FALSE(contains(none, "seccomp: seccomp"));
}

TEST_CASE("Landlock's rules are made behind the pivot and taken on before the filter") {
    if (landlock_abi() < 1) KUMIKI_SKIP("this kernel has no Landlock");
    const bool no_new_privs = GENERATE(true, false);
    const auto text = plan_text([&](container_spec& spec) {
        spec.process.no_new_privs = no_new_privs;
        spec.process.landlock =
            landlock_rules{.paths = {{"/bin"}, {"/etc"}}, .support = landlock_support::best_effort};
    });
    CHECK(
        in_order(text, {"pivot_root", "pivot: close_range", "limits: umask",
                        "landlock: landlock_create_ruleset(&, 24) -> $", "landlock: openat2($",
                        "# /bin", "landlock: openat2($", "# /etc", "network: ppoll", "setresuid"}));
    if (no_new_privs)
        CHECK(in_order(text, {"capset", "no_new_privs", "landlock_restrict_self($",
                              "seccomp: seccomp", "execve"}));
    else
        CHECK(in_order(text, {"setresuid", "landlock_restrict_self($", "seccomp: seccomp", "capset",
                              "execve"}));
    CHECK_FALSE(contains(plan_text(unchanged), "landlock"));
    const auto nothing = plan_text([](container_spec& spec) {
        spec.process.landlock = landlock_rules{.handled = landlock_access::none};
    });
    CHECK_FALSE(contains(nothing, "landlock"));
}

TEST_CASE("capabilities are kept through the change of ids only for a user who is to have some") {
    const auto of = [](auto change) {
        return plan_text([&](auto& spec) { change(spec.process); });
    };
    const char* keep = "the capabilities to keep";
    CHECK_FALSE(contains(of([](process_spec&) {}), keep));
    CHECK_FALSE(contains(of([](process_spec& p) { p.user = {1000, 1000}; }), keep));
    CHECK_FALSE(contains(of([](process_spec& p) { p.ambient = capability::chown; }), keep));
    const auto ambient = of([](process_spec& p) {
        p.user = {1000, 1000};
        p.ambient = {capability::chown, capability::kill};
    });
    CHECK(in_order(ambient, {"bounding set without", keep, "setgroups", "setresgid", "setresuid",
                             "capset", "# ambient CAP_CHOWN", "# ambient CAP_KILL",
                             "the parent-death signal", "no_new_privs", "seccomp: seccomp"}));
    const auto early = of([](process_spec& p) {
        p.user = {1000, 1000};
        p.no_new_privs = false;
    });
    CHECK(in_order(early, {keep, "setresuid", "capset", "seccomp: seccomp", "capset", "execve"}));
}

TEST_CASE("a label is written through the plan's own procfs, read back, and before the pivot") {
    const container_spec spec = good_spec();
    process_spec labelled = spec.process;
    labelled.selinux_label = "a:b:c";
    plan made;
    const slot proc = made.new_slot();
    detail::privileges_encoder(made, labelled).labels(proc);
    CHECK(in_order(to_string(made),
                   {"openat2($0, \"thread-self/attr/exec\", &, 24) -> $1",
                    "write($1, \"a:b:c\", 5)", "pread64($1, \"a:b:c\", 5)", "close($1)"}));
    // encode() does not look at the kernel: that is validate()'s.
    const auto text = plan_text([](container_spec& s) { s.process.selinux_label = "a:b:c"; });
    CHECK(in_order(text, {"proc on /proc", "# SELinux label a:b:c", "setsid", "pivot_root"}));
}

TEST_CASE("a read-only root is made so before the pivot, after everything is in its place") {
    const auto text = plan_text([](container_spec& spec) {
        spec.rootfs = rootfs::overlay(empty_root().path()).read_only();
    });
    CHECK(in_order(text, {"mask on", "pivot: mount_setattr", "pivot_root"}));
    CHECK_FALSE(contains(plan_text(unchanged), "pivot: mount_setattr"));
}

TEST_CASE("mounts keep their order, and a tmpfs its size and mode") {
    const auto text = plan_text([](container_spec& spec) {
        spec.mounts = {tmpfs_mount{.target = "/b", .size = bytes{4096}, .mode = 0750},
                       bind_mount{.source = "/etc", .target = "/a"}};
    });
    CHECK(in_order(
        text, {"\"mode\", \"00750\"", "\"size\", \"4096\"", "# tmpfs on /b", "# mount on /a"}));
}

TEST_CASE("the clocks of a time namespace are set before the pivot, through the own procfs") {
    const auto text = plan_text([](container_spec& spec) {
        spec.time_namespace = clock_offsets{.monotonic = -5s, .boottime = 7s};
    });
    CHECK(in_order(text, {"unshare(128)", "self/timens_offsets", "monotonic -5 0\nboottime 7 0\n",
                          "pivot_root"}));
}

TEST_CASE("standard descriptors are moved out of each other's way") {
    container_spec spec = good_spec();
    spec.process.stdio = {1, 0, 2};
    const encoded_plan made = encode(spec, inputs());
    REQUIRE(made.descriptors.size() == 2);
    for (const unique_fd& fd : made.descriptors) CHECK(fd.get() > 2);
    const std::string text = to_string(made.plan);
    CHECK(contains(text, "dup3(" + std::to_string(made.descriptors[0].get()) + ")"));
    CHECK(contains(text, "dup3(" + std::to_string(made.descriptors[1].get()) + ", 1"));
    CHECK_FALSE(contains(text, ", 2, 0)  # a standard"));
    CHECK_FALSE(contains(plan_text(unchanged), "dup3"));
    spec.process.stdio = {0, 1, 1000000};
    CHECK_THROWS_AS(encode(spec, inputs()), error);
}

TEST_CASE("a plan that cannot be made fails before there is a child and holds nothing") {
    const auto before = holdings::now();
    container_spec spec = good_spec();
    spec.mounts = {bind_mount{.source = "/etc", .target = "/a"},
                   bind_mount{.source = "/nowhere", .target = "/b"}};
    try {
        encode(spec, inputs());
        FAIL("nothing was thrown");
    } catch (const error& failure) {
        CHECK(failure.errno_value() == ENOENT);
        CHECK(failure.object() == "/nowhere");
    }
    spec.mounts = {};
    for (int i = 0; i < 60; ++i)
        spec.mounts.push_back(
            overlay_mount{.target = "/t" + std::to_string(i), .lowers = {empty_root().path()}});
    CHECK_NOTHROW(encode(spec, inputs()));  // each slot is used again
    KUMIKI_CHECK_NOTHING_LEFT(before);
}

TEST_CASE("making a plan leaves nothing outside of it, and nothing once it is gone") {
    const auto before = holdings::now();
    {
        container_spec spec = good_spec();
        spec.rootfs = rootfs::directory(empty_root().path());
        spec.mounts = {bind_mount{.source = "/etc", .target = "/a"}};
        const encoded_plan made = encode(spec, inputs());
        CHECK(made.held.size() == 2);
        CHECK(holdings::now().mounts == before.mounts);
    }
    KUMIKI_CHECK_NOTHING_LEFT(before);
}
