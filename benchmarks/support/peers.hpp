// runc, crun and bwrap as they are used: a program that is executed, with a configuration as near
// to the floor's as each can be told.
//
// Where they cannot do the same they do less, which is in their favour: none of them mounts the
// overlay (their root is the plain directory), bwrap mounts neither a sysfs nor a cgroup2 of the
// container's own, and is put into its cgroup by us.
#pragma once

#include <fcntl.h>
#include <linux/filter.h>
#include <linux/sched.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>
#include <span>
#include <string>
#include <vector>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <kumiki/sys/raw.hpp>

#include "place.hpp"
#include "profile.hpp"

namespace bench {

/// A program that starts the container, and the container's cgroup if it does not make one.
class peer {
  public:
    /// `preload` is a library for LD_PRELOAD, or empty. With `cgroup` the program is born in that
    /// group, which is made before and removed after it. `input` is a file that it reads.
    peer(std::vector<std::string> command, const std::string& preload, std::string cgroup = {},
         unique_fd input = {})
        : command_(std::move(command)), cgroup_(std::move(cgroup)), input_(std::move(input)) {
        environment_ = {"PATH=/usr/sbin:/usr/bin:/sbin:/bin"};
        if (!preload.empty()) environment_.push_back("LD_PRELOAD=" + preload);
    }

    /// One container from nothing to nothing, the peer's own execution included.
    sample run() const {
        const std::vector<char*> args = pointers(command_);
        const std::vector<char*> environment = pointers(environment_);
        stamp_pipe output;
        if (input_) sys::check(::lseek(input_.get(), 0, SEEK_SET), "rewind");
        const std::uint64_t start = now();
        unique_fd group;
        if (!cgroup_.empty()) {
            sys::check(::mkdir(cgroup_.c_str(), 0755), "mkdir", cgroup_);
            group = sys::open_at(AT_FDCWD, cgroup_, O_PATH | O_DIRECTORY);
            for (const auto& [file, value] : limits) {
                const unique_fd limit(::openat(group.get(), file, O_WRONLY | O_CLOEXEC));
                if (limit) sys::check(::write(limit.get(), value, std::strlen(value)), file);
            }
        }
        const pid_t child = spawn({args.data(), environment.data(), output.write_end()}, group);
        std::uint64_t first = 0;
        std::string failure;
        try {
            first = output.wait();
        } catch (const kumiki::error& error) {
            failure = error.what();
        }
        int status = 0;
        sys::check(sys::retry([&] { return ::waitpid(child, &status, 0); }), "waitpid");
        if (group)
            while (::rmdir(cgroup_.c_str()) != 0 && errno == EBUSY) ::usleep(50);
        const std::uint64_t end = now();
        if (status != 0 || !failure.empty())
            throw kumiki::error(0, {.operation = "run",
                                    .object = command_.front(),
                                    .remedy = fmt::format("It ended with status {}. {}",
                                                          WEXITSTATUS(status), failure)});
        return {.first = static_cast<double>(first - start) / 1000,
                .released = static_cast<double>(end - start) / 1000};
    }

  private:
    static std::vector<char*> pointers(const std::vector<std::string>& texts) {
        std::vector<char*> list;
        for (const std::string& text : texts) list.push_back(const_cast<char*>(text.c_str()));
        list.push_back(nullptr);
        return list;
    }
    struct execution {
        char* const* args;
        char* const* environment;
        int output;
    };
    /// As posix_spawn(3), which cannot put the child into a cgroup: nothing of this process is copied.
    static pid_t spawn(execution what, const unique_fd& group) {
        alignas(16) static char stack[16384];
        sys::clone_arguments how{};
        how.flags = CLONE_VM | CLONE_VFORK | (group ? CLONE_INTO_CGROUP : 0U);
        how.exit_signal = SIGCHLD;
        how.stack = reinterpret_cast<std::uintptr_t>(stack);
        how.stack_size = sizeof stack;
        how.cgroup = group ? static_cast<std::uint64_t>(group.get()) : 0;
        const auto entry = [](void* argument) {
            const auto& [args, environment, output] = *static_cast<const execution*>(argument);
            ::dup2(output, STDOUT_FILENO);
            ::execve(args[0], args, environment);
            ::_exit(127);
        };
        const long child = sys::clone_on_stack(how, entry, &what);
        if (child < 0) throw kumiki::error(static_cast<int>(-child), {.operation = "clone3"});
        return static_cast<pid_t>(child);
    }

