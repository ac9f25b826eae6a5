// Mounts that come into a running container and go again: seen by what runs there, refused with a
// reason, and without a way for the container to get at who makes them.
#include <fcntl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include <kumiki/container/container.hpp>
#include <kumiki/container/plan_text.hpp>

#include "container/support.hpp"
#include "support/busybox.hpp"
#include "support/catch.hpp"
#include "support/leaks.hpp"

using namespace kumiki;
using namespace kumiki::literals;
using namespace std::chrono_literals;
using kumiki_test::busybox;
using kumiki_test::busybox_root;
using kumiki_test::contains;
using kumiki_test::holdings;
using kumiki_test::line_of;
using kumiki_test::pipe_pair;
using kumiki_test::temporary_directory;
using kumiki_test::write_text;
namespace fs = std::filesystem;

namespace {

container_spec sleeper() { return kumiki_test::shell_spec(busybox(), "exec sleep 30"); }

/// An assembled root needs no id-mapped mounts.
container_spec assembled_with_users(container_spec spec) {
    spec = kumiki_test::with_users(std::move(spec));
    spec.rootfs = rootfs::assembled();
    spec.mounts.push_back(bind_mount{.source = busybox().path() + "/bin", .target = "/bin"});
    spec.mounts.push_back(directory_entry{.target = "/etc"});
    return spec;
}

/// What a shell in the container says.
task<std::string> ask(scheduler& io, container& box, std::string script) {
    pipe_pair pipe;
    const unique_fd null = sys::open_at(AT_FDCWD, "/dev/null", O_RDONLY);
    exec_spec wanted{.args = {"sh", "-c", std::move(script)}};
    wanted.stdio = {null.get(), pipe.out.get(), pipe.out.get()};
    auto process = co_await box.exec(std::move(wanted));
    pipe.out.reset();
    std::string text;
    for (;;) {
        std::byte buffer[4096];
        auto size = co_await io.read(pipe.in.get(), buffer);
        if (size == 0) break;
        text.append(reinterpret_cast<const char*>(buffer), size);
    }
    co_await process.wait();
    co_return text;
}

/// One change of the mounts, or a question, in a container.
struct act {
    std::optional<mount_description> mount{};
    std::string unmount{};
    unmount_mode mode = unmount_mode::unless_busy;
    std::string ask{};
};
act mounted(mount_description what) { return {.mount = std::move(what)}; }
act unmounted(std::string path, unmount_mode mode = unmount_mode::unless_busy) {
    return {.unmount = std::move(path), .mode = mode};
}
act asked(std::string script) { return {.ask = std::move(script)}; }

constexpr const char* reasons[] = {"no_place", "busy", "not_mounted", "container_ended", "other"};

/// Does one thing and says what came of it: an answer, "done", or the error's kind.
task<std::string> carry_out(scheduler& io, container& box, act each) {
    try {
        if (each.mount) {
            co_await box.mount(std::move(*each.mount));
        } else if (!each.unmount.empty()) {
            co_await box.unmount(each.unmount, each.mode);
        } else {
            auto answer = co_await ask(io, box, each.ask);
            co_return answer;
        }
    } catch (const mount_error& refused) {
        co_return std::string(reasons[static_cast<int>(refused.reason())]) + " " +
            errno_name(refused.errno_value()) + " " + refused.object();
    } catch (const error& failure) {
        co_return "error: " + std::string(failure.what());
    }
    co_return std::string("done");
}

task<std::vector<std::string>> start_and_act(scheduler& io, container_spec spec,
                                             std::vector<act> acts) {
    auto box = co_await container::start(io, std::move(spec));
    std::vector<std::string> results;
    for (act& each : acts) {
        auto result = co_await carry_out(io, box, std::move(each));
        results.push_back(std::move(result));
    }
    co_return results;
}

std::vector<std::string> in(container_spec spec, std::vector<act> acts) {
    scheduler io;
    return io.run(start_and_act(io, std::move(spec), std::move(acts)));
}

using results = std::vector<std::string>;

}  // namespace

