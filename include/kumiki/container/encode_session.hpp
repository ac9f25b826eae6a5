// The session of a process as steps: its standard descriptors, or a terminal of the container's own
// devpts, whose other end goes over the control socket.
//
// /dev/console is the terminal itself, mounted by its descriptor and by no name that could be exchanged
// (CVE-2025-52565); the other end is opened by TIOCGPTPEER (4.13), by no name either.
#pragma once

#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include <array>
#include <optional>

#include <kumiki/container/plan.hpp>
#include <kumiki/container/process_spec.hpp>
#include <kumiki/container/stdio.hpp>
#include <kumiki/sys/abi.hpp>

namespace kumiki::inline v0::detail {

/// Adds the steps of one session. `named_user`: whose terminal it is turns out later.
class session_encoder {
  public:
    session_encoder(plan& to, const process_spec& process, bool named_user)
        : plan_(to), process_(process), named_user_(named_user),
          under_init_(process.init != init_process::none) {}

    /// A session of its own, and the descriptors 0, 1 and 2: from `from`, which the child keeps,
    /// or a new terminal of the container's own devpts, whose other end goes over `control`.
    void start(const std::array<stdio, 3>& from, operand dev, operand pts, int control) {
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
    /// As start(), for a process that enters: its terminal is of the devpts below `root`, found
    /// without symbolic links; what is no terminal's multiplexer there refuses the next call.
    void enter(const std::array<stdio, 3>& from, operand root, int control) {
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

  private:
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
        if (!under_init_) plan_.call(shown, SYS_ioctl, {peer, TIOCSCTTY, 0});  // else the payload's
        if (!named_user_) plan_.call(shown, SYS_fchown, {peer, process_.user.user.value(), -1});
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
    bool named_user_;
    bool under_init_;  ///< the terminal becomes the command's, by the init
};

}  // namespace kumiki::inline v0::detail