    std::vector<std::string> command_;
    std::vector<std::string> environment_;
    std::string cgroup_;
    unique_fd input_;
};

/// The specification that runc and crun get.
inline std::string oci_specification(const place& where, const std::string& name,
                                     const std::string& args = "\"/bin/payload\"") {
    std::vector<std::string> caps;
    for (const auto& [number, cap] : capabilities) caps.push_back(fmt::format("\"{}\"", cap));
    std::vector<std::string> refused;
    for (const auto& [number, call] : refused_calls) refused.push_back(fmt::format("\"{}\"", call));
    std::vector<std::string> masked;
    for (const char* path : masked_paths) masked.push_back(fmt::format("\"/{}\"", path));
    std::vector<std::string> read_only;
    for (const char* path : read_only_paths) read_only.push_back(fmt::format("\"/{}\"", path));
    std::string resources;
    if (fs::exists(where.cgroup() + "/probe/memory.max"))
        resources += R"("memory":{"limit":268435456},)";
    if (fs::exists(where.cgroup() + "/probe/cpu.max"))
        resources += R"("cpu":{"quota":200000,"period":100000},)";
    if (fs::exists(where.cgroup() + "/probe/pids.max")) resources += R"("pids":{"limit":64},)";
    if (!resources.empty()) resources.pop_back();
    const std::string set = fmt::format("[{}]", fmt::join(caps, ","));
    const auto mount = [](const char* target, const char* type, const char* options) {
        return fmt::format(R"({{"destination":"{}","type":"{}","source":"{}","options":[{}]}})",
                           target, type, type, options);
    };
    const std::string mounts[] = {
        mount("/proc", "proc", R"("nosuid","noexec","nodev")"),
        mount("/dev", "tmpfs", R"("nosuid","strictatime","mode=755","size=65536k")"),
        mount("/dev/pts", "devpts",
              R"("nosuid","noexec","newinstance","ptmxmode=0666","mode=0620")"),
        mount("/dev/shm", "tmpfs", R"("nosuid","noexec","nodev","mode=1777","size=65536k")"),
        mount("/dev/mqueue", "mqueue", R"("nosuid","noexec","nodev")"),
        mount("/sys", "sysfs", R"("nosuid","noexec","nodev","ro")"),
        mount("/sys/fs/cgroup", "cgroup", R"("nosuid","noexec","nodev","relatime","ro")")};
    return fmt::format(
        R"({{"ociVersion":"1.0.2","hostname":"bench","root":{{"path":"{}"}},"mounts":[{}],
"process":{{"args":[{}],"env":["PATH=/bin"],"cwd":"/","user":{{"uid":0,"gid":0}},
 "noNewPrivileges":true,"capabilities":{{"bounding":{},"effective":{},"permitted":{}}}}},
"linux":{{"cgroupsPath":"/{}/{}","resources":{{{}}},"maskedPaths":[{}],"readonlyPaths":[{}],
 "namespaces":[{{"type":"pid"}},{{"type":"network"}},{{"type":"ipc"}},{{"type":"uts"}},
  {{"type":"mount"}},{{"type":"cgroup"}}],
 "seccomp":{{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{{"names":[{}],
  "action":"SCMP_ACT_ERRNO","errnoRet":1}}]}}}}}}
)",
        where.rootfs(), fmt::join(mounts, ","), args, set, set, set, where.name(), name, resources,
        fmt::join(masked, ","), fmt::join(read_only, ","), fmt::join(refused, ","));
}

/// `runc run` or `crun run` of a bundle: `program` is the path, `name` the bundle's.
inline peer oci_peer(const place& where, const std::string& program, const std::string& name,
                     const std::string& preload) {
    const std::string bundle = where.directory() + "/" + name;
    fs::create_directory(bundle);
    fs::create_directory(where.cgroup() + "/probe");
    std::ofstream(bundle + "/config.json") << oci_specification(where, name);
    fs::remove(where.cgroup() + "/probe");
    return peer({program, "--root", where.directory() + "/state-" + name, "run", "--bundle", bundle,
                 where.name() + "-" + name},
                preload);
}

/// bwrap, with the seccomp program in a file.
inline peer bwrap_peer(const place& where, const std::string& program,
                       std::span<const sock_filter> filter) {
    const std::string path = where.directory() + "/bwrap.bpf";
    std::ofstream(path, std::ios::binary)
        .write(reinterpret_cast<const char*>(filter.data()),
               static_cast<std::streamsize>(filter.size_bytes()));
    unique_fd file(sys::check(::open(path.c_str(), O_RDONLY), "open", path));
    std::vector<std::string> command = {program,
                                        "--unshare-pid",
                                        "--unshare-net",
                                        "--unshare-uts",
                                        "--unshare-ipc",
                                        "--unshare-cgroup",
                                        "--hostname",
                                        "bench",
                                        "--as-pid-1",
                                        "--new-session",
                                        "--clearenv",
                                        "--bind",
                                        where.rootfs(),
                                        "/",
                                        "--proc",
                                        "/proc",
                                        "--dev",
                                        "/dev",
                                        "--tmpfs",
                                        "/dev/shm",
                                        "--mqueue",
                                        "/dev/mqueue",
                                        "--ro-bind",
                                        "/sys",
                                        "/sys",
                                        "--cap-drop",
                                        "ALL"};
    const auto add = [&](std::initializer_list<std::string> more) {
        command.insert(command.end(), more);
    };
    for (const auto& [number, name] : capabilities) add({"--cap-add", name});
    for (const char* masked : masked_paths) {
        const std::string at = std::string("/") + masked;
        if (!fs::exists(at)) continue;
        if (fs::is_directory(at))
            add({"--tmpfs", at, "--remount-ro", at});
        else
            add({"--ro-bind", "/dev/null", at});
    }
    add({"--seccomp", std::to_string(file.get()), "--", "/bin/payload"});
    return peer(std::move(command), "", where.cgroup() + "/bwrap", std::move(file));
}

}  // namespace bench
