// Which user or group ids of a user namespace stand for which outside of it: the content of
// /proc/PID/uid_map and gid_map, checked before the kernel sees it, and the one-time write.
//
// Rules of user_namespaces(7): at most 340 ranges (4.15; 5 before), none empty, no overlap on
// either side, the text below one page, in a single write. The subordinate ids of users without
// privilege are subordinate_ids.hpp's.
#pragma once

#include <fcntl.h>
#include <sys/types.h>
#include <unistd.h>

#include <compare>
#include <cstdint>
#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <kumiki/core/error.hpp>
#include <kumiki/core/text.hpp>
#include <kumiki/core/unique_fd.hpp>
#include <kumiki/sys/file.hpp>

namespace kumiki::inline v0 {

/// `count` ids from `inside` on are those from `outside` on.
struct id_range {
    std::uint32_t inside = 0;
    std::uint32_t outside = 0;
    std::uint32_t count = 1;
    constexpr auto operator<=>(const id_range&) const = default;
};

/// A set of ranges that the kernel accepts. An empty map maps nothing and is not written.
class id_map {
  public:
    static constexpr std::size_t most_ranges = 340;

    id_map() = default;
    /// Errors: invalid_input that names the range.
    id_map(std::initializer_list<id_range> ranges) : id_map(std::vector(ranges)) {}
    explicit id_map(std::vector<id_range> ranges) : ranges_(std::move(ranges)) { validate(); }

    /// Reads the kernel's form (one range a line) and the short one ("0:100000:65536", separated
    /// by commas). Errors: invalid_input.
    static id_map parse(std::string_view text) {
        std::vector<id_range> ranges;
        for (const std::string_view line : split_any(text, ",\n")) {
            const auto fields = split_any(line, ": \t\r");
            if (fields.empty()) continue;
            if (fields.size() != 3)
                throw invalid_input("id range", line,
                                    "It must be three numbers: INSIDE:OUTSIDE:COUNT.");
            ranges.push_back({require_number<std::uint32_t>("id in an id map", fields[0]),
                              require_number<std::uint32_t>("id in an id map", fields[1]),
                              require_number<std::uint32_t>("count in an id map", fields[2])});
        }
        return id_map(std::move(ranges));
    }

    const std::vector<id_range>& ranges() const noexcept { return ranges_; }
    bool empty() const noexcept { return ranges_.empty(); }
    friend bool operator==(const id_map&, const id_map&) = default;

    /// What `inside` is outside of the namespace; nothing when it is not mapped.
    constexpr std::optional<std::uint32_t> to_outside(std::uint32_t inside) const noexcept {
        for (const id_range& range : ranges_)
            if (inside >= range.inside && inside - range.inside < range.count)
                return range.outside + (inside - range.inside);
        return std::nullopt;
    }
    /// What `outside` is inside of the namespace; nothing when it is not mapped.
    constexpr std::optional<std::uint32_t> to_inside(std::uint32_t outside) const noexcept {
        for (const id_range& range : ranges_)
            if (outside >= range.outside && outside - range.outside < range.count)
                return range.inside + (outside - range.outside);
        return std::nullopt;
    }
    /// The text for uid_map and gid_map: "0 100000 65536\n".
    std::string to_text() const {
        std::string text;
        for (const id_range& range : ranges_)
            text += std::to_string(range.inside) + ' ' + std::to_string(range.outside) + ' ' +
                    std::to_string(range.count) + '\n';
        return text;
    }

