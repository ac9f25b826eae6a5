// An init for containers: a program of some 400 bytes that is PID 1, reaps what is orphaned there,
// hands every signal on to the payload, and ends with it.
//
// It lies in a sealed memfd of each container's own: no file of the host is executed, and nothing of
// this process's memory stays in the container. The code is the assembly below, between two labels;
// an ELF header, the payload's command and its arguments are put around it. Over the control socket,
// which it keeps, it tells how the payload's execve went ('x' and errno), and at the end the wait
// status, four bytes: PID 1 cannot die by a signal of its own. Kernel: 5.9 (close_range). Left out:
// other machines than x86-64; SIGSTOP and SIGKILL, which nobody can hand on.
#pragma once

#include <sys/socket.h>
#include <sys/wait.h>

#include <cerrno>

#include <kumiki/container/init_code.hpp>
#include <kumiki/container/process_spec.hpp>
#include <kumiki/container/sealed_program.hpp>
#include <kumiki/core/error.hpp>
#include <kumiki/core/unique_fd.hpp>
#include <kumiki/sys/pidfd.hpp>

namespace kumiki::inline v0::detail {

/// The init of `process`, sealed (sealed_program.hpp): it has the command, and speaks over `control`.
/// Errors: `unsupported` on a machine that has no init, or a host that forbids such programs.
inline unique_fd make_init(const process_spec& process, int control) {
    if (!has_init)
        throw unsupported(ENOSYS, {.operation = "make",
                                   .object = "the container's init",
                                   .step = {},
                                   .container = {},
                                   .remedy = "There is none for this machine: leave `init` away."});
    mapped_text image = begin_program<init_words>(init_code());
    init_words words{.control = control, .terminal = process.terminal ? 1 : 0};
    words.paths = image.list(process.candidates());
    words.arguments = image.list(process.args);
    finish_program(image, words);
    return seal_program("init", image.contents(), "the container's init");
}

/// How the payload ended, if its init has told it over `control`; else as `own`, the init itself.
inline sys::exit_status payload_status(int control, sys::exit_status own) {
    int status = 0;
    const auto size = ::recv(control, &status, sizeof status, MSG_DONTWAIT);
    if (size != static_cast<ssize_t>(sizeof status)) return own;
    own.code = WIFEXITED(status) ? WEXITSTATUS(status) : 0;
    own.signal = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
    own.core = WIFSIGNALED(status) && WCOREDUMP(status);
    return own;
}

}  // namespace kumiki::inline v0::detail
