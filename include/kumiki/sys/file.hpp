// Small files of the kernel's (procfs, sysfs, cgroupfs) read and written whole, below a directory
// descriptor, and openat2(2) for paths below a directory that is not to be left.
//
// Each write is one write(2): the kernel's files take a value in one piece or not at all. openat2
// needs 5.6. Nothing here follows a path that an untrusted directory tree could have prepared,
// except open_beneath() and open_in_root(), which exist for it.
#pragma once

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <optional>
#include <string>
#include <string_view>

#include <kumiki/core/unique_fd.hpp>
#include <kumiki/sys/abi.hpp>
#include <kumiki/sys/check.hpp>

namespace kumiki::inline v0::sys {

/// openat(2) with O_CLOEXEC. Errors: kumiki::error with the path as its object.
inline unique_fd open_at(int directory, const std::string& path, int flags, mode_t mode = 0) {
    return unique_fd(
        check(retry([&] { return ::openat(directory, path.c_str(), flags | O_CLOEXEC, mode); }),
              "open", path));
}

/// As open_at, but nothing when the path does not exist (ENOENT, ENOTDIR).
inline std::optional<unique_fd> try_open_at(int directory, const std::string& path, int flags) {
    const int fd = retry([&] { return ::openat(directory, path.c_str(), flags | O_CLOEXEC); });
    if (fd < 0 && (errno == ENOENT || errno == ENOTDIR)) return std::nullopt;
    return unique_fd(check(fd, "open", path));
}

/// openat2(2) with O_CLOEXEC and the given RESOLVE_* bits.
inline unique_fd open_resolved(int directory, const std::string& path, int flags,
                               std::uint64_t resolve) {
    open_how how{.flags = static_cast<std::uint64_t>(flags | O_CLOEXEC), .resolve = resolve};
    const auto call = [&] {
        return static_cast<int>(::syscall(nr_openat2, directory, path.c_str(), &how, sizeof how));
    };
    // EAGAIN: a rename or mount raced with the resolution of "..": openat2(2) says to try again.
    for (int attempt = 0;; ++attempt) {
        const int fd = retry(call);
        if (fd < 0 && errno == EAGAIN && attempt < 128) continue;
        return unique_fd(check(fd, "open", path));
    }
}

/// Opens `path` with `root` as if it were "/": symbolic links lead to places inside, too.
inline unique_fd open_in_root(int root, const std::string& path, int flags) {
    return open_resolved(root, path, flags, resolve_in_root | resolve_no_magiclinks);
}

/// Opens `path` below `directory` without following any symbolic link or crossing a mount.
inline unique_fd open_beneath(int directory, const std::string& path, int flags) {
    return open_resolved(
        directory, path, flags,
        resolve_beneath | resolve_no_symlinks | resolve_no_magiclinks | resolve_no_xdev);
}

/// All that `fd` holds from its current offset on.
inline std::string read_all(int fd, const std::string& name) {
    std::string text;
    char buffer[4096];
    for (;;) {
        const auto n =
            check(retry([&] { return ::read(fd, buffer, sizeof buffer); }), "read", name);
        if (n == 0) return text;
        text.append(buffer, static_cast<std::size_t>(n));
    }
}

/// The whole text of a file. Errors: kumiki::error with the path.
inline std::string read_file_at(int directory, const std::string& path) {
    return read_all(open_at(directory, path, O_RDONLY).get(), path);
}

/// The whole text of a file, or nothing when it does not exist.
inline std::optional<std::string> try_read_file_at(int directory, const std::string& path) {
    const std::optional<unique_fd> fd = try_open_at(directory, path, O_RDONLY);
    if (!fd) return std::nullopt;
    return read_all(fd->get(), path);
}

/// Writes `text` in one write(2) to an existing file. `shown` is the path that an error names.
/// Errors: kumiki::error whose operation is "write '<text>' to".
inline void write_file_at(int directory, const std::string& path, std::string_view text,
                          const std::string& shown = {}) {
    const std::string& name = shown.empty() ? path : shown;
    const unique_fd fd(
        check(retry([&] { return ::openat(directory, path.c_str(), O_WRONLY | O_CLOEXEC); }),
              "open", name));
    const auto written = retry([&] { return ::write(fd.get(), text.data(), text.size()); });
    const auto describe = [&] {
        return error_context{.operation = "write '" + std::string(text) + "' to",
                             .object = name,
                             .step = {},
                             .container = {},
                             .remedy = {}};
    };
    check(written, describe);
    if (static_cast<std::size_t>(written) != text.size()) throw error(EIO, describe());
}

/// The magic number of the filesystem that `fd` is on (statfs(2)).
inline long filesystem_magic(int fd) {
    struct statfs info{};
    check(::fstatfs(fd, &info), "fstatfs");
    return static_cast<long>(info.f_type);
}

/// fstat(2).
inline struct stat status_of(int fd) {
    struct stat info{};
    check(::fstat(fd, &info), "fstat");
    return info;
}

/// stat(2).
inline struct stat status_at(const std::string& path) {
    struct stat info{};
    check(::stat(path.c_str(), &info), "look at", path);
    return info;
}

}  // namespace kumiki::inline v0::sys
