// Bitwise operators for the enumerations that ask for them: typed sets of flags.
//
//   enum class namespaces : unsigned { none = 0, pid = 1, ... };
//   template <> inline constexpr bool is_flags<namespaces> = true;
#pragma once

#include <concepts>
#include <type_traits>

namespace kumiki::inline v0 {

/// Specialise to true to give an enumeration `| & ^ ~` and has().
template <class Enum>
inline constexpr bool is_flags = false;

template <class Enum>
concept flags = std::is_enum_v<Enum> && is_flags<Enum>;

/// The number behind an enumerator.
template <class Enum>
    requires std::is_enum_v<Enum>
constexpr auto to_underlying(Enum value) noexcept {
    return static_cast<std::underlying_type_t<Enum>>(value);
}

template <flags Enum>
constexpr Enum operator|(Enum a, Enum b) noexcept {
    return static_cast<Enum>(to_underlying(a) | to_underlying(b));
}
template <flags Enum>
constexpr Enum operator&(Enum a, Enum b) noexcept {
    return static_cast<Enum>(to_underlying(a) & to_underlying(b));
}
template <flags Enum>
constexpr Enum operator^(Enum a, Enum b) noexcept {
    return static_cast<Enum>(to_underlying(a) ^ to_underlying(b));
}
template <flags Enum>
constexpr Enum operator~(Enum a) noexcept {
    return static_cast<Enum>(~to_underlying(a));
}
template <flags Enum>
constexpr Enum& operator|=(Enum& a, Enum b) noexcept {
    return a = a | b;
}
template <flags Enum>
constexpr Enum& operator&=(Enum& a, Enum b) noexcept {
    return a = a & b;
}

/// True when every flag of `wanted` is in `set`.
template <flags Enum>
constexpr bool has(Enum set, Enum wanted) noexcept {
    return (set & wanted) == wanted;
}

}  // namespace kumiki::inline v0
