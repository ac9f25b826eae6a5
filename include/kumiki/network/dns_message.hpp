// Messages of the domain name system as they arrive: questions, and answers to one's own.
//
// Pure. RFC 1035 with EDNS (RFC 6891): bytes that are no message give nothing, or the code that the
// sender is told, and never a read outside of them; a compressed name may only point backwards, so
// none goes round in circles, and not into the header, which differs in an answer.
// Left out: everything but one question of class IN; an answer's records; writing one (dns_reply.hpp).
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include <kumiki/core/ip.hpp>
#include <kumiki/core/text.hpp>

namespace kumiki::inline v0 {

/// Types of records (the numbers of IANA's registry).
namespace dns_type {
inline constexpr std::uint16_t a = 1;
inline constexpr std::uint16_t ptr = 12;
inline constexpr std::uint16_t aaaa = 28;
inline constexpr std::uint16_t opt = 41;
inline constexpr std::uint16_t any = 255;
}  // namespace dns_type

/// What an answer says of its question.
enum class dns_code : std::uint8_t {
    no_error = 0,
    format_error = 1,
    server_failure = 2,
    no_such_name = 3,
    not_implemented = 4,
    refused = 5,
};

/// A question as it came.
struct dns_query {
    std::uint16_t id = 0;
    std::uint16_t flags = 0;
    /// no_error, or what the sender is to be told without a look at the rest.
    dns_code problem = dns_code::no_error;
    /// In lower case, without the last dot; what is no plain text in it is written as "\DDD".
    std::string name = {};
    std::size_t labels = 0;
    std::uint16_t type = 0;
    std::size_t end = 0;  ///< where the question's bytes end
    /// What the sender can take over UDP; none: it knows no EDNS, and takes 512.
    std::optional<std::uint16_t> edns_size = {};

