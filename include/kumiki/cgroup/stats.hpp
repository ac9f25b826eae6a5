// What a group has used so far, as one typed snapshot: processor time, memory, io, processes, and
// what was refused to it. Whatever the group's controllers do not count is not there (nullopt).
//
//   stats_reader reader(group, stat_parts::cpu | stat_parts::memory);
//   for (cgroup_stats now; reader.read(now); ...) use(now.cpu_usage);
//
// A stats_reader keeps its files open: a snapshot is one pread(2) for each. read_stats() opens and
// closes them. Numbers of one file belong together, those of different files are moments apart.
// cpu.stat's times need no controller. Left out: memory.numa_stat, cpuset.
#pragma once

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <kumiki/cgroup/cgroup.hpp>
#include <kumiki/cgroup/snapshot.hpp>
#include <kumiki/cgroup/stat_files.hpp>
#include <kumiki/core/error.hpp>
#include <kumiki/core/text.hpp>
#include <kumiki/core/unique_fd.hpp>
#include <kumiki/core/units.hpp>
#include <kumiki/sys/check.hpp>
#include <kumiki/sys/file.hpp>

namespace kumiki::inline v0 {

/// Reads the same files of one group again and again.
///
/// Holds one descriptor for each file that the group has, and one of its directory. Controllers that
/// are enabled later are not seen. Errors: ENOENT when the group has been removed; EMFILE.
class stats_reader {
  public:
    explicit stats_reader(const cgroup& group, stat_parts parts = stat_parts::all)
        : path_(group.path()), directory_(sys::open_at(group.fd(), ".", O_PATH | O_DIRECTORY)) {
        if (::faccessat(directory_.get(), "cgroup.procs", F_OK, 0) != 0)
            throw error(ENOENT, {.operation = "read the counters of", .object = path_});
        detail::for_each_stat_file(directory_.get(), parts,
                                   [&](const detail::stat_file& what, bytes size, unique_fd fd) {
                                       files_.push_back({std::move(fd), &what, size});
                                   });
    }

    /// Takes a snapshot; lists that `into` has already are used again. False when the group has been
    /// removed: `into` is empty then. Errors: EACCES (after a change of credentials).
    bool read(cgroup_stats& into) {
        detail::clear_stats(into);
        bool missed = false;
        for (const file& one : files_) {
            const auto text = buffer_.read(one.fd.get(), path_);
            if (text && one.what->part == stat_parts::memory_stat) memory_text_.assign(*text);
            if (text)
                one.what->take(*text, one.page_size, into);
            else
                missed = true;
        }
        if (!missed || ::faccessat(directory_.get(), "cgroup.procs", F_OK, 0) == 0) return true;
        into = {};
        return false;
    }
    /// As above; empty when the group has been removed.
    cgroup_stats read() {
        cgroup_stats stats;
        read(stats);
        return stats;
    }
    /// Any key of memory.stat, as of the last snapshot; nothing when this kernel lacks it, or it was
    /// read without stat_parts::memory_stat.
    std::optional<std::uint64_t> memory_value(std::string_view key) const noexcept {
        return flat_value(memory_text_, key);
    }
    /// How many files a snapshot reads.
    std::size_t files() const noexcept { return files_.size(); }

  private:
    struct file {
        unique_fd fd;
        const detail::stat_file* what;
        bytes page_size;
    };

    std::string path_;
    unique_fd directory_;
    std::vector<file> files_;
    detail::text_buffer buffer_;
    std::string memory_text_;
};

/// Reads a snapshot. A group that has been removed gives an empty one.
///
/// Cost: three system calls for each file that is there, one for a controller that is not.
inline cgroup_stats read_stats(const cgroup& group, stat_parts parts = stat_parts::usual) {
    cgroup_stats stats;
    detail::clear_stats(stats);
    detail::text_buffer buffer;
    bool any = false;
    detail::for_each_stat_file(group.fd(), parts,
                               [&](const detail::stat_file& what, bytes size, const unique_fd& fd) {
                                   const auto text = buffer.read(fd.get(), group.path());
                                   if (text) what.take(*text, size, stats);
                                   any = any || text;
                               });
    if (!any) return {};
    return stats;
}

}  // namespace kumiki::inline v0
