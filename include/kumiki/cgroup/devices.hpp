// Which devices the processes of a group may open and make, as a list of rules and as the eBPF
// program that they become. The list is data; setting it is device_filter.hpp's.
//
// cgroup v2 has no files for devices: a program of type BPF_PROG_TYPE_CGROUP_DEVICE (4.15) is asked
// at each open and mknod. The last rule that speaks of a device and an access decides on it.
// Source: linux/bpf.h (bpf_cgroup_dev_ctx), security/device_cgroup.c.
#pragma once

#include <linux/bpf.h>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <kumiki/cgroup/device.hpp>
#include <kumiki/core/error.hpp>
#include <kumiki/core/flags.hpp>
#include <kumiki/sys/ebpf.hpp>

namespace kumiki::inline v0 {

/// What is done with a device.
enum class device_access : std::uint8_t {
    none = 0,
    mknod = BPF_DEVCG_ACC_MKNOD,
    read = BPF_DEVCG_ACC_READ,
    write = BPF_DEVCG_ACC_WRITE,
    all = mknod | read | write,
};

template <>
inline constexpr bool is_flags<device_access> = true;

/// One rule of a list.
struct device_rule {
    bool allow = false;
    device_kind kind = device_kind::any;
    std::optional<std::uint32_t> major{};  ///< unset: every one
    std::optional<std::uint32_t> minor{};  ///< unset: every one
    device_access access = device_access::all;
    bool operator==(const device_rule&) const = default;
};

/// What is allowed at first, and the rules that change it, in order.
class device_list {
  public:
    /// Everything is denied that is not allowed.
    static device_list deny_all() { return device_list(false); }
    /// Everything is allowed that is not denied.
    static device_list allow_all() { return device_list(true); }
    /// What every container has: the harmless character devices (null, zero, full, random, urandom,
    /// tty, console, ptmx and terminals), and making any device node, which cannot be opened then.
    static device_list container_default() {
        using enum device_access;
        return deny_all()
            .allow(device_kind::any, {}, {}, mknod)
            .allow_character(1, 3)
            .allow_character(1, 5)
            .allow_character(1, 7)
            .allow_character(1, 8)
            .allow_character(1, 9)
            .allow_character(5, 0)
            .allow_character(5, 1)
            .allow_character(5, 2)
            .allow(device_kind::character, 136, {});
    }

    device_list allow(device_kind kind, std::optional<std::uint32_t> major,
                      std::optional<std::uint32_t> minor,
                      device_access access = device_access::all) && {
        return std::move(*this).add({true, kind, major, minor, access});
    }
    device_list deny(device_kind kind, std::optional<std::uint32_t> major,
                     std::optional<std::uint32_t> minor,
                     device_access access = device_access::all) && {
        return std::move(*this).add({false, kind, major, minor, access});
    }
    /// Allows the device at `path`. Errors: as device_number::of().
    device_list allow(const std::string& path, device_access access = device_access::all) && {
        return std::move(*this).add(rule_for(true, path, access));
    }
    device_list deny(const std::string& path, device_access access = device_access::all) && {
        return std::move(*this).add(rule_for(false, path, access));
    }
    /// Errors: invalid_input for a rule without access, and for a minor without a major.
    device_list add(device_rule rule) && {
        if ((rule.access & ~device_access::all) != device_access::none ||
            rule.access == device_access::none)
            throw invalid_input("device rule", "access",
                                "It must speak of reading, writing or mknod.");
        if (rule.minor && !rule.major)
            throw invalid_input("device rule", "*:" + std::to_string(*rule.minor),
                                "A minor number means nothing without the major one.");
        rules_.push_back(rule);
        return std::move(*this);
    }

    bool allows_at_first() const noexcept { return allows_; }
    const std::vector<device_rule>& rules() const noexcept { return rules_; }
    /// What the list says of an access: the same that its program says.
    bool allows(device_kind kind, device_number device, device_access access) const noexcept;
    /// The eBPF program. Errors: invalid_input for more than some 6,000 rules.
    std::vector<bpf_insn> compile() const;

  private:
    explicit device_list(bool allows) : allows_(allows) {}
    device_list allow_character(std::uint32_t major, std::uint32_t minor) && {
        return std::move(*this).allow(device_kind::character, major, minor);
    }
    static device_rule rule_for(bool allow, const std::string& path, device_access access) {
        device_kind kind = device_kind::character;
        if (S_ISBLK(sys::status_of(sys::open_at(AT_FDCWD, path, O_PATH).get()).st_mode))
            kind = device_kind::block;
        const auto number = device_number::of(path, kind);
        return {allow, kind, number.major, number.minor, access};
    }

