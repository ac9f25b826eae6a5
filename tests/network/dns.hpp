// Messages of the domain name system for tests, written and read without the library's own code.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <kumiki/core/ip.hpp>

namespace kumiki_test {

using dns_message = std::vector<std::byte>;

inline void put16(dns_message& to, unsigned number) {
    to.push_back(std::byte(static_cast<std::uint8_t>(number >> 8 & 0xff)));
    to.push_back(std::byte(static_cast<std::uint8_t>(number & 0xff)));
}
inline unsigned get16(std::span<const std::byte> from, std::size_t at) {
    return std::to_integer<unsigned>(from[at]) << 8 | std::to_integer<unsigned>(from[at + 1]);
}

/// The question for `name`; `edns` is the size that the asker can take, 0: it knows no EDNS.
inline dns_message question(std::string_view name, unsigned type, unsigned id = 0x4711,
                            unsigned edns = 0) {
    dns_message made;
    for (const unsigned number : {id, 0x0100U, 1U, 0U, 0U, edns == 0 ? 0U : 1U})
        put16(made, number);
    for (std::size_t at = 0; at < name.size();) {
        const std::size_t dot = std::min(name.find('.', at), name.size());
        made.push_back(std::byte(static_cast<std::uint8_t>(dot - at)));
        for (const char c : name.substr(at, dot - at))
            made.push_back(std::byte(static_cast<std::uint8_t>(c)));
        at = dot + 1;
    }
    made.push_back(std::byte{0});
    put16(made, type);
    put16(made, 1);
    if (edns == 0) return made;
    made.push_back(std::byte{0});
    for (const unsigned number : {41U, edns, 0U, 0U, 0U}) put16(made, number);
    return made;
}

/// An answer to `asked`: its question, `code` and addresses of IPv4.
inline dns_message answer_to(std::span<const std::byte> asked, unsigned code,
                             const std::vector<kumiki::ip_address>& addresses) {
    std::size_t end = 12;
    while (end < asked.size() && asked[end] != std::byte{0})
        end += std::to_integer<std::size_t>(asked[end]) + 1;
    dns_message made(asked.begin(), asked.begin() + static_cast<std::ptrdiff_t>(end) + 5);
    made[2] = std::byte{0x81};
    made[3] = std::byte(static_cast<std::uint8_t>(0x80 | code));
    made[7] = std::byte(static_cast<std::uint8_t>(addresses.size()));
    made[11] = std::byte{0};
    for (const auto& address : addresses) {
        for (const unsigned number : {0xc00cU, 1U, 1U, 0U, 60U, 4U}) put16(made, number);
        for (std::size_t i = 0; i < 4; ++i) made.push_back(std::byte{address[i]});
    }
    return made;
}

/// What an answer says: "NXDOMAIN", "10.88.0.2 10.88.0.3", "a name", with "TC" in front when it is
/// truncated; "nothing" for no answer.
inline std::string said(const dns_message& answer) {
    if (answer.size() < 12) return "nothing";
    std::string text = (get16(answer, 2) & 0x0200) != 0 ? "TC " : "";
    static constexpr const char* codes[] = {"",         "FORMERR", "SERVFAIL",
                                            "NXDOMAIN", "NOTIMP",  "REFUSED"};
    const unsigned code = get16(answer, 2) & 0xf;
    if (code != 0) return text + (code < 6 ? codes[code] : "?");
    std::size_t at = 12;
    while (answer[at] != std::byte{0}) at += std::to_integer<std::size_t>(answer[at]) + 1;
    at += 5;
    for (unsigned count = get16(answer, 6); count != 0; --count) {
        const std::size_t size = get16(answer, at + 10);
        const std::byte* data = answer.data() + at + 12;
        if (count != get16(answer, 6)) text += " ";
        if (size == 4 && get16(answer, at + 2) == 1) {
            std::array<std::uint8_t, 4> raw{};
            std::memcpy(raw.data(), data, 4);
            text += to_string(kumiki::ip_address(raw));
        } else if (get16(answer, at + 2) == 28) {
            std::array<std::uint8_t, 16> raw{};
            std::memcpy(raw.data(), data, 16);
            text += to_string(kumiki::ip_address(raw));
        } else {
            for (std::size_t i = 0; data[i] != std::byte{0};) {
                const auto length = std::to_integer<std::size_t>(data[i]);
                text += (i == 0 ? "" : ".");
                text.append(reinterpret_cast<const char*>(data) + i + 1, length);
                i += length + 1;
            }
        }
        at += 12 + size;
    }
    return text;
}

}  // namespace kumiki_test
