// Who a container's process is: user and group ids as types of their own, the text "user[:group]"
// as people write it, and its names looked up in the container's passwd(5) and group(5).
//
// Those files come from an image and are hostile: they are text that the caller hands over, parsed
// here without a libc (no NSS, no host database). A number is a number and never looked up as a
// name, and no id has a default: a number that does not parse is an error, not root (CVE-2026-30892).
#pragma once

#include <algorithm>
#include <array>
#include <compare>
#include <concepts>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include <kumiki/core/error.hpp>
#include <kumiki/core/text.hpp>

namespace kumiki::inline v0 {

/// A user or group id. Not default-constructible: whoever means root writes 0.
template <class Kind>
class posix_id {
  public:
    /// Implicit, so that {1000, 1000} is a process_user.
    /// Errors: invalid_input unless from 0 to 4294967294; the number above means "no change".
    template <std::integral Number>
    constexpr posix_id(Number value) : value_(static_cast<std::uint32_t>(value)) {
        if (!std::in_range<std::uint32_t>(value) || value_ == 0xffffffff)
            throw invalid_input(Kind::what, std::to_string(value),
                                "It must be from 0 to 4294967294.");
    }
    constexpr std::uint32_t value() const noexcept { return value_; }
    friend constexpr auto operator<=>(posix_id, posix_id) noexcept = default;

  private:
    std::uint32_t value_;
};

namespace detail {
struct user_kind {
    static constexpr std::string_view what = "user id";
};
struct group_kind {
    static constexpr std::string_view what = "group id";
};
}  // namespace detail

using user_id = posix_id<detail::user_kind>;
using group_id = posix_id<detail::group_kind>;

/// The most supplementary groups that a process can have (NGROUPS_MAX).
inline constexpr std::size_t most_groups = 65536;

/// The ids of a process, as seen in its own user namespace. Real, effective and saved ids are the
/// same.
struct process_user {
    user_id user;
    group_id group;
    std::vector<group_id> groups{};  ///< supplementary, without `group`

