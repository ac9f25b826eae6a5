// Netlink replies as views: messages in a received buffer, attributes in a message.
//
// Pure, and every length is checked against what is left before it is used: bytes that are no
// well-formed message give an error (EBADMSG) and never a read outside the buffer. A view does not
// own: it is good as long as the buffer that it was made from.
#pragma once

#include <linux/netlink.h>

#include <array>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <iterator>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

#include <kumiki/core/error.hpp>
#include <kumiki/core/ip.hpp>
#include <kumiki/netlink/message.hpp>

namespace kumiki::inline v0 {

namespace detail {

[[noreturn]] inline void malformed_netlink(const char* what, std::size_t number) {
    throw error(EBADMSG, {.operation = "parse netlink reply",
                          .object = std::string(what) + " " + std::to_string(number),
                          .step = {},
                          .container = {},
                          .remedy = {}});
}

/// A structure from the front of `bytes`; nothing when they are too few.
template <class Struct>
    requires std::is_trivially_copyable_v<Struct>
std::optional<Struct> read_structure(std::span<const std::byte> bytes) noexcept {
    if (bytes.size() < sizeof(Struct)) return std::nullopt;
    Struct value;
    std::memcpy(&value, bytes.data(), sizeof value);
    return value;
}

}  // namespace detail

class netlink_attributes;

/// One attribute. The typed getters throw EBADMSG when its size is not that of the type.
class netlink_attribute {
  public:
    netlink_attribute(std::uint16_t type, std::span<const std::byte> payload,
                      unsigned depth) noexcept
        : payload_(payload), type_(type), depth_(depth) {}

    /// The type without the two flag bits.
    std::uint16_t type() const noexcept { return type_ & detail::netlink_type_mask; }
    bool is_nested() const noexcept { return (type_ & NLA_F_NESTED) != 0; }
    std::span<const std::byte> payload() const noexcept { return payload_; }
    std::uint8_t u8() const { return number<std::uint8_t>(); }
    std::uint16_t u16() const { return number<std::uint16_t>(); }
    std::uint32_t u32() const { return number<std::uint32_t>(); }
    std::uint64_t u64() const { return number<std::uint64_t>(); }
    std::uint16_t be16() const { return detail::to_big_endian(u16()); }
    std::uint32_t be32() const { return detail::to_big_endian(u32()); }
    std::uint64_t be64() const { return detail::to_big_endian(u64()); }
    /// The text up to its NUL, or all of it where it has none.
    std::string_view text() const noexcept {
        const std::string_view all(reinterpret_cast<const char*>(payload_.data()), payload_.size());
        return all.substr(0, all.find('\0'));
    }
    /// An address of 4 or 16 bytes.
    ip_address address() const {
        if (payload_.size() == 4) return ip_address(number<std::array<std::uint8_t, 4>>());
        return ip_address(number<std::array<std::uint8_t, 16>>());
    }
    /// A fixed structure of the kernel's; newer kernels may send more of it.
    template <class Struct>
    Struct structure() const {
        const auto value = detail::read_structure<Struct>(payload_);
        if (!value) detail::malformed_netlink("attribute", type());
        return *value;
    }
    /// The attributes inside. Errors: EBADMSG beyond a depth of 16.
    inline netlink_attributes nested() const;

  private:
    template <class Number>
    Number number() const {
        if (payload_.size() != sizeof(Number)) detail::malformed_netlink("attribute", type());
        return *detail::read_structure<Number>(payload_);
    }

    std::span<const std::byte> payload_;
    std::uint16_t type_;
    unsigned depth_;
};

/// A row of attributes: a range for `for`, or find() for one of them.
class netlink_attributes {
  public:
    explicit netlink_attributes(std::span<const std::byte> bytes = {}, unsigned depth = 0) noexcept
        : rest_(bytes), depth_(depth) {}

    class iterator {
      public:
        iterator() noexcept = default;
        iterator(std::span<const std::byte> rest, unsigned depth) : rest_(rest), depth_(depth) {
            advance();
        }
        const netlink_attribute& operator*() const noexcept { return *current_; }
        const netlink_attribute* operator->() const noexcept { return &*current_; }
        iterator& operator++() {
            advance();
            return *this;
        }
        bool operator==(std::default_sentinel_t) const noexcept { return !current_; }

      private:
        void advance() {
            current_.reset();
            if (rest_.empty()) return;
            const auto head = detail::read_structure<nlattr>(rest_);
            if (!head || head->nla_len < sizeof(nlattr) || head->nla_len > rest_.size())
                detail::malformed_netlink("attribute header with bytes left:", rest_.size());
            current_.emplace(head->nla_type,
                             rest_.subspan(sizeof(nlattr), head->nla_len - sizeof(nlattr)), depth_);
            const std::size_t step = detail::netlink_align(head->nla_len);
            rest_ = rest_.subspan(step < rest_.size() ? step : rest_.size());
        }

