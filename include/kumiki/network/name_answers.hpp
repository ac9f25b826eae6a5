// What a network's resolver says to a question: an answer of its own, or that it is for somebody
// outside.
//
// Pure. The names of containers, alone or with the network's domain behind them, and the addresses of
// the network are its own; they, and names of one label, are never asked for outside.
// Left out: CNAME, SRV and other records; wildcards; DNSSEC (its own answers are not signed).
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <kumiki/core/ip.hpp>
#include <kumiki/network/dns_message.hpp>
#include <kumiki/network/dns_reply.hpp>
#include <kumiki/network/name_table.hpp>

namespace kumiki::inline v0::detail {

/// What a network's resolver answers from.
struct name_zone {
    std::vector<cidr> subnets = {};
    std::string domain = {};  // in lower case; may be empty
};

/// For how long a container's address may be kept: it may be another's soon after its end.
inline constexpr std::uint32_t name_seconds = 2;

/// The answer to `query`, which was read from `message` and came from `sender`, in `limit` bytes;
/// nothing when it is to be asked for outside.
inline std::optional<std::vector<std::byte>> own_answer(
    const name_zone& zone, const name_table& names, std::span<const std::byte> message,
    const dns_query& query, const ip_address& sender, std::size_t limit) {
    const auto say = [&](dns_code code) { return dns_reply(message, query, code).finish(limit); };
    if (query.problem != dns_code::no_error) return say(query.problem);
    if (!names.name_of(sender)) return say(dns_code::refused);  // no container's address

    std::string_view name = query.name;
    bool ours = query.labels == 1;
    std::vector<ip_address> found = names.find(name);
    if (!zone.domain.empty() && found.empty()) {
        const bool below = name.size() > zone.domain.size() && name.ends_with(zone.domain) &&
                           name[name.size() - zone.domain.size() - 1] == '.';
        ours = ours || below || name == zone.domain;
        if (below) found = names.find(name.substr(0, name.size() - zone.domain.size() - 1));
        if (name == zone.domain) return say(dns_code::no_error);
    }
    if (!found.empty()) {
        dns_reply reply(message, query, dns_code::no_error);
        // Who has one name among several is asked by turns.
        std::rotate(found.begin(), found.begin() + query.id % found.size(), found.end());
        for (const ip_address& address : found)
            if (query.type == (address.is_v4() ? dns_type::a : dns_type::aaaa) ||
                query.type == dns_type::any)
                reply.add(address, name_seconds);
        return std::move(reply).finish(limit);
    }
    if (ours) return say(dns_code::no_such_name);
    if (const auto address = address_in_reverse(name))
        for (const cidr& subnet : zone.subnets) {
            if (!subnet.contains(*address)) continue;
            const auto owner = names.name_of(*address);
            if (!owner) return say(dns_code::no_such_name);
            dns_reply reply(message, query, dns_code::no_error);
            if (query.type == dns_type::ptr || query.type == dns_type::any)
                reply.add(zone.domain.empty() ? *owner : *owner + "." + zone.domain, name_seconds);
            return std::move(reply).finish(limit);
        }
    if (query.labels == 0 || !names.may_ask_outside(sender)) return say(dns_code::refused);
    return std::nullopt;
}

}  // namespace kumiki::inline v0::detail