    friend bool operator==(const process_user&, const process_user&) = default;
};

/// "user[:group]", each a number or a name.
struct user_request {
    std::variant<user_id, std::string> user;
    std::optional<std::variant<group_id, std::string>> group{};
};

namespace detail {

template <class Id>
std::optional<Id> parse_id(std::string_view text) {
    const auto number = parse_number<std::uint32_t>(text);
    if (!number || *number == 0xffffffff) return std::nullopt;
    return Id(*number);
}

template <class Id>
std::variant<Id, std::string> parse_id_or_name(std::string_view what, std::string_view text) {
    if (text.empty()) throw invalid_input(what, text, "It is empty.");
    const bool number = text.find_first_not_of("0123456789") == std::string_view::npos;
    if (number) {
        const auto id = parse_id<Id>(text);
        if (!id) throw invalid_input(what, text, "The number must be from 0 to 4294967294.");
        return *id;
    }
    // The rule of useradd(8), with capitals; what starts with a digit or a sign is a failed number.
    const auto letter = [](char c) {
        return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
    };
    const auto inner = [&](char c) {
        return letter(c) || (c >= '0' && c <= '9') || c == '-' || c == '.';
    };
    const std::string_view body = text.ends_with('$') ? text.substr(0, text.size() - 1) : text;
    if (text.size() > 256 || !letter(text.front()) || !std::ranges::all_of(body, inner))
        throw invalid_input(what, text.substr(0, 64),
                            "It must be a number, or a name of letters, digits, '_', '-', '.'.");
    return std::string(text);
}

/// The files of an image may be of any size; more than this is not a user database.
inline constexpr std::size_t largest_user_file = std::size_t{4} << 20;

/// Calls accept(fields) for each line of exactly `Count` fields between colons, without those of
/// another form (comments, NIS entries, garbage), until it returns true.
template <std::size_t Count, class Accept>
void each_entry(std::string_view what, std::string_view text, Accept&& accept) {
    if (text.size() > largest_user_file)
        throw invalid_input(what, std::to_string(text.size()) + " bytes",
                            "It must not be larger than 4 MiB.");
    while (const auto line = next_field(text, '\n')) {
        if (static_cast<std::size_t>(std::ranges::count(*line, ':')) + 1 != Count ||
            line->find('\0') != std::string_view::npos)
            continue;
        std::array<std::string_view, Count> fields{};
        std::string_view rest = *line;
        for (auto& field : fields) field = next_field(rest, ':').value_or(std::string_view{});
        if (accept(fields)) return;
    }
}

}  // namespace detail

/// Parses "1000", "1000:1000", "www-data", "www-data:adm", "0:users".
/// Errors: invalid_input.
inline user_request parse_user(std::string_view text) {
    const auto colon = text.find(':');
    user_request request{.user = detail::parse_id_or_name<user_id>("user", text.substr(0, colon))};
    if (colon != std::string_view::npos)
        request.group = detail::parse_id_or_name<group_id>("group", text.substr(colon + 1));
    return request;
}

/// What a user_request came to, with what passwd says beside the ids.
struct resolved_user {
    process_user ids;
    std::string name{};  ///< empty for a number that passwd does not know
    std::string home{};  ///< an absolute path or empty; from the image: do not trust it
};

/// Finds the ids of `request` in the texts of /etc/passwd and /etc/group ("" where there is none);
/// of entries with the same name or number the first counts, as for the libc.
/// Without a group in the request, it and the supplementary groups are those of the user's entry;
/// with one, there are no supplementary groups. A number without entry and without group gets the
/// group of the same number (not 0, which docker gives).
/// Errors: invalid_input for a name that is not there, or a file of more than 4 MiB.
inline resolved_user resolve_user(const user_request& request, std::string_view passwd,
                                  std::string_view group) {
    std::optional<user_id> user;
    std::optional<group_id> primary;
    std::string name;
    std::string home;
    const auto* wanted_name = std::get_if<std::string>(&request.user);
    const auto* wanted_id = std::get_if<user_id>(&request.user);
    detail::each_entry<7>("passwd file", passwd, [&](const auto& fields) {
        const auto id = detail::parse_id<user_id>(fields[2]);
        const auto its_group = detail::parse_id<group_id>(fields[3]);
        if (!id || !its_group || fields[0].empty()) return false;
        if (wanted_name ? fields[0] != *wanted_name : *id != *wanted_id) return false;
        user = id;
        primary = its_group;
        name = std::string(fields[0]);
        if (fields[5].starts_with('/') && fields[5].size() < 4096) home = std::string(fields[5]);
        return true;
    });
    if (wanted_id) user = *wanted_id;
    if (!user)
        throw invalid_input("user", *wanted_name, "The container's /etc/passwd does not have it.");

    const auto* wanted_group = request.group ? std::get_if<std::string>(&*request.group) : nullptr;
    if (request.group && !wanted_group) primary = std::get<group_id>(*request.group);
    if (wanted_group) primary.reset();
    std::vector<group_id> groups;
    detail::each_entry<4>("group file", group, [&](const auto& fields) {
        const auto id = detail::parse_id<group_id>(fields[2]);
        if (!id) return false;
        if (wanted_group) {
            if (fields[0] != *wanted_group) return false;
            primary = id;
            return true;
        }
        if (request.group || name.empty()) return true;  // nothing to look for
        std::string_view members = fields[3];
        while (const auto member = next_field(members, ','))
            if (*member == name && groups.size() < most_groups) {
                groups.push_back(*id);
                break;
            }
        return false;
    });
    if (wanted_group && !primary)
        throw invalid_input("group", *wanted_group, "The container's /etc/group does not have it.");
    const group_id chosen = primary.value_or(group_id(user->value()));
    std::ranges::sort(groups);
    const auto doubles = std::ranges::unique(groups);
    groups.erase(doubles.begin(), doubles.end());
    std::erase(groups, chosen);
    return {.ids = {.user = *user, .group = chosen, .groups = std::move(groups)},
            .name = std::move(name),
            .home = std::move(home)};
}

}  // namespace kumiki::inline v0
