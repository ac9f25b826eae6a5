// The sizes of huge pages that this kernel has, and what the files of the hugetlb controller are
// called for them: "hugetlb.2MB.events".
//
// Source: cgroup-v2.rst, hugetlbpage.rst (/sys/kernel/mm/hugepages). Kernel: 5.6 in cgroup v2.
#pragma once

#include <dirent.h>

#include <bit>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include <kumiki/core/scope_exit.hpp>
#include <kumiki/core/text.hpp>
#include <kumiki/core/units.hpp>

namespace kumiki::inline v0 {
namespace detail {

/// The size in "hugepages-2048kB"; zero for any other name.
constexpr bytes parse_huge_page_directory(std::string_view name) noexcept {
    constexpr std::string_view before = "hugepages-", after = "kB";
    if (!name.starts_with(before) || !name.ends_with(after)) return {};
    name.remove_prefix(before.size());
    if (name.size() <= after.size()) return {};
    name.remove_suffix(after.size());
    const auto size = parse_number<std::uint32_t>(name);
    if (!size || !std::has_single_bit(*size)) return {};
    return {std::uint64_t{*size} << 10};
}

/// "hugetlb.2MB.events": sizes count in powers of 1024. `name` is the part after the size.
inline std::string huge_page_file(bytes page_size, std::string_view name) {
    const std::uint64_t size = page_size.count;
    const unsigned unit = size >= 1U << 30 ? 30 : size >= 1U << 20 ? 20 : 10;
    std::string file = "hugetlb." + std::to_string(size >> unit);
    file += unit == 30 ? "GB." : unit == 20 ? "MB." : "KB.";
    return file.append(name);
}

}  // namespace detail

/// The sizes of huge pages that there can be: the kernel's, which do not change while it runs. Empty
/// where /sys is not mounted.
inline const std::vector<bytes>& huge_page_sizes() {
    static const std::vector<bytes> sizes = [] {
        std::vector<bytes> found;
        DIR* const listing = ::opendir("/sys/kernel/mm/hugepages");
        if (listing == nullptr) return found;
        const scope_exit close([&]() noexcept { ::closedir(listing); });
        while (const dirent* entry = ::readdir(listing))
            if (const bytes size = detail::parse_huge_page_directory(entry->d_name);
                size.count != 0)
                found.push_back(size);
        return found;
    }();
    return sizes;
}

}  // namespace kumiki::inline v0