TEST_CASE("a mount comes into a running container and goes again, and the host sees neither") {
    const bool own_users = GENERATE(false, true);
    CAPTURE(own_users);
    const temporary_directory place;
    fs::permissions(place.path(), fs::perms(0755));
    write_text(place.path() + "/file", "text\n");
    fs::permissions(place.path() + "/file", fs::perms(0644));
    in(sleeper(), {});
    const auto before = holdings::now();
    auto spec = own_users ? assembled_with_users(sleeper()) : sleeper();
    const auto seen =
        in(std::move(spec),
           {asked("ls /mnt 2>&1"),
            mounted(bind_mount{
                .source = place.path(), .target = "/mnt/data", .access = access_mode::read_only}),
            asked("cat /mnt/data/file; touch /mnt/data/x 2>/dev/null || echo refused; "
                  "stat -c '%u:%g %a' /mnt; " +
                  line_of("/mnt/data", "1")),
            unmounted("/mnt/data"), asked("ls -A /mnt/data; " + line_of("/mnt/data", "1"))});
    CHECK(contains(seen[0], "No such file"));
    CHECK(seen[1] == "done");
    CHECK(seen[2].starts_with("text\nrefused\n0:0 755\nro,nosuid,nodev"));
    CHECK(seen[3] == "done");
    CHECK(seen[4].empty());
    KUMIKI_CHECK_NOTHING_LEFT(before);
    CHECK(::prctl(PR_GET_DUMPABLE) == 1);
}

TEST_CASE("every kind that needs no overlay can come into a running container") {
    const bool own_users = GENERATE(false, true);
    CAPTURE(own_users);
    auto spec = own_users ? assembled_with_users(sleeper()) : sleeper();
    const temporary_directory place;
    const std::string node = place.path() + "/node";
    REQUIRE(::mknod(node.c_str(), S_IFCHR | 0666, ::makedev(1, 5)) == 0);
    const auto seen =
        in(std::move(spec),
           {mounted(tmpfs_mount{.target = "/t", .size = 1_MiB, .mode = 0710}),
            mounted(file_mount{.target = "/t/key",
                               .content = "secret\n",
                               .mode = 0640,
                               .user = 1000,
                               .group = 7,
                               .access = access_mode::read_write}),
            mounted(file_mount{.target = "/etc/fixed", .content = "fixed\n"}),
            mounted(device_mount{.target = "/dev/sub/nil", .major = 1, .minor = 5, .source = node}),
            mounted(symlink_entry{.target = "/t/link", .leads_to = "key"}),
            mounted(directory_entry{.target = "/t/dir", .mode = 0701}),
            asked("stat -c '%a %u' /t; df -k /t | tail -1 | tr -s ' ' | cut -d' ' -f2; "
                  "cat /t/link /etc/fixed; stat -c '%a %u:%g' /t/key; echo more >> /t/key && "
                  "cat /t/key; echo x 2>/dev/null > /etc/fixed || echo fixed; "
                  "head -c 3 /dev/sub/nil | wc -c; stat -c '%a %u' /t/dir /dev/sub"),
            mounted(tmpfs_mount{.target = "/t", .content = tmpfs_content::copy_up}),
            mounted(overlay_mount{.target = "/o", .lowers = {place.path()}}),
            mounted(directory_entry{.target = "/t/owned", .user = 5}), asked("ls /t/owned 2>&1")});
    for (std::size_t i = 0; i < 6; ++i) {
        CAPTURE(i);
        CHECK(seen[i] == "done");
    }
    CHECK(seen[6] ==
          "710 0\n1024\nsecret\nfixed\n640 1000:7\nsecret\nmore\nfixed\n3\n701 0\n755 0\n");
    CHECK(contains(seen[7], "at the start of a container only"));
    CHECK(contains(seen[8], "at the start of a container only"));
    CHECK(contains(seen[9], "invalid owner"));
    CHECK(contains(seen[10], "No such file"));
}

