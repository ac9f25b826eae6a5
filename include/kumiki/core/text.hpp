// Text as the kernel and people write it: whole-token numbers, fields, lines, path components.
//
// Numbers are parsed in full into the exact width: no sign, blank, prefix or trailing byte is
// accepted, and too large is an error and not a wrap (CVE-2026-30892 was a uid that became 0).
#pragma once

#include <concepts>
#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <kumiki/core/error.hpp>

namespace kumiki::inline v0 {

/// The number that all of `text` spells in `base` (2 to 16), or nothing. A minus sign is accepted
/// for signed types only. Usable at compile time, which std::from_chars is not before C++23.
template <std::integral Number>
constexpr std::optional<Number> parse_number(std::string_view text, unsigned base = 10) noexcept {
    using limits = std::numeric_limits<Number>;
    const bool negative = limits::is_signed && text.starts_with('-');
    if (negative) text.remove_prefix(1);
    if (text.empty()) return std::nullopt;
    const auto most = static_cast<std::uint64_t>(limits::max()) + (negative ? 1U : 0U);
    std::uint64_t value = 0;
    for (const char c : text) {
        unsigned digit = 16;
        if (c >= '0' && c <= '9') digit = static_cast<unsigned>(c - '0');
        if (c >= 'a' && c <= 'f') digit = static_cast<unsigned>(c - 'a') + 10;
        if (c >= 'A' && c <= 'F') digit = static_cast<unsigned>(c - 'A') + 10;
        if (digit >= base || value > (most - digit) / base) return std::nullopt;
        value = value * base + digit;
    }
    return static_cast<Number>(negative ? 0 - value : value);
}

/// As parse_number, but throws invalid_input that calls the value `what`.
template <std::integral Number>
Number require_number(std::string_view what, std::string_view text,
                      std::source_location where = std::source_location::current()) {
    const std::optional<Number> value = parse_number<Number>(text);
    if (!value)
        throw invalid_input(what, text, "It must be a whole decimal number in range.", where);
    return *value;
}

/// `text` without blanks, tabs and newlines at both ends.
constexpr std::string_view trim(std::string_view text) noexcept {
    constexpr std::string_view blank = " \t\r\n";
    const auto first = text.find_first_not_of(blank);
    if (first == std::string_view::npos) return {};
    return text.substr(first, text.find_last_not_of(blank) - first + 1);
}

/// Takes the text up to `separator` off the front of `rest`; nothing when `rest` is used up.
/// An empty field between two separators is returned as such; one after the last is not.
constexpr std::optional<std::string_view> next_field(std::string_view& rest,
                                                     char separator) noexcept {
    if (rest.empty()) return std::nullopt;
    const auto at = rest.find(separator);
    const std::string_view field = rest.substr(0, at);
    rest = at == std::string_view::npos ? std::string_view{} : rest.substr(at + 1);
    return field;
}

/// The fields of `text` between `separator`s, empty ones included.
inline std::vector<std::string_view> split(std::string_view text, char separator) {
    std::vector<std::string_view> fields;
    for (auto at = text.find(separator); at != std::string_view::npos; at = text.find(separator)) {
        fields.push_back(text.substr(0, at));
        text.remove_prefix(at + 1);
    }
    fields.push_back(text);
    return fields;
}

/// The value of `key` in the kernel's flat-keyed text ("oom 0\noom_kill 1\n"), as a number.
constexpr std::optional<std::uint64_t> flat_value(std::string_view text,
                                                  std::string_view key) noexcept {
    while (const auto line = next_field(text, '\n'))
        if (line->size() > key.size() && line->starts_with(key) && (*line)[key.size()] == ' ')
            return parse_number<std::uint64_t>(trim(line->substr(key.size())));
    return std::nullopt;
}

/// Text from a file of the kernel's in which blanks stand as \040 and the like (mountinfo(5)).
inline std::string unescape_octal(std::string_view text) {
    std::string result;
    for (std::size_t i = 0; i < text.size(); ++i) {
        std::optional<unsigned> byte;
        if (text[i] == '\\' && i + 3 < text.size())
            byte = parse_number<unsigned>(text.substr(i + 1, 3), 8);
        if (byte && *byte < 256) {
            result += static_cast<char>(*byte);
            i += 3;
        } else {
            result += text[i];
        }
    }
    return result;
}

/// True when `name` can be one component of a path: not empty, "." or "..", no '/' and no NUL,
/// at most 255 bytes.
constexpr bool is_path_component(std::string_view name) noexcept {
    return !name.empty() && name.size() <= 255 && name != "." && name != ".." &&
           name.find('/') == std::string_view::npos && name.find('\0') == std::string_view::npos;
}

/// True when absolute `path` is `directory` or below it, by components ("/a-b" is not in "/a").
constexpr bool is_path_within(std::string_view path, std::string_view directory) noexcept {
    while (directory.size() > 1 && directory.ends_with('/')) directory.remove_suffix(1);
    if (directory == "/") return path.starts_with('/');
    return path.starts_with(directory) &&
           (path.size() == directory.size() || path[directory.size()] == '/');
}

/// Refuses text that cannot become a C string of the kernel's: a NUL byte inside, or `limit`
/// bytes and more (PATH_MAX counts the closing NUL).
inline void require_c_string(std::string_view what, std::string_view text,
                             std::size_t limit = 4096) {
    if (text.find('\0') != std::string_view::npos)
        throw invalid_input(what, text.substr(0, text.find('\0')), "It has a NUL byte in it.");
    if (text.size() >= limit)
        throw invalid_input(what, std::string(text.substr(0, 32)) + "...",
                            "It has " + std::to_string(text.size()) + " bytes; the limit is " +
                                std::to_string(limit - 1) + ".");
}

}  // namespace kumiki::inline v0
