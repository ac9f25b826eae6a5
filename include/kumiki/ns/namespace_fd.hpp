// A namespace held by a descriptor: it lives as long as the descriptor, with or without a process
// in it, and it is compared by identity and never by path or process number.
//
// nsfs and its ioctls are 4.9 (NS_GET_NSTYPE, NS_GET_OWNER_UID 4.11); opening by pidfd alone is
// 6.11 and falls back to /proc. Creating is elsewhere (make_namespace.hpp,
// user_namespace.hpp, clone3 for a container's own), as are entering several, pinning and listing.
// Sources: namespaces(7), ioctl_ns(2), setns(2).
#pragma once

#include <fcntl.h>
#include <linux/nsfs.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/types.h>

#include <cerrno>
#include <compare>
#include <optional>
#include <string>
#include <utility>

#include <kumiki/core/error.hpp>
#include <kumiki/core/text.hpp>
#include <kumiki/core/unique_fd.hpp>
#include <kumiki/ns/kind.hpp>
#include <kumiki/sys/check.hpp>
#include <kumiki/sys/file.hpp>
#include <kumiki/sys/pidfd.hpp>

namespace kumiki::inline v0 {

/// What makes a namespace itself for as long as it lives.
struct namespace_identity {
    dev_t device = 0;
    ino_t inode = 0;
    constexpr auto operator<=>(const namespace_identity&) const = default;
};

/// Owns a descriptor of one namespace.
class namespace_fd {
  public:
    /// Holds nothing.
    namespace_fd() noexcept = default;
    /// Takes over a descriptor from elsewhere. Errors: invalid_input when it is no namespace's.
    explicit namespace_fd(unique_fd fd) : fd_(std::move(fd)) {
        if (!fd_ || sys::filesystem_magic(fd_.get()) != sys::nsfs_magic)
            throw invalid_input("namespace", std::to_string(fd_.get()),
                                "The descriptor does not name a namespace.");
    }

    /// The namespace that `path` is: a link like /proc/1/ns/net, or a file that one is pinned to.
    static namespace_fd open(const std::string& path) {
        require_c_string("namespace path", path);
        unique_fd fd = sys::open_at(AT_FDCWD, path, O_RDONLY);
        if (sys::filesystem_magic(fd.get()) != sys::nsfs_magic)
            throw invalid_input("namespace", path,
                                "The file is not a namespace. Give a link below /proc/PID/ns, or a "
                                "file that a namespace is mounted on.");
        return namespace_fd(std::move(fd));
    }
    /// The namespace of one kind that process `pid` is in. The number may already be another
    /// process's: prefer of_pidfd() for a process that is not a child of this one.
    /// Errors: ENOENT when there is no such process; EACCES without ptrace access to it.
    static namespace_fd of_process(pid_t pid, namespace_kind kind) {
        return open("/proc/" + std::to_string(pid) + link(kind));
    }
    /// The namespace of one kind that the process behind `pidfd` is in.
    /// Errors: ESRCH when it has ended.
    static namespace_fd of_pidfd(int pidfd, namespace_kind kind) {
        const int direct = sys::retry([&] { return ::ioctl(pidfd, pidfd_request(kind), 0); });
        if (direct >= 0) return namespace_fd(unique_fd(direct));
        // ENOTTY, and EINVAL from some backports: before 6.11. All else is asked again by way of
        // /proc, whose answers (ENOENT, EACCES) say more.
        const std::string shown = std::to_string(pidfd);
        const auto info = sys::read_file_at(AT_FDCWD, "/proc/self/fdinfo/" + shown);
        const auto pid = pid_of(info);
        if (!pid) throw invalid_input("pidfd", shown, "It is not the descriptor of a process.");
        const auto gone = [&] {
            return error(ESRCH, {.operation = "open the " + to_string(kind) + " namespace of",
                                 .object = "process " + std::to_string(*pid)});
        };
        if (*pid <= 0) throw gone();
        auto found =
            sys::try_open_at(AT_FDCWD, "/proc/" + std::to_string(*pid) + link(kind), O_RDONLY);
        // Still signalable after the open: so the number was this process's all along.
        if (!found || !sys::send_signal(pidfd, 0)) throw gone();
        return namespace_fd(std::move(*found));
    }
    /// The one that the calling thread is in.
    static namespace_fd current(namespace_kind kind) {
        return open("/proc/thread-self" + link(kind));
    }

