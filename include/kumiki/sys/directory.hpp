// What is in a directory.
//
// readdir(3). Left out: walking below it.
#pragma once

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>

#include <memory>
#include <string>
#include <vector>

namespace kumiki::inline v0::sys {

struct close_directory {
    void operator()(DIR* directory) const noexcept { ::closedir(directory); }
};
using directory_stream = std::unique_ptr<DIR, close_directory>;

/// The names of the directories in the directory `path`, but for those that begin with a dot; none when it
/// cannot be opened.
inline std::vector<std::string> directories_in(const std::string& path) {
    std::vector<std::string> names;
    const directory_stream all(::opendir(path.c_str()));
    if (!all) return names;
    while (const dirent* each = ::readdir(all.get())) {
        struct stat status{};
        if (each->d_name[0] != '.' &&
            ::fstatat(::dirfd(all.get()), each->d_name, &status, AT_SYMLINK_NOFOLLOW) == 0 &&
            S_ISDIR(status.st_mode))
            names.emplace_back(each->d_name);
    }
    return names;
}

}  // namespace kumiki::inline v0::sys