TEST_CASE("a change that cannot be made says why, and changes nothing") {
    const temporary_directory place;
    write_text(place.path() + "/file", "");
    auto spec = sleeper();
    spec.rootfs = rootfs::overlay(busybox().path()).read_only();
    spec.mounts = {tmpfs_mount{.target = "/tmp"}, tmpfs_mount{.target = "/root"}};
    spec.process.args = {"sh", "-c", "cd /tmp; exec sleep 30"};
    const auto directory = [&](std::string target) {
        return mounted(bind_mount{.source = place.path(), .target = std::move(target)});
    };
    const auto seen =
        in(std::move(spec),
           {asked("while [ $(readlink /proc/1/cwd) != /tmp ]; do :; done"), directory("/missing"),
            directory("/etc/passwd/below"), directory("/etc/passwd"), unmounted("/tmp"),
            unmounted("/etc"), unmounted("/nothing"), unmounted("/etc/passwd/x"),
            mounted(symlink_entry{.target = "/root", .leads_to = "x"}),
            mounted(bind_mount{.source = "/nowhere", .target = "/tmp/x"}),
            mounted(bind_mount{.source = "/etc", .target = "/"}), unmounted("/"),
            unmounted("/a/../b"), asked("cut -d' ' -f5 /proc/1/mountinfo | grep -c /tmp; ls /tmp"),
            unmounted("/tmp", unmount_mode::detach), unmounted("/root"),
            asked("cut -d' ' -f5 /proc/1/mountinfo | grep -cE '^/(tmp|root)$'")});
    CHECK(seen[1] == "no_place EROFS mount on /missing");
    CHECK(seen[2] == "no_place ENOTDIR mount on /etc/passwd/below");
    CAPTURE(seen[3]);
    CHECK(seen[3].starts_with("no_place "));  // a directory over a file
    CHECK(seen[4] == "busy EBUSY /tmp");
    CHECK(seen[5] == "not_mounted EINVAL /etc");
    CHECK(seen[6] == "not_mounted ENOENT /nothing");
    CHECK(seen[7] == "not_mounted ENOTDIR /etc/passwd/x");
    CHECK(seen[8] == "no_place EEXIST symbolic link /root");
    CHECK(contains(seen[9], "open_tree /nowhere"));
    CHECK(contains(seen[10], "invalid mount target"));
    CHECK(contains(seen[11], "invalid mount target"));
    CHECK(contains(seen[12], "invalid mount target"));
    CHECK(seen[13] == "1\n");
    CHECK(seen[14] == "done");
    CHECK(seen[15] == "done");
    CHECK(seen[16] == "0\n");
}

namespace {

task<std::pair<std::string, std::string>> act_after_end(scheduler& io, container_spec spec) {
    auto box = co_await container::start(io, std::move(spec));
    ::kill(box.pid(), SIGKILL);
    siginfo_t info{};
    ::waitid(P_PIDFD, static_cast<id_t>(box.pidfd()), &info, WEXITED | WNOWAIT);
    act mount = mounted(tmpfs_mount{.target = "/t"});
    act unmount = unmounted("/t");
    auto first = co_await carry_out(io, box, std::move(mount));
    co_await box.wait();
    auto second = co_await carry_out(io, box, std::move(unmount));
    co_return std::pair{std::move(first), std::move(second)};
}

task<std::string> mount_while_frozen(scheduler& io, container_spec spec) {
    auto box = co_await container::start(io, std::move(spec));
    box.freeze();
    act mount = mounted(tmpfs_mount{.target = "/t"});
    auto result = co_await carry_out(io, box, std::move(mount));
    box.thaw();
    auto seen = co_await ask(io, box, line_of("/t", "1"));
    co_return result + " " + seen;
}

}  // namespace

TEST_CASE("a container that has ended is told from one that refuses") {
    scheduler io;
    const auto seen = io.run(act_after_end(io, sleeper()));
    CHECK(seen.first.starts_with("container_ended ESRCH"));
    CHECK(seen.second.starts_with("container_ended ESRCH"));
}

TEST_CASE("a frozen container takes a mount") {
    scheduler io;
    CHECK(io.run(mount_while_frozen(io, sleeper())).starts_with("done rw,nosuid,nodev"));
}

TEST_CASE("a link of the container does not lead a mount to the host") {
    const temporary_directory outside;
    fs::create_directory(outside.path() + "/sentinel");
    const auto before = holdings::now().mounts;
    const auto seen =
        in(sleeper(), {asked("ln -s " + outside.path() +
                             "/sentinel /absolute; "
                             "ln -s ../../../.." +
                             outside.path() +
                             "/sentinel /relative; "
                             "ln -s /proc/1/root /magic; ln -s loop /loop"),
                       mounted(tmpfs_mount{.target = "/absolute"}),
                       mounted(tmpfs_mount{.target = "/relative/below"}),
                       mounted(tmpfs_mount{.target = "/magic/x"}),
                       mounted(tmpfs_mount{.target = "/proc/1/root/x"}),
                       mounted(tmpfs_mount{.target = "/loop"}), unmounted("/absolute"),
                       asked("grep -c 'sentinel' /proc/1/mountinfo")});
    // Their ends are made inside of the root, or there are none.
    for (const std::size_t refused : {3U, 4U, 5U}) {
        CAPTURE(refused, seen[refused]);
        CHECK(seen[refused].starts_with("no_place ELOOP"));
    }
    CHECK(seen[6].starts_with("not_mounted "));
    CHECK(holdings::now().mounts == before);
    CHECK(fs::is_empty(outside.path() + "/sentinel"));
    CHECK(std::distance(fs::directory_iterator(outside.path()), {}) == 1);
}

