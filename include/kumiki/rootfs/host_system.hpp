// The host's own programs and libraries as mounts, read-only: what a root assembled from the host's
// directories needs before anything can be executed in it.
//
// Left out: /etc and /var, which hold what is the host's business. A dynamic loader finds libraries
// without /etc/ld.so.cache where they are in its standard places.
#pragma once

#include <limits.h>
#include <sys/stat.h>
#include <unistd.h>

#include <string>
#include <vector>

#include <kumiki/rootfs/mount.hpp>

namespace kumiki::inline v0 {

/// /usr, /bin, /sbin and the /lib directories as this host has them: directories read-only, and
/// symbolic links (of a merged /usr) as symbolic links. For rootfs::assembled(), into whose mounts
/// more can be put behind them.
inline std::vector<mount_description> host_system() {
    std::vector<mount_description> found;
    for (const char* place : {"/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"}) {
        struct stat info{};
        if (::lstat(place, &info) != 0) continue;
        if (S_ISDIR(info.st_mode))
            found.emplace_back(
                bind_mount{.source = place, .target = place, .access = access_mode::read_only});
        char text[PATH_MAX];
        const ssize_t size = S_ISLNK(info.st_mode) ? ::readlink(place, text, sizeof text) : -1;
        if (size > 0)
            found.emplace_back(symlink_entry{
                .target = place, .leads_to = std::string(text, static_cast<std::size_t>(size))});
    }
    return found;
}

}  // namespace kumiki::inline v0
