// One control group held by a descriptor of its directory: created, filled, frozen, killed and
// removed. Every file is reached through the descriptor; the path is for messages.
//
// A group that was made here is removed with its handle. Kernel: cgroup.freeze 5.2, cgroup.kill 5.14
// (replaced by freeze and SIGKILL before that); the descriptor serves CLONE_INTO_CGROUP (5.7).
// Awaiting events and the end without a thread is events.hpp's; threads and users, delegate.hpp's.
#pragma once

#include <fcntl.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

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
#include <kumiki/cgroup/errors.hpp>
#include <kumiki/cgroup/tree.hpp>
#include <kumiki/core/error.hpp>
#include <kumiki/core/observer.hpp>
#include <kumiki/core/text.hpp>
#include <kumiki/core/unique_fd.hpp>
#include <kumiki/sys/abi.hpp>
#include <kumiki/sys/check.hpp>
#include <kumiki/sys/file.hpp>

namespace kumiki::inline v0 {

/// Owns the descriptor of a group's directory and, when it created or adopted it, the group.
///
/// The destructor of an owned group kills what is left in it and removes it with all groups below;
/// it waits for at most two seconds and reports to the observer what it could not remove.
class cgroup {
  public:
    /// Holds nothing.
    cgroup() noexcept = default;
    /// Creates the group `name` below `parent`; it is owned.
    /// Errors: invalid_input for the name; cgroup_name_taken; cgroup_gone for the parent; EACCES;
    /// EROFS; EAGAIN at cgroup.max.descendants and cgroup.max.depth.
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
    /// Errors: cgroup_gone; controller_missing; unsupported for a key that the kernel lacks;
    /// limit_refused; else errno. Each with key, value and what may be the cause.
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
    /// Waits until all of its processes have stopped; false when `patience` is over before, or the
    /// group is gone. A process in uninterruptible sleep stops when that is over.
    bool wait_frozen(std::chrono::milliseconds patience) const {
        return detail::wait_for_event(fd(), path_, "frozen", 1, patience);
    }
    /// Waits until it is no longer frozen; false when `patience` is over, as with a frozen group
    /// above.
    bool wait_thawed(std::chrono::milliseconds patience) const {
        return detail::wait_for_event(fd(), path_, "frozen", 0, patience);
    }

    /// Sends SIGKILL to all processes in it and below it, frozen ones included. They end soon
    /// after: see wait_empty(). No error when the group has been removed.
    /// Errors: EACCES; EROFS; without cgroup.kill, EPERM for a process that may not be signalled.
    void kill() const;
    /// Waits until no process is in it or below it; false when `patience` is over before.
    bool wait_empty(std::chrono::milliseconds patience) const {
        return detail::wait_for_event(fd(), path_, "populated", 0, patience);
    }
    /// Removes the group and the groups below it; false when there are still processes.
    bool try_remove();
    /// As try_remove(), but waits for processes that are just ending.
    /// Errors: EBUSY after `patience`, with the processes that are left.
    void remove(std::chrono::milliseconds patience = std::chrono::milliseconds(2000)) {
        detail::remove_within(fd(), path_, patience, [&] { return try_remove(); });
    }
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
    if (made != 0) {
        const int code = errno;
        error_context context{.operation = "create control group",
                              .object = path,
                              .remedy = detail::write_remedy(code, {})};
        if (code != ENOENT && code != ENODEV) throw error(code, std::move(context));
        context.remedy = "The group above it has been removed.";
        throw cgroup_gone(code, std::move(context));
    }
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
        detail::throw_refused_write(fd(), path_, key, value, failure.errno_value());
    }
}

inline void cgroup::kill() const {
    if (::faccessat(fd(), "cgroup.kill", F_OK, 0) != 0 && errno == ENOENT)
        return detail::kill_by_signals(fd());
    try {
        write("cgroup.kill", "1");
    } catch (const cgroup_gone&) {
        // Nobody is in it, then.
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

}  // namespace kumiki::inline v0