TEST_CASE("what enters is not dumpable before it enters, and holds nothing else") {
    const bool own_users = GENERATE(false, true);
    CAPTURE(own_users);
    const id_map ids({{0, 100000, 65536}});
    const detail::owner_maps owners =
        own_users ? detail::owner_maps{&ids, &ids} : detail::owner_maps{};
    const unique_fd self(sys::open_pidfd(::getpid()));
    const auto made =
        detail::encode_live_mount(bind_mount{.source = "/etc", .target = "/x"},
                                  {.pidfd = self.get(), .control = 9, .owners = owners});
    const std::string text = to_string(made.plan);
    const auto first = text.find("prctl(4)");  // PR_SET_DUMPABLE, 0
    const auto enters = text.find("setns(");
    REQUIRE(first != std::string::npos);
    REQUIRE(enters != std::string::npos);
    CHECK(text.starts_with("descriptors: close_range"));
    CHECK(first < enters);
    CHECK(contains(text, "exit_group()"));
    CHECK_FALSE(contains(text, "execve"));
    REQUIRE(made.held.size() == 1);
    const std::vector<int> kept = made.plan.kept();
    CHECK(kept.size() == 3);
    for (const int fd : {9, self.get(), made.held.front().mount.get()})
        CHECK(std::count(kept.begin(), kept.end(), fd) == 1);
    const auto again = text.find("prctl(4)", enters);
    CHECK((again != std::string::npos) == own_users);  // a change of ids makes it dumpable again
}

namespace {

/// What a container says while mounts come and go in it, `count` times.
task<std::string> say_while_mounting(scheduler& io, container_spec spec, int count) {
    pipe_pair pipe;
    const unique_fd null = sys::open_at(AT_FDCWD, "/dev/null", O_RDWR);
    spec.process.stdio = {null.get(), pipe.out.get(), null.get()};
    auto box = co_await container::start(io, std::move(spec));
    pipe.out.reset();
    std::string text;
    std::byte buffer[4096];
    auto size = co_await io.read(pipe.in.get(), buffer);  // it has begun
    text.append(reinterpret_cast<const char*>(buffer), size);
    for (int i = 0; i < count; ++i) {
        mount_description wanted = tmpfs_mount{.target = "/t"};
        co_await box.mount(std::move(wanted));
        co_await box.unmount("/t");
    }
    box.signal(SIGKILL);
    co_await box.wait();
    for (;;) {
        size = co_await io.read(pipe.in.get(), buffer);
        if (size == 0) break;
        text.append(reinterpret_cast<const char*>(buffer), size);
    }
    co_return text;
}

}  // namespace

TEST_CASE("what enters is no process of the container's: nobody in it sees it") {
    auto spec = GENERATE(false, true) ? assembled_with_users(sleeper()) : sleeper();
    spec.process.args.back() =
        "cd /proc; sleep 60 & s=$!; told=; while :; do for p in [0-9]*; do [ $p = 1 ] && continue; "
        "if [ $p != $s ]; then echo saw $p; elif [ -z $told ]; then told=1; echo a child; fi; "
        "done; done";
    scheduler io;
    // Its own child it sees: it looks in the right way.
    CHECK(io.run(say_while_mounting(io, std::move(spec), 100)) == "a child\n");
}

TEST_CASE("each step of a mount that fails ends the child and is told by its name") {
    scheduler io;
    in(sleeper(), {});
    const auto before = holdings::now();
    kumiki_test::with_container(io, sleeper(), [&](container& box) {
        const auto unspoiled = detail::encode_live_mount(tmpfs_mount{.target = "/t"},
                                                         {.pidfd = box.pidfd(), .control = 9});
        for (std::size_t at = 0; at < unspoiled.plan.size(); ++at) {
            auto sockets = detail::control_sockets::make();
            auto program =
                detail::encode_live_mount(tmpfs_mount{.target = "/t"},
                                          {.pidfd = box.pidfd(), .control = sockets.child.get()});
            auto* steps = const_cast<step*>(program.program->steps);
            steps[at] = step{.kind = step_kind::call, .in = steps[at].in, .number = -1};
            scheduler own;
            try {
                own.run(detail::run_inside(own, box.name(), 5s, std::move(program),
                                           std::move(sockets)));
                FAIL("step " << at << " was not needed");
            } catch (const error& failure) {
                CAPTURE(at, failure.what());
                CHECK(failure.errno_value() == ENOSYS);
                CHECK(failure.context().container == box.name());
            }
        }
    });
    KUMIKI_CHECK_NOTHING_LEFT(before);
}
