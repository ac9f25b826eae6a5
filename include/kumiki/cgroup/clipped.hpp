// What became of limits: which are in force otherwise than they were asked for, and why.
//
// The kernel rounds (memory to pages), takes what it cannot fulfil (a cpuset partition), and lets a
// group above allow less without a word: all of it is read back. Nothing is written here.
#pragma once

#include <fcntl.h>

#include <cstdint>
#include <limits>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <kumiki/cgroup/cgroup.hpp>
#include <kumiki/cgroup/setting.hpp>
#include <kumiki/core/error.hpp>
#include <kumiki/core/text.hpp>
#include <kumiki/core/unique_fd.hpp>
#include <kumiki/core/units.hpp>
#include <kumiki/sys/abi.hpp>
#include <kumiki/sys/file.hpp>

namespace kumiki::inline v0 {

/// A limit that is not in force as it was asked for.
struct clipped_limit {
    std::string key{};
    std::string asked{};
    std::string in_force{};  ///< what the kernel shows, its reason included; empty: no such file
    std::string by{};  ///< the group above that allows no more; empty: it is the group's own file
    bool operator==(const clipped_limit&) const = default;
};

namespace detail {

inline bool is_list_key(std::string_view key) noexcept {
    return key == "cpuset.cpus" || key == "cpuset.mems";
}

/// What the file would say of a device or a resource if it had a line for it.
inline std::optional<std::string> default_of(std::string_view key, const std::string& subject) {
    if (key == "io.max") return subject + " rbps=max wbps=max riops=max wiops=max";
    if (key == "io.latency") return subject + " target=0";
    if (key == "io.weight" || key == "io.bfq.weight") return subject + " default";
    if (key == "rdma.max") return subject + " hca_handle=max hca_object=max";
    if (key == "misc.max" || key == "dmem.max") return subject + " max";
    if (key == "dmem.low" || key == "dmem.min") return subject + " 0";
    return std::nullopt;
}

/// The text that is there now for a setting: the whole file, or the line of its device or resource.
inline std::optional<std::string> value_now(const cgroup& group, const std::string& key,
                                            const std::string& subject) {
    const auto text = group.try_read(key);
    if (!text) return std::nullopt;
    const bool is_default = subject.empty() && text->starts_with("default ");
    if (subject.empty() && !is_default) return std::string(trim(*text));
    const std::string start = is_default ? "default " : subject + ' ';
    for (std::string_view rest = *text; const auto line = next_field(rest, '\n');)
        if (line->starts_with(start)) return std::string(trim(*line));
    return default_of(key, subject);
}

/// The numbers in "0-3,6".
inline std::set<std::uint32_t> numbers_of(std::string_view list) {
    std::set<std::uint32_t> numbers;
    for (const auto range : split(list, ',')) {
        const auto parts = split(range, '-');
        const auto first = parse_number<std::uint32_t>(parts.front());
        const auto last = parse_number<std::uint32_t>(parts.back());
        for (auto each = first.value_or(1); last && each <= *last && *last < 8192; ++each)
            numbers.insert(each);
    }
    return numbers;
}

/// The amount in "4096", in "64M" (which the kernel takes, too) or in "max".
inline std::optional<std::uint64_t> amount_of(std::string_view text) {
    if (text == "max") return std::uint64_t{no_limit};
    if (text.empty() || text.front() < '0' || text.front() > '9') return std::nullopt;
    try {
        return parse_bytes(text).count;
    } catch (const invalid_input&) {
        return std::nullopt;
    }
}

/// The processors in "50000 100000": infinite for "max".
inline std::optional<double> processors_of(std::string_view text) {
    const auto fields = split(text, ' ');
    if (fields.front() == "max") return std::numeric_limits<double>::infinity();
    const auto quota = parse_number<std::uint32_t>(fields.front());
    const auto period = fields.size() > 1 ? parse_number<std::uint32_t>(fields[1]) : 100'000U;
    if (!quota || !period || *period == 0) return std::nullopt;
    return static_cast<double>(*quota) / *period;
}

/// True when the text of the control file says what was asked for.
inline bool is_in_force(const cgroup_setting& setting, std::string_view now) {
    const std::string_view asked = setting.value;
    if (now == asked || (now.starts_with("default ") && now.substr(8) == asked)) return true;
    if (is_list_key(setting.key)) return numbers_of(now) == numbers_of(asked);
    // "50000" leaves the period as it is.
    if (setting.key == "cpu.max" && asked.find(' ') == std::string_view::npos)
        return now.substr(0, now.find(' ')) == asked;
    if (subject_of(setting).empty()) {
        const auto wanted = amount_of(asked);
        return wanted && wanted == amount_of(now);
    }
    const auto fields = split(now, ' ');
    for (const auto field : split(asked, ' ')) {
        bool is_there = false;
        for (const auto each : fields) is_there = is_there || each == field;
        if (!is_there) return false;
    }
    return true;
}

/// Keys of which every group above has its own, and the least is in force. memory.low and
/// memory.min are among them: what a group above does not protect is not protected below.
inline bool counts_above(std::string_view key) noexcept {
    return key == "memory.max" || key == "memory.high" || key == "memory.low" ||
           key == "memory.min" || key == "memory.swap.max" || key == "memory.zswap.max" ||
           key == "pids.max" || key == "cpu.max" ||
           (key.starts_with("hugetlb.") && key.ends_with(".max"));
}

/// The group above that allows least, if that is less than what was asked for.
inline std::optional<clipped_limit> limit_above(const cgroup& group,
                                                const cgroup_setting& setting) {
    const auto measure = [&](std::string_view text) -> std::optional<double> {
        if (setting.key == "cpu.max") return processors_of(text);
        const auto amount = amount_of(text);
        return amount ? std::optional(static_cast<double>(*amount)) : std::nullopt;
    };
    auto least = measure(setting.value);
    if (!least) return std::nullopt;
    std::optional<clipped_limit> found;
    std::string path = group.path();
    unique_fd at = sys::open_at(group.fd(), ".", O_PATH | O_DIRECTORY);
    for (;;) {
        auto above = sys::try_open_at(at.get(), "..", O_PATH | O_DIRECTORY);
        if (!above || sys::filesystem_magic(above->get()) != sys::cgroup2_super_magic) return found;
        at = std::move(*above);
        path.resize(path.rfind('/') == std::string::npos ? 0 : path.rfind('/'));
        const auto text = try_read_control(at.get(), setting.key);
        const auto allowed = text ? measure(trim(*text)) : std::nullopt;
        if (!allowed || *allowed >= *least) continue;
        least = allowed;
        found = clipped_limit{setting.key, setting.value, std::string(trim(*text)), path};
    }
}

}  // namespace detail

/// Which of the settings are in force otherwise than they were asked for: rounded, refused after
/// the fact, changed by somebody, or held lower by a group above.
///
/// A list of processors is compared with cpuset.cpus.effective. Cost: three system calls for each
/// setting, and four more for each group above when it is an amount.
inline std::vector<clipped_limit> clipped_limits(const cgroup& group,
                                                 const std::vector<cgroup_setting>& settings) {
    std::vector<clipped_limit> clipped;
    for (const cgroup_setting& setting : settings) {
        const std::string shown =
            setting.key + (detail::is_list_key(setting.key) ? ".effective" : "");
        const auto now = detail::value_now(group, shown, std::string(detail::subject_of(setting)));
        if (!now || !detail::is_in_force(setting, *now))
            clipped.push_back({setting.key, setting.value, now.value_or("")});
        if (!detail::counts_above(setting.key)) continue;
        if (auto less = detail::limit_above(group, setting)) clipped.push_back(std::move(*less));
    }
    return clipped;
}

}  // namespace kumiki::inline v0
