// What the host's links to containers are called: by numbers that are nobody else's as long as the
// container is connected, so that a name tells whose a link is, too.
//
// Pure.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace kumiki::inline v0::detail {

/// The digits of numbers in names: all but 'x', which is between the two.
inline constexpr std::string_view port_digits = "0123456789abcdefghijklmnopqrstuvwyz";

inline std::string port_number(std::uint64_t number) {
    std::string digits;
    for (; number != 0 || digits.empty(); number /= port_digits.size())
        digits.insert(0, 1, port_digits[number % port_digits.size()]);
    return digits;
}

/// How the names of all links to one bridge's containers begin.
inline std::string port_prefix(int bridge) {
    return "km" + port_number(static_cast<std::uint64_t>(bridge)) + "x";
}

/// The host's link to a container: the bridge's index and the IPv4 lease's number in base 35, short
/// enough for any index and any IPv4 network.
inline std::string port_name(int bridge, std::uint64_t lease) {
    return port_prefix(bridge) + port_number(lease);
}

/// The helper that shapes what comes from the container behind `port`.
inline std::string shaper_of(std::string_view port) { return "kx" + std::string(port.substr(2)); }

/// The lease's number in the name of a link to a container, or of its shaper; nothing for other names.
inline std::optional<std::uint64_t> lease_of_port(std::string_view name) {
    if (!name.starts_with("km") && !name.starts_with("kx")) return std::nullopt;
    const std::size_t cross = name.find('x', 2);
    if (cross == std::string_view::npos || cross == 2 || cross + 1 == name.size() ||
        name.size() > 15)
        return std::nullopt;
    std::uint64_t number = 0;
    for (const char digit : name.substr(cross + 1)) {
        const std::size_t value = port_digits.find(digit);
        if (value == std::string_view::npos) return std::nullopt;
        number = number * port_digits.size() + value;
    }
    return number;
}

}  // namespace kumiki::inline v0::detail
