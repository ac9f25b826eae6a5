// What the kernel says of a process's identity and privileges (/proc/PID/status, proc(5)), typed:
// for reading back what a start has set up, instead of assuming it.
//
// Memory, signal and scheduling lines are left out. Kernel: Seccomp_filters is 5.9, NSpid 4.1.
#pragma once

#include <fcntl.h>
#include <sys/types.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <kumiki/core/error.hpp>
#include <kumiki/core/text.hpp>
#include <kumiki/security/capability.hpp>
#include <kumiki/sys/file.hpp>

namespace kumiki::inline v0 {

/// The line "Seccomp:" of /proc/PID/status.
enum class seccomp_mode : std::uint8_t { disabled, strict, filter };

/// The four ids of a line "Uid:" or "Gid:".
struct id_quadruple {
    std::uint32_t real = 0;
    std::uint32_t effective = 0;
    std::uint32_t saved = 0;
    std::uint32_t filesystem = 0;

    friend bool operator==(const id_quadruple&, const id_quadruple&) = default;
};

/// Identity and privileges of one process. Ids are as seen from the reader's user namespace, pids
/// as from the pid namespace of the procfs that was read.
struct process_status {
    std::string name{};               ///< comm, with the kernel's escapes (\n)
    char state = '?';                 ///< R, S, D, Z, ...
    pid_t pid = 0;
    pid_t parent = 0;
    id_quadruple uid{};
    id_quadruple gid{};
    std::vector<std::uint32_t> groups{};
    std::vector<pid_t> namespace_pids{};  ///< outermost first
    process_capabilities capabilities{};
    bool no_new_privileges = false;
    seccomp_mode seccomp = seccomp_mode::disabled;
    std::optional<unsigned> seccomp_filters{};  ///< how many are installed; 5.9
};

namespace detail {

/// The numbers of a line between blanks; false when one of them is none.
template <class Number, class Accept>
bool each_number(std::string_view line, Accept&& accept) {
    while (!(line = trim(line)).empty()) {
        const auto end = line.find_first_of(" \t");
        const auto number = parse_number<Number>(line.substr(0, end));
        if (!number || !accept(*number)) return false;
        line = end == std::string_view::npos ? std::string_view{} : line.substr(end);
    }
    return true;
}

inline bool parse_ids(std::string_view line, id_quadruple& ids) {
    std::array<std::uint32_t, 4> numbers{};
    std::size_t count = 0;
    const bool good = each_number<std::uint32_t>(line, [&](std::uint32_t n) {
        if (count == numbers.size()) return false;
        numbers[count++] = n;
        return true;
    });
    ids = {
        .real = numbers[0], .effective = numbers[1], .saved = numbers[2], .filesystem = numbers[3]};
    return good && count == numbers.size();
}

template <class Number>
bool parse_list(std::string_view line, std::vector<Number>& list) {
    list.clear();
    return each_number<Number>(line, [&](Number n) {
        list.push_back(n);
        return true;
    });
}

template <class Number>
bool parse_single(std::string_view text, Number& value, unsigned base = 10) {
    const auto number = parse_number<Number>(text, base);
    if (number) value = *number;
    return number.has_value();
}

/// One line of the file; false when its value is not what the key asks for.
inline bool parse_status_line(std::string_view key, std::string_view value, process_status& into) {
    const auto set = [&](capability_set& to) {
        std::uint64_t bits = 0;
        const bool good = parse_single(value, bits, 16);
        to = capability_set::from_bits(bits);
        return good;
    };
    if (key == "Name") {
        into.name = std::string(value);
    } else if (key == "State") {
        if (!value.empty()) into.state = value.front();
        return !value.empty();
    } else if (key == "Pid") {
        return parse_single(value, into.pid);
    } else if (key == "PPid") {
        return parse_single(value, into.parent);
    } else if (key == "Uid") {
        return parse_ids(value, into.uid);
    } else if (key == "Gid") {
        return parse_ids(value, into.gid);
    } else if (key == "Groups") {
        return parse_list(value, into.groups);
    } else if (key == "NSpid") {
        return parse_list(value, into.namespace_pids);
    } else if (key == "CapInh") {
        return set(into.capabilities.inheritable);
    } else if (key == "CapPrm") {
        return set(into.capabilities.permitted);
    } else if (key == "CapEff") {
        return set(into.capabilities.effective);
    } else if (key == "CapBnd") {
        return set(into.capabilities.bounding);
    } else if (key == "CapAmb") {
        return set(into.capabilities.ambient);
    } else if (key == "NoNewPrivs") {
        unsigned flag = 0;
        if (!parse_single(value, flag) || flag > 1) return false;
        into.no_new_privileges = flag == 1;
    } else if (key == "Seccomp") {
        unsigned mode = 0;
        if (!parse_single(value, mode) || mode > 2) return false;
        into.seccomp = static_cast<seccomp_mode>(mode);
    } else if (key == "Seccomp_filters") {
        unsigned count = 0;
        if (!parse_single(value, count)) return false;
        into.seccomp_filters = count;
    }
    return true;
}

}  // namespace detail

/// The text of /proc/PID/status as a value. What must not be missing: the ids, the five capability
/// sets and NoNewPrivs; a kernel without seccomp has no line for it.
/// Errors: invalid_input that names the line that is wrong, missing or there twice.
inline process_status parse_process_status(std::string_view text) {
    constexpr auto required =
        std::to_array<std::string_view>({"State", "Pid", "PPid", "Uid", "Gid", "CapInh", "CapPrm",
                                         "CapEff", "CapBnd", "CapAmb", "NoNewPrivs"});
    std::array<bool, required.size()> seen{};
    process_status status;
    while (const auto line = next_field(text, '\n')) {
        const auto colon = line->find(':');
        const std::string_view key = line->substr(0, colon);
        const auto refuse = [&](std::string_view why) {
            throw invalid_input("process status", line->substr(0, 128), why);
        };
        if (colon == std::string_view::npos) refuse("It must be a key, a colon and a value.");
        if (!detail::parse_status_line(key, trim(line->substr(colon + 1)), status))
            refuse("The value is not of the form that proc(5) describes.");
        const auto at = std::ranges::find(required, key);
        if (at == required.end()) continue;
        bool& already = seen[static_cast<std::size_t>(at - required.begin())];
        if (already) refuse("The line is there twice.");
        already = true;
    }
    for (std::size_t i = 0; i < required.size(); ++i)
        if (!seen[i]) throw invalid_input("process status", required[i], "The line is missing.");
    return status;
}

/// The status of process `pid`, or nothing when there is no such process. `procfs` is a descriptor
/// of the procfs to read; without one, the host's /proc.
/// Errors: kumiki::error with the path.
inline std::optional<process_status> read_process_status(pid_t pid, int procfs = -1) {
    const std::string path = (procfs < 0 ? "/proc/" : "") + std::to_string(pid) + "/status";
    try {
        const auto text = sys::try_read_file_at(procfs < 0 ? AT_FDCWD : procfs, path);
        if (!text) return std::nullopt;
        return parse_process_status(*text);
    } catch (const error& failure) {
        if (failure.errno_value() == ESRCH) return std::nullopt;  // gone between open and read
        throw;
    }
}

}  // namespace kumiki::inline v0
