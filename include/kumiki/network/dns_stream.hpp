// Messages of the domain name system over a stream: each with its length before it.
//
// RFC 1035, 4.2.2; RFC 7766 (more than one message on a connection). Each waits for ever: the caller
// says how long a connection may take. Left out: more than one question under way on a connection.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include <kumiki/async/scheduler.hpp>
#include <kumiki/async/task.hpp>
#include <kumiki/network/dns_message.hpp>

namespace kumiki::inline v0::detail {

/// Reads exactly so much; false at the end of the stream.
template <class = void>
inline task<bool> read_exactly(scheduler& io, int fd, std::span<std::byte> into) {
    while (!into.empty()) {
        const std::size_t size = co_await io.recv(fd, into);
        if (size == 0) co_return false;
        into = into.subspan(size);
    }
    co_return true;
}

/// One message of a stream: its length in two bytes, and itself; nothing at the end.
template <class = void>
inline task<std::optional<std::vector<std::byte>>> read_dns_message(scheduler& io, int fd) {
    std::array<std::byte, 2> length{};
    const bool begun = co_await read_exactly(io, fd, length);
    if (!begun) co_return std::nullopt;
    std::vector<std::byte> message(*dns_number(length, 0));
    const bool whole = co_await read_exactly(io, fd, message);
    if (!whole) co_return std::nullopt;
    co_return message;
}

/// The same the other way; never more than 65535 bytes.
template <class = void>
inline task<void> send_dns_message(scheduler& io, int fd, std::vector<std::byte> message) {
    const auto size = static_cast<std::uint16_t>(message.size());
    std::vector<std::byte> bytes(2);
    set_dns_id(bytes, size);
    bytes.insert(bytes.end(), message.begin(), message.end());
    for (std::span<const std::byte> rest = bytes; !rest.empty();) {
        const std::size_t sent = co_await io.send(fd, rest);
        rest = rest.subspan(sent);
    }
}

}  // namespace kumiki::inline v0::detail
