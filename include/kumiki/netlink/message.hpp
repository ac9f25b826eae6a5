// Netlink requests as bytes: a batch of messages with their attributes, for one sendmsg(2).
//
// Pure: no system call is made here. What would not fit is refused (an attribute has a length of
// 16 bits; a sum that wrapped let attackers write attributes of their own, CVE-2021-43784).
// Numbers are in host byte order but for be16, be32 and be64.
// Left out: what a message means (link.hpp, address.hpp, route.hpp, nftables.hpp), and parsing
// (view.hpp).
#pragma once

#include <linux/netlink.h>

#include <bit>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include <kumiki/core/error.hpp>
#include <kumiki/core/ip.hpp>

namespace kumiki::inline v0 {

namespace detail {

constexpr std::size_t netlink_align(std::size_t size) noexcept {
    return (size + 3) & ~std::size_t{3};
}

/// How deep attributes may nest, built or parsed; the kernel's own formats stay below ten.
inline constexpr unsigned netlink_depth = 16;

/// An attribute's type without NLA_F_NESTED and NLA_F_NET_BYTEORDER.
inline constexpr std::uint16_t netlink_type_mask = 0x3fff;

template <std::unsigned_integral Number>
constexpr Number to_big_endian(Number value) noexcept {
    if constexpr (std::endian::native == std::endian::big || sizeof(Number) == 1) {
        return value;
    } else {
        Number swapped = 0;
        for (std::size_t i = 0; i < sizeof(Number); ++i)
            swapped = static_cast<Number>(swapped << 8 | (value >> (8 * i) & 0xff));
        return swapped;
    }
}

}  // namespace detail

/// What a request does and to what: the first two fields of the error when the kernel refuses it.
struct netlink_note {
    const char* operation = "netlink request";
    std::string object = {};
    const char* module = nullptr;  ///< the part of the kernel that it needs, when not all have it
};

/// Requests for one sendmsg(2), built in one buffer.
///
/// add() begins a message, the calls after it append attributes to it. Every call that throws
/// leaves the batch as it was.
class netlink_batch {
  public:
    /// Ends a nested attribute when it goes.
    class [[nodiscard]] nest {
      public:
        explicit nest(netlink_batch& batch) noexcept : batch_(batch) {}
        nest(const nest&) = delete;
        nest& operator=(const nest&) = delete;
        ~nest() { batch_.end_nest(); }

      private:
        netlink_batch& batch_;
    };

    /// Begins a request: the kernel's message type, flags beside NLM_F_REQUEST (NLM_F_ACK: it is
    /// acknowledged), and the family's fixed header (ifinfomsg, nfgenmsg ...).
    template <class Header>
        requires std::is_trivially_copyable_v<Header>
    void add(std::uint16_t type, unsigned flags, const Header& header, netlink_note note = {}) {
        if (flags > 0xffff || depth_ != 0)
            throw invalid_input("netlink message", std::to_string(type),
                                "Its flags have 16 bits, and no nest may be open before it.");
        nlmsghdr head{};
        head.nlmsg_type = type;
        head.nlmsg_flags = static_cast<std::uint16_t>(NLM_F_REQUEST | flags);
        notes_.reserve(notes_.size() < 4 ? 4 : std::bit_ceil(notes_.size() + 1));
        const std::size_t begin = bytes_.size();
        append(&head, sizeof head, &header, sizeof header);
        notes_.push_back(std::move(note));
        message_ = begin;
        close_message();
    }

    /// Appends an attribute with `payload` as it is. Errors: invalid_input beyond 65531 bytes, in
    /// the attribute or in one that it is nested in.
    void data(std::uint16_t type, std::span<const std::byte> payload) {
        put(type, payload.data(), payload.size());
    }
    void u8(std::uint16_t type, std::uint8_t value) { put(type, &value, sizeof value); }
    void u16(std::uint16_t type, std::uint16_t value) { put(type, &value, sizeof value); }
    void u32(std::uint16_t type, std::uint32_t value) { put(type, &value, sizeof value); }
    void u64(std::uint16_t type, std::uint64_t value) { put(type, &value, sizeof value); }
    void be16(std::uint16_t type, std::uint16_t value) { u16(type, detail::to_big_endian(value)); }
    void be32(std::uint16_t type, std::uint32_t value) { u32(type, detail::to_big_endian(value)); }
    void be64(std::uint16_t type, std::uint64_t value) { u64(type, detail::to_big_endian(value)); }
    /// An attribute without a payload.
    void flag(std::uint16_t type) { put(type, nullptr, 0); }
    /// The address's 4 or 16 bytes.
    void address(std::uint16_t type, const ip_address& value) {
        put(type, value.data(), value.size());
    }
    /// Text with its closing NUL. Errors: invalid_input on a NUL inside.
    void text(std::uint16_t type, std::string_view value) {
        if (value.find('\0') != std::string_view::npos)
            throw invalid_input("netlink text", value.substr(0, value.find('\0')),
                                "It has a NUL byte in it.");
        put(type, std::string(value).c_str(), value.size() + 1);
    }
    /// A fixed structure of the kernel's, as an attribute.
    template <class Struct>
        requires(std::is_trivially_copyable_v<Struct> && std::is_class_v<Struct>)
    void structure(std::uint16_t type, const Struct& value) {
        put(type, &value, sizeof value);
    }
    /// A fixed structure in front of the attributes inside a nest (VETH_INFO_PEER's ifinfomsg).
    template <class Struct>
        requires(std::is_trivially_copyable_v<Struct> && std::is_class_v<Struct>)
    void raw(const Struct& value) {
        require_room(sizeof value, 0);
        append(&value, sizeof value, nullptr, 0);
        close_message();
    }
    /// Begins an attribute that holds attributes and ends with the returned object:
    /// `auto info = batch.nested(IFLA_LINKINFO);`. Errors: invalid_input beyond a depth of 16.
    nest nested(std::uint16_t type) {
        if (depth_ == detail::netlink_depth)
            throw invalid_input("netlink attribute", std::to_string(type),
                                "It is nested too deep.");
        put(static_cast<std::uint16_t>(type | NLA_F_NESTED), nullptr, 0);
        open_[depth_++] = bytes_.size() - sizeof(nlattr);
        return nest(*this);
    }

