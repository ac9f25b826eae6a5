// container: a process in namespaces, limits and a network of its own, as one object that owns all
// of it. Starting it is a coroutine that acquires everything in order and, if anything fails,
// releases what it has in reverse.
//
//   auto box = co_await container::start(io, {.rootfs = rootfs::overlay("/srv/images/busybox"),
//                                             .process = {.args = {"httpd", "-f"}}});
//   auto result = co_await box.wait();
//
// Needs Linux 5.12 (mount_setattr); an ordinary user's container is in a user namespace of its own
// (rootless.hpp). Left out: containers that outlive their supervisor.
#pragma once

#include <sys/ioctl.h>

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <kumiki/async/scheduler.hpp>
#include <kumiki/async/task.hpp>
#include <kumiki/async/timeout.hpp>
#include <kumiki/cgroup/cgroup.hpp>
#include <kumiki/cgroup/stats.hpp>
#include <kumiki/container/events.hpp>
#include <kumiki/container/exec.hpp>
#include <kumiki/container/launch.hpp>
#include <kumiki/container/live_mounts.hpp>
#include <kumiki/container/spec.hpp>
#include <kumiki/container/timeline.hpp>
#include <kumiki/core/unique_fd.hpp>
#include <kumiki/network/endpoint.hpp>

namespace kumiki::inline v0 {

/// A running container, or one that has ended. Move-only.
///
/// Lifetime: the destructor kills what still runs, waits for its end (short after SIGKILL) and
/// releases everything; what cannot be released is told to the observer. The scheduler must outlive
/// the container.
class container {
  public:
    /// Starts `spec`: when this returns, the command has been executed, limits, network and policy
    /// being in force since before that.
    ///
    /// Errors: invalid_input before anything is done; start_error, cgroup_name_taken, unsupported
    /// and other kumiki::errors with nothing left behind; `cancelled` likewise.
    template <class = void>
    static task<container> start(scheduler& io, container_spec spec) {
        auto parts = co_await detail::launch(io, std::move(spec));
        co_return container(io, std::move(parts));
    }

    container(container&&) noexcept = default;
    container& operator=(container&& other) noexcept {
        container old(std::move(*this));
        io_ = other.io_;
        parts_ = std::move(other.parts_);
        return *this;
    }
    ~container() {
        if (parts_) detail::release_quietly([&] { parts_->kill_and_release(); });
    }

    const std::string& name() const noexcept { return parts_->name; }
    /// The number of the container's first process, as the supervisor sees it. It stays that
    /// process's until wait() has returned.
    pid_t pid() const noexcept { return parts_->pid; }
    int pidfd() const noexcept { return parts_->pidfd.get(); }
    /// Empty for an ordinary user to whom none was delegated.
    const kumiki::cgroup& cgroup() const noexcept { return parts_->group; }
    const timeline& start_timeline() const noexcept { return parts_->line; }
    /// The endpoint on its network, whose ports and policies can be changed; null without one.
    endpoint* network() noexcept { return parts_->attached ? &*parts_->attached : nullptr; }
    const endpoint* network() const noexcept {
        return parts_->attached ? &*parts_->attached : nullptr;
    }
    /// Namespaces of this container as another spec's `join`: of the kinds uts, ipc, net and pid.
    /// They live on in the handles; a pid namespace takes nobody once its first process has ended.
    std::vector<std::shared_ptr<const namespace_fd>> share(namespace_kind kinds) const {
        std::vector<std::shared_ptr<const namespace_fd>> found;
        for (const auto& info : namespace_kinds)
            if (has(kinds, info.kind))
                found.push_back(std::make_shared<const namespace_fd>(
                    namespace_fd::of_pidfd(pidfd(), info.kind)));
        return found;
    }
    /// The other ends of its pipes, where the spec says stdio::pipe(). Errors: EBADF elsewhere. They
    /// outlast the process: what it has written can be read after wait().
    pipe_writer& in() { return parts_->pipes.in(); }
    pipe_reader& out() { return parts_->pipes.out(); }
    pipe_reader& err() { return parts_->pipes.err(); }
    standard_pipes& pipes() noexcept { return parts_->pipes; }
    /// The other end of its terminal, to be read and written; -1 without one.
    int terminal() const noexcept { return parts_->terminal.get(); }
    /// The system calls that its filter asks about (seccomp_action::notify()), up to the end of its
    /// first process; null without such rules. They wait until somebody takes them here. What the
    /// start itself called behind the filter, the execve of the command included, was let through.
    /// Lifetime: the listener is the container's.
    seccomp_listener* seccomp_calls() noexcept { return parts_->calls.get(); }
    /// Tells the terminal a new size; the foreground processes get SIGWINCH.
    void resize(terminal_size size) const {
        const winsize wanted{
            .ws_row = size.rows, .ws_col = size.columns, .ws_xpixel = 0, .ws_ypixel = 0};
        sys::check(::ioctl(parts_->terminal.get(), TIOCSWINSZ, &wanted), "resize the terminal");
    }

