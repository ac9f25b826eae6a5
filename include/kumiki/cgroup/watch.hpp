// One descriptor that is readable when processes, memory or forks of a group have changed, or it was
// removed: for a program with an event loop of its own. Tasks of a scheduler have events.hpp, where
// a group takes no descriptor.
//
// A change of cgroup.events, memory.events or pids.events is POLLPRI on the file until it is read
// again. The removal of a group wakes nobody who polls its files (seen on 6.1 and 6.18), and drops a
// change that was about to be told; so it is told by the handle that removes the group or, for a
// group that is not owned by the handle, by inotify on the parent's directory.
// Left out: memory.swap.events, hugetlb, what is local.
#pragma once

#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/inotify.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include <kumiki/cgroup/cgroup.hpp>
#include <kumiki/core/error.hpp>
#include <kumiki/core/unique_fd.hpp>
#include <kumiki/sys/check.hpp>
#include <kumiki/sys/file.hpp>

namespace kumiki::inline v0 {

/// Watches one group; independent of the handle that it was made from, except that a group which
/// that handle owns must not be removed by others.
class cgroup_watch {
  public:
    /// Errors: ENOENT when the group has been removed; EMFILE.
    explicit cgroup_watch(const cgroup& group)
        : path_(group.path()), events_(sys::open_at(group.fd(), "cgroup.events", O_RDONLY)),
          any_(sys::check(::epoll_create1(EPOLL_CLOEXEC), "epoll_create1")) {
        add(events_.get(), EPOLLPRI);
        if (auto memory = sys::try_open_at(group.fd(), "memory.events", O_RDONLY)) {
            memory_events_ = std::move(*memory);
            add(memory_events_.get(), EPOLLPRI);
        }
        if (auto pids = sys::try_open_at(group.fd(), "pids.events", O_RDONLY)) {
            pids_events_ = std::move(*pids);
            add(pids_events_.get(), EPOLLPRI);
        }
        if (group.is_owned()) {
            removal_ = group.removal();
            add(removal_->get(), EPOLLIN);
        } else {
            watch_parent(group);
        }
    }

    /// Readable (POLLIN) when the files should be read again.
    int fd() const noexcept { return any_.get(); }
    /// The text of cgroup.events; nothing once the group has been removed.
    std::optional<std::string> events() const {
        // Emptied before the file is read: what is deleted later makes it readable again.
        char names[4096];
        while (parent_ && ::read(parent_.get(), names, sizeof names) > 0) {}
        return reread(events_);
    }
    /// The text of memory.events; nothing without the memory controller.
    std::optional<std::string> memory_events() const {
        return memory_events_ ? reread(memory_events_) : std::nullopt;
    }
    /// The text of pids.events; nothing without the pids controller.
    std::optional<std::string> pids_events() const {
        return pids_events_ ? reread(pids_events_) : std::nullopt;
    }

  private:
    void add(int fd, std::uint32_t events) const {
        epoll_event wanted{.events = events, .data = {}};
        sys::check(::epoll_ctl(any_.get(), EPOLL_CTL_ADD, fd, &wanted), "watch", path_);
    }
    void watch_parent(const cgroup& group) {
        const auto limit = [&] {
            return error_context{
                .operation = "watch for the removal of",
                .object = path_,
                .remedy = errno == EMFILE || errno == ENOSPC
                              ? "See the sysctls fs.inotify.max_user_instances and "
                                "max_user_watches; a group that the handle owns needs neither."
                              : ""};
        };
        parent_ = unique_fd(sys::check(::inotify_init1(IN_CLOEXEC | IN_NONBLOCK), limit));
        const std::string parent = "/proc/self/fd/" + std::to_string(group.fd()) + "/..";
        sys::check(::inotify_add_watch(parent_.get(), parent.c_str(), IN_DELETE | IN_ONLYDIR),
                   limit);
        add(parent_.get(), EPOLLIN);
    }
    std::optional<std::string> reread(const unique_fd& file) const {
        char text[1024];
        const auto size = sys::retry([&] { return ::pread(file.get(), text, sizeof text, 0); });
        if (size < 0 && errno == ENODEV) return std::nullopt;
        sys::check(size, "read the events of", path_);
        return std::string(text, static_cast<std::size_t>(size));
    }

    std::string path_;
    unique_fd events_;
    unique_fd memory_events_;
    unique_fd pids_events_;
    unique_fd parent_;  // inotify, or none
    std::shared_ptr<const unique_fd> removal_;  // eventfd, or none
    unique_fd any_;
};

}  // namespace kumiki::inline v0
