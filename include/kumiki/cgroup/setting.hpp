// One control file and the text that is written to it: what every limit becomes; and how the texts of
// amounts and shares are made.
//
// Most files hold one value. Some hold a line for each device or resource, whose name comes first
// in what is written: "8:0 rbps=1048576". Source: cgroup-v2.rst (interface files).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include <kumiki/core/error.hpp>
#include <kumiki/core/text.hpp>
#include <kumiki/core/units.hpp>

namespace kumiki::inline v0 {

/// One control file and the text that is written to it.
struct cgroup_setting {
    std::string key{};
    std::string value{};
    bool operator==(const cgroup_setting&) const = default;
};

namespace detail {

inline std::string count_text(std::uint64_t count) {
    return count == std::uint64_t{no_limit} ? "max" : std::to_string(count);
}

inline std::string amount_text(bytes amount) { return count_text(amount.count); }

inline std::string weight_text(const char* key, unsigned weight) {
    if (weight < 1 || weight > 10000)
        throw invalid_input(key, std::to_string(weight), "It must be from 1 to 10000.");
    return std::to_string(weight);
}

/// The name of a device or a resource in a file with a line for each: one word.
inline const std::string& require_word(const char* key, const std::string& word) {
    bool good = !word.empty() && word.size() <= 255;
    for (const char c : word) good = good && static_cast<unsigned char>(c) > 0x20 && c != 0x7f;
    if (!good) throw invalid_input(key, word, "It takes a name of one word.");
    return word;
}

/// The device or resource that a setting is for; empty when the file holds one value.
inline std::string_view subject_of(const cgroup_setting& setting) noexcept {
    const std::string_view key = setting.key;
    const std::string_view first =
        std::string_view(setting.value).substr(0, setting.value.find(' '));
    if (key == "io.weight" || key == "io.bfq.weight")
        return first.find(':') == std::string_view::npos ? std::string_view() : first;
    const bool has_lines = key == "io.max" || key == "io.latency" || key.starts_with("io.cost.") ||
                           key.starts_with("rdma.") || key.starts_with("misc.") ||
                           key.starts_with("dmem.");
    return has_lines ? first : std::string_view();
}

}  // namespace detail
}  // namespace kumiki::inline v0
