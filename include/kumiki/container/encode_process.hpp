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

    /// A session of its own, and the descriptors 0, 1 and 2: from `from`, which the child keeps,
    /// or a new terminal of the container's own devpts, whose other end goes over `control`.
    void session(const std::array<stdio, 3>& from, operand dev, operand pts, int control) {
        plan_.begin(phase::session);
        plan_.call("a session", SYS_setsid, {});
        if (process_.terminal) {
            const slot master = plan_.new_slot();
            plan_
                .call("the terminal", SYS_openat,
                      {pts, plan_.text("ptmx"), O_RDWR | O_NOCTTY | O_CLOEXEC})
                .into(master);
            const slot peer = terminal(master);
            console(dev, peer);
            hand_over_terminal(master, peer, control);
        } else {
            place(from, dev, "null");
        }
    }
    /// As session(), for a process that enters: its terminal is of the devpts below `root`, found
    /// without symbolic links; what is no terminal's multiplexer there refuses the next call.
    void enter_session(const std::array<stdio, 3>& from, operand root, int control) {
        plan_.begin(phase::session);
        plan_.call("a session", SYS_setsid, {});
        if (process_.terminal) {
            const slot master = plan_.new_slot();
            plan_
                .call("the terminal", sys::nr_openat2,
                      {root, plan_.text("dev/pts/ptmx"),
                       plan_.object(sys::open_how{
                           .flags = O_RDWR | O_NOCTTY | O_CLOEXEC | O_NONBLOCK,
                           .mode = 0,
                           .resolve = sys::resolve_beneath | sys::resolve_no_symlinks |
                                      sys::resolve_no_magiclinks}),
                       sizeof(sys::open_how)})
                .into(master);
            plan_.call("the terminal", SYS_fcntl, {master, F_SETFL, O_RDWR});
            const slot peer = terminal(master);
            hand_over_terminal(master, peer, control);
        } else {
            place(from, root, "dev/null");
        }
    }

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

    /// Waits until the supervisor says that everything outside is in force.
    void barrier(int control, std::chrono::milliseconds limit) {
        privileges_.filter().speak_over(control, limit);
        plan_.special(step_kind::await_byte, "the supervisor's go", {control, limit.count()});
        // Another byte of the same kind: whichever comes first, both are there after the second.
        if (named_)
            plan_.special(step_kind::await_byte, "the user's ids", {control, limit.count()});
    }

    /// `sets_groups`: whether the supplementary groups can be set (rootless.hpp).
    void identity(int control, const std::vector<std::string>& candidates, bool sets_groups) {
        plan_.begin(phase::identity);
        // While every script can be read.
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
            // A supervisor that died before the line above is noticed here: EPIPE.
            plan_.call("the supervisor", SYS_sendto,
                       {control, plan_.text("a"), 1, int{MSG_NOSIGNAL}, 0, 0});
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
        const std::uint64_t blocked = init_ >= 0 ? ~std::uint64_t{0} : 0;
        plan_.call("the signal mask", SYS_rt_sigprocmask,
                   {SIG_SETMASK, plan_.object(blocked), 0, sizeof(std::uint64_t)});
        if (init_ >= 0) {
            plan_.call("the orphans", SYS_prctl, {PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0});
            plan_.call("the control socket", SYS_fcntl, {control, F_SETFD, 0});
            plan_.call("the container's init", SYS_execveat,
                       {init_, plan_.text(""), plan_.strings({"init"}), plan_.strings(process_.env),
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

    void place(const std::array<stdio, 3>& from, operand place_of_null, const char* null) {
        const char* shown = "a standard descriptor";
        std::optional<slot> opened;
        for (int target = 0; target < 3; ++target) {
            const stdio& each = from[static_cast<std::size_t>(target)];
            if (each.from() == stdio::source::null) {
                if (!opened) opened = open_null(place_of_null, null);
                plan_.call(shown, SYS_dup3, {*opened, target, 0});
            } else if (each.from() == stdio::source::merge) {
                plan_.call(shown, SYS_dup3, {1, target, 0});
            } else if (each.descriptor() != target) {
                plan_.call(shown, SYS_dup3, {plan_.keep(each.descriptor()), target, 0});
            }
        }
    }
    /// The container's and not the host's, whose mode its root could change by the descriptor. What
    /// root of a running container has put there is what its processes get for it.
    slot open_null(operand place, const char* path) {
        const slot null = plan_.new_slot();
        const char* shown = "/dev/null";
        plan_
            .call(shown, sys::nr_openat2,
                  {place, plan_.text(path),
                   plan_.object(sys::open_how{.flags = O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC,
                                              .mode = 0,
                                              .resolve = sys::resolve_beneath |
                                                         sys::resolve_no_symlinks |
                                                         sys::resolve_no_magiclinks}),
                   sizeof(sys::open_how)})
            .into(null);
        plan_.call(shown, SYS_fcntl, {null, F_SETFL, O_RDWR});
        return null;
    }

    /// The other end of `master`, opened by the descriptor and by no name (TIOCGPTPEER).
    slot terminal(slot master) {
        const slot peer = plan_.new_slot();
        const char* shown = "the terminal";
        plan_.call(shown, SYS_ioctl, {master, TIOCSPTLCK, plan_.object(int{0})});
        plan_.call(shown, SYS_ioctl, {master, sys::tiocgptpeer, O_RDWR | O_NOCTTY | O_CLOEXEC})
            .into(peer);
        const winsize size{.ws_row = process_.terminal->rows,
                           .ws_col = process_.terminal->columns,
                           .ws_xpixel = 0,
                           .ws_ypixel = 0};
        plan_.call(shown, SYS_ioctl, {peer, TIOCSWINSZ, plan_.object(size)});
        if (init_ < 0) plan_.call(shown, SYS_ioctl, {peer, TIOCSCTTY, 0});  // else the payload's
        if (!named_) plan_.call(shown, SYS_fchown, {peer, process_.user.user.value(), -1});
        return peer;
    }
    void console(operand dev, slot peer) {
        const slot console = plan_.new_slot();
        // /dev/console is the terminal itself, mounted by its descriptor and by no name that could
        // be exchanged (CVE-2025-52565).
        plan_.call("/dev/console", SYS_mknodat, {dev, plan_.text("console"), S_IFREG | 0600, 0});
        plan_
            .call("/dev/console", sys::nr_open_tree,
                  {peer, plan_.text(""),
                   sys::open_tree_clone | sys::open_tree_cloexec | sys::at_empty_path})
            .into(console);
        plan_.call(
            "/dev/console", sys::nr_move_mount,
            {console, plan_.text(""), dev, plan_.text("console"), sys::move_mount_f_empty_path});
    }
    void hand_over_terminal(slot master, slot peer, int control) {
        for (int target = 0; target < 3; ++target)
            plan_.call("the terminal", SYS_dup3, {peer, target, 0});
        plan_.special(step_kind::send_slot, "the terminal's other end", {control, master, 't'});
    }

    plan& plan_;
    const process_spec& process_;
    std::optional<named_user> named_;
    privileges_encoder privileges_;
    int init_ = -1;
};

}  // namespace kumiki::inline v0::detail