  private:
    static std::vector<std::string_view> split_any(std::string_view text,
                                                   std::string_view separators) {
        std::vector<std::string_view> fields;
        while (!text.empty()) {
            const auto end = std::min(text.find_first_of(separators), text.size());
            if (end != 0) fields.push_back(text.substr(0, end));
            text.remove_prefix(std::min(end + 1, text.size()));
        }
        return fields;
    }
    static std::string show(const id_range& range) {
        return std::to_string(range.inside) + ':' + std::to_string(range.outside) + ':' +
               std::to_string(range.count);
    }
    void validate() const {
        if (ranges_.size() > most_ranges)
            throw invalid_input("id map", std::to_string(ranges_.size()) + " ranges",
                                "The kernel takes at most 340 ranges.");
        const auto overlap = [](std::uint64_t a, std::uint64_t b, std::uint64_t a_count,
                                std::uint64_t b_count) {
            return a < b + b_count && b < a + a_count;
        };
        for (std::size_t i = 0; i < ranges_.size(); ++i) {
            const id_range& a = ranges_[i];
            if (a.count == 0) throw invalid_input("id range", show(a), "Its count is zero.");
            // 4294967295 is -1, "no id", to every system call: it cannot be mapped.
            constexpr std::uint64_t end = 0xffffffff;
            if (std::uint64_t{a.inside} + a.count > end || std::uint64_t{a.outside} + a.count > end)
                throw invalid_input("id range", show(a), "It goes beyond the last id, 4294967294.");
            for (std::size_t j = 0; j < i; ++j) {
                const id_range& b = ranges_[j];
                if (overlap(a.inside, b.inside, a.count, b.count))
                    throw invalid_input("id range", show(a),
                                        "Its ids inside overlap those of " + show(b) + ".");
                if (overlap(a.outside, b.outside, a.count, b.count))
                    throw invalid_input("id range", show(a),
                                        "Its ids outside overlap those of " + show(b) + ".");
            }
        }
    }

    std::vector<id_range> ranges_;
};

/// Whether processes of a user namespace may call setgroups(2), and so drop a group that an access
/// list denies something to.
enum class setgroups_policy : std::uint8_t {
    automatic,  ///< allowed, unless the kernel takes the group map only without it
    allow,
    deny,
};

namespace detail {

inline void write_id_map(int process, const std::string& shown, const id_map& map,
                         const char* file) {
    if (map.empty()) return;
    const std::string text = map.to_text();
    if (text.size() >= static_cast<std::size_t>(::sysconf(_SC_PAGESIZE)))
        throw invalid_input("id map", std::to_string(text.size()) + " bytes",
                            "The kernel takes less than one page of text: use fewer ranges.");
    try {
        sys::write_file_at(process, file, text, shown + '/' + file);
    } catch (error& failure) {
        if (failure.errno_value() == EPERM)
            failure.add_context(
                {.remedy = "A map is written once, by a process that has CAP_SETUID (for groups "
                           "CAP_SETGID) over the namespace's parent, where every id outside must "
                           "be mapped; mapping id 0 also needs CAP_SETFCAP (5.12)."});
        throw;
    }
}

}  // namespace detail

/// Gives the new user namespace that child `pid` is in its maps; each can be written only once.
///
/// Lifetime: `pid` must be a child that is not yet waited for, so that the number is its own.
/// Errors: EPERM; EINVAL for ids that the parent namespace does not have; ENOENT when it is gone.
inline void write_id_maps(pid_t pid, const id_map& uids, const id_map& gids,
                          setgroups_policy policy = setgroups_policy::automatic) {
    const std::string shown = "/proc/" + std::to_string(pid);
    const unique_fd process = sys::open_at(AT_FDCWD, shown, O_PATH | O_DIRECTORY);
    if (sys::filesystem_magic(process.get()) != sys::proc_super_magic)
        throw error(0, {.operation = "write id maps to",
                        .object = shown,
                        .remedy = "/proc is not the kernel's procfs here."});
    const auto deny = [&] {
        sys::write_file_at(process.get(), "setgroups", "deny", shown + "/setgroups");
    };
    if (policy == setgroups_policy::deny) deny();
    detail::write_id_map(process.get(), shown, uids, "uid_map");
    try {
        detail::write_id_map(process.get(), shown, gids, "gid_map");
    } catch (const error& failure) {
        if (failure.errno_value() != EPERM || policy != setgroups_policy::automatic) throw;
        deny();
        detail::write_id_map(process.get(), shown, gids, "gid_map");
    }
}

}  // namespace kumiki::inline v0
