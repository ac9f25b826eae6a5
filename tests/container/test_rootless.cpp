#include <grp.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/wait.h>

#include <filesystem>
#include <functional>

#include <kumiki/cgroup/delegate.hpp>
#include <kumiki/container/container.hpp>
#include <kumiki/container/rootless.hpp>

#include "container/support.hpp"
#include "support/catch.hpp"

using namespace kumiki;
using namespace kumiki_test;

namespace {

constexpr uid_t user = 12345;

/// What `function` says in a process of its own, after `first` has been called there as root.
std::string in_a_process(const std::function<void()>& first,
                         const std::function<std::string()>& function) {
    pipe_pair pipe;
    const pid_t child = ::fork();
    REQUIRE(child >= 0);
    if (child == 0) {
        ::alarm(60);
        std::string said;
        try {
            first();
            said = function();
        } catch (const std::exception& failure) {
            said = std::string("thrown: ") + failure.what();
        }
        const auto written = ::write(pipe.out.get(), said.data(), said.size());
        ::_exit(written == static_cast<ssize_t>(said.size()) ? 0 : 1);
    }
    pipe.out.reset();
    const std::string said = sys::read_all(pipe.in.get(), "what the user said");
    int status = 0;
    REQUIRE(::waitpid(child, &status, 0) == child);
    CHECK(status == 0);
    return said;
}

void become_user() {
    sys::check(::setgroups(0, nullptr), "setgroups");
    sys::check(::setresgid(user, user, user), "setresgid");
    sys::check(::setresuid(user, user, user), "setresuid");
    sys::check(::prctl(PR_SET_DUMPABLE, 1), "prctl");  // as after an execve
}

std::string as_user(const std::function<std::string()>& function) {
    return in_a_process(become_user, function);
}

std::string output_of(container_spec spec) {
    const auto seen = run_shell(std::move(spec));
    return seen.output + "exit " + std::to_string(seen.result.exit_code());
}

bool says(const std::string& text, const char* part) {
    return text.find(part) != std::string::npos;
}

bool is_root() { return ::geteuid() == 0; }
constexpr const char* takes_root = "becoming an ordinary user takes root";

/// A busybox root that is the user's.
struct users_root : busybox_root {
    users_root() {
        for (const auto& entry : std::filesystem::recursive_directory_iterator(path()))
            sys::check(::lchown(entry.path().c_str(), user, user), "chown");
        sys::check(::lchown(path().c_str(), user, user), "chown");
    }
};

}  // namespace

TEST_CASE("an ordinary user starts an isolated container") {
    if (!is_root()) KUMIKI_SKIP(takes_root);
    const busybox_root root;  // root's: what it lacks cannot be made, and is not needed
    const auto before = holdings::now();
    auto spec = shell_spec(root,
                           "id -u; echo $$; hostname; tr -s ' ' </proc/self/uid_map; "
                           "ls -d /proc/[0-9]* | wc -l; ls /sys/class/net; "
                           "ip link show lo | grep -o LOOPBACK,UP; touch /dev/shm/x && echo wrote; "
                           "echo x > /dev/null && echo null; head -c 3 /dev/zero | wc -c; "
                           "grep NoNewPrivs /proc/self/status; tr -s ' ' </proc/self/gid_map");
    spec.hostname = "mine";
    CHECK(as_user([&] { return output_of(spec); }) ==
          "0\n1\nmine\n 0 12345 1\n3\nlo\nLOOPBACK,UP\nwrote\nnull\n3\nNoNewPrivs:\t1\n 0 12345 1\n"
          "exit 0");
    KUMIKI_CHECK_NOTHING_LEFT(before);
}

TEST_CASE("an ordinary user's container is in namespaces of its own, as seen from outside") {
    if (!is_root()) KUMIKI_SKIP(takes_root);
    const busybox_root root;
    auto spec = shell_spec(root, "sleep 30");
    CHECK(as_user([&] {
              scheduler io;
              std::string same;
              with_container(io, spec, [&](container& box) {
                  for (const auto& info : namespace_kinds) {
                      if (info.kind == namespace_kind::time) continue;
                      const auto inside = namespace_fd::of_pidfd(box.pidfd(), info.kind);
                      if (inside == namespace_fd::current(info.kind))
                          same += std::string(info.proc_name) + ' ';
                  }
              });
              return "same: " + same;
          }) == "same: ");
}

