// One control group held by a descriptor of its directory: created, filled, frozen, killed and
// removed. Every file is reached through the descriptor; the path is for messages.
//
// A group that was made here is removed with its handle. Kernel: cgroup.freeze 5.2, cgroup.kill 5.14
// (replaced by freeze and SIGKILL before that); the descriptor serves CLONE_INTO_CGROUP (5.7).
// Awaiting events and the end without a thread is events.hpp's; threads and users, delegate.hpp's.
#pragma once

#include <fcntl.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <kumiki/cgroup/controller.hpp>
#include <kumiki/cgroup/tree.hpp>
#include <kumiki/core/error.hpp>
#include <kumiki/core/observer.hpp>
#include <kumiki/core/text.hpp>
#include <kumiki/core/unique_fd.hpp>
#include <kumiki/sys/abi.hpp>
#include <kumiki/sys/check.hpp>
#include <kumiki/sys/file.hpp>

namespace kumiki::inline v0 {

/// A group of the wanted name is already there: of a container that runs, or left by a program
/// that was killed.
class cgroup_name_taken : public error {
  public:
    cgroup_name_taken(const std::string& path, bool populated)
        : error(EEXIST,
                {.operation = "create control group",
                 .object = path,
                 .remedy = populated ? "The name is in use, with processes in it: choose another, "
                                       "or end them."
                                     : "It has no process in it, so it is likely left over from a "
                                       "program that was killed: remove it with rmdir."}),
          populated_(populated) {}
    /// True when there are processes in it.
    bool is_populated() const noexcept { return populated_; }

  private:
    bool populated_;
};

/// Owns the descriptor of a group's directory and, when it created or adopted it, the group.
///
/// The destructor of an owned group kills what is left in it and removes it with all groups below;
/// it waits for at most two seconds and reports to the observer what it could not remove.
class cgroup {
  public:
    /// Holds nothing.
    cgroup() noexcept = default;
    /// Creates the group `name` below `parent`; it is owned.
    /// Errors: invalid_input for the name; cgroup_name_taken; EACCES; EROFS; EAGAIN at
    /// cgroup.max.descendants; ENOENT when the parent has been removed.
    static cgroup create(const cgroup& parent, std::string_view name);
    /// The group at `path`, which is not owned: the handle's end leaves it alone.
    static cgroup open(std::string path) {
        require_c_string("cgroup path", path);
        unique_fd directory = sys::open_at(AT_FDCWD, path, O_PATH | O_DIRECTORY);
        if (sys::filesystem_magic(directory.get()) != sys::cgroup2_super_magic)
            throw invalid_input("cgroup", path, "It is not a directory of cgroup v2.");
        return cgroup(std::move(directory), std::move(path), false);
    }
    /// The group `name` directly below `parent`, not owned. Errors: ENOENT.
    static cgroup open(const cgroup& parent, const std::string& name) {
        detail::require_group_name(name);
        return cgroup(sys::open_at(parent.fd(), name, O_PATH | O_DIRECTORY),
                      parent.path_ + '/' + name, false);
    }
    /// Takes over a group with its descriptor; it is owned from now on.
    static cgroup adopt(unique_fd directory, std::string path) {
        if (!directory || sys::filesystem_magic(directory.get()) != sys::cgroup2_super_magic)
            throw invalid_input("cgroup", path, "It is not a directory of cgroup v2.");
        return cgroup(std::move(directory), std::move(path), true);
    }
    cgroup(cgroup&&) noexcept = default;
    cgroup& operator=(cgroup&& other) noexcept {
        cgroup old(std::move(*this));
        fd_ = std::move(other.fd_);
        path_ = std::move(other.path_);
        owned_ = other.owned_;
        removal_ = std::move(other.removal_);
        return *this;
    }
    ~cgroup() {
        if (fd_ && owned_) detail::release_quietly([&] { destroy(); });
    }

