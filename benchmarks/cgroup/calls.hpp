// What bench_cgroup times as calls: a group made, limited and removed, and a snapshot of its counters;
// each beside the same by bare system calls.
#pragma once

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fstream>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <kumiki/cgroup/stats.hpp>

#include "cgroup/place.hpp"

namespace bench {

/// Made, opened for CLONE_INTO_CGROUP, limited and removed, as one would write it in C.
inline void make_bare(int parent, const std::vector<kumiki::cgroup_setting>& settings) {
    sys::check(::mkdirat(parent, "bare", 0755), "mkdirat");
    const int group = ::openat(parent, "bare", O_PATH | O_DIRECTORY | O_CLOEXEC);
    sys::check(group, "openat");
    for (const auto& setting : settings) {
        const int file = ::openat(group, setting.key.c_str(), O_WRONLY | O_CLOEXEC);
        sys::check(::write(file, setting.value.data(), setting.value.size()), "write", setting.key);
        ::close(file);
    }
    sys::check(::unlinkat(parent, "bare", AT_REMOVEDIR), "unlinkat");
    ::close(group);
}

inline std::vector<series> creations(kumiki::cgroup_root& root) {
    constexpr int calls = 10;
    const auto wanted = limits_for(root);
    const int parent = root.group().fd();
    static_cast<void>(root.create("first", wanted));  // enables the controllers
    return {{"bare",
             [parent, settings = kumiki::settings_of(wanted)] {
                 return time_each(calls, [&] { make_bare(parent, settings); });
             }},
            {"kumiki", [&root, wanted] {
                 return time_each(calls, [&] { root.create("kumiki", wanted).destroy(); });
             }}};
}

/// The files that read_stats() takes its numbers from, which the group has.
inline std::vector<std::string> files_of_stats(const kumiki::cgroup& group) {
    std::vector<std::string> there;
    for (const char* file :
         {"cpu.stat", "memory.current", "memory.peak", "memory.swap.current", "memory.swap.peak",
          "memory.zswap.current", "memory.events", "memory.events.local", "memory.swap.events",
          "io.stat", "pids.current", "pids.peak", "pids.events", "pids.events.local"})
        if (::faccessat(group.fd(), file, R_OK, 0) == 0) there.emplace_back(file);
    return there;
}

/// Keeps the compiler from dropping what is not used otherwise.
template <class T>
void keep(const T& value) {
    asm volatile("" : : "g"(&value) : "memory");
}

inline void read_naively(const std::string& group, const std::vector<std::string>& files) {
    std::map<std::string, std::uint64_t> numbers;
    for (const std::string& file : files) {
        std::ifstream in(group + "/" + file);
        if (std::uint64_t number = 0; in >> number) {
            numbers[file] = number;
            continue;
        }
        in.clear();
        std::string key;
        std::uint64_t value = 0;
        while (in >> key >> value) numbers[file + ":" + key] = value;
    }
    keep(numbers);
}

inline std::vector<series> snapshots(const kumiki::cgroup& group,
                                     const std::vector<std::string>& files,
                                     std::vector<unique_fd>& open) {
    constexpr int calls = 20;
    for (const std::string& file : files) open.push_back(sys::open_at(group.fd(), file, O_RDONLY));
    return {{"bare",
             [&] {
                 return time_each(calls, [&] {
                     char text[4096];
                     for (const std::string& file : files) {
                         const int fd = ::openat(group.fd(), file.c_str(), O_RDONLY | O_CLOEXEC);
                         sys::check(::pread(fd, text, sizeof text, 0), "pread", file);
                         ::close(fd);
                     }
                 });
             }},
            {"bare, files kept open",
             [&] {
                 return time_each(calls, [&] {
                     char text[4096];
                     for (const unique_fd& file : open)
                         sys::check(::pread(file.get(), text, sizeof text, 0), "pread");
                 });
             }},
            {"kumiki", [&] { return time_each(calls, [&] { keep(kumiki::read_stats(group)); }); }},
            {"kumiki, files kept open",
             [reader = std::make_shared<kumiki::stats_reader>(group, kumiki::stat_parts::usual)] {
                 kumiki::cgroup_stats stats;
                 return time_each(calls, [&] {
                     reader->read(stats);
                     keep(stats);
                 });
             }},
            {"std::ifstream",
             [&] { return time_each(calls, [&] { read_naively(group.path(), files); }); }}};
}

}  // namespace bench
