// What an nftables rule computes with: registers, values, verdicts, and the types of set fields.
//
// Pure. A value is bytes as they stand in the packet (network order) or, for what the kernel keeps
// itself (marks, states), in host order. In a concatenation each field is padded to four bytes.
// The numbers of the field types mean nothing to the kernel: they are for `nft list ruleset`.
#pragma once

#include <linux/netfilter/nf_tables.h>

#include <array>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include <kumiki/core/error.hpp>
#include <kumiki/core/ip.hpp>
#include <kumiki/netlink/mac.hpp>
#include <kumiki/netlink/message.hpp>

namespace kumiki::inline v0::nft {

/// Families, hooks and verdicts of netfilter. <linux/netfilter.h> has them as macros and enumerators,
/// and cannot be included before <netinet/in.h>.
enum class family : std::uint8_t { inet = 1, ip = 2, bridge = 7, ip6 = 10 };
enum class hook_point : std::uint32_t { prerouting, input, forward, output, postrouting };
enum class policy : std::uint32_t { drop = 0, accept = 1 };

/// netfilter's number for an address family.
constexpr std::uint8_t number_of(ip_family family) noexcept {
    return static_cast<std::uint8_t>(family == ip_family::v4 ? nft::family::ip : nft::family::ip6);
}

/// One of the sixteen registers of four bytes; a longer value takes the following ones, too.
enum class reg : std::uint32_t {};

/// Register number `slot`, 0 to 15.
constexpr reg r(std::uint32_t slot) noexcept { return reg{NFT_REG32_00 + slot}; }

/// Up to 64 bytes: what a register is compared with, or a set's key or data.
class value {
  public:
    static constexpr std::size_t capacity = 64;

    constexpr value() noexcept = default;
    value(const ip_address& address) : value(address.data(), address.size()) {}
    value(const mac_address& mac) : value(mac.octets.data(), mac.octets.size()) {}
    value(protocol transport) : value(byte(static_cast<std::uint8_t>(transport))) {}

    static value byte(std::uint8_t number) { return value(&number, 1); }
    /// A number of the kernel's own, in host order.
    static value number(std::uint32_t host) { return value(&host, sizeof host); }
    /// A number in a packet, in network order: a port, an EtherType.
    static value wire(std::uint16_t host) {
        host = detail::to_big_endian(host);
        return value(&host, sizeof host);
    }
    /// An interface's name as the whole field of 16 bytes. Errors: invalid_input.
    static value name(std::string_view text) {
        char field[16] = {};
        if (text.empty() || text.size() >= sizeof field)
            throw invalid_input("interface name", text, "It must have 1 to 15 bytes.");
        std::memcpy(field, text.data(), text.size());
        return value(field, sizeof field);
    }
    /// The first `bits` of `size` bytes set: the mask of a prefix. Errors: invalid_input.
    static value prefix_mask(std::size_t size, unsigned bits) {
        value mask = zero(size);
        for (unsigned bit = 0; bit < bits && bit < size * 8; ++bit)
            mask.bytes_[bit / 8] |= std::byte(0x80U >> (bit % 8));
        return mask;
    }
    /// Bytes as the kernel gave them. Errors: invalid_input beyond 64.
    static value of_bytes(std::string_view bytes) {
        if (bytes.size() > capacity) too_long(bytes.size());
        return {bytes.data(), bytes.size()};
    }
    static value zero(std::size_t size) {
        if (size > capacity) too_long(size);
        value none;
        none.size_ = size;
        return none;
    }

    constexpr std::size_t size() const noexcept { return size_; }
    std::span<const std::byte> bytes() const noexcept { return std::span(bytes_).first(size_); }
    /// The same, as nft_view.hpp gives keys and data.
    std::string_view view() const noexcept {
        return {reinterpret_cast<const char*>(bytes_.data()), size_};
    }
    bool operator==(const value&) const = default;

    /// Appends `next` and pads it to whole registers. Errors: invalid_input beyond 64 bytes.
    void append_padded(const value& next) {
        const std::size_t padded = detail::netlink_align(next.size_);
        if (size_ + padded > capacity) too_long(size_ + padded);
        std::memcpy(bytes_.data() + size_, next.bytes_.data(), next.size_);
        size_ += padded;
    }
    /// The value after this one, read as one big number; it wraps at the end.
    value next() const noexcept {
        value after = *this;
        for (std::size_t i = size_; i-- > 0;) {
            after.bytes_[i] =
                std::byte(static_cast<std::uint8_t>(std::to_integer<unsigned>(bytes_[i]) + 1));
            if (after.bytes_[i] != std::byte{0}) break;
        }
        return after;
    }

  private:
    value(const void* from, std::size_t size) : size_(size) {
        std::memcpy(bytes_.data(), from, size);
    }
    [[noreturn]] static void too_long(std::size_t size) {
        throw invalid_input("nftables value", std::to_string(size), "It has at most 64 bytes.");
    }

    std::array<std::byte, capacity> bytes_{};
    std::size_t size_ = 0;
};

/// `fields` one behind the other, as the key of a concatenated set has them.
template <class... Fields>
    requires(std::constructible_from<value, Fields> && ...)
value concat(const Fields&... fields) {
    value all;
    (all.append_padded(value(fields)), ...);
    return all;
}

/// Where a packet goes from here.
struct verdict {
    std::int32_t code = 1;  ///< 0 drops, 1 accepts, NFT_JUMP ...
    std::string chain{};  ///< the target of a jump or goto

    bool operator==(const verdict&) const = default;
};

inline verdict accept() { return {static_cast<std::int32_t>(policy::accept), {}}; }
inline verdict drop() { return {static_cast<std::int32_t>(policy::drop), {}}; }
/// Ends this chain; the caller's goes on, and a base chain's policy decides.
inline verdict leave() { return {NFT_RETURN, {}}; }
inline verdict jump(std::string chain) { return {NFT_JUMP, std::move(chain)}; }
/// A jump that does not come back: what follows is left out also when the chain ends.
inline verdict go_to(std::string chain) { return {NFT_GOTO, std::move(chain)}; }

/// The type of one field of a set: libnftables' number for it, and its size in bytes.
struct field {
    std::uint8_t type = 0;
    std::uint8_t size = 0;
};

namespace fields {
inline constexpr field ipv4{7, 4};
inline constexpr field ipv6{8, 16};
inline constexpr field ether{9, 6};
inline constexpr field transport{12, 1};
inline constexpr field port{13, 2};
inline constexpr field mark{19, 4};
inline constexpr field interface{41, 16};
/// The field that an address of `family` is.
constexpr field address(ip_family family) noexcept { return family == ip_family::v4 ? ipv4 : ipv6; }
}  // namespace fields

}  // namespace kumiki::inline v0::nft

namespace kumiki::inline v0::detail {

/// `v` as the kernel's nft data: in `type`, a nest with the bytes.
inline void put_nft_value(netlink_batch& into, std::uint16_t type, const nft::value& v) {
    const auto data = into.nested(type);
    into.data(NFTA_DATA_VALUE, v.bytes());
}

/// `v` as the kernel's nft data: in `type`, a nest with the code and the chain.
inline void put_nft_verdict(netlink_batch& into, std::uint16_t type, const nft::verdict& v) {
    const auto data = into.nested(type);
    const auto inner = into.nested(NFTA_DATA_VERDICT);
    into.be32(NFTA_VERDICT_CODE, static_cast<std::uint32_t>(v.code));
    if (!v.chain.empty()) into.text(NFTA_VERDICT_CHAIN, v.chain);
}

}  // namespace kumiki::inline v0::detail
