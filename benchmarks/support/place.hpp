// The place in which everything is measured: a mount and a network namespace of the benchmark's own
// in which cgroup v2 is all there is, a tmpfs with the root filesystem, one cgroup above all starts.
//
// What is left when the program is killed in the middle: one empty directory in /tmp and one empty
// cgroup, both named kumiki-bench-PID.
#pragma once

#include <fcntl.h>
#include <net/if.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdint>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <string>
#include <utility>

#include <kumiki/core/unique_fd.hpp>
#include <kumiki/sys/check.hpp>
#include <kumiki/sys/file.hpp>

namespace bench {

namespace fs = std::filesystem;
namespace sys = kumiki::sys;
using kumiki::unique_fd;

inline std::uint64_t nanoseconds(const timespec& at) {
    return static_cast<std::uint64_t>(at.tv_sec) * 1'000'000'000U +
           static_cast<std::uint64_t>(at.tv_nsec);
}
/// CLOCK_MONOTONIC, which the payload reads too.
inline std::uint64_t now() {
    timespec at{};
    ::clock_gettime(CLOCK_MONOTONIC, &at);
    return nanoseconds(at);
}

/// One measured start, in microseconds from before its first call.
struct sample {
    double first = 0;  ///< to the payload's first instruction
    double released = 0;  ///< to its exit collected and all of it released
};

/// The pipe that is the payload's standard output, over which its first act arrives.
class stamp_pipe {
  public:
    stamp_pipe() {
        int ends[2];
        sys::check(::pipe2(ends, O_CLOEXEC), "pipe2");
        read_.reset(ends[0]);
        write_.reset(ends[1]);
    }
    int write_end() const noexcept { return write_.get(); }
    /// Waits for the payload's stamp. Errors: EPIPE when the payload ended without it.
    std::uint64_t wait() {
        timespec at{};
        write_.reset();
        const auto got = sys::check(::read(read_.get(), &at, sizeof at), "read", "payload's stamp");
        if (got != static_cast<ssize_t>(sizeof at))
            throw kumiki::error(EPIPE, {.operation = "wait for", .object = "the payload"});
        return nanoseconds(at);
    }

  private:
    unique_fd read_;
    unique_fd write_;
};

/// Limits that every contender sets, where the controller is there: file and value.
inline constexpr std::pair<const char*, const char*> limits[] = {
    {"memory.max", "268435456"}, {"cpu.max", "200000 100000"}, {"pids.max", "64"}};

class place {
  public:
    /// Enters the private namespaces and prepares. `busybox` and `payload` are static programs.
    /// Needs root, before any other thread is started.
    place(const std::string& busybox, const std::string& payload)
        : name_("kumiki-bench-" + std::to_string(::getpid())), directory_("/tmp/" + name_),
          cgroup_("/sys/fs/cgroup/" + name_) {
        fs::create_directory(directory_);
        sys::check(::unshare(CLONE_NEWNS | CLONE_NEWNET), "unshare");
        sys::check(::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr), "mount", "/");
        if (!fs::exists("/sys/fs/cgroup/cgroup.controllers")) {
            sys::check(::umount2("/sys/fs/cgroup", MNT_DETACH), "umount", "/sys/fs/cgroup");
            sys::check(::mount("none", "/sys/fs/cgroup", "cgroup2", 0, nullptr), "mount cgroup2");
        }
        sys::check(::mount("bench", directory_.c_str(), "tmpfs", 0, "mode=755"), "mount tmpfs");
        for (const char* name : {"bin", "dev", "etc", "proc", "run", "sys", "tmp"})
            fs::create_directories(rootfs() + "/" + name);
        for (const char* name : {"hostname", "hosts", "resolv.conf"})
            std::ofstream(rootfs() + "/etc/" + name);
        fs::copy_file(busybox, rootfs() + "/bin/busybox");
        fs::copy_file(payload, rootfs() + "/bin/payload");
        fs::create_directory(scratch());
        fs::create_directory(cgroup_);
        for (const char* controller : {"+memory", "+cpu", "+pids"}) {
            try {
                sys::write_file_at(AT_FDCWD, cgroup_ + "/cgroup.subtree_control", controller);
            } catch (const kumiki::error&) {  // not on this host: no contender limits by it
            }
        }
        const unique_fd any(sys::check(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), "socket"));
        ifreq loopback{.ifr_ifrn = {.ifrn_name = "lo"}, .ifr_ifru = {.ifru_flags = IFF_UP}};
        sys::check(::ioctl(any.get(), SIOCSIFFLAGS, &loopback), "set up", "lo");
    }
    place(const place&) = delete;
    place& operator=(const place&) = delete;
    ~place() {
        ::umount2(directory_.c_str(), MNT_DETACH);
        ::rmdir(directory_.c_str());
        for (const auto& entry : fs::directory_iterator(cgroup_))
            if (entry.is_directory()) ::rmdir(entry.path().c_str());
        ::rmdir(cgroup_.c_str());
    }

    const std::string& name() const noexcept { return name_; }
    const std::string& directory() const noexcept { return directory_; }
    /// The group above all starts, with the limits' controllers enabled.
    const std::string& cgroup() const noexcept { return cgroup_; }
    std::string rootfs() const { return directory_ + "/rootfs"; }
    /// A directory to mount on.
    std::string scratch() const { return directory_ + "/scratch"; }

  private:
    std::string name_;
    std::string directory_;
    std::string cgroup_;
};

}  // namespace bench
