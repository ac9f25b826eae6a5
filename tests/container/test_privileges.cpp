// What the kernel shows of the privileges of a container's processes, asked from inside: for the first
// process, and for one that enters.
#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/prctl.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <kumiki/container/container.hpp>
#include <kumiki/security/process_status.hpp>
#include <kumiki/sys/own_thread.hpp>

#include "container/support.hpp"
#include "security/child.hpp"
#include "support/busybox.hpp"
#include "support/catch.hpp"
#include "support/leaks.hpp"

using namespace kumiki;
using kumiki_test::busybox;
using kumiki_test::busybox_root;
using kumiki_test::contains;
using kumiki_test::holdings;
using kumiki_test::mapped_ids;
using kumiki_test::pipe_pair;
using kumiki_test::run_shell;
using kumiki_test::shell;
using kumiki_test::temporary_directory;
using kumiki_test::write_text;
using right = landlock_access;
namespace fs = std::filesystem;

namespace {

/// What the script of `spec` writes up to a line "end", and then `question` in the same container.
task<std::pair<std::string, std::string>> ask_twice(scheduler& io, container_spec spec,
                                                    exec_spec question) {
    pipe_pair first;
    pipe_pair second;
    const unique_fd null = sys::open_at(AT_FDCWD, "/dev/null", O_RDONLY);
    spec.process.stdio = {null.get(), first.out.get(), first.out.get()};
    question.stdio = {null.get(), second.out.get(), second.out.get()};
    auto box = co_await container::start(io, std::move(spec));
    first.out.reset();
    std::pair<std::string, std::string> seen;
    std::byte buffer[4096];
    while (!seen.first.ends_with("end\n")) {
        auto size = co_await io.read(first.in.get(), buffer);
        if (size == 0) break;
        seen.first.append(reinterpret_cast<const char*>(buffer), size);
    }
    auto process = co_await box.exec(std::move(question));
    second.out.reset();
    for (;;) {
        auto size = co_await io.read(second.in.get(), buffer);
        if (size == 0) break;
        seen.second.append(reinterpret_cast<const char*>(buffer), size);
    }
    co_await process.wait();
    co_return seen;
}

/// `script` as the first process of a container and as one that enters it.
std::pair<std::string, std::string> start_and_exec(container_spec spec, const std::string& script,
                                                   exec_spec question = {}) {
    spec.process.args = {"sh", "-c", "(" + script + ") 2>&1; echo end; exec sleep 30"};
    question.args = {"sh", "-c", "(" + script + ") 2>&1; echo end"};
    scheduler io;
    return io.run(ask_twice(io, std::move(spec), std::move(question)));
}

/// The error of a start; its what() is empty when there is none.
template <class Failure = error>
std::optional<Failure> refusal(container_spec spec) {
    try {
        run_shell(std::move(spec));
    } catch (const Failure& failure) {
        return failure;
    }
    return std::nullopt;
}

constexpr auto chown_bind = capability_set{capability::chown, capability::net_bind_service};
constexpr auto only_bind = capability_set(capability::net_bind_service);

/// A description of a process, and what the kernel must show of it.
struct configuration {
    const char* name;
    void (*describe)(container_spec&);
    process_capabilities sets;
    bool no_new_privs = true;
    unsigned filters = 1;
    std::uint32_t user = 0;
    std::vector<std::uint32_t> groups{};
};

const configuration configurations[] = {
    {"root, all by default", [](container_spec&) {}, root_capabilities(default_capabilities)},
    {"root without a capability", [](container_spec& s) { s.process.capabilities = {}; }, {}},
    {"root with two", [](container_spec& s) { s.process.capabilities = chown_bind; },
     root_capabilities(chown_bind)},
    {"root that may mount",
     [](container_spec& s) {
         s.process.capabilities = default_capabilities | capability::sys_admin;
     },
     root_capabilities(default_capabilities | capability::sys_admin)},
    {"a user",
     [](container_spec& s) { s.process.user = {1000, 1001}; },
     {.bounding = default_capabilities},
     true,
     1,
     1000},
    {"a user with groups, without a bounding set",
     [](container_spec& s) {
         s.process.user = {1000, 1001, {5, 7}};
         s.process.capabilities = {};
     },
     {},
     true,
     1,
     1000,
     {5, 7}},
    {"a user with an ambient capability",
     [](container_spec& s) {
         s.process.user = {1000, 1001, {group_id(9)}};
         s.process.ambient = only_bind;
     },
     {default_capabilities, only_bind, only_bind, only_bind, only_bind},
     true,
     1,
     1000,
     {9}},
    {"a user with all of them ambient",
     [](container_spec& s) {
         s.process.user = {1000, 1001};
         s.process.ambient = default_capabilities;
     },
     {default_capabilities, default_capabilities, default_capabilities, default_capabilities,
      default_capabilities},
     true,
     1,
     1000},
    {"root with an ambient capability",
     [](container_spec& s) { s.process.ambient = only_bind; },
     {default_capabilities, default_capabilities, default_capabilities, only_bind, only_bind}},
    {"a user with an inheritable capability",
     [](container_spec& s) {
         s.process.user = {1000, 1001};
         s.process.inheritable = capability::chown;
     },
     {.bounding = default_capabilities, .inheritable = capability::chown},
     true,
     1,
     1000},
    {"a user with an inheritable and an ambient one",
     [](container_spec& s) {
         s.process.user = {1000, 1001};
         s.process.inheritable = capability::chown;
         s.process.ambient = only_bind;
     },
     {default_capabilities, only_bind, only_bind, chown_bind, only_bind},
     true,
     1,
     1000},
    {"root that set-user-id programs may help",
     [](container_spec& s) { s.process.no_new_privs = false; },
     root_capabilities(default_capabilities), false},
    {"a user whom set-user-id programs may help",
     [](container_spec& s) {
         s.process.no_new_privs = false;
         s.process.user = {1000, 1001, {group_id(5)}};
     },
     {.bounding = default_capabilities},
     false,
     1,
     1000,
     {5}},
    {"such a user with an ambient capability",
     [](container_spec& s) {
         s.process.no_new_privs = false;
         s.process.user = {1000, 1001};
         s.process.ambient = only_bind;
     },
     {default_capabilities, only_bind, only_bind, only_bind, only_bind},
     false,
     1,
     1000},
    {"root without a filter",
     [](container_spec& s) { s.process.filter = std::shared_ptr<const seccomp_program>(); },
     root_capabilities(default_capabilities), true, 0},
    {"a user without a filter whom set-user-id programs may help",
     [](container_spec& s) {
         s.process.filter = std::shared_ptr<const seccomp_program>();
         s.process.no_new_privs = false;
         s.process.user = {1000, 1001};
         s.process.ambient = only_bind;
     },
     {default_capabilities, only_bind, only_bind, only_bind, only_bind},
     false,
     0,
     1000},
    {"a user by name with an ambient capability",
     [](container_spec& s) {
         s.process.named_user = parse_user("web");
         s.process.ambient = only_bind;
     },
     {default_capabilities, only_bind, only_bind, only_bind, only_bind},
     true,
     1,
     1000},
    {"a user by name whom set-user-id programs may help",
     [](container_spec& s) {
         s.process.named_user = parse_user("web");
         s.process.no_new_privs = false;
     },
     {.bounding = default_capabilities},
     false,
     1,
     1000},
    {"root by name whom set-user-id programs may help",
     [](container_spec& s) {
         s.process.named_user = parse_user("root");
         s.process.no_new_privs = false;
         s.process.ambient = only_bind;
     },
     {default_capabilities, default_capabilities, default_capabilities, only_bind, only_bind},
     false},
    {"a user of a user namespace with an ambient capability",
     [](container_spec& s) {
         s.user_namespace = mapped_ids();
         s.process.user = {1000, 1001, {group_id(5)}};
         s.process.ambient = only_bind;
     },
     {default_capabilities, only_bind, only_bind, only_bind, only_bind},
     true,
     1,
     1000,
     {5}},
    {"a user of a user namespace whom set-user-id programs may help",
     [](container_spec& s) {
         s.user_namespace = mapped_ids();
         s.process.no_new_privs = false;
         s.process.user = {1000, 1001};
     },
     {.bounding = default_capabilities},
     false,
     1,
     1000},
};

}  // namespace

