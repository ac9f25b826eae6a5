// One inotify instance for all groups that are watched on a scheduler: a watched group costs no
// descriptor (its parent's directory is held once for all of its children), and nothing at all while
// nothing happens, however many there are.
//
// Internal (detail). A change of an event file is IN_MODIFY on it, the removal of a group IN_DELETE
// on its parent's directory: the files of a removed group tell nobody (seen on 6.1 and 6.18).
// Polling would take a descriptor for each file instead. A file is read again after each change, so
// that changes which the kernel merges are not lost. Kernel: inotify(7), cgroup.events 4.5.
#pragma once

#include <fcntl.h>
#include <poll.h>
#include <sys/inotify.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstring>
#include <exception>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>

#include <kumiki/async/background_task.hpp>
#include <kumiki/async/scheduler.hpp>
#include <kumiki/async/task.hpp>
#include <kumiki/core/error.hpp>
#include <kumiki/core/unique_fd.hpp>
#include <kumiki/sys/check.hpp>
#include <kumiki/sys/file.hpp>

namespace kumiki::inline v0::detail {

/// What the monitor tells something that is watched: the base of group_watch.
class monitored {
  public:
    monitored(const monitored&) = delete;
    monitored& operator=(const monitored&) = delete;

  protected:
    monitored() = default;
    ~monitored() = default;
    /// Of the group, in its parent's directory.
    const std::string& name() const noexcept { return name_; }
    int parent_directory() const noexcept { return directory_; }

  private:
    friend class group_monitor;
    /// The file with this index has changed.
    virtual void on_change(std::size_t file) noexcept = 0;
    /// The group may have been removed.
    virtual void on_removal() noexcept = 0;
    /// Anything may have happened.
    virtual void on_overflow() noexcept = 0;
    /// Nothing will be told any more.
    virtual void on_failure(const std::exception_ptr& why) noexcept = 0;

    std::string name_;
    int parent_ = -1;  // the watch of the parent's directory
    int directory_ = -1;
};

/// Belongs to one scheduler; lives as long as something is watched there.
///
/// Errors: EMFILE and ENOSPC, with the sysctl that sets the limit.
class group_monitor final {
  public:
    /// The monitor of this scheduler; made when there is none.
    template <class = void>
    static std::shared_ptr<group_monitor> of(scheduler& io) {
        static constexpr char tag = 0;
        std::weak_ptr<void>& place = io.loop().shared(&tag);
        auto found = std::static_pointer_cast<group_monitor>(place.lock());
        if (!found) place = found = std::make_shared<group_monitor>(io);
        return found;
    }
    template <class Late = void>
    explicit group_monitor(scheduler& io)
        : inotify_(sys::check(::inotify_init1(IN_CLOEXEC | IN_NONBLOCK),
                              [] { return context("create an inotify instance", {}); })),
          reading_(io, drive<Late>(io, *this), "watch control groups") {}
    group_monitor(const group_monitor&) = delete;
    group_monitor& operator=(const group_monitor&) = delete;
    ~group_monitor() = default;

