// What the fuzz targets share. Each is a program of libFuzzer's (clang -fsanitize=fuzzer): bytes go to
// one parser, which may refuse them in the way that it says, and in no other.
//
// seeds/NAME/ has what NAME.cpp begins with; those of netlink are answers of a kernel.
#pragma once

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <span>
#include <string_view>
#include <utility>

#include <kumiki/core/error.hpp>
#include <kumiki/netlink/view.hpp>

namespace kumiki_fuzz {

/// Ends the program, as a finding, unless it holds.
inline void require(bool holds) {
    if (!holds) std::abort();
}

/// Runs `function`, which may refuse a message with EBADMSG.
template <class Function>
void may_be_malformed(Function&& function) {
    try {
        std::forward<Function>(function)();
    } catch (const kumiki::error& refusal) {
        require(refusal.errno_value() == EBADMSG);
    }
}

/// Runs `function`, which may refuse text with invalid_input.
template <class Function>
void may_be_invalid(Function&& function) {
    try {
        std::forward<Function>(function)();
    } catch (const kumiki::invalid_input&) {}
}

inline std::span<const std::byte> bytes_of(const std::uint8_t* data, std::size_t size) {
    return std::as_bytes(std::span(data, size));
}
inline std::string_view text_of(const std::uint8_t* data, std::size_t size) {
    return {reinterpret_cast<const char*>(data), size};
}

/// Gives each message in the bytes to `function`.
template <class Function>
void each_message(const std::uint8_t* data, std::size_t size, Function&& function) {
    may_be_malformed([&] {
        for (auto rest = bytes_of(data, size); const auto message = kumiki::next_message(rest);)
            may_be_malformed([&] { function(*message); });
    });
}

}  // namespace kumiki_fuzz