TEST_CASE("a start and an exec give exactly the privileges that are described") {
    const auto own = read_process_status(::getpid());
    REQUIRE(own);
    if (!own->capabilities.permitted.contains(default_capabilities | capability::sys_admin))
        KUMIKI_SKIP("needs root");
    const clone_mode mode = GENERATE(clone_mode::shared_memory, clone_mode::own_memory);
    for (const configuration& each : configurations) {
        auto spec = shell("");
        each.describe(spec);
        spec.clone = mode;
        const auto seen = start_and_exec(std::move(spec), "cat /proc/self/status");
        for (const std::string& text : {seen.first, seen.second}) {
            INFO((&text == &seen.first ? "start: " : "exec: ") << each.name << "\n" << text);
            REQUIRE(text.ends_with("end\n"));
            const auto status = parse_process_status(text.substr(0, text.rfind("end\n")));
            CHECK(status.capabilities.bounding == each.sets.bounding);
            CHECK(status.capabilities.permitted == each.sets.permitted);
            CHECK(status.capabilities.effective == each.sets.effective);
            CHECK(status.capabilities.inheritable == each.sets.inheritable);
            CHECK(status.capabilities.ambient == each.sets.ambient);
            CHECK(status.no_new_privileges == each.no_new_privs);
            const auto filters = own->seccomp_filters.value_or(0) + each.filters;
            CHECK(status.seccomp_filters.value_or(filters) == filters);
            CHECK((status.seccomp == seccomp_mode::filter) == (filters != 0));
            CHECK(status.groups == each.groups);
            CHECK(status.uid == id_quadruple{each.user, each.user, each.user, each.user});
        }
    }
}