    bool empty() const noexcept { return notes_.empty(); }
    /// How many messages it holds.
    std::size_t count() const noexcept { return notes_.size(); }
    const netlink_note& note(std::size_t index) const { return notes_.at(index); }
    std::span<const std::byte> bytes() const noexcept { return bytes_; }
    void clear() noexcept {
        bytes_.clear();
        notes_.clear();
        depth_ = 0;
    }
    /// Numbers the messages from `first` on; true for those that asked for an acknowledgement.
    std::vector<bool> number(std::uint32_t first) {
        std::vector<bool> acknowledged;
        for (std::size_t at = 0; at < bytes_.size();) {
            nlmsghdr head = header_at(at);
            head.nlmsg_seq = first++;
            std::memcpy(bytes_.data() + at, &head, sizeof head);
            acknowledged.push_back((head.nlmsg_flags & NLM_F_ACK) != 0);
            at += head.nlmsg_len;
        }
        return acknowledged;
    }
    /// The type of the attribute `offset` bytes into message number `sequence`: what an extended
    /// acknowledgement points at.
    std::optional<unsigned> attribute_at(std::uint32_t sequence,
                                         std::size_t offset) const noexcept {
        for (std::size_t at = 0; at < bytes_.size(); at += header_at(at).nlmsg_len) {
            const nlmsghdr head = header_at(at);
            if (head.nlmsg_seq != sequence) continue;
            if (offset < sizeof head || offset + sizeof(nlattr) > head.nlmsg_len) break;
            nlattr found;
            std::memcpy(&found, bytes_.data() + at + offset, sizeof found);
            return found.nla_type & detail::netlink_type_mask;
        }
        return std::nullopt;
    }

  private:
    nlmsghdr header_at(std::size_t at) const noexcept {
        nlmsghdr head;
        std::memcpy(&head, bytes_.data() + at, sizeof head);
        return head;
    }
    // The head's size is a multiple of four; the padding behind the body is zero.
    void append(const void* head, std::size_t head_size, const void* body, std::size_t body_size) {
        const std::size_t at = bytes_.size();
        bytes_.resize(at + detail::netlink_align(head_size + body_size));
        std::memcpy(bytes_.data() + at, head, head_size);
        if (body_size != 0) std::memcpy(bytes_.data() + at + head_size, body, body_size);
    }
    // The outermost open nest is the longest, so its length alone can overflow.
    void require_room(std::size_t size, unsigned type) const {
        constexpr std::size_t most = std::numeric_limits<std::uint16_t>::max();
        const std::size_t outer =
            depth_ == 0 ? 0 : bytes_.size() - open_[0] + detail::netlink_align(size);
        if (notes_.empty())
            throw invalid_input("netlink attribute", std::to_string(type), "No message was begun.");
        if (size > most || outer > most)
            throw invalid_input("netlink attribute",
                                std::to_string(type & detail::netlink_type_mask),
                                "With " + std::to_string(size) + " bytes it does not fit in the " +
                                    "65535 that it, or the attribute around it, can have.");
        if (bytes_.size() - message_ + size > std::numeric_limits<std::uint32_t>::max() - 4)
            throw invalid_input("netlink message", std::to_string(bytes_.size()),
                                "It is too long.");
    }
    void put(std::uint16_t type, const void* payload, std::size_t size) {
        require_room(sizeof(nlattr) + size, type);
        const nlattr head{.nla_len = static_cast<std::uint16_t>(sizeof(nlattr) + size),
                          .nla_type = type};
        append(&head, sizeof head, payload, size);
        close_message();
    }
    void close_message() noexcept {
        const auto length = static_cast<std::uint32_t>(bytes_.size() - message_);
        std::memcpy(bytes_.data() + message_, &length, sizeof length);
    }
    void end_nest() noexcept {
        const std::size_t at = open_[--depth_];
        const auto length = static_cast<std::uint16_t>(bytes_.size() - at);
        std::memcpy(bytes_.data() + at, &length, sizeof length);
    }

    std::vector<std::byte> bytes_;
    std::vector<netlink_note> notes_;
    std::size_t message_ = 0;  // where the last message begins
    std::size_t open_[detail::netlink_depth] = {};
    unsigned depth_ = 0;
};

}  // namespace kumiki::inline v0