TEST_CASE(
    "an ordinary user's directory is a root filesystem, and what is made in it is the user's") {
    if (!is_root()) KUMIKI_SKIP(takes_root);
    const users_root root;
    auto spec = shell_spec(root, "echo made > /made; stat -c %u /made; cat /etc/hostname");
    spec.rootfs = rootfs::directory(root.path());
    spec.hostname = "mine";
    CHECK(as_user([&] { return output_of(spec); }) == "0\nmine\nexit 0");
    struct stat made{};
    REQUIRE(::stat((root.path() + "/made").c_str(), &made) == 0);
    CHECK(made.st_uid == user);
}

TEST_CASE("an ordinary user binds directories and files of the host") {
    if (!is_root()) KUMIKI_SKIP(takes_root);
    const users_root root;
    const users_root other;
    write_text(other.path() + "/file", "content\n");
    auto spec = shell_spec(root,
                           "cat /data/file /one; touch /data/new && echo wrote; "
                           "touch /frozen/new 2>/dev/null || echo refused");
    spec.mounts = {
        bind_mount{.source = other.path(), .target = "/data"},
        bind_mount{.source = other.path() + "/file", .target = "/one"},
        bind_mount{.source = other.path(), .target = "/frozen", .access = access_mode::read_only},
        tmpfs_mount{.target = "/scratch"}};
    // Its owner is no id that the container has: the test chowns it.
    sys::check(::chown((other.path() + "/file").c_str(), user, user), "chown");
    CHECK(as_user([&] { return output_of(spec); }) == "content\ncontent\nwrote\nrefused\nexit 0");

    SECTION("but none below /proc, which is gone by then") {
        spec.mounts = {bind_mount{.source = "/proc/self", .target = "/data"}};
        CHECK(says(as_user([&] { return output_of(spec); }), "ordinary user"));
    }
    SECTION("and one that is not there is an error that names it") {
        spec.mounts = {bind_mount{.source = other.path() + "/none", .target = "/data"}};
        CHECK(says(as_user([&] { return output_of(spec); }), "/none"));
    }
}

TEST_CASE("the host's network can be an ordinary user's container's, with the host's /sys") {
    if (!is_root()) KUMIKI_SKIP(takes_root);
    const busybox_root root;
    auto spec = shell_spec(root,
                           "readlink /proc/self/ns/net; ls /sys/class/net | grep -c lo; "
                           "ls /sys/fs/cgroup | wc -l; mkdir /sys/x 2>/dev/null || echo refused");
    spec.network = network_mode::host;
    char own[64] = {};
    REQUIRE(::readlink("/proc/self/ns/net", own, sizeof own - 1) > 0);
    CHECK(as_user([&] { return output_of(spec); }) == std::string(own) + "\n1\n0\nrefused\nexit 0");
}

TEST_CASE("an ordinary user enters its container") {
    if (!is_root()) KUMIKI_SKIP(takes_root);
    const busybox_root root;
    const auto before = holdings::now();
    const auto spec = shell_spec(root, "exec sleep 30");
    const std::string seen = as_user([&] {
        const auto held = holdings::now();
        scheduler io;
        auto told = io.run([](scheduler& loop, container_spec of) -> task<std::string> {
            auto box = co_await container::start(loop, std::move(of));
            pipe_pair pipe;
            exec_spec wanted{.args = {"sh", "-c",
                                      "for n in user mnt pid net uts ipc cgroup; do "
                                      "[ $(readlink /proc/self/ns/$n) = $(readlink /proc/1/ns/$n) "
                                      "] || echo $n differs; done; id -u; exit 7"}};
            wanted.stdio = {0, pipe.out.get(), pipe.out.get()};
            auto process = co_await box.exec(std::move(wanted));
            pipe.out.reset();
            std::byte buffer[256];
            const auto size = co_await loop.read(pipe.in.get(), buffer);
            auto status = co_await process.wait();
            std::string text(reinterpret_cast<const char*>(buffer), size);
            text += "exit " + std::to_string(status.code);
            exec_spec missing{.args = {"/bin/none"}};
            try {
                auto never = co_await box.exec(std::move(missing));
            } catch (const start_error& failure) {
                text += " then " + std::to_string(failure.exit_status());
            }
            co_return text;
        }(io, spec));
        const auto after = holdings::settled(held);
        if (after.children != held.children) told += ", children are left";
        return told;
    });
    CHECK(seen == "0\nexit 7 then 127");
    KUMIKI_CHECK_NOTHING_LEFT(before);
}

