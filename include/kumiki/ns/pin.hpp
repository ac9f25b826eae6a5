// A namespace kept by a file: it is mounted there, and lives without any process and any descriptor
// until it is unpinned. The file is what `ip netns`, `unshare --net=FILE` and `nsenter` know, too.
//
// A mount is the mount namespace's in which it was made: the pin is seen by whoever shares the
// caller's. The kernel lets a mount namespace be pinned only in an older one, by its running number;
// newer kernels hand these out per processor, so that two made close together on different
// processors can have them the other way round. Source: namespaces(7), mount(2).
#pragma once

#include <fcntl.h>
#include <sys/mount.h>
#undef BLOCK_SIZE  // comes with it
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <string>

#include <kumiki/core/error.hpp>
#include <kumiki/core/text.hpp>
#include <kumiki/core/unique_fd.hpp>
#include <kumiki/ns/namespace_fd.hpp>
#include <kumiki/sys/check.hpp>
#include <kumiki/sys/file.hpp>

namespace kumiki::inline v0 {

/// Mounts `what` on a new empty file at `path`; namespace_fd::open(path) yields it again.
///
/// Errors: EEXIST when something is at `path`; EPERM without CAP_SYS_ADMIN over the caller's mount
/// namespace; EINVAL for a mount namespace where it cannot be held. The file is gone then.
inline void pin(const namespace_fd& what, const std::string& path) {
    require_c_string("path of a pin", path);
    const unique_fd file(
        sys::check(sys::retry([&] {
                       return ::open(path.c_str(), O_RDONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0444);
                   }),
                   "create", path));
    try {
        const auto describe_failure = [&] {
            const int code = errno;
            return error_context{
                .operation = "pin a namespace to",
                .object = path,
                .remedy =
                    code == EPERM ? "It takes CAP_SYS_ADMIN over the caller's mount namespace."
                    : code == EINVAL
                        ? "A mount namespace can be pinned only in one that is older than it, and "
                          "on a mount that is private (mount --make-private)."
                        : ""};
        };
        const std::string own = "/proc/thread-self/fd/";
        sys::check(::mount((own + std::to_string(what.get())).c_str(),
                           (own + std::to_string(file.get())).c_str(), nullptr, MS_BIND, nullptr),
                   describe_failure);
    } catch (...) {
        ::unlink(path.c_str());
        throw;
    }
}

/// Takes the namespace off the file at `path` and removes the file; false when there is nothing at
/// `path`. The namespace goes on where a process or descriptor is left of it.
///
/// Errors: invalid_input when the file is no pinned namespace; EPERM.
inline bool unpin(const std::string& path) {
    require_c_string("path of a pin", path);
    {
        const unique_fd file(::open(path.c_str(), O_PATH | O_NOFOLLOW | O_CLOEXEC));
        if (!file && errno == ENOENT) return false;
        sys::check(file.get(), "open", path);
        if (sys::filesystem_magic(file.get()) != sys::nsfs_magic)
            throw invalid_input("pin", path, "No namespace is mounted on this file.");
    }
    sys::check(::umount2(path.c_str(), MNT_DETACH | UMOUNT_NOFOLLOW), "unmount", path);
    // What comes to light may be another pin below, or somebody's file: only an empty one is ours.
    struct stat info{};
    if (::lstat(path.c_str(), &info) == 0 && S_ISREG(info.st_mode) && info.st_size == 0 &&
        ::unlink(path.c_str()) != 0 && errno != ENOENT && errno != EBUSY)
        sys::check(-1, "remove", path);
    return true;
}

}  // namespace kumiki::inline v0
