// The ids that an administrator gave to a user for namespaces (subuid(5), subgid(5)), and id maps
// made of them: what an ordinary user may map beside itself, by newuidmap(1) and newgidmap(1).
//
// The files are parsed here; who has its users elsewhere (nss) gives the ranges itself. The two
// programs are the only ones that this library starts, because the kernel lets nobody else do it
// for a user without privilege.
#pragma once

#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include <kumiki/core/error.hpp>
#include <kumiki/core/text.hpp>
#include <kumiki/ns/id_map.hpp>
#include <kumiki/sys/check.hpp>
#include <kumiki/sys/file.hpp>

namespace kumiki::inline v0 {

/// `count` ids from `first` on.
struct id_span {
    std::uint32_t first = 0;
    std::uint32_t count = 0;
    constexpr bool operator==(const id_span&) const = default;
};

/// The ranges of one owner in the text of /etc/subuid or /etc/subgid: lines "OWNER:FIRST:COUNT",
/// where the owner is `name` or, exactly as a number, `id`. Lines of others are not looked at.
/// Errors: invalid_input for a line of the owner's that cannot be right.
inline std::vector<id_span> parse_subordinate_ids(std::string_view text, std::string_view name,
                                                  std::uint32_t id) {
    std::vector<id_span> found;
    while (const auto line = next_field(text, '\n')) {
        const auto fields = split(trim(*line), ':');
        if (fields.empty() || fields[0].empty()) continue;
        if (fields[0] != name && fields[0] != std::to_string(id)) continue;
        if (fields.size() != 3)
            throw invalid_input("line of subordinate ids", *line, "It must be OWNER:FIRST:COUNT.");
        const id_span each{require_number<std::uint32_t>("first subordinate id", fields[1]),
                           require_number<std::uint32_t>("count of subordinate ids", fields[2])};
        if (each.count == 0 || std::uint64_t{each.first} + each.count > 0xffffffff)
            throw invalid_input("line of subordinate ids", *line,
                                "It is empty or goes beyond the last id, 4294967294.");
        found.push_back(each);
    }
    return found;
}

/// A map in which 0 is `own`, and 1 and on are the ids of `spans` in their order.
/// Errors: invalid_input when they overlap each other or `own`.
inline id_map map_subordinate_ids(std::uint32_t own, const std::vector<id_span>& spans) {
    std::vector<id_range> ranges{{0, own, 1}};
    std::uint64_t inside = 1;
    for (const id_span& each : spans) {
        if (inside + each.count > 0xffffffff)
            throw invalid_input("subordinate ids", std::to_string(each.first),
                                "There are more of them than ids in a namespace.");
        ranges.push_back({static_cast<std::uint32_t>(inside), each.first, each.count});
        inside += each.count;
    }
    return id_map(std::move(ranges));
}

/// Where the two programs with privilege are.
struct map_programs {
    std::string newuidmap = "/usr/bin/newuidmap";
    std::string newgidmap = "/usr/bin/newgidmap";
};

namespace detail {

/// Runs `program PID INSIDE OUTSIDE COUNT ...` with an empty environment, and reads what it says.
inline void run_map_program(const std::string& program, pid_t pid, const id_map& map) {
    std::vector<std::string> words{program, std::to_string(pid)};
    for (const id_range& range : map.ranges())
        for (const std::uint32_t number : {range.inside, range.outside, range.count})
            words.push_back(std::to_string(number));
    std::vector<char*> arguments;
    for (std::string& word : words) arguments.push_back(word.data());
    arguments.push_back(nullptr);
    char* environment[] = {nullptr};

    int ends[2];
    sys::check(::pipe2(ends, O_CLOEXEC), "pipe2");
    const unique_fd in(ends[0]);
    unique_fd out(ends[1]);
    posix_spawn_file_actions_t actions;
    ::posix_spawn_file_actions_init(&actions);
    ::posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
    ::posix_spawn_file_actions_adddup2(&actions, out.get(), 1);
    ::posix_spawn_file_actions_adddup2(&actions, out.get(), 2);
    ::posix_spawn_file_actions_addclosefrom_np(&actions, 3);
    pid_t child = -1;
    const int code =
        ::posix_spawn(&child, program.c_str(), &actions, nullptr, arguments.data(), environment);
    ::posix_spawn_file_actions_destroy(&actions);
    if (code != 0)
        throw error(code, {.operation = "run",
                           .object = program,
                           .remedy = "It is what maps subordinate ids for a user without "
                                     "privilege: install the package uidmap (shadow-utils)."});
    out.reset();
    const std::string said = sys::read_all(in.get(), program);
    int status = 0;
    sys::check(sys::retry([&] { return ::waitpid(child, &status, 0); }), "wait for", program);
    if (status != 0)
        throw error(EPERM,
                    {.operation = "map ids with",
                     .object = program,
                     .remedy = "It said: " + std::string(trim(said)) +
                               " (its ranges are those of /etc/subuid and /etc/subgid, and it "
                               "must be setuid root or have its file capability)"});
}

}  // namespace detail

/// As write_id_maps(), by the programs that may map the caller's subordinate ids. setgroups stays
/// allowed: the group ids were given by the administrator.
///
/// Waits for both programs: some milliseconds. A program that ignores SIGCHLD cannot use this.
/// Errors: ENOENT when they are not installed; EPERM with what they said.
inline void write_id_maps_with(const map_programs& programs, pid_t pid, const id_map& uids,
                               const id_map& gids) {
    if (!uids.empty()) detail::run_map_program(programs.newuidmap, pid, uids);
    if (!gids.empty()) detail::run_map_program(programs.newgidmap, pid, gids);
}

}  // namespace kumiki::inline v0