TEST_CASE("a supervisor's own inheritable and ambient capabilities do not reach a container") {
    if (::geteuid() != 0) KUMIKI_SKIP("needs root");
    const int code = kumiki_test::exit_code_of([] {
        capset_payload mine;
        if (::syscall(SYS_capget, &mine.head, mine.data.data()) != 0) ::_exit(2);
        for (auto& half : mine.data) half.inheritable = half.permitted;
        if (::syscall(SYS_capset, &mine.head, mine.data.data()) != 0) ::_exit(3);
        for (const unsigned long number : {0UL, 10UL})
            if (::prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, number, 0, 0) != 0) ::_exit(4);
        try {
            for (const std::uint32_t user : {0U, 1000U}) {
                auto spec = shell("cat /proc/self/status");
                spec.process.user = {user, user};
                const auto status = parse_process_status(run_shell(std::move(spec)).output);
                if (!status.capabilities.inheritable.empty()) ::_exit(5);
                if (!status.capabilities.ambient.empty()) ::_exit(6);
            }
        } catch (const std::exception&) {
            ::_exit(7);
        }
        ::_exit(42);
    });
    CHECK(code == 42);
}

TEST_CASE("an ambient capability is one that a user can use, across every execve") {
    auto spec = shell("");
    spec.mounts = {tmpfs_mount{.target = "/t"}};
    spec.process.user = {1000, 1000};
    const std::string script =
        "f=/t/$$; touch $f; sh -c \"busybox chown 0 $f\" 2>/dev/null; stat -c %u $f";
    const auto without = start_and_exec(spec, script);
    CHECK(without.first == "1000\nend\n");
    CHECK(without.second == "1000\nend\n");
    spec.process.ambient = capability::chown;
    const auto with = start_and_exec(spec, script);
    CHECK(with.first == "0\nend\n");
    CHECK(with.second == "0\nend\n");
    // One that enters may ask for none of them.
    const auto less = start_and_exec(spec, script, {.ambient = capability_set{}});
    CHECK(less.second == "1000\nend\n");
    const auto narrow = start_and_exec(spec, script, {.capabilities = only_bind});
    CHECK(narrow.second == "1000\nend\n");
}

