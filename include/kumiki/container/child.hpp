// The child's side of a start: a small interpreter that carries out the plan's steps by raw system
// calls, in memory that it may share with the program that started it.
//
// No libc, no allocation, no lock, no exception, no stack protector, no sanitizer: nothing here
// calls anything but the functions of this header and sys/raw.hpp. It leaves what went wrong in the
// report and ends by _exit.
#pragma once

#include <fcntl.h>
#include <linux/time_types.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include <kumiki/container/step.hpp>
#include <kumiki/sys/raw.hpp>

namespace kumiki::inline v0::detail {

template <class Pointer>
KUMIKI_CHILD_SIDE inline long raw_address(Pointer* pointer) noexcept {
    return reinterpret_cast<long>(pointer);
}

KUMIKI_CHILD_SIDE inline std::int64_t child_clock() noexcept {
    __kernel_timespec now;
    sys::raw_syscall(SYS_clock_gettime, 1 /* CLOCK_MONOTONIC */, raw_address(&now));
    return now.tv_sec * 1000000000LL + now.tv_nsec;
}

/// Closes all descriptors from 3 on that are not among the `count` ascending `kept` ones.
KUMIKI_CHILD_SIDE inline long child_close_others(const int* kept, long count) noexcept {
    long first = 3;
    for (long i = 0; i <= count; ++i) {
        const long last = i < count ? static_cast<long>(kept[i]) - 1 : 0xffffffffL;
        if (first <= last) {
            const long result = sys::raw_syscall(sys::nr_close_range, first, last, 0);
            if (result < 0) return result;
        }
        if (i < count) first = static_cast<long>(kept[i]) + 1;
    }
    return 0;
}

/// openat2 below `root`, tried again while renames race with it.
KUMIKI_CHILD_SIDE inline long child_open_inside(long root, const char* path, bool follow) noexcept {
    // All fields named: a default constructor would be a function without this one's attributes.
    const sys::open_how how{.flags = O_PATH | O_CLOEXEC,
                            .mode = 0,
                            .resolve = sys::resolve_no_magiclinks |
                                       (follow ? sys::resolve_in_root
                                               : sys::resolve_beneath | sys::resolve_no_symlinks)};
    for (int attempt = 0;; ++attempt) {
        const long fd = sys::raw_syscall(sys::nr_openat2, root, raw_address(path),
                                         raw_address(&how), sizeof how);
        if (fd != -EAGAIN || attempt == 128) return fd;
    }
}

/// Opens walk.path below `root`; components that are missing are made one by one, each in the
/// directory that was opened for the one before it, never by a path that could be exchanged.
KUMIKI_CHILD_SIDE inline long child_make_path(long root, const path_walk* walk) noexcept {
    long fd = child_open_inside(root, walk->path, walk->follow);
    if (fd != -ENOENT) return fd;
    long parent = root;
    const char* from = walk->path;
    char* prefix = walk->scratch;
    std::size_t length = 0;
    for (;;) {
        const std::size_t name = length;
        for (; from[length] != '\0' && from[length] != '/'; ++length) prefix[length] = from[length];
        const bool last = from[length] == '\0';
        prefix[length] = '\0';
        fd = child_open_inside(root, prefix, walk->follow);
        if (fd == -ENOENT) {
            const long leaf = raw_address(prefix + name);
            long made;
            if (last && !walk->directory) {
                made = sys::raw_syscall(SYS_openat, parent, leaf,
                                        O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC | O_NOFOLLOW, 0644);
                if (made >= 0) sys::raw_syscall(SYS_close, made);
            } else {
                made = sys::raw_syscall(SYS_mkdirat, parent, leaf, 0755);
            }
            if (made == -EACCES && walk->optional) return -EROFS;
            if (made < 0 && made != -EEXIST) return made;
            fd = child_open_inside(root, prefix, walk->follow);
        }
        if (parent != root) sys::raw_syscall(SYS_close, parent);
        if (fd < 0 || last) return fd;
        parent = fd;
        prefix[length] = '/';
        ++length;
    }
}

/// Waits up to `milliseconds` for something to read. The supervisor's end being closed ends the
/// wait, too.
KUMIKI_CHILD_SIDE inline long child_await(long fd, long milliseconds) noexcept {
    pollfd wanted;
    wanted.fd = static_cast<int>(fd);
    wanted.events = POLLIN;
    wanted.revents = 0;
    __kernel_timespec limit;
    limit.tv_sec = milliseconds / 1000;
    limit.tv_nsec = milliseconds % 1000 * 1000000;
    const long ready = sys::raw_syscall(SYS_ppoll, raw_address(&wanted), 1, raw_address(&limit), 0,
                                        sizeof(std::uint64_t));
    if (ready < 0) return ready;
    return ready == 0 ? -ETIMEDOUT : 0;
}

KUMIKI_CHILD_SIDE inline long child_await_byte(long fd, long milliseconds) noexcept {
    const long waited = child_await(fd, milliseconds);
    if (waited < 0) return waited;
    char byte;
    const long got = sys::raw_syscall(SYS_read, fd, raw_address(&byte), 1);
    if (got < 0) return got;
    return got == 1 ? 0 : -ECANCELED;
}

/// A cmsghdr with one descriptor behind it.
struct child_control_message {
    std::size_t length;
    int level;
    int type;
    int fd;
};

/// Receives a descriptor, sent with one byte.
KUMIKI_CHILD_SIDE inline long child_receive_slot(long from, long milliseconds) noexcept {
    const long waited = child_await(from, milliseconds);
    if (waited < 0) return waited;
    char byte;
    iovec data;
    data.iov_base = &byte;
    data.iov_len = 1;
    child_control_message control;
    control.length = 0;
    msghdr message;
    message.msg_name = nullptr;
    message.msg_namelen = 0;
    message.msg_iov = &data;
    message.msg_iovlen = 1;
    message.msg_control = &control;
    message.msg_controllen = sizeof control;
    message.msg_flags = 0;
    const long got = sys::raw_syscall(SYS_recvmsg, from, raw_address(&message), MSG_CMSG_CLOEXEC);
    if (got < 0) return got;
    if (got != 1 || control.length == 0) return -ECANCELED;
    return control.fd;
}

/// Sends the descriptor `fd` over the socket `to`, with the byte that says what it is.
KUMIKI_CHILD_SIDE inline long child_send_slot(long to, long fd, long what) noexcept {
    char byte = static_cast<char>(what);
    iovec data;
    data.iov_base = &byte;
    data.iov_len = 1;
    child_control_message control;
    control.length = offsetof(child_control_message, fd) + sizeof(int);
    control.level = SOL_SOCKET;
    control.type = SCM_RIGHTS;
    control.fd = static_cast<int>(fd);
    msghdr message;
    message.msg_name = nullptr;
    message.msg_namelen = 0;
    message.msg_iov = &data;
    message.msg_iovlen = 1;
    message.msg_control = &control;
    message.msg_controllen = sizeof control;
    message.msg_flags = 0;
    const long sent = sys::raw_syscall(SYS_sendmsg, to, raw_address(&message), MSG_NOSIGNAL);
    return sent < 0 ? sent : 0;
}

/// The interpreter that a file which begins with `head` names after "#!"; null: none. `head` has
/// room for one more byte.
KUMIKI_CHILD_SIDE inline const char* child_interpreter(char* head, long size) noexcept {
    if (size < 2 || head[0] != '#' || head[1] != '!') return nullptr;
    long from = 2;
    while (from < size && (head[from] == ' ' || head[from] == '\t')) ++from;
    long to = from;
    while (to < size && head[to] != ' ' && head[to] != '\t' && head[to] != '\n' && head[to] != '\0')
        ++to;
    head[to] = '\0';
    return to > from ? head + from : nullptr;
}

/// -ELOOP when a candidate, or an interpreter that it leads to, is reached over a magic link: of
/// this process, /proc/self/exe is the program that starts the container (CVE-2019-5736). What is
/// missing or cannot be read is the execve's to judge.
KUMIKI_CHILD_SIDE inline long child_inspect(const char* const* candidates) noexcept {
    const sys::open_how how{.flags = O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC,
                            .mode = 0,
                            .resolve = sys::resolve_no_magiclinks};
    char head[257];
    for (const char* const* path = candidates; *path != nullptr; ++path) {
        const char* next = *path;
        for (int depth = 0; next != nullptr && depth < 8; ++depth) {  // the kernel's limit is 6
            const long fd = sys::raw_syscall(sys::nr_openat2, AT_FDCWD, raw_address(next),
                                             raw_address(&how), sizeof how);
            if (fd == -ELOOP) return fd;
            if (fd < 0) break;
            const long size = sys::raw_syscall(SYS_read, fd, raw_address(&head[0]), 256);
            sys::raw_syscall(SYS_close, fd);
            next = child_interpreter(head, size);
        }
    }
    return 0;
}

/// Adds what is allowed at a path to the ruleset. The kernel refuses rights of directories for what is
/// none (EINVAL); then it gets those that files have.
KUMIKI_CHILD_SIDE inline long child_allow_path(long ruleset, const allowed_path* wanted) noexcept {
    const sys::open_how how{
        .flags = O_PATH | O_CLOEXEC, .mode = 0, .resolve = sys::resolve_no_magiclinks};
    const long fd = sys::raw_syscall(sys::nr_openat2, AT_FDCWD, raw_address(wanted->path),
                                     raw_address(&how), sizeof how);
    if (fd < 0) return fd;
    sys::landlock_path_beneath rule;
    rule.allowed_access = wanted->rights;
    rule.parent_fd = static_cast<int>(fd);
    long result = sys::raw_syscall(sys::nr_landlock_add_rule, ruleset,
                                   sys::landlock_rule_path_beneath, raw_address(&rule), 0);
    if (result == -EINVAL && wanted->file_rights != 0) {
        rule.allowed_access = wanted->file_rights;
        result = sys::raw_syscall(sys::nr_landlock_add_rule, ruleset,
                                  sys::landlock_rule_path_beneath, raw_address(&rule), 0);
    }
    sys::raw_syscall(SYS_close, fd);
    return result;
}

/// Compares the start of a file with `length` bytes; behind them must come its end, a NUL, a newline
/// or a blank.
KUMIKI_CHILD_SIDE inline long child_verify_text(long fd, const char* wanted, long length) noexcept {
    char part[128];
    for (long at = 0;;) {
        const long got = sys::raw_syscall(SYS_pread64, fd, raw_address(part), sizeof part, at);
        if (got < 0) return got;
        if (got == 0) return at == length ? 0 : -EBADMSG;
        for (long i = 0; i < got; ++i, ++at) {
            const char c = part[i];
            if (at == length) return c == '\0' || c == '\n' || c == ' ' ? 0 : -EBADMSG;
            if (c != wanted[at]) return -EBADMSG;
        }
    }
}

/// execve of each candidate in turn; returns the error that says most. A candidate that exists but
/// may not be executed outweighs those that are missing, as with execvp(3).
KUMIKI_CHILD_SIDE inline long child_exec(const exec_candidates* command) noexcept {
    long result = -ENOENT;
    for (const char* const* path = command->paths; *path != nullptr; ++path) {
        const long failed =
            sys::raw_syscall(SYS_execve, raw_address(*path), raw_address(command->arguments),
                             raw_address(command->environment));
        if (failed == -EACCES) {
            result = failed;
        } else if (failed != -ENOENT && failed != -ENOTDIR) {
            return failed;
        }
    }
    return result;
}

/// A process that has entered a pid namespace is not in it, but its children are: one goes on, as
/// another child of the supervisor, which finds its number at `number`.
KUMIKI_CHILD_SIDE inline long child_hand_on(long number) noexcept {
    const long pid = sys::raw_syscall(
        SYS_clone, static_cast<long>(sys::clone_parent | sys::clone_parent_settid) | SIGCHLD, 0,
        number, 0, 0);
    if (pid <= 0) return pid;
    for (;;) sys::raw_syscall(SYS_exit_group, 0);
}

KUMIKI_CHILD_SIDE inline long child_carry_out(const step* s, const long* slots) noexcept {
    long a[6];
    for (int i = 0; i < 6; ++i)
        a[i] = (s->slots >> i & 1) != 0 ? slots[s->arguments[i]] : s->arguments[i];
    switch (s->kind) {
    case step_kind::call:
        return sys::raw_syscall(s->number, a[0], a[1], a[2], a[3], a[4], a[5]);
    case step_kind::close_others:
        return child_close_others(reinterpret_cast<const int*>(a[0]), a[1]);
    case step_kind::make_path:
        return child_make_path(a[0], reinterpret_cast<const path_walk*>(a[1]));
    case step_kind::await_byte:
        return child_await_byte(a[0], a[1]);
    case step_kind::receive_slot:
        return child_receive_slot(a[0], a[1]);
    case step_kind::send_slot:
        return child_send_slot(a[0], a[1], a[2]);
    case step_kind::hand_on:
        return child_hand_on(a[0]);
    case step_kind::inspect:
        return child_inspect(reinterpret_cast<const char* const*>(a[0]));
    case step_kind::allow_path:
        return child_allow_path(a[0], reinterpret_cast<const allowed_path*>(a[1]));
    case step_kind::verify_text:
        return child_verify_text(a[0], reinterpret_cast<const char*>(a[1]), a[2]);
    case step_kind::exec:
        return child_exec(reinterpret_cast<const exec_candidates*>(a[0]));
    }
    return -ENOSYS;
}

/// Where the child begins: carries out a child_program and does not return.
KUMIKI_CHILD_SIDE inline void child_main(void* argument) noexcept {
    const auto* program = static_cast<const child_program*>(argument);
    child_report* report = program->report;
    report->began = child_clock();
    for (std::size_t i = 0; i < program->count; ++i) {
        const step* s = &program->steps[i];
        if (i != 0 && program->steps[i - 1].in != s->in)
            report->phase_end[static_cast<std::size_t>(program->steps[i - 1].in)] = child_clock();
        report->step = static_cast<std::int32_t>(i);
        const long result = child_carry_out(s, report->slots);
        if (result < 0) {
            if (result != -s->tolerated) {
                report->error = static_cast<std::int32_t>(-result);
                break;
            }
            i += s->skip;
        } else if (s->result != no_slot) {
            report->slots[s->result] = result;
        }
    }
    for (;;) sys::raw_syscall(SYS_exit_group, child_failed_status);
}

}  // namespace kumiki::inline v0::detail
