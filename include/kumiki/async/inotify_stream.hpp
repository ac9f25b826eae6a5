// inotify_stream: what happens to files, as values.
//
//   inotify_stream watch(io);
//   const int logs = watch.add("/var/log", IN_CREATE | IN_MOVED_TO);
//   for (;;) { auto event = co_await watch.next(); use(event.watch, event.name); }
//
// Kernel: inotify(7), 2.6.13. What a file system does on its own (another host on NFS, the kernel in
// /proc, most of cgroupfs) is not told. When more happens than the kernel keeps
// (fs.inotify.max_queued_events) an event says so: look at everything anew then.
#pragma once

#include <sys/inotify.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <source_location>
#include <string>
#include <utility>

#include <kumiki/async/scheduler.hpp>
#include <kumiki/async/task.hpp>
#include <kumiki/core/error.hpp>
#include <kumiki/core/unique_fd.hpp>
#include <kumiki/sys/check.hpp>

namespace kumiki::inline v0 {

/// Something that has happened to a file.
struct file_event {
    int watch = -1;  ///< what add() returned; -1 for an overflow
    std::uint32_t mask = 0;  ///< IN_CREATE ...; IN_ISDIR, IN_UNMOUNT
    std::uint32_t cookie = 0;  ///< the same for both sides of a rename
    std::string name;  ///< in the watched directory; empty when it is about itself

    /// Events were lost: the kernel's queue was full.
    bool is_overflow() const noexcept { return (mask & IN_Q_OVERFLOW) != 0; }
    /// The watch is over: it was removed, or its file is gone.
    bool is_end_of_watch() const noexcept { return (mask & IN_IGNORED) != 0; }
};

/// Watches of one inotify instance. Used on its scheduler's thread, by one task at a time.
///
/// Errors: EMFILE, with the sysctl that sets the limit.
class inotify_stream {
  public:
    explicit inotify_stream(scheduler& io)
        : io_(&io), fd_(sys::check(::inotify_init1(IN_CLOEXEC | IN_NONBLOCK),
                                   [] { return context("create an inotify instance", {}); })) {}

    /// Watches `path` for the events of `mask` (IN_CREATE, IN_MODIFY ...). Adding a file again
    /// changes its mask. Returns the watch's number.
    /// Errors: ENOENT, EACCES, ENOSPC (with the sysctl that sets the limit), EINVAL for no event.
    int add(const std::string& path, std::uint32_t mask) const {
        return sys::check(::inotify_add_watch(fd_.get(), path.c_str(), mask),
                          [&] { return context("watch", path); });
    }
    /// Ends a watch; its last event says so. Errors: EINVAL for a number that is no watch's.
    void remove(int watch) const {
        sys::check(::inotify_rm_watch(fd_.get(), watch),
                   [&] { return context("end the watch", std::to_string(watch)); });
    }

    /// The next event, in the order of the kernel.
    /// Errors: `cancelled`; no event is lost by that.
    template <class = void>
    [[nodiscard]] task<file_event> next(
        std::source_location where = std::source_location::current()) {
        if (at_ == end_) {
            const std::size_t size = co_await io_->read(fd_.get(), buffer_, where);
            at_ = 0;
            end_ = size;
        }
        file_event event = take();
        co_return event;
    }

    /// For others to poll. Owned by this.
    int fd() const noexcept { return fd_.get(); }

  private:
    /// The next event of those that were read.
    file_event take() {
        struct ::inotify_event raw;
        std::memcpy(&raw, buffer_.data() + at_, sizeof raw);
        file_event event{.watch = raw.wd, .mask = raw.mask, .cookie = raw.cookie, .name = {}};
        const auto* const name = reinterpret_cast<const char*>(buffer_.data()) + at_ + sizeof raw;
        event.name.assign(name, ::strnlen(name, raw.len));  // padded with zeros
        at_ += sizeof raw + raw.len;
        return event;
    }
    static error_context context(const char* operation, std::string object) {
        return {.operation = operation,
                .object = std::move(object),
                .remedy = errno == EMFILE   ? "See the sysctl fs.inotify.max_user_instances, and "
                                              "RLIMIT_NOFILE."
                          : errno == ENOSPC ? "See the sysctl fs.inotify.max_user_watches."
                                            : ""};
    }

    scheduler* io_;
    unique_fd fd_;
    std::size_t at_ = 0;
    std::size_t end_ = 0;
    std::array<std::byte, 4096> buffer_;  // the kernel wants room for the longest name
};

}  // namespace kumiki::inline v0
