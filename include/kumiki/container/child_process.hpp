// A child on its way to its execve, as the supervisor holds it: asked for, born, and given up in a
// way that leaves nothing, whatever it is doing.
#pragma once

#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <optional>
#include <utility>

#include <kumiki/container/encode.hpp>
#include <kumiki/container/spawn_job.hpp>
#include <kumiki/container/spawner.hpp>
#include <kumiki/core/observer.hpp>
#include <kumiki/core/unique_fd.hpp>
#include <kumiki/sys/pidfd.hpp>

namespace kumiki::inline v0::detail {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
inline constexpr bool is_sanitized = true;
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) ||                         \
    __has_feature(memory_sanitizer)
inline constexpr bool is_sanitized = true;
#else
inline constexpr bool is_sanitized = false;
#endif
#else
inline constexpr bool is_sanitized = false;
#endif

/// The two ends of the socket over which supervisor and child speak, one byte at a time.
struct control_sockets {
    unique_fd own;
    unique_fd child;

    static control_sockets make() {
        int ends[2];
        sys::check(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), "socketpair");
        return {unique_fd(ends[0]), unique_fd(ends[1])};
    }
};

/// Owns the child up to release(). Its end before that kills and reaps the child.
class child_process {
  public:
    /// `cgroup`: a group's descriptor, which must stay, or -1.
    child_process(std::uint64_t flags, int cgroup, clone_mode mode) {
        job_.flags = flags;
        job_.cgroup = cgroup;
        job_.shared_memory = sys::has_own_stack_clone && mode != clone_mode::own_memory &&
                             (mode == clone_mode::shared_memory || !is_sanitized);
    }
    child_process(const child_process&) = delete;
    child_process& operator=(const child_process&) = delete;
    ~child_process() { abandon(); }

    /// The child is born in this namespace and not in that of a spawner's thread.
    void set_birth_place(unique_fd where, namespace_kind kind) {
        job_.places.push_back({.fd = std::move(where), .kind = kind});
        if (kind == namespace_kind::pid) job_.places.back().open_home();
    }
    /// It is born not dumpable. With memory of its own, that is.
    void hide() noexcept { job_.hidden = true; }
    /// Wakes up the thread that will make the child, which takes about as long as writing its plan.
    void prepare() {
        job_.wanted = spawn_job::order::stand_by;
        spawner::shared().submit(job_);
        prepared_ = true;
    }
    /// Has the child made, with this plan.
    void submit(encoded_plan program, control_sockets sockets) {
        program_ = std::move(program);
        control_ = std::move(sockets.own);
        job_.program = program_.program;
        job_.child_end = std::move(sockets.child);
        if (prepared_)
            job_.set_order(spawn_job::order::go);
        else
            spawner::shared().submit(job_);
        prepared_ = false;
        submitted_ = true;
    }
    /// Waits for the end of the clone: short, once the control socket has come to its end. Another
    /// process that has gone on in the child's place is the child from here on.
    void await_clone() {
        spawner::shared().wait(job_);
        if (const pid_t entered = take_entered(); entered != 0) {
            const unique_fd first(std::exchange(job_.pidfd, -1));
            job_.pid = entered;
            sys::wait_blocking(first.get());
            job_.pidfd = sys::open_pidfd(entered).release();
        }
    }

    int control() const noexcept { return control_.get(); }
    /// Lets the child go on from the step at which it waits.
    void signal_go() const {
        const char go = 'g';
        const auto sent = ::send(control_.get(), &go, 1, MSG_NOSIGNAL);
        // EPIPE: it has failed by itself, and its report will say why.
        if (sent < 0 && errno != EPIPE && errno != ECONNRESET)
            sys::check(sent, "send", "the child's go");
    }
    /// Valid once the child has spoken, or after await_clone().
    pid_t pid() const noexcept { return job_.pid; }
    int pidfd() const noexcept { return job_.pidfd; }
    int clone_error() const noexcept { return job_.error; }
    const plan& steps() const noexcept { return program_.plan; }
    const std::optional<named_user>& user() const noexcept { return program_.named_user; }
    /// The number of the filter's listener in the child, when it is to be fetched from there.
    std::optional<int> listener() const noexcept {
        if (!program_.fetched_listener) return std::nullopt;
        const auto at = static_cast<std::size_t>(*program_.fetched_listener);
        return static_cast<int>(report().slots[at]);
    }
    child_report& report() noexcept { return program_.plan.report(); }
    const child_report& report() const noexcept { return program_.plan.report(); }

    /// An init has told how the execve went that is the plan's last step.
    void settle_last_step(int error) noexcept {
        report().step = static_cast<std::int32_t>(steps().size()) - 1;
        report().error = error;
    }
    /// Gives the own end of the control socket to the caller.
    unique_fd release_control() noexcept { return std::move(control_); }
    /// Gives the running process to the caller.
    unique_fd release() noexcept {
        submitted_ = false;
        return unique_fd(std::exchange(job_.pidfd, -1));
    }
    /// Reaps a child that has ended before its execve.
    std::optional<sys::exit_status> reap() {
        submitted_ = false;
        const unique_fd pidfd(std::exchange(job_.pidfd, -1));
        if (!pidfd) return std::nullopt;
        return sys::wait_blocking(pidfd.get());
    }

  private:
    void abandon() noexcept {
        if (prepared_) {
            job_.set_order(spawn_job::order::give_up);
            if (!spawner::shared().withdraw(job_)) spawner::shared().wait(job_);
        }
        if (!submitted_) return;
        release_quietly([&] {
            if (spawner::shared().withdraw(job_)) return;
            // Without the other end the child gives up where it waits next; a kill is quicker, but
            // its pidfd may not be known yet.
            control_.reset();
            kill();
            spawner::shared().wait(job_);
            kill();
            reap();
            // Ours and not waited for: so the number is its own.
            if (const pid_t entered = take_entered(); entered != 0) {
                ::kill(entered, SIGKILL);
                sys::retry([&] { return ::waitpid(entered, nullptr, 0); });
            }
        });
    }
    pid_t take_entered() noexcept {
        return std::atomic_ref<std::int32_t>(report().entered).exchange(0);
    }
    void kill() {
        // Both are written by the kernel on the spawner's thread, before the child's first step. The
        // pid only once there is a child; a clone that fails may have written a pidfd, too, whose
        // number is by then some other descriptor's.
        if (std::atomic_ref<pid_t>(job_.pid).load() == 0) return;
        const int known = std::atomic_ref<int>(job_.pidfd).load();
        if (known >= 0) sys::send_signal(known, SIGKILL);
    }

    encoded_plan program_;
    unique_fd control_;
    spawn_job job_;
    bool prepared_ = false;  // and not yet told what to do
    bool submitted_ = false;
};

}  // namespace kumiki::inline v0::detail