TEST_CASE("what is ambient or inheritable must be among the capabilities") {
    const auto refused = [](auto change) {
        auto spec = shell("true");
        change(spec.process);
        const auto failure = refusal<invalid_input>(std::move(spec));
        return failure ? std::string(failure->what()) : std::string();
    };
    CHECK(contains(refused([](process_spec& p) { p.ambient = capability::sys_admin; }),
                   "'CAP_SYS_ADMIN'"));
    CHECK(contains(refused([](process_spec& p) { p.inheritable = capability::net_admin; }),
                   "'CAP_NET_ADMIN'"));
    CHECK(contains(refused([](process_spec& p) {
                       p.capabilities = only_bind;
                       p.ambient = chown_bind;
                   }),
                   "'CAP_CHOWN'"));
    const process_spec of{.args = {"true"}, .capabilities = only_bind};
    CHECK_THROWS_AS((exec_spec{.args = {"true"}, .ambient = chown_bind}.complete(of)),
                    invalid_input);
}

namespace {

/// Rules under which the busybox root's shell works and sees /www.
landlock_rules usable_rules() {
    return {.paths = {{"/bin", right::read | right::execute},
                      {"/www"},
                      {"/proc"},
                      {"/dev/null", right::read | right::write_file}},
            .support = landlock_support::best_effort};
}

constexpr const char* walk_about =
    "cat /www/file; ls /www; cat /etc/passwd; ls /; echo x >/www/new; "
    "cat /www/../etc/passwd; : >/dev/null && echo null; busybox rm /www/file; cd /etc; pwd";

constexpr const char* walked =
    "inside\nfile\n"
    "cat: can't open '/etc/passwd': Permission denied\n"
    "ls: can't open '/': Permission denied\n"
    "sh: can't create /www/new: Permission denied\n"
    "cat: can't open '/www/../etc/passwd': Permission denied\n"
    "null\n"
    "rm: can't remove '/www/file': Permission denied\n"
    "/etc\nend\n";

container_spec landlocked(landlock_rules rules) {
    write_text(busybox().path() + "/www/file", "inside\n");
    auto spec = shell("true");
    spec.process.landlock = std::move(rules);
    return spec;
}

}  // namespace

TEST_CASE("Landlock's rules hold for a start and for an exec, as root, a user and without NNP") {
    if (landlock_abi() < 1) KUMIKI_SKIP("this kernel has no Landlock");
    const bool root = GENERATE(true, false);
    const bool no_new_privs = GENERATE(true, false);
    const bool own_user = GENERATE(false, true);
    CAPTURE(root, no_new_privs, own_user);
    auto spec = landlocked(usable_rules());
    spec.process.no_new_privs = no_new_privs;
    if (!root) spec.process.user = {1000, 1000};
    if (own_user) spec.user_namespace = mapped_ids();
    const auto seen = start_and_exec(std::move(spec), walk_about);
    CHECK(seen.first == walked);
    CHECK(seen.second == walked);
}

TEST_CASE("without rules the same walk meets no refusal: it is Landlock that refuses") {
    write_text(busybox().path() + "/www/file", "inside\n");
    const auto seen = start_and_exec(shell(""), walk_about);
    CHECK_FALSE(contains(seen.first, "denied"));
    CHECK_FALSE(contains(seen.second, "denied"));
}

TEST_CASE("a root that is restricted by Landlock mounts nothing, whatever its capabilities") {
    if (landlock_abi() < 1) KUMIKI_SKIP("this kernel has no Landlock");
    const std::string script = "mount -t tmpfs x /tmp && echo mounted";
    const auto seen = [&](bool restricted) {
        auto spec = landlocked(usable_rules());
        if (!restricted) spec.process.landlock.reset();
        spec.process.capabilities |= capability::sys_admin;
        spec.process.filter = std::shared_ptr<const seccomp_program>();
        return start_and_exec(std::move(spec), script);
    };
    CHECK(contains(seen(false).first, "mounted"));
    const auto refused = seen(true);
    CHECK_FALSE(contains(refused.first, "mounted"));
    CHECK_FALSE(contains(refused.second, "mounted"));
}

