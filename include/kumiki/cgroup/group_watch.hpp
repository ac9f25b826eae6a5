// One group that a task watches: its event files through the scheduler's monitor, what is known of
// them, and the wait for what is new.
//
// Internal (detail). A look reads what has changed since the look before; the watches are there
// before the first look, so that a change during the subscription is seen by one or the other.
#pragma once

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <exception>
#include <memory>
#include <optional>
#include <source_location>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <kumiki/async/scheduler.hpp>
#include <kumiki/async/wait_list.hpp>
#include <kumiki/cgroup/cgroup.hpp>
#include <kumiki/cgroup/controller.hpp>
#include <kumiki/cgroup/event_source.hpp>
#include <kumiki/cgroup/huge_pages.hpp>
#include <kumiki/cgroup/monitor.hpp>
#include <kumiki/core/error.hpp>
#include <kumiki/core/unique_fd.hpp>
#include <kumiki/sys/check.hpp>
#include <kumiki/sys/file.hpp>

namespace kumiki::inline v0::detail {

class group_watch final : private monitored {
  public:
    /// On the scheduler's thread. The group's handle need not stay.
    /// Errors: ENOENT when the group has been removed; as group_monitor.
    template <class = void>
    group_watch(scheduler& io, const cgroup& group, cgroup_event_files wanted)
        : loop_(&on_thread(io)), path_(group.path()), monitor_(group_monitor::of(io)) {
        monitor_->add_group(*this, group.fd(), path_);
        try {
            prefix_ = name() + '/';
            add_files(wanted);
            // Last: when the name is still the group's, all of the files were.
            id_ = group.id();
            if (is_gone()) throw error(ENOENT, {.operation = "watch", .object = path_});
        } catch (...) {
            leave();
            throw;
        }
    }
    ~group_watch() { leave(); }

    /// Adds what is new since the last look to `news`. False when the group has been removed.
    /// Errors: what the monitor failed with.
    bool look(std::vector<cgroup_event>& news) {
        if (failure_) std::rethrow_exception(failure_);
        if (std::exchange(overflowed_, false))
            news.push_back({.kind = cgroup_event_kind::overflow});
        const bool may_be_gone = std::exchange(may_be_gone_, false);
        changed_ = false;
        // What the kernel counts before a state changes is told before it, though the files' own
        // news may come in any order: an OOM kill before the end of the last process.
        watched_file* const states =
            !files_.empty() && !files_.front().counts && files_.front().changed ? &files_.front()
                                                                                : nullptr;
        text states_now;
        if (states != nullptr && !read(*states, states_now)) return false;
        for (watched_file& one : files_) {
            if (!one.counts || (states == nullptr && !one.changed)) continue;
            text counts_now;
            if (read(one, counts_now)) one.counts->look(counts_now.view(), news);
        }
        if (states != nullptr) states_.look(states_now.view(), news);
        return !may_be_gone || !is_gone();
    }
    /// True when the last look found this in cgroup.events.
    bool is_populated() const noexcept { return states_.is_populated(); }
    bool is_frozen() const noexcept { return states_.is_frozen(); }

    class [[nodiscard]] change_awaiter : public wait_operation {
      public:
        change_awaiter(group_watch& of, std::source_location where) noexcept
            : wait_operation(*of.loop_, of.waiting_, where), of_(&of) {}
        bool await_ready() const noexcept { return of_->changed_; }
        void await_resume() {
            if (was_begun()) take_result();
        }
        const char* what() const noexcept override { return "wait for a control group"; }

      private:
        group_watch* of_;
    };
    /// Waits until there may be something new. Errors: `cancelled`; nothing is lost by that.
    change_awaiter change(std::source_location where = std::source_location::current()) noexcept {
        return {*this, where};
    }

  private:
    struct watched_file {
        std::string path;  // from the parent's directory
        int watch = -1;
        ino_t id = 0;
        std::optional<event_counts> counts{};  // without: cgroup.events, which is the first
        bool changed = true;
    };
    struct text {
        char bytes[512];
        std::size_t size = 0;
        std::string_view view() const noexcept { return {bytes, size}; }
    };