namespace {

/// What a shell in the container says.
task<std::string> answer_of(container& box, std::string script) {
    exec_spec wanted{.args = {"sh", "-c", std::move(script)}};
    wanted.stdio[1] = stdio::pipe();
    auto process = co_await box.exec(std::move(wanted));
    std::string text;
    for (;;) {
        std::byte buffer[256];
        const auto size = co_await process.out().read(buffer);
        if (size == 0) break;
        text.append(reinterpret_cast<const char*>(buffer), size);
    }
    co_await process.wait();
    co_return text;
}

/// Mounts each, asks, unmounts each, and asks again; an error is part of the answer.
task<std::string> mount_and_ask(scheduler& io, container_spec spec,
                                std::vector<mount_description> wanted, std::string script) {
    auto box = co_await container::start(io, std::move(spec));
    std::string said;
    std::vector<std::string> targets;
    for (mount_description& each : wanted) {
        targets.push_back(std::visit([](const auto& kind) { return kind.target; }, each));
        try {
            co_await box.mount(std::move(each));
        } catch (const error& failure) {
            said += std::string(failure.what()) + "\n";
            targets.pop_back();
        }
    }
    auto answer = co_await answer_of(box, script);
    said += answer;
    for (const std::string& target : targets) co_await box.unmount(target);
    answer = co_await answer_of(box, "grep -cE ' /(dev/)?live' /proc/1/mountinfo");
    said += answer;
    co_return said;
}

std::string mounting(const container_spec& spec, std::vector<mount_description> wanted,
                     const std::string& script) {
    return as_user([&] {
        scheduler io;
        return io.run(mount_and_ask(io, spec, wanted, script));
    });
}

}  // namespace

TEST_CASE("an ordinary user's running container takes mounts and gives them back") {
    if (!is_root()) KUMIKI_SKIP(takes_root);
    const users_root root;
    const users_root other;
    write_text(other.path() + "/file", "content\n");
    sys::check(::chown((other.path() + "/file").c_str(), user, user), "chown");
    const auto host_before = holdings::lines("/proc/self/mountinfo");
    const auto spec = shell_spec(root, "exec sleep 30");
    CHECK(mounting(
              spec,
              {bind_mount{.source = other.path(), .target = "/live/dir"},
               bind_mount{.source = other.path() + "/file", .target = "/live-file"},
               bind_mount{
                   .source = other.path(), .target = "/live-ro", .access = access_mode::read_only},
               tmpfs_mount{.target = "/live-tmp", .mode = 0700},
               file_mount{.target = "/live-made", .content = "made\n", .mode = 0640},
               device_mount{
                   .target = "/dev/live-null", .major = 1, .minor = 3, .source = "/dev/null"}},
              "cat /live/dir/file /live-file /live-made; stat -c %a /live-tmp /live-made; "
              "touch /live-ro/x 2>/dev/null || echo refused; echo lost > /dev/live-null && echo to "
              "null; grep -cE ' /(dev/)?live' /proc/1/mountinfo") ==
          "content\ncontent\nmade\n700\n640\nrefused\nto null\n6\n0\n");
    SECTION("a source that it cannot reach is refused, and one that is not there") {
        const users_root closed;
        sys::check(::chmod(closed.path().c_str(), 0700), "chmod");
        sys::check(::chown(closed.path().c_str(), 0, 0), "chown");
        const std::string seen = mounting(
            spec,
            {bind_mount{.source = closed.path() + "/bin", .target = "/live-1"},
             bind_mount{.source = "/none", .target = "/live-2"},
             device_mount{.target = "/dev/live-3", .major = 1, .minor = 5, .source = "/dev/null"}},
            "true");
        CHECK(says(seen, "EACCES"));
        CHECK(says(seen, "/none"));
        CHECK(says(seen, "1:5"));
        CHECK(seen.ends_with("\n0\n"));
    }
    CHECK(holdings::lines("/proc/self/mountinfo") == host_before);
}

