// Limits of one named resource each: hugetlb.SIZE.max, rdma.max, misc.max, dmem.max.
//
// Kernel: hugetlb 5.6 (reserved 5.7), rdma 4.11, misc 5.13 (the key of encrypted machines), dmem
// 6.14 (memory of graphics cards). Source: cgroup-v2.rst.
#pragma once

#include <bit>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <kumiki/cgroup/setting.hpp>
#include <kumiki/core/error.hpp>
#include <kumiki/core/units.hpp>

namespace kumiki::inline v0 {

/// Memory in huge pages of one size.
struct hugetlb_limit {
    bytes page_size{};  ///< 2_MiB, 1_GiB ...
    bytes most{};  ///< more gives SIGBUS on first use
    /// What may be reserved: more makes mmap(2) fail, where it can be handled. Kernel: 5.7.
    std::optional<bytes> reserved{};
    bool operator==(const hugetlb_limit&) const = default;
};

/// What may be held of one RDMA device. A field that is not set stays as it was; no_limit takes the
/// limit away.
struct rdma_limit {
    std::string device{};  ///< "mlx5_0"
    std::optional<std::uint64_t> handles{};  ///< hca_handle: below 2^31
    std::optional<std::uint64_t> objects{};  ///< hca_object: below 2^31
    bool operator==(const rdma_limit&) const = default;
};

/// misc.max: how many of a countable resource may be held; misc.capacity at the hierarchy's root
/// lists what there is.
struct misc_limit {
    std::string resource{};  ///< "sev", "sev_es", "tdx"
    std::uint64_t most = 0;
    bool operator==(const misc_limit&) const = default;
};

/// Memory of one region of a device, protected as memory_min and memory_low are; dmem.capacity at
/// the hierarchy's root lists the regions.
struct dmem_limit {
    std::string region{};  ///< "drm/0000:03:00.0/vram0"
    std::optional<bytes> most{};
    std::optional<bytes> low{};
    std::optional<bytes> min{};
    bool operator==(const dmem_limit&) const = default;
};

namespace detail {

/// "hugetlb.2MB": the kernel's names of sizes count in powers of 1024.
inline std::string hugetlb_key(bytes page_size) {
    const std::uint64_t size = page_size.count;
    if (size < 1024 || !std::has_single_bit(size))
        throw invalid_input("size of huge pages", std::to_string(size),
                            "It must be a power of two, like 2_MiB.");
    const unsigned unit = size >= 1U << 30 ? 30 : size >= 1U << 20 ? 20 : 10;
    return "hugetlb." + std::to_string(size >> unit) +
           (unit == 30   ? "GB"
            : unit == 20 ? "MB"
                         : "KB");
}

inline void add_hugetlb_settings(const std::vector<hugetlb_limit>& limits,
                                 std::vector<cgroup_setting>& to) {
    for (const hugetlb_limit& limit : limits) {
        const std::string key = hugetlb_key(limit.page_size);
        to.push_back({key + ".max", amount_text(limit.most)});
        if (limit.reserved) to.push_back({key + ".rsvd.max", amount_text(*limit.reserved)});
    }
}

inline void add_rdma_settings(const std::vector<rdma_limit>& limits,
                              std::vector<cgroup_setting>& to) {
    for (const rdma_limit& limit : limits) {
        std::string text = require_word("rdma.max", limit.device);
        const auto add = [&](const char* name, const std::optional<std::uint64_t>& value) {
            if (!value) return;
            if (*value >= 1U << 31 && *value != std::uint64_t{no_limit})
                throw invalid_input("rdma.max", std::to_string(*value), "It must be below 2^31.");
            text += ' ' + std::string(name) + '=' + count_text(*value);
        };
        add("hca_handle", limit.handles);
        add("hca_object", limit.objects);
        if (!limit.handles && !limit.objects)
            throw invalid_input("rdma.max", text, "It limits nothing.");
        to.push_back({"rdma.max", std::move(text)});
    }
}

inline void add_misc_settings(const std::vector<misc_limit>& limits,
                              std::vector<cgroup_setting>& to) {
    for (const misc_limit& limit : limits)
        to.push_back(
            {"misc.max", require_word("misc.max", limit.resource) + ' ' + count_text(limit.most)});
}

inline void add_dmem_settings(const std::vector<dmem_limit>& limits,
                              std::vector<cgroup_setting>& to) {
    for (const dmem_limit& limit : limits) {
        const std::string& region = require_word("dmem.max", limit.region);
        if (!limit.most && !limit.low && !limit.min)
            throw invalid_input("dmem.max", region, "It limits nothing.");
        const auto add = [&](const char* key, const std::optional<bytes>& value) {
            if (value) to.push_back({key, region + ' ' + amount_text(*value)});
        };
        add("dmem.min", limit.min);
        add("dmem.low", limit.low);
        add("dmem.max", limit.most);
    }
}

}  // namespace detail
}  // namespace kumiki::inline v0