    /// Watches for the removal of the group with this descriptor.
    void add_group(monitored& of, int group, const std::string& shown) {
        if (failure_) std::rethrow_exception(failure_);
        const std::string self = "/proc/self/fd/" + std::to_string(group);
        char place[4096];
        const auto size =
            sys::check(::readlink(self.c_str(), place, sizeof place), "find the place of", shown);
        const std::string_view path(place, static_cast<std::size_t>(size));
        of.name_ = path.substr(path.rfind('/') + 1);
        const std::string above = self + "/..";
        of.parent_ =
            sys::check(::inotify_add_watch(inotify_.get(), above.c_str(), IN_DELETE | IN_ONLYDIR),
                       [&] { return context("watch for the removal of", shown); });
        parent& known = parents_[of.parent_];
        ++known.groups;
        groups_.emplace(of.name_, &of);
        if (!known.directory) {
            try {
                known.directory = sys::open_at(group, "..", O_PATH | O_DIRECTORY);
            } catch (...) {
                remove_group(of);
                throw;
            }
        }
        of.directory_ = known.directory.get();
    }
    /// Watches a file in the parent's directory; returns the watch, or -1 when there is no such
    /// file. `index` is what on_change() is told.
    int add_file(monitored& of, const std::string& file, std::size_t index) {
        const std::string path = "/proc/self/fd/" + std::to_string(of.directory_) + '/' + file;
        const int watch = ::inotify_add_watch(inotify_.get(), path.c_str(), IN_MODIFY);
        if (watch < 0 && (errno == ENOENT || errno == ENODEV)) return -1;
        sys::check(watch, [&] { return context("watch", file); });
        files_.emplace(watch, target{&of, index});
        return watch;
    }
    void remove_file(const monitored& of, int watch) noexcept {
        const auto range = files_.equal_range(watch);
        for (auto at = range.first; at != range.second; ++at)
            if (at->second.of == &of) {
                files_.erase(at);
                break;
            }
        if (!files_.contains(watch)) ::inotify_rm_watch(inotify_.get(), watch);
    }
    void remove_group(const monitored& of) noexcept {
        const auto range = groups_.equal_range(of.name_);
        for (auto at = range.first; at != range.second; ++at)
            if (at->second == &of) {
                groups_.erase(at);
                break;
            }
        const auto above = parents_.find(of.parent_);
        if (above == parents_.end() || --above->second.groups != 0) return;
        ::inotify_rm_watch(inotify_.get(), above->first);
        parents_.erase(above);
    }
    /// The inotify instance, for tests.
    int fd() const noexcept { return inotify_.get(); }

  private:
    struct target {
        monitored* of;
        std::size_t file;
    };
    struct parent {
        unique_fd directory;
        std::size_t groups = 0;
    };

    template <class = void>
    static task<void> drive(scheduler& io, group_monitor& self) {
        try {
            for (;;) {
                co_await io.poll(self.inotify_.get(), POLLIN);
                self.drain();
            }
        } catch (...) {
            self.fail(std::current_exception());
        }
    }
    void drain() noexcept {
        alignas(inotify_event) char events[16384];
        for (;;) {
            const auto size =
                sys::retry([&] { return ::read(inotify_.get(), events, sizeof events); });
            if (size <= 0) return;
            for (std::size_t at = 0; at < static_cast<std::size_t>(size);) {
                inotify_event event;
                std::memcpy(&event, events + at, sizeof event);
                const char* const name = events + at + sizeof event;
                dispatch(event, std::string_view(name, ::strnlen(name, event.len)));
                at += sizeof event + event.len;
            }
        }
    }
    void dispatch(const inotify_event& event, std::string_view name) noexcept {
        if ((event.mask & IN_Q_OVERFLOW) != 0)
            for (const auto& [of, group] : groups_) group->on_overflow();
        if ((event.mask & IN_DELETE) != 0) {
            const auto range = groups_.equal_range(name);
            for (auto at = range.first; at != range.second; ++at)
                if (at->second->parent_ == event.wd) at->second->on_removal();
        }
        if ((event.mask & IN_MODIFY) != 0) {
            const auto range = files_.equal_range(event.wd);
            for (auto at = range.first; at != range.second; ++at)
                at->second.of->on_change(at->second.file);
        }
    }
    void fail(std::exception_ptr why) noexcept {
        failure_ = std::move(why);
        for (const auto& [name, group] : groups_) group->on_failure(failure_);
    }
    static error_context context(const char* operation, std::string object) {
        return {.operation = operation,
                .object = std::move(object),
                .remedy = errno == EMFILE   ? "See the sysctl fs.inotify.max_user_instances, and "
                                              "RLIMIT_NOFILE; one instance serves a scheduler."
                          : errno == ENOSPC ? "See the sysctl fs.inotify.max_user_watches; a group "
                                              "takes one for each file that is watched."
                                            : ""};
    }

    unique_fd inotify_;
    std::unordered_multimap<std::string_view, monitored*> groups_;  // by name_
    std::unordered_map<int, parent> parents_;  // by watch
    std::unordered_multimap<int, target> files_;  // by watch
    std::exception_ptr failure_;
    background_task reading_;  // last: its end must find the others
};

}  // namespace kumiki::inline v0::detail
