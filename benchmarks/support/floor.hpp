// The floor: a full container by bare system calls in sequence, as one would write it in C for this
// one configuration: no plan, no names in errors, nothing released when a step fails. What it takes
// is what the kernel charges.
//
// It uses the kernel's cheapest forms that need no second thread and nothing made ahead: clone3 with
// the parent's memory (CLONE_VM | CLONE_VFORK) into the cgroup, the mount calls on descriptors, one
// mask cloned for each masked path. Every step is stamped. Of the library it borrows the few lines of
// assembly that call clone3 with another stack. Linux 5.12; x86-64 and aarch64.
#pragma once

#include <fcntl.h>
#include <linux/sched.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cstddef>
#include <cstring>
#include <initializer_list>
#include <span>
#include <string>
#include <vector>

#include <kumiki/sys/raw.hpp>

#include "bare_profile.hpp"
#include "floor_network.hpp"
#include "level.hpp"
#include "place.hpp"
#include "profile.hpp"

namespace bench {

/// Time stamps of one start: each step's name and when it began.
struct steps {
    struct stamp {
        const char* name;
        std::uint64_t at;
    };
    std::array<stamp, 48> stamps{};
    std::size_t count = 0;

    void begin(const char* name) noexcept { stamps.at(count++) = {name, now()}; }
};

/// Starts containers by bare system calls.
class floor_start {
  public:
    /// `network` may be null: a network namespace in which only lo is, and up. With less than all
    /// levels, what belongs to those above `upto` is left out.
    floor_start(const place& where, floor_network* network, level upto = level::security)
        : upto_(upto), rootfs_(where.rootfs()), scratch_(where.scratch()),
          upper_(scratch_ + "/upper"), work_(scratch_ + "/work"),
          cgroup_(where.cgroup() + (network != nullptr ? "/floor-net" : "/floor")),
          network_(network),
          stack_(static_cast<char*>(::mmap(nullptr, stack_size, PROT_READ | PROT_WRITE,
                                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0))) {}
    floor_start(const floor_start&) = delete;
    floor_start& operator=(const floor_start&) = delete;
    ~floor_start() { ::munmap(stack_, stack_size); }