TEST_CASE("TCP ports that no rule allows cannot be bound, by a start nor by an exec") {
    if (landlock_abi() < 4) KUMIKI_SKIP("this kernel's Landlock knows no ports");
    const std::string script =
        "for p in 8080 8081; do nc -l -p $p </dev/null & sleep 0.3; "
        "grep -q \"$(printf :%04X $p) .* 0A \" /proc/net/tcp* && echo listening on $p; "
        "kill $!; done 2>/dev/null";
    auto spec = landlocked({.handled = right::none,
                            .handled_network = landlock_network::bind_tcp,
                            .ports = {{8081, landlock_network::bind_tcp}}});
    const auto seen = start_and_exec(spec, script);
    CHECK(seen.first == "listening on 8081\nend\n");
    CHECK(seen.second == "listening on 8081\nend\n");
    spec.process.landlock.reset();
    CHECK(start_and_exec(spec, script).first == "listening on 8080\nlistening on 8081\nend\n");
}

TEST_CASE("with a scope for signals one that enters cannot kill the first process") {
    if (landlock_abi() < 6) KUMIKI_SKIP("this kernel's Landlock has no scopes");
    const std::string script = "kill -0 1 && echo reached; kill -0 $$ && echo itself";
    auto spec = landlocked({.handled = right::none, .scopes = landlock_scope::signal});
    const auto seen = start_and_exec(spec, script);
    CHECK(contains(seen.first, "reached\n"));
    CHECK_FALSE(contains(seen.second, "reached\n"));
    CHECK(contains(seen.second, "itself\n"));
    spec.process.landlock.reset();
    CHECK(contains(start_and_exec(spec, script).second, "reached\n"));
}

TEST_CASE(
    "paths of rules are the container's: mounts, links of the image, and nothing of the host") {
    if (landlock_abi() < 1) KUMIKI_SKIP("this kernel has no Landlock");
    const busybox_root root;
    const temporary_directory outside;
    write_text(outside.path() + "/file", "mounted\n");
    write_text(root.path() + "/etc/file", "linked\n");
    write_text(root.path() + "/tmp/x", "not allowed\n");
    fs::create_directory(root.path() + "/srv");
    fs::create_symlink("/etc", root.path() + "/link");
    fs::create_symlink("../../../../../..", root.path() + "/www/up");
    auto spec = kumiki_test::shell_spec(root, "cat /srv/file /etc/file; cat /tmp/x");
    spec.mounts = {bind_mount{.source = outside.path(), .target = "/srv"}};
    auto rules = usable_rules();
    rules.paths.push_back({"/srv"});
    rules.paths.push_back({"/link"});
    spec.process.landlock = rules;
    const auto seen = run_shell(spec).output;
    CHECK(contains(seen, "mounted\nlinked\n"));
    CHECK(contains(seen, "Permission denied"));
    // A link that climbs ends at the container's root.
    spec.process.landlock->paths = {{"/www/up", right::read | right::execute}};
    CHECK(contains(run_shell(spec).output, "mounted\nlinked\n"));
    // Magic links, which lead anywhere, are not followed.
    spec.process.landlock->paths.push_back({"/proc/1/root"});
    const auto magic = refusal<start_error>(spec);
    REQUIRE(magic);
    CHECK(magic->errno_value() == ELOOP);
    CHECK(magic->object() == "/proc/1/root");
}