    bool allows_;
    std::vector<device_rule> rules_;
};

inline bool device_list::allows(device_kind kind, device_number device,
                                device_access access) const noexcept {
    for (auto rule = rules_.rbegin(); rule != rules_.rend(); ++rule) {
        if ((rule->kind != device_kind::any && rule->kind != kind) ||
            (rule->major && *rule->major != device.major) ||
            (rule->minor && *rule->minor != device.minor))
            continue;
        if (!rule->allow && (access & rule->access) != device_access::none) return false;
        if (rule->allow) access = access & ~rule->access;
        if (access == device_access::none) return true;
    }
    return allows_ || access == device_access::none;
}

namespace detail {

/// The part of a device program that decides on one access: it goes on where that is allowed or not
/// asked for, and ends the program where it is denied.
///
/// Each part loads the device's number again and changes nothing that a later one reads: so the
/// verifier sees all ways through a part end alike, and its work grows with the rules, not with
/// their combinations.
inline std::vector<bpf_insn> compile_access(const std::vector<device_rule>& rules,
                                            bool allows_at_first, device_access access) {
    using enum sys::ebpf_register;
    using namespace sys;
    std::vector<bpf_insn> code{
        ebpf_move(r0, r2),
        ebpf_and(r0, static_cast<std::int32_t>(access)),
        ebpf_skip_if_equal(r0, 0, 0),
        ebpf_load(r3, r1, offsetof(bpf_cgroup_dev_ctx, access_type)),
        ebpf_and(r3, 0xffff),
        ebpf_load(r4, r1, offsetof(bpf_cgroup_dev_ctx, major)),
        ebpf_load(r5, r1, offsetof(bpf_cgroup_dev_ctx, minor)),
    };
    std::vector<std::size_t> to_the_end{2};
    const auto deny = [&] {
        code.push_back(ebpf_set(r0, 0));
        code.push_back(ebpf_exit());
    };
    bool is_decided = false;
    for (auto rule = rules.rbegin(); rule != rules.rend() && !is_decided; ++rule) {
        if (!has(rule->access, access)) continue;
        const bool of_one_kind = rule->kind != device_kind::any;
        int tests = of_one_kind + rule->major.has_value() + rule->minor.has_value();
        // No instruction may be out of reach: what is older than a rule for all is left out.
        is_decided = tests == 0;
        if (is_decided && rule->allow) break;
        const int verdict = rule->allow ? 1 : 2;
        const auto unless = [&](ebpf_register is, std::uint32_t value) {
            const auto skipped = static_cast<std::int16_t>(--tests + verdict);
            code.push_back(ebpf_skip_if_not_equal(is, value, skipped));
        };
        if (of_one_kind)
            unless(r3, rule->kind == device_kind::block ? BPF_DEVCG_DEV_BLOCK : BPF_DEVCG_DEV_CHAR);
        if (rule->major) unless(r4, *rule->major);
        if (rule->minor) unless(r5, *rule->minor);
        if (!rule->allow) {
            deny();
            continue;
        }
        to_the_end.push_back(code.size());
        code.push_back(ebpf_skip(0));
    }
    if (!is_decided && !allows_at_first) deny();
    for (const std::size_t jump : to_the_end) {
        const std::size_t distance = code.size() - jump - 1;
        if (distance > 32767)
            throw invalid_input("device list", std::to_string(rules.size()) + " rules",
                                "They are more than a program can hold; some 6,000 always fit.");
        code[jump].off = static_cast<std::int16_t>(distance);
    }
    return code;
}

}  // namespace detail

inline std::vector<bpf_insn> device_list::compile() const {
    using enum sys::ebpf_register;
    // r2: what is asked for
    std::vector<bpf_insn> code{
        sys::ebpf_load(r2, r1, offsetof(bpf_cgroup_dev_ctx, access_type)),
        sys::ebpf_shift_right(r2, 16),
    };
    for (const auto access : {device_access::mknod, device_access::read, device_access::write}) {
        const auto part = detail::compile_access(rules_, allows_, access);
        code.insert(code.end(), part.begin(), part.end());
    }
    code.push_back(sys::ebpf_set(r0, 1));
    code.push_back(sys::ebpf_exit());
    return code;
}

}  // namespace kumiki::inline v0
