// Answers of the domain name system as they go out, to a question that dns_message.hpp read.
//
// Pure. RFC 1035 with EDNS (RFC 6891). What does not fit into what the sender can take is left out, and
// the answer says so; names are written once, as pointers to the question's.
// Left out: other records than A, AAAA, PTR and OPT; all but the answers' section.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include <kumiki/core/ip.hpp>
#include <kumiki/core/text.hpp>
#include <kumiki/network/dns_message.hpp>

namespace kumiki::inline v0 {

/// An answer that is being written.
class dns_reply {
  public:
    /// Begins the answer to `query`, which was read from `message`.
    dns_reply(std::span<const std::byte> message, const dns_query& query, dns_code code)
        : bytes_(message.begin(), message.begin() + static_cast<std::ptrdiff_t>(query.end)),
          edns_(query.edns_size.has_value()) {
        constexpr unsigned answer = 0x8000;
        constexpr unsigned authoritative = 0x0400;
        constexpr unsigned recursion_available = 0x0080;
        const bool ours = code == dns_code::no_error || code == dns_code::no_such_name;
        put_at(2, answer | (query.flags & 0x7900U) | (ours ? authoritative : 0U) |
                      recursion_available | static_cast<unsigned>(code));
        put_at(4, query.end > detail::dns_header_size ? 1 : 0);
        for (const std::size_t count : {6U, 8U, 10U}) put_at(count, 0);
    }

    /// The name of the question has this address, for so many seconds.
    void add(const ip_address& address, std::uint32_t seconds) {
        begin(address.is_v4() ? dns_type::a : dns_type::aaaa, seconds);
        put(static_cast<unsigned>(address.size()));
        for (std::size_t i = 0; i < address.size(); ++i) bytes_.push_back(std::byte{address[i]});
    }
    /// The address that the question is about has this name. One that cannot be is left out.
    void add(std::string_view name, std::uint32_t seconds) {
        std::vector<std::byte> wire;
        for (const std::string_view label : split(name, '.')) {
            if (label.empty() || label.size() > 63) return;
            wire.push_back(std::byte(static_cast<std::uint8_t>(label.size())));
            for (const char c : label) wire.push_back(std::byte(static_cast<std::uint8_t>(c)));
        }
        wire.push_back(std::byte{0});
        if (wire.size() > 255) return;
        begin(dns_type::ptr, seconds);
        put(static_cast<unsigned>(wire.size()));
        bytes_.insert(bytes_.end(), wire.begin(), wire.end());
    }
    /// The bytes, `limit` at most: records that do not fit are left out, and the answer says so.
    std::vector<std::byte> finish(std::size_t limit) && {
        constexpr std::size_t opt_size = 11;
        const std::size_t room = limit - (edns_ ? opt_size : 0);
        while (bytes_.size() > room && !starts_.empty()) {
            bytes_.resize(starts_.back());
            starts_.pop_back();
            bytes_[2] |= std::byte{0x02};  // truncated
        }
        put_at(6, static_cast<unsigned>(starts_.size()));
        if (!edns_) return std::move(bytes_);
        put_at(10, 1);
        bytes_.push_back(std::byte{0});
        put(dns_type::opt);
        put(edns_answer_size);
        for (int i = 0; i < 3; ++i) put(0);
        return std::move(bytes_);
    }

    /// What is sent over UDP at most, also to who says that he takes more: a packet that is never
    /// fragmented.
    static constexpr std::uint16_t edns_answer_size = 1232;
    /// What may be sent over UDP to who asked.
    static std::size_t limit_for(const dns_query& query) {
        const std::size_t wanted = query.edns_size.value_or(512);
        return wanted < 512 ? 512 : wanted < edns_answer_size ? wanted : edns_answer_size;
    }

  private:
    void put(unsigned number) {
        bytes_.push_back(std::byte(static_cast<std::uint8_t>(number >> 8 & 0xff)));
        bytes_.push_back(std::byte(static_cast<std::uint8_t>(number & 0xff)));
    }
    void put_at(std::size_t at, unsigned number) {
        bytes_[at] = std::byte(static_cast<std::uint8_t>(number >> 8 & 0xff));
        bytes_[at + 1] = std::byte(static_cast<std::uint8_t>(number & 0xff));
    }
    void begin(std::uint16_t type, std::uint32_t seconds) {
        starts_.push_back(bytes_.size());
        put(0xc000U | static_cast<unsigned>(detail::dns_header_size));  // the question's name
        put(type);
        put(1);
        put(seconds >> 16);
        put(seconds & 0xffff);
    }

    std::vector<std::byte> bytes_;
    std::vector<std::size_t> starts_;
    bool edns_;
};

}  // namespace kumiki::inline v0
