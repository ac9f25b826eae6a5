// What an image could hold at a place that a start touches, and the witnesses that say whether
// anything outside of the container was changed by it. All of it is made by the test and goes with
// it: the sentinel is a tree of the test's own, outside of every container's root.
//
// Tests with mounts of their own run in a second process of the same program, in a mount namespace
// of its own: run_apart().
#pragma once

#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <spawn.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <stdexcept>
#include <string>
#include <vector>

#include <kumiki/sys/check.hpp>
#include <kumiki/sys/pidfd.hpp>

#include "support/busybox.hpp"
#include "support/leaks.hpp"

namespace kumiki_test {

inline std::string text_of(const std::string& path) {
    std::ifstream in(path);
    return {std::istreambuf_iterator<char>(in), {}};
}

// --- witnesses

/// A tree that nothing may change. Its snapshot has all that can be told of it.
class sentinel_tree : public temporary_directory {
  public:
    sentinel_tree() {
        namespace fs = std::filesystem;
        fs::create_directories(directory() + "/inner/deep");
        write_text(file(), "untouched\n");
        write_text(directory() + "/inner/passwd", "untouched\n");
        fs::create_symlink("file", directory() + "/link");
        // What a start could find here, were it to look: names of its own places.
        for (const char* name : {"null", "console", "ptmx", "hosts"})
            write_text(directory() + "/" + name, "untouched\n");
        for (const char* name : {"pts", "shm", "one", "self"})
            fs::create_directory(directory() + "/" + name);
    }
    std::string directory() const { return path() + "/tree"; }
    std::string file() const { return directory() + "/file"; }

    /// Names, types, modes, owners, sizes, device numbers, times of change, contents.
    std::map<std::string, std::string> snapshot() const {
        namespace fs = std::filesystem;
        std::map<std::string, std::string> found;
        found[path()] = described(path());
        for (const auto& entry : fs::recursive_directory_iterator(path()))
            found[entry.path().string()] = described(entry.path().string());
        return found;
    }

  private:
    static std::string described(const std::string& at) {
        struct stat info{};
        if (::lstat(at.c_str(), &info) != 0) return "gone";
        std::string text;
        for (const auto each :
             {std::uint64_t{info.st_mode}, std::uint64_t{info.st_uid}, std::uint64_t{info.st_gid},
              std::uint64_t(info.st_size), std::uint64_t{info.st_rdev},
              std::uint64_t{info.st_nlink}, std::uint64_t(info.st_ctim.tv_sec),
              std::uint64_t(info.st_ctim.tv_nsec)})
            text += std::to_string(each) + " ";
        if (S_ISREG(info.st_mode)) text += text_of(at);
        if (S_ISLNK(info.st_mode)) text += std::filesystem::read_symlink(at).string();
        return text;
    }
};

/// Kernel parameters of the host that an escape would want, or that a start could change by
/// mistake: none of these moves by itself.
inline std::map<std::string, std::string> host_parameters() {
    std::map<std::string, std::string> found;
    for (const char* name : {"kernel/core_pattern",
                             "kernel/core_uses_pid",
                             "kernel/modprobe",
                             "kernel/hotplug",
                             "kernel/hostname",
                             "kernel/domainname",
                             "kernel/sysrq",
                             "kernel/printk",
                             "kernel/panic",
                             "kernel/dmesg_restrict",
                             "kernel/kptr_restrict",
                             "kernel/pid_max",
                             "kernel/threads-max",
                             "kernel/randomize_va_space",
                             "kernel/shmmax",
                             "kernel/msgmax",
                             "kernel/sem",
                             "kernel/io_uring_disabled",
                             "kernel/perf_event_paranoid",
                             "kernel/unprivileged_bpf_disabled",
                             "fs/suid_dumpable",
                             "fs/file-max",
                             "fs/nr_open",
                             "fs/pipe-max-size",
                             "fs/protected_symlinks",
                             "fs/protected_hardlinks",
                             "fs/mount-max",
                             "fs/mqueue/msg_max",
                             "fs/inotify/max_user_watches",
                             "vm/overcommit_memory",
                             "vm/swappiness",
                             "vm/panic_on_oom",
                             "vm/max_map_count",
                             "vm/drop_caches",
                             "vm/mmap_min_addr",
                             "net/ipv4/ip_forward",
                             "net/ipv4/conf/all/rp_filter",
                             "net/ipv4/ping_group_range",
                             "net/ipv4/ip_unprivileged_port_start",
                             "net/ipv4/ip_default_ttl",
                             "net/ipv6/conf/all/forwarding",
                             "net/core/somaxconn",
                             "user/max_user_namespaces"}) {
        const std::string path = std::string("/proc/sys/") + name;
        if (std::ifstream(path)) found[name] = text_of(path);
    }
    return found;
}

/// All that an escape could have changed, as a value.
struct tree_witness {
    std::map<std::string, std::string> sentinel;
    std::map<std::string, std::string> parameters;
    std::vector<std::string> mounts;

    static tree_witness of(const sentinel_tree& tree) {
        return {tree.snapshot(), host_parameters(), holdings::lines("/proc/self/mountinfo")};
    }
    /// What is another now than it was `before`; empty: nothing is.
    std::string changes_since(const tree_witness& before) const {
        std::string text = changes(before.sentinel, sentinel);
        text += changes(before.parameters, parameters);
        if (mounts != before.mounts) text += "the host's mounts\n";
        return text;
    }

