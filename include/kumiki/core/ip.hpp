// IPv4 and IPv6 addresses, networks and ports as values: parsed, printed and compared without the
// libc's resolver, also at compile time ("10.88.0.0/24"_cidr is refused by the compiler when wrong).
//
// Text forms: RFC 4291 section 2.2 in, RFC 5952 out. IPv4 is exactly four decimal numbers without
// leading zeros (the octal reading of "010" is a known hole). No zone ids.
#pragma once

#include <array>
#include <compare>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include <kumiki/core/error.hpp>
#include <kumiki/core/text.hpp>

namespace kumiki::inline v0 {

/// Address family of an ip_address.
enum class ip_family : std::uint8_t { v4, v6 };

/// An IPv4 or IPv6 address. The bytes are in network order; IPv4 uses the first four.
class ip_address {
  public:
    constexpr ip_address() noexcept = default;  ///< 0.0.0.0
    constexpr explicit ip_address(std::array<std::uint8_t, 4> v4) noexcept
        : bytes_{v4[0], v4[1], v4[2], v4[3]} {}
    constexpr explicit ip_address(std::array<std::uint8_t, 16> v6) noexcept
        : bytes_(v6), family_(ip_family::v6) {}

    constexpr ip_family family() const noexcept { return family_; }
    constexpr bool is_v4() const noexcept { return family_ == ip_family::v4; }
    constexpr bool is_v6() const noexcept { return family_ == ip_family::v6; }
    /// 4 or 16.
    constexpr std::size_t size() const noexcept { return is_v4() ? 4 : 16; }
    constexpr unsigned bits() const noexcept { return is_v4() ? 32 : 128; }
    constexpr const std::uint8_t* data() const noexcept { return bytes_.data(); }
    constexpr std::uint8_t operator[](std::size_t i) const noexcept { return bytes_[i]; }
    constexpr auto operator<=>(const ip_address&) const = default;

    /// 0.0.0.0 or ::.
    constexpr bool is_unspecified() const noexcept {
        for (const auto b : bytes_)
            if (b != 0) return false;
        return true;
    }
    /// 127.0.0.0/8 or ::1.
    constexpr bool is_loopback() const noexcept {
        if (is_v4()) return bytes_[0] == 127;
        for (std::size_t i = 0; i < 15; ++i)
            if (bytes_[i] != 0) return false;
        return bytes_[15] == 1;
    }
    /// The address `offset` further on, within its family (wraps at the end).
    constexpr ip_address plus(std::uint64_t offset) const noexcept {
        ip_address next = *this;
        for (std::size_t i = size(); i != 0 && offset != 0;) {  // not i--: g++ 12 warns at -O3
            --i;
            const std::uint64_t sum = next.bytes_[i] + (offset & 0xff);
            next.bytes_[i] = static_cast<std::uint8_t>(sum & 0xff);
            offset = (offset >> 8) + (sum >> 8);
        }
        return next;
    }
    /// The address with all but the first `length` bits cleared.
    constexpr ip_address masked(unsigned length) const noexcept {
        ip_address kept = *this;
        for (unsigned bit = length; bit < bits(); ++bit)
            kept.bytes_[bit / 8] &= static_cast<std::uint8_t>(~(0x80U >> (bit % 8)));
        return kept;
    }

    /// The one whose bytes in network order these are; nothing unless they are 4 or 16.
    static constexpr std::optional<ip_address> try_from_bytes(std::string_view bytes) noexcept {
        if (bytes.size() != 4 && bytes.size() != 16) return std::nullopt;
        ip_address made;
        made.family_ = bytes.size() == 4 ? ip_family::v4 : ip_family::v6;
        for (std::size_t i = 0; i < bytes.size(); ++i)
            made.bytes_[i] = static_cast<std::uint8_t>(bytes[i]);
        return made;
    }

