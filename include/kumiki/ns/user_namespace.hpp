// User namespaces without a process in them: made by a helper child that lives for one moment and
// does nothing, kept by a descriptor. For id-mapped mounts, and to join later.
//
// clone3 with CLONE_NEWUSER and CLONE_PIDFD: 5.3. unshare(2) is no way to do this inside a program
// with several threads (EINVAL). A container's own user namespace is made by its own clone3.
#pragma once

#include <fcntl.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdint>

#include <kumiki/core/error.hpp>
#include <kumiki/core/observer.hpp>
#include <kumiki/core/scope_exit.hpp>
#include <kumiki/core/unique_fd.hpp>
#include <kumiki/ns/id_map.hpp>
#include <kumiki/ns/namespace_fd.hpp>
#include <kumiki/ns/unprivileged.hpp>
#include <kumiki/sys/abi.hpp>
#include <kumiki/sys/check.hpp>
#include <kumiki/sys/pidfd.hpp>
#include <kumiki/sys/raw.hpp>

namespace kumiki::inline v0 {

namespace detail {

/// The helper child: holds nothing but the pipe, whose other end is in the parent alone, and ends
/// with it at the latest. Runs in memory of its own, on raw calls.
KUMIKI_CHILD_SIDE inline void wait_for_end_of_pipe(void* argument) {
    const long pipe = *static_cast<int*>(argument);
    if (pipe > 0) sys::raw_syscall(sys::nr_close_range, 0, pipe - 1);
    sys::raw_syscall(sys::nr_close_range, pipe + 1, ~0U);
    char byte;
    sys::raw_syscall(SYS_read, pipe, reinterpret_cast<long>(&byte), 1);
    for (;;) sys::raw_syscall(SYS_exit_group, 0);
}

}  // namespace detail

/// A new user namespace with these maps, a child of the caller's own and owned by its user.
///
/// Cost: the copy of the caller's page tables, as for fork. Nobody is in the namespace.
/// Errors: EPERM, ENOSPC (a limit), and what write_id_maps() throws. The child is gone in any case.
inline namespace_fd make_user_namespace(const id_map& uids, const id_map& gids,
                                        setgroups_policy policy = setgroups_policy::automatic) {
    int ends[2];
    sys::check(::pipe2(ends, O_CLOEXEC), "pipe2");
    unique_fd child_end(ends[0]);
    const unique_fd own_end(ends[1]);

    int pidfd_value = -1;
    int argument = child_end.get();
    // No exit signal: SIGCHLD is the calling program's business, and a waitpid(-1) somewhere in it
    // does not see the child.
    const sys::clone_arguments request{
        .flags = sys::clone_newuser | sys::clone_pidfd | sys::clone_clear_sighand,
        .pidfd = reinterpret_cast<std::uint64_t>(&pidfd_value)};
    // With the handlers cleared a signal to the whole process group would end the child early.
    std::uint64_t all_signals = ~std::uint64_t{0};
    std::uint64_t mask = 0;
    sys::raw_syscall(SYS_rt_sigprocmask, SIG_SETMASK, reinterpret_cast<long>(&all_signals),
                     reinterpret_cast<long>(&mask), sizeof mask);
    const long pid = sys::clone_copied(request, detail::wait_for_end_of_pipe, &argument);
    sys::raw_syscall(SYS_rt_sigprocmask, SIG_SETMASK, reinterpret_cast<long>(&mask), 0,
                     sizeof mask);
    if (pid < 0)
        throw error(static_cast<int>(-pid),
                    {.operation = "make a user namespace",
                     .remedy = namespace_remedy(static_cast<int>(-pid), namespace_kind::user)});
    const unique_fd pidfd(pidfd_value);
    // Killed and not only told by the pipe: a fork elsewhere in this program may hold the pipe's
    // other end open for a while.
    const scope_exit reap([&]() noexcept {
        detail::release_quietly([&] {
            sys::send_signal(pidfd.get(), SIGKILL);
            sys::try_wait(pidfd.get(), __WALL);
        });
    });
    child_end.reset();
    write_id_maps(static_cast<pid_t>(pid), uids, gids, policy);
    return namespace_fd::of_pidfd(pidfd.get(), namespace_kind::user);
}

}  // namespace kumiki::inline v0