    static loop_core& on_thread(scheduler& io) noexcept {
        if (!io.loop().is_on_thread())
            fatal("a control group was watched on a thread that is not its scheduler's");
        return io.loop();
    }
    static bool is_huge(const event_file& file) noexcept {
        return file.which == cgroup_event_files::hugetlb ||
               file.which == cgroup_event_files::hugetlb_local;
    }
    void add_files(cgroup_event_files wanted) {
        if (has(wanted, cgroup_event_files::state)) add("cgroup.events", std::nullopt);
        controllers absent = controllers::none;
        for (const event_file& file : event_files) {
            if (!has(wanted, file.which) || is_huge(file)) continue;
            const controllers owner = controller_of(file.name);
            if (has(absent, owner)) continue;
            // The files of local counts are younger than the others.
            if (!add(file.name, event_counts(file)) && file.scope == cgroup_event_scope::subtree)
                absent |= owner;
        }
        for (const bytes size : huge_page_sizes())
            for (const event_file& file : event_files)
                if (has(wanted, file.which) && is_huge(file) &&
                    !add(huge_page_file(size, file.name), event_counts(file, size)))
                    return;
    }
    /// False when there is no such file.
    bool add(std::string_view name, std::optional<event_counts> counts) {
        std::string path = prefix_;
        path += name;
        const int watch = monitor_->add_file(*this, path, files_.size());
        if (watch < 0) return false;
        if (counts && counts->file().which == cgroup_event_files::pids && !has_local_pids())
            counts.emplace(old_pids_events);
        struct stat info{};
        // What is gone by now has the number 0, which no file has.
        static_cast<void>(::fstatat(parent_directory(), path.c_str(), &info, AT_SYMLINK_NOFOLLOW));
        files_.push_back({std::move(path), watch, info.st_ino, std::move(counts)});
        return true;
    }
    /// Before 6.11 pids.events counted the forks of the group's own processes.
    bool has_local_pids() const noexcept {
        const std::string local = prefix_ + "pids.events.local";
        return ::faccessat(parent_directory(), local.c_str(), F_OK, 0) == 0;
    }
    void leave() noexcept {
        for (const watched_file& one : files_) monitor_->remove_file(*this, one.watch);
        monitor_->remove_group(*this);
    }
    bool is_gone() const noexcept {
        struct stat info{};
        return ::fstatat(parent_directory(), name().c_str(), &info, AT_SYMLINK_NOFOLLOW) != 0 ||
               info.st_ino != id_;
    }
    /// False when the file is gone: also when another group has its name by now, which is told by
    /// the file's number, for the kernel does not give one out twice.
    bool read(watched_file& of, text& into) const {
        of.changed = false;
        const unique_fd fd(sys::retry(
            [&] { return ::openat(parent_directory(), of.path.c_str(), O_RDONLY | O_CLOEXEC); }));
        if (!fd && (errno == ENOENT || errno == ENODEV)) return false;
        sys::check(fd.get(), "open", path_);
        if (sys::status_of(fd.get()).st_ino != of.id) return false;
        const auto size =
            sys::retry([&] { return ::read(fd.get(), into.bytes, sizeof into.bytes); });
        if (size < 0 && errno == ENODEV) return false;
        sys::check(size, "read the events of", path_);
        into.size = static_cast<std::size_t>(size);
        return true;
    }

    void on_change(std::size_t of) noexcept override {
        files_[of].changed = true;
        wake();
    }
    void on_removal() noexcept override {
        may_be_gone_ = true;
        wake();
    }
    void on_overflow() noexcept override {
        overflowed_ = may_be_gone_ = true;
        for (watched_file& one : files_) one.changed = true;
        wake();
    }
    void on_failure(const std::exception_ptr& why) noexcept override {
        failure_ = why;
        wake();
    }
    void wake() noexcept {
        changed_ = true;
        waiting_.wake_all();
    }

    loop_core* loop_;
    std::string path_;  // for messages
    std::string prefix_;  // its name with a slash
    ino_t id_ = 0;
    std::shared_ptr<group_monitor> monitor_;
    std::vector<watched_file> files_;
    event_states states_;
    bool changed_ = true;
    bool overflowed_ = false;
    bool may_be_gone_ = false;
    std::exception_ptr failure_;
    wait_list waiting_;
};

}  // namespace kumiki::inline v0::detail