    /// One container from nothing to nothing.
    sample run() {
        stamp_pipe output;
        output_ = output.write_end();
        steps_.count = 0;
        if (network_ != nullptr) network_->next_port();
        unique_fd cgroup;
        if (upto_ >= level::cgroup) {
            step("cgroup: make, open, limit");
            check(::mkdir(cgroup_.c_str(), 0755));
            cgroup.reset(::open(cgroup_.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
            for (const auto& [file, value] : limits) {
                const unique_fd limit(::openat(cgroup.get(), file, O_WRONLY | O_CLOEXEC));
                if (limit) check(::write(limit.get(), value, std::strlen(value)));
            }
        }
        step("clone3");
        int pidfd = -1;
        sys::clone_arguments args{};
        args.flags = CLONE_VM | CLONE_VFORK | CLONE_PIDFD | CLONE_NEWPID | CLONE_NEWNS |
                     CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWNET | (cgroup ? CLONE_INTO_CGROUP : 0U);
        args.pidfd = reinterpret_cast<std::uintptr_t>(&pidfd);
        args.exit_signal = SIGCHLD;
        args.stack = reinterpret_cast<std::uintptr_t>(stack_);
        args.stack_size = stack_size;
        args.cgroup = cgroup ? static_cast<std::uint64_t>(cgroup.get()) : 0;
        const long child = sys::clone_on_stack(
            args, [](void* self) { static_cast<floor_start*>(self)->in_child(); }, this);
        if (child < 0) failed_ = static_cast<int>(-child);
        check(child);
        const unique_fd process(pidfd);
        if (failed_ != 0) {
            ::waitid(P_PIDFD, static_cast<id_t>(pidfd), nullptr, WEXITED);
            check(-1);
        }
        const std::uint64_t first = output.wait();
        step("exit: payload ends, namespaces go");
        pollfd ended{.fd = pidfd, .events = POLLIN, .revents = 0};
        check(::poll(&ended, 1, -1));
        step("waitid");
        siginfo_t status;
        check(::waitid(P_PIDFD, static_cast<id_t>(pidfd), &status, WEXITED));
        if (cgroup) {
            step("cgroup: remove");
            while (::rmdir(cgroup_.c_str()) != 0 && errno == EBUSY) ::usleep(50);
        }
        if (network_ != nullptr && upto_ >= level::port) {
            step("network: element out");
            check(network_->remove());
        }
        step("end");
        const std::uint64_t start = steps_.stamps[0].at;
        return {.first = static_cast<double>(first - start) / 1000,
                .released = static_cast<double>(steps_.stamps[steps_.count - 1].at - start) / 1000};
    }

    /// The seccomp program.
    std::span<const sock_filter> filter() const noexcept { return profile_.filter(); }
    /// The stamps of the last run.
    const steps& stamps() const noexcept { return steps_; }

  private:
    static constexpr std::size_t stack_size = std::size_t{64} << 10;

    void step(const char* name) noexcept { steps_.begin(name); }

    /// In the parent: an error that names the step. In the child: the errno, left in shared memory.
    void check(long result) {
        if (result >= 0) return;
        throw kumiki::error(
            failed_ != 0 ? failed_ : errno,
            {.operation = "floor", .object = steps_.stamps.at(steps_.count - 1).name});
    }
    long must(long result) noexcept {
        if (result >= 0) return result;
        failed_ = errno;
        ::_exit(125);
    }

    struct option {
        const char* key;
        const char* value;
    };
    /// A new filesystem as a detached mount.
    int make(const char* type, unsigned attributes, std::initializer_list<option> options = {}) {
        const auto context = static_cast<int>(must(::syscall(SYS_fsopen, type, FSOPEN_CLOEXEC)));
        for (const auto& [key, value] : options)
            must(::syscall(SYS_fsconfig, context, FSCONFIG_SET_STRING, key, value, 0));
        must(::syscall(SYS_fsconfig, context, FSCONFIG_CMD_CREATE, nullptr, nullptr, 0));
        const long mount = must(::syscall(SYS_fsmount, context, FSMOUNT_CLOEXEC, attributes));
        ::close(context);
        return static_cast<int>(mount);
    }
    static long move(int mount, int directory, const char* path) {
        return ::syscall(SYS_move_mount, mount, "", directory, path, MOVE_MOUNT_F_EMPTY_PATH);
    }
    void attach(int mount, int directory, const char* path) {
        must(move(mount, directory, path));
        ::close(mount);
    }
    int clone_tree(int directory, const char* path, unsigned flags = 0) {
        return static_cast<int>(
            ::syscall(SYS_open_tree, directory, path, flags | OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC));
    }

    static constexpr unsigned no_suid_exec = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC;
    static constexpr unsigned quiet = no_suid_exec | MOUNT_ATTR_NODEV;

    [[noreturn]] void in_child() {
        step("cgroup namespace, session");
        if (upto_ >= level::cgroup) must(::unshare(CLONE_NEWCGROUP));
        must(::setsid());
        if (upto_ >= level::rootfs) change_root();
        must(::sethostname("bench", 5));
        if (network_ == nullptr) {
            step("network: lo up");
            ifreq loopback{};
            std::memcpy(loopback.ifr_name, "lo", 3);
            loopback.ifr_flags = IFF_UP;
            const auto any = static_cast<int>(must(::socket(AF_INET, SOCK_DGRAM, 0)));
            must(::ioctl(any, SIOCSIFFLAGS, &loopback));
        } else {
            step("network: veth");
            must(network_->add_link());
            step("network: addresses, routes");
            must(network_->configure_inside());
            if (upto_ >= level::port) {
                step("network: dnat element");
                must(network_->publish());
            }
        }
        if (upto_ >= level::security) {
            step("capabilities");
            must(profile_.drop_capabilities());
            step("no_new_privs, seccomp");
            must(profile_.install_filter());
        }
        step("descriptors, execve, first instruction");
        must(::dup2(output_, STDOUT_FILENO));
        must(::syscall(SYS_close_range, 3, ~0U, 0));
        const std::string outside = rootfs_ + "/bin/payload";
        const char* const args[] = {upto_ >= level::rootfs ? "/bin/payload" : outside.c_str(),
                                    nullptr};
        const char* const environment[] = {"PATH=/bin", nullptr};
        must(::syscall(SYS_execve, args[0], args, environment));
        ::_exit(126);
    }

    /// The root filesystem and all that is mounted in it.
    void change_root() {
        step("mounts: propagation off");
        must(::mount(nullptr, "/", nullptr, MS_REC | MS_SLAVE, nullptr));
        step("mounts: tmpfs for the upper layer");
        attach(make("tmpfs", 0, {{"mode", "755"}, {"size", "64m"}}), AT_FDCWD, scratch_.c_str());
        must(::mkdir(upper_.c_str(), 0755));
        must(::mkdir(work_.c_str(), 0755));
        step("files of /etc");
        make_files();
        step("mounts: overlay");
        attach(make("overlay", 0,
                    {{"lowerdir", rootfs_.c_str()},
                     {"upperdir", upper_.c_str()},
                     {"workdir", work_.c_str()}}),
               AT_FDCWD, scratch_.c_str());
        must(::chdir(scratch_.c_str()));
        step("mounts: proc, sysfs, cgroup2");
        attach(make("proc", quiet), AT_FDCWD, "proc");
        attach(make("sysfs", quiet | MOUNT_ATTR_RDONLY), AT_FDCWD, "sys");
        if (upto_ >= level::cgroup)
            attach(make("cgroup2", quiet | MOUNT_ATTR_RDONLY), AT_FDCWD, "sys/fs/cgroup");
        step("mounts: /dev and its nodes");
        const int dev = make_dev();
        step("mounts: devpts, shm, mqueue");
        attach(make("devpts", no_suid_exec, {{"ptmxmode", "0666"}, {"mode", "0620"}}), dev, "pts");
        attach(make("tmpfs", quiet, {{"mode", "1777"}, {"size", "65536k"}}), dev, "shm");
        attach(make("mqueue", quiet), dev, "mqueue");
        if (upto_ >= level::security) guard_paths(dev);
        step("mounts: pivot_root");
        must(::syscall(SYS_pivot_root, ".", "."));
        step("mounts: old root gone");
        must(::umount2(".", MNT_DETACH));
        must(::chdir("/"));
    }
    void guard_paths(int dev) {
        step("mounts: masked paths");
        mask(dev);
        step("mounts: read-only paths");
        for (const char* path : read_only_paths) {
            const int tree = clone_tree(AT_FDCWD, path, AT_RECURSIVE);
            if (tree < 0) continue;
            mount_attr read_only{};
            read_only.attr_set = MOUNT_ATTR_RDONLY;
            must(::syscall(SYS_mount_setattr, tree, "", AT_EMPTY_PATH | AT_RECURSIVE, &read_only,
                           sizeof read_only));
            attach(tree, AT_FDCWD, path);
        }
    }

    /// Into the upper layer before it is one: no mount for each.
    void make_files() {
        static constexpr const char* files[][2] = {{"hosts", "127.0.0.1 localhost\n"},
                                                   {"hostname", "bench\n"},
                                                   {"resolv.conf", "nameserver 10.0.0.53\n"}};
        const auto upper = static_cast<int>(must(::open(upper_.c_str(), O_PATH | O_CLOEXEC)));
        must(::mkdirat(upper, "etc", 0755));
        const auto etc = static_cast<int>(must(::openat(upper, "etc", O_PATH | O_CLOEXEC)));
        for (const auto& [name, text] : files) {
            const int flags = O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC;
            const auto fd = static_cast<int>(must(::openat(etc, name, flags, 0644)));
            must(::write(fd, text, std::strlen(text)));
            ::close(fd);
        }
    }

    int make_dev() {
        const int dev = make("tmpfs", MOUNT_ATTR_NOSUID, {{"mode", "755"}, {"size", "65536k"}});
        struct node {
            const char* name;
            unsigned major, minor;
        };
        static constexpr node nodes[] = {{"null", 1, 3},   {"zero", 1, 5},    {"full", 1, 7},
                                         {"random", 1, 8}, {"urandom", 1, 9}, {"tty", 5, 0}};
        const mode_t before = ::umask(0);
        for (const auto& [name, major, minor] : nodes)
            must(::mknodat(dev, name, S_IFCHR | 0666, makedev(major, minor)));
        static constexpr const char* links[][2] = {{"/proc/self/fd", "fd"},
                                                   {"/proc/self/fd/0", "stdin"},
                                                   {"/proc/self/fd/1", "stdout"},
                                                   {"/proc/self/fd/2", "stderr"},
                                                   {"pts/ptmx", "ptmx"}};
        for (const auto& [to, name] : links) must(::symlinkat(to, dev, name));
        for (const char* name : {"pts", "shm", "mqueue"}) must(::mkdirat(dev, name, 0755));
        ::umask(before);
        must(move(dev, AT_FDCWD, "dev"));
        return dev;
    }

    /// /dev/null over files, one empty tmpfs over all directories. No mount is closed that was not
    /// attached before: that would wait for an RCU grace period.
    void mask(int dev) {
        int empty = -1;
        for (const char* path : masked_paths) {
            struct stat info;
            if (::stat(path, &info) != 0) continue;
            if (!S_ISDIR(info.st_mode)) {
                attach(static_cast<int>(must(clone_tree(dev, "null"))), AT_FDCWD, path);
            } else if (empty < 0) {
                empty = make("tmpfs", quiet | MOUNT_ATTR_RDONLY, {{"nr_inodes", "2"}});
                must(move(empty, AT_FDCWD, path));
            } else {
                attach(static_cast<int>(must(clone_tree(empty, "", AT_EMPTY_PATH))), AT_FDCWD,
                       path);
            }
        }
        if (empty >= 0) ::close(empty);
    }

    level upto_;
    std::string rootfs_;
    std::string scratch_;
    std::string upper_;
    std::string work_;
    std::string cgroup_;
    floor_network* network_;
    char* stack_;
    bare_profile profile_;
    steps steps_;
    int output_ = -1;
    int failed_ = 0;
};

}  // namespace bench
