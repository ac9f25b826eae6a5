// What a container's /etc/hosts, /etc/hostname and /etc/resolv.conf say, as text.
//
// Pure functions: reading the host's resolv.conf and putting the files into the container are the
// caller's. hosts(5), hostname(5), resolv.conf(5).
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include <kumiki/core/error.hpp>
#include <kumiki/core/ip.hpp>
#include <kumiki/core/text.hpp>

namespace kumiki::inline v0 {

/// Returns `name` when it can be a host's: labels of letters, digits and inner hyphens with dots
/// between them (RFC 1123), 64 bytes at most, which is what sethostname(2) takes.
/// Errors: invalid_input.
inline std::string require_hostname(std::string name) {
    const auto is_good = [](char c) {
        return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
               c == '-';
    };
    bool good = !name.empty() && name.size() <= 64;
    for (const std::string_view label : split(name, '.'))
        good = good && !label.empty() && label.size() <= 63 && label.front() != '-' &&
               label.back() != '-' && std::all_of(label.begin(), label.end(), is_good);
    if (!good)
        throw invalid_input("host name", name,
                            "It must be letters, digits, inner hyphens and dots: 64 at most.");
    return name;
}

/// Whether the containers of a network find each other by name, through a resolver on the host's
/// addresses in it (resolver.hpp).
enum class name_service : std::uint8_t { off, on };

/// A line of /etc/hosts.
struct host_entry {
    ip_address address = {};
    std::string name = {};
};

/// The text of /etc/hostname.
inline std::string hostname_text(const std::string& hostname) {
    return require_hostname(hostname) + "\n";
}

/// The text of /etc/hosts: localhost in both families, the container's own name on its addresses
/// (on 127.0.1.1 when it has none, as Debian does), and `others`. Errors: invalid_input.
inline std::string hosts_text(const std::string& hostname, const std::vector<ip_address>& own,
                              const std::vector<host_entry>& others = {}) {
    std::string names = require_hostname(hostname);
    // A qualified name stands before its first label, as hosts(5) has it.
    if (const auto dot = names.find('.'); dot != std::string::npos)
        names += " " + names.substr(0, dot);
    std::string text =
        "127.0.0.1\tlocalhost\n"
        "::1\tlocalhost ip6-localhost ip6-loopback\n";
    const auto line = [&](const ip_address& address, const std::string& name) {
        text += to_string(address) + "\t" + name + "\n";
    };
    for (const ip_address& address : own) line(address, names);
    if (own.empty()) line(ip_address(std::array<std::uint8_t, 4>{127, 0, 1, 1}), names);
    for (const host_entry& other : others) line(other.address, require_hostname(other.name));
    return text;
}

/// What a resolver is told. Of a container: what is not given is taken from the host.
struct resolver_options {
    std::vector<ip_address> nameservers = {};
    std::vector<std::string> search = {};
    std::vector<std::string> options = {};  ///< "ndots:1", "edns0" ...
};

/// Whether name servers on loopback addresses count: in a container with a network of its own they
/// would be itself.
enum class loopback_servers : std::uint8_t { left_out, kept };

/// What the text of a resolv.conf says. Name servers with a zone ("fe80::1%eth0") are left out.
inline resolver_options parse_resolv_conf(std::string_view text, loopback_servers loopback) {
    resolver_options found;
    for (std::string_view rest = text; const auto line = next_field(rest, '\n');) {
        std::vector<std::string_view> words;
        for (std::string_view part : split(*line, ' '))
            for (const std::string_view word : split(part, '\t'))
                if (!trim(word).empty()) words.push_back(trim(word));
        if (words.size() < 2) continue;
        const std::vector<std::string> values(words.begin() + 1, words.end());
        if (words[0] == "nameserver") {
            const auto server = ip_address::try_parse(words[1]);
            if (server && (loopback == loopback_servers::kept || !server->is_loopback()))
                found.nameservers.push_back(*server);
        }
        // The last of these lines counts, and they exclude each other (resolv.conf(5)).
        if (words[0] == "search" || words[0] == "domain") found.search = values;
        if (words[0] == "options")
            found.options.insert(found.options.end(), values.begin(), values.end());
    }
    return found;
}

/// The text of /etc/resolv.conf, made from `wanted` and, where that says nothing, from the text of
/// the host's own file. It may have no name server at all: then the container resolves nothing but
/// /etc/hosts (glibc asks 127.0.0.1). Errors: invalid_input.
inline std::string resolv_conf_text(std::string_view host, const resolver_options& wanted = {},
                                    loopback_servers loopback = loopback_servers::left_out) {
    const resolver_options found = parse_resolv_conf(host, loopback);
    const auto& servers = wanted.nameservers.empty() ? found.nameservers : wanted.nameservers;
    const auto& search = wanted.search.empty() ? found.search : wanted.search;
    const auto& options = wanted.options.empty() ? found.options : wanted.options;
    std::string text;
    const auto line = [&](const char* keyword, const std::vector<std::string>& words) {
        if (words.empty()) return;
        text += keyword;
        for (const std::string& word : words) {
            if (word.find_first_of(" \t\r\n") != std::string::npos || word.empty())
                throw invalid_input("resolver option", word, "It must be one word.");
            text += " " + word;
        }
        text += "\n";
    };
    line("search", search);
    for (const ip_address& server : servers) text += "nameserver " + to_string(server) + "\n";
    line("options", options);
    return text;
}

}  // namespace kumiki::inline v0
