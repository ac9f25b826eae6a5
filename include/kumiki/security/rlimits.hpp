// Resource limits (setrlimit(2)) by name, and what the child of a start passes to prlimit64.
//
// They are per process or per user, not per container: memory and processes of a container are
// limited by its cgroup. Everything that is not named is inherited. Kernel: prlimit64 2.6.36.
#pragma once

#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdint>
#include <limits>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <kumiki/core/error.hpp>
#include <kumiki/core/text.hpp>
#include <kumiki/security/capability.hpp>
#include <kumiki/security/process_status.hpp>
#include <kumiki/sys/check.hpp>

namespace kumiki::inline v0 {

/// What is limited, by the kernel's numbers on x86-64 and aarch64 (asm-generic/resource.h).
enum class resource : std::uint8_t {
    cpu,         ///< seconds of processor time
    fsize,       ///< bytes of a file that is written
    data,        ///< bytes of the data segment
    stack,       ///< bytes
    core,        ///< bytes of a core dump
    rss,         ///< without effect
    nproc,       ///< processes and threads of the user
    nofile,      ///< descriptors: one more than the highest
    memlock,     ///< bytes
    as,          ///< bytes of address space
    locks,       ///< without effect
    sigpending,  ///< queued signals of the user
    msgqueue,    ///< bytes in POSIX message queues of the user
    nice,        ///< 20 minus the lowest nice value
    rtprio,      ///< highest real-time priority
    rttime,      ///< microseconds of real-time processor time without a pause
};

namespace detail {

inline constexpr auto resource_names = std::to_array<std::string_view>(
    {"cpu", "fsize", "data", "stack", "core", "rss", "nproc", "nofile", "memlock", "as", "locks",
     "sigpending", "msgqueue", "nice", "rtprio", "rttime"});

}  // namespace detail

/// "nofile"
constexpr std::string_view to_string(resource which) noexcept {
    const auto index = static_cast<std::size_t>(which);
    return index < detail::resource_names.size() ? detail::resource_names[index] : "?";
}

/// No limit (RLIM64_INFINITY).
inline constexpr std::uint64_t unlimited = ~std::uint64_t{0};

/// One limit. `soft` is in force; a process may raise it up to `hard`, without which the inherited
/// hard limit stays.
struct resource_limit {
    resource which = resource::nofile;
    std::uint64_t soft = 0;
    std::optional<std::uint64_t> hard{};

    friend bool operator==(const resource_limit&, const resource_limit&) = default;

    /// Errors: invalid_input for a resource that there is none of, and for soft above hard.
    void validate() const {
        if (static_cast<std::size_t>(which) >= detail::resource_names.size())
            throw invalid_input("rlimit", std::to_string(static_cast<int>(which)),
                                "There is no such resource.");
        if (hard && soft > *hard)
            throw invalid_input("rlimit", to_string(which),
                                "The soft limit is above the hard one.");
    }
};

/// "nofile=1024:2048", "core=0" (both limits the same), "nofile=1024:" (the inherited hard limit),
/// "memlock=unlimited". Numbers are in the resource's unit.
/// Errors: invalid_input for an unknown name, a malformed number, soft above hard.
inline resource_limit parse_resource_limit(std::string_view text) {
    const auto refuse = [&](std::string_view why) { throw invalid_input("rlimit", text, why); };
    const auto equals = text.find('=');
    if (equals == std::string_view::npos) refuse("It must be like nofile=1024:2048.");
    const auto name = std::ranges::find(detail::resource_names, text.substr(0, equals));
    if (name == detail::resource_names.end())
        throw invalid_input("rlimit", text.substr(0, equals),
                            "The names are cpu, fsize, data, stack, core, rss, nproc, nofile, "
                            "memlock, as, locks, sigpending, msgqueue, nice, rtprio, rttime.");
    const auto number = [&](std::string_view part) {
        if (part == "unlimited") return unlimited;
        const auto value = parse_number<std::uint64_t>(part);
        if (!value || *value == unlimited)
            refuse("A limit must be a whole decimal number or \"unlimited\".");
        return *value;
    };
    const std::string_view values = text.substr(equals + 1);
    const auto colon = values.find(':');
    resource_limit limit{.which = static_cast<resource>(name - detail::resource_names.begin()),
                         .soft = number(values.substr(0, colon))};
    if (colon == std::string_view::npos)
        limit.hard = limit.soft;
    else if (colon + 1 < values.size())
        limit.hard = number(values.substr(colon + 1));
    if (limit.hard && limit.soft > *limit.hard) refuse("The soft limit is above the hard one.");
    return limit;
}

/// The limits of a normal container: everything as inherited, but for 1,024 descriptors at first,
/// with the inherited hard limit above. More than that breaks programs that use select(2), and
/// slows those that close every descriptor one by one; the others raise it themselves.
inline constexpr auto default_resource_limits =
    std::to_array<resource_limit>({{.which = resource::nofile, .soft = 1024}});

/// The arguments of prlimit64(0, resource, &value, nullptr); `value` has the layout of rlimit64.
struct rlimit_payload {
    struct limits {
        std::uint64_t soft = 0;
        std::uint64_t hard = 0;
    };
    int resource = 0;
    limits value{};
};

/// The calling process's limit of `which`. Errors: kumiki::error.
inline rlimit_payload current_resource_limit(resource which) {
    rlimit_payload limit{.resource = static_cast<int>(which)};
    sys::check(::syscall(SYS_prlimit64, 0, limit.resource, nullptr, &limit.value), "prlimit",
               to_string(which));
    return limit;
}

/// What a child of `current` has to set for `wanted`. A soft limit above an inherited hard one is
/// lowered to it. `may_raise` says whether CAP_SYS_RESOURCE is there.
/// Errors: unsupported (EPERM) when the hard limit would have to be raised without it;
/// invalid_input when the soft limit is above the hard one.
inline rlimit_payload make_rlimit(const resource_limit& wanted, rlimit_payload::limits current,
                                  bool may_raise) {
    wanted.validate();
    const std::uint64_t hard = wanted.hard.value_or(current.hard);
    if (hard > current.hard && !may_raise)
        throw unsupported(EPERM, {.operation = "raise the hard limit of",
                                  .object = std::string(to_string(wanted.which)),
                                  .step = {},
                                  .container = {},
                                  .remedy = "It is " + std::to_string(current.hard) +
                                            " here, and raising it needs CAP_SYS_RESOURCE. Ask "
                                            "for at most that, or leave the hard limit out."});
    return {.resource = static_cast<int>(wanted.which),
            .value = {.soft = std::min(wanted.soft, hard), .hard = hard}};
}

/// What the child of a start of this process sets for `wanted`, before it gives up privileges. Of
/// two limits of one resource the later counts.
/// Errors: as make_rlimit(); kumiki::error when the present limits cannot be read.
inline std::vector<rlimit_payload> prepare_rlimits(std::span<const resource_limit> wanted) {
    std::vector<rlimit_payload> payloads;
    if (wanted.empty()) return payloads;
    std::optional<bool> may_raise;
    for (const resource_limit& limit : wanted) {
        const rlimit_payload current = current_resource_limit(limit.which);
        if (!may_raise && limit.hard && *limit.hard > current.value.hard) {
            const auto self = read_process_status(::getpid());
            may_raise = self && self->capabilities.effective.contains(capability::sys_resource);
        }
        const auto payload = make_rlimit(limit, current.value, may_raise.value_or(false));
        std::erase_if(payloads, [&](const auto& p) { return p.resource == payload.resource; });
        payloads.push_back(payload);
    }
    return payloads;
}

}  // namespace kumiki::inline v0