    /// The descriptor (O_PATH) of the directory: for openat(2) and CLONE_INTO_CGROUP.
    int fd() const noexcept { return fd_.get(); }
    explicit operator bool() const noexcept { return static_cast<bool>(fd_); }
    const std::string& path() const noexcept { return path_; }
    std::string_view name() const noexcept {
        return std::string_view(path_).substr(path_.rfind('/') + 1);
    }
    /// The kernel's number of the group, unique until the next boot.
    std::uint64_t id() const { return sys::status_of(fd()).st_ino; }
    /// True when the group goes with this handle.
    bool is_owned() const noexcept { return owned_; }
    /// An eventfd that becomes readable, for good, when this handle has removed the group.
    std::shared_ptr<const unique_fd> removal() const {
        if (!removal_)
            removal_ = std::make_shared<unique_fd>(
                sys::check(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), "make an eventfd"));
        return removal_;
    }
    /// The group outlives this handle from now on.
    void disown() noexcept { owned_ = false; }
    /// Gives the descriptor away; the group stays.
    [[nodiscard]] unique_fd release() noexcept { return std::move(fd_); }

    /// The text of a control file. Errors: ENOENT (no such file, or the group has been removed).
    std::string read(const std::string& key) const {
        return sys::read_all(sys::open_at(fd(), key, O_RDONLY).get(), path_ + '/' + key);
    }
    /// The text of a control file; nothing when it or the group does not exist.
    std::optional<std::string> try_read(const std::string& key) const {
        return detail::try_read_control(fd(), key);
    }
    /// Writes a control file in one piece.
    /// Errors: what the kernel refused, with key, value, errno and what may be the cause.
    void write(const std::string& key, std::string_view value) const;

    /// What the parent gives to this group.
    controllers available() const { return parse_controllers(read("cgroup.controllers")); }
    /// What this group gives to the groups below it.
    controllers enabled() const { return parse_controllers(read("cgroup.subtree_control")); }

    /// Moves a whole process into the group. Errors: ESRCH; EBUSY; EACCES.
    void attach(pid_t pid) const { write("cgroup.procs", std::to_string(pid)); }
    /// The processes of this group itself; 0 stands for one that the caller's pid namespace lacks.
    std::vector<pid_t> procs() const {
        std::vector<pid_t> found;
        const std::string text = read("cgroup.procs");
        for (std::string_view rest = text; const auto line = next_field(rest, '\n');)
            found.push_back(require_number<pid_t>("process number", *line));
        return found;
    }
    /// True when there are processes in it or below it; false also when it has been removed.
    bool is_populated() const { return event("populated"); }
    /// True when all of its processes have stopped; freeze() only asks for it.
    bool is_frozen() const { return event("frozen"); }
    void freeze() const { write("cgroup.freeze", "1"); }
    void thaw() const { write("cgroup.freeze", "0"); }

    /// Sends SIGKILL to all processes in it and below it, frozen ones included. They end soon
    /// after: see wait_empty(). No error when the group has been removed.
    void kill() const;
    /// Waits until no process is in it or below it; false when `patience` is over before.
    bool wait_empty(std::chrono::milliseconds patience) const;
    /// Removes the group and the groups below it; false when there are still processes.
    bool try_remove();
    /// As try_remove(), but waits for processes that are just ending.
    /// Errors: EBUSY after `patience`, with the processes that are left.
    void remove(std::chrono::milliseconds patience = std::chrono::milliseconds(2000));
    /// Removes the group; kills what is in it first.
    void destroy(std::chrono::milliseconds patience = std::chrono::milliseconds(2000)) {
        if (try_remove()) return;
        kill();
        remove(patience);
    }

  private:
    cgroup(unique_fd directory, std::string path, bool owned)
        : fd_(std::move(directory)), path_(std::move(path)), owned_(owned) {
        while (path_.size() > 1 && path_.ends_with('/')) path_.pop_back();
    }
    bool event(std::string_view key) const {
        const auto text = try_read("cgroup.events");
        return text && flat_value(*text, key).value_or(0) != 0;
    }

    unique_fd fd_;
    std::string path_;
    bool owned_ = false;
    mutable std::shared_ptr<unique_fd> removal_;  // made when it is first asked for
};

inline cgroup cgroup::create(const cgroup& parent, std::string_view name) {
    detail::require_group_name(name);
    const std::string file(name);
    std::string path = parent.path_ + '/' + file;
    const int made = ::mkdirat(parent.fd(), file.c_str(), 0755);
    if (made != 0 && errno == EEXIST) {
        const auto events = detail::try_read_control(parent.fd(), file + "/cgroup.events");
        throw cgroup_name_taken(path, events && flat_value(*events, "populated") == 1U);
    }
    sys::check(made, [&] {
        const int code = errno;
        return error_context{.operation = "create control group",
                             .object = path,
                             .remedy = code == EAGAIN
                                           ? "cgroup.max.descendants or cgroup.max.depth "
                                             "of a group above is reached."
                                           : detail::write_remedy(code, {})};
    });
    try {
        return cgroup(sys::open_at(parent.fd(), file, O_PATH | O_DIRECTORY), path, true);
    } catch (...) {
        ::unlinkat(parent.fd(), file.c_str(), AT_REMOVEDIR);
        throw;
    }
}