TEST_CASE("rules that cannot be made are one clear error each, and leave nothing") {
    if (landlock_abi() < 1) KUMIKI_SKIP("this kernel has no Landlock");
    run_shell(shell("true"));
    const auto before = holdings::now();
    const auto failed = [](landlock_path path) {
        auto rules = usable_rules();
        rules.paths.push_back(std::move(path));
        const auto failure = refusal<start_error>(landlocked(std::move(rules)));
        REQUIRE(failure);
        INFO(failure->what());
        CHECK(failure->step() == "landlock");
        return *failure;
    };
    const auto missing = failed({"/nowhere/at/all"});
    CHECK(missing.errno_value() == ENOENT);
    CHECK(missing.object() == "/nowhere/at/all");
    CHECK(contains(missing.what(), "does not exist in the root filesystem"));
    CHECK(failed({"/etc/passwd/x"}).errno_value() == ENOTDIR);
    const auto file = failed({"/etc/passwd", right::read_dir});
    CHECK(file.errno_value() == EINVAL);
    CHECK(contains(file.what(), "only directories have these rights"));
    CHECK(refusal<invalid_input>(landlocked({.handled = static_cast<right>(1ULL << 40)})));
    CHECK(refusal<invalid_input>(landlocked({.paths = {{"etc"}}})));
    KUMIKI_CHECK_NOTHING_LEFT(before);
}

TEST_CASE("a command that the rules do not allow to execute is named with its reason") {
    if (landlock_abi() < 1) KUMIKI_SKIP("this kernel has no Landlock");
    const auto failure = refusal<start_error>(
        landlocked({.paths = {{"/bin"}}, .support = landlock_support::best_effort}));
    REQUIRE(failure);
    CHECK(failure->errno_value() == EACCES);
    CHECK(failure->exit_status() == 126);
    CHECK(contains(failure->what(), "Landlock"));
}

TEST_CASE("on a kernel without Landlock rules are refused, or left out with best effort") {
    const auto without_landlock = [](landlock_support support) {
        return kumiki_test::exit_code_of([&] {
            ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
            install_seccomp(seccomp_filter(seccomp_action::allow())
                                .on("landlock_create_ruleset", seccomp_action::fail(ENOSYS))
                                .compile());
            process_spec spec{.args = {"true"}};
            spec.landlock = landlock_rules{.support = support};
            try {
                spec.validate();
            } catch (const unsupported& failure) {
                ::_exit(contains(failure.what(), "no Landlock") ? 42 : 2);
            }
            plan made;
            detail::privileges_encoder(made, spec).make_landlock();
            ::_exit(made.size() == 0 ? 43 : 3);
        });
    };
    CHECK(without_landlock(landlock_support::required) == 42);
    CHECK(without_landlock(landlock_support::best_effort) == 43);
}

TEST_CASE("a start with rules and ambient capabilities that fails at any step leaves nothing") {
    if (landlock_abi() < 4) KUMIKI_SKIP("this kernel's Landlock knows no ports");
    auto spec = landlocked(usable_rules());
    spec.process.landlock->handled_network = landlock_network::bind_tcp;
    spec.process.landlock->ports = {{80, landlock_network::bind_tcp}};
    spec.process.user = {1000, 1000};
    spec.process.ambient = only_bind;
    spec.process.no_new_privs = GENERATE(true, false);
    run_shell(spec);
    scheduler io;
    const auto before = holdings::now();
    std::size_t steps = 1;
    std::vector<std::string> phases;
    for (std::size_t at = 0; at < steps; ++at) {
        CAPTURE(at);
        try {
            io.run(kumiki_test::start_with_broken_step(io, spec, at, steps));
            FAIL("the start succeeded");
        } catch (const start_error& failure) {
            CHECK(failure.errno_value() == ENOSYS);
            phases.push_back(failure.step());
        }
    }
    CHECK(std::count(phases.begin(), phases.end(), "landlock") == 6);
    KUMIKI_CHECK_NOTHING_LEFT(before);
}

