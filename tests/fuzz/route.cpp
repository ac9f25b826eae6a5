#include <kumiki/netlink/route.hpp>

#include "fuzz/fuzz.hpp"

using namespace kumiki;
using namespace kumiki_fuzz;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    each_message(data, size, [](const netlink_message& message) {
        if (const auto route = parse_route(message)) (void)to_string(*route);
    });
    return 0;
}
