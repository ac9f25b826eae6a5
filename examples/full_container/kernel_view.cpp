#include <arpa/inet.h>
#include <ifaddrs.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <net/if.h>
#include <sched.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <filesystem>
#include <optional>

#include <kumiki/cgroup/hierarchy.hpp>
#include <kumiki/core/text.hpp>
#include <kumiki/netlink/message.hpp>
#include <kumiki/netlink/socket.hpp>
#include <kumiki/sys/check.hpp>
#include <kumiki/sys/file.hpp>
#include <kumiki/sys/own_thread.hpp>

#include "kernel_view.hpp"

namespace example {
namespace {

using namespace kumiki;
namespace fs = std::filesystem;

std::string proc(pid_t pid, std::string_view file) {
    return "/proc/" + std::to_string(pid) + "/" + std::string(file);
}

/// What `look` returns on a thread that has joined a namespace of the process.
template <class Function>
auto inside(pid_t pid, std::string_view kind, int type, Function&& look) {
    const std::string path = proc(pid, "ns/" + std::string(kind));
    const unique_fd where = sys::open_at(AT_FDCWD, path, O_RDONLY);
    return sys::on_own_thread([&] {
        sys::check(::setns(where.get(), type), "join", path);
        return look();
    });
}

void append(std::string& list, std::string_view item) {
    if (!list.empty()) list += ", ";
    list += item;
}

bool is_number(const std::string& name) {
    return !name.empty() && name.find_first_not_of("0123456789") == std::string::npos;
}

/// The v2 line of /proc/PID/cgroup: "0::/path".
std::string v2_path(pid_t pid) {
    const std::string text = text_of(proc(pid, "cgroup"));
    std::string_view rest = text;
    while (const auto line = next_field(rest, '\n'))
        if (line->starts_with("0::")) return std::string(line->substr(3));
    return {};
}

std::size_t count_lines(const std::string& path) {
    const std::string text = text_of(path);
    return text.empty() ? 0 : static_cast<std::size_t>(std::ranges::count(text, '\n')) + 1;
}

std::size_t count_nftables() {
    netlink_socket socket = netlink_socket::open(NETLINK_NETFILTER);
    std::size_t count = 0;
    for (const int what : {NFT_MSG_GETTABLE, NFT_MSG_GETCHAIN, NFT_MSG_GETRULE, NFT_MSG_GETSET}) {
        netlink_batch batch;
        batch.add(static_cast<std::uint16_t>(NFNL_SUBSYS_NFTABLES << 8 | what), NLM_F_DUMP,
                  nfgenmsg{.nfgen_family = NFPROTO_UNSPEC, .version = NFNETLINK_V0, .res_id = 0},
                  {"list nftables"});
        count += socket.dump(batch, [](const netlink_message&) { return std::optional(1); }).size();
    }
    return count;
}

std::size_t count_groups(const std::vector<std::string>& names) {
    std::size_t count = 0;
    std::error_code ignored;  // groups of others come and go while we look
    fs::recursive_directory_iterator entry(cgroup_hierarchy::find().mount().mount_point,
                                           fs::directory_options::skip_permission_denied, ignored);
    for (; !ignored && entry != fs::end(entry); entry.increment(ignored))
        if (std::ranges::count(names, entry->path().filename().string()) != 0) ++count;
    return count;
}

std::size_t count_children() {
    std::size_t count = 0;
    const std::string self = std::to_string(::getpid());
    for (const auto& entry : fs::directory_iterator("/proc")) {
        const std::string name = entry.path().filename().string();
        if (is_number(name) && status_of(std::stoi(name), "PPid") == self) ++count;
    }
    return count;
}

}  // namespace

std::string text_of(const std::string& path) {
    try {
        const auto text = sys::try_read_file_at(AT_FDCWD, path);
        if (!text) return {};
        return std::string(text->ends_with('\n') ? text->substr(0, text->size() - 1) : *text);
    } catch (const error&) {
        return {};  // ESRCH: a process that ends while it is looked at
    }
}

std::string namespace_of(pid_t pid, std::string_view kind) {
    std::error_code none;
    return fs::read_symlink(proc(pid, "ns/" + std::string(kind)), none).string();
}

std::string status_of(pid_t pid, std::string_view key) {
    const std::string text = text_of(proc(pid, "status"));
    std::string_view rest = text;
    while (const auto line = next_field(rest, '\n'))
        if (line->size() > key.size() && line->starts_with(key) && (*line)[key.size()] == ':')
            return std::string(trim(line->substr(key.size() + 1)));
    return {};
}

std::size_t mounts_of(pid_t pid) { return count_lines(proc(pid, "mountinfo")); }

std::string command_of(pid_t pid) {
    std::string text = text_of(proc(pid, "cmdline"));
    for (char& c : text)
        if (c == '\0' || c == '\n') c = ' ';
    return std::string(trim(text));
}

std::string interfaces_of(pid_t pid) {
    const std::string text = text_of(proc(pid, "net/dev"));
    std::string_view rest = text;
    std::string names;
    while (const auto line = next_field(rest, '\n'))
        if (const auto colon = line->find(':'); colon != std::string_view::npos)
            append(names, trim(line->substr(0, colon)));
    return names;
}

std::string addresses_of(pid_t pid) {
    return inside(pid, "net", CLONE_NEWNET, [] {
        ifaddrs* all = nullptr;
        sys::check(::getifaddrs(&all), "list addresses");
        std::string list;
        for (const ifaddrs* one = all; one != nullptr; one = one->ifa_next) {
            if (one->ifa_addr == nullptr || (one->ifa_flags & IFF_LOOPBACK) != 0) continue;
            std::array<char, INET6_ADDRSTRLEN> text{};
            if (one->ifa_addr->sa_family == AF_INET) {
                const auto* v4 = reinterpret_cast<const sockaddr_in*>(one->ifa_addr);
                ::inet_ntop(AF_INET, &v4->sin_addr, text.data(), text.size());
            } else if (one->ifa_addr->sa_family == AF_INET6) {
                const auto* v6 = reinterpret_cast<const sockaddr_in6*>(one->ifa_addr);
                if (IN6_IS_ADDR_LINKLOCAL(&v6->sin6_addr)) continue;
                ::inet_ntop(AF_INET6, &v6->sin6_addr, text.data(), text.size());
            } else {
                continue;
            }
            append(list, text.data());
        }
        ::freeifaddrs(all);
        return list;
    });
}

std::string gateways_of(pid_t pid) {
    std::string list;
    // Iface Destination Gateway ...: addresses as hexadecimal numbers of this machine's order
    const std::string v4 = text_of(proc(pid, "net/route"));
    std::string_view rest = v4;
    while (const auto line = next_field(rest, '\n')) {
        const auto fields = split(*line, '\t');
        if (fields.size() < 3 || fields[1] != "00000000") continue;
        const in_addr gateway{parse_number<std::uint32_t>(fields[2], 16).value_or(0)};
        std::array<char, INET_ADDRSTRLEN> text{};
        append(list, ::inet_ntop(AF_INET, &gateway, text.data(), text.size()));
    }
    // destination prefix source prefix next-hop ...
    const std::string v6 = text_of(proc(pid, "net/ipv6_route"));
    rest = v6;
    while (const auto line = next_field(rest, '\n')) {
        const auto fields = split(*line, ' ');
        if (fields.size() < 6 || fields[0] != std::string(32, '0') || fields[1] != "00" ||
            fields[4] == std::string(32, '0'))
            continue;
        in6_addr gateway{};
        for (std::size_t i = 0; i < 16; ++i)
            gateway.s6_addr[i] =
                parse_number<std::uint8_t>(fields[4].substr(2 * i, 2), 16).value_or(0);
        std::array<char, INET6_ADDRSTRLEN> text{};
        append(list, ::inet_ntop(AF_INET6, &gateway, text.data(), text.size()));
    }
    return list;
}

std::string hostname_of(pid_t pid) {
    return inside(pid, "uts", CLONE_NEWUTS, [] {
        utsname name{};
        sys::check(::uname(&name), "uname");
        return std::string(name.nodename);
    });
}

std::string cgroup_inside(pid_t pid) {
    return inside(pid, "cgroup", CLONE_NEWCGROUP, [pid] { return v2_path(pid); });
}

std::string cgroup_outside(pid_t pid) { return v2_path(pid); }

std::size_t processes_seen(const std::string& root) {
    std::size_t count = 0;
    for (const auto& entry : fs::directory_iterator(root + "/proc"))
        if (is_number(entry.path().filename().string())) ++count;
    return count;
}

footprint take_footprint(const std::vector<std::string>& group_names) {
    const pid_t self = ::getpid();
    const std::string links = interfaces_of(self);
    return {.groups = count_groups(group_names),
            .links = static_cast<std::size_t>(std::ranges::count(links, ',')) + 1,
            .rules = count_nftables(),
            .mounts = mounts_of(self),
            .processes = count_children()};
}

}  // namespace example
