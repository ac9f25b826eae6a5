#include <kumiki/network/name_table.hpp>

#include "fuzz/fuzz.hpp"

using namespace kumiki;
using namespace kumiki_fuzz;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    std::vector<detail::name_element> all;
    each_message(data, size, [&](const netlink_message& message) {
        for (auto& each : detail::parse_names(message)) all.push_back(std::move(each));
    });
    const auto copy = all;
    const name_table table(std::move(all));
    for (const auto& each : copy)
        for (const ip_address& address : table.find(each.name))
            require(table.name_of(address).has_value());
    return 0;
}
