// The claim on a directory that an overlay writes to: two mounts of one upper directory damage it
// without a word from the kernel (its result is undefined, says Documentation/filesystems/
// overlayfs.rst), so whoever mounts it holds a lock on it first.
//
// flock(2) on the directory itself: nothing is written, and the lock is gone with its holder,
// however that ends. It binds those who ask for it.
#pragma once

#include <fcntl.h>
#include <sys/file.h>

#include <cerrno>
#include <string>

#include <kumiki/core/error.hpp>
#include <kumiki/core/unique_fd.hpp>
#include <kumiki/sys/check.hpp>
#include <kumiki/sys/file.hpp>

namespace kumiki::inline v0 {

/// A directory of an overlay that another container writes to.
class upper_in_use : public error {
  public:
    explicit upper_in_use(const std::string& path)
        : error(EBUSY, {.operation = "lock the overlay directory",
                        .object = path,
                        .step = "root",
                        .container = {},
                        .remedy = "Another container has it as its upper or work directory: each "
                                  "needs its own."}) {}
};

namespace detail {

/// Claims `path` for as long as the descriptor lives. Errors: upper_in_use; kumiki::error.
inline unique_fd lock_upper(const std::string& path) {
    unique_fd directory = sys::open_at(AT_FDCWD, path, O_RDONLY | O_DIRECTORY);
    const int locked = sys::retry([&] { return ::flock(directory.get(), LOCK_EX | LOCK_NB); });
    if (locked < 0 && errno == EWOULDBLOCK) throw upper_in_use(path);
    sys::check(locked, "lock the overlay directory", path);
    return directory;
}

}  // namespace detail
}  // namespace kumiki::inline v0
