// Limits of disks: io.max, io.weight, io.latency, io.prio.class.
//
// Only whole disks have limits of io. io.weight takes the io.cost controller (5.4) or BFQ. Kernel:
// io.max 4.5, io.latency 4.19, io.prio.class 5.14. Source: cgroup-v2.rst.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <kumiki/cgroup/device.hpp>
#include <kumiki/cgroup/setting.hpp>
#include <kumiki/core/error.hpp>
#include <kumiki/core/units.hpp>

namespace kumiki::inline v0 {

/// io.max of one device, in a second. A field that is not set stays as it was; no_limit takes a limit
/// away.
struct io_limit {
    device_number device{};
    std::optional<bytes> read{};
    std::optional<bytes> write{};
    std::optional<std::uint64_t> read_operations{};
    std::optional<std::uint64_t> write_operations{};
    bool operator==(const io_limit&) const = default;
};

/// io.latency of one device; 0 takes the target away.
struct io_latency {
    device_number device{};
    std::chrono::microseconds target{};
    bool operator==(const io_latency&) const = default;
};

/// io.weight of one device.
struct io_device_weight {
    device_number device{};
    std::optional<unsigned> weight{};  ///< 1 to 10000; not set: as the default again
    bool operator==(const io_device_weight&) const = default;
};

/// io.prio.class: what becomes of the priority of the group's requests, which is otherwise the
/// process's own (ioprio_set(2)). Only some schedulers of disks look at it.
enum class io_priority_class : std::uint8_t {
    no_change,
    promote_to_rt,  ///< at least real-time. Kernel: 6.5
    restrict_to_be,  ///< at most best-effort
    idle,
};

namespace detail {

inline void add_io_max_settings(const std::vector<io_limit>& limits,
                                std::vector<cgroup_setting>& to) {
    for (const io_limit& limit : limits) {
        std::string text = to_string(limit.device);
        const auto add = [&](const char* name, const std::optional<std::uint64_t>& value) {
            if (!value) return;
            if (*value == 0)
                throw invalid_input("io.max", std::string(name) + "=0",
                                    "It must be at least 1: nothing could be read or written.");
            text += ' ' + std::string(name) + '=' + count_text(*value);
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
}

inline void add_io_share_settings(const std::optional<unsigned>& weight,
                                  const std::vector<io_device_weight>& weights,
                                  const std::vector<io_latency>& latencies,
                                  const std::optional<io_priority_class>& priority,
                                  std::vector<cgroup_setting>& to) {
    if (weight) to.push_back({"io.weight", weight_text("io.weight", *weight)});
    for (const io_device_weight& each : weights)
        to.push_back({"io.weight", to_string(each.device) + ' ' +
                                       (each.weight ? weight_text("io.weight", *each.weight)
                                                    : std::string("default"))});
    for (const io_latency& latency : latencies) {
        if (latency.target.count() < 0)
            throw invalid_input("io.latency", std::to_string(latency.target.count()) + " us",
                                "It must not be negative.");
        to.push_back({"io.latency", to_string(latency.device) +
                                        " target=" + std::to_string(latency.target.count())});
    }
    if (priority) {
        constexpr const char* names[] = {"no-change", "promote-to-rt", "restrict-to-be", "idle"};
        to.push_back({"io.prio.class", names[static_cast<std::size_t>(*priority)]});
    }
}

}  // namespace detail
}  // namespace kumiki::inline v0
