// Entering a running container: a further process in all of its namespaces, its cgroup, its
// privileges. The plan and its interpreter are those of a start (encode_process.hpp, child.hpp); only
// how the process gets to the container's root is another.
//
// What enters can be seen from inside before it executes anything, so nothing of this process may be
// reached through it: it has memory of its own, is not dumpable from its birth on, holds no
// descriptor but its standard ones and the control socket, and its working directory is found below
// the container's root without magic links (CVE-2016-9962, CVE-2019-5736, CVE-2024-21626). It never
// executes a file of the host. What the kernel shows of any process to all, its name and command
// line, are this program's until the execve. Kernel: 5.8 (setns with a pidfd).
#pragma once

#include <sys/ioctl.h>
#include <sys/prctl.h>

#include <memory>
#include <optional>
#include <string>
#include <utility>

#include <kumiki/container/exec_spec.hpp>
#include <kumiki/container/launch.hpp>
#include <kumiki/container/process_reaper.hpp>
#include <kumiki/container/standard_pipes.hpp>

namespace kumiki::inline v0 {

namespace detail {

/// Writes down how a process enters the container whose first process is `pidfd`.
inline encoded_plan encode_exec(const process_spec& spec, const container_parts& of, int control) {
    const namespace_kind kinds = of.kinds;
    const int pidfd = of.pidfd.get();
    encoded_plan out;
    plan& to = out.plan;
    to.keep(control);
    to.keep(pidfd);
    process_encoder process(to, spec);

    to.begin(phase::descriptors);
    to.call("its memory", SYS_prctl, {PR_SET_DUMPABLE, 0, 0, 0, 0});
    encode_keyring(to, spec);
    if (spec.oom_score_adj || !spec.apparmor_profile.empty() || !spec.selinux_label.empty()) {
        // Through the host's procfs: the container's may be anything.
        const slot proc = to.new_slot();
        to.call("/proc", SYS_openat, {AT_FDCWD, to.text("/proc"), O_PATH | O_DIRECTORY | O_CLOEXEC})
            .into(proc);
        process.oom_score(proc);
        process.labels(proc);
    }
    to.begin(phase::enter);
    // The pid namespace is that of its birth, for which an ordinary user has no right. Time and user only where they are others: a process
    // cannot enter its own user namespace again.
    const namespace_kind own = namespace_kind::time | namespace_kind::user;
    const bool unprivileged = of.caller.unprivileged;
    namespace_kind joined = namespace_kind::mount | namespace_kind::uts | namespace_kind::ipc |
                            namespace_kind::net | namespace_kind::cgroup | (kinds & own);
    if (unprivileged) joined |= namespace_kind::pid;
    to.call("the container's namespaces", SYS_setns, {pidfd, clone_flags(joined)});
    if (unprivileged)
        to.special(step_kind::hand_on, "a process in the pid namespace", {&to.report().entered});
    if (has(kinds, namespace_kind::user)) {
        to.call("root's group in the user namespace", SYS_setresgid, {0, 0, 0});
        to.call("root in the user namespace", SYS_setresuid, {0, 0, 0});
        if (of.caller.sets_groups)
            to.call("root's groups in the user namespace", SYS_setgroups, {0, 0});
        to.call("its memory", SYS_prctl, {PR_SET_DUMPABLE, 0, 0, 0, 0});
    }
    const slot root = to.new_slot();
    to.call("/", SYS_openat, {AT_FDCWD, to.text("/"), O_PATH | O_DIRECTORY | O_CLOEXEC}).into(root);
    out.named_user = process.look_up_user(root, control);
    process.session().enter(place_stdio(out, spec), root, control);

    to.begin(phase::limits);
    process.working_directory(root);
    process.close_all_but(control);
    process.process_limits();
    process.landlock();
    process.await_ids(control, of.start_limit);
    const std::vector<std::string> candidates = spec.candidates();
    process.identity(control, candidates, of.caller.sets_groups);
    out.fetched_listener = process.fetched_listener();
    process.exec(candidates, control);
    out.program = to.finish();
    return out;
}

}  // namespace detail

/// A process that entered a container. Move-only.
///
/// Lifetime: the destructor kills it if it still runs, and waits for its end. It may outlive the
/// container, whose end is also its own.
class exec_process {
  public:
    exec_process(scheduler& io, std::shared_ptr<detail::entered_process> process,
                 unique_fd terminal, standard_pipes pipes,
                 std::unique_ptr<seccomp_listener> calls = {})
        : io_(&io), process_(std::move(process)), terminal_(std::move(terminal)),
          pipes_(std::move(pipes)), calls_(std::move(calls)) {}
    exec_process(exec_process&&) noexcept = default;
    exec_process& operator=(exec_process&& other) noexcept {
        exec_process old(std::move(*this));
        io_ = other.io_;
        process_ = std::move(other.process_);
        terminal_ = std::move(other.terminal_);
        pipes_ = std::move(other.pipes_);
        calls_ = std::move(other.calls_);
        return *this;
    }
    ~exec_process() {
        if (process_) process_->kill_and_reap();
    }

