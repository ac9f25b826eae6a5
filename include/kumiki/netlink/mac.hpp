// What names a network interface: its name, checked, and its Ethernet address as a value.
//
// Pure. The kernel's rules for names are those of dev_valid_name(): 1 to 15 bytes, no '/', no
// colon and no blank, not "." or "..".
#pragma once

#include <array>
#include <compare>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

#include <kumiki/core/error.hpp>
#include <kumiki/core/ip.hpp>
#include <kumiki/core/text.hpp>

namespace kumiki::inline v0 {

/// The most bytes that the name of an interface has (IFNAMSIZ without the closing NUL).
inline constexpr std::size_t link_name_size = 15;

/// Returns `name` when the kernel would take it for an interface. Errors: invalid_input.
inline std::string require_link_name(std::string name) {
    const auto refuse = [&](const std::string& why) {
        throw invalid_input("interface name", name, why);
    };
    if (name.empty() || name.size() > link_name_size)
        refuse("It has " + std::to_string(name.size()) + " bytes and must have 1 to 15.");
    if (name == "." || name == "..") refuse("The kernel keeps this name for itself.");
    for (const char c : name)
        if (c == '/' || c == ':' || c == ' ' || (c >= '\t' && c <= '\r') || c == '\0' || c == '%')
            refuse("It must have no blank, '/', ':', '%' or NUL in it.");
    return name;
}

/// An Ethernet address.
struct mac_address {
    std::array<std::uint8_t, 6> octets{};

    constexpr auto operator<=>(const mac_address&) const = default;
    constexpr bool is_multicast() const noexcept { return (octets[0] & 1) != 0; }

    /// "02:00:0a:58:00:02". Errors: invalid_input on anything else, and on a group address.
    static mac_address parse(std::string_view text) {
        mac_address mac;
        const auto parts = split(text, ':');
        bool good = parts.size() == mac.octets.size();
        for (std::size_t i = 0; good && i < parts.size(); ++i) {
            const auto octet = parse_number<std::uint8_t>(parts[i], 16);
            good = octet && parts[i].size() == 2;
            mac.octets[i] = octet.value_or(0);
        }
        if (!good || mac.is_multicast())
            throw invalid_input("MAC address", text,
                                "It must be six pairs of hexadecimal digits with colons between "
                                "them, the first pair even.");
        return mac;
    }
    /// A locally administered address made from an IP address: the same for the same address, so
    /// that neighbours' caches stay right when an address is leased again (RFC 7042, 2.1).
    static constexpr mac_address from(const ip_address& address, std::uint8_t kind = 0) noexcept {
        mac_address mac{.octets = {0x02, kind}};
        for (std::size_t i = 0; i < 4; ++i) mac.octets[2 + i] = address[address.size() - 4 + i];
        return mac;
    }
    /// The link-local IPv6 address that belongs to it (RFC 4291, appendix A). A kernel that has to
    /// find a neighbour for somebody else's packet asks from such an address or not at all.
    constexpr cidr link_local() const noexcept {
        return {.address = ip_address(std::array<std::uint8_t, 16>{
                    0xfe, 0x80, 0, 0, 0, 0, 0, 0, static_cast<std::uint8_t>(octets[0] ^ 2),
                    octets[1], octets[2], 0xff, 0xfe, octets[3], octets[4], octets[5]}),
                .prefix = 64};
    }
};

inline std::string to_string(const mac_address& mac) {
    constexpr char digits[] = "0123456789abcdef";
    std::string text;
    for (const std::uint8_t octet : mac.octets) {
        if (!text.empty()) text += ':';
        text += digits[octet >> 4];
        text += digits[octet & 0xf];
    }
    return text;
}

}  // namespace kumiki::inline v0
