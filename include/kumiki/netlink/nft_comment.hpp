// Comments of nftables tables, rules and elements, as `nft list ruleset` shows them: written and read.
//
// Pure. The kernel keeps them unread, as user data: rows of type, length and bytes, of which libnftables
// gives type 0 to the comment of each of the three. What is read may be a stranger's: every length is
// looked at. Kernel: 3.15 (rules), 4.1 (elements), 5.10 (tables). Left out: rows of other types.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include <kumiki/core/error.hpp>
#include <kumiki/netlink/message.hpp>
#include <kumiki/netlink/view.hpp>

namespace kumiki::inline v0::detail {

/// A comment as libnftables keeps it in user data: type, length, text with its NUL.
inline void put_nft_comment(netlink_batch& into, std::uint16_t attribute, std::string_view text) {
    if (text.empty()) return;
    if (text.size() > 128)
        throw invalid_input("nftables comment", text, "It must have at most 128 bytes.");
    std::string data{'\0', static_cast<char>(text.size() + 1)};
    data.append(text).push_back('\0');
    into.data(attribute, std::as_bytes(std::span(data)));
}

/// The text that put_nft_comment() wrote; empty when there is none. It lasts as long as the message.
inline std::string_view parse_nft_comment(const netlink_attribute& user_data) noexcept {
    std::span<const std::byte> rest = user_data.payload();
    while (rest.size() >= 2) {
        const auto size = std::to_integer<std::size_t>(rest[1]);
        if (size > rest.size() - 2) break;
        const std::string_view text(reinterpret_cast<const char*>(rest.data()) + 2, size);
        if (rest[0] == std::byte{0}) return text.substr(0, text.find('\0'));
        rest = rest.subspan(2 + size);
    }
    return {};
}

}  // namespace kumiki::inline v0::detail