    /// Its number as the supervisor sees it; its own until it has been waited for.
    pid_t pid() const noexcept { return process_->pid; }
    int pidfd() const noexcept { return process_->pidfd.get(); }
    /// The other ends of its pipes, where the spec says stdio::pipe(). Errors: EBADF elsewhere.
    pipe_writer& in() { return pipes_.in(); }
    pipe_reader& out() { return pipes_.out(); }
    pipe_reader& err() { return pipes_.err(); }
    standard_pipes& pipes() noexcept { return pipes_; }
    /// The other end of its terminal; -1 without one.
    int terminal() const noexcept { return terminal_.get(); }
    /// Tells the terminal a new size; the foreground processes get SIGWINCH.
    void resize(terminal_size size) const {
        const winsize wanted{
            .ws_row = size.rows, .ws_col = size.columns, .ws_xpixel = 0, .ws_ypixel = 0};
        sys::check(::ioctl(terminal_.get(), TIOCSWINSZ, &wanted), "resize the terminal");
    }
    /// The calls that the container's filter asks about, as container::seccomp_calls(): those of this
    /// process and of what it starts, up to its own end. Null without notify rules.
    seccomp_listener* seccomp_calls() noexcept { return calls_.get(); }
    /// Sends it a signal; false when it has ended.
    bool signal(int number) const { return !process_->status && sys::send_signal(pidfd(), number); }
    /// Waits for its end. A second call returns the same.
    template <class = void>
    task<sys::exit_status> wait() {
        return wait_for(*io_, process_);
    }

  private:
    template <class = void>
    static task<sys::exit_status> wait_for(scheduler& io,
                                           std::shared_ptr<detail::entered_process> process) {
        for (;;) {
            process->reap();
            if (process->status) co_return *process->status;
            co_await io.poll(process->pidfd.get(), POLLIN);
        }
    }

    scheduler* io_;
    std::shared_ptr<detail::entered_process> process_;
    unique_fd terminal_;
    standard_pipes pipes_;
    std::unique_ptr<seccomp_listener> calls_;
};

namespace detail {

/// Runs `wanted` in the container; `parts` must stay until this has ended.
template <class = void>
inline task<exec_process> enter_container(scheduler& io, container_parts& parts, exec_spec wanted,
                                          plan_tap tap = {}) {
    if (parts.result)
        throw start_error(ESRCH,
                          {.operation = "enter",
                           .object = parts.name,
                           .step = name_of(phase::enter),
                           .container = parts.name,
                           .remedy = "The container has ended."},
                          125);
    child_process child(0, parts.group.fd(), clone_mode::own_memory);
    child.prepare();
    if (!parts.caller.unprivileged)
        child.set_birth_place(
            namespace_fd::of_pidfd(parts.pidfd.get(), namespace_kind::pid).release(),
            namespace_kind::pid);
    const process_spec spec = wanted.complete(parts.process);
    require_standard_descriptors(spec);
    control_sockets sockets = control_sockets::make();
    encoded_plan program = encode_exec(spec, parts, sockets.child.get());
    if (tap.alter != nullptr) tap.alter(*program.program, tap.context);
    standard_pipes pipes(io, std::move(program.pipes));
    child.submit(std::move(program), std::move(sockets));
    from_child got;
    auto in_time =
        co_await with_timeout(io, parts.start_limit, follow_child(io, child, std::nullopt, got));
    if (!in_time)
        throw start_error(ETIMEDOUT,
                          {.operation = "enter",
                           .object = parts.name,
                           .step = name_of(phase::exec),
                           .container = parts.name,
                           .remedy = "It took longer than the container's start_limit: is it "
                                     "frozen?"},
                          125);
    child.await_clone();
    judge(child, namespace_kind::pid, parts.name);
    auto process = std::make_shared<entered_process>();
    process->pid = child.pid();
    process->pidfd = child.release();
    auto calls = got.calls.finish(io, process->pidfd.get());
    exec_process handle(io, process, std::move(got.terminal), std::move(pipes), std::move(calls));
    parts.reaper.add(std::move(process));
    co_return handle;
}

}  // namespace detail
}  // namespace kumiki::inline v0