    bool operator==(const dns_query&) const = default;
};

namespace detail {

inline constexpr std::size_t dns_header_size = 12;

using dns_bytes = std::span<const std::byte>;

inline std::optional<std::uint16_t> dns_number(dns_bytes message, std::size_t at) noexcept {
    if (at > message.size() || message.size() - at < 2) return std::nullopt;
    return static_cast<std::uint16_t>(std::to_integer<unsigned>(message[at]) << 8 |
                                      std::to_integer<unsigned>(message[at + 1]));
}

struct dns_name {
    std::string text = {};
    std::size_t labels = 0;
    std::size_t end = 0;  // behind it where it began
};

inline void append_dns_character(std::string& text, unsigned byte) {
    if (byte >= 'A' && byte <= 'Z') byte += 'a' - 'A';
    if (byte > ' ' && byte < 127 && byte != '.' && byte != '\\') {
        text += static_cast<char>(byte);
        return;
    }
    text += '\\';
    for (const unsigned unit : {100U, 10U, 1U}) text += static_cast<char>('0' + byte / unit % 10);
}

/// The name at `at`; nothing when there is none.
inline std::optional<dns_name> read_dns_name(dns_bytes message, std::size_t at) {
    dns_name found;
    std::size_t size = 1;
    std::size_t lowest = at;
    bool jumped = false;
    for (;;) {
        if (at >= message.size()) return std::nullopt;
        const unsigned length = std::to_integer<unsigned>(message[at]);
        if (length >= 0xc0) {
            const auto pointer = dns_number(message, at);
            if (!pointer) return std::nullopt;
            const std::size_t target = *pointer & 0x3fffU;
            if (target < dns_header_size || target >= lowest) return std::nullopt;
            if (!jumped) found.end = at + 2;
            jumped = true;
            at = lowest = target;
            continue;
        }
        if (length > 63 || message.size() - at <= length) return std::nullopt;
        if (length == 0) {
            if (!jumped) found.end = at + 1;
            return found;
        }
        if ((size += length + 1) > 255) return std::nullopt;
        if (found.labels++ != 0) found.text += '.';
        for (const std::byte each : message.subspan(at + 1, length))
            append_dns_character(found.text, std::to_integer<unsigned>(each));
        at += length + 1;
    }
}

/// The size that an OPT record in the message tells; looks through the records behind `at`.
inline std::optional<std::uint16_t> find_edns_size(dns_bytes message, std::size_t at,
                                                   std::size_t records) {
    for (; records != 0; --records) {
        const auto name = read_dns_name(message, at);
        if (!name) return std::nullopt;
        const auto type = dns_number(message, name->end);
        const auto size = dns_number(message, name->end + 2);
        const auto length = dns_number(message, name->end + 8);
        if (!type || !size || !length) return std::nullopt;
        if (*type == dns_type::opt && name->labels == 0) return size;
        at = name->end + 10 + *length;
    }
    return std::nullopt;
}

}  // namespace detail

/// The question in `message`; nothing for what is not to be answered at all: too short, or itself an
/// answer (two servers must not keep each other busy).
inline std::optional<dns_query> parse_dns_query(std::span<const std::byte> message) {
    using detail::dns_number;
    if (message.size() < detail::dns_header_size) return std::nullopt;
    dns_query found{.id = *dns_number(message, 0), .flags = *dns_number(message, 2)};
    found.end = detail::dns_header_size;
    if ((found.flags & 0x8000U) != 0) return std::nullopt;
    const auto refuse = [&](dns_code code) {
        found.problem = code;
        return found;
    };
    if ((found.flags & 0x7800U) != 0) return refuse(dns_code::not_implemented);
    if (dns_number(message, 4) != 1) return refuse(dns_code::format_error);
    auto name = detail::read_dns_name(message, detail::dns_header_size);
    if (!name) return refuse(dns_code::format_error);
    const auto type = dns_number(message, name->end);
    const auto record_class = dns_number(message, name->end + 2);
    if (!type || !record_class) return refuse(dns_code::format_error);
    found.name = std::move(name->text);
    found.labels = name->labels;
    found.type = *type;
    found.end = name->end + 4;
    const std::size_t records =
        std::size_t{*dns_number(message, 6)} + *dns_number(message, 8) + *dns_number(message, 10);
    found.edns_size = detail::find_edns_size(message, found.end, records);
    constexpr std::uint16_t internet = 1;
    if (*record_class != internet) return refuse(dns_code::refused);
    return found;
}

/// True when `answer` is one to the question that `query` is: the id is `id`, and so is the question.
inline bool answers(std::span<const std::byte> answer, std::uint16_t id, const dns_query& query) {
    using detail::dns_number;
    if (answer.size() < detail::dns_header_size || dns_number(answer, 0) != id) return false;
    if ((*dns_number(answer, 2) & 0x8000U) == 0 || dns_number(answer, 4) != 1) return false;
    const auto name = detail::read_dns_name(answer, detail::dns_header_size);
    return name && name->text == query.name && dns_number(answer, name->end) == query.type;
}

/// The code of an answer.
inline dns_code code_of(std::span<const std::byte> answer) {
    return static_cast<dns_code>(std::to_integer<unsigned>(answer[3]) & 0xfU);
}

/// Writes another id into a message.
inline void set_dns_id(std::span<std::byte> message, std::uint16_t id) {
    message[0] = std::byte(static_cast<std::uint8_t>(id >> 8));
    message[1] = std::byte(static_cast<std::uint8_t>(id & 0xff));
}

/// The address that a name like "9.0.88.10.in-addr.arpa" asks about; nothing for any other name.
inline std::optional<ip_address> address_in_reverse(std::string_view name) {
    std::string_view zone = ".in-addr.arpa";
    const bool v4 = name.ends_with(zone);
    if (!v4) zone = ".ip6.arpa";
    if (!name.ends_with(zone)) return std::nullopt;
    const auto parts = split(name.substr(0, name.size() - zone.size()), '.');
    if (parts.size() != (v4 ? 4U : 32U)) return std::nullopt;
    std::string text;
    for (std::size_t i = parts.size(); i-- != 0;) {
        if (!v4 && parts[i].size() != 1) return std::nullopt;
        text += parts[i];
        if (i != 0 && (v4 || i % 4 == 0)) text += v4 ? '.' : ':';
    }
    return ip_address::try_parse(text);
}

}  // namespace kumiki::inline v0