namespace {

/// Carries out the steps of a label below `proc`, in a child; yields the errno of the one that fails.
int label_below(int proc, label_kind kind, const std::string& label) {
    process_spec spec{.args = {"true"}};
    (kind == label_kind::apparmor ? spec.apparmor_profile : spec.selinux_label) = label;
    plan made;
    detail::privileges_encoder(made, spec).labels(made.keep(proc));
    made.call("exit", SYS_exit_group, {0});
    detail::spawn_job job;
    job.shared_memory = GENERATE(false, true);
    job.program = made.finish();
    detail::spawner::shared().submit(job);
    detail::spawner::shared().wait(job);
    REQUIRE(job.error == 0);
    const unique_fd pidfd(job.pidfd);
    const int status = sys::wait_blocking(pidfd.get()).shell_status();
    CHECK(status == (made.report().error == 0 ? 0 : child_failed_status));
    return made.report().error;
}

/// A directory that looks like /proc to somebody who writes a label.
class false_proc : public temporary_directory {
  public:
    false_proc() {
        fs::create_directories(attributes() + "/apparmor");
        fs::create_directory_symlink("7", path() + "/thread-self");
        for (const char* file : {"/exec", "/apparmor/exec"}) write_text(attributes() + file, "");
        directory_ = sys::open_at(AT_FDCWD, path(), O_PATH | O_DIRECTORY);
    }
    std::string attributes() const { return path() + "/7/attr"; }
    int descriptor() const { return directory_.get(); }

  private:
    unique_fd directory_;
};

}  // namespace

TEST_CASE("a label is read back: a file that only keeps what is written is noticed") {
    const false_proc proc;
    // AppArmor's kernel side shows the profile and not the command that was written.
    CHECK(label_below(proc.descriptor(), label_kind::apparmor, "web") == EBADMSG);
    CHECK(label_below(proc.descriptor(), label_kind::selinux, "a:b:c:s0") == 0);
    std::string text;
    std::ifstream(proc.attributes() + "/exec") >> text;
    CHECK(text == "a:b:c:s0");
}

TEST_CASE("a label's file is found in the procfs that it is asked of, and nowhere else") {
    const auto kind = label_kind::selinux;
    const temporary_directory outside;
    write_text(outside.path() + "/exec", "");
    for (const std::string& target :
         {outside.path() + "/exec", "../../../.." + outside.path() + "/exec"}) {
        const false_proc proc;
        fs::remove(proc.attributes() + "/exec");
        fs::create_symlink(target, proc.attributes() + "/exec");
        CAPTURE(target);
        CHECK(label_below(proc.descriptor(), kind, "a:b:c") == EXDEV);
    }
    CHECK(fs::file_size(outside.path() + "/exec") == 0);
    {
        const false_proc proc;
        fs::remove(proc.attributes() + "/exec");
        CHECK(label_below(proc.descriptor(), kind, "a:b:c") == ENOENT);
    }
}

TEST_CASE("another mount on the way to a label's file is not crossed") {
    const false_proc proc;
    int crossed = -1;
    sys::on_own_thread([&] {
        if (::unshare(CLONE_NEWNS) != 0) return;
        if (::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0) return;
        if (::mount("none", proc.attributes().c_str(), "tmpfs", 0, nullptr) != 0) return;
        write_text(proc.attributes() + "/exec", "");
        const unique_fd here = sys::open_at(AT_FDCWD, proc.path(), O_PATH | O_DIRECTORY);
        crossed = label_below(here.get(), label_kind::selinux, "a:b:c:s0");
    });
    if (crossed < 0) KUMIKI_SKIP("cannot mount here");
    CHECK(crossed == EXDEV);
}

TEST_CASE("a label that this kernel would not heed is refused before there is a child") {
    const label_kind kind = GENERATE(label_kind::apparmor, label_kind::selinux);
    if (has_labels(kind)) KUMIKI_SKIP(std::string(to_string(kind)) + " is active here");
    run_shell(shell("true"));
    const auto before = holdings::now();
    auto spec = shell("true");
    (kind == label_kind::apparmor ? spec.process.apparmor_profile : spec.process.selinux_label) =
        "some:label:here:s0";
    const auto failure = refusal<unsupported>(spec);
    REQUIRE(failure);
    CHECK(contains(failure->what(), "is not active in this kernel"));
    CHECK(contains(failure->what(), to_string(kind)));
    KUMIKI_CHECK_NOTHING_LEFT(before);
    // And a kernel that says it would, and then does not take it, ends the child before its execve.
    const unique_fd proc = sys::open_at(AT_FDCWD, "/proc", O_PATH | O_DIRECTORY);
    CHECK(label_below(proc.get(), kind, "some:label:here:s0") != 0);
}