  private:
    static std::string changes(const std::map<std::string, std::string>& before,
                               const std::map<std::string, std::string>& after) {
        std::string text;
        for (const auto& [name, value] : before) {
            const auto now = after.find(name);
            if (now == after.end())
                text += name + " is gone\n";
            else if (now->second != value)
                text += name + " was " + value + " and is " + now->second + "\n";
        }
        for (const auto& [name, value] : after)
            if (!before.contains(name)) text += name + " is new: " + value + "\n";
        return text;
    }
};

// --- hostile objects

enum class hostile_kind {
    absolute_link,
    climbing_link,
    link_loop,
    dangling_link,
    regular_file,
    fifo,
    socket_file,
    wrong_device,
    full_directory,
    hard_link,
    nested_mount,
    longest_path,
};
inline constexpr std::size_t hostile_kinds = 12;
inline constexpr std::array<const char*, hostile_kinds> hostile_kind_names{
    "absolute link",  "climbing link", "link loop",    "dangling link",
    "regular file",   "FIFO",          "socket",       "wrong device",
    "full directory", "hard link",     "nested mount", "4,095 byte link"};

/// Whether a start wants a directory or a file at a place.
enum class wanted_there { directory, file };

/// An absolute path of 4,095 bytes that leads to `target`.
inline std::string longest_path_to(const std::string& target) {
    std::string path = target;
    while (path.size() + 2 <= 4095) path.insert(0, "/.");
    if (path.size() < 4095) path.insert(0, "/");
    return path;
}

inline void must(bool done, const std::string& what) {
    if (!done) throw std::runtime_error(what + ": " + std::to_string(errno));
}

/// Puts an object of `kind` at `at`, whose parent is there. A nested mount is the caller's to take
/// away again.
inline void make_hostile(hostile_kind kind, const std::string& at, wanted_there wanted,
                         const sentinel_tree& sentinel) {
    namespace fs = std::filesystem;
    const bool directory = wanted == wanted_there::directory;
    const std::string target = directory ? sentinel.directory() : sentinel.file();
    const auto node = [&](mode_t mode, dev_t device) {
        must(::mknod(at.c_str(), mode, device) == 0, "mknod " + at);
    };
    switch (kind) {
    case hostile_kind::absolute_link:
        return fs::create_symlink(target, at);
    case hostile_kind::climbing_link:
        return fs::create_symlink("../../../../../../../../../.." + target, at);
    case hostile_kind::link_loop:
        return fs::create_symlink(fs::path(at).filename(), at);
    case hostile_kind::dangling_link:
        return fs::create_symlink(sentinel.directory() + "/inner/absent", at);
    case hostile_kind::regular_file:
        return write_text(at, "an image's\n");
    case hostile_kind::fifo:
        return node(S_IFIFO | 0666, 0);
    case hostile_kind::socket_file:
        return node(S_IFSOCK | 0666, 0);
    case hostile_kind::wrong_device:
        return node(S_IFCHR | 0666, makedev(1, 5));
    case hostile_kind::full_directory:
        fs::create_directories(at + "/full/of");
        return write_text(at + "/things", "an image's\n");
    case hostile_kind::hard_link:
        must(::link(sentinel.file().c_str(), at.c_str()) == 0, "link " + at);
        return;
    case hostile_kind::nested_mount:
        if (directory)
            fs::create_directory(at);
        else
            write_text(at, "");
        must(::mount(target.c_str(), at.c_str(), nullptr, MS_BIND, nullptr) == 0, "mount " + at);
        return;
    case hostile_kind::longest_path:
        return fs::create_symlink(longest_path_to(target), at);
    }
}

// --- a process apart

/// Runs the hidden test `name` of this program in a process of its own, for two minutes at most;
/// yields its exit status.
inline int run_apart(const std::string& name, std::string& output) {
    const temporary_directory place;
    const std::string file = place.path() + "/output";
    std::vector<std::string> arguments{"/proc/self/exe", name};
    std::vector<char*> argv;
    for (std::string& argument : arguments) argv.push_back(argument.data());
    argv.push_back(nullptr);
    posix_spawn_file_actions_t actions;
    ::posix_spawn_file_actions_init(&actions);
    ::posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
    ::posix_spawn_file_actions_addopen(&actions, 1, file.c_str(), O_WRONLY | O_CREAT | O_TRUNC,
                                       0644);
    ::posix_spawn_file_actions_adddup2(&actions, 1, 2);
    pid_t pid = 0;
    const int failed = ::posix_spawn(&pid, argv[0], &actions, nullptr, argv.data(), environ);
    ::posix_spawn_file_actions_destroy(&actions);
    must(failed == 0, "posix_spawn");
    const kumiki::unique_fd pidfd = kumiki::sys::open_pidfd(pid);
    pollfd ended{.fd = pidfd.get(), .events = POLLIN, .revents = 0};
    if (::poll(&ended, 1, 120000) != 1) kumiki::sys::send_signal(pidfd.get(), SIGKILL);
    const int status = kumiki::sys::wait_blocking(pidfd.get()).shell_status();
    output = text_of(file);
    return status;
}

/// Gives this process, which has one thread, a mount namespace of its own. Its mounts are shared
/// among its descendants, as a host's usually are: what a start does not make private comes back.
inline void enter_own_mounts() {
    must(::unshare(CLONE_NEWNS) == 0, "unshare");
    must(::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0, "private mounts");
    must(::mount(nullptr, "/", nullptr, MS_REC | MS_SHARED, nullptr) == 0, "shared mounts");
}

}  // namespace kumiki_test
