#include <kumiki/netlink/neighbour.hpp>

#include "fuzz/fuzz.hpp"

using namespace kumiki;
using namespace kumiki_fuzz;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    each_message(data, size, [](const netlink_message& message) {
        const auto found = parse_neighbour(message);
        if (!found) return;
        (void)to_string(found->address);
        if (found->mac) (void)to_string(*found->mac);
    });
    return 0;
}
