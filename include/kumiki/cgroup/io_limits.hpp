// Limits that stand for one device or one size of pages: io.max, io.latency, hugetlb.SIZE.max; and
// the text of control files.
//
// Only whole disks have limits of io; io.weight takes the io.cost controller or BFQ. Kernel: 4.5,
// io.latency 4.19, hugetlb 5.6. Source: cgroup-v2.rst.
#pragma once

#include <bit>
#include <chrono>
#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <kumiki/cgroup/device.hpp>
#include <kumiki/core/error.hpp>
#include <kumiki/core/units.hpp>

namespace kumiki::inline v0 {

/// Where an amount of bytes is a limit: none ("max"). Takes away what was set before.
inline constexpr bytes no_limit{std::numeric_limits<std::uint64_t>::max()};

/// One control file and the text that is written to it.
struct cgroup_setting {
    std::string key{};
    std::string value{};
    bool operator==(const cgroup_setting&) const = default;
};

/// io.max of one device, in a second. A field that is not set stays as it was; no_limit takes a limit
/// of bytes away.
struct io_limit {
    device_number device{};
    std::optional<bytes> read{};
    std::optional<bytes> write{};
    std::optional<std::uint64_t> read_operations{};
    std::optional<std::uint64_t> write_operations{};
    bool operator==(const io_limit&) const = default;
};

/// io.latency of one device.
struct io_latency {
    device_number device{};
    std::chrono::microseconds target{};
    bool operator==(const io_latency&) const = default;
};

/// Memory in huge pages of one size.
struct hugetlb_limit {
    bytes page_size{};  ///< 2_MiB, 1_GiB ...
    bytes most{};
    bool operator==(const hugetlb_limit&) const = default;
};

namespace detail {

inline std::string amount_text(bytes amount) {
    return amount == no_limit ? "max" : std::to_string(amount.count);
}

/// "hugetlb.2MB.max": the kernel's names of sizes count in powers of 1024.
inline std::string hugetlb_key(const hugetlb_limit& limit) {
    const std::uint64_t size = limit.page_size.count;
    if (size < 1024 || !std::has_single_bit(size))
        throw invalid_input("size of huge pages", std::to_string(size),
                            "It must be a power of two, like 2_MiB.");
    const unsigned unit = size >= 1U << 30 ? 30 : size >= 1U << 20 ? 20 : 10;
    return "hugetlb." + std::to_string(size >> unit) +
           (unit == 30   ? "GB.max"
            : unit == 20 ? "MB.max"
                         : "KB.max");
}

inline void add_io_settings(const std::vector<io_limit>& limits,
                            const std::optional<unsigned>& weight,
                            const std::vector<io_latency>& latencies,
                            std::vector<cgroup_setting>& to) {
    for (const io_limit& limit : limits) {
        std::string text = to_string(limit.device);
        const auto add = [&](const char* name, const std::optional<std::uint64_t>& value) {
            if (!value) return;
            if (*value == 0)
                throw invalid_input("io.max", std::string(name) + "=0",
                                    "It must be at least 1: nothing could be read or written.");
            text += ' ' + std::string(name) + '=' + amount_text({*value});
        };
        const auto count = [](const std::optional<bytes>& amount) {
            return amount ? std::optional(amount->count) : std::nullopt;
        };
        add("rbps", count(limit.read));
        add("wbps", count(limit.write));
        add("riops", limit.read_operations);
        add("wiops", limit.write_operations);
        if (text.find(' ') == std::string::npos)
            throw invalid_input("io.max", text, "It limits nothing.");
        to.push_back({"io.max", std::move(text)});
    }
    if (weight) {
        if (*weight < 1 || *weight > 10000)
            throw invalid_input("io.weight", std::to_string(*weight),
                                "It must be from 1 to 10000.");
        to.push_back({"io.weight", std::to_string(*weight)});
    }
    for (const io_latency& latency : latencies) {
        if (latency.target.count() <= 0)
            throw invalid_input("io.latency", std::to_string(latency.target.count()) + " us",
                                "It must be more than nothing.");
        to.push_back({"io.latency", to_string(latency.device) +
                                        " target=" + std::to_string(latency.target.count())});
    }
}

}  // namespace detail
}  // namespace kumiki::inline v0
