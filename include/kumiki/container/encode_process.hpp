// The process as steps: session and terminal, standard descriptors, limits, the barrier, identity
// with its privileges (encode_privileges.hpp), the command.
#pragma once

#include <signal.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include <array>
#include <chrono>
#include <string>
#include <vector>

#include <kumiki/container/encode_attributes.hpp>
#include <kumiki/container/encode_privileges.hpp>
#include <kumiki/container/encode_session.hpp>
#include <kumiki/container/named_user.hpp>
#include <kumiki/container/plan.hpp>
#include <kumiki/container/process_spec.hpp>
#include <kumiki/security/rlimits.hpp>

namespace kumiki::inline v0::detail {

/// Adds the steps of the process itself.
class process_encoder {
  public:
    process_encoder(plan& to, const process_spec& process)
        : plan_(to), process_(process), privileges_(to, process) {}

    /// A user known by name is asked for, once all mounts are in their places.
    const std::optional<named_user>& look_up_user(operand root, int control) {
        if (!process_.named_user) return named_;
        plan_.begin(phase::session);
        named_.emplace(named_user{.request = *process_.named_user,
                                  .of_root = process_.capabilities_of(0),
                                  .of_others = process_.capabilities_of(1),
                                  .shared = plan_.shared_object<late_identity>(),
                                  .user = plan_.new_slot(),
                                  .group = plan_.new_slot(),
                                  .group_count = plan_.new_slot()});
        named_->ask(plan_, root, control);
        return named_;
    }

    /// The steps of its session (encode_session.hpp).
    session_encoder session() const { return {plan_, process_, named_.has_value()}; }

    /// Written through the container's own procfs, before anything can be mounted on it.
    void oom_score(operand proc) {
        if (!process_.oom_score_adj) return;
        const slot fd = plan_.new_slot();
        const std::string value = std::to_string(*process_.oom_score_adj);
        const char* shown = plan_.text("oom_score_adj " + value);
        plan_
            .call(shown, SYS_openat, {proc, plan_.text("self/oom_score_adj"), O_WRONLY | O_CLOEXEC})
            .into(fd);
        plan_.call(shown, SYS_write, {fd, plan_.text(value), value.size()});
    }

    /// Labels for the execve, through a procfs that no image has had a hand in.
    void labels(operand proc) { privileges_.labels(proc); }
    /// The command is executed by the program in `init` (init.hpp), which the child executes.
    void run_under(int init) { init_ = plan_.keep(init); }
    /// The command comes later, to the program in `waiter` (waiter.hpp), which the child executes.
    void wait_in(int waiter) {
        init_ = plan_.keep(waiter);
        waits_ = true;
    }

    /// Nothing of the host is left open from here on but `control` and the init.
    void close_all_but(int control) {
        std::vector<int> kept{control};
        if (init_ >= 0) kept.insert(init_ < control ? kept.begin() : kept.end(), init_);
        plan_.special(step_kind::close_others, "the host's descriptors",
                      {plan_.array(kept.data(), kept.size()), kept.size()});
    }

    /// Found below `root` and over no magic link: those of /proc lead to what other processes have
    /// open, which without a pid namespace are the host's (CVE-2024-21626).
    void working_directory(operand root) {
        const slot cwd = plan_.new_slot();
        const char* path = plan_.text(process_.cwd);
        plan_
            .call(path, sys::nr_openat2,
                  {root, path,
                   plan_.object(
                       sys::open_how{.flags = O_PATH | O_DIRECTORY | O_CLOEXEC,
                                     .mode = 0,
                                     .resolve = sys::resolve_in_root | sys::resolve_no_magiclinks}),
                   sizeof(sys::open_how)})
            .into(cwd);
        plan_.call(path, SYS_fchdir, {cwd});
        plan_.call(path, SYS_close, {cwd});
    }
    /// Resource limits, umask and scheduling.
    void process_limits() {
        for (const rlimit_payload& limit : prepare_rlimits(process_.rlimits))
            plan_.call(plan_.text("rlimit " +
                                  std::string(to_string(static_cast<resource>(limit.resource)))),
                       SYS_prlimit64, {0, limit.resource, plan_.object(limit.value), 0});
        plan_.call("the umask", SYS_umask, {process_.umask});
        encode_scheduling(plan_, process_);
    }

    /// Opens the paths of Landlock's rules, below the process's root.
    void landlock() { privileges_.make_landlock(); }

    /// Waits for the ids of a user who is known by name. The supervisor is spoken to over `control`,
    /// and waited for at most `limit`.
    void await_ids(int control, std::chrono::milliseconds limit) {
        privileges_.filter().speak_over(control, limit);
        if (named_)
            plan_.special(step_kind::await_byte, "the user's ids", {control, limit.count()});
    }
    /// Waits until the supervisor says that everything outside is in force, and for the ids. Both
    /// are bytes of one kind: whichever comes first, both are there after the second.
    void barrier(int control, std::chrono::milliseconds limit) {
        plan_.special(step_kind::await_byte, "the supervisor's go", {control, limit.count()});
        await_ids(control, limit);
    }