    static constexpr std::optional<ip_address> try_parse(std::string_view text) noexcept {
        return text.find(':') == std::string_view::npos ? parse_v4(text) : parse_v6(text);
    }
    /// Errors: invalid_input.
    static constexpr ip_address parse(std::string_view text) {
        const auto address = try_parse(text);
        if (!address)
            throw invalid_input("IP address", text, "It must be like 192.0.2.1 or 2001:db8::1.");
        return *address;
    }

  private:
    static constexpr std::optional<ip_address> parse_v4(std::string_view text) noexcept {
        std::array<std::uint8_t, 4> parts{};
        for (std::size_t i = 0; i < 4; ++i) {
            const auto dot = text.find('.');
            if ((dot == std::string_view::npos) != (i == 3)) return std::nullopt;
            const std::string_view part = text.substr(0, dot);
            const auto value = parse_number<std::uint8_t>(part);
            if (!value || (part.size() > 1 && part.front() == '0')) return std::nullopt;
            parts[i] = *value;
            text.remove_prefix(dot == std::string_view::npos ? text.size() : dot + 1);
        }
        return ip_address(parts);
    }
    static constexpr std::optional<ip_address> parse_v6(std::string_view text) noexcept {
        std::array<std::uint8_t, 16> all{};
        std::size_t used = 0;
        std::size_t gap = 17;  // where "::" stood; 17: nowhere
        if (text.starts_with("::")) {
            gap = 0;
            text.remove_prefix(2);
        }
        while (!text.empty()) {
            const auto colon = text.find(':');
            const std::string_view part = text.substr(0, colon);
            if (colon == std::string_view::npos && part.find('.') != std::string_view::npos) {
                const auto tail = parse_v4(part);
                if (!tail || used > 12) return std::nullopt;
                for (std::size_t i = 0; i < 4; ++i) all[used++] = (*tail)[i];
                break;
            }
            const auto value = parse_number<std::uint16_t>(part, 16);
            if (!value || part.size() > 4 || used > 14) return std::nullopt;
            all[used++] = static_cast<std::uint8_t>(*value >> 8);
            all[used++] = static_cast<std::uint8_t>(*value & 0xff);
            if (colon == std::string_view::npos) break;
            text.remove_prefix(colon + 1);
            if (text.empty()) return std::nullopt;
            if (text.front() == ':') {
                if (gap != 17) return std::nullopt;
                gap = used;
                text.remove_prefix(1);
            }
        }
        if (gap == 17) return used == 16 ? std::optional(ip_address(all)) : std::nullopt;
        if (used > 14) return std::nullopt;
        for (std::size_t i = used; i-- > gap;) {
            all[i + 16 - used] = all[i];
            all[i] = 0;
        }
        return ip_address(all);
    }

    std::array<std::uint8_t, 16> bytes_{};
    ip_family family_ = ip_family::v4;
};

/// The text form of RFC 5952 ("2001:db8::1"), or the dotted one.
inline std::string to_string(const ip_address& address) {
    std::string text;
    if (address.is_v4()) {
        for (std::size_t i = 0; i < 4; ++i) {
            if (i != 0) text += '.';
            text += std::to_string(unsigned{address[i]});
        }
        return text;
    }
    const auto group = [&](std::size_t i) {
        return unsigned{address[2 * i]} << 8 | address[2 * i + 1];
    };
    std::size_t best = 8;
    std::size_t length = 1;  // a single zero group is not shortened
    for (std::size_t i = 0; i < 8; ++i) {
        std::size_t run = 0;
        while (i + run < 8 && group(i + run) == 0) ++run;
        if (run > length) {
            best = i;
            length = run;
        }
    }
    for (std::size_t i = 0; i < 8; ++i) {
        if (i == best) {
            text += "::";
            i += length - 1;
            continue;
        }
        if (!text.empty() && text.back() != ':') text += ':';
        constexpr char digits[] = "0123456789abcdef";
        bool leading = true;
        for (unsigned shift = 12;; shift -= 4) {
            const unsigned digit = group(i) >> shift & 0xf;
            leading = leading && digit == 0 && shift != 0;
            if (!leading) text += digits[digit];
            if (shift == 0) break;
        }
    }
    return text;
}

/// A network: an address and a prefix length. The address may have host bits set ("10.0.0.5/24").
struct cidr {
    ip_address address;
    std::uint8_t prefix = 0;