inline void cgroup::write(const std::string& key, std::string_view value) const {
    try {
        sys::write_file_at(fd(), key, value, path_ + '/' + key);
    } catch (const error& failure) {
        // One form for all of them, also when the file could not be opened.
        const int code = failure.errno_value();
        throw error(code, {.operation = "write '" + std::string(value) + "' to",
                           .object = path_ + '/' + key,
                           .remedy = detail::write_remedy(code, key)});
    }
}

inline void cgroup::kill() const {
    const auto file = sys::try_open_at(fd(), "cgroup.kill", O_WRONLY);
    if (!file) return detail::kill_by_signals(fd());
    const auto result = sys::retry([&] { return ::write(file->get(), "1", 1); });
    if (result < 0 && errno == ENODEV) return;
    sys::check(result, "kill all processes of", path_);
}

inline bool cgroup::wait_empty(std::chrono::milliseconds patience) const {
    const auto until = std::chrono::steady_clock::now() + patience;
    const auto file = sys::try_open_at(fd(), "cgroup.events", O_RDONLY);
    if (!file) return true;
    for (;;) {
        // Read before each wait: a change after the read makes the poll return.
        char text[256];
        const auto size = ::pread(file->get(), text, sizeof text, 0);
        if (size < 0 && errno == ENODEV) return true;
        sys::check(size, "read the events of", path_);
        const std::string_view read(text, static_cast<std::size_t>(size));
        if (flat_value(read, "populated").value_or(0) == 0) return true;
        const auto left =
            std::chrono::ceil<std::chrono::milliseconds>(until - std::chrono::steady_clock::now());
        if (left.count() <= 0) return false;
        pollfd wait{.fd = file->get(), .events = POLLPRI, .revents = 0};
        ::poll(&wait, 1, static_cast<int>(std::min<std::int64_t>(left.count(), 1'000'000)));
    }
}

inline bool cgroup::try_remove() {
    // From the group up and down again: no descriptor of the parent is needed. The name may be
    // another group's by now, if somebody removed this one: that one is left alone.
    const std::string self = "../" + std::string(name());
    struct stat there{};
    const bool gone = ::fstatat(fd(), self.c_str(), &there, AT_SYMLINK_NOFOLLOW) != 0
                          ? errno == ENOENT || errno == ENODEV
                          : there.st_ino != id();
    if (gone || detail::try_remove_group(fd(), self, path_) ||
        (detail::remove_groups_below(fd(), path_) && detail::try_remove_group(fd(), self, path_))) {
        owned_ = false;
        if (removal_) ::eventfd_write(removal_->get(), 1);
        return true;
    }
    return false;
}

inline void cgroup::remove(std::chrono::milliseconds patience) {
    const auto until = std::chrono::steady_clock::now() + patience;
    // The kernel tells of an empty group at most every 10 ms, and a group can be busy for a moment
    // longer than it is populated: so ask again, ever more rarely, until an event or the end.
    constexpr std::chrono::milliseconds longest(64);
    for (std::chrono::milliseconds pause(1); !try_remove(); pause = std::min(2 * pause, longest)) {
        const auto left =
            std::chrono::ceil<std::chrono::milliseconds>(until - std::chrono::steady_clock::now());
        if (left.count() <= 0) {
            std::vector<pid_t> processes;
            detail::collect_processes(fd(), processes);
            std::string shown;
            for (const pid_t pid : processes) shown += ' ' + std::to_string(pid);
            throw error(EBUSY, {.operation = "remove control group",
                                .object = path_,
                                .remedy = shown.empty() ? "It has no process that can be seen here."
                                                        : "These processes are in it:" + shown});
        }
        const auto nap = std::min(pause, left);
        if (!wait_empty(nap)) continue;
        if (!try_remove())
            ::poll(nullptr, 0, static_cast<int>(nap.count()));
        else
            return;
    }
}

}  // namespace kumiki::inline v0