TEST_CASE("an exec of an ordinary user that fails at any step leaves no process") {
    if (!is_root()) KUMIKI_SKIP(takes_root);
    const busybox_root root;
    const auto spec = shell_spec(root, "exec sleep 30");
    CHECK(as_user([&] {
              scheduler io;
              return io.run([](scheduler& loop, container_spec of) -> task<std::string> {
                  auto parts = co_await detail::launch(loop, std::move(of));
                  struct spoiled {
                      std::size_t at = 0;
                      std::size_t count = 1;
                  } which;
                  const auto break_it = [](child_program& program, void* context) {
                      auto& broken = *static_cast<spoiled*>(context);
                      broken.count = program.count;
                      const_cast<step*>(program.steps)[broken.at] = step{
                          .kind = step_kind::call, .in = program.steps[broken.at].in, .number = -1};
                  };
                  std::string text;
                  const auto before = holdings::now();
                  for (; which.at < which.count; ++which.at) {
                      bool failed = false;
                      try {
                          exec_spec next{.args = {"true"}};
                          auto process = co_await detail::enter_container(
                              loop, *parts, std::move(next),
                              {.alter = break_it, .context = &which});
                      } catch (const start_error& failure) {
                          failed = failure.errno_value() == ENOSYS;
                      }
                      if (!failed) text += "step " + std::to_string(which.at) + " ";
                  }
                  const auto after = holdings::settled(before);
                  if (after.children != before.children) text += "children ";
                  if (after.descriptors != before.descriptors) text += "descriptors ";
                  parts->kill_and_release();
                  co_return text + (which.count > 20 ? "all" : "few");
              }(io, spec));
          }) == "all");
}

TEST_CASE("what an ordinary user's container cannot have is refused with what to do") {
    if (!is_root()) KUMIKI_SKIP(takes_root);
    const busybox_root root;
    auto spec = shell_spec(root, "true");
    SECTION("limits without a delegated group") {
        spec.limits = {.pids = 10};
        CHECK(says(as_user([&] { return output_of(spec); }), "Delegate=yes"));
    }
    SECTION("a user that is not mapped") {
        spec.process.user = {1000, 0};
        const std::string seen = as_user([&] { return output_of(spec); });
        CHECK(says(seen, "EINVAL"));
        CHECK(says(seen, "does not map it"));
    }
    SECTION("supplementary groups") {
        spec.process.user = {0, 0, {5}};
        CHECK(says(as_user([&] { return output_of(spec); }), "supplementary groups"));
    }
    SECTION("the namespaces of another container") {
        spec.join = {std::make_shared<namespace_fd>(namespace_fd::current(namespace_kind::uts))};
        CHECK(says(as_user([&] { return output_of(spec); }), "namespace to join"));
    }
    SECTION("a place that has to be made in a root filesystem of somebody else") {
        spec.mounts = {tmpfs_mount{.target = "/etc/none"}};
        const std::string seen = as_user([&] { return output_of(spec); });
        CHECK(says(seen, "EACCES"));
        CHECK(says(seen, "must be the user's"));
    }
    SECTION("the counters of a group that it has not") {
        CHECK(says(as_user([&] {
                       scheduler io;
                       with_container(io, spec, [](container& box) { box.stats(); });
                       return std::string();
                   }),
                   "no control group"));
    }
}

TEST_CASE("a user to whom a group was delegated has limits in it, and the group goes") {
    if (!is_root()) KUMIKI_SKIP(takes_root);
    const busybox_root root;
    const auto before = holdings::now();
    std::optional<cgroup_root> groups(cgroup_root::open());
    cgroup delegated = groups->create(group_prefix() + "delegated");
    delegate_group(delegated, user, user);
    auto spec = shell_spec(root, "cat /proc/self/cgroup; exec sleep 30");
    const std::string seen = in_a_process(
        [&] {
            delegated.attach(::getpid());
            become_user();
        },
        [&] {
            scheduler io;
            std::string text;
            with_container(io, spec, [&](container& box) {
                text = box.cgroup().path();
                text +=
                    sys::read_file_at(AT_FDCWD, "/proc/" + std::to_string(box.pid()) + "/cgroup");
            });
            return text;
        });
    INFO(seen);
    const std::string inside = delegated.path() + "/kumiki/" + spec.name;
    CHECK(seen.starts_with(inside));
    CHECK(says(seen,
               (delegated.path().substr(delegated.path().find("/kumiki")) + "/kumiki/" + spec.name)
                   .c_str()));
    delegated = {};
    groups.reset();
    KUMIKI_CHECK_NOTHING_LEFT(before);
}

