// What waits in a container that is ready (pool.hpp): a program of some 400 bytes that is the
// container's first process until it is handed its command, which it executes in its own place.
//
// The child of a start executes it where it would execute the command: with the privileges, behind the
// filter and in the limits that the command will have. So what waits has no memory of the supervisor,
// keeps no thread of it waiting, holds the control socket and nothing else, and may do no more than
// the payload. It says 'x' and 0 when it is there, 'r' when it has its command, 'x' and errno when
// that cannot be executed; the end of the socket after 'r' is the execve. A filter must let it call
// execveat, prctl, fcntl, write, recvmsg, mmap, dup3, execve and exit_group: it tries those that it
// needs later before it says that it is there. It lies in a sealed memfd; the command comes in another one, with the standard descriptors (SCM_RIGHTS).
// Left out: other machines than x86-64.
#pragma once

#include <fcntl.h>
#include <sys/mman.h>

#include <array>
#include <cerrno>
#include <string>
#include <vector>

#include <kumiki/container/process_spec.hpp>
#include <kumiki/container/sealed_program.hpp>
#include <kumiki/container/waiter_code.hpp>
#include <kumiki/core/error.hpp>
#include <kumiki/core/unique_fd.hpp>
#include <kumiki/sys/send_descriptors.hpp>

namespace kumiki::inline v0::detail {

/// The program, which speaks over the descriptor `control`.
/// Errors: `unsupported` on another machine, or on a host that forbids such programs.
inline unique_fd make_waiter(int control) {
    if (!has_waiter)
        throw unsupported(ENOSYS, {.operation = "make",
                                   .object = "what waits in a container of a pool",
                                   .remedy = "There is none for this machine: start containers as "
                                             "they are needed."});
    mapped_text image = begin_program<waiter_words>(waiter_code());
    finish_program(image, waiter_words{.control = control});
    return seal_program("ready", image.contents(), "what waits in a container of a pool");
}

/// A command on its way to a waiter. `files` are the descriptors that its 0, 1 and 2 become;
/// -1: it keeps what it has. They must stay open until it was sent.
class handed_command {
  public:
    handed_command(const process_spec& process, const std::array<int, 3>& files) {
        constexpr const char* what = "a command for a container";
        mapped_text text(command_base, sizeof(command_words));
        command_words words;
        words.paths = text.list(process.candidates());
        words.arguments = text.list(process.args);
        words.environment = text.list(process.env);
        file_.reset(sys::check(::memfd_create("command", MFD_CLOEXEC), "make", what));
        sent_.fill(file_.get());
        for (std::size_t i = 0; i < files.size(); ++i) {
            if (files[i] < 0) continue;
            words.sources[i] = static_cast<std::int64_t>(i + 1);
            sent_[i + 1] = files[i];
        }
        text.put(0, words);
        size_ = text.contents().size();
        fill_memory_file(file_.get(), text.contents(), what);
    }

    /// False when nobody waits there any more.
    bool send(int control) {
        const auto sent = sys::send_descriptors(control, &size_, sizeof size_, sent_);
        if (sent < 0 && (errno == EPIPE || errno == ECONNRESET)) return false;
        sys::check(sent, "hand a command to", "a container that is ready");
        return true;
    }

  private:
    unique_fd file_;
    std::array<int, 4> sent_{};  // the file, and the sources of 0, 1 and 2
    std::uint64_t size_ = 0;
};

}  // namespace kumiki::inline v0::detail