    constexpr auto operator<=>(const cidr&) const = default;
    constexpr ip_address network() const noexcept { return address.masked(prefix); }
    constexpr bool contains(const ip_address& other) const noexcept {
        return other.family() == address.family() && other.masked(prefix) == network();
    }
    constexpr bool overlaps(const cidr& other) const noexcept {
        return prefix <= other.prefix ? contains(other.address) : other.contains(address);
    }
    /// The IPv4 broadcast address, and the last address of an IPv6 network.
    constexpr ip_address last() const noexcept {
        std::array<std::uint8_t, 16> raw{};
        for (std::size_t i = 0; i < address.size(); ++i) raw[i] = address[i];
        for (unsigned bit = prefix; bit < address.bits(); ++bit)
            raw[bit / 8] = static_cast<std::uint8_t>(raw[bit / 8] | 0x80U >> (bit % 8));
        return address.is_v6() ? ip_address(raw)
                               : ip_address(std::array{raw[0], raw[1], raw[2], raw[3]});
    }

    /// "192.0.2.0/24"; an address alone is a network of one.
    static constexpr std::optional<cidr> try_parse(std::string_view text) noexcept {
        const auto slash = text.find('/');
        const auto address = ip_address::try_parse(text.substr(0, slash));
        if (!address) return std::nullopt;
        if (slash == std::string_view::npos)
            return cidr{*address, static_cast<std::uint8_t>(address->bits())};
        const auto prefix = parse_number<std::uint8_t>(text.substr(slash + 1));
        if (!prefix || *prefix > address->bits()) return std::nullopt;
        return cidr{*address, *prefix};
    }
    /// Errors: invalid_input.
    static constexpr cidr parse(std::string_view text) {
        const auto network = try_parse(text);
        if (!network)
            throw invalid_input("network", text, "It must be like 192.0.2.0/24 or 2001:db8::/64.");
        return *network;
    }
};

inline std::string to_string(const cidr& network) {
    return to_string(network.address) + "/" + std::to_string(unsigned{network.prefix});
}

/// Transport protocol, by its IANA number.
enum class protocol : std::uint8_t { tcp = 6, udp = 17, sctp = 132 };

constexpr std::string_view to_string(protocol p) noexcept {
    return p == protocol::tcp ? "tcp" : p == protocol::udp ? "udp" : "sctp";
}

/// Ports from `first` to `last`, both included, in host byte order.
struct port_range {
    std::uint16_t first = 0;
    std::uint16_t last = 0;

    constexpr auto operator<=>(const port_range&) const = default;
    constexpr std::uint32_t count() const noexcept { return std::uint32_t{last} - first + 1; }
    constexpr bool contains(std::uint16_t port) const noexcept {
        return first <= port && port <= last;
    }
    /// "80" or "8000-8010". Errors: invalid_input on 0, on more than 65535, on a range backwards.
    static port_range parse(std::string_view text) {
        const auto dash = text.find('-');
        const auto first = parse_number<std::uint16_t>(text.substr(0, dash));
        const auto last = dash == std::string_view::npos
                              ? first
                              : parse_number<std::uint16_t>(text.substr(dash + 1));
        if (!first || !last || *first == 0 || *last < *first)
            throw invalid_input("port", text,
                                "It must be a number from 1 to 65535 or a range like 8000-8010.");
        return {*first, *last};
    }
};

namespace literals {

consteval ip_address operator""_ip(const char* text, std::size_t size) {
    return ip_address::parse({text, size});
}
consteval cidr operator""_cidr(const char* text, std::size_t size) {
    return cidr::parse({text, size});
}

}  // namespace literals
}  // namespace kumiki::inline v0
