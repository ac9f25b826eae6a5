// Capabilities (capabilities(7)): the names, sets of them as values, the default set of a normal
// container, and what the kernel's calls take, prepared as data for the child of a start.
//
// Nothing here changes a process: capset(2) and prctl(PR_CAPBSET_DROP) are the child's to call, in
// the order bounding set, ids, capset, ambient set. Kernel: the data layout is version 3 (2.6.26);
// the newest capability is CAP_CHECKPOINT_RESTORE (5.9). No file capabilities.
#pragma once

#include <fcntl.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>
#include <initializer_list>
#include <string>
#include <string_view>
#include <vector>

#include <kumiki/core/error.hpp>
#include <kumiki/core/text.hpp>
#include <kumiki/sys/file.hpp>

namespace kumiki::inline v0 {

// clang-format off
/// The capabilities by the kernel's numbers (linux/capability.h).
enum class capability : std::uint8_t {
    chown, dac_override, dac_read_search, fowner, fsetid, kill, setgid, setuid, setpcap,
    linux_immutable, net_bind_service, net_broadcast, net_admin, net_raw, ipc_lock, ipc_owner,
    sys_module, sys_rawio, sys_chroot, sys_ptrace, sys_pacct, sys_admin, sys_boot, sys_nice,
    sys_resource, sys_time, sys_tty_config, mknod, lease, audit_write, audit_control, setfcap,
    mac_override, mac_admin, syslog, wake_alarm, block_suspend, audit_read, perfmon, bpf,
    checkpoint_restore,
};

namespace detail {

inline constexpr auto capability_names = std::to_array<std::string_view>({
    "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL",
    "CAP_SETGID", "CAP_SETUID", "CAP_SETPCAP", "CAP_LINUX_IMMUTABLE", "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST", "CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_IPC_LOCK", "CAP_IPC_OWNER",
    "CAP_SYS_MODULE", "CAP_SYS_RAWIO", "CAP_SYS_CHROOT", "CAP_SYS_PTRACE", "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN", "CAP_SYS_BOOT", "CAP_SYS_NICE", "CAP_SYS_RESOURCE", "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG", "CAP_MKNOD", "CAP_LEASE", "CAP_AUDIT_WRITE", "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP", "CAP_MAC_OVERRIDE", "CAP_MAC_ADMIN", "CAP_SYSLOG", "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND", "CAP_AUDIT_READ", "CAP_PERFMON", "CAP_BPF", "CAP_CHECKPOINT_RESTORE",
});
// clang-format on

constexpr char upper(char c) noexcept {
    return c >= 'a' && c <= 'z' ? static_cast<char>(c - 'a' + 'A') : c;
}

}  // namespace detail

/// How many capabilities this library has names for: 41.
inline constexpr unsigned capability_count = detail::capability_names.size();

/// The kernel's name: "CAP_NET_ADMIN".
constexpr std::string_view to_string(capability which) noexcept {
    const auto index = static_cast<std::size_t>(which);
    return index < capability_count ? detail::capability_names[index] : "CAP_?";
}

/// A capability by name, with or without "CAP_", in any case: "CAP_NET_ADMIN", "net_admin".
/// Errors: invalid_input that names it.
constexpr capability parse_capability(std::string_view text) {
    constexpr std::string_view prefix = "CAP_";
    const auto same = [](std::string_view a, std::string_view b) {
        return std::ranges::equal(a, b, {}, detail::upper, detail::upper);
    };
    const std::string_view name =
        same(text.substr(0, prefix.size()), prefix) ? text.substr(prefix.size()) : text;
    for (unsigned i = 0; i < capability_count; ++i)
        if (same(detail::capability_names[i].substr(prefix.size()), name))
            return static_cast<capability>(i);
    throw invalid_input("capability", text, "It must be a name like CAP_NET_ADMIN or net_admin.");
}

/// A set of capabilities: a value, usable at compile time.
class capability_set {
  public:
    constexpr capability_set() noexcept = default;
    constexpr capability_set(std::initializer_list<capability> members) noexcept {
        for (const auto member : members) *this |= member;
    }
    constexpr capability_set(capability member) noexcept  // a set of one, wherever a set is taken
        : bits_(std::uint64_t{1} << static_cast<unsigned>(member)) {}
    /// The set with bit n for capability n, as /proc/PID/status prints it.
    static constexpr capability_set from_bits(std::uint64_t bits) noexcept {
        capability_set set;
        set.bits_ = bits;
        return set;
    }
    /// Every capability up to `last`: by default all that have a name here.
    static constexpr capability_set all(unsigned last = capability_count - 1) noexcept {
        return from_bits(last >= 63 ? ~std::uint64_t{0} : (std::uint64_t{2} << last) - 1);
    }

    constexpr std::uint64_t bits() const noexcept { return bits_; }
    constexpr bool empty() const noexcept { return bits_ == 0; }
    constexpr unsigned size() const noexcept { return static_cast<unsigned>(std::popcount(bits_)); }
    /// True when each member of `others` is in this set.
    constexpr bool contains(capability_set others) const noexcept {
        return (bits_ & others.bits_) == others.bits_;
    }
    /// True when at least one member of `others` is in this set.
    constexpr bool intersects(capability_set others) const noexcept {
        return (bits_ & others.bits_) != 0;
    }
    constexpr capability_set& operator|=(capability_set other) noexcept {
        bits_ |= other.bits_;
        return *this;
    }
    constexpr capability_set& operator&=(capability_set other) noexcept {
        bits_ &= other.bits_;
        return *this;
    }
    /// Takes the members of `other` out.
    constexpr capability_set& operator-=(capability_set other) noexcept {
        bits_ &= ~other.bits_;
        return *this;
    }
    friend constexpr capability_set operator|(capability_set a, capability_set b) noexcept {
        return a |= b;
    }
    friend constexpr capability_set operator&(capability_set a, capability_set b) noexcept {
        return a &= b;
    }
    friend constexpr capability_set operator-(capability_set a, capability_set b) noexcept {
        return a -= b;
    }
    friend constexpr bool operator==(capability_set, capability_set) noexcept = default;