namespace {

/// A profile that denies one file, loaded as long as this lives.
class loaded_profile {
  public:
    loaded_profile() : loaded_(parser("-Kr")) {}
    loaded_profile(const loaded_profile&) = delete;
    loaded_profile& operator=(const loaded_profile&) = delete;
    ~loaded_profile() {
        if (loaded_) parser("-R");
    }
    bool is_loaded() const { return loaded_; }
    const std::string& name() const { return name_; }

  private:
    bool parser(const char* option) const {
        const std::string text = "profile " + name_ +
                                 " flags=(attach_disconnected,mediate_deleted) { file, capability, "
                                 "signal, network, deny /etc/group r, }";
        return std::system(("echo '" + text + "' | PATH=$PATH:/sbin:/usr/sbin apparmor_parser " +
                            option + " >/dev/null 2>&1")
                               .c_str()) == 0;
    }

    std::string name_ = "kumiki-test-" + std::to_string(::getpid());
    bool loaded_;
};

}  // namespace

TEST_CASE("an AppArmor profile that is not loaded is an error, and unconfined is one", "[vm]") {
    if (!has_labels(label_kind::apparmor)) KUMIKI_SKIP("AppArmor is not active in this kernel");
    auto spec = shell("true");
    spec.process.apparmor_profile = "unconfined";
    const auto seen = start_and_exec(spec, "cat /proc/self/attr/current");
    CHECK(seen.first == "unconfined\nend\n");
    CHECK(seen.second == "unconfined\nend\n");
    spec.process.apparmor_profile = "no-such-profile-of-kumiki";
    const auto failure = refusal<start_error>(spec);
    REQUIRE(failure);
    CHECK(failure->errno_value() == ENOENT);
    CHECK(contains(failure->what(), "No profile of this name is loaded"));
}

TEST_CASE("an AppArmor profile confines a start and an exec", "[vm]") {
    if (!has_labels(label_kind::apparmor)) KUMIKI_SKIP("AppArmor is not active in this kernel");
    const loaded_profile profile;
    if (!profile.is_loaded()) KUMIKI_SKIP("apparmor_parser is not here, or may not load a profile");
    const bool no_new_privs = GENERATE(true, false);
    const bool own_user = GENERATE(false, true);
    CAPTURE(no_new_privs, own_user);
    auto spec = shell("true");
    spec.process.no_new_privs = no_new_privs;
    if (own_user) spec.user_namespace = mapped_ids();
    spec.process.apparmor_profile = profile.name();
    const auto seen = start_and_exec(spec, "cat /proc/self/attr/current /etc/group");
    const std::string expected =
        profile.name() + " (enforce)\ncat: can't open '/etc/group': Permission denied\nend\n";
    CHECK(seen.first == expected);
    CHECK(seen.second == expected);
}

TEST_CASE("an SELinux context is that of a start and of an exec, and an unknown one an error",
          "[vm]") {
    if (!has_labels(label_kind::selinux)) KUMIKI_SKIP("SELinux is not active in this kernel");
    std::string own = sys::read_file_at(AT_FDCWD, "/proc/thread-self/attr/current");
    while (own.ends_with('\0') || own.ends_with('\n')) own.pop_back();
    auto spec = shell("true");
    spec.process.selinux_label = own;
    const auto seen = start_and_exec(spec, "cat /proc/self/attr/current | tr -d '\\0'; echo");
    CHECK(seen.first == own + "\nend\n");
    CHECK(seen.second == own + "\nend\n");
    spec.process.selinux_label = "no:such:context";
    const auto failure = refusal<start_error>(spec);
    REQUIRE(failure);
    // Before a policy is loaded the kernel takes any text, for another label: the reading back finds it.
    const bool has_policy = own != "kernel";
    CHECK(failure->errno_value() == (has_policy ? EINVAL : EBADMSG));
    CHECK(contains(failure->what(), has_policy ? "knows no such context" : "another label"));
}
