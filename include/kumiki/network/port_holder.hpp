// Who holds a port of this host: for the error that says that it is in use.
//
// Read from /proc/thread-self/net/{tcp,udp}{,6} and the descriptors of all processes (proc(5)), which
// shows a non-root caller only its own; a TCP socket that is bound and does not listen is asked for by
// bound_sockets.hpp. Nothing is asked for when all goes well.
#pragma once

#include <dirent.h>
#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <bit>
#include <cstdint>
#include <cstring>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include <kumiki/core/ip.hpp>
#include <kumiki/core/text.hpp>
#include <kumiki/netlink/bound_sockets.hpp>
#include <kumiki/netlink/socket.hpp>
#include <kumiki/sys/directory.hpp>
#include <kumiki/sys/file.hpp>

namespace kumiki::inline v0::detail {

/// The address of a socket table: 32-bit words in hexadecimal, each in the host's byte order.
inline std::optional<ip_address> parse_proc_net_address(std::string_view text) {
    std::array<std::uint8_t, 16> bytes{};
    if (text.size() != 8 && text.size() != 32) return std::nullopt;
    for (std::size_t at = 0; at < text.size(); at += 8) {
        const auto word = parse_number<std::uint32_t>(text.substr(at, 8), 16);
        if (!word) return std::nullopt;
        std::memcpy(bytes.data() + at / 2, &*word, sizeof *word);
    }
    return text.size() == 32 ? ip_address(bytes)
                             : ip_address(std::array{bytes[0], bytes[1], bytes[2], bytes[3]});
}

/// True when a socket on `bound` keeps others from binding to `address` and the same port. (A dual-stack
/// socket on :: takes the port of IPv4, too.)
inline bool stands_in_way(const ip_address& bound, const ip_address& address) {
    return bound == address || bound.is_unspecified() || address.is_unspecified();
}

/// The inode of a socket in `table` (text of /proc/net/tcp and the like) that stands in the way of
/// binding to `address`, `port`; nothing when there is none.
inline std::optional<std::uint64_t> find_bound_socket(std::string_view table,
                                                      const ip_address& address,
                                                      std::uint16_t port) {
    while (const auto line = next_field(table, '\n')) {
        // "sl local:port remote:port st tx:rx tr:when retrnsmt uid timeout inode ..."
        std::string_view rest = *line;
        std::array<std::string_view, 10> fields{};
        std::size_t count = 0;
        while (count < fields.size()) {
            rest = trim(rest);
            const auto field = next_field(rest, ' ');
            if (!field) break;
            fields[count++] = *field;
        }
        const auto colon = fields[1].find(':');
        if (count < fields.size() || colon == std::string_view::npos) continue;
        const auto bound = parse_proc_net_address(fields[1].substr(0, colon));
        const auto number = parse_number<std::uint16_t>(fields[1].substr(colon + 1), 16);
        const auto inode = parse_number<std::uint64_t>(fields[9]);
        if (!bound || number != port || !inode || *inode == 0) continue;
        if (stands_in_way(*bound, address)) return inode;
    }
    return std::nullopt;
}

/// "name (pid 4711)" of a process that has the socket open; nothing when none is seen.
inline std::optional<std::string> find_socket_owner(std::uint64_t inode) {
    const std::string wanted = "socket:[" + std::to_string(inode) + "]";
    const sys::directory_stream processes(::opendir("/proc"));
    if (!processes) return std::nullopt;
    while (const dirent* process = ::readdir(processes.get())) {
        const std::string pid = process->d_name;
        if (!parse_number<std::uint32_t>(pid)) continue;
        const std::string base = "/proc/" + pid;
        const sys::directory_stream descriptors(::opendir((base + "/fd").c_str()));
        if (!descriptors) continue;
        while (const dirent* descriptor = ::readdir(descriptors.get())) {
            char link[64];
            const auto size =
                ::readlinkat(::dirfd(descriptors.get()), descriptor->d_name, link, sizeof link);
            if (size < 0 || std::string_view(link, static_cast<std::size_t>(size)) != wanted)
                continue;
            std::string name;
            if (const auto file = sys::try_open_at(AT_FDCWD, base + "/comm", O_RDONLY))
                name = sys::read_all(file->get(), base + "/comm");
            return std::string(trim(name)) + " (pid " + pid + ")";
        }
    }
    return std::nullopt;
}

}  // namespace kumiki::inline v0::detail

namespace kumiki::inline v0 {

/// The program that keeps others from binding to `address`, `port`: "nginx (pid 4711)". Nothing when
/// it cannot be found out; never throws for that.
inline std::optional<std::string> port_holder(protocol transport, const ip_address& address,
                                              std::uint16_t port) noexcept {
    try {
        const std::string base =
            "/proc/thread-self/net/" + std::string(transport == protocol::udp ? "udp" : "tcp");
        for (const char* const suffix : {"", "6"}) {
            const auto table = sys::try_read_file_at(AT_FDCWD, base + suffix);
            if (!table) continue;
            if (const auto inode = detail::find_bound_socket(*table, address, port))
                if (auto owner = detail::find_socket_owner(*inode)) return owner;
        }
        if (transport != protocol::tcp) return std::nullopt;
        auto socket = netlink_socket::open(NETLINK_SOCK_DIAG);
        for (const ip_family family : {ip_family::v4, ip_family::v6})
            for (const bound_socket& each : list_bound_tcp(socket, family))
                if (each.port == port && each.inode != 0 &&
                    detail::stands_in_way(each.address, address))
                    if (auto owner = detail::find_socket_owner(each.inode)) return owner;
    } catch (...) {  // no memory, no /proc: the error is told without the name
    }
    return std::nullopt;
}

}  // namespace kumiki::inline v0
