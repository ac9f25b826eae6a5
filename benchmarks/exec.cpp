// bench_exec: what it costs to run a further process in a running container, side by side in one run:
// the bare system calls, kumiki, crun, runc. benchmarks/run builds it; see docs/performance.md.
#include <fcntl.h>
#include <linux/keyctl.h>
#include <poll.h>
#include <sched.h>
#include <spawn.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <exception>
#include <fstream>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <kumiki/container/container.hpp>
#include <kumiki/core/text.hpp>
#include <kumiki/sys/pidfd.hpp>

#include "support/bare_profile.hpp"
#include "support/field.hpp"
#include "support/options.hpp"
#include "support/peers.hpp"

namespace bench {
namespace {

/// The container that the floor and kumiki enter.
class running_container {
  public:
    explicit running_container(const place& where) : box_(io_.run(start(io_, where))) {}
    ~running_container() { io_.run(box_.stop(std::chrono::seconds(0))); }

    kumiki::scheduler& io() noexcept { return io_; }
    kumiki::container& box() noexcept { return box_; }

  private:
    static kumiki::task<kumiki::container> start(kumiki::scheduler& io, const place& where) {
        kumiki::container_spec spec{
            .rootfs = kumiki::rootfs::overlay(where.rootfs()),
            .process = {.args = {"/bin/busybox", "sleep", "100000"}, .env = {"PATH=/bin"}},
            .hostname = "bench"};
        auto box = co_await kumiki::container::start(io, std::move(spec));
        co_return box;
    }

    kumiki::scheduler io_;
    kumiki::container box_;
};

/// setns, clone3, privileges, execve: in sequence, as one would write it in C. The process gets what
/// kumiki gives it: the same filter, a session keyring of its own.
class floor_exec {
  public:
    explicit floor_exec(running_container& in)
        : pidfd_(in.box().pidfd()), group_(in.box().cgroup().fd()),
          own_pids_(sys::open_at(AT_FDCWD, "/proc/self/ns/pid", O_RDONLY)),
          profile_(kumiki::default_seccomp_profile(kumiki::default_capabilities)->instructions()) {}

    sample run() {
        stamp_pipe output;
        output_ = output.write_end();
        const std::uint64_t start = now();
        sys::check(::setns(pidfd_, CLONE_NEWPID), "setns");
        int pidfd = -1;
        const sys::clone_arguments how{.flags = CLONE_PIDFD | CLONE_INTO_CGROUP,
                                       .pidfd = reinterpret_cast<std::uintptr_t>(&pidfd),
                                       .exit_signal = SIGCHLD,
                                       .cgroup = static_cast<std::uint64_t>(group_)};
        const long child = sys::clone_copied(
            how, [](void* self) { static_cast<floor_exec*>(self)->in_child(); }, this);
        sys::check(::setns(own_pids_.get(), CLONE_NEWPID), "setns back");
        if (child < 0) throw kumiki::error(static_cast<int>(-child), {.operation = "clone3"});
        const unique_fd process(pidfd);
        const std::uint64_t first = output.wait();
        pollfd ended{.fd = pidfd, .events = POLLIN, .revents = 0};
        sys::check(::poll(&ended, 1, -1), "poll");
        siginfo_t status;
        sys::check(::waitid(P_PIDFD, static_cast<id_t>(pidfd), &status, WEXITED), "waitid");
        const std::uint64_t end = now();
        return {.first = static_cast<double>(first - start) / 1000,
                .released = static_cast<double>(end - start) / 1000};
    }

  private:
    static void must(long result) noexcept {
        if (result < 0) ::_exit(125);
    }
    [[noreturn]] void in_child() noexcept {
        must(::prctl(PR_SET_DUMPABLE, 0, 0, 0, 0));
        must(::syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, nullptr));
        must(::setns(pidfd_,
                     CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWNET | CLONE_NEWCGROUP));
        must(::setsid());
        must(::dup2(output_, STDOUT_FILENO));
        must(::syscall(SYS_close_range, 3, ~0U, 0));
        must(::chdir("/"));
        must(profile_.drop_capabilities());
        must(profile_.install_filter());
        const char* const args[] = {"/bin/payload", nullptr};
        const char* const environment[] = {"PATH=/bin", nullptr};
        must(::syscall(SYS_execve, args[0], args, environment));
        ::_exit(126);
    }