    /// `sets_groups`: whether the supplementary groups can be set (rootless.hpp).
    void identity(int control, const std::vector<std::string>& candidates, bool sets_groups) {
        plan_.begin(phase::identity);
        // While every script can be read. A command that comes later is not looked at: in its own pid
        // namespace a magic link leads to what has waited for it, and to no program of the host.
        if (!waits_)
            plan_.special(step_kind::inspect, plan_.text(process_.args.front()),
                          {plan_.strings(candidates)});
        const process_user& user = process_.user;
        privileges_.bound();
        privileges_.keep(named_);
        std::vector<std::uint32_t> groups;
        for (const group_id& group : user.groups) groups.push_back(group.value());
        const operand gid = named_ ? operand(named_->group) : operand(user.group.value());
        const operand uid = named_ ? operand(named_->user) : operand(user.user.value());
        if (named_ && process_.terminal)  // the others' is their user's from the start
            plan_.call("the terminal", SYS_fchown, {0, uid, -1});
        if (!sets_groups) {
            // They stay those of the user who started it.
        } else if (named_)
            plan_.call("the supplementary groups", SYS_setgroups,
                       {named_->group_count, &named_->shared->groups[0]});
        else
            plan_.call("the supplementary groups", SYS_setgroups,
                       {groups.size(), plan_.array(groups.data(), groups.size())});
        plan_.call("the group", SYS_setresgid, {gid, gid, gid});
        plan_.call("the user", SYS_setresuid, {uid, uid, uid});
        privileges_.capabilities(named_);
        if (process_.death_signal != 0) {
            plan_.call("the parent-death signal", SYS_prctl,
                       {PR_SET_PDEATHSIG, process_.death_signal, 0, 0, 0});
            // A supervisor that died before the line above is noticed here: EPIPE. Nothing is sent,
            // so that nobody is woken up for it.
            plan_.call("the supervisor", SYS_sendto,
                       {control, plan_.text(""), 0, int{MSG_NOSIGNAL}, 0, 0});
        }
        privileges_.no_new_privileges();
    }
    /// Where the filter's listener is, when the supervisor is to fetch it.
    const std::optional<slot>& fetched_listener() const noexcept {
        return privileges_.filter().fetched_listener();
    }

    /// Signals back to what a program expects, and the command. With an init the last step is the
    /// init's, and the child's the one before it.
    void exec(const std::vector<std::string>& candidates, int control) {
        plan_.begin(phase::exec);
        // clone3 has reset the handled signals; ignored ones (SIGPIPE, in many programs) are not.
        for (int number = 1; number < 65; ++number) {
            struct sigaction now{};
            if (::sigaction(number, nullptr, &now) == 0 && now.sa_handler == SIG_IGN)
                plan_.call("an ignored signal", SYS_rt_sigaction,
                           {number, plan_.object(kernel_sigaction{}), 0, sizeof(std::uint64_t)});
        }
        // An init waits for signals: none is lost between its execve and that.
        const std::uint64_t blocked = init_ >= 0 && !waits_ ? ~std::uint64_t{0} : 0;
        plan_.call("the signal mask", SYS_rt_sigprocmask,
                   {SIG_SETMASK, plan_.object(blocked), 0, sizeof(std::uint64_t)});
        if (init_ >= 0) {
            if (!waits_) plan_.call("the orphans", SYS_prctl, {PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0});
            plan_.call("the control socket", SYS_fcntl, {control, F_SETFD, 0});
            const char* name = waits_ ? "ready" : "init";
            plan_.call(waits_ ? "what waits for the command" : "the container's init", SYS_execveat,
                       {init_, plan_.text(""), plan_.strings({name}), plan_.strings(process_.env),
                        sys::at_empty_path});
        }
        plan_.special(step_kind::exec, plan_.text(process_.args.front()),
                      {plan_.object(exec_candidates{.paths = plan_.strings(candidates),
                                                    .arguments = plan_.strings(process_.args),
                                                    .environment = plan_.strings(process_.env)})});
    }

  private:
    /// All zero: SIG_DFL with no flags, in the layout of every architecture.
    struct kernel_sigaction {
        std::uint64_t words[4] = {};
    };

    plan& plan_;
    const process_spec& process_;
    std::optional<named_user> named_;
    privileges_encoder privileges_;
    int init_ = -1;
    bool waits_ = false;  ///< what is executed waits for the command
};

}  // namespace kumiki::inline v0::detail
