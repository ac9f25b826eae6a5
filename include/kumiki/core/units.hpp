// Quantities with their unit in the type: bytes (64_MiB), processors (cpus(0.5)); and no_limit, which
// stands for each of them where it is a limit.
#pragma once

#include <charconv>
#include <cmath>
#include <compare>
#include <cstdint>
#include <limits>
#include <string>
#include <string_view>

#include <kumiki/core/error.hpp>
#include <kumiki/core/text.hpp>

namespace kumiki::inline v0 {

/// An amount of memory or data, in bytes.
struct bytes {
    std::uint64_t count = 0;
    constexpr auto operator<=>(const bytes&) const = default;
    friend constexpr bytes operator+(bytes a, bytes b) noexcept { return {a.count + b.count}; }
};

/// The type of no_limit.
struct no_limit_type {
    constexpr operator bytes() const noexcept {
        return {std::numeric_limits<std::uint64_t>::max()};
    }
    constexpr operator std::uint64_t() const noexcept {
        return std::numeric_limits<std::uint64_t>::max();
    }
};

/// Where an amount of bytes, of processors or of things is a limit: none ("max"). Takes away what
/// was set before.
inline constexpr no_limit_type no_limit{};

constexpr bool operator==(bytes amount, no_limit_type) noexcept {
    return amount == bytes(no_limit);
}

/// An amount of processor time per wall time: cpus(0.5) is half of one processor.
class cpus {
  public:
    /// `count` is at least 0.01 (the kernel's smallest quota is 1 ms in a period of 100 ms).
    constexpr explicit cpus(double count) : count_(count) {
        if (!(count >= 0.01 && count <= 1e6))
            throw invalid_input("number of processors", std::to_string(count),
                                "It must be from 0.01 to 1000000.");
    }
    constexpr cpus(no_limit_type) noexcept : count_(std::numeric_limits<double>::infinity()) {}
    /// The number of processors; infinity for no_limit.
    constexpr double count() const noexcept { return count_; }
    constexpr auto operator<=>(const cpus&) const = default;

  private:
    double count_;
};

/// Bytes from text as people write it for containers: "4096", "64k", "64M", "64MiB", "2g", "1GB".
/// A suffix counts in powers of 1024, as docker's and podman's do; case does not matter.
/// Errors: invalid_input on anything else, and on more than 2^63 - 1 bytes.
inline bytes parse_bytes(std::string_view text) {
    const auto refuse = [&](const char* why) { throw invalid_input("size", text, why); };
    std::size_t digits = 0;
    while (digits < text.size() && text[digits] >= '0' && text[digits] <= '9') ++digits;
    const auto number = parse_number<std::uint64_t>(text.substr(0, digits));
    if (!number) refuse("It must be a whole number with an optional suffix: 512k, 64M, 2G.");
    std::string suffix(text.substr(digits));
    for (char& c : suffix) c = static_cast<char>(c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c);
    unsigned shift = 0;
    if (!suffix.empty() && suffix != "b") {
        constexpr std::string_view prefixes = "kmgtp";
        const auto at = prefixes.find(suffix.front());
        const std::string_view tail = std::string_view(suffix).substr(1);
        if (at == std::string_view::npos || !(tail.empty() || tail == "b" || tail == "ib"))
            refuse("The suffix must be one of k, M, G, T, P (optionally followed by B or iB).");
        shift = static_cast<unsigned>(10 * (at + 1));
    }
    constexpr auto most = static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max());
    if (*number > (most >> shift)) refuse("It is more than 2^63 - 1 bytes.");
    return {*number << shift};
}

/// Processors from text: "0.5", "2". Errors: invalid_input.
inline cpus parse_cpus(std::string_view text) {
    double value = 0;
    const char* end = text.data() + text.size();
    const auto result = std::from_chars(text.data(), end, value, std::chars_format::fixed);
    if (text.empty() || result.ec != std::errc{} || result.ptr != end || !std::isfinite(value) ||
        value < 0.01 || value > 1e6)
        throw invalid_input("number of processors", text,
                            "It must be a number from 0.01 to 1000000, like 0.5 or 2.");
    return cpus(value);
}

/// "64 MiB", "1.5 GiB", "12 B": for people.
inline std::string to_string(bytes amount) {
    constexpr const char* names[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    auto value = static_cast<double>(amount.count);
    int unit = 0;
    for (; value >= 1024 && unit < 6; ++unit) value /= 1024;
    const auto tenths = static_cast<std::uint64_t>(value * 10 + 0.5);
    std::string text = std::to_string(tenths / 10);
    if (tenths % 10 != 0) text += "." + std::to_string(tenths % 10);
    return text + " " + names[unit];
}

namespace literals {

constexpr bytes operator""_B(unsigned long long n) noexcept { return {n}; }
constexpr bytes operator""_KiB(unsigned long long n) noexcept { return {n << 10}; }
constexpr bytes operator""_MiB(unsigned long long n) noexcept { return {n << 20}; }
constexpr bytes operator""_GiB(unsigned long long n) noexcept { return {n << 30}; }

}  // namespace literals
}  // namespace kumiki::inline v0