  private:
    std::uint64_t bits_ = 0;
};

/// "CAP_CHOWN,CAP_KILL"; a bit without a name is its number. Empty for the empty set.
inline std::string to_string(capability_set set) {
    std::string text;
    for (unsigned i = 0; i < 64; ++i) {
        if ((set.bits() >> i & 1) == 0) continue;
        if (!text.empty()) text += ',';
        text += i < capability_count ? std::string(detail::capability_names[i]) : std::to_string(i);
    }
    return text;
}

/// A set from names between commas; "all" stands for every one that has a name, "" for none.
/// Errors: invalid_input that names the one that is not known.
inline capability_set parse_capabilities(std::string_view text) {
    capability_set set;
    if (text.empty()) return set;
    for (const std::string_view name : split(text, ','))
        set |= name == "all" || name == "ALL" ? capability_set::all()
                                              : capability_set(parse_capability(name));
    return set;
}

/// What the root of a normal container may do: the set that docker gives, without
/// - CAP_MKNOD: together with root it opens every disk of the host as long as no device filter
///   stands in front (there is none yet: cgroup/devices);
/// - CAP_NET_RAW: forged router advertisements and ARP answers to the neighbours (CVE-2020-10749);
/// - CAP_AUDIT_WRITE: the host's audit log is not the container's. `| capability::audit_write`
///   gives it to those who run sshd or su with auditing.
inline constexpr capability_set default_capabilities{
    capability::chown,   capability::dac_override, capability::fowner,
    capability::fsetid,  capability::kill,         capability::setgid,
    capability::setuid,  capability::setpcap,      capability::net_bind_service,
    capability::setfcap, capability::sys_chroot,
};

/// The five sets of a process. Inheritable and ambient stay empty unless asked for: a filled
/// inheritable set was CVE-2022-29162 and its siblings.
struct process_capabilities {
    capability_set bounding{};
    capability_set effective{};
    capability_set permitted{};
    capability_set inheritable{};
    capability_set ambient{};

    friend bool operator==(const process_capabilities&, const process_capabilities&) = default;
};

/// Bounding, permitted and effective set the same, the others empty: a container's root.
constexpr process_capabilities root_capabilities(capability_set set) noexcept {
    return {.bounding = set, .effective = set, .permitted = set};
}

/// The arguments of capset(2), version 3: the call takes `&payload.head` and `payload.data`.
struct capset_payload {
    struct header {
        std::uint32_t version = 0x20080522;
        std::int32_t pid = 0;  ///< the calling thread
    };
    struct half {
        std::uint32_t effective = 0;
        std::uint32_t permitted = 0;
        std::uint32_t inheritable = 0;
    };
    header head{};
    std::array<half, 2> data{};  ///< capabilities 0 to 31, then 32 to 63
};

/// Prepares capset(2). The ambient set is prctl(PR_CAP_AMBIENT)'s and not in it.
/// Errors: invalid_input when the effective set is not within the permitted, or the ambient not
/// within both the permitted and the inheritable one (the kernel answers EPERM to these).
inline capset_payload make_capset(const process_capabilities& sets) {
    if (!sets.permitted.contains(sets.effective))
        throw invalid_input("capability set", to_string(sets.effective - sets.permitted),
                            "It is effective but not permitted.");
    if (!(sets.permitted & sets.inheritable).contains(sets.ambient))
        throw invalid_input("capability set",
                            to_string(sets.ambient - (sets.permitted & sets.inheritable)),
                            "It is ambient but not both permitted and inheritable.");
    const auto part = [](capability_set set, unsigned shift) {
        return static_cast<std::uint32_t>(set.bits() >> shift & 0xffffffff);
    };
    capset_payload payload;
    for (unsigned i = 0; i < 2; ++i)
        payload.data[i] = {.effective = part(sets.effective, 32 * i),
                           .permitted = part(sets.permitted, 32 * i),
                           .inheritable = part(sets.inheritable, 32 * i)};
    return payload;
}

/// The highest capability of the running kernel (/proc/sys/kernel/cap_last_cap).
/// Errors: kumiki::error when it cannot be read.
inline unsigned last_capability() {
    const std::string path = "/proc/sys/kernel/cap_last_cap";
    const std::string text = sys::read_file_at(AT_FDCWD, path);
    const auto last = parse_number<unsigned>(trim(text));
    if (!last || *last > 63)
        throw error(0, {.operation = "read",
                        .object = path,
                        .step = {},
                        .container = {},
                        .remedy = "It does not hold a capability's number."});
    return *last;
}

/// The numbers to give to prctl(PR_CAPBSET_DROP) so that the bounding set becomes `keep` (or what
/// is left of it). `last` is the kernel's last_capability(): one that the kernel is newer with than
/// this library is dropped as well.
inline std::vector<std::uint8_t> bounding_drops(capability_set keep, unsigned last) {
    std::vector<std::uint8_t> drops;
    for (unsigned i = 0; i <= last && i < 64; ++i)
        if ((keep.bits() >> i & 1) == 0) drops.push_back(static_cast<std::uint8_t>(i));
    return drops;
}

}  // namespace kumiki::inline v0