    int pidfd_;
    int group_;
    unique_fd own_pids_;
    bare_profile profile_;
    int output_ = -1;
};

kumiki::task<sample> exec_once(running_container& in) {
    stamp_pipe output;
    const std::uint64_t start = now();
    kumiki::exec_spec wanted{.args = {"/bin/payload"}};
    wanted.stdio = {STDIN_FILENO, output.write_end(), STDERR_FILENO};
    auto process = co_await in.box().exec(std::move(wanted));
    const std::uint64_t first = output.wait();
    auto status = co_await process.wait();
    const std::uint64_t end = now();
    if (status.shell_status() != 0)
        throw kumiki::error(0, {.operation = "run", .object = "the payload"});
    co_return sample{.first = static_cast<double>(first - start) / 1000,
                     .released = static_cast<double>(end - start) / 1000};
}

/// A container of runc's or crun's that runs for as long as this.
class oci_container {
  public:
    oci_container(const place& where, std::string program, const std::string& name,
                  const std::string& preload)
        : program_(std::move(program)), state_(where.directory() + "/state-" + name),
          id_(where.name() + "-" + name), preload_(preload) {
        const std::string bundle = where.directory() + "/" + name;
        fs::create_directory(bundle);
        fs::create_directory(where.cgroup() + "/probe");
        std::ofstream(bundle + "/config.json")
            << oci_specification(where, name, R"("/bin/busybox","sleep","100000")");
        fs::remove(where.cgroup() + "/probe");
        if (call({"run", "-d", "--bundle", bundle, id_}) != 0)
            throw kumiki::error(0, {.operation = "start a container with", .object = program_});
    }
    oci_container(const oci_container&) = delete;
    oci_container& operator=(const oci_container&) = delete;
    ~oci_container() { call({"delete", "-f", id_}); }

    peer exec() const {
        return peer({program_, "--root", state_, "exec", id_, "/bin/payload"}, preload_);
    }

  private:
    int call(std::vector<std::string> words) const {
        words.insert(words.begin(), {program_, "--root", state_});
        std::vector<char*> args;
        for (std::string& word : words) args.push_back(word.data());
        args.push_back(nullptr);
        std::string path = "PATH=/usr/sbin:/usr/bin:/sbin:/bin";
        std::string preload = "LD_PRELOAD=" + preload_;
        char* environment[] = {path.data(), preload_.empty() ? nullptr : preload.data(), nullptr};
        pid_t child = -1;
        if (::posix_spawn(&child, args[0], nullptr, nullptr, args.data(), environment) != 0)
            return -1;
        int status = 0;
        sys::check(sys::retry([&] { return ::waitpid(child, &status, 0); }), "waitpid");
        return status;
    }

    std::string program_;
    std::string state_;
    std::string id_;
    std::string preload_;
};

void run(const start_options& wanted) {
    const place where(wanted.busybox, wanted.payload);
    running_container box(where);
    floor_exec floor(box);
    std::vector<std::unique_ptr<oci_container>> containers;
    std::vector<std::unique_ptr<peer>> peers;
    std::vector<contender> field;
    if (wanted.wants("bare")) field.push_back({.name = "bare", .run = [&] { return floor.run(); }});
    if (wanted.wants("kumiki"))
        field.push_back({.name = "kumiki", .run = [&] { return box.io().run(exec_once(box)); }});
    for (const auto& [name, program] :
         {std::pair{"crun", "/usr/bin/crun"}, std::pair{"runc", "/usr/sbin/runc"}}) {
        if (!wanted.wants(name)) continue;
        if (!fs::exists(program)) {
            fmt::print(stderr, "{} is not there: left out.\n", program);
            continue;
        }
        containers.push_back(std::make_unique<oci_container>(where, program, name, wanted.preload));
        peers.push_back(std::make_unique<peer>(containers.back()->exec()));
        field.push_back({.name = name, .run = [one = peers.back().get()] { return one->run(); }});
    }
    warn_of_load();
    std::vector<contender*> together;
    for (contender& each : field) together.push_back(&each);
    measure(together, wanted.rounds, warm_up);

    nlohmann::json json{{"unit", "us"}};
    fmt::print(
        "\nMilliseconds: median (quartiles; minimum).\n\n"
        "| exec | samples | to the payload's first instruction | to its exit collected |\n"
        "|---|---|---|---|\n");
    for (const contender& each : field) {
        fmt::print("| {} | {} | {} | {} |\n", each.name, each.first.size(), cell(each.first),
                   cell(each.released));
        json["execs"][each.name] = to_json(each);
    }
    fmt::print(
        "\n| ratio of medians (95 %) | first instruction | exit collected |\n|---|---|---|\n");
    static constexpr const char* pairs[][2] = {
        {"kumiki", "bare"}, {"crun", "kumiki"}, {"runc", "kumiki"}};
    for (const auto& [above, below] : pairs) {
        const auto find = [&, &all = field](std::string_view name) {
            return std::ranges::find(all, name, &contender::name);
        };
        const auto a = find(above);
        const auto b = find(below);
        if (a == field.end() || b == field.end()) continue;
        report_ratio(*a, *b, json);
    }
    wanted.write(json);
}

constexpr const char* usage =
    "bench_exec --payload FILE [--rounds N] [--only NAME]... [--json FILE]\n"
    "           [--busybox FILE] [--preload LIBRARY]\n"
    "NAME is bare, kumiki, crun or runc.\n";

}  // namespace
}  // namespace bench

int main(int argc, char** argv) {
    using namespace bench;
    return main_of(argc, argv, "bench_exec", usage, parse_start_options, run);
}