        std::span<const std::byte> rest_;
        std::optional<netlink_attribute> current_;
        unsigned depth_ = 0;
    };

    iterator begin() const { return iterator(rest_, depth_); }
    std::default_sentinel_t end() const noexcept { return {}; }
    /// The first attribute of `type`, or nothing.
    std::optional<netlink_attribute> find(std::uint16_t type) const {
        for (const netlink_attribute& attribute : *this)
            if (attribute.type() == type) return attribute;
        return std::nullopt;
    }

  private:
    std::span<const std::byte> rest_;
    unsigned depth_;
};

inline netlink_attributes netlink_attribute::nested() const {
    if (depth_ + 1 >= detail::netlink_depth) detail::malformed_netlink("nesting at depth", depth_);
    return netlink_attributes(payload_, depth_ + 1);
}

/// One received message: its header, and what follows it.
struct netlink_message {
    nlmsghdr header{};
    std::span<const std::byte> payload;

    std::uint16_t type() const noexcept { return header.nlmsg_type; }
    /// The family's fixed header. Errors: EBADMSG when the message is shorter.
    template <class Header>
    Header family_header() const {
        const auto value = detail::read_structure<Header>(payload);
        if (!value) detail::malformed_netlink("message of type", type());
        return *value;
    }
    /// The attributes behind a family header of type Header.
    template <class Header>
    netlink_attributes attributes() const {
        constexpr std::size_t size = detail::netlink_align(sizeof(Header));
        if (payload.size() < size) detail::malformed_netlink("message of type", type());
        return netlink_attributes(payload.subspan(size));
    }
};

/// Takes the first message off `rest`; nothing when `rest` is used up. Errors: EBADMSG.
inline std::optional<netlink_message> next_message(std::span<const std::byte>& rest) {
    if (rest.empty()) return std::nullopt;
    const auto head = detail::read_structure<nlmsghdr>(rest);
    if (!head || head->nlmsg_len < sizeof(nlmsghdr) || head->nlmsg_len > rest.size())
        detail::malformed_netlink("message header with bytes left:", rest.size());
    const std::size_t step = detail::netlink_align(head->nlmsg_len);
    const netlink_message message{
        .header = *head,
        .payload = rest.subspan(sizeof(nlmsghdr), head->nlmsg_len - sizeof(nlmsghdr))};
    rest = rest.subspan(step < rest.size() ? step : rest.size());
    return message;
}

/// A request of a batch that the kernel refused.
struct netlink_failure {
    std::size_t index = 0;  ///< which message of the batch
    int code = 0;           ///< errno value
    std::string detail;  ///< what the kernel says of it: extended ack text, offending attribute
};

/// The error for a refused request, with the request's note and the kernel's words; with the module
/// that the kernel lacks, where the note names one and the refusal can come from that.
inline error to_error(const netlink_batch& batch, const netlink_failure& failure) {
    const netlink_note& note = batch.note(failure.index);
    std::string remedy = failure.detail;
    if (note.module != nullptr && (failure.code == EOPNOTSUPP || failure.code == ENOENT))
        remedy += (remedy.empty() ? "" : ". ") + std::string("It needs the kernel's module ") +
                  note.module + ", which may be missing here.";
    return error(failure.code, {.operation = note.operation,
                                .object = note.object,
                                .step = {},
                                .container = {},
                                .remedy = std::move(remedy)});
}

namespace detail {

// The kernel's words for a refusal, from the attributes behind a capped one.
inline std::string explain_refusal(const netlink_message& answer, const netlink_batch& batch) {
    const bool done = answer.type() == NLMSG_DONE;
    const std::size_t skip = done ? sizeof(std::int32_t) : sizeof(nlmsgerr);
    if ((answer.header.nlmsg_flags & NLM_F_ACK_TLVS) == 0 || answer.payload.size() < skip ||
        (!done && (answer.header.nlmsg_flags & NLM_F_CAPPED) == 0))
        return {};
    std::string text;
    for (const netlink_attribute& part : netlink_attributes(answer.payload.subspan(skip))) {
        if (part.type() == NLMSGERR_ATTR_MSG) text = "The kernel says: " + std::string(part.text());
        if (part.type() != NLMSGERR_ATTR_OFFS) continue;
        if (const auto type = batch.attribute_at(answer.header.nlmsg_seq, part.u32()))
            text += " [attribute " + std::to_string(*type) + "]";
    }
    return text;
}

}  // namespace detail
}  // namespace kumiki::inline v0
