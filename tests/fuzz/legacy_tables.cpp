#include <kumiki/network/legacy_tables.hpp>

#include "fuzz/fuzz.hpp"

using namespace kumiki;
using namespace kumiki_fuzz;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    const auto bytes = bytes_of(data, size);
    const auto info = detail::read_structure<detail::legacy_table_info>(bytes);
    if (!info) return 0;
    const auto entries = bytes.subspan(sizeof *info);
    for (const ip_family family : {ip_family::v4, ip_family::v6})
        for (const auto hook : {nft::hook_point::input, nft::hook_point::forward})
            (void)detail::parse_legacy_entries(*info, entries, family, "km-web", hook);
    return 0;
}