TEST_CASE("a host that allows no user namespaces is told by its switch") {
    if (!is_root()) KUMIKI_SKIP(takes_root);
    const busybox_root root;
    const auto spec = shell_spec(root, "true");
    // The limit of a user namespace of its own: the host's is left alone.
    const std::string seen = in_a_process(
        [] {
            sys::check(::unshare(CLONE_NEWUSER), "unshare");
            sys::write_file_at(AT_FDCWD, "/proc/self/uid_map", "0 0 1");
            sys::write_file_at(AT_FDCWD, "/proc/self/setgroups", "deny");
            sys::write_file_at(AT_FDCWD, "/proc/self/gid_map", "0 0 1");
            sys::write_file_at(AT_FDCWD, "/proc/sys/user/max_user_namespaces", "0");
        },
        [&] { return output_of(spec); });
    INFO(seen);
    CHECK(says(seen, "ENOSPC"));
    CHECK(says(seen, "sysctl -w user.max_user_namespaces="));
}

TEST_CASE("root of a user namespace gives all of its ids to a container") {
    if (!is_root()) KUMIKI_SKIP(takes_root);
    const busybox_root root;
    auto spec = shell_spec(root, "id -u; tr -s ' ' </proc/self/uid_map");
    spec.process.user = {7, 7, {8}};
    pipe_pair ready;
    pipe_pair mapped;
    const std::string seen = in_a_process(
        [&] {
            const pid_t self = ::getpid();
            const pid_t helper = ::fork();  // root of the host, which maps what is not its own
            if (helper == 0) {
                char byte = 0;
                if (::read(ready.in.get(), &byte, 1) != 1) ::_exit(1);
                write_id_maps(self, {{0, 100000, 1000}}, {{0, 100000, 1000}});
                ::_exit(::write(mapped.out.get(), "m", 1) == 1 ? 0 : 1);
            }
            sys::check(::unshare(CLONE_NEWUSER), "unshare");
            char byte = 'r';
            sys::check(::write(ready.out.get(), &byte, 1), "write");
            sys::check(::read(mapped.in.get(), &byte, 1), "read");
            ::waitpid(helper, nullptr, 0);
            sys::check(::setresgid(0, 0, 0), "setresgid");
            sys::check(::setresuid(0, 0, 0), "setresuid");
            sys::check(::prctl(PR_SET_DUMPABLE, 1), "prctl");
        },
        [&] { return output_of(spec); });
    CHECK(seen == "7\n 0 0 1000\nexit 0");
}

TEST_CASE("a user with subordinate ids has them in its container by newuidmap and newgidmap") {
    if (!is_root()) KUMIKI_SKIP(takes_root);
    if (::access(map_programs{}.newuidmap.c_str(), X_OK) != 0)
        KUMIKI_SKIP("newuidmap is not installed");
    const busybox_root root;
    const temporary_directory files;
    write_text(files.path() + "/passwd",
               "root:x:0:0::/:/bin/sh\nsomebody:x:12345:12345::/:/bin/sh\n");
    write_text(files.path() + "/group", "root:x:0:\nsomebody:x:12345:\n");
    write_text(files.path() + "/subuid", "somebody:200000:2000\n");
    write_text(files.path() + "/subgid", "somebody:300000:2000\n");
    auto spec = shell_spec(root, "id -u; id -g; id -G; tr -s ' ' </proc/self/uid_map");
    spec.process.user = {1000, 1000, {1001}};
    const std::string seen = in_a_process(
        [&] {
            sys::check(::unshare(CLONE_NEWNS), "unshare");
            sys::check(::mount("", "/", nullptr, MS_REC | MS_PRIVATE, nullptr), "mount");
            for (const char* name : {"passwd", "group", "subuid", "subgid"})
                sys::check(
                    ::mount((files.path() + '/' + name).c_str(),
                            (std::string("/etc/") + name).c_str(), nullptr, MS_BIND, nullptr),
                    "mount");
            become_user();
        },
        [&] { return output_of(spec); });
    CHECK(seen == "1000\n1000\n1000 1001\n 0 12345 1\n 1 200000 2000\nexit 0");
}
