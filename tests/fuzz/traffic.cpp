#include <kumiki/netlink/traffic.hpp>

#include "fuzz/fuzz.hpp"

using namespace kumiki;
using namespace kumiki_fuzz;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    each_message(data, size, [](const netlink_message& message) {
        const auto found = parse_qdisc(message);
        require(found && found->kind.find('\0') == std::string::npos);
    });
    return 0;
}
