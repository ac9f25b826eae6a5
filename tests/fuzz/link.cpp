#include <kumiki/netlink/link_info.hpp>

#include "fuzz/fuzz.hpp"

using namespace kumiki;
using namespace kumiki_fuzz;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    each_message(data, size, [](const netlink_message& message) { (void)parse_link(message); });
    return 0;
}
