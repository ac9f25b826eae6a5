// The chains of the older packet filter (ip_tables, ip6_tables), as far as they concern a bridge: whether
// the one of a hook drops what nothing accepts, and whether something on its way accepts the bridge's
// packets.
//
// getsockopt(2) with IPT_SO_GET_INFO and IPT_SO_GET_ENTRIES; its headers go together with no others, so
// the few offsets are here (they have not changed since 2.4). Only where the "filter" table is there:
// asking for one makes it. The parser is pure. Left out: all other tables and matches.
#pragma once

#include <fcntl.h>
#include <sys/socket.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <kumiki/core/ip.hpp>
#include <kumiki/core/text.hpp>
#include <kumiki/core/unique_fd.hpp>
#include <kumiki/netlink/nftables.hpp>
#include <kumiki/sys/check.hpp>
#include <kumiki/sys/file.hpp>

namespace kumiki::inline v0::detail {

/// What the table says of the packets of a hook.
struct legacy_chain {
    bool is_dropped = false;  ///< by the chain's policy, or by a last rule without a condition
    bool accepts_in = false;  ///< a rule accepts what comes from the bridge
    bool accepts_out = false;  ///< a rule accepts what goes to the bridge
    bool has_docker_user = false;
    bool has_ufw = false;
};

/// struct ipt_getinfo.
struct legacy_table_info {
    char name[32] = {};
    std::uint32_t valid_hooks = 0;
    std::uint32_t hook_entry[5] = {};
    std::uint32_t underflow[5] = {};
    std::uint32_t entries = 0;
    std::uint32_t size = 0;
};

/// Reads the entries of a table for one hook. Entries that
/// would lead out of them end it.
inline legacy_chain parse_legacy_entries(const legacy_table_info& info,
                                         std::span<const std::byte> entries, ip_family family,
                                         std::string_view bridge, nft::hook_point point) {
    const auto hook = static_cast<std::size_t>(point);
    const bool v4 = family == ip_family::v4;
    const std::size_t addresses = v4 ? 16 : 64;
    const std::size_t offsets = v4 ? 88 : 140;  // of target_offset, next_offset
    const std::size_t head = v4 ? 112 : 168;
    const auto read16 = [&](std::size_t at) {
        std::uint16_t number;
        std::memcpy(&number, entries.data() + at, sizeof number);
        return std::size_t{number};
    };
    const auto is_name = [&](std::size_t at) {  // with its NUL: no prefix
        return bridge.size() < 16 && entries[at + bridge.size()] == std::byte{0} &&
               std::memcmp(entries.data() + at, bridge.data(), bridge.size()) == 0;
    };
    legacy_chain found;
    // A chain begins where a hook does, or behind a head. What is accepted in each, and where it leads.
    struct part {
        bool accepts_in = false;
        bool accepts_out = false;
        std::vector<std::size_t> jumps{};
    };
    std::map<std::size_t, part> chains;
    std::size_t chain = 0;
    for (std::size_t at = 0; at + head <= entries.size();) {
        const std::size_t target = at + read16(at + offsets);
        const std::size_t next = at + read16(at + offsets + 2);
        if (next < at + head + 32 || next > entries.size() || target < at + head ||
            target + 32 > next)
            break;
        for (const std::uint32_t begin : info.hook_entry)
            if (at == begin) chain = at;
        const char* const name = reinterpret_cast<const char*>(entries.data() + target + 2);
        const std::string_view kind(name, ::strnlen(name, 29));
        if (kind == "ERROR" && target + 64 <= next) {  // the head of a user's chain
            const std::string_view user(name + 30, ::strnlen(name + 30, 30));
            found.has_docker_user = found.has_docker_user || user == "DOCKER-USER";
            found.has_ufw = found.has_ufw || user.starts_with("ufw-");
            chain = next;
        }
        std::optional<std::int32_t> verdict;
        if (kind.empty() && target + 36 <= next) {
            verdict.emplace();
            std::memcpy(&*verdict, entries.data() + target + 32, sizeof *verdict);
        }
        constexpr std::int32_t accept = -2;
        constexpr std::int32_t drop = -1;
        const bool is_of_hook = at >= info.hook_entry[hook] && at <= info.underflow[hook];
        bool is_conditional = target != at + head;
        const std::size_t condition_size = v4 ? 84 : 133;
        for (std::size_t i = at; i < at + condition_size; ++i)
            is_conditional = is_conditional || entries[i] != std::byte{0};
        if (is_of_hook && !is_conditional && (verdict == drop || kind == "REJECT"))
            found.is_dropped = true;
        part& here = chains[chain];
        if (verdict == accept) {
            here.accepts_in = here.accepts_in || is_name(at + addresses);
            here.accepts_out = here.accepts_out || is_name(at + addresses + 16);
        }
        if (verdict && *verdict >= 0) here.jumps.push_back(static_cast<std::size_t>(*verdict));
        at = next;
    }
    std::vector<std::size_t> ways{info.hook_entry[hook]};
    while (!ways.empty()) {
        const auto each = chains.extract(ways.back());  // once, in whatever circles it leads
        ways.pop_back();
        if (each.empty()) continue;
        found.accepts_in = found.accepts_in || each.mapped().accepts_in;
        found.accepts_out = found.accepts_out || each.mapped().accepts_out;
        ways.insert(ways.end(), each.mapped().jumps.begin(), each.mapped().jumps.end());
    }
    return found;
}

/// What the table of the calling thread's network namespace says; nothing where there is none.
/// Errors: kumiki::error.
inline std::optional<legacy_chain> read_legacy_chain(ip_family family, std::string_view bridge,
                                                     nft::hook_point point) {
    const bool v4 = family == ip_family::v4;
    const auto names =
        sys::try_read_file_at(AT_FDCWD, v4 ? "/proc/thread-self/net/ip_tables_names"
                                           : "/proc/thread-self/net/ip6_tables_names");
    bool is_there = false;
    for (std::string_view rest = names ? std::string_view(*names) : std::string_view();
         const auto line = next_field(rest, '\n');)
        is_there = is_there || *line == "filter";
    if (!is_there) return std::nullopt;
    const int level = v4 ? 0 : 41;  // SOL_IP, SOL_IPV6
    constexpr int get_info = 64;
    constexpr int get_entries = 65;
    const unique_fd socket(
        sys::check(::socket(v4 ? AF_INET : AF_INET6, SOCK_RAW | SOCK_CLOEXEC, 255), "socket"));
    for (;;) {
        legacy_table_info info;
        std::memcpy(info.name, "filter", 7);
        socklen_t size = sizeof info;
        sys::check(::getsockopt(socket.get(), level, get_info, &info, &size),
                   "read packet filter table", "filter");
        constexpr std::size_t front = 40;  // the name, the size, padding
        std::vector<std::byte> all(front + info.size);
        std::memcpy(all.data(), info.name, sizeof info.name);
        std::memcpy(all.data() + sizeof info.name, &info.size, sizeof info.size);
        size = static_cast<socklen_t>(all.size());
        const int result = ::getsockopt(socket.get(), level, get_entries, all.data(), &size);
        if (result != 0 && errno == EAGAIN) continue;  // it has grown or shrunk meanwhile
        sys::check(result, "read packet filter table", "filter");
        return parse_legacy_entries(info, std::span(all).subspan(front), family, bridge, point);
    }
}

}  // namespace kumiki::inline v0::detail
