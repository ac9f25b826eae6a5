// The host's own settings for resolving names: what a container takes over, and whom a network's
// resolver asks.
//
// Under systemd-resolved /etc/resolv.conf names nothing but its stub on loopback, which no other
// network namespace can reach; the servers behind it stand in /run/systemd/resolve/resolv.conf
// (systemd-resolved.service(8)). Left out: other managers of the kind, whose files have no fixed place.
#pragma once

#include <fcntl.h>

#include <optional>
#include <string>
#include <vector>

#include <kumiki/network/names.hpp>
#include <kumiki/sys/file.hpp>

namespace kumiki::inline v0 {

/// The text of the first of `files` that names a server that counts, else of the first that is
/// there; empty when none is. Errors: kumiki::error for a file that cannot be read.
inline std::string host_resolv_conf(loopback_servers loopback,
                                    const std::vector<std::string>& files = {
                                        "/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"}) {
    std::optional<std::string> first;
    for (const std::string& path : files) {
        auto text = sys::try_read_file_at(AT_FDCWD, path);
        if (!text) continue;
        if (!parse_resolv_conf(*text, loopback).nameservers.empty()) return *text;
        if (!first) first = std::move(text);
    }
    return first.value_or("");
}

}  // namespace kumiki::inline v0