    /// Sends a signal to the container's first process; false when it has ended. As PID 1 of its
    /// namespace it gets only signals that it handles, SIGKILL and SIGSTOP; an init hands all others
    /// on to the command.
    bool signal(int number) const { return sys::send_signal(pidfd(), number); }
    /// Stops all of its processes; they have stopped once events() says so.
    /// Errors: unsupported without a control group (of an ordinary user who was given none).
    void freeze() const { group("freeze").freeze(); }
    void thaw() const { group("thaw").thaw(); }
    cgroup_stats stats() const { return read_stats(group("read the counters of")); }
    /// What happens to its group: OOM kills, limits that were met, the last process gone.
    /// Errors: as freeze().
    template <class = void>
    stream<container_event> events() const {
        return container_events(*io_, group("watch"));
    }

    /// Waits for the end of the first process, and releases everything that the container had. A
    /// second call returns the same result.
    template <class = void>
    task<container_result> wait() {
        if (!parts_->result) {
            const sys::exit_status status = co_await wait_first();
            finish(status);
        }
        co_return *parts_->result;
    }
    /// Asks it to end by SIGTERM, and kills it after `grace`.
    template <class = void>
    task<container_result> stop(std::chrono::nanoseconds grace) {
        if (!parts_->result) {
            signal(SIGTERM);
            auto ended = co_await with_timeout(*io_, grace, wait_first());
            if (!ended) {
                if (parts_->group) parts_->group.thaw();
                signal(SIGKILL);
                ended = co_await wait_first();
            }
            finish(*ended);
        }
        co_return *parts_->result;
    }

    /// Runs a further command in it: in its namespaces and its cgroup, with its privileges or less.
    /// It has been executed when this returns; the container must stay where it is until then.
    ///
    /// Errors: invalid_input; start_error as for a start, with ESRCH when the container has ended.
    template <class = void>
    task<exec_process> exec(exec_spec spec) {
        return detail::enter_container(*io_, *parts_, std::move(spec));
    }

    /// Mounts one thing more in it, as the spec's `mounts` do at the start; its processes see it at
    /// once. The container must stay where it is until then.
    ///
    /// Errors: invalid_input, also for an overlay; mount_error; kumiki::error for a source that is
    /// not there. Nothing is mounted then.
    template <class = void>
    task<void> mount(mount_description wanted) {
        return detail::mount_inside(*io_, *parts_, std::move(wanted));
    }
    /// Takes away what is mounted at `path` (the topmost of several). A symbolic link as its last
    /// component is not followed.
    ///
    /// Errors: invalid_input; mount_error.
    template <class = void>
    task<void> unmount(std::string path, unmount_mode mode = unmount_mode::unless_busy) {
        return detail::unmount_inside(*io_, *parts_, std::move(path), mode);
    }

  private:
    const kumiki::cgroup& group(const char* operation) const {
        if (!parts_->group)
            throw unsupported(0, {.operation = operation,
                                  .object = "the container " + parts_->name,
                                  .container = parts_->name,
                                  .remedy = "It has no control group: none was delegated to this "
                                            "user (systemd-run --user --scope -p Delegate=yes)."});
        return parts_->group;
    }
    template <class = void>
    task<sys::exit_status> wait_first() {
        return parts_->reaper.wait_first(*io_, pidfd());
    }

    friend class container_pool;
    container(scheduler& io, std::unique_ptr<detail::container_parts> parts)
        : io_(&io), parts_(std::move(parts)) {}

    /// The counters first, then all that can go.
    void finish(sys::exit_status status) {
        parts_->reaper.kill();  // without a pid namespace they are still there
        if (parts_->init) status = detail::payload_status(parts_->init.get(), status);
        const std::chrono::nanoseconds lived(timeline::now() - parts_->executed);
        container_result result{.status = status, .wall_time = lived};
        if (parts_->group) {
            parts_->group.kill();  // without a pid namespace there may be others
            result.usage = read_stats(parts_->group);
        }
        if (result.usage.memory_events) result.oom_kills = result.usage.memory_events->oom_kill;
        parts_->result = std::move(result);
        parts_->release();
    }

    scheduler* io_;
    std::unique_ptr<detail::container_parts> parts_;
};

}  // namespace kumiki::inline v0