    int get() const noexcept { return fd_.get(); }
    explicit operator bool() const noexcept { return static_cast<bool>(fd_); }
    /// Gives the plain descriptor away.
    [[nodiscard]] unique_fd release() noexcept { return std::move(fd_); }
    /// A second handle to the same namespace.
    namespace_fd duplicate() const {
        return namespace_fd(unique_fd(
            sys::check(::fcntl(fd_.get(), F_DUPFD_CLOEXEC, 3), "duplicate the namespace handle")));
    }

    namespace_identity identity() const {
        const struct stat info = sys::status_of(fd_.get());
        return {info.st_dev, info.st_ino};
    }
    friend bool operator==(const namespace_fd& a, const namespace_fd& b) {
        return a.identity() == b.identity();
    }
    /// Which kind it is. Kernel: 4.11.
    namespace_kind kind() const {
        const int bits = sys::check(::ioctl(fd_.get(), NS_GET_NSTYPE), "ask a namespace's kind");
        return static_cast<namespace_kind>(static_cast<unsigned>(bits));
    }
    /// The user namespace whose capabilities rule over this one; nothing when it is outside of
    /// what the caller may see (the owner of the initial ones, for instance).
    std::optional<namespace_fd> owner() const { return related(NS_GET_USERNS, "owner"); }
    /// The pid or user namespace that this one was made in; nothing when that is out of sight.
    /// Errors: EINVAL for kinds that have no hierarchy.
    std::optional<namespace_fd> parent() const { return related(NS_GET_PARENT, "parent"); }
    /// The user that made a user namespace. Errors: EINVAL for other kinds.
    uid_t owner_uid() const {
        uid_t uid = 0;
        sys::check(::ioctl(fd_.get(), NS_GET_OWNER_UID, &uid), "ask a user namespace's owner");
        return uid;
    }

    /// Moves the calling thread into it (setns(2)).
    ///
    /// Never on a thread that owns an io_uring ring: its worker threads keep the old namespaces.
    /// User and mount namespaces cannot be entered from a program with several threads at all.
    /// Errors: EPERM, EINVAL, ENOMEM (a pid namespace whose init has ended).
    void enter() const {
        const auto which = kind();
        sys::check(::setns(fd_.get(), static_cast<int>(to_underlying(which))), [&] {
            return error_context{.operation = "enter the namespace",
                                 .object = to_string(which),
                                 .remedy = refusal(errno, which)};
        });
    }

    /// What to do about an errno value with which setns(2) refused namespaces of `kinds`.
    static std::string refusal(int code, namespace_kind kinds) {
        constexpr namespace_kind alone =
            namespace_kind::user | namespace_kind::mount | namespace_kind::time;
        if (code == EPERM)
            return "The caller needs CAP_SYS_ADMIN in the user namespace that owns it.";
        if ((code == EINVAL || code == EUSERS) && (kinds & alone) != namespace_kind::none)
            return "A " + to_string(kinds & alone) +
                   " namespace can only be entered by a process with a single thread: enter it "
                   "from a new child.";
        return {};
    }

  private:
    static std::string link(namespace_kind kind) {
        const auto info = describe(kind);
        if (!info)
            throw invalid_input("namespace kind", to_string(kind), "It must be exactly one kind.");
        return "/ns/" + std::string(info->proc_name);
    }
    /// PIDFD_GET_*_NAMESPACE of linux/pidfd.h: 6.11.
    static unsigned long pidfd_request(namespace_kind kind) {
        switch (kind) {
        case namespace_kind::cgroup:
            return _IO(0xff, 1);
        case namespace_kind::ipc:
            return _IO(0xff, 2);
        case namespace_kind::mount:
            return _IO(0xff, 3);
        case namespace_kind::net:
            return _IO(0xff, 4);
        case namespace_kind::pid:
            return _IO(0xff, 5);
        case namespace_kind::time:
            return _IO(0xff, 7);
        case namespace_kind::user:
            return _IO(0xff, 9);
        case namespace_kind::uts:
            return _IO(0xff, 10);
        default:
            static_cast<void>(link(kind));
            return 0;
        }
    }
    /// The number in a pidfd's fdinfo (proc_pid_fdinfo(5)): -1 after the process is gone.
    static std::optional<pid_t> pid_of(std::string_view fdinfo) {
        while (const auto line = next_field(fdinfo, '\n'))
            if (line->starts_with("Pid:")) return parse_number<pid_t>(trim(line->substr(4)));
        return std::nullopt;
    }
    std::optional<namespace_fd> related(unsigned long request, const char* which) const {
        const int fd = ::ioctl(fd_.get(), request);
        if (fd < 0 && errno == EPERM) return std::nullopt;
        sys::check(fd, "ask for a namespace's", which);
        return namespace_fd(unique_fd(fd));
    }

    unique_fd fd_;
};

}  // namespace kumiki::inline v0
