// What the child does with paths: makes them below a root and never outside of it, looks at what it
// is about to execute, allows them to Landlock, compares what a file says.
//
// Raw system calls on prepared data, as all of the child's side (child.hpp). openat2(2): 5.6.
#pragma once

#include <fcntl.h>
#include <sys/syscall.h>

#include <cerrno>

#include <kumiki/container/step.hpp>
#include <kumiki/sys/abi.hpp>
#include <kumiki/sys/raw.hpp>

namespace kumiki::inline v0::detail {

template <class Pointer>
KUMIKI_CHILD_SIDE inline long raw_address(Pointer* pointer) noexcept {
    return reinterpret_cast<long>(pointer);
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

}  // namespace kumiki::inline v0::detail
